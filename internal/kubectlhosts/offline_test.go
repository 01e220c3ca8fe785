// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	hostsPath   = "/apis/compute.hoststatus.dev/v1alpha1/computeservices"
	serversPath = "/apis/compute.hoststatus.dev/v1alpha1/servers"
	canaryPath  = "/apis/coordination.k8s.io/v1/namespaces/hoststatus-leases/leases/hoststatus-canary"
	viewPath    = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.tenant.hoststatus.dev"
)

// api answers like an API server with some hosts, and a manager that is at work.
type api struct {
	// state protects hosts, if something changes them while it answers.
	state sync.RWMutex
	hosts []v1alpha1.ComputeService
	// canary answers a read of the canary; nil if there is none.
	canary func() *coordinationv1.Lease
	// other answers other requests, and returns whether it did.
	other func(w http.ResponseWriter, r *http.Request) bool
	// patience is how long a sign of life is waited for.
	patience time.Duration
	// out is what the plugin prints to, if it is set.
	out io.Writer
	// interrupt is Ctrl-C, while the plugin runs.
	interrupt func()

	mu    sync.Mutex
	asked []string
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked = append(a.asked, r.Method+" "+r.URL.Path)
	a.mu.Unlock()
	if a.other != nil && a.other(w, r) {
		return
	}
	a.state.RLock()
	defer a.state.RUnlock()
	name := strings.TrimPrefix(r.URL.Path, hostsPath+"/")
	i := slices.IndexFunc(a.hosts, func(s v1alpha1.ComputeService) bool { return s.Name == name })
	switch {
	case r.URL.Path == hostsPath:
		answer(w, http.StatusOK, listOf(a.hosts))
	case i >= 0:
		answer(w, http.StatusOK, a.hosts[i])
	case r.URL.Path == serversPath:
		answer(w, http.StatusOK, metav1.Table{
			ColumnDefinitions: []metav1.TableColumnDefinition{{Name: "Name"}, {Name: "Host"}},
			Rows:              []metav1.TableRow{{Cells: []any{"web-1", "compute-1"}}, {Cells: []any{"web-2", "compute-1"}}, {Cells: []any{"lost", nil}}},
		})
	case r.URL.Path == canaryPath && a.canary != nil:
		answer(w, http.StatusOK, a.canary())
	default:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, code int32, reason metav1.StatusReason, causes ...metav1.StatusCause) {
	refuseWith(w, code, reason, string(reason), causes...)
}

func refuseWith(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) {
	answer(w, int(code), metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code, Reason: reason,
		Message: message, Details: &metav1.StatusDetails{Name: "compute-1", Causes: causes},
	})
}

// canaryOf is a manager's sign of some time.
func canaryOf(renewed time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		TypeMeta: metav1.TypeMeta{Kind: "Lease", APIVersion: "coordination.k8s.io/v1"},
		Spec:     coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: renewed}, LeaseDurationSeconds: ptr.To[int32](15)},
	}
}

func canaryAt(renewed time.Time) func() *coordinationv1.Lease {
	return func() *coordinationv1.Lease { return canaryOf(renewed) }
}

func newAPI(hosts ...*v1alpha1.ComputeService) *api {
	a := &api{canary: canaryAt(now)}
	for _, host := range hosts {
		typed(host)
		a.hosts = append(a.hosts, *host)
	}
	return a
}

func called(name string, s *v1alpha1.ComputeService) *v1alpha1.ComputeService {
	s.Name, s.ResourceVersion = name, "1"
	return s
}

// screenWidth is that of a terminal; 0 is none.
type screenWidth int

