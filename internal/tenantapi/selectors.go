// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

const (
	fieldName      = "metadata.name"
	fieldNamespace = "metadata.namespace"
)

// selectors are what a caller selects by. They match only what the caller sees: a
// selector on anything else would be a way to find it out.
type selectors struct {
	labels labels.Selector
	fields fields.Selector
	// onHost is set if the caller selects by host status.
	onHost bool
	// uid is that of the only server that the caller can have selected, "" if there may be
	// others.
	uid types.UID
}

func newSelectors(options *metainternalversion.ListOptions) selectors {
	s := selectors{labels: labels.Everything(), fields: fields.Everything()}
	if options.LabelSelector != nil {
		s.labels = options.LabelSelector
	}
	if options.FieldSelector != nil {
		s.fields = options.FieldSelector
	}
	for _, r := range s.fields.Requirements() {
		s.onHost = s.onHost || r.Field == v1alpha1.HostStatusField
		if r.Field == v1alpha1.UIDField && r.Operator != selection.NotEquals {
			s.uid = types.UID(r.Value)
		}
	}
	return s
}

// admit refuses a selector on a field that g hides. The answer is the same
// whatever the selector asks and whether or not anything would match.
func (s selectors) admit(g grant) error {
	if s.onHost && g == grantNone {
		return apierrors.NewForbidden(v1alpha1.SchemeGroupVersion.WithResource(resourceServers).GroupResource(), "", errHostStatusHidden)
	}
	return nil
}

type constantError string

func (e constantError) Error() string { return string(e) }

const errHostStatusHidden = constantError("field selector " + v1alpha1.HostStatusField + ": you cannot select by host status here; " +
	"that needs get on servers/status or servers/unknownstatus in this namespace, and with all namespaces in all of them")

// matches reports whether a caller with grant g selects the server.
func (s selectors) matches(r *record, g grant) bool {
	if !s.labels.Matches(labels.Set(r.base.Labels)) {
		return false
	}
	if s.fields.Empty() {
		return true
	}
	visible := fields.Set{fieldName: r.known.name, fieldNamespace: r.known.namespace, v1alpha1.UIDField: string(r.base.UID)}
	if s.onHost && g.shows(r.host.HostStatus) && r.host.HostStatus != nil {
		visible[v1alpha1.HostStatusField] = string(*r.host.HostStatus)
	}
	return s.fields.Matches(visible)
}

// matchesBase reports whether s selects the server by anything but its host status.
func (s selectors) matchesBase(r *record) bool {
	base, err := s.fields.Transform(func(field, value string) (string, string, error) {
		if field == v1alpha1.HostStatusField {
			return "", "", nil
		}
		return field, value, nil
	})
	return err == nil && selectors{labels: s.labels, fields: base}.matches(r, grantNone)
}

// upstream returns selectors for the custom resource that match everything that s
// matches, and little else: they have the parts of s that mean the same there. none is
// true if s can match nothing.
func (s selectors) upstream(p *projector) (l labels.Selector, f fields.Selector, none bool) {
	l = labels.NewSelector()
	requirements, selectable := s.labels.Requirements()
	if !selectable {
		return l, fields.Everything(), true
	}
	var visible []labels.Requirement
	for _, r := range requirements {
		if p.visibleLabel(r.Key()) {
			visible = append(visible, r)
			continue
		}
		// The caller sees no server with this label.
		switch r.Operator() {
		case selection.NotIn, selection.NotEquals, selection.DoesNotExist:
		default:
			return l, fields.Everything(), true
		}
	}
	var terms []fields.Selector
	for _, r := range s.fields.Requirements() {
		if r.Field != fieldName && r.Field != fieldNamespace {
			continue
		}
		if r.Operator == selection.NotEquals {
			terms = append(terms, fields.OneTermNotEqualSelector(r.Field, r.Value))
		} else {
			terms = append(terms, fields.OneTermEqualSelector(r.Field, r.Value))
		}
	}
	// In one call, because each Add copies and sorts all requirements.
	return l.Add(visible...), fields.AndSelectors(terms...), false
}
