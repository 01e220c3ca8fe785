// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// fleet is a host of each kind.
func fleet(t *testing.T) {
	t.Helper()
	rack := map[string]string{"rack": "r12"}
	h := up("compute-1")
	h.make(t)
	h = up("compute-10")
	h.labels, h.status, h.reason = rack, v1alpha1.HostStatusNeedsMaintenance, v1alpha1.ReasonWindowAnnounced
	h.spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{
		StartTime: ago(-2 * time.Hour), EndTime: ago(-3 * time.Hour), Reason: ptr.To("new memory"),
	}
	h.make(t)
	h = silent("compute-2")
	h.labels, h.status, h.reason, h.since = rack, v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown, time.Minute
	h.spec.ForcedDown, h.spec.ForcedDownReason = ptr.To(true), ptr.To("fenced by ipmi")
	h.make(t)
	h = silent("compute-3")
	h.spec.LeaseDurationSeconds = 20
	h.make(t)
	h = silent("compute-4")
	h.status, h.reason, h.since = v1alpha1.HostStatusMaintenance, v1alpha1.ReasonDisabled, 26*time.Hour
	h.spec.Disabled, h.spec.DisabledReason = ptr.To(true), ptr.To("new memory")
	h.make(t)
	h = host{
		name: "compute-5", reason: v1alpha1.ReasonWaitingForHeartbeat, since: 8 * time.Second,
		reporting: metav1.ConditionUnknown, why: v1alpha1.ReasonWaitingForHeartbeat,
	}
	h.make(t)
}

func TestListTellsHowEachHostIs(t *testing.T) {
	fleet(t)
	tenant(t, "team-a", "team-b")
	server(t, "team-b", "api-2", "compute-2", v1alpha1.HostStatusDown)
	server(t, "team-a", "web-10", "compute-2", v1alpha1.HostStatusDown)
	server(t, "team-a", "web-1", "compute-1", v1alpha1.HostStatusUp)
	host{name: "compute-6"}.make(t) // the manager has not seen it
	s := newSession()
	for _, args := range [][]string{
		{},
		{"-o", "wide"},
		{"--sort", "status", "--no-headers"},
		{"--sort", "since"},
		{"--status", "DOWN"},
		{"--status", "down,UNKNOWN"},
		{"--status", "NONE", "-o", "name"},
		{"-l", "rack=r12", "-o", "name"},
		{"-l", "rack=r13"},
		{"-l", "rack=r13", "-o", "json"},
		{"compute-2", "compute-1", "compute-2"},
		{"compute-1", "-o", "yaml"},
		{"--status", "DOWN", "-o", "json"},
		{"-o", "jsonpath={.items[*].status.hostStatus}"},
	} {
		s.run(t.Context(), append([]string{"list"}, args...)...)
	}
	s.golden(t)
}

func TestListColoursTheStatusForPeopleOnly(t *testing.T) {
	fleet(t)
	tenant(t, "team-a", "team-b")
	server(t, "team-b", "api-2", "compute-2", v1alpha1.HostStatusDown)
	server(t, "team-a", "web-2", "compute-2", v1alpha1.HostStatusDown)
	server(t, "team-a", "web-10", "compute-2", v1alpha1.HostStatusUnknown)
	server(t, "team-a", "web-1", "compute-1", v1alpha1.HostStatusUp)
	s := newSession()
	s.run(t.Context(), "list", "--color", "never")
	s.run(t.Context(), "list", "--color", "always")
	s.terminal = true
	s.run(t.Context(), "list")
	s.run(t.Context(), "list", "-o", "name")
	s.environ = map[string]string{"NO_COLOR": "1"}
	s.run(t.Context(), "list")
	s.environ = map[string]string{"TERM": "dumb"}
	s.run(t.Context(), "list")
	s.golden(t)
}

func TestListTellsScriptsWhetherAllIsUp(t *testing.T) {
	s := newSession()
	s.run(t.Context(), "list", "--exit-code")
	fleet(t)
	s.run(t.Context(), "list", "--exit-code", "-o", "name")
	s.run(t.Context(), "list", "--exit-code", "compute-1")
	s.golden(t)
}

func TestShowTellsWhy(t *testing.T) {
	fleet(t)
	tenant(t, "team-a", "team-b")
	server(t, "team-b", "api-2", "compute-2", v1alpha1.HostStatusDown)
	server(t, "team-a", "web-10", "compute-2", v1alpha1.HostStatusUnknown)
	server(t, "team-a", "web-2", "compute-2", v1alpha1.HostStatusDown)
	server(t, "team-a", "web-1", "compute-1", v1alpha1.HostStatusUp)
	s := newSession()
	for _, name := range []string{"compute-1", "compute-2", "compute-3", "compute-4", "compute-5", "compute-10"} {
		s.run(t.Context(), "show", name)
	}
	s.run(t.Context(), "show", "compute-2", "-n", "team-b")
	s.run(t.Context(), "show", "compute-2", "-o", "json")
	s.run(t.Context(), "show", "compute-10", "-o", "yaml")
	s.terminal = true
	s.run(t.Context(), "show", "compute-2")
	s.golden(t)
}