// run runs the plugin against a, at a terminal that has the given width, if any.
func (a *api) run(t *testing.T, width screenWidth, args ...string) (out, complaints string, code int) {
	t.Helper()
	server := httptest.NewServer(a)
	defer server.Close()
	streams, _, o, e := genericiooptions.NewTestIOStreams()
	if a.out != nil {
		streams.Out = a.out
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // Some verbs run until Ctrl-C.
	defer cancel()
	a.interrupt = cancel
	code = Run(ctx, Environment{
		IOStreams: streams, OutTerminal: width > 0, Width: func() int { return int(width) }, Now: func() time.Time { return now },
		Getenv: func(name string) string { return map[string]string{"NO_COLOR": "1"}[name] }, ManagerPatience: max(a.patience, time.Millisecond),
	}, append(args, "--server="+server.URL, "--kubeconfig=/dev/null"))
	return o.String(), e.String(), code
}

func TestEveryVerbWarnsOnceThatNoManagerIsAtWork(t *testing.T) {
	const gone = "Warning: no hoststatus manager has been at work since 2026-10-01T11:00:00Z (60m ago)"
	for _, c := range []struct {
		args []string
		want string
		not  string
	}{
		{[]string{"list"}, "what is shown may be out of date", ""},
		{[]string{"list", "-o", "json"}, "what is shown may be out of date", ""},
		{[]string{"show", "compute-1"}, "its status may be out of date", "clock is slow"},
		{[]string{"show", "compute-1", "-o", "json"}, `"lastSeen": "2026-10-01T11:00:00Z"`, "clock is slow"},
		{[]string{"disable", "compute-1", "--reason", "x"}, "compute-1 disabled: UP until a manager is at work, then MAINTENANCE (Disabled)", "->"},
		{[]string{"force-down", "compute-1", "--reason", "x", "--yes"}, "the change has no effect yet", "the manager sees"},
		{[]string{"window", "compute-1", "--for", "1d"}, "2026-10-01T12:00:00Z/2026-10-02T12:00:00Z", "->"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
			a.canary = canaryAt(now.Add(-time.Hour))
			// The host has fallen silent since.
			a.other = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/leases/compute-1") {
					return false
				}
				answer(w, http.StatusOK, canaryOf(now.Add(-30*time.Minute)))
				return true
			}
			out, complaints, code := a.run(t, 0, c.args...)
			if code != ExitOK || strings.Count(complaints, gone) != 1 {
				t.Errorf("it ends with %d, and complains\n%s", code, complaints)
			}
			if all := out + complaints; !strings.Contains(all, c.want) || c.not != "" && strings.Contains(all, c.not) {
				t.Errorf("there is no %q, or there is %q:\n%s", c.want, c.not, all)
			}
		})
	}
}

func TestAManagerThatLeavesSignsIsAtWorkWhateverItsClock(t *testing.T) {
	var mu sync.Mutex
	beats := 0
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
	a.canary = func() *coordinationv1.Lease {
		mu.Lock()
		defer mu.Unlock()
		beats++
		return canaryOf(now.Add(-time.Hour).Add(time.Duration(beats) * time.Second))
	}
	a.patience = time.Minute
	if _, complaints, code := a.run(t, 0, "list", "--exit-code"); code != ExitOK || strings.Contains(complaints, "Warning") {
		t.Errorf("it ends with %d, and complains %q", code, complaints)
	}
}

func TestExitCodesShowWhetherAllIsUpAndKnownToBe(t *testing.T) {
	up := called("compute-1", service("UP", v1alpha1.ReasonReporting, "True"))
	down := called("compute-2", service("DOWN", v1alpha1.ReasonForcedDown, "False"))
	lost := canaryAt(now.Add(-time.Hour))
	for _, c := range []struct {
		name   string
		api    *api
		canary func() *coordinationv1.Lease
		args   []string
		want   int
	}{
		{"all are up", newAPI(up), canaryAt(now), nil, ExitOK},
		{"one is not", newAPI(up, down), canaryAt(now), nil, ExitNotUp},
		{"there are none", newAPI(), canaryAt(now), nil, ExitNotUp},
		{"none is down", newAPI(up), canaryAt(now), []string{"--status", "DOWN"}, ExitOK},
		{"all were up", newAPI(up), lost, nil, ExitNoManager},
		{"one was not", newAPI(up, down), lost, nil, ExitNotUp},
		{"there never was a manager", newAPI(up), nil, nil, ExitNoManager},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.api.canary = c.canary
			if _, complaints, code := c.api.run(t, 0, append([]string{"list", "--exit-code"}, c.args...)...); code != c.want {
				t.Errorf("it ends with %d, not %d: %s", code, c.want, complaints)
			}
		})
	}
}

func TestWithoutTheRightToReadTheCanaryThereIsNoWarning(t *testing.T) {
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
	a.other = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/leases/") {
			return false
		}
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
		return true
	}
	for _, args := range [][]string{{"list"}, {"show", "compute-1"}, {"disable", "compute-1", "--reason", "x"}} {
		out, complaints, code := a.run(t, 0, args...)
		if code != ExitOK || strings.Contains(out+complaints, "Warning") || strings.Contains(out+complaints, "out of date") {
			t.Errorf("%v ends with %d: %s%s", args, code, out, complaints)
		}
	}
}

