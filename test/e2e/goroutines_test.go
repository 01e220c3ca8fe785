// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// A goroutine for each object that has come and gone would be the end of a manager
// that runs for months.
func TestTheManagerKeepsNoGoroutineForWhatIsGone(t *testing.T) {
	const rounds, slack = 200, 50
	expect.Eventually(t, patience, fleetLeads)
	// Its workers do not run before, nor at once.
	newService(t, "goroutines", func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = ptr.To(true) })
	newServer(t, "team-a", "goroutines", "goroutines")
	expect.Eventually(t, patience, serverIs("team-a", "goroutines", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown))
	before := metric(t, "go_goroutines ")
	names := make([]string, rounds)
	for n := range names {
		names[n] = fmt.Sprintf("gone-%d", n)
	}
	parallel(t, names, 4, func(name string) {
		ctx := t.Context()
		service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
		server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name}, Spec: v1alpha1.ServerSpec{Host: name}}
		if err := errors.Join(
			system.Client.Create(ctx, service), system.Client.Create(ctx, server),
			system.Client.Delete(ctx, service), system.Client.Delete(ctx, server),
		); err != nil {
			t.Error(err)
		}
	})
	var after float64
	expect.Eventually(t, patience, func() error {
		if after = metric(t, "go_goroutines "); after > before+slack {
			return fmt.Errorf("%v goroutines, before %d objects came and went %v", after, 2*rounds, before)
		}
		return nil
	})
	t.Logf("%v goroutines before, %v after", before, after)
}