func TestShowTellsWhatDoesNotFitTogether(t *testing.T) {
	ahead := up("clock-ahead")
	ahead.renewed = ptr.To(-time.Hour)
	ahead.make(t)
	behind := up("clock-behind")
	behind.renewed = ptr.To(time.Hour)
	behind.make(t)
	back := silent("just-back")
	back.renewed = ptr.To(time.Second)
	back.make(t)
	alive := up("said-to-be-off")
	alive.status, alive.reason = v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown
	alive.spec.ForcedDown = ptr.To(true)
	alive.make(t)
	deleted := up("lease-deleted")
	deleted.renewed = nil
	deleted.make(t)
	elsewhere := up("node-1")
	elsewhere.renewed = nil
	elsewhere.spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: "kube-node-lease", Name: "node-1.example"}
	elsewhere.make(t)
	tenant(t, "kube-node-lease")
	lease(t, "kube-node-lease", "node-1.example", 7*time.Second, 0)
	stale := up("not-seen-yet")
	stale.make(t)
	s := newSession()
	s.run(t.Context(), "disable", "not-seen-yet", "--reason", "new memory")
	for _, name := range []string{"clock-ahead", "clock-behind", "just-back", "said-to-be-off", "lease-deleted", "node-1", "not-seen-yet"} {
		s.run(t.Context(), "show", name)
	}
	s.golden(t)
}

func TestTheFleetViewerSeesUntilWhenOwnersPutAWindowOff(t *testing.T) {
	start, until := ago(-2*time.Hour), ago(-4*time.Hour)
	h := up("compute-1")
	h.spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: start, LatestStartTime: ago(-8 * time.Hour)}
	s := h.make(t)
	s.Status.Maintenance = &v1alpha1.MaintenanceStatus{StartTime: start, OpensAt: until, Servers: ptr.To[int32](1), Ready: ptr.To[int32](0), PutOff: ptr.To[int32](1)}
	expect.NoError(t, env.Admin.Status().Update(t.Context(), s))
	tenant(t, "team-a")
	server(t, "team-a", "web-1", "compute-1", v1alpha1.HostStatusNeedsMaintenance)
	web := &v1alpha1.Server{}
	expect.NoError(t, env.Admin.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "web-1"}, web))
	web.Status.MaintenanceWindow = &v1alpha1.AnnouncedWindow{StartTime: start, OpensAt: until, Answer: v1alpha1.AnswerStateNotBefore}
	expect.NoError(t, env.Admin.Status().Update(t.Context(), web))
	answer := &ownerv1alpha1.MaintenanceAnswer{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "web-1"}}
	answer.Spec = ownerv1alpha1.MaintenanceAnswerSpec{Answer: ownerv1alpha1.AnswerNotBefore, NotBefore: until, WindowStartTime: start}
	env.Create(t, answer)
	viewer := as(t, "wanda", "hoststatus-fleet-viewer")
	if code := viewer.run(t.Context(), "show", "compute-1", "-o", "wide"); code != 0 {
		t.Errorf("show ends with %d", code)
	}
	viewer.run(t.Context(), "list", "-o", "wide")
	for _, want := range []string{
		"put off by the owner of 1 server, which is possible until 2026-10-01T20:00:00Z",
		"NotBefore 2026-10-01T16:00:00Z",
		"2026-10-01T16:00:00Z   0/1 ",
	} {
		if printed := viewer.transcript.String(); !strings.Contains(printed, want) || strings.Contains(printed, "could not be read") {
			t.Errorf("there is no %q, or something could not be read:\n%s", want, printed)
		}
	}
}

func TestNothingIsShownAsNewThatNobodyKeepsUpToDate(t *testing.T) {
	up("compute-1").make(t)
	s := newSession()
	managerAt(t, now.Add(-26*time.Hour))
	for _, args := range [][]string{
		{"list", "--exit-code"},
		{"show", "compute-1"},
		{"disable", "compute-1", "--reason", "new memory"},
		{"show", "compute-1"},
		{"enable", "compute-1"},
		{"force-down", "compute-1", "--reason", "no power", "--yes"},
		{"up", "compute-1", "--dry-run=client"},
	} {
		s.run(t.Context(), args...)
	}
	noManager(t)
	s.run(t.Context(), "list")
	s.golden(t)
}

