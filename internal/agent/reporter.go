// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	applyv1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

const (
	// fieldManager owns what is reported of a VM.
	fieldManager = "hoststatus-agent"
	// reportAgainAfter is when a report that has not changed is applied once
	// more, in case the Server was made anew. If it was not, nothing is written.
	reportAgainAfter = 5 * time.Minute
	// firstBackOff and lastBackOff bound how soon a report that was refused is
	// tried again.
	firstBackOff = time.Second
	lastBackOff  = 5 * time.Minute
	// reportTimeout ends a report that hangs.
	reportTimeout = 10 * time.Second
)

// Reporter applies what the driver knows to the status of the Servers.
type Reporter struct {
	driver Driver
	client rest.Interface
	log    logr.Logger
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu      sync.Mutex
	vms     map[types.NamespacedName]VM
	refused map[types.NamespacedName]bool
}

// NewReporter returns a Reporter. client speaks the group compute.hoststatus.dev.
func NewReporter(driver Driver, client rest.Interface, log logr.Logger) *Reporter {
	return &Reporter{
		driver: driver,
		client: client,
		log:    log,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstBackOff, lastBackOff)),
		vms:     map[types.NamespacedName]VM{},
		refused: map[types.NamespacedName]bool{},
	}
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	var worker sync.WaitGroup
	worker.Go(func() { r.work(ctx) })
	err := r.driver.Run(ctx, r.take)
	if err == nil {
		<-ctx.Done()
	}
	r.queue.ShutDown()
	worker.Wait()
	return err
}

// take notes what the driver knows now, and queues what is new. A VM that has
// left the host is no longer reported; its last record stays.
func (r *Reporter) take(vms []VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := make(map[types.NamespacedName]VM, len(vms))
	for _, vm := range vms {
		now[vm.Server] = vm
		if before, ok := r.vms[vm.Server]; !ok || !reflect.DeepEqual(before, vm) {
			r.queue.Add(vm.Server)
		}
	}
	for server := range r.refused {
		if _, ok := now[server]; !ok {
			delete(r.refused, server)
		}
	}
	r.vms = now
}

func (r *Reporter) work(ctx context.Context) {
	for {
		server, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		r.mu.Lock()
		vm, ok := r.vms[server]
		r.mu.Unlock()
		if !ok {
			r.queue.Forget(server)
		} else if err := r.apply(ctx, vm); err != nil {
			r.note(server, err)
			r.queue.AddRateLimited(server)
		} else {
			r.note(server, nil)
			r.queue.Forget(server)
			r.queue.AddAfter(server, shorten(reportAgainAfter))
		}
		r.queue.Done(server)
	}
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
	return r.client.Patch(types.ApplyPatchType).
		Namespace(vm.Server.Namespace).Resource("servers").Name(vm.Server.Name).SubResource("status").
		Param("fieldManager", fieldManager).Param("force", "true").
		Body(body).Do(ctx).Error()
}

// note logs when a report begins to fail and when it works again. Refused or
// not found means that the Server is not ours, or not there yet.
func (r *Reporter) note(server types.NamespacedName, err error) {
	r.mu.Lock()
	before := r.refused[server]
	if _, here := r.vms[server]; err != nil && here {
		r.refused[server] = true
	} else {
		delete(r.refused, server)
	}
	r.mu.Unlock()
	log := r.log.WithValues("Server", server.String())
	switch {
	case err == nil && before:
		log.Info("Report is accepted again")
	case err != nil && !before && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)):
		log.Info("Server is not ours to report on, or not there; backing off", "answer", err.Error())
	case err != nil && !before:
		log.Error(err, "Report failed; backing off")
	}
}
