// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	applyv1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// BenchmarkAStatusByMergePatchBesideServerSideApply writes the same host fields in
// both ways, in turn, so that both have the same machine.
func BenchmarkAStatusByMergePatchBesideServerSideApply(b *testing.B) {
	ctx := context.Background()
	server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "benchmarked"}}
	// The manager would put right what is written here.
	_ = fleet.Manager.Signal(syscall.SIGSTOP)
	defer func() { _ = fleet.Manager.Signal(syscall.SIGCONT) }()
	if err := fleet.Client.Create(ctx, server); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = fleet.Client.Delete(ctx, server) }()
	statuses := []v1alpha1.HostStatus{v1alpha1.HostStatusUp, v1alpha1.HostStatusDown}
	now := metav1.Now().Rfc3339Copy()
	var patching, applying time.Duration
	for i := 0; b.Loop(); i++ {
		if err := fleet.Client.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		err := statuspatch.Apply(ctx, fleet.Client, server, map[string]any{
			"hostStatus": statuses[i%2], "hostStatusReason": v1alpha1.ReasonReporting, "hostReporting": v1alpha1.HostReportingTrue,
			"hostStatusTransitionTime": now, "maintenanceWindow": nil, "observedGeneration": 1,
		})
		if err != nil {
			b.Fatal(err)
		}
		patching += time.Since(begin)

		begin = time.Now()
		apply := applyv1alpha1.Server(server.Name, server.Namespace).WithStatus(applyv1alpha1.ServerStatus().
			WithHostStatus(statuses[(i+1)%2]).WithHostStatusReason(v1alpha1.ReasonReporting).WithHostReporting(v1alpha1.HostReportingTrue).
			WithHostStatusTransitionTime(now).WithObservedGeneration(1))
		if err := fleet.Client.Status().Apply(ctx, apply, client.FieldOwner("benchmark"), client.ForceOwnership); err != nil {
			b.Fatal(err)
		}
		applying += time.Since(begin)
	}
	b.ReportMetric(float64(patching.Microseconds())/float64(b.N), "µs/merge-patch")
	b.ReportMetric(float64(applying.Microseconds())/float64(b.N), "µs/apply")
	b.ReportMetric(float64(applying)/float64(patching), "ratio")
}