func TestWrongUsageAsksNobody(t *testing.T) {
	s := newSession()
	s.kubeconfig = "/nonexistent"
	for _, args := range [][]string{
		{"lst"},
		{"frobnicate"},
		{"list", "--status", "DEAD"},
		{"list", "--sort", "age"},
		{"list", "-o", "xml"},
		{"list", "-l", "a=b=c"},
		{"list", "-l", "a=b", "compute-1"},
		{"list", "--color", "green"},
		{"list", "--frobnicate"},
		{"show"},
		{"show", "compute-1", "compute-2"},
		{"show", "compute-1", "-o", "xml"},
		{"watch", "-o", "yaml"},
		{"up"},
		{"up", "compute-1", "-l", "a=b"},
		{"up", "compute-1", "--dry-run=yes"},
		{"up", "compute-1", "--reason", "a"},
		{"force-down", "compute-1"},
		{"force-down", "compute-1", "--reason", " "},
		{"disable", "compute-1", "--reason", strings.Repeat("é", 257)},
		{"window", "compute-1"},
		{"window", "compute-1", "--start", "tomorrow"},
		{"window", "compute-1", "--start", "2027-01-10T22:00:00"},
		{"window", "compute-1", "--end", "1h", "--for", "1h"},
		{"window", "compute-1", "--for", "-1h"},
		{"window", "compute-1", "--for", "1w"},
		{"down", "compute-1"},
		{"window", "compute-1", "--clear", "--start", "1h"},
	} {
		if code := s.run(t.Context(), args...); code != 2 {
			t.Errorf("%v ends with %d, not 2", args, code)
		}
	}
	s.golden(t)
}

func TestAClusterWithoutHoststatusIsNamedSo(t *testing.T) { uninstalled.golden(t) }

func TestAHostThatIsNotThereIsLikeOthers(t *testing.T) {
	s := newSession()
	s.run(t.Context(), "show", "compute-1")
	fleet(t)
	s.run(t.Context(), "show", "compote-1")
	s.run(t.Context(), "list", "compute-1", "compute-12")
	s.run(t.Context(), "up", "compute-2", "nova")
	s.run(t.Context(), "force-down", "compute-1", "compute", "--reason", "x", "--yes")
	s.run(t.Context(), "watch", "computer-2")
	if f := read(t, "compute-2").Spec.ForcedDown; f == nil || !*f {
		t.Error("compute-2 was written although another host does not exist")
	}
	s.golden(t)
}

func TestTheDocumentationShowsWhatIsPrinted(t *testing.T) {
	goldens, err := filepath.Glob(filepath.Join("testdata", "*.golden"))
	expect.NoError(t, err)
	withoutACluster, err := filepath.Glob(filepath.Join(env.Root, "internal", "kubectlhosts", "testdata", "*.golden"))
	expect.NoError(t, err)
	goldens = append(goldens, withoutACluster...)
	printed := "\n" + strings.Join(watchedLines, "\n") + "\n"
	for _, path := range goldens {
		golden, err := os.ReadFile(path)
		expect.NoError(t, err)
		printed += "\n" + strings.ReplaceAll(string(golden), "\n2> ", "\n")
	}
	page, err := os.ReadFile(filepath.Join(env.Root, "docs", "operate", "kubectl-hosts.md"))
	expect.NoError(t, err)
	steps := 0
	for block := range strings.SplitSeq(string(page), "```") {
		kind, text, _ := strings.Cut(block, "\n")
		if kind != "console" && kind != "text" {
			continue
		}
		for step := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
			// The commands of other tools are run by another test.
			if strings.HasPrefix(step, "$ ") && !strings.HasPrefix(step, "$ kubectl hosts ") {
				continue
			}
			steps++
			if !strings.Contains(printed, "\n"+step+"\n") {
				t.Errorf("no test has printed\n%s", step)
			}
		}
	}
	if steps == 0 {
		t.Error("the page shows nothing")
	}
}

func TestNobodyPaintsTheTerminalThroughAReason(t *testing.T) {
	up("compute-1").make(t)
	s := newSession()
	// The schema would refuse it; the plugin writes what of it can be seen.
	if code := s.run(t.Context(), "disable", "compute-1", "--reason", "\x1b[2J\nnew memory"); code != 0 {
		t.Fatalf("disable ends with %d: %s", code, s.transcript.String())
	}
	s = newSession()
	s.run(t.Context(), "list", "--output=wide")
	s.run(t.Context(), "show", "compute-1")
	if printed := s.transcript.String(); !strings.Contains(printed, "new memory") || strings.Contains(printed, "\x1b") {
		t.Errorf("it does: %q", printed)
	}
}
