// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
	"hoststatus.dev/hoststatus/internal/version"
)

var update = flag.Bool("update", false, "write the golden files")

// hostile is what must not reach a terminal: ESC, BEL, DEL, C1, and text that runs backwards.
const hostile = "a\x1b[2J\aa\x7f\u009b31m\u202eb\U000e0041c"

// on puts a server on a host, with an address.
func on(host, address string) func(*tenantv1alpha1.Server) {
	return func(s *tenantv1alpha1.Server) {
		s.Status.HostID = host
		s.Status.Networks[0].Addresses = []string{address}
	}
}

// busy is a team with a server of each kind.
func busy() *api {
	history := func(s *tenantv1alpha1.Server) {
		up, unknown := v1alpha1.HostStatusUp, v1alpha1.HostStatusUnknown
		s.Status.HostHistory = []v1alpha1.HostStatusChange{
			{HostStatus: s.Status.HostStatus, Reason: s.Status.HostStatusReason, Since: s.Status.HostStatusTransitionTime},
			{HostStatus: &up, Reason: v1alpha1.ReasonReporting, Since: at(-26 * time.Hour)},
			{HostStatus: &unknown, Reason: v1alpha1.ReasonLeaseExpired, Since: at(-27 * time.Hour)},
			{Since: at(-28 * time.Hour)},
		}
	}
	a := newAPI(
		server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced(), history, on("h1", "10.0.0.4")),
		server("web-2", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced(state(v1alpha1.AnswerStateReady)), on("h1", "10.0.0.5")),
		server("web-10", "UP", v1alpha1.ReasonReporting, on("h2", "10.0.0.6")),
		server("db-1", "DOWN", v1alpha1.ReasonForcedDown, silent, history, on("h3", "10.0.0.7")),
		server("db-2", "UNKNOWN", v1alpha1.ReasonLeaseExpired, silent, history, on("h4", "10.0.0.8"), func(s *tenantv1alpha1.Server) {
			s.Status.Networks = append(s.Status.Networks, v1alpha1.ServerNetwork{Name: "storage", Addresses: []string{"192.168.17.3", "fd00::17:3"}})
			s.Status.TaskState = "rebooting"
		}),
		server("api-1", "MAINTENANCE", v1alpha1.ReasonWindowOpen, on("h5", "10.0.0.9"), announced(func(w *v1alpha1.AnnouncedWindow) {
			w.StartTime, w.OpensAt, w.EndTime = at(-3*time.Hour), at(-time.Hour), at(time.Hour)
		})),
		server("new-1", "", v1alpha1.ReasonNoHost, on("", "10.0.0.10"), func(s *tenantv1alpha1.Server) {
			s.Status.State, s.Status.PowerState, s.Status.Networks, s.Status.HostReporting = "BUILD", "", nil, ""
		}),
	)
	a.answers["web-2"] = answerOf("web-2", ownerv1alpha1.AnswerReady, nil)
	return a
}

// blind is the same for somebody to whom host status is not granted.
func blind() *api {
	a := busy()
	a.grant = GrantNone
	for _, s := range a.servers {
		hidden(s)
	}
	return a
}

// transcript is what is typed, and what comes of it.
func (a *api) transcript(t *testing.T, width int, commands ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, command := range commands {
		printed, complaints, code := a.run(t, width, strings.Fields(command)...)
		_, _ = fmt.Fprintf(&out, "$ kubectl servers %s\n%s%s", command, printed, complaints)
		if code != ExitOK {
			_, _ = fmt.Fprintf(&out, "[exit code %d]\n", code)
		}
		out.WriteString("\n")
	}
	return out.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it):\n%s", path, diff)
	}
}

