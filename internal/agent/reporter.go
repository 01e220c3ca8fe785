// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	applyv1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

const (
	// fieldManager owns what is reported about a VM.
	fieldManager = "hoststatus-agent"
	// reportAgainAfter is when a report that has not changed is applied once
	// more, in case the Server was recreated. If it was not, nothing is written.
	reportAgainAfter = 5 * time.Minute
	// firstBackOff and lastBackOff bound how soon a report that was refused is tried
	// again. The cause may end unnoticed (spec.host names this host only when a migration
	// is over), and then the report should arrive within five seconds.
	firstBackOff = time.Second
	lastBackOff  = 4 * time.Second
	// retryGap is the least time between two retries, of any servers: a host whose every
	// report is refused, among a thousand like it, sends two small requests a second, one
	// at a time. So up to eight servers of a host are each tried every lastBackOff; with
	// more, each waits for its turn, or for the first one that is accepted, upon which all
	// are tried at once: they are likely to have the same cause.
	retryGap = 500 * time.Millisecond
	// reportTimeout ends a report that hangs.
	reportTimeout = 10 * time.Second
)

// Reporter applies what the driver knows to the status of the Servers, one request at
// a time.
type Reporter struct {
	driver Driver
	client rest.Interface
	log    logr.Logger
	// onConnectionFailure, if set, is called after a request that got no answer, so that
	// the next request can use a fresh connection.
	onConnectionFailure func()

	// wake has a value when there may be something to do sooner.
	wake chan struct{}

	mu      sync.Mutex
	servers map[types.NamespacedName]*record
	// nextRetry is when the next retry is allowed, and nextRound when all may be tried at
	// once again.
	nextRetry, nextRound time.Time
}

// record is what to report about one server, and how that went.
type record struct {
	vm VM // as the driver reported it
	// due is when it is reported next.
	due time.Time
	// failures is how often in a row it was refused.
	failures int
	// atOnce exempts the next try from retryGap.
	atOnce bool
	// logged are the notes that were last logged.
	logged string
}

// NewReporter returns a Reporter. client speaks the group compute.hoststatus.dev.
func NewReporter(driver Driver, client rest.Interface, log logr.Logger) *Reporter {
	return &Reporter{
		driver:  driver,
		client:  client,
		log:     log,
		wake:    make(chan struct{}, 1),
		servers: map[types.NamespacedName]*record{},
	}
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	var worker sync.WaitGroup
	worker.Go(func() { r.work(working) })
	err := r.driver.Run(ctx, r.take)
	if err == nil {
		<-ctx.Done()
	}
	stop()
	worker.Wait()
	return err
}

// take records what the driver knows now; what is new is due. A VM that has left the host
// is no longer reported; its Server keeps the last report.
func (r *Reporter) take(vms []VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := make(map[types.NamespacedName]*record, len(vms))
	for _, vm := range vms {
		before, ok := r.servers[vm.Server]
		switch {
		case !ok:
			now[vm.Server] = &record{vm: vm, due: time.Now()}
		case reflect.DeepEqual(before.vm, vm):
			now[vm.Server] = before
		default:
			now[vm.Server] = &record{vm: vm, due: time.Now(), failures: before.failures, atOnce: true, logged: before.logged}
		}
	}
	r.servers = now
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Reporter) work(ctx context.Context) {
	for ctx.Err() == nil {
		next, wait := r.next()
		if next == nil || wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-r.wake:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		notes, err := r.report(ctx, next.vm)
		if ctx.Err() != nil {
			return // Cut short; that shows nothing about the server.
		}
		r.done(next, notes, err)
	}
}

// next returns the record that is due next, and how long it still has to wait.
func (r *Reporter) next() (next *record, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var first time.Time
	for _, one := range r.servers {
		due := one.due
		if one.failures > 0 && !one.atOnce && due.Before(r.nextRetry) {
			due = r.nextRetry
		}
		// Of two that may go now, the one that has waited for longer.
		if next == nil || due.Before(first) || due.Equal(first) && one.due.Before(next.due) {
			next, first = one, due
		}
	}
	if next == nil {
		return nil, reportAgainAfter
	}
	if wait = first.Sub(now); wait <= 0 && next.failures > 0 && !next.atOnce {
		r.nextRetry = now.Add(retryGap)
	}
	return next, wait
}

