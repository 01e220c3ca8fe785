// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	plugin "hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// becomes writes a status as the manager does.
func becomes(t *testing.T, name string, status v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, reporting metav1.ConditionStatus, when time.Duration) {
	t.Helper()
	s := read(t, name)
	s.Status.HostStatus, s.Status.HostStatusReason, s.Status.HostStatusTransitionTime = &status, reason, ago(-when)
	if c := &s.Status.Conditions[0]; c.Status != reporting {
		c.Status, c.LastTransitionTime = reporting, *ago(-when)
	}
	expect.NoError(t, env.Admin.Status().Update(t.Context(), s))
}

// watching is a running watch of the plugin.
type watching struct {
	lines, notes chan string
	stop         func() int
}

func startWatch(t *testing.T, kubeconfig string, args ...string) *watching {
	t.Helper()
	return newSession().watch(t, kubeconfig, args...)
}

func (s *session) watch(t *testing.T, kubeconfig string, args ...string) *watching {
	t.Helper()
	outReader, out := io.Pipe()
	errReader, errOut := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- plugin.Run(ctx, s.environment(out, errOut), append([]string{"watch", "--kubeconfig=" + kubeconfig}, args...))
		_ = out.Close()
		_ = errOut.Close()
	}()
	w := &watching{lines: lines(outReader), notes: lines(errReader)}
	w.stop = sync.OnceValue(func() int {
		cancel()
		return <-code
	})
	t.Cleanup(func() { w.stop() })
	return w
}

func lines(r io.Reader) chan string {
	out := make(chan string, 1000)
	go func() {
		defer close(out)
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			out <- scanner.Text()
		}
	}()
	return out
}

func next(t *testing.T, from chan string) string {
	t.Helper()
	select {
	case line := <-from:
		return line
	case <-time.After(20 * time.Second):
		t.Fatal("nothing comes")
		return ""
	}
}

func expectLines(t *testing.T, from chan string, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, next(t, from))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// watchedLines is what a watch prints of these changes; the documentation shows some.
var watchedLines = []string{
	"2026-10-01T12:00:01Z  compute-1  UP  ->  UNKNOWN  LeaseExpired  (reporting: True -> False)",
	"2026-10-01T12:00:02Z  compute-1  UNKNOWN  ->  DOWN  ForcedDown",
	"2026-10-01T12:00:03Z  compute-2  UP  ->  MAINTENANCE  Disabled",
	"2026-10-01T12:00:04Z  compute-2  MAINTENANCE  Disabled  (reporting: True -> False)",
	"2026-10-01T12:00:00Z  compute-2  MAINTENANCE  WindowOpen",
	"2026-10-01T12:00:00Z  compute-2  deleted, was  MAINTENANCE",
}

func TestWatchTellsEachChange(t *testing.T) {
	up("compute-1").make(t)
	up("compute-2").make(t)
	w := startWatch(t, env.Kubeconfig)
	expectLines(t, w.notes, "Watching 2 hosts: 2 UP.")
	becomes(t, "compute-1", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, metav1.ConditionFalse, time.Second)
	becomes(t, "compute-1", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown, metav1.ConditionFalse, 2*time.Second)
	becomes(t, "compute-2", v1alpha1.HostStatusMaintenance, v1alpha1.ReasonDisabled, metav1.ConditionTrue, 3*time.Second)
	becomes(t, "compute-2", v1alpha1.HostStatusMaintenance, v1alpha1.ReasonDisabled, metav1.ConditionFalse, 4*time.Second)
	becomes(t, "compute-2", v1alpha1.HostStatusMaintenance, v1alpha1.ReasonWindowOpen, metav1.ConditionFalse, 3*time.Second)
	expect.NoError(t, env.Admin.Delete(t.Context(), read(t, "compute-2")))
	expectLines(t, w.lines, watchedLines...)
	if code := w.stop(); code != 0 {
		t.Errorf("Ctrl-C ends it with %d", code)
	}
}