// hostile is what must not reach a terminal: ESC, BEL, DEL, C1, and text that runs backwards.
const hostile = "a\x1b[2J\a\x7f\u009b31m\u202eb\U000e0041c"

func TestNothingRawIsPrintedInAnyFormat(t *testing.T) {
	s := called("compute-1", service("MAINTENANCE", v1alpha1.ReasonDisabled, "True"))
	s.Spec.Disabled, s.Spec.DisabledReason = ptr.To(true), ptr.To(hostile)
	s.Status.HostStatusReason = v1alpha1.HostStatusReason(hostile)
	s.Status.Conditions[0].Message = hostile
	a := newAPI(s)
	a.other = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Warning", `299 - "`+"c1 \u009b and \u202e"+`"`)
		return false
	}
	for _, args := range [][]string{
		{"list"}, {"list", "-o", "wide"}, {"list", "-o", "json"}, {"list", "-o", "yaml"}, {"list", "-o", "kyaml"}, {"list", "-o", "name"},
		{"list", "-o", "jsonpath={.items[*].spec.disabledReason}"}, {"list", "-o", "jsonpath-as-json={.items[*].spec.disabledReason}"},
		{"list", "-o", "go-template={{range .items}}{{.spec.disabledReason}}{{end}}"},
		{"show", "compute-1"}, {"show", "compute-1", "-o", "json"}, {"show", "compute-1", "-o", "yaml"}, {"show", "compute-1", "-o", "kyaml"},
		{"enable", "compute-1", "--dry-run=client"}, {"force-down", "compute-1", "--reason", hostile, "--yes", "-o", "yaml"},
		{"disable", "compute-1", "--reason", "x", "--dry-run=client", "-o", "json"}, {"__complete", "show", ""},
	} {
		out, complaints, code := a.run(t, 0, args...)
		if code != ExitOK {
			t.Errorf("%v ends with %d: %s", args, code, complaints)
		}
		for _, r := range out + complaints {
			if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf) {
				t.Errorf("%v prints %U:\n%q", args, r, out+complaints)
				break
			}
		}
	}
	out, _, _ := a.run(t, 0, "list", "-o", "json")
	var list v1alpha1.ComputeServiceList
	if err := json.Unmarshal([]byte(out), &list); err != nil || *list.Items[0].Spec.DisabledReason != hostile {
		t.Errorf("JSON does not keep what was written: %v\n%s", err, out)
	}
}

func TestATemplateAloneIsAnOutputFormatAsInKubectl(t *testing.T) {
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
	for _, args := range [][]string{
		{"list", "--template={{range .items}}{{.metadata.name}}{{end}}"},
		{"list", "-o", "go-template", "--template={{range .items}}{{.metadata.name}}{{end}}"},
		{"disable", "compute-1", "--reason", "x", "--dry-run=client", "--template={{.metadata.name}}"},
	} {
		if out, complaints, code := a.run(t, 0, args...); out != "compute-1" || code != ExitOK {
			t.Errorf("%v ends with %d and prints %q, not the name alone: %s", args, code, out, complaints)
		}
	}
}

func TestLongNamesAreShortenedOnATerminalOnly(t *testing.T) {
	var hosts []*v1alpha1.ComputeService
	for i := range 3 {
		hosts = append(hosts, called(fmt.Sprintf("compute-with-a-long-name-%d.rack-12.room-4.datacenter-of-the-north.example.com", i), service("UP", v1alpha1.ReasonReporting, "True")))
	}
	a := newAPI(hosts...)
	out, _, _ := a.run(t, 80, "list")
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		if n := kubectlplugin.Letters(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line has %d letters: %s", n, line)
		}
		seen[strings.Fields(line)[0]] = true
	}
	if len(seen) != 4 || !strings.Contains(out, kubectlplugin.Ellipsis) {
		t.Errorf("the hosts cannot be distinguished:\n%s", out)
	}
	if out, _, _ := a.run(t, 0, "list"); strings.Contains(out, kubectlplugin.Ellipsis) || !strings.Contains(out, hosts[0].Name) {
		t.Errorf("in a pipe a name is shortened:\n%s", out)
	}
	if out, _, _ := a.run(t, 300, "list"); strings.Contains(out, kubectlplugin.Ellipsis) {
		t.Errorf("a name is shortened that fits:\n%s", out)
	}
}

