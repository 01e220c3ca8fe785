// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestWhoDoesNotLeadAnyMoreWritesNoCanary(t *testing.T) {
	client, leads := fake.NewClientset(), false
	m := NewMonitor(Options{
		Leases: client.CoordinationV1(), Namespaces: []string{space}, Clock: clock.RealClock{},
		Leads: func() bool { return leads },
	})
	for _, leads = range []bool{false, true} {
		m.writeCanary(t.Context(), canaryWrite{namespace: space, token: 1})
		_, err := client.CoordinationV1().Leases(space).Get(t.Context(), v1alpha1.CanaryLeaseName, metav1.GetOptions{})
		if written := err == nil; written != leads {
			t.Errorf("leads is %v, and a canary was written is %v", leads, written)
		}
	}
}

func TestAVerdictOfALeaderIsNoStandbysAlthoughTheLoopHasNotComeRound(t *testing.T) {
	elected := make(chan struct{})
	m := NewMonitor(Options{
		Leases: fake.NewClientset().CoordinationV1(), Namespaces: []string{space}, DefaultDuration: d, Clock: clock.RealClock{}, Elected: elected,
	})
	m.core.replaced(m.now(), epoch, space, nil, 0)
	m.Track(subjectNamed("dead", d, Expired))
	m.core.observe(m.now(), epoch, space, "dead", Lease{RenewTime: epoch}) // From a watch that brought nothing for a while.
	if v, _ := m.Verdict("dead", "dead"); v.Reporting != Reports {
		t.Fatalf("a standby's verdict is %v", v.Reporting)
	}
	close(elected)
	if v, _ := m.Verdict("dead", "dead"); v.Reporting != Expired {
		t.Errorf("the leader's verdict is %v", v.Reporting)
	}
}

func TestTheLineOfABlindManagerSaysWhyNoCanaryIsWritten(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no rights") })
	var logged string
	m := NewMonitor(Options{
		Leases: client.CoordinationV1(), Namespaces: []string{space}, Clock: clock.RealClock{},
		Logger: funcr.New(func(_, args string) { logged = args }, funcr.Options{}),
	})
	m.reportBlindness(space, true, 0)
	if strings.Contains(logged, "canary\"=") {
		t.Errorf("logged %s", logged)
	}
	m.writeCanary(t.Context(), canaryWrite{namespace: space, token: 1})
	m.reportBlindness(space, true, 0)
	if !strings.Contains(logged, "no rights") {
		t.Errorf("logged %s", logged)
	}
}

// While the API server is away the caches do not fill, and nothing is started before they
// have. A kubelet that took that for death would restart the process for ever.
func TestAMonitorThatWaitsToBeStartedIsAlive(t *testing.T) {
	m := NewMonitor(Options{Leases: fake.NewClientset().CoordinationV1(), Namespaces: []string{space}, DefaultDuration: d, Clock: clock.RealClock{}})
	// A probe that has no time left: nothing but the answer counts.
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Alive(over); err != nil {
		t.Errorf("before it is started: %v", err)
	}
	m.started.Store(true) // A loop that is stuck.
	if err := m.Alive(over); err == nil {
		t.Error("with a loop that hangs it is alive")
	}
}
