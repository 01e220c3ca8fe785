// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	plugin "hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// TestWhatThePluginExpectsIsWhatTheManagerDoes runs the shipped manager and the
// shipped binary through a host's bad day.
func TestWhatThePluginExpectsIsWhatTheManagerDoes(t *testing.T) {
	startManager(t)
	env.Create(t, &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "live-1", Labels: map[string]string{"site": "a"}}})
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: "live-1"},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: time.Now()}, LeaseDurationSeconds: ptr.To[int32](1)},
	}
	env.Create(t, l)
	report := func() (r plugin.Report) {
		out, errOut, code := asPlugin(t, "show", "live-1", "-o", "json")
		if code != 0 {
			t.Fatal(errOut)
		}
		expect.NoError(t, json.Unmarshal([]byte(out), &r))
		return r
	}
	is := func(status v1alpha1.HostStatus, reason v1alpha1.HostStatusReason) plugin.Report {
		t.Helper()
		var r plugin.Report
		expect.Eventually(t, patience, func() error {
			if r = report(); r.HostStatus != string(status) || r.Reason != reason {
				return fmt.Errorf("it is %q (%s), not %q (%s)", r.HostStatus, r.Reason, status, reason)
			}
			return nil
		})
		return r
	}
	// does runs a verb, and checks what it expects against what comes.
	does := func(want v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, args ...string) {
		t.Helper()
		out, errOut, code := asPlugin(t, args...)
		if expected := fmt.Sprintf("%s (%s)", want, reason); code != 0 || !strings.Contains(strings.ReplaceAll(out, " stays", ""), expected) {
			t.Errorf("kubectl hosts %s ends with %d and expects %q, not %q\n%s", strings.Join(args, " "), code, out, expected, errOut)
		}
		is(want, reason)
	}
	renew := func() {
		l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
		expect.NoError(t, env.Admin.Update(t.Context(), l))
	}
	renewing, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ticker := time.NewTicker(300 * time.Millisecond); ; {
			select {
			case <-renewing.Done():
				ticker.Stop()
				return
			case <-ticker.C:
				l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
				if err := env.Admin.Update(t.Context(), l); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	r := is(v1alpha1.HostStatusUp, v1alpha1.ReasonReporting)
	if len(r.Hints) > 0 || *r.Lease.AgeSeconds > 3 || r.Lease.DurationFrom != plugin.DurationFromLease || r.Lease.DurationSeconds != v1alpha1.MinLeaseDurationSeconds {
		t.Errorf("of a host that is well, show tells %+v", r)
	}
	does(v1alpha1.HostStatusNeedsMaintenance, v1alpha1.ReasonWindowAnnounced, "window", "live-1", "--start", "1h", "--for", "1h")
	does(v1alpha1.HostStatusNeedsMaintenance, v1alpha1.ReasonWindowAnnounced, "window", "live-1", "--put-off", "1h", "--for", "1h", "--open-when-ready", "--impact", "Reboot")
	does(v1alpha1.HostStatusMaintenance, v1alpha1.ReasonWindowOpen, "window", "live-1", "--start", "now")
	does(v1alpha1.HostStatusMaintenance, v1alpha1.ReasonDisabled, "disable", "live-1", "--reason", "new memory")
	does(v1alpha1.HostStatusMaintenance, v1alpha1.ReasonWindowOpen, "enable", "live-1")
	does(v1alpha1.HostStatusUp, v1alpha1.ReasonReporting, "window", "live-1", "--clear")
	stop()
	<-done
	r = is(v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired)
	// The manager's words name the duration that it judged by: the one shown.
	if want := fmt.Sprintf("was not renewed for %ds", r.Lease.DurationSeconds); !strings.Contains(r.Why, want) {
		t.Errorf("show says %q and %+v", r.Why, r.Lease)
	}
	does(v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown, "force-down", "live-1", "--reason", "no power")
	if r := report(); r.ForcedDown == nil || r.ForcedDown.SetBy != "kubectl-hosts" {
		t.Errorf("show does not tell who forced it down: %+v", r.ForcedDown)
	}
	does(v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, "up", "live-1")
	renew()
	is(v1alpha1.HostStatusUp, v1alpha1.ReasonReporting)
}

func startManager(t *testing.T) {
	t.Helper()
	p, err := env.StartManager()
	expect.NoError(t, err)
	t.Cleanup(func() {
		p.Stop()
		for _, namespace := range []string{v1alpha1.DefaultLeaseNamespace, "hoststatus-system"} {
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.LeaderLeaseName}}
			if err := client.IgnoreNotFound(env.Admin.Delete(context.Background(), lease)); err != nil {
				t.Error(err)
			}
		}
		expect.NoError(t, sign(context.Background(), now, time.Hour))
	})
}