func TestWhatOwnersReadAtEachWidth(t *testing.T) {
	reads := []string{"list", "list -o wide", "show web-1", "show web-2", "show db-1", "show db-2", "show api-1", "show new-1", "show web-11"}
	for _, width := range []int{80, 200} {
		golden(t, fmt.Sprintf("granted-%d", width), busy().transcript(t, width, reads...))
		golden(t, fmt.Sprintf("not-granted-%d", width), blind().transcript(t, width, "list", "show web-1", "ready web-1"))
	}
	golden(t, "scripts", busy().transcript(t, 0, "list -A", "show web-1 -o json", "list -o name", "ready web-1 -o yaml"))
}

func TestWhatOwnersAnswer(t *testing.T) {
	for _, width := range []int{80, 200} {
		golden(t, fmt.Sprintf("answers-%d", width), busy().transcript(t, width,
			"ready web-1 web-2", "ready web-1", "not-before web-1 tomorrow 06:00", "not-before web-1 2026-10-03T06:00:00Z",
			"withdraw web-1", "withdraw web-1", "ready web-10", "ready web-1 web-11", "not-before web-1 06:00",
			"ready web-1 --dry-run=client", "ready web-1 --dry-run=server", "withdraw web-2 --dry-run=server"))
	}
}

func TestAtEachWidthLinesFit(t *testing.T) {
	for _, width := range []int{80, 100, 200} {
		for _, command := range []string{"list", "show web-1", "show db-2", "show api-1"} {
			out, _, _ := busy().run(t, width, strings.Fields(command)...)
			for line := range strings.Lines(out) {
				if n := kubectlplugin.Letters(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("%s at %d characters prints %d: %s", command, width, n, line)
				}
			}
		}
	}
}

func TestNothingRawIsPrintedInAnyFormat(t *testing.T) {
	a := newAPI(server("web-1", v1alpha1.HostStatus(hostile), v1alpha1.HostStatusReason(hostile), func(s *tenantv1alpha1.Server) {
		announced(func(w *v1alpha1.AnnouncedWindow) {
			w.Category, w.Impact, w.Answer = hostile, hostile, hostile
		})(s)
		s.UID, s.Status.State, s.Status.TaskState, s.Status.PowerState, s.Status.HostID = hostile, hostile, hostile, hostile, hostile
		s.Status.Networks[0].Name = hostile
		s.Labels = map[string]string{"note": hostile}
		strange := v1alpha1.HostStatus(hostile)
		s.Status.HostHistory = []v1alpha1.HostStatusChange{{HostStatus: &strange, Reason: hostile, Since: at(0)}}
	}))
	given := answerOf("web-1", hostile, nil)
	a.answers["web-1"] = given
	a.other = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Warning", `299 - "`+"c1 \u009b and \u202e"+`"`)
		return false
	}
	for _, command := range []string{
		"list", "list -o wide", "list -o json", "list -o yaml", "list -o name", "list -o jsonpath={.items[*].status.taskState}",
		"show web-1", "show web-1 -o json", "show web-1 -o yaml", "withdraw web-1 --dry-run=client", "ready web-1 --dry-run=client",
		"ready web-1 --dry-run=client -o json", "__complete show ",
	} {
		for _, width := range []int{0, 80} {
			args := strings.Split(command, " ")
			out, complaints, code := a.run(t, width, args...)
			if code != ExitOK {
				t.Errorf("%s ends with %d: %s", command, code, complaints)
			}
			for _, r := range out + complaints {
				if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf) {
					t.Errorf("%s prints %U:\n%q", command, r, out+complaints)
					break
				}
			}
		}
	}
}

