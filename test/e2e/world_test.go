// SPDX-License-Identifier: Apache-2.0

// Package e2e shows what hoststatus promises, on a real control plane with the
// real binaries under the shipped roles.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	agentlease "hoststatus.dev/hoststatus/internal/agent/lease"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// fleet is what all tests share: the sample fleet, beside which each test makes
// hosts of its own.
var (
	system *fleet.Fleet
	kube   *kubernetes.Clientset
)

func TestMain(m *testing.M) { os.Exit(fleet.RunTests(m, "e2e", start, refusals)) }

func start(ctx context.Context, dir string) (_ *fleet.Fleet, err error) {
	if audit, err = newAuditLog(dir); err != nil {
		return nil, err
	}
	system, err = fleet.Start(ctx, fleet.Options{
		Dir: filepath.Join(dir, "fleet"), LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: os.Stdout,
		APIServerArgs: audit.apiServerArgs(),
	})
	if err != nil {
		return nil, err
	}
	config, err := system.Cluster.AdminConfig()
	if err == nil {
		kube, err = kubernetes.NewForConfig(config)
	}
	return system, err
}

// refusals looks for rights that our processes lacked in any of the tests.
func refusals() (code int) {
	r, err := audit.read("hoststatus-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, request := range r.refused {
		fmt.Printf("RBAC has refused %s to %s %s\n", request.user, request.verb, request.path)
		code = 1
	}
	return code
}

// leases is the client for heartbeats.
func leases() coordinationclient.LeaseInterface {
	return kube.CoordinationV1().Leases(v1alpha1.DefaultLeaseNamespace)
}

// newService makes a ComputeService that is deleted after the test.
func newService(t *testing.T, name string, modify ...func(*v1alpha1.ComputeService)) *v1alpha1.ComputeService {
	t.Helper()
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, m := range modify {
		m(service)
	}
	expect.NoError(t, system.Client.Create(t.Context(), service))
	t.Cleanup(func() {
		// The webhook may not have seen yet that its servers are gone.
		err := expect.Poll(context.Background(), patience, func() error {
			return client.IgnoreNotFound(system.Client.Delete(context.Background(), service))
		})
		if err != nil {
			t.Error(err)
		}
		err = leases().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err := client.IgnoreNotFound(err); err != nil {
			t.Error(err)
		}
	})
	return service
}

// newServer makes a Server that is deleted after the test.
func newServer(t *testing.T, namespace, name, host string) *v1alpha1.Server {
	t.Helper()
	server := &v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.ServerSpec{Host: host},
	}
	expect.NoError(t, system.Client.Create(t.Context(), server))
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(system.Client.Delete(context.Background(), server)); err != nil {
			t.Error(err)
		}
	})
	return server
}

// patch merges body into obj.
func patch(t *testing.T, obj client.Object, body string) {
	t.Helper()
	expect.NoError(t, system.Client.Patch(t.Context(), obj, client.RawPatch(types.MergePatchType, []byte(body))))
}

func withDuration(d time.Duration) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) { s.Spec.LeaseDurationSeconds = int32(d / time.Second) }
}

// hostIs checks the host status of a ComputeService.
func hostIs(name string, want v1alpha1.HostStatus) func() error {
	return func() error {
		var service v1alpha1.ComputeService
		if err := system.Client.Get(context.Background(), client.ObjectKey{Name: name}, &service); err != nil {
			return err
		}
		if got := service.Status.HostStatus; got == nil || *got != want {
			return fmt.Errorf("ComputeService %s has host status %s (%s), not %q", name, fleet.Show(got), service.Status.HostStatusReason, want)
		}
		return nil
	}
}

// serverIs checks the host status of a Server, and its reason.
func serverIs(namespace, name string, want v1alpha1.HostStatus, reason v1alpha1.HostStatusReason) func() error {
	return func() error {
		var server v1alpha1.Server
		if err := system.Client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, &server); err != nil {
			return err
		}
		if got := server.Status.HostStatus; got == nil || *got != want || server.Status.HostStatusReason != reason {
			return fmt.Errorf("server %s has host status %s (%s), not %q (%s)", name, fleet.Show(got), server.Status.HostStatusReason, want, reason)
		}
		return nil
	}
}

// patience is how long something may take that is not timed: this machine may be busy with
// something else.
const patience = time.Minute

// kubectl runs kubectl as administrator and returns what it prints.
func kubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := system.Kubectl(t.Context(), args...).CombinedOutput()
	return string(out), err
}

// skewedClock is a clock that is off by as much as it is told.
type skewedClock struct {
	clock.RealClock
	by time.Duration
}

