// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

var answers = scenario{
	name: "answers", title: "Every host has a maintenance window, and the owner of every server answers to it",
	sizes: []int{1000, 10000}, sizesAre: "servers, 10 on a host", repeats: 1,
	run: runAnswers,
}

const (
	answersServersPerHost = 10
	// answersMany is from how many servers on the memory of one can be told.
	answersMany = 10_000
	// earlierChanges are in the history of a server before: with those that the scenario
	// makes, it is full.
	earlierChanges = 8
	// answersStill is for how long nothing may be written, in a long run and in a short one.
	answersStill, answersStillShort = 20 * time.Second, 4 * time.Second
)

func runAnswers(ctx context.Context, t *trial) error {
	for _, n := range t.scenario.sizes {
		err := t.answer(ctx, n)
		t.close()
		if err != nil {
			return fmt.Errorf("%d servers: %w", n, err)
		}
	}
	n := t.scenario.sizes[len(t.scenario.sizes)-1]
	err := t.answersInView(ctx, n)
	t.close()
	if err != nil {
		return fmt.Errorf("%d servers in the owners' view: %w", n, err)
	}
	t.result.note("The manager's figures are of a synthetic API, as for growing fleets; those of the owners' view of the local control plane. Nothing happens for %s. Each server has a history of eight changes, as the others of its host.", answersStill)
	t.result.note("Answers come as fast as the API takes them, those for one host together. An answer that moves nothing is written into the Server, and counted in its host's ComputeService, together with the others of half a second. An answer that puts the window off moves it for all %d servers of the host.", answersServersPerHost)
	t.result.note("The CPU of an answer is beside that of the window itself, which is written into each Server, too.")
	return nil
}

// announcement is a window of an hour from now on, which can be put off for two more.
func announcement(now time.Time) *v1alpha1.MaintenanceWindow {
	at := func(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(now.Add(d).Truncate(time.Second))) }
	return &v1alpha1.MaintenanceWindow{
		StartTime: at(time.Hour), LatestStartTime: at(3 * time.Hour), EndTime: at(4 * time.Hour),
		Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot,
	}
}

// withHistory gives a server on a host a history: that of the host, unlike any other's.
func withHistory(s *v1alpha1.Server, host int) *v1alpha1.Server {
	statuses := []v1alpha1.HostStatus{v1alpha1.HostStatusUp, v1alpha1.HostStatusUnknown}
	reasons := []v1alpha1.HostStatusReason{v1alpha1.ReasonReporting, v1alpha1.ReasonLeaseExpired}
	for i := range earlierChanges {
		since := metav1.NewTime(time.Now().Add(-time.Duration(i+1)*time.Hour - time.Duration(host)*time.Second).Truncate(time.Second))
		s.Status.HostHistory = append(s.Status.HostHistory, v1alpha1.HostStatusChange{HostStatus: &statuses[i%2], Reason: reasons[i%2], Since: &since})
	}
	return s
}

// answerOf is the answer for server i.
func answerOf(i int, w *v1alpha1.MaintenanceWindow, notBefore *metav1.Time) *ownerv1alpha1.MaintenanceAnswer {
	a := &ownerv1alpha1.MaintenanceAnswer{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(i), Name: serverName(i)}}
	a.Spec = ownerv1alpha1.MaintenanceAnswerSpec{Answer: ownerv1alpha1.AnswerReady, WindowStartTime: w.StartTime}
	if notBefore != nil {
		a.Spec.Answer, a.Spec.NotBefore = ownerv1alpha1.AnswerNotBefore, notBefore
	}
	return a
}

// counted reports whether a host, or a server, has what follows from all answers: whether
// they are all of a state, and when the window opens.
func counted(obj client.Object, state v1alpha1.AnswerState, opensAt *metav1.Time) bool {
	switch o := obj.(type) {
	case *v1alpha1.Server:
		w := o.Status.MaintenanceWindow
		return w != nil && w.Answer == state && w.OpensAt.Equal(opensAt)
	case *v1alpha1.ComputeService:
		m := o.Status.Maintenance
		if m == nil || !m.OpensAt.Equal(opensAt) || ptr.Deref(m.Servers, 0) != answersServersPerHost {
			return false
		}
		want := map[v1alpha1.AnswerState][2]int32{v1alpha1.AnswerStateReady: {answersServersPerHost, 0}, v1alpha1.AnswerStateNotBefore: {0, answersServersPerHost}}[state]
		return ptr.Deref(m.Ready, -1) == want[0] && ptr.Deref(m.PutOff, -1) == want[1]
	}
	return false
}