func TestTheMissingRightIsNamed(t *testing.T) {
	for _, c := range []struct {
		lacks, command, want string
		code                 int
	}{
		{"list/servers", "list", "you lack the right to list servers.tenant.hoststatus.dev in namespace team-a; if your servers are in another one, name it with --namespace, or else ask for the ClusterRole hoststatus-server-viewer", ExitError},
		{"list/servers", "list -n team-a", "you lack the right to list servers.tenant.hoststatus.dev in namespace team-a; ask for the ClusterRole hoststatus-server-viewer", ExitError},
		{"list/servers", "list -A", "you lack the right to list servers.tenant.hoststatus.dev in all namespaces; name one with --namespace, or ask for the ClusterRole hoststatus-server-viewer", ExitError},
		{"list/servers", "watch", "you lack the right to list servers.tenant.hoststatus.dev in namespace team-a", ExitError},
		{"get/servers", "show web-1", "you lack the right to get servers.tenant.hoststatus.dev in namespace team-a", ExitError},
		{"list/servers", "show web-1", "Your other servers could not be read: you lack the right to list servers.tenant.hoststatus.dev in namespace team-a", ExitOK},
		{"get/maintenanceanswers", "show web-1", "Your answer could not be read: you lack the right to get maintenanceanswers.owner.hoststatus.dev in namespace team-a; ask for the ClusterRole hoststatus-maintenance-answerer", ExitOK},
		{"get/maintenanceanswers", "show web-2", "Ready. It counts.", ExitOK},
		{"get/maintenanceanswers", "ready web-1", "you lack the right to get maintenanceanswers.owner.hoststatus.dev in namespace team-a; ask for the ClusterRole hoststatus-maintenance-answerer", ExitError},
		{"create/maintenanceanswers", "ready web-1", "web-1: you lack the right to create maintenanceanswers.owner.hoststatus.dev in namespace team-a; ask for the ClusterRole hoststatus-maintenance-answerer", ExitError},
		{"update/maintenanceanswers", "not-before web-2 +3h", "web-2: you lack the right to update maintenanceanswers.owner.hoststatus.dev in namespace team-a", ExitError},
		{"delete/maintenanceanswers", "withdraw web-2", "web-2: you lack the right to delete maintenanceanswers.owner.hoststatus.dev in namespace team-a", ExitError},
		{"get/servers", "ready web-1", "you lack the right to get servers.tenant.hoststatus.dev in namespace team-a (ClusterRole hoststatus-server-viewer); give the start of the window", ExitUsage},
		{"get/servers", "ready web-1 --window 2026-10-01T14:00:00Z", "the server could not be read", ExitOK},
		{"create/maintenanceanswers", "ready web-1 web-2", "web-1: you lack the right", ExitError},
	} {
		a := busy()
		a.lacks = []string{c.lacks}
		out, complaints, code := a.run(t, 0, strings.Fields(c.command)...)
		if code != c.code || !strings.Contains(out+complaints, c.want) {
			t.Errorf("without %s, %s ends with %d, not %d:\n%s%s\nwant %s", c.lacks, c.command, code, c.code, out, complaints, c.want)
		}
	}
}

// What is suggested works as it stands: with the namespace, if that was named.
func TestWhatIsSuggestedCanBeTyped(t *testing.T) {
	for command, want := range map[string]string{
		"show web-1":           "'kubectl servers ready web-1'",
		"show web-1 -n team-a": "'kubectl servers ready web-1 -n team-a'",
		"web-1":                `"web-1" is not a verb of kubectl servers; if it is a server: kubectl servers show web-1`,
		"web-1 -n team-a":      "kubectl servers show web-1 -n team-a",
		"shw web-1":            "did you mean show?",
		"list":                 "'kubectl servers show NAME' explains a host status.",
	} {
		out, complaints, _ := busy().run(t, 0, strings.Fields(command)...)
		if !strings.Contains(out+complaints, want) {
			t.Errorf("%s prints\n%s%swant %s", command, out, complaints, want)
		}
	}
	a := newAPI(server("web-1", "UP", v1alpha1.ReasonReporting))
	if _, complaints, _ := a.run(t, 0, "list"); complaints != "1 server.\n" {
		t.Errorf("where all is well it prints %q", complaints)
	}
}