func TestWatchOfSomeHostsTellsOfNoOthers(t *testing.T) {
	for _, name := range []string{"compute-1", "compute-2"} {
		h := up(name)
		h.labels = map[string]string{"name": name}
		h.make(t)
	}
	for _, args := range [][]string{{"compute-2"}, {"-l", "name=compute-2"}} {
		w := startWatch(t, env.Kubeconfig, append(args, "-o", "json")...)
		expectLines(t, w.notes, "Watching 1 host: 1 UP.")
		becomes(t, "compute-1", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, metav1.ConditionFalse, time.Second)
		becomes(t, "compute-2", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, metav1.ConditionFalse, time.Second)
		var got plugin.Transition
		expect.NoError(t, json.Unmarshal([]byte(next(t, w.lines)), &got))
		want := plugin.Transition{
			Time: now.Add(time.Second), Host: "compute-2", Event: "Changed", From: "UP", To: "UNKNOWN", Why: v1alpha1.ReasonLeaseExpired,
			ReportingFrom: v1alpha1.HostReportingTrue, ReportingTo: v1alpha1.HostReportingFalse,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("watch %v (-want +got):\n%s", args, diff)
		}
		w.stop()
		for _, name := range []string{"compute-1", "compute-2"} {
			becomes(t, name, v1alpha1.HostStatusUp, v1alpha1.ReasonReporting, metav1.ConditionTrue, 0)
		}
	}
}

// door is a way to the API server that can be shut.
type door struct {
	address, to string

	mu       sync.Mutex
	listener net.Listener
	passing  map[net.Conn]struct{}
}

func newDoor(t *testing.T) *door {
	t.Helper()
	u, err := url.Parse(env.Cluster.URL)
	expect.NoError(t, err)
	d := &door{address: "127.0.0.1:0", to: u.Host, passing: map[net.Conn]struct{}{}}
	d.open(t)
	t.Cleanup(d.shut)
	return d
}

func (d *door) open(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", d.address)
	expect.NoError(t, err)
	d.listener, d.address = listener, listener.Addr().String()
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go d.pass(in)
		}
	}()
}

func (d *door) pass(in net.Conn) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	d.mu.Lock()
	d.passing[in], d.passing[out] = struct{}{}, struct{}{}
	d.mu.Unlock()
	go func() { _, _ = io.Copy(out, in) }()
	_, _ = io.Copy(in, out)
}

// shut refuses every connection, and cuts those that there are.
func (d *door) shut() {
	_ = d.listener.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.passing {
		_ = c.Close()
	}
	clear(d.passing)
}

func TestWatchTellsWhatChangedWhileItWasCutOff(t *testing.T) {
	for _, name := range []string{"compute-1", "compute-2", "compute-3"} {
		up(name).make(t)
	}
	d := newDoor(t)
	config, err := env.Cluster.AdminConfig()
	expect.NoError(t, err)
	config.Host = "https://" + d.address
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, config))

	w := startWatch(t, kubeconfig)
	expectLines(t, w.notes, "Watching 3 hosts: 3 UP.")
	becomes(t, "compute-1", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, metav1.ConditionTrue, time.Second)
	expectLines(t, w.lines, "2026-10-01T12:00:01Z  compute-1  UP  ->  UNKNOWN  LeaseExpired")
	d.shut()
	if note := next(t, w.notes); !strings.HasPrefix(note, "Connection lost, trying again: ") {
		t.Errorf("it says %q", note)
	}
	becomes(t, "compute-1", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting, metav1.ConditionTrue, 2*time.Second)
	becomes(t, "compute-1", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown, metav1.ConditionTrue, 3*time.Second)
	becomes(t, "compute-2", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, metav1.ConditionTrue, 4*time.Second)
	expect.NoError(t, env.Admin.Delete(t.Context(), read(t, "compute-3")))
	d.open(t)
	expectLines(t, w.notes, "Connected again.")
	// Whether each step is told depends on whether the watch could go on where it
	// stopped; the last word on each host is told in any case.
	last := map[string]string{}
	for len(last) < 3 || !strings.Contains(last["compute-1"], "DOWN") {
		line := next(t, w.lines)
		last[strings.Fields(line)[1]] = line
	}
	for host, want := range map[string]string{
		"compute-1": "2026-10-01T12:00:03Z  compute-1  %s  ->  DOWN  ForcedDown",
		"compute-2": "2026-10-01T12:00:04Z  compute-2  UP  ->  UNKNOWN  LeaseExpired",
		"compute-3": "2026-10-01T12:00:00Z  compute-3  deleted, was  UP",
	} {
		if last[host] != want && last[host] != fmt.Sprintf(want, "UP") && last[host] != fmt.Sprintf(want, "UNKNOWN") {
			t.Errorf("the last word on %s is %q, want %q", host, last[host], want)
		}
	}
}

