// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// view is the internal version of a tenant's Server: the object as this caller
// may see it, and how a table of it looks. The second must travel with the object,
// because a grant may change between two events of one watch.
type view struct {
	v1alpha1.Server
	// hostShown is set if the host fields are shown, whether or not there are any.
	hostShown bool
	// hostColumn is set if a table has the column HOST STATUS.
	hostColumn bool
	// lateHostColumn, if it is set, finds that out instead, once there is a table.
	lateHostColumn func(context.Context) bool
	// newColumns is set if the table's columns differ from those of the object that the
	// watch sent before.
	newColumns bool
}

// viewList is the internal version of a list of them.
type viewList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items      []view
	hostColumn bool
}

// viewOf returns what a caller with grant g sees of r, as of the version rv.
func viewOf(r *record, g grant, rv uint64) view {
	return view{Server: r.project(g, rv), hostShown: g.shows(r.host.HostStatus)}
}

// DeepCopyObject implements runtime.Object.
func (v *view) DeepCopyObject() runtime.Object {
	out := &view{hostShown: v.hostShown, hostColumn: v.hostColumn, lateHostColumn: v.lateHostColumn, newColumns: v.newColumns}
	v.DeepCopyInto(&out.Server)
	return out
}

// DeepCopyObject implements runtime.Object.
func (l *viewList) DeepCopyObject() runtime.Object {
	out := &viewList{TypeMeta: l.TypeMeta, Items: make([]view, len(l.Items)), hostColumn: l.hostColumn}
	out.ListMeta = *l.ListMeta.DeepCopy() //nolint:staticcheck // TypeMeta's would be another
	for i := range l.Items {
		out.Items[i].hostShown, out.Items[i].hostColumn, out.Items[i].newColumns = l.Items[i].hostShown, l.Items[i].hostColumn, l.Items[i].newColumns
		l.Items[i].DeepCopyInto(&out.Items[i].Server)
	}
	return out
}

// newScheme returns a scheme of the API as it is served, and the internal version behind
// it.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	internal := schema.GroupVersion{Group: v1alpha1.SchemeGroupVersion.Group, Version: runtime.APIVersionInternal}
	scheme.AddKnownTypeWithName(internal.WithKind("Server"), &view{})
	scheme.AddKnownTypeWithName(internal.WithKind("ServerList"), &viewList{})
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, addConversions} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("registering the kinds: %w", err)
		}
	}
	if err := scheme.SetVersionPriority(v1alpha1.SchemeGroupVersion); err != nil {
		return nil, fmt.Errorf("ordering the versions: %w", err)
	}
	// What every API serves besides its own kinds.
	core := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, core)
	scheme.AddUnversionedTypes(core, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return scheme, nil
}

func addConversions(scheme *runtime.Scheme) error {
	err := scheme.AddConversionFunc((*view)(nil), (*v1alpha1.Server)(nil), func(a, b any, _ conversion.Scope) error {
		*b.(*v1alpha1.Server) = a.(*view).Server
		return nil
	})
	if err != nil {
		return err
	}
	err = scheme.AddConversionFunc((*viewList)(nil), (*v1alpha1.ServerList)(nil), func(a, b any, _ conversion.Scope) error {
		in, out := a.(*viewList), b.(*v1alpha1.ServerList)
		out.ListMeta = in.ListMeta
		out.Items = make([]v1alpha1.Server, len(in.Items))
		for i := range in.Items {
			out.Items[i] = in.Items[i].Server
		}
		return nil
	})
	if err != nil {
		return err
	}
	return scheme.AddFieldLabelConversionFunc(v1alpha1.SchemeGroupVersion.WithKind("Server"), func(label, value string) (string, string, error) {
		switch label {
		case fieldName, fieldNamespace, v1alpha1.UIDField, v1alpha1.HostStatusField:
			return label, value, nil
		}
		return "", "", fmt.Errorf("field selector: %q is not a field that servers can be selected by; use %s, %s, %s or %s",
			label, fieldName, fieldNamespace, v1alpha1.UIDField, v1alpha1.HostStatusField)
	})
}

// textSerializer serves JSON and YAML. The kinds have no protobuf form, so negotiation
// must not choose it for a client that prefers it.
type textSerializer struct{ serializer.CodecFactory }

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (s textSerializer) SupportedMediaTypes() []runtime.SerializerInfo {
	var infos []runtime.SerializerInfo
	for _, info := range s.CodecFactory.SupportedMediaTypes() {
		if info.MediaType == runtime.ContentTypeJSON || info.MediaType == runtime.ContentTypeYAML {
			infos = append(infos, info)
		}
	}
	return infos
}

// computeScheme returns a scheme of the custom resources that the view is made from.
func computeScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := computev1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the custom resources: %w", err)
	}
	return scheme, nil
}