func TestAViewThatIsNotThereIsNoServerThatIsNotThere(t *testing.T) {
	for want, other := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"the cluster at https://10.0.0.1:6443 does not serve servers.tenant.hoststatus.dev; check --context": func(w http.ResponseWriter, r *http.Request) bool {
			http.NotFound(w, r)
			return true
		},
		"does not serve servers.tenant.hoststatus.dev at present; try again later": func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "unavailable")
			return true
		},
	} {
		for _, command := range []string{"list", "show web-1", "watch", "ready web-1"} {
			a := busy()
			a.other = other
			if _, complaints, code := a.run(t, 0, strings.Fields(command)...); code != ExitError || !strings.Contains(complaints, want) {
				t.Errorf("%s ends with %d: %s\nwant %s", command, code, complaints, want)
			}
		}
	}
}

func TestNothingIsWrittenBeforeAllIsKnown(t *testing.T) {
	for command, code := range map[string]int{
		"ready web-1 web-11": ExitNotFound, "ready web-1 web-10": ExitUsage, "withdraw web-2 web-11": ExitNotFound, "not-before web-1 soon": ExitUsage,
		"ready web-1 --window soon": ExitUsage, "ready web-1 --dry-run=maybe": ExitUsage, "ready web-1 -o table": ExitUsage, "ready": ExitUsage,
		"not-before web-1": ExitUsage, "withdraw": ExitUsage, "show": ExitUsage, "list web-1": ExitUsage, "frobnicate": ExitUsage, "list --color=blue": ExitUsage,
		"list -l ===": ExitUsage, "list --field-selector x": ExitUsage, "watch web-1 -A": ExitUsage, "watch web-1 -l a=b": ExitUsage, "watch -o yaml": ExitUsage,
		"watch web-11": ExitNotFound, "ready web-1 --dry-run=server": ExitOK, "withdraw web-2 --dry-run=client": ExitOK,
	} {
		a := busy()
		_, complaints, got := a.run(t, 0, strings.Fields(command)...)
		if got != code {
			t.Errorf("%s ends with %d, not %d: %s", command, got, code, complaints)
		}
		if len(a.answers) != 1 || a.answers["web-2"] == nil {
			t.Errorf("%s has written or removed an answer", command)
		}
	}
}

func TestAnAnswerThatChangesMeanwhileIsDecidedAgain(t *testing.T) {
	a := busy()
	meanwhile := 0
	a.other = func(_ http.ResponseWriter, r *http.Request) bool {
		if (r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, answersPath) || r.Method == http.MethodPut) && meanwhile < 3 {
			meanwhile++
			if meanwhile == 2 { // It is withdrawn, and given anew.
				delete(a.answers, "web-1")
				return false
			}
			other := answerOf("web-1", ownerv1alpha1.AnswerReady, nil)
			other.ResourceVersion = fmt.Sprint(100 + meanwhile)
			a.answers["web-1"] = other
		}
		return false
	}
	if _, complaints, code := a.run(t, 0, "not-before", "web-1", "+3h"); code != ExitOK {
		t.Fatalf("it ends with %d: %s", code, complaints)
	}
	if got := a.answers["web-1"]; got == nil || got.Spec.Answer != ownerv1alpha1.AnswerNotBefore || got.Spec.NotBefore.Unix() != at(3*time.Hour).Unix() ||
		got.Spec.ServerUID != string(a.servers[0].UID) || got.Spec.WindowStartTime.Unix() != at(2*time.Hour).Unix() {
		t.Errorf("in the end the answer is %+v", got)
	}
}

func TestSeveralAnswersAreOneListInJSON(t *testing.T) {
	for kind, names := range map[string][]string{"MaintenanceAnswer": {"web-1"}, "MaintenanceAnswerList": {"web-1", "web-2"}} {
		out, complaints, code := busy().run(t, 0, append([]string{"ready", "-o", "json"}, names...)...)
		var got metav1.TypeMeta
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != ExitOK || got.Kind != kind {
			t.Errorf("of %v it prints a %s (%v, %d): %s", names, got.Kind, err, code, complaints)
		}
	}
}