func TestWatchEndsWithItsReader(t *testing.T) {
	up("compute-1").make(t)
	s := newSession()
	reader, out := io.Pipe()
	_ = reader.Close()
	notes, errOut := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- plugin.Run(t.Context(), s.environment(out, errOut), []string{"watch", "--kubeconfig=" + env.Kubeconfig})
	}()
	told := lines(notes)
	expectLines(t, told, "Watching 1 host: 1 UP.")
	becomes(t, "compute-1", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, metav1.ConditionFalse, time.Second)
	expectLines(t, told, "error: printing a change: io: read/write on closed pipe")
	if got := <-code; got != 1 {
		t.Errorf("it ends with %d", got)
	}
}

func TestWatchSaysWhenTheManagerIsGoneAndBack(t *testing.T) {
	up("compute-1").make(t)
	t.Cleanup(func() { expect.NoError(t, sign(context.Background(), now, time.Hour)) })
	expect.NoError(t, sign(t.Context(), now, time.Second))
	w := startWatch(t, env.Kubeconfig)
	expectLines(t, w.notes, "Watching 1 host: 1 UP.",
		"Warning: no hoststatus manager has been at work since 2026-10-01T12:00:00Z (0s ago), so no host status changes; check that a manager runs")
	expect.NoError(t, sign(t.Context(), now.Add(time.Minute), time.Hour))
	expectLines(t, w.notes, "A hoststatus manager is at work again.")
	w.stop()

	// One that was gone before.
	expect.NoError(t, sign(t.Context(), now.Add(-time.Hour), time.Second))
	w = startWatch(t, env.Kubeconfig)
	expectLines(t, w.notes, "Watching 1 host: 1 UP.",
		"Warning: no hoststatus manager has been at work since 2026-10-01T11:00:00Z (60m ago), so what is shown may be out of date; check that a manager runs")
}

func TestWatchOnATerminalShowsASignOfLife(t *testing.T) {
	up("compute-1").make(t)
	s := newSession()
	s.terminal, s.environ = true, map[string]string{"NO_COLOR": "1"}
	reader, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- plugin.Run(ctx, s.environment(out, io.Discard), []string{"watch", "--kubeconfig=" + env.Kubeconfig})
		_ = out.Close()
	}()
	if seen := readUntil(t, reader, "; a manager is at work"); !strings.Contains(seen, "\r\x1b[K12:00:00Z  no change for ") {
		t.Errorf("the sign of life is %q", seen)
	}
	becomes(t, "compute-1", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired, metav1.ConditionTrue, time.Second)
	readUntil(t, reader, "\r\x1b[K2026-10-01T12:00:01Z  compute-1  UP  ->  UNKNOWN  LeaseExpired\n")
	cancel()
	_, _ = io.Copy(io.Discard, reader)
	if got := <-code; got != 0 {
		t.Errorf("Ctrl-C ends it with %d", got)
	}
}