// answer measures what the answers for n servers cost the manager.
func (t *trial) answer(ctx context.Context, n int) error {
	dir, err := os.MkdirTemp("", "hoststatus-bench-")
	if err != nil {
		return fmt.Errorf("making a temporary folder: %w", err)
	}
	t.later(func() { _ = os.RemoveAll(dir) })
	s, err := t.startSource()
	if err != nil {
		return err
	}
	done := newSightings()
	var isDone func(client.Object) bool
	s.statusWritten = func(obj client.Object) { // The source is locked.
		if isDone != nil && isDone(obj) {
			done.put(obj.GetNamespace()+"/"+obj.GetName(), time.Now())
		}
	}
	m, err := t.startManagerOn(ctx, dir, s.url)
	if err != nil {
		return err
	}
	// cost returns the writes and the CPU time in µs until so many objects are done, for
	// each of the servers.
	cost := func(objects int, is func(client.Object) bool, do func()) (writes, cpu float64, err error) {
		s.mu.Lock()
		isDone = is
		written := s.writes
		s.mu.Unlock()
		done.clear()
		before, err := cpuOf(m.Pid())
		if err != nil {
			return 0, 0, err
		}
		do()
		if err := done.wait(ctx, objects, settleTimeout); err != nil {
			return 0, 0, err
		}
		after, err := cpuOf(m.Pid())
		s.mu.Lock()
		written = s.writes - written
		s.mu.Unlock()
		return float64(written) / float64(n), us(after-before) / float64(n), err
	}

	hosts := n / answersServersPerHost
	all := names(hosts, hostName)
	isUp := func(obj client.Object) bool {
		switch o := obj.(type) {
		case *v1alpha1.Server:
			return ptr.Deref(o.Status.HostStatus, "") == v1alpha1.HostStatusUp
		case *v1alpha1.ComputeService:
			return ptr.Deref(o.Status.HostStatus, "") == v1alpha1.HostStatusUp
		}
		return false
	}
	if _, _, err = cost(hosts, isUp, func() {
		for _, host := range all {
			s.put(newService(host, 0))
			s.renew(host, growthDuration)
		}
	}); err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	withHosts, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}
	if _, _, err = cost(n, isUp, func() {
		for i := range n {
			s.put(withHistory(newServer(i, all[i/answersServersPerHost]), i/answersServersPerHost))
		}
	}); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	withServers, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}

	window := announcement(time.Now())
	_, announced, err := cost(n, func(obj client.Object) bool {
		server, ok := obj.(*v1alpha1.Server)
		return ok && counted(server, v1alpha1.AnswerStateNone, window.StartTime)
	}, func() {
		for _, host := range all {
			change(s, types.NamespacedName{Name: host}, func(o *v1alpha1.ComputeService) {
				o.Spec.MaintenanceWindow = window
				o.Generation++
			})
		}
	})
	if err != nil {
		return fmt.Errorf("windows: %w", err)
	}
	readyWrites, readyCPU, err := cost(n+hosts, func(obj client.Object) bool { return counted(obj, v1alpha1.AnswerStateReady, window.StartTime) }, func() {
		for i := range n {
			s.put(answerOf(i, window, nil))
		}
	})
	if err != nil {
		return fmt.Errorf("answers: %w", err)
	}
	withAnswers, err := heapOf(ctx, m.pprof)
	if err != nil {
		return err
	}
	later := ptr.To(metav1.NewTime(window.StartTime.Add(time.Hour)))
	laterWrites, laterCPU, err := cost(n+hosts, func(obj client.Object) bool { return counted(obj, v1alpha1.AnswerStateNotBefore, later) }, func() {
		for i := range n {
			s.put(answerOf(i, window, later))
		}
	})
	if err != nil {
		return fmt.Errorf("answers that put the windows off: %w", err)
	}
	m.heapProfile(fmt.Sprintf("heap-%d", n))

	still := answersStill
	if t.short {
		still = answersStillShort
	}
	// What the last answers cause may come half a second later.
	if err := m.judged(ctx, 0); err != nil {
		return err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	steadyWrites, err := s.writesDuring(ctx, still)
	if err != nil {
		return err
	}
	m.Stop()
	s.mu.Lock()
	written := s.writes
	s.mu.Unlock()
	if m, err = t.startManagerOn(ctx, dir, s.url); err != nil {
		return err
	}
	if err := m.judged(ctx, n+hosts); err != nil {
		return err
	}
	if _, err := s.writesDuring(ctx, still); err != nil {
		return err
	}
	s.mu.Lock()
	written = s.writes - written
	s.mu.Unlock()

	size := fmt.Sprintf("%s, %s", count(n, "servers"), count(hosts, "windows"))
	perServer := func(from, to float64) float64 { return (to - from) / 1024 / float64(n) }
	var bounds []*bound
	if n >= answersMany { // With few servers, what does not grow with them counts.
		bounds = append(bounds, atMost(1.25))
	}
	t.result.add(size, "writes of an answer that moves nothing", readyWrites, "")
	t.result.add(size, "writes of an answer that puts a window off", laterWrites, "")
	t.result.addBeside(size, "CPU of an answer that moves nothing", readyCPU, "µs", "its share of the window", announced)
	t.result.addBeside(size, "CPU of an answer that puts a window off", laterCPU, "µs", "its share of the window", announced)
	t.result.add(size, "writes while nothing happens", float64(steadyWrites), "", atMost(0))
	t.result.add(size, "writes of a restart with answers", float64(written), "", atMost(0))
	t.result.add(size, "live heap per server, with its history", perServer(withHosts, withServers), "KiB", bounds...)
	t.result.add(size, "live heap per server, with its history, window and answer", perServer(withHosts, withAnswers), "KiB")
	t.say("%s: %.2f and %.2f writes an answer, %.0f and %.0f µs, %d and %d writes of nothing, %.2f and %.2f KiB a server", size,
		readyWrites, laterWrites, readyCPU, laterCPU, steadyWrites, written, perServer(withHosts, withServers), perServer(withHosts, withAnswers))
	return s.err()
}