func TestShellsCompleteServersAndVerbs(t *testing.T) {
	for typed, want := range map[string][]string{
		"show ":             {"api-1", "db-1", "db-2", "new-1", "web-1", "web-2", "web-10"},
		"show web-1":        {"web-1", "web-10"},
		"show web-1 ":       nil,
		"ready web-1 ":      {"api-1", "web-2"},
		"not-before web-1 ": {"today", "tomorrow"},
		"wi":                {"withdraw"},
		"list -o ":          {"wide", "json", "yaml", "name"},
		"ready --dry-run ":  {"none", "client", "server"},
	} {
		out, _, _ := busy().run(t, 0, append([]string{"__complete"}, strings.Split(typed, " ")...)...)
		var got []string
		for line := range strings.Lines(out) {
			if word, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); word != "" && !strings.HasPrefix(word, ":") {
				got = append(got, word)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("kubectl servers %s<Tab> offers %q, want %q", typed, got, want)
		}
	}
}

func TestTheVersionIsPrintedWithoutACluster(t *testing.T) {
	streams, _, out, complaint := genericiooptions.NewTestIOStreams()
	code := Run(t.Context(), Environment{IOStreams: streams, Getenv: func(string) string { return "" }}, []string{"--version"})
	if want := version.Of("kubectl-servers") + "\n"; code != ExitOK || out.String() != want || complaint.Len() > 0 {
		t.Errorf("code %d, printed %q and %q; want %q alone", code, out, complaint, want)
	}
}

// The page shows what the tests have printed, and nothing else.
func TestThePageShowsWhatIsPrinted(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "*.golden"))
	if err != nil {
		t.Fatal(err)
	}
	printed := "\n"
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		printed += string(text) + "\n"
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "use", "kubectl-servers.md"))
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for block := range strings.SplitSeq(string(page), "```") {
		kind, text, _ := strings.Cut(block, "\n")
		if kind != "console" && kind != "text" {
			continue
		}
		for step := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
			steps++
			if !strings.Contains(printed, "\n"+step+"\n\n") && (kind == "console" || !strings.Contains(printed, "\n"+step+"\n")) {
				t.Errorf("no test has printed\n%s", step)
			}
		}
	}
	if steps == 0 {
		t.Error("the page shows nothing")
	}
}

func TestChangesArePrintedAsTheyCome(t *testing.T) {
	a := busy()
	var lines []string
	for _, after := range []*tenantv1alpha1.Server{
		server("web-10", "UNKNOWN", v1alpha1.ReasonLeaseExpired, silent, on("h2", "10.0.0.6")),
		server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced(state(v1alpha1.AnswerStateReady)), on("h1", "10.0.0.4")),
		server("db-2", "DOWN", v1alpha1.ReasonForcedDown, silent, on("h4", "10.0.0.8"), func(s *tenantv1alpha1.Server) { s.Status.TaskState = "rebooting" }),
	} {
		before := a.servers[slices.IndexFunc(a.servers, func(b *tenantv1alpha1.Server) bool { return b.Name == after.Name })]
		for _, change := range changesBetween(before, after, now) {
			lines = append(lines, change.line(false, false, false))
		}
	}
	golden(t, "watch", []byte(strings.Join(lines, "\n")+"\n"))
}

func TestCommandsThatErrorsSuggestNameTheNamespace(t *testing.T) {
	planned := newAPI(server("web-1", "NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, announced(func(w *v1alpha1.AnnouncedWindow) {
		w.StartTime, w.OpensAt = nil, nil
	})))
	for command, want := range map[string]string{
		"show nova -n team-a":   "'kubectl servers list -n team-a' lists all 1",
		"show nova":             "'kubectl servers list' lists all 1",
		"ready web-1 -n team-a": "answer once 'kubectl servers show web-1 -n team-a' shows it",
		"ready web-1":           "answer once 'kubectl servers show web-1' shows it",
	} {
		if _, complaints, _ := planned.run(t, 0, strings.Fields(command)...); !strings.Contains(complaints, want) {
			t.Errorf("%s does not suggest %s: %s", command, want, complaints)
		}
	}
}