// done records how a report went, and sets when the next one is due.
func (r *Reporter) done(one *record, notes []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.servers[one.vm.Server]
	if current == nil {
		return // It has left the host meanwhile.
	}
	now := time.Now()
	before := current.failures
	if err == nil {
		current.failures = 0
	} else {
		current.failures++
	}
	if current == one { // Otherwise there is news of it, which is due already.
		one.atOnce = false
		one.due = now.Add(shorten(reportAgainAfter))
		if err != nil {
			one.due = now.Add(shorten(min(firstBackOff<<min(before, 8), lastBackOff)))
		}
	}
	if err == nil && before > 0 && !now.Before(r.nextRound) {
		r.nextRound = now.Add(firstBackOff)
		for _, other := range r.servers {
			if other.failures > 0 {
				other.due, other.atOnce = now, true
			}
		}
	}
	r.logOutcome(current, notes, before, err)
}

// report applies what can be reported about a VM. The notes list what is left out.
func (r *Reporter) report(ctx context.Context, vm VM) (notes []string, err error) {
	vm, notes = normalise(vm)
	err = r.apply(ctx, vm)
	if bare := (VM{Server: vm.Server, State: vm.State, PowerState: vm.PowerState}); unfit(err) && !reflect.DeepEqual(bare, vm) {
		// The API server has a rule that we do not know. Send at least what matters most.
		if r.apply(ctx, bare) == nil {
			return append(notes, "reported without networks and task state: "+err.Error()), nil
		}
	}
	return notes, err
}

// unfit reports whether the API server refused a request for its content.
func unfit(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// apply writes the reported fields of one Server, and no others.
func (r *Reporter) apply(ctx context.Context, vm VM) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	status := applyv1alpha1.ServerStatus()
	if vm.State != "" {
		status.WithState(vm.State)
	}
	if vm.TaskState != "" {
		status.WithTaskState(vm.TaskState)
	}
	if vm.PowerState != "" {
		status.WithPowerState(vm.PowerState)
	}
	for _, n := range vm.Networks {
		network := applyv1alpha1.ServerNetwork().WithName(n.Name)
		network.Addresses = n.Addresses
		status.WithNetworks(network)
	}
	body, err := json.Marshal(applyv1alpha1.Server(vm.Server.Name, vm.Server.Namespace).WithStatus(status))
	if err != nil {
		return fmt.Errorf("encoding a report: %w", err)
	}
	// It is retried here, and not by the client, which would wait as long as the answer asks.
	err = r.client.Patch(types.ApplyPatchType).MaxRetries(0).
		Namespace(vm.Server.Namespace).Resource("servers").Name(vm.Server.Name).SubResource("status").
		Param("fieldManager", fieldManager).Param("force", "true").
		Body(body).Do(ctx).Error()
	if err != nil && !isAnswer(err) && r.onConnectionFailure != nil {
		r.onConnectionFailure()
	}
	return err
}

// logOutcome logs when a report begins to fail and when it works again, and what is left
// out of it when that changes. Refused or not found means that the Server is not on this
// host, or does not exist yet.
func (r *Reporter) logOutcome(one *record, notes []string, failures int, err error) {
	log := r.log.WithValues("Server", one.vm.Server.String())
	if joined := strings.Join(notes, "; "); joined != one.logged {
		one.logged = joined
		if joined != "" {
			log.Info("Some of what the driver reports about a server cannot be sent; sending the rest", "notes", notes)
		}
	}
	switch {
	case err == nil && failures > 0:
		log.Info("Report accepted again")
	case err != nil && failures == 0 && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)):
		log.Info("Server is not on this host or does not exist; retrying", "answer", err.Error())
	case err != nil && failures == 0:
		log.Error(err, "Report failed; retrying")
	}
}
