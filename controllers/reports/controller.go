// SPDX-License-Identifier: Apache-2.0

// Package reports copies what hosts report about servers, in their HostReports, to the
// status of the Servers on them.
package reports

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/reported"
	"hoststatus.dev/hoststatus/internal/retry"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// +kubebuilder:rbac:groups=agent.hoststatus.dev,resources=hostreports,verbs=get;list;watch
// +kubebuilder:rbac:groups=compute.hoststatus.dev,resources=servers,verbs=get;list;watch
// +kubebuilder:rbac:groups=compute.hoststatus.dev,resources=servers/status;computeservices/status,verbs=patch

const (
	// workers is how many hosts are worked on at once, and writesPerHost how many Servers
	// of one are written at once. A host that changes its report all the time occupies one
	// worker, and no more.
	workers       = 8
	writesPerHost = 4
	// restPerWrite is how long a host waits after each write that it caused: in the long
	// run it causes no more than fifty a second, whatever it reports. costOfCounts is how
	// many writes those of its counts are taken for, which are made at the level of
	// verdicts.
	restPerWrite = 20 * time.Millisecond
	costOfCounts = 10
	// goneAfter is when the counts of a host without a report are removed. An agent that
	// starts deletes its report and creates it.
	goneAfter = 30 * time.Second
)

// Reconciler keeps the reported fields of the Servers that hosts report on.
type Reconciler struct {
	client    client.Client
	clock     clock.PassiveClock
	conflicts retry.Limiter
	index     *index

	// others, if set, tells which Servers something else reports on: see LeaveOut.
	others func(*v1alpha1.Server) bool

	mu sync.Mutex
	// rests has when a host that caused writes may cause more.
	rests map[string]time.Time
	// news has the hosts whose Servers were written since their counts were last right.
	news map[string]bool
}

// NewReconciler returns a Reconciler. The client should read from a cache.
func NewReconciler(c client.Client, clk clock.PassiveClock) *Reconciler {
	return &Reconciler{client: c, clock: clk, conflicts: retry.NewLimiter(), index: newIndex(), rests: map[string]time.Time{}, news: map[string]bool{}}
}

// LeaveOut makes the controller leave the Servers alone of which others is true, because
// something else reports on them: two reporters would overwrite each other for ever. It is
// called before SetupWithManager.
func (r *Reconciler) LeaveOut(others func(*v1alpha1.Server) bool) *Reconciler {
	r.others = others
	return r
}

// concerns reports whether a host may report on a Server.
func (r *Reconciler) concerns(host string, server *v1alpha1.Server) bool {
	return server.Spec.Host == host && (r.others == nil || !r.others(server))
}

// SetupWithManager registers the controller. What wakes it, for the host:
//   - its HostReport, when it changes;
//   - a Server that is listed in it, when it appears, moves, disappears, has other
//     reported fields than the host's, or is left out from now on or no longer;
//   - its ComputeService, when it appears, or its counts change or are not there.
//
// It begins when this manager leads, and then waits for the list of HostReports for as
// long as that takes: where the kind is not installed, no other controller waits with it.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	return builder.ControllerManagedBy(mgr).
		Named("reports").
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: retry.NewLimiter(), CacheSyncTimeout: 1<<63 - 1}).
		Watches(&agentv1alpha1.HostReport{}, &reportEvents{index: r.index}).
		Watches(&v1alpha1.Server{}, &serverEvents{index: r.index, concerns: r.concerns}).
		Watches(&v1alpha1.ComputeService{}, serviceEvents(r.index)).
		Complete(retry.UntilStopped(r))
}