func (c skewedClock) Now() time.Time                  { return time.Now().Add(c.by) }
func (c skewedClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// host renews the Lease of a host by the agent's own code, until it is told to
// fall silent.
type host struct {
	name    string
	silence func()
	done    chan struct{}

	coordinationclient.LeaseInterface
	// lease is the last one written, by who renews by hand.
	lease *coordinationv1.Lease

	mu              sync.Mutex
	sent, confirmed time.Time
}

// newHost starts a host. It falls silent with the test, if not before.
func newHost(t *testing.T, name string, duration, interval, skew time.Duration) *host {
	t.Helper()
	return newReporter(t, leases(), name, duration, interval, skew)
}

// newReporter is newHost with another place for the Lease.
func newReporter(t *testing.T, where coordinationclient.LeaseInterface, name string, duration, interval, skew time.Duration) *host {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &host{name: name, silence: cancel, done: make(chan struct{}), LeaseInterface: where}
	beat := agentlease.Heartbeat{
		Leases: h, Name: name, Duration: duration, Interval: interval,
		Clock: skewedClock{by: skew}, Logger: klog.Background(),
	}
	go func() {
		defer close(h.done)
		beat.Run(ctx)
	}()
	t.Cleanup(h.stop)
	return h
}

// stop lets the host fall silent and returns once it has.
func (h *host) stop() {
	h.silence()
	<-h.done
}

// last returns when the last renewal was sent, and when it was confirmed.
func (h *host) last() (sent, confirmed time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sent, h.confirmed
}

func (h *host) note(sent time.Time, err error) {
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.sent, h.confirmed = sent, time.Now()
	}
}

// Create and Update note when renewals were sent.
func (h *host) Create(ctx context.Context, l *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	sent := time.Now()
	out, err := h.LeaseInterface.Create(ctx, l, o)
	h.note(sent, err)
	return out, err
}

func (h *host) Update(ctx context.Context, l *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	sent := time.Now()
	out, err := h.LeaseInterface.Update(ctx, l, o)
	h.note(sent, err)
	return out, err
}

// record watches list from now on, and notes each change of a host status with
// the moment at which it was seen.
type record struct {
	mu      sync.Mutex
	changes map[string][]change
}

type change struct {
	status string
	at     time.Time
}

func newRecord(t *testing.T, list client.ObjectList) *record {
	t.Helper()
	config, err := system.Cluster.AdminConfig()
	expect.NoError(t, err)
	watcher, err := client.NewWithWatch(config, client.Options{Scheme: system.Client.Scheme()})
	expect.NoError(t, err)
	expect.NoError(t, system.Client.List(t.Context(), list))
	r := &record{changes: map[string][]change{}}
	stream, err := watcher.Watch(t.Context(), list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}})
	expect.NoError(t, err)
	t.Cleanup(stream.Stop)
	go func() {
		for event := range stream.ResultChan() {
			r.take(event)
		}
	}()
	return r
}

func (r *record) take(event watch.Event) {
	var name string
	var status *v1alpha1.HostStatus
	switch obj := event.Object.(type) {
	case *v1alpha1.ComputeService:
		name, status = obj.Name, obj.Status.HostStatus
	case *v1alpha1.Server:
		name, status = obj.Name, obj.Status.HostStatus
	default:
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.changes[name]
	if shown := strings.Trim(fleet.Show(status), `"`); len(seen) == 0 || seen[len(seen)-1].status != shown {
		r.changes[name] = append(seen, change{status: shown, at: now})
	}
}

// of returns the changes of one object.
func (r *record) of(name string) []change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.changes[name])
}

// latest returns the last status that was seen of one object.
func (r *record) latest(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seen := r.changes[name]; len(seen) > 0 {
		return seen[len(seen)-1].status
	}
	return "unseen"
}

// has checks that the last status that was seen of one object is this one, and so that what
// was before is there, too: the watch may be later than a read.
func (r *record) has(name string, status v1alpha1.HostStatus) func() error {
	return func() error {
		if latest := r.latest(name); latest != string(status) {
			return fmt.Errorf("the watch has %s as %s, not %s", name, latest, status)
		}
		return nil
	}
}

// first returns when name first became status.
func (r *record) first(name string, status v1alpha1.HostStatus) (time.Time, bool) {
	for _, c := range r.of(name) {
		if c.status == string(status) {
			return c.at, true
		}
	}
	return time.Time{}, false
}

// probe measures, while a test runs, how long the machine takes for a bare write
// of a Lease and for a timer: what a test waits for cannot be faster than that.
type probe struct {
	stop chan struct{}
	done chan struct{}
	max  time.Duration
}

func newProbe(t *testing.T) *probe {
	t.Helper()
	name := strings.ToLower(t.Name()) + "-probe"
	lease, err := leases().Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(name, "/", "-")}}, metav1.CreateOptions{})
	expect.NoError(t, err)
	p := &probe{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		const pause = 50 * time.Millisecond
		for {
			begin := time.Now()
			select {
			case <-p.stop:
				_ = leases().Delete(context.Background(), lease.Name, metav1.DeleteOptions{})
				return
			case <-time.After(pause):
			}
			lease.Spec.HolderIdentity = ptr.To(begin.String())
			if updated, err := leases().Update(context.Background(), lease, metav1.UpdateOptions{}); err == nil {
				lease = updated
			}
			p.max = max(p.max, time.Since(begin)-pause)
		}
	}()
	t.Cleanup(func() { p.end() })
	return p
}

// end stops the probe and returns the longest time that it measured.
func (p *probe) end() time.Duration {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	<-p.done
	return p.max
}
