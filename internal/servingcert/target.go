// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// fieldManager owns the caBundle in the managedFields of a target.
const fieldManager = "hoststatus-serving-certificate"

// Target is the object that tells the API server where a server is and which
// authority to trust there. Without it, the server gets no requests.
type Target struct {
	kind     string
	name     string
	resource schema.GroupVersionResource
	// patchType is that of patch, which returns nil if obj trusts bundle already.
	patchType types.PatchType
	patch     func(obj object, bundle []byte) object
}

type object = map[string]any

// APIService is the target of an aggregated API server.
func APIService(name string) Target {
	return Target{
		kind: "APIService", name: name,
		resource:  schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
		patchType: types.MergePatchType,
		patch: func(obj object, bundle []byte) object {
			want := base64.StdEncoding.EncodeToString(bundle)
			if have, _, _ := unstructured.NestedString(obj, "spec", "caBundle"); have == want {
				return nil
			}
			return object{"spec": object{"caBundle": want}}
		},
	}
}

// ValidatingWebhookConfiguration is the target of an admission webhook. All of its
// entries must be served by that webhook.
func ValidatingWebhookConfiguration(name string) Target {
	return Target{
		kind: "ValidatingWebhookConfiguration", name: name,
		resource: schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"},
		// Merges the list by its names.
		patchType: types.StrategicMergePatchType,
		patch: func(obj object, bundle []byte) object {
			want := base64.StdEncoding.EncodeToString(bundle)
			entries, _, _ := unstructured.NestedSlice(obj, "webhooks")
			var changes []any
			for _, entry := range entries {
				entry, ok := entry.(object)
				if !ok {
					continue
				}
				if have, _, _ := unstructured.NestedString(entry, "clientConfig", "caBundle"); have != want {
					changes = append(changes, object{"name": entry["name"], "clientConfig": object{"caBundle": want}})
				}
			}
			if changes == nil {
				return nil
			}
			return object{"webhooks": changes}
		},
	}
}

// inject puts the authority into the target, unless it is there. The patch is
// conditional on the version it was made from: it must not bring back a webhook that
// has just been removed.
func (t Target) inject(ctx context.Context, client dynamic.Interface, bundle []byte) error {
	objects := client.Resource(t.resource)
	for {
		obj, err := objects.Get(ctx, t.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading %s %s: %w", t.kind, t.name, err)
		}
		patch := t.patch(obj.Object, bundle)
		if patch == nil {
			return nil
		}
		patch["metadata"] = object{"resourceVersion": obj.GetResourceVersion()}
		encoded, err := json.Marshal(patch)
		if err != nil {
			return fmt.Errorf("encoding the caBundle of %s %s: %w", t.kind, t.name, err)
		}
		_, err = objects.Patch(ctx, t.name, t.patchType, encoded, metav1.PatchOptions{FieldManager: fieldManager})
		switch {
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("writing the caBundle of %s %s: %w", t.kind, t.name, err)
		default:
			return nil
		}
	}
}

// watch calls seen with the target, now and whenever it changes, until ctx ends.
func (t Target) watch(ctx context.Context, client dynamic.Interface, seen func(object)) {
	objects := client.Resource(t.resource)
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, t.name).String()
	take := func(obj any) {
		if obj, ok := obj.(*unstructured.Unstructured); ok {
			seen(obj.Object)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.FieldSelector = only
				return objects.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.FieldSelector = only
				return objects.Watch(ctx, options)
			},
		}, client),
		ObjectType: &unstructured.Unstructured{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    take,
			UpdateFunc: func(_, obj any) { take(obj) },
		},
	})
	informer.RunWithContext(ctx)
}