func TestTheListCountsServers(t *testing.T) {
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")), called("compute-2", service("UP", v1alpha1.ReasonReporting, "True")))
	out, complaints, _ := a.run(t, 0, "list", "--no-headers")
	if lines := strings.Split(out, "\n"); !strings.HasSuffix(lines[0], " 2") || !strings.HasSuffix(lines[1], " 0") || complaints != "" {
		t.Errorf("it prints\n%s%s", out, complaints)
	}
	if _, complaints, _ = a.run(t, 0, "list"); complaints != "2 hosts: 2 UP; 2 servers.\n" {
		t.Errorf("it sums up %q", complaints)
	}
	a.other = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != serversPath {
			return false
		}
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
		return true
	}
	if out, complaints, code := a.run(t, 0, "list"); code != ExitOK || !strings.Contains(out, "?") || !strings.Contains(complaints, "could not be counted") {
		t.Errorf("without the right to count it ends with %d, and prints\n%s%s", code, out, complaints)
	}
}

func TestSeveralHostsAreOneListInJSON(t *testing.T) {
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")), called("compute-2", service("UP", v1alpha1.ReasonReporting, "True")))
	for kind, hosts := range map[string][]string{"ComputeService": {"compute-1"}, "ComputeServiceList": {"compute-1", "compute-2"}} {
		out, complaints, code := a.run(t, 0, append([]string{"disable", "--reason", "x", "--dry-run=client", "-o", "json"}, hosts...)...)
		var got metav1.TypeMeta
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != ExitOK || got.Kind != kind {
			t.Errorf("of %v it prints a %s (%v, %d): %s", hosts, got.Kind, err, code, complaints)
		}
	}
}

func TestDownNeverFailsForItsText(t *testing.T) {
	for _, c := range []struct {
		name, reason, want string
		refuses            bool
	}{
		{"too long", strings.Repeat("é", 300), strings.Repeat("é", 255) + "…", false},
		{"in strange letters", "fenced\nby \x1b[1mipmi\u202e", "fenced by \ufffd[1mipmi\ufffd", false},
		{"refused all the same", "fenced", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAPI(called("compute-1", service("UNKNOWN", v1alpha1.ReasonLeaseExpired, "False")))
			var patched v1alpha1.ComputeService
			a.other = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPatch {
					return false
				}
				patched = v1alpha1.ComputeService{}
				_ = json.NewDecoder(r.Body).Decode(&patched)
				if c.refuses && patched.Spec.ForcedDownReason != nil {
					refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, metav1.StatusCause{Field: "spec.forcedDownReason"})
					return true
				}
				return false
			}
			_, complaints, code := a.run(t, 0, "force-down", "compute-1", "--reason", c.reason)
			if code != ExitOK || !isTrue(patched.Spec.ForcedDown) || text(patched.Spec.ForcedDownReason) != c.want {
				t.Errorf("it ends with %d, and writes %q: %s", code, text(patched.Spec.ForcedDownReason), complaints)
			}
		})
	}
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
	if _, complaints, code := a.run(t, 0, "disable", "compute-1", "--reason", strings.Repeat("é", 257)); code != ExitUsage || len(a.asked) > 0 {
		t.Errorf("disable ends with %d after %v: %s", code, a.asked, complaints)
	}
}

func TestAChangeIsGivenUpAfterSomeTriesAlsoIfItsReasonIsRefused(t *testing.T) {
	a := newAPI(called("compute-1", service("UNKNOWN", v1alpha1.ReasonLeaseExpired, "False")))
	tries := 0
	a.other = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		var patched v1alpha1.ComputeService
		_ = json.NewDecoder(r.Body).Decode(&patched)
		switch tries++; {
		case tries > 4*maxAttempts:
			a.interrupt()
		case patched.Spec.ForcedDownReason != nil:
			refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, metav1.StatusCause{Field: "spec.forcedDownReason"})
			return true
		}
		refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
		return true
	}
	if _, complaints, code := a.run(t, 0, "force-down", "compute-1", "--reason", "fenced"); code != ExitError || tries > 2*maxAttempts {
		t.Errorf("it ends with %d after %d tries: %s", code, tries, complaints)
	}
}

