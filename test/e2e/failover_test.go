// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/leadership"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// takeover is how long the next manager may take to judge.
const takeover = 10 * time.Second

// leader returns who leads. It holds the Lease by which 0.1 elects its leader, too.
func leader(t *testing.T) (identity string) {
	t.Helper()
	holder := func(namespace string) string {
		lease, err := kube.CoordinationV1().Leases(namespace).Get(t.Context(), v1alpha1.LeaderLeaseName, metav1.GetOptions{})
		expect.NoError(t, err)
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	expect.Eventually(t, takeover, func() error { // While one takes over, it has one of them already.
		former := holder(v1alpha1.DefaultLeaseNamespace)
		if identity = holder("hoststatus-system"); identity != former {
			return fmt.Errorf("%q holds the leader's Lease, and %q that of 0.1", identity, former)
		}
		return nil
	})
	return identity
}

// startStandby starts a second manager, which is stopped after the test. It returns once
// that stands by: on a busy machine a process takes seconds to get there.
func startStandby(t *testing.T) {
	t.Helper()
	expect.Eventually(t, patience, fleetLeads)
	ports, err := controlplane.FreePorts(1)
	expect.NoError(t, err)
	probes := net.JoinHostPort("127.0.0.1", ports[0])
	standby, _, err := system.StartManager("standby-"+t.Name(), "--health-probe-bind-address="+probes)
	expect.NoError(t, err)
	t.Cleanup(func() {
		standby.Stop()
		expect.Eventually(t, patience, fleetLeads) // As other tests expect.
	})
	expect.Eventually(t, patience, func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+probes+"/readyz", http.NoBody)
		expect.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("the standby is not ready: %s", response.Status)
		}
		return nil
	})
}

// fleetLeads says whether the fleet's own manager is the leader.
func fleetLeads() error {
	leads, err := readMetric("leader_election_master_status")
	if err == nil && leads != 1 {
		err = errors.New("the fleet's manager does not lead")
	}
	return err
}

func TestAStandbyJudgesAfterItsLeaderWasKilled(t *testing.T) {
	const duration, interval = 6 * time.Second, time.Second
	startStandby(t)
	services := newRecord(t, &v1alpha1.ComputeServiceList{})
	fenced := newService(t, "failover-fenced")
	newHost(t, "failover-fenced", duration, interval, 0)
	newService(t, "failover-dies")
	dies := newHost(t, "failover-dies", duration, interval, 0)
	newService(t, "failover-lives")
	newHost(t, "failover-lives", duration, interval, 0)
	for _, name := range []string{"failover-fenced", "failover-dies", "failover-lives"} {
		expect.Eventually(t, patience, hostIs(name, v1alpha1.HostStatusUp))
	}
	before := leader(t)
	dies.stop()
	killed := time.Now()
	system.Manager.Kill()
	patch(t, fenced, `{"spec":{"forcedDown":true}}`)

	expect.Eventually(t, takeover, hostIs("failover-fenced", v1alpha1.HostStatusDown))
	t.Logf("the next manager judges after %v", time.Since(killed).Round(time.Millisecond))
	if after := leader(t); after == before {
		t.Errorf("%s still leads", after)
	}
	// Without a leader there are no canaries, so nobody can say that the time
	// until the takeover was sighted: D counts from there on, or half of it.
	expect.Eventually(t, takeover+duration+duration/2, hostIs("failover-dies", v1alpha1.HostStatusUnknown))
	expect.Eventually(t, patience, services.has("failover-dies", v1alpha1.HostStatusUnknown))
	for _, name := range []string{"failover-lives", "compute-1", "compute-4"} {
		for _, c := range services.of(name) {
			if c.status == string(v1alpha1.HostStatusUnknown) {
				t.Errorf("%s was UNKNOWN at %v", name, c.at)
			}
		}
	}
}

func TestALeaderThatStopsCleanlyHandsOverAtOnce(t *testing.T) {
	startStandby(t)
	fenced := newService(t, "handover")
	newHost(t, "handover", time.Minute, 10*time.Second, 0)
	expect.Eventually(t, patience, hostIs("handover", v1alpha1.HostStatusUp))
	before := leader(t)
	system.Manager.Stop()
	patch(t, fenced, `{"spec":{"disabled":true}}`)
	expect.Eventually(t, leadership.LeaseDuration, hostIs("handover", v1alpha1.HostStatusMaintenance))
	if after := leader(t); after == before {
		t.Errorf("%s still leads", after)
	}
}
