// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// target is an object whose status a bare loop writes: with the same fields, the
// same precondition and the same user as the manager does. Only the time of the
// last change differs from what is there, so that the manager, which sees each of
// these writes as it sees its own, finds nothing to put right.
type target struct {
	resource, namespace, name string
	version                   string
	fields                    map[string]any
}

func serverTarget(s *v1alpha1.Server) *target {
	return &target{resource: "servers", namespace: s.Namespace, name: s.Name, version: s.ResourceVersion, fields: map[string]any{
		"hostStatus": s.Status.HostStatus, "hostStatusReason": s.Status.HostStatusReason, "hostReporting": s.Status.HostReporting,
		"maintenanceWindow": s.Status.MaintenanceWindow, "observedGeneration": s.Status.ObservedGeneration,
		"hostVersion": s.Status.HostVersion, "hostHistory": s.Status.HostHistory,
	}}
}

func serviceTarget(s *v1alpha1.ComputeService) *target {
	return &target{resource: "computeservices", name: s.Name, version: s.ResourceVersion, fields: map[string]any{
		"conditions": s.Status.Conditions, "hostStatus": s.Status.HostStatus, "hostStatusReason": s.Status.HostStatusReason,
		"hostStatusTransitionTime": s.Status.HostStatusTransitionTime, "observedGeneration": s.Status.ObservedGeneration,
	}}
}

// targets returns the ComputeServices called hosts and the Servers on them, as
// they are now.
func (w *world) targets(ctx context.Context, hosts []string) (services, servers []*target, err error) {
	for _, name := range hosts {
		service := &v1alpha1.ComputeService{}
		if err := w.admin.Get(ctx, client.ObjectKey{Name: name}, service); err != nil {
			return nil, nil, fmt.Errorf("reading a ComputeService: %w", err)
		}
		services = append(services, serviceTarget(service))
		var list v1alpha1.ServerList
		if err := w.admin.List(ctx, &list, client.MatchingFields{v1alpha1.ServerHostField: name}); err != nil {
			return nil, nil, fmt.Errorf("listing the servers of a host: %w", err)
		}
		for i := range list.Items {
			servers = append(servers, serverTarget(&list.Items[i]))
		}
	}
	return services, servers, nil
}

// markTime is a time of change that nothing but a bare loop writes. It is later than any
// host's, because a server's is never before its host's.
func markTime(n int64) metav1.Time { return metav1.Unix(4_000_000_000+n, 0) }

// mark marks the fields with n. The history of a server begins with the same time, or the
// manager would add it.
func (t *target) mark(n int64) {
	at := markTime(n)
	if t.resource == "computeservices" {
		t.fields["lastSeenUpTime"] = at
		return
	}
	t.fields["hostStatusTransitionTime"] = at
	if history := t.fields["hostHistory"].([]v1alpha1.HostStatusChange); len(history) > 0 {
		history[0].Since = &at
	}
}

// write writes one status, marked with n.
func (w *world) write(ctx context.Context, t *target, n int64) error {
	t.mark(n)
	body := mustJSON(map[string]any{"metadata": map[string]any{"resourceVersion": t.version}, "status": t.fields})
	var after metav1.Object
	request := w.manager.Patch(types.MergePatchType).Resource(t.resource).Name(t.name).SubResource("status").
		Param("fieldManager", statuspatch.FieldOwner).Body(body)
	var err error
	if t.resource == "servers" {
		s := &v1alpha1.Server{}
		err = request.Namespace(t.namespace).Do(ctx).Into(s)
		after = s
	} else {
		s := &v1alpha1.ComputeService{}
		err = request.Do(ctx).Into(s)
		after = s
	}
	if err != nil {
		return fmt.Errorf("writing the status of %s: %w", t.name, err)
	}
	t.version = after.GetResourceVersion()
	return nil
}

// apply writes the same by server-side apply, marked with n.
func (w *world) apply(ctx context.Context, t *target, n int64) error {
	t.mark(n)
	fields := maps.Clone(t.fields)
	if window, ok := fields["maintenanceWindow"].(*v1alpha1.AnnouncedWindow); ok && window == nil {
		delete(fields, "maintenanceWindow") // A merge patch says null, an apply nothing.
	}
	if len(fields["hostHistory"].([]v1alpha1.HostStatusChange)) == 0 {
		delete(fields, "hostHistory")
	}
	body := mustJSON(map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion.String(), "kind": "Server",
		"metadata": map[string]any{"namespace": t.namespace, "name": t.name}, "status": fields,
	})
	s := &v1alpha1.Server{}
	err := w.manager.Patch(types.ApplyPatchType).Namespace(t.namespace).Resource(t.resource).Name(t.name).SubResource("status").
		Param("fieldManager", "benchmark").Param("force", "true").Body(body).Do(ctx).Into(s)
	if err != nil {
		return fmt.Errorf("applying the status of %s: %w", t.name, err)
	}
	t.version = s.ResourceVersion
	return nil
}

// writeAll writes all statuses, workers at once, and returns how long that took.
func (w *world) writeAll(ctx context.Context, targets []*target, workers int, n int64) (time.Duration, error) {
	begin := time.Now()
	err := parallel(ctx, workers, len(targets), func(ctx context.Context, i int) error { return w.write(ctx, targets[i], n) })
	return time.Since(begin), err
}

// bestConcurrency finds with how many writes at once a bare loop is the fastest
// here and now.
func (w *world) bestConcurrency(ctx context.Context, targets []*target, mark func() int64) (best int, rates series, err error) {
	candidates := []int{4, 8, 16, 32, 64}
	took := make([]time.Duration, len(candidates))
	if len(targets) > 400 {
		targets = targets[:400]
	}
	const rounds = 2
	for round := range rounds + 1 {
		for i, workers := range candidates {
			d, err := w.writeAll(ctx, targets, workers, mark())
			if err != nil {
				return 0, series{}, err
			}
			if round > 0 { // The first round warms up.
				took[i] += d
			}
		}
	}
	fastest := 0
	rates.Name = "bare loop"
	for i := range candidates {
		if took[i] < took[fastest] {
			fastest = i
		}
		rates.add(float64(candidates[i]), float64(rounds*len(targets))/took[i].Seconds())
	}
	return candidates[fastest], rates, nil
}