func TestThereIsAWarningWhenTheNameServersMeansAnotherResource(t *testing.T) {
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
	available := "False"
	a.other = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != viewPath {
			return false
		}
		answer(w, http.StatusOK, map[string]any{"status": map[string]any{"conditions": []map[string]string{
			{"type": "Available", "status": available, "reason": "FailedDiscoveryCheck"},
		}}})
		return true
	}
	for _, args := range [][]string{{"list"}, {"show", "compute-1"}} {
		for available = range map[string]bool{"False": true, "True": false} {
			out, complaints, _ := a.run(t, 0, args...)
			if printed := strings.Contains(out+complaints, "'kubectl get servers' gets the custom resources"); printed != (available == "False") {
				t.Errorf("%v while Available is %s: %s%s", args, available, out, complaints)
			}
		}
	}
}

func TestARequestThatTimesOutIsReportedOnce(t *testing.T) {
	var logged bytes.Buffer
	klog.LogToStderr(false)
	klog.SetOutput(&logged)
	t.Cleanup(func() { klog.LogToStderr(true); klog.SetOutput(io.Discard) })
	a := newAPI()
	a.other = func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	_, complaints, code := a.run(t, 0, "list", "--request-timeout=100ms")
	klog.Flush()
	if code != ExitError || !strings.Contains(complaints, "no answer from the cluster at http://127.0.0.1:") || logged.Len() > 0 {
		t.Errorf("it ends with %d, prints %q and logs %q", code, complaints, logged.String())
	}
}