// Reconcile writes the reported fields of the Servers on a host that its report lists,
// where they differ, and the counts of the report.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	host := request.Name
	if rest := r.restOf(host); rest > 0 {
		return reconcile.Result{RequeueAfter: rest}, nil
	}
	report := r.index.get(host)
	servers, notHere, err := r.differing(ctx, host, report)
	if err != nil {
		return reconcile.Result{}, err
	}
	var writes errgroup.Group
	writes.SetLimit(writesPerHost)
	var conflict conflicts
	for _, one := range servers {
		writes.Go(func() error { return conflict.note(r.write(ctx, one)) })
	}
	err = writes.Wait()
	cost := len(servers)
	counted, countsErr := r.count(ctx, host, report, notHere, r.isNews(host, len(servers) > 0))
	if counted {
		cost += costOfCounts
	}
	r.rest(host, cost)
	if err := errors.Join(err, conflict.note(countsErr)); err != nil {
		return reconcile.Result{}, err
	}
	if conflict.any() {
		return reconcile.Result{RequeueAfter: r.conflicts.When(request)}, nil
	}
	r.conflicts.Forget(request)
	return reconcile.Result{}, nil
}

// difference is a Server and the reported fields that it should have.
type difference struct {
	server *v1alpha1.Server
	want   reported.Fields
}

// differing returns the Servers on a host whose reported fields are not those of its
// report, and how many servers in the report are not on the host.
func (r *Reconciler) differing(ctx context.Context, host string, report *agentv1alpha1.HostReport) (servers []difference, notHere int, err error) {
	if report == nil {
		return nil, 0, nil
	}
	for _, entry := range report.Spec.Servers {
		server := &v1alpha1.Server{}
		err := r.client.Get(ctx, keyOf(entry), server)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, 0, fmt.Errorf("reading a Server in the HostReport: %w", err)
		}
		if err != nil || !r.concerns(host, server) {
			notHere++
			continue
		}
		if want := fieldsOf(entry); !reported.Equal(want, reported.Of(&server.Status)) {
			servers = append(servers, difference{server, want})
		}
	}
	return servers, notHere, nil
}

// write sets the reported fields of a Server, if it is still as it was read: so it is
// still on the host.
func (r *Reconciler) write(ctx context.Context, d difference) error {
	err := statuspatch.Patch(ctx, r.client, d.server, reported.Of(&d.server.Status), d.want)
	if err != nil {
		return fmt.Errorf("writing the reported fields of Server %s: %w", client.ObjectKeyFromObject(d.server), err)
	}
	return nil
}

// counts is what this controller owns of a ComputeService's status.
type counts struct {
	Report *v1alpha1.ReportCounts `json:"report,omitempty"`
}

// count writes the counts of a report, if they are not right.
func (r *Reconciler) count(ctx context.Context, host string, report *agentv1alpha1.HostReport, notHere int, news bool) (written bool, err error) {
	service := &v1alpha1.ComputeService{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: host}, service); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	want, changed := countsOf(service.Status.Report, report, notHere, news)
	if changed {
		if err := statuspatch.Patch(ctx, r.client, service, counts{service.Status.Report}, counts{want}); err != nil {
			return false, fmt.Errorf("writing the counts of the HostReport: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.news, host)
	return changed, nil
}

// isNews reports whether Servers of a host were written, now or since its counts were
// last right: writing those can fail.
func (r *Reconciler) isNews(host string, now bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now {
		r.news[host] = true
	}
	return r.news[host]
}

// restOf returns how long a host has to wait.
func (r *Reconciler) restOf(host string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.rests[host]
	if !ok {
		return 0
	}
	if rest := until.Sub(r.clock.Now()); rest > 0 {
		return rest
	}
	delete(r.rests, host)
	return 0
}

// rest makes a host wait for the writes that it caused.
func (r *Reconciler) rest(host string, writes int) {
	if writes == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rests[host] = r.clock.Now().Add(time.Duration(writes) * restPerWrite)
}

// conflicts collects the errors that only mean that something has changed meanwhile.
type conflicts struct {
	mu   sync.Mutex
	some bool
}

// note returns err, unless it is one of those.
func (c *conflicts) note(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.some = true
		return nil
	default:
		return err
	}
}

func (c *conflicts) any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.some
}

func requestFor(host string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: host}}
}
