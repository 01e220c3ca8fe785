// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// recommendedLabelPrefix is that of the labels that Kubernetes recommends to application
// owners. Owners write them themselves.
const recommendedLabelPrefix = "app.kubernetes.io/"

// trackingLabel is the label by which Argo CD, up to version 2 by default, recognises its
// objects. If the view showed it, Argo CD would try to prune the view's object, which is
// not in git and cannot be deleted.
const trackingLabel = recommendedLabelPrefix + "instance"

// projector makes the owner's view of the custom resource. It names what is shown;
// whatever a later version of the custom resource has is hidden until it is named here,
// or in the HostFields.
type projector struct {
	// hostIDKey is the secret key of the host ids.
	hostIDKey []byte
	// labelPrefixes are those whose labels are shown besides the un-prefixed ones
	// and app.kubernetes.io/.
	labelPrefixes sets.Set[string]
}

// record is one version of a Server in two parts: what anyone who may read the server
// sees, and the host fields, which are shown as granted. A record is shared by all
// callers and, but for before, never changed.
type record struct {
	base *v1alpha1.Server
	// host is shown: what is stored, or newer, as of the version since.
	host   computev1alpha1.HostFields
	stored hoststatus.Copy
	// on is the host that the server names.
	on    string
	rv    uint64
	since uint64
	known key
	// shownAt is the resourceVersion that callers with each grant are shown: its own only
	// if it brought something that they see.
	shownAt versions
	// copiedAt is the version at which the copy in it was stored.
	copiedAt uint64
	// moved is set from when the server names another host until its controller has copied
	// that.
	moved bool
	// before is the same version of the server with what it showed of its host before, for
	// as long as the feed's history has that. The feed's lock protects it.
	before *record
}

// recordSize is about how many bytes a record takes without its base.
const recordSize = 768

// asOf returns r as it was at a version.
func (r *record) asOf(rv uint64) *record {
	for r.since > rv && r.before != nil {
		r = r.before
	}
	return r
}

// size is about how many bytes a version takes, none if there is none.
func (r *record) size() int {
	if r == nil {
		return 0
	}
	const (
		fixed = 1<<10 + recordSize
		each  = 96 // A text of usual length, with its header.
	)
	texts := 2 * len(r.base.Labels)
	for i := range r.base.Status.Networks {
		texts += 1 + len(r.base.Status.Networks[i].Addresses)
	}
	return fixed + each*texts
}

// key identifies a server.
type key struct{ namespace, name string }

// record projects a Server.
func (p *projector) record(in *computev1alpha1.Server) (*record, error) {
	rv, err := parseResourceVersion(in.ResourceVersion)
	if err != nil {
		return nil, fmt.Errorf("reading a server: %w", err)
	}
	r := &record{base: &v1alpha1.Server{}, rv: rv, known: key{in.Namespace, in.Name}, on: in.Spec.Host, shownAt: versions{rv, rv, rv}}
	r.base.ObjectMeta = metav1.ObjectMeta{
		Name:              in.Name,
		Namespace:         in.Namespace,
		UID:               in.UID,
		CreationTimestamp: in.CreationTimestamp,
		Labels:            p.visibleLabels(in.Labels),
		// A client that waits for the deletion has to see that it has begun. So does the
		// garbage collector where an owner reference names this group, which looks for its
		// own finalizer as well.
		DeletionTimestamp:          in.DeletionTimestamp,
		DeletionGracePeriodSeconds: in.DeletionGracePeriodSeconds,
	}
	if slices.Contains(in.Finalizers, metav1.FinalizerDeleteDependents) {
		r.base.Finalizers = []string{metav1.FinalizerDeleteDependents}
	}
	r.base.Status = v1alpha1.ServerStatus{
		State:      in.Status.State,
		TaskState:  in.Status.TaskState,
		PowerState: in.Status.PowerState,
		Networks:   printableNetworks(in.Status.Networks),
		HostID:     hostID(p.hostIDKey, in.Namespace, in.Spec.Host),
	}
	r.host = in.Status.HostFields
	r.stored = hoststatus.Copy{Current: in.Status.ObservedGeneration == in.Generation, Fields: in.Status.HostFields}
	// What is none is as if it were absent: whoever may write one server must not spoil the
	// view of all.
	if version, err := parseResourceVersion(in.Status.HostVersion); err == nil {
		r.stored.Version = version
	}
	return r, nil
}

// project returns the server as a caller with grant g sees it, as of the version rv.
func (r *record) project(g grant, rv uint64) v1alpha1.Server {
	out := *r.base
	out.ResourceVersion = strconv.FormatUint(rv, 10)
	if g.shows(r.host.HostStatus) {
		out.Status.HostFields = r.host
		if g != grantFull {
			// Of a server that is UNKNOWN, what it was before is not to be seen.
			out.Status.HostHistory = r.host.HostHistory[:min(len(r.host.HostHistory), 1):min(len(r.host.HostHistory), 1)]
			if len(out.Status.HostHistory) > 0 && !g.shows(out.Status.HostHistory[0].HostStatus) {
				out.Status.HostHistory = nil
			}
		}
	}
	return out
}

// visibleLabel reports whether owners see the label of this key.
func (p *projector) visibleLabel(label string) bool {
	prefix, _, prefixed := strings.Cut(label, "/")
	return !prefixed || p.labelPrefixes.Has(prefix) || prefix+"/" == recommendedLabelPrefix && label != trackingLabel
}

func (p *projector) visibleLabels(in map[string]string) map[string]string {
	var out map[string]string
	for label, value := range in {
		if !p.visibleLabel(label) {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(in))
		}
		out[label] = value
	}
	return out
}

// sameBase reports whether two versions of a server look the same to a caller without any
// grant.
func sameBase(a, b *record) bool {
	return a.base.UID == b.base.UID &&
		a.base.DeletionTimestamp.Equal(b.base.DeletionTimestamp) &&
		ptr.Equal(a.base.DeletionGracePeriodSeconds, b.base.DeletionGracePeriodSeconds) &&
		slices.Equal(a.base.Finalizers, b.base.Finalizers) &&
		apiequality.Semantic.DeepEqual(a.base.Labels, b.base.Labels) &&
		apiequality.Semantic.DeepEqual(a.base.Status, b.base.Status)
}

// parseResourceVersion reads a resourceVersion, which is etcd's revision: the API
// machinery guarantees that custom resources' can be compared.
func parseResourceVersion(s string) (uint64, error) {
	rv, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q is not a number", s)
	}
	return rv, nil
}