func TestCtrlCIsNotBlamedOnTheCluster(t *testing.T) {
	for _, command := range []string{"list", "list -o json", "show compute-1", "watch", "enable compute-1", "check"} {
		a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
		a.other = func(_ http.ResponseWriter, r *http.Request) bool {
			a.interrupt()
			<-r.Context().Done()
			return true
		}
		_, complaints, code := a.run(t, 0, strings.Fields(command)...)
		if code != ExitError || !strings.HasPrefix(complaints, "error: interrupted before the cluster at ") {
			t.Errorf("after Ctrl-C %s ends with %d, and prints %s", command, code, complaints)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestWhatCouldNotBePrintedIsAnError(t *testing.T) {
	for command, want := range map[string]string{
		"list":                         "error: not all was printed: no space left on device",
		"list -o json":                 "no space left on device",
		"show compute-1":               "error: not all was printed: no space left on device",
		"disable compute-1 --reason x": "error: the hosts were changed, but not all was printed: no space left on device",
	} {
		a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
		a.out = full{}
		if _, complaints, code := a.run(t, 0, strings.Fields(command)...); code != ExitError || !strings.Contains(complaints, want) {
			t.Errorf("%s on a full disk ends with %d: %s", command, code, complaints)
		}
	}
}

func TestWithoutTheRightToWatchAWatchEndsAndNamesTheRight(t *testing.T) {
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
	a.other = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		refuseWith(w, http.StatusForbidden, metav1.StatusReasonForbidden, `User "ana" cannot watch resource "computeservices" in API group`)
		return true
	}
	out, complaints, code := a.run(t, 0, "watch")
	const want = "error: you lack the right to watch computeservices.compute.hoststatus.dev; ask for the ClusterRole hoststatus-fleet-viewer"
	if code != ExitError || out != "" || !strings.Contains(complaints, want) || strings.Contains(complaints, "Connect") {
		t.Errorf("it ends with %d, and prints %q:\n%s", code, out, complaints)
	}
}

func TestErrorsNameTheCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent")
	t.Setenv("HOME", t.TempDir())
	for want, args := range map[string][]string{
		"no answer from the cluster at https://127.0.0.1:1": {"list", "--server=https://127.0.0.1:1"},
		"no cluster is configured":                          {"list"},
	} {
		streams, _, _, complaints := genericiooptions.NewTestIOStreams()
		code := Run(t.Context(), Environment{IOStreams: streams, Getenv: func(string) string { return "" }}, args)
		if code != ExitError || !strings.Contains(complaints.String(), want) {
			t.Errorf("%v ends with %d: %s", args, code, complaints)
		}
	}
}

func TestDownIsSuggestedAsForceDown(t *testing.T) {
	for typed, want := range map[string]string{"down": "force-down", "fence": "force-down", "drain": "disable", "uncordon": "enable"} {
		_, complaints, code := newAPI().run(t, 0, typed, "compute-1")
		if code != ExitUsage || !strings.Contains(complaints, "did you mean "+want) {
			t.Errorf("%s ends with %d: %s", typed, code, complaints)
		}
	}
}

func TestAWindowWithoutAnEndIsPointedOut(t *testing.T) {
	a := newAPI(called("compute-1", service("UP", v1alpha1.ReasonReporting, "True")))
	for args, printed := range map[string]bool{"--start=1h": true, "--for=1h": false} {
		if out, _, _ := a.run(t, 0, "window", "compute-1", args); strings.Contains(out, "no end: it stays open") != printed {
			t.Errorf("for %s it prints %q", args, out)
		}
	}
}

func TestWhatHappensAtOnceSharesALineOnATerminal(t *testing.T) {
	var out strings.Builder
	s := &screen{out: &out, notes: &out, gathered: true, width: func() int { return 200 }}
	s.print = func(t Transition) error {
		_, err := fmt.Fprintln(&out, showTransition(t, false, false))
		return err
	}
	at := time.Unix(0, 0)
	change := func(host, from, to string) {
		if err := s.change(Transition{Time: now, Host: host, Event: "Changed", From: from, To: to}, at); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		change(fmt.Sprintf("compute-%d", i+1), "UP", "UNKNOWN")
	}
	change("compute-9", "UNKNOWN", "DOWN") // not before it was UNKNOWN
	if err := s.tick("12:00:00Z  alive", at.Add(gatherFor)); err != nil {
		t.Fatal(err)
	}
	change("compute-1", "UNKNOWN", "UP")
	s.end()
	want := "2026-10-01T12:00:00Z  compute-1  UP  ->  UNKNOWN\n" +
		"2026-10-01T12:00:00Z  19 more  UP  ->  UNKNOWN: compute-2, compute-3, compute-4, compute-5, compute-6, compute-7, compute-8, compute-9, compute-10, compute-11 and 9 more\n" +
		"2026-10-01T12:00:00Z  compute-9  UNKNOWN  ->  DOWN\n" +
		eraseLine + "12:00:00Z  alive" + eraseLine + "2026-10-01T12:00:00Z  compute-1  UNKNOWN  ->  UP\n"
	if out.String() != want {
		t.Errorf("there is\n%q, want\n%q", out.String(), want)
	}
}

// The sign of life changes each second. If it took two lines, each second would leave one behind.
func TestTheSignOfLifeFitsIntoALine(t *testing.T) {
	var out strings.Builder
	s := &screen{out: &out, notes: &out, gathered: true, width: func() int { return 20 }}
	for _, sign := range []string{"12:00:00Z  no change for 5m; a manager is at work", "12:00:01Z  connected"} {
		if err := s.tick(sign, now); err != nil {
			t.Fatal(err)
		}
	}
	if want := eraseLine + "12:00:00Z  no chan…" + eraseLine + "12:00:01Z  connect…"; out.String() != want {
		t.Errorf("there is %q, want %q", out.String(), want)
	}
}

func TestShowHintsAtADurationThatOneLateRenewalExceeds(t *testing.T) {
	for _, c := range []struct {
		name           string
		host, declared int32
		namespace      string
		want           bool
	}{
		{"as long as the renewals", 5, 15, "", true},
		{"one renewal may be late", 15, 15, "", false},
		{"twice as long", 10, 15, "", false},
		{"the Lease's own", 0, 15, "", false},
		{"a kubelet's", 20, 40, "kube-node-lease", false},
		{"shorter than a kubelet's", 15, 40, "kube-node-lease", true},
		{"the Lease declares nothing", 5, 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := service("UP", v1alpha1.ReasonReporting, "True")
			s.Spec.LeaseDurationSeconds = c.host
			if c.namespace != "" {
				s.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: c.namespace}
			}
			r := newReport(evidence{service: s, lease: lease(time.Second, c.declared), manager: atWork()}, now)
			if got := slices.ContainsFunc(r.Hints, func(h string) bool { return strings.Contains(h, "one late renewal makes the host UNKNOWN") }); got != c.want {
				t.Errorf("the hints are %q", r.Hints)
			}
		})
	}
}

// connected is a connection to a. The function ends it.
func (a *api) connected(t *testing.T) (*cluster, func()) {
	t.Helper()
	server := httptest.NewServer(a)
	p := newPlugin(Environment{IOStreams: genericiooptions.NewTestIOStreamsDiscard(), Now: func() time.Time { return now }, Getenv: func(string) string { return "" }})
	p.Config.APIServer, p.Config.KubeConfig = ptr.To(server.URL), ptr.To("/dev/null")
	c, err := p.connect()
	if err != nil {
		t.Fatal(err)
	}
	return c, server.Close
}
