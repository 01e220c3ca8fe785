// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/retry"
)

// nodeCache has one Node, or none.
type nodeCache struct {
	cache.Cache
	node *corev1.Node
}

func (c nodeCache) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	node, ok := obj.(*corev1.Node)
	if c.node == nil || !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	c.node.DeepCopyInto(node)
	return nil
}

// services is a client with one ComputeService, or none, that notes what is written.
type services struct {
	client.Client
	service *v1alpha1.ComputeService
	writes  []string
	// err is what creating and applying are answered with.
	err error
}

func (c *services) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	service, ok := obj.(*v1alpha1.ComputeService)
	if c.service == nil || !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	c.service.DeepCopyInto(service)
	return nil
}

func (c *services) Create(context.Context, client.Object, ...client.CreateOption) error {
	c.writes = append(c.writes, "create")
	return c.err
}

func (c *services) Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error {
	c.writes = append(c.writes, "apply")
	return c.err
}

func (c *services) Delete(context.Context, client.Object, ...client.DeleteOption) error {
	c.writes = append(c.writes, "delete")
	return nil
}

func TestOnlyALeaderMirrors(t *testing.T) {
	for _, test := range []struct {
		name    string
		node    *corev1.Node
		service *v1alpha1.ComputeService
		leader  []string
	}{
		{"a new Node", nodeWith(), nil, []string{"create"}},
		{"a Node out of service", nodeWith(outOfServiceTaint), serviceWith(), []string{"apply"}},
		{"a Node that is gone", nil, serviceWith(), []string{"delete"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, leads := range []bool{false, true} {
				c := &services{service: test.service}
				r := NewReconciler(c, nodeCache{node: test.node}, labels.Everything(), func(string) (int, error) { return 0, nil }, func() bool { return leads })
				result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "n1"}})
				if err != nil {
					t.Fatal(err)
				}
				if !leads {
					if len(c.writes) > 0 || result.RequeueAfter != retry.ConflictDelay {
						t.Errorf("without leadership: wrote %q, comes again after %s", c.writes, result.RequeueAfter)
					}
				} else if diff := cmp.Diff(test.leader, c.writes); diff != "" {
					t.Errorf("with leadership (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestLeadershipThatEndsDuringTheCreationIsNoticed(t *testing.T) {
	c := &services{}
	r := NewReconciler(c, nodeCache{node: nodeWith(outOfServiceTaint)}, labels.Everything(), nil, func() bool { return !slices.Contains(c.writes, "create") })
	if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "n1"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"create"}, c.writes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An admission policy answers so, and nothing tells of its change.
func TestWhatTheAPIServerFindsInvalidIsTriedAgain(t *testing.T) {
	for name, service := range map[string]*v1alpha1.ComputeService{"a new Node": nil, "a Node out of service": serviceWith()} {
		t.Run(name, func(t *testing.T) {
			c := &services{service: service, err: apierrors.NewInvalid(schema.GroupKind{Kind: "ComputeService"}, "n1", nil)}
			r := NewReconciler(c, nodeCache{node: nodeWith(outOfServiceTaint)}, labels.Everything(), nil, func() bool { return true })
			result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "n1"}})
			if err != nil || len(c.writes) != 1 || result.RequeueAfter != refusedRetry {
				t.Errorf("wrote %q, comes again after %s, error %v", c.writes, result.RequeueAfter, err)
			}
		})
	}
}
