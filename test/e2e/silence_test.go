// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// lateBy is how late a verdict may be on an idle machine; what a bare write
// takes on this one, now, is added.
const lateBy = 500 * time.Millisecond

func TestSilenceBecomesUnknownAfterTheLeaseDurationAndNotBefore(t *testing.T) {
	t.Parallel()
	const duration, interval = 5 * time.Second, time.Second
	newService(t, "silent-1")
	newServer(t, "team-a", "on-silent-1", "silent-1")
	h := newHost(t, "silent-1", duration, interval, 0)
	expect.Eventually(t, patience, serverIs("team-a", "on-silent-1", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))

	services := newRecord(t, &v1alpha1.ComputeServiceList{})
	machine := newProbe(t)
	h.stop()
	expect.Eventually(t, duration+10*time.Second, hostIs("silent-1", v1alpha1.HostStatusUnknown))
	slowest := machine.end()
	expect.Eventually(t, time.Second, serverIs("team-a", "on-silent-1", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired))

	at, _ := services.first("silent-1", v1alpha1.HostStatusUnknown)
	sent, confirmed := h.last()
	early, late := at.Sub(sent.Add(duration)), at.Sub(confirmed.Add(duration))
	t.Logf("UNKNOWN %v after the lease duration; a bare write took up to %v", late, slowest)
	if early < 0 {
		t.Errorf("UNKNOWN %v before the lease duration had passed since the last renewal was sent", -early)
	}
	if late > lateBy+slowest {
		t.Errorf("UNKNOWN %v after the lease duration, want %v at most (and %v for a bare write)", late, lateBy, slowest)
	}
}

