// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// Hosts and servers are made, changed, moved and deleted by several hands at once,
// and some write what is not theirs. Once they stop, each server's host fields are
// those of its host.
func TestEveryServerHasTheStatusOfItsHostAfterManyHandsHaveBeenAtWork(t *testing.T) {
	const hosts, servers, hands, operations = 8, 50, 4, 75
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	created, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "many-hands-"}}, metav1.CreateOptions{})
	expect.NoError(t, err)
	namespace := created.Name
	hostName := func(n int) string { return fmt.Sprintf("hands-%d", n) }
	for n := range hosts {
		if n%2 == 0 {
			newHost(t, hostName(n), time.Minute, 10*time.Second, 0)
		}
		newService(t, hostName(n))
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := kube.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		for n := range hosts {
			service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: hostName(n)}}
			if err := client.IgnoreNotFound(system.Client.Delete(ctx, service)); err != nil {
				t.Error(err)
			}
		}
	})
	hand := hand{namespace: namespace, hosts: hosts, servers: servers, hostName: hostName}
	for n := range servers {
		expect.NoError(t, hand.createServer(t.Context(), n, hostName(n%(hosts+1)))) // Some on none that exists.
	}
	var working sync.WaitGroup
	for n := range hands {
		working.Go(func() {
			mine := hand
			mine.Rand = rand.New(rand.NewPCG(seed, uint64(n)))
			for range operations {
				err := mine.doAnything(t.Context())
				if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	expect.Eventually(t, patience, func() error { return everyServerIsAsItsHost(t.Context(), namespace) })
}

// hand is somebody who changes things at random.
type hand struct {
	*rand.Rand
	namespace      string
	hosts, servers int
	hostName       func(int) string
}

func (h hand) createServer(ctx context.Context, n int, host string) error {
	return system.Client.Create(ctx, &v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: fmt.Sprintf("vm-%d", n)},
		Spec:       v1alpha1.ServerSpec{Host: host},
	})
}

func (h hand) doAnything(ctx context.Context) error {
	merge := func(body string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(body)) }
	n := h.IntN(h.servers)
	server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: fmt.Sprintf("vm-%d", n)}}
	host := h.hostName(h.IntN(h.hosts))
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}}
	switch h.IntN(12) {
	case 0, 1:
		return system.Client.Patch(ctx, server, merge(`{"spec":{"host":"`+host+`"}}`))
	case 2:
		return system.Client.Patch(ctx, server, merge(`{"spec":{"host":null}}`))
	case 3:
		if err := system.Client.Delete(ctx, server); err != nil {
			return err
		}
		return h.createServer(ctx, n, host)
	case 4:
		return system.Client.Status().Patch(ctx, server, merge(`{"status":null}`))
	case 5:
		return system.Client.Status().Patch(ctx, server, merge(`{"status":{"hostStatus":"DOWN","hostStatusReason":"ForcedDown","state":"ACTIVE"}}`))
	case 6:
		if err := system.Client.Delete(ctx, service); err != nil {
			return err
		}
		if h.IntN(4) == 0 {
			return nil // Gone, until somebody makes it again.
		}
		return system.Client.Create(ctx, &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}})
	case 7:
		return system.Client.Create(ctx, service)
	case 8:
		return system.Client.Status().Patch(ctx, service, merge(`{"status":null}`))
	case 9:
		start := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		return system.Client.Patch(ctx, service, merge(fmt.Sprintf(`{"spec":{"maintenanceWindow":{"startTime":%q}}}`, start)))
	case 10:
		return system.Client.Patch(ctx, service, merge(fmt.Sprintf(`{"spec":{"forcedDown":%t}}`, h.IntN(2) == 0)))
	default:
		return system.Client.Patch(ctx, service, merge(fmt.Sprintf(`{"spec":{"disabled":%t,"maintenanceWindow":null}}`, h.IntN(2) == 0)))
	}
}

func everyServerIsAsItsHost(ctx context.Context, namespace string) error {
	var services v1alpha1.ComputeServiceList
	var servers v1alpha1.ServerList
	if err := errors.Join(system.Client.List(ctx, &services), system.Client.List(ctx, &servers, client.InNamespace(namespace))); err != nil {
		return err
	}
	byName := map[string]*v1alpha1.ComputeService{}
	for i := range services.Items {
		byName[services.Items[i].Name] = &services.Items[i]
	}
	for _, s := range servers.Items {
		want, ok := hoststatus.ForServer(s.Spec.Host, byName[s.Spec.Host])
		if !ok {
			return fmt.Errorf("the status of %s does not stand for its spec yet", s.Spec.Host)
		}
		got := s.Status.HostFields
		if got.HostStatusTransitionTime.Before(want.HostStatusTransitionTime) {
			return fmt.Errorf("%s changed at %v, before %s, which did at %v", s.Name, got.HostStatusTransitionTime, s.Spec.Host, want.HostStatusTransitionTime)
		}
		got.HostStatusTransitionTime, want.HostStatusTransitionTime = nil, nil // The server's can be its own.
		got.HostHistory = nil                                                  // It is.
		if w := want.MaintenanceWindow; w != nil {
			w.Answer = v1alpha1.AnswerStateNone // Nobody answers here.
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("%s on %s (-want +got):\n%s", s.Name, s.Spec.Host, diff)
		}
		if s.Status.ObservedGeneration != s.Generation || s.Status.HostStatusTransitionTime == nil {
			return fmt.Errorf("%s has observed generation %d of %d, and changed at %v", s.Name, s.Status.ObservedGeneration, s.Generation, s.Status.HostStatusTransitionTime)
		}
	}
	return nil
}