// An answer is decided again if another one came in between. It must not become one to a window,
// or for a server, that its owner has never seen.
func TestAnAnswerThatIsDecidedAgainIsToWhatItsOwnerHasSeen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*tenantv1alpha1.Server)
		want   string
	}{
		"nothing else has changed":   {func(*tenantv1alpha1.Server) {}, ""},
		"the server was made again":  {func(s *tenantv1alpha1.Server) { s.UID = "another" }, "web-1: the server was deleted and created again meanwhile"},
		"the window was moved":       {func(s *tenantv1alpha1.Server) { s.Status.MaintenanceWindow.StartTime = at(3 * time.Hour) }, "web-1: its maintenance window was moved meanwhile, from 2026-10-01T14:00:00Z to 2026-10-01T15:00:00Z"},
		"owners have put it off now": {func(s *tenantv1alpha1.Server) { s.Status.MaintenanceWindow.OpensAt = at(3 * time.Hour) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, refused := busy(), false
			a.other = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost || r.URL.Path != answersPath || refused {
					return false
				}
				refused = true
				c.change(a.servers[0])
				refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists, "already exists")
				return true
			}
			_, complaints, code := a.run(t, 0, "ready", "web-1")
			if answered := a.answers["web-1"] != nil; answered != (c.want == "") || (code == ExitOK) != answered || !strings.Contains(complaints, c.want) {
				t.Errorf("answered: %t, exit code %d: %s", answered, code, complaints)
			}
		})
	}
}

func TestCtrlCIsNotBlamedOnTheCluster(t *testing.T) {
	for _, command := range []string{"list", "list -o json", "show web-1", "watch", "ready web-1"} {
		a := busy()
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

// full is a disk with room for a line.
type full struct{ lines int }

func (f *full) Write(p []byte) (int, error) {
	if f.lines--; f.lines < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

func TestWhatCouldNotBePrintedIsAnError(t *testing.T) {
	for _, command := range []string{"list", "list -o wide", "list -o json", "list -o name", "show web-1", "ready web-1 web-2"} {
		a := busy()
		a.out = &full{}
		_, complaints, code := a.run(t, 0, strings.Fields(command)...)
		if code != ExitError || !strings.Contains(complaints, "no space left on device") {
			t.Errorf("%s on a full disk ends with %d: %s", command, code, complaints)
		}
	}
	a := busy()
	a.out = &full{}
	if _, complaints, _ := a.run(t, 0, "ready", "web-1"); !strings.Contains(complaints, "error: the answers were written, but not all was printed: ") {
		t.Errorf("of an answer that was written and not printed it prints %s", complaints)
	}
	a = busy()
	a.out = &full{lines: 1}
	if _, complaints, code := a.run(t, 0, "list"); code != ExitError || !strings.Contains(complaints, "error: not all was printed: no space left on device") {
		t.Errorf("a list that is cut after a line ends with %d: %s", code, complaints)
	}
}

func TestWithoutTheRightToWatchAWatchEndsAndNamesTheRight(t *testing.T) {
	a := busy()
	a.other = func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Query().Get("watch") != "" && a.forbids(w, "watch", servers)
	}
	a.lacks = []string{"watch/servers"}
	out, complaints, code := a.run(t, 0, "watch")
	const want = "error: you lack the right to watch servers.tenant.hoststatus.dev in namespace team-a;"
	if code != ExitError || out != "" || !strings.Contains(complaints, want) || strings.Contains(complaints, "Connect") {
		t.Errorf("it ends with %d, and prints %q:\n%s", code, out, complaints)
	}
}