func TestFiveHundredHostsThatFallSilentInTheSameSecond(t *testing.T) {
	const hosts, duration = 500, 10 * time.Second
	// A name for each, and one renewal of each, within one second.
	names := make([]string, hosts)
	for i := range names {
		names[i] = fmt.Sprintf("rack-%03d", i)
	}
	parallel(t, names, 16, func(name string) {
		newService(t, name, withDuration(duration))
	})
	renewals := make(map[string]*host, hosts)
	for _, name := range names {
		renewals[name] = &host{name: name, LeaseInterface: leases()}
	}
	renew := func(name string) {
		h := renewals[name]
		var err error
		if h.lease == nil {
			h.lease, err = h.Create(t.Context(), &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec:       coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NowMicro())},
			}, metav1.CreateOptions{})
		} else {
			h.lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
			h.lease, err = h.Update(t.Context(), h.lease, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Errorf("renewing %s: %v", name, err)
		}
	}
	parallel(t, names, 16, renew)
	services := newRecord(t, &v1alpha1.ComputeServiceList{})
	parallel(t, names, 16, renew)
	expect.Eventually(t, patience, func() error { return hostIs(names[hosts-1], v1alpha1.HostStatusUp)() })

	// The reference: a bare client, which writes as many Leases of its own in the moments in
	// which the hosts fall due, and so beside the verdicts.
	bare := kube.CoordinationV1().Leases(metav1.NamespaceDefault)
	parallel(t, names, 16, func(name string) {
		if _, err := bare.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Errorf("making the reference: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := bare.DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
	})
	var mu sync.Mutex
	var slowestBare time.Duration
	inOrder := slices.SortedFunc(slices.Values(names), func(a, b string) int {
		_, left := renewals[a].last()
		_, right := renewals[b].last()
		return left.Compare(right)
	})
	reference := make(chan struct{})
	go func() {
		defer close(reference)
		parallel(t, inOrder, 8, func(name string) {
			_, confirmed := renewals[name].last()
			due := confirmed.Add(duration)
			time.Sleep(time.Until(due))
			body := []byte(`{"spec":{"holderIdentity":"silent"}}`)
			if _, err := bare.Patch(t.Context(), name, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
				t.Errorf("writing the reference: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			slowestBare = max(slowestBare, time.Since(due))
		})
	}()

	before := canaryVersion(t)
	begin := time.Now()
	machine := newProbe(t)
	expect.Eventually(t, duration+2*time.Minute, func() error {
		for _, name := range names {
			if _, ok := services.first(name, v1alpha1.HostStatusUnknown); !ok {
				return fmt.Errorf("%s is not UNKNOWN", name)
			}
		}
		return nil
	})
	slowest := machine.end()
	<-reference
	regular := int(time.Since(begin)/(250*time.Millisecond)) + 1
	canaries := canaryVersion(t) - before

	var lags []time.Duration
	var first, last time.Time
	for _, name := range names {
		at, _ := services.first(name, v1alpha1.HostStatusUnknown)
		sent, confirmed := renewals[name].last()
		if at.Before(sent.Add(duration)) {
			t.Errorf("%s is UNKNOWN %v too early", name, sent.Add(duration).Sub(at))
		}
		if first.IsZero() || confirmed.Before(first) {
			first = confirmed
		}
		if confirmed.After(last) {
			last = confirmed
		}
		lags = append(lags, at.Sub(confirmed.Add(duration)))
	}
	slices.Sort(lags)
	t.Logf("fell silent within %v; lag p50 %v, p99 %v, max %v; a bare client beside it wrote the last %v late, and a single write took up to %v; %d canaries where %d fall due anyway",
		last.Sub(first), lags[hosts/2], lags[hosts*99/100], lags[hosts-1], slowestBare, slowest, canaries, regular)
	// A verdict is a status, which is judged by a schema, and an event: more than a Lease.
	if worst, most := lags[hosts-1], lateBy+slowest+3*slowestBare; worst > most {
		t.Errorf("the last is UNKNOWN %v late, want %v at most; a bare client's last write beside it was %v late", worst, most, slowestBare)
	}
	if canaries > regular+20 {
		t.Errorf("%d canaries were written where %d are due anyway; want a handful more at most", canaries, regular)
	}
}

// canaryVersion counts the writes of the canary: each makes one generation of
// the Lease's version, which only differences are taken of.
func canaryVersion(t *testing.T) int {
	t.Helper()
	return int(metric(t, `hoststatus_heartbeat_canary_writes_total{lease_namespace="hoststatus-leases",result="ok"}`))
}

func TestAClockThatIsAnHourOffIsNoSilence(t *testing.T) {
	const duration, interval = 4 * time.Second, time.Second
	services := newRecord(t, &v1alpha1.ComputeServiceList{})
	for name, skew := range map[string]time.Duration{"behind": -time.Hour, "ahead": time.Hour} {
		newService(t, name)
		newHost(t, name, duration, interval, skew)
	}
	for _, name := range []string{"behind", "ahead"} {
		expect.Eventually(t, patience, hostIs(name, v1alpha1.HostStatusUp))
	}
	// For as long as three leases hold, and not by luck.
	time.Sleep(3 * duration)
	for _, name := range []string{"behind", "ahead"} {
		for _, c := range services.of(name) {
			if c.status != "UP" && c.status != "absent" {
				t.Errorf("%s was %s", name, c.status)
			}
		}
		expect.NoError(t, hostIs(name, v1alpha1.HostStatusUp)())
	}
	if skewed := metric(t, `hoststatus_heartbeat_clock_skewed_hosts{lease_namespace="hoststatus-leases"}`); skewed != 2 {
		t.Errorf("%v hosts are reported as skewed, want 2", skewed)
	}
}

func TestAManagerKilledAndStartedAgainPassesThroughNoFalseState(t *testing.T) {
	const duration, interval = 6 * time.Second, time.Second
	var names []string
	hosts := map[string]*host{}
	for i := range 6 {
		name := fmt.Sprintf("survivor-%d", i)
		names = append(names, name)
		newService(t, name)
		newServer(t, "team-a", "on-"+name, name)
		hosts[name] = newHost(t, name, duration, interval, 0)
	}
	silent := names[0]
	for _, name := range names {
		expect.Eventually(t, patience, serverIs("team-a", "on-"+name, v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
	}
	hosts[silent].stop()
	expect.Eventually(t, 15*time.Second, serverIs("team-a", "on-"+silent, v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired))

	servers := newRecord(t, &v1alpha1.ServerList{})
	dies := names[1]
	hosts[dies].stop()
	system.Manager.Kill()
	t.Logf("killed the manager; the fleet starts it again, and %s has died meanwhile", dies)
	expect.Eventually(t, 40*time.Second, serverIs("team-a", "on-"+dies, v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired))
	expect.Eventually(t, patience, servers.has("on-"+dies, v1alpha1.HostStatusUnknown))

	if changes := servers.of("on-" + dies); len(changes) != 1 {
		t.Errorf("the server on the host that died went through %v", changes)
	}
	for _, name := range append(names[2:], silent) {
		if changes := servers.of("on-" + name); len(changes) != 0 {
			t.Errorf("the server on %s, where nothing happened, went through %v", name, changes)
		}
	}
	if changes := servers.of("web-1"); len(changes) != 0 {
		t.Errorf("a server of the sample fleet went through %v", changes)
	}
}

func TestASteadyFleetIsNotWrittenTo(t *testing.T) {
	const hosts, duration, interval, watched = 50, 6 * time.Second, time.Second, 30 * time.Second
	for i := range hosts {
		name := fmt.Sprintf("steady-%02d", i)
		newService(t, name)
		newServer(t, "team-b", "on-"+name, name)
		newHost(t, name, duration, interval, 0)
	}
	for i := range hosts {
		name := fmt.Sprintf("on-steady-%02d", i)
		expect.Eventually(t, patience, serverIs("team-b", name, v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
	}
	reconciles := func() float64 {
		return metric(t, `controller_runtime_reconcile_total{controller="computeservice"`) +
			metric(t, `controller_runtime_reconcile_total{controller="server"`)
	}
	// What was under way ends.
	var settled float64
	expect.Eventually(t, patience, func() error {
		before := settled
		if settled = reconciles(); settled != before {
			return fmt.Errorf("reconciles go on: %v", settled)
		}
		return nil
	})
	before, events := versions(t), metric(t, `hoststatus_heartbeat_lease_events_total`)
	time.Sleep(watched)
	after, reconciled, seen := versions(t), reconciles()-settled, metric(t, `hoststatus_heartbeat_lease_events_total`)-events

	for name, version := range before {
		if after[name] != version {
			t.Errorf("%s was written to: resourceVersion %s became %s", name, version, after[name])
		}
	}
	if seen < hosts*20 {
		t.Errorf("only %v heartbeats arrived in %v", seen, watched)
	}
	if reconciled != 0 {
		t.Errorf("%v reconciles for %v heartbeats, want none", reconciled, seen)
	}
	t.Logf("%v heartbeats, %v reconciles, %d objects not written to", seen, reconciled, len(before))
}

// versions returns the resourceVersion of every ComputeService and Server.
func versions(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	var services v1alpha1.ComputeServiceList
	expect.NoError(t, system.Client.List(t.Context(), &services))
	for _, s := range services.Items {
		found["ComputeService "+s.Name] = s.ResourceVersion
	}
	var servers v1alpha1.ServerList
	expect.NoError(t, system.Client.List(t.Context(), &servers))
	for _, s := range servers.Items {
		found["Server "+client.ObjectKeyFromObject(&s).String()] = s.ResourceVersion
	}
	return found
}

// parallel calls do for each name, with as many at once as workers.
func parallel(t *testing.T, names []string, workers int, do func(string)) {
	t.Helper()
	queue := make(chan string)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for name := range queue {
				do(name)
			}
		})
	}
	for _, name := range names {
		queue <- name
	}
	close(queue)
	running.Wait()
}