// writesDuring returns how many statuses are written within length.
func (s *source) writesDuring(ctx context.Context, length time.Duration) (int, error) {
	s.mu.Lock()
	before := s.writes
	s.mu.Unlock()
	if err := sleep(ctx, length); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes - before, nil
}

// answersInView measures what windows and answers add to the memory of the owners' view.
func (t *trial) answersInView(ctx context.Context, n int) error {
	w, m, err := t.newOwnersWorld(ctx)
	if err != nil {
		return err
	}
	all := names(n/answersServersPerHost, hostName)
	if err := w.addHosts(ctx, all); err != nil {
		return err
	}
	if _, err := w.startHosts(ctx, all, growthDuration, growthDuration/2); err != nil {
		return err
	}
	if err := w.addServers(ctx, 0, n, all, true); err != nil {
		return err
	}
	if err := w.settled(ctx, all...); err != nil {
		return err
	}
	size := count(n, "servers")
	if err := w.viewMemory(size, "resident memory of the view, before", "VmRSS"); err != nil {
		return err
	}
	window := announcement(time.Now())
	body := mustJSON(map[string]any{"spec": map[string]any{"maintenanceWindow": window}})
	if err := parallel(ctx, creators, len(all), func(ctx context.Context, i int) error {
		host := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: all[i]}}
		return w.admin.Patch(ctx, host, client.RawPatch(types.MergePatchType, body))
	}); err != nil {
		return fmt.Errorf("announcing windows: %w", err)
	}
	if err := parallel(ctx, creators, n, func(ctx context.Context, i int) error { return w.admin.Create(ctx, answerOf(i, window, nil)) }); err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	if err := expect.Poll(ctx, settleTimeout, func() error {
		var servers v1alpha1.ServerList
		if err := w.admin.List(ctx, &servers, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}); err != nil {
			return err
		}
		for i := range servers.Items {
			if !counted(&servers.Items[i], v1alpha1.AnswerStateReady, window.StartTime) {
				select {
				case <-m.Done():
					return fmt.Errorf("the manager has ended (%w), as it must where it cannot renew its leader's Lease", m.Err())
				default:
				}
				return fmt.Errorf("the answer for %s is not counted yet", servers.Items[i].Name)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return w.viewMemory(size, "resident memory of the view, with windows and answers", "VmRSS")
}
