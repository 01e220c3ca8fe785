// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	plugin "hoststatus.dev/hoststatus/internal/kubectlservers"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	reads    = "hoststatus-server-viewer"
	sees     = "hoststatus-host-status-viewer"
	seesSome = "hoststatus-host-status-unknown-viewer"
	answers  = "hoststatus-maintenance-answerer"
)

// report is what show has of a server.
func (o *owner) report(t *testing.T, name string) (r plugin.Report) {
	t.Helper()
	out, complaints, code := o.run(t.Context(), t, "show", name, "-o", "json")
	if code != 0 {
		t.Fatalf("show ends with %d: %s", code, complaints)
	}
	expect.NoError(t, json.Unmarshal([]byte(out), &r))
	return r
}

// becomes waits until a report is as it should be.
func (o *owner) becomes(t *testing.T, name, want string, is func(*plugin.Report) bool) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		if r := o.report(t, name); !is(&r) {
			return fmt.Errorf("%s is not %s: %+v", name, want, r)
		}
		return nil
	})
}

func TestOwnersSeeWhatIsGrantedToThem(t *testing.T) {
	host(t, "granted-1", nil)
	ana := newOwner(t, "ana", "granted", reads, sees)
	ben := newOwner(t, "ben", "granted", reads, seesSome)
	eve := newOwner(t, "eve", "granted", reads)
	nils := newOwner(t, "nils", "granted")
	server(t, "granted", "web-1", "granted-1")
	server(t, "granted", "web-2", "granted-1")
	ana.becomes(t, "web-1", "UP", func(r *plugin.Report) bool { return ptr.Deref(r.HostStatus, "") == v1alpha1.HostStatusUp })
	for name, c := range map[string]struct {
		owner    *owner
		grant    plugin.Grant
		failOver plugin.FailOver
		column   bool
	}{
		"all":           {ana, plugin.GrantAll, plugin.FailOverNotNeeded, true},
		"while unknown": {ben, plugin.GrantWhileUnknown, plugin.FailOverCannotTell, true},
		"nothing":       {eve, plugin.GrantNone, plugin.FailOverCannotTell, false},
	} {
		r := c.owner.report(t, "web-1")
		if r.Grant != c.grant || r.FailOver != c.failOver || strings.Join(r.SameHost, " ") != "web-2" {
			t.Errorf("%s: the report is %+v", name, r)
		}
		out, complaints, code := c.owner.run(t.Context(), t, "list")
		if code != 0 || strings.Contains(out, "HOST STATUS") != c.column || !strings.Contains(out, "web-2") || strings.Contains(complaints, sees) == c.column {
			t.Errorf("%s: list ends with %d and prints\n%s%s", name, code, out, complaints)
		}
		if strings.Contains(out, "granted-1") {
			t.Errorf("%s: the host is named:\n%s", name, out)
		}
	}
	if _, complaints, code := nils.run(t.Context(), t, "list"); code != plugin.ExitError || !strings.Contains(complaints, "you lack the right to list servers.tenant.hoststatus.dev in namespace granted; ask for the ClusterRole "+reads) {
		t.Errorf("without any right list ends with %d: %s", code, complaints)
	}
	if _, complaints, code := ana.run(t.Context(), t, "list", "-A"); code != plugin.ExitError || !strings.Contains(complaints, "in all namespaces; name one with --namespace") {
		t.Errorf("list -A ends with %d: %s", code, complaints)
	}
	if _, complaints, code := ana.run(t.Context(), t, "show", "web-11"); code != plugin.ExitNotFound || !strings.Contains(complaints, "similar names: web-1") {
		t.Errorf("of a server that is not there show ends with %d: %s", code, complaints)
	}
}

func TestAnAnswerCountsOnceTheManagerHasTakenItIn(t *testing.T) {
	window := opening()
	host(t, "answers-1", window)
	ana := newOwner(t, "ana", "answers", reads, sees, answers)
	s := server(t, "answers", "web-1", "answers-1")
	ana.becomes(t, "web-1", "about to be maintained", func(r *plugin.Report) bool { return r.Window != nil && r.Window.Answer == v1alpha1.AnswerStateNone })
	stored := func() *ownerv1alpha1.MaintenanceAnswer {
		a := &ownerv1alpha1.MaintenanceAnswer{}
		err := env.Admin.Get(t.Context(), client.ObjectKey{Namespace: "answers", Name: "web-1"}, a)
		if apierrors.IsNotFound(err) {
			return nil
		}
		expect.NoError(t, err)
		return a
	}
	does := func(want string, args ...string) {
		t.Helper()
		out, complaints, code := ana.run(t.Context(), t, args...)
		if code != 0 || !strings.Contains(out+complaints, want) {
			t.Errorf("%v ends with %d and prints\n%s%s\nwant %s", args, code, out, complaints, want)
		}
	}
	does("web-1 answered (server dry run): ready for the window of", "ready", "web-1", "--dry-run=server")
	if stored() != nil {
		t.Error("a dry run has stored an answer")
	}
	does("web-1 answered: ready for the window of", "ready", "web-1")
	if a := stored(); a == nil || a.Spec.Answer != ownerv1alpha1.AnswerReady || a.Spec.ServerUID != string(s.UID) || !a.Spec.WindowStartTime.Equal(window.StartTime) {
		t.Errorf("the answer is %+v", a)
	}
	ana.becomes(t, "web-1", "ready", func(r *plugin.Report) bool { return r.Answer != nil && r.Answer.Counts == plugin.CountsYes })
	does("web-1 unchanged: ready", "ready", "web-1")
	does("web-1 answered: not before", "not-before", "web-1", "+2h")
	ana.becomes(t, "web-1", "put off", func(r *plugin.Report) bool {
		return r.Window.Answer == v1alpha1.AnswerStateNotBefore && r.Window.OpensAt.After(window.StartTime.Time)
	})
	does("this window can be put off until", "not-before", "web-1", "+4h")
	does("web-1 withdrawn: it was not before", "withdraw", "web-1")
	if stored() != nil {
		t.Error("the answer is still there")
	}
	ana.becomes(t, "web-1", "about to be maintained as announced", func(r *plugin.Report) bool {
		return r.Window.Answer == v1alpha1.AnswerStateNone && r.Window.OpensAt.Equal(window.StartTime)
	})
	does("web-1 unchanged: there is no answer", "withdraw", "web-1")
}

// Whoever has never seen the plugin asks what is happening to a server, and types what is
// suggested.
func TestFromAQuestionToAnAnswerItIsTwoCommands(t *testing.T) {
	host(t, "suggested-1", opening())
	ana := newOwner(t, "ana", "suggested", reads, sees, answers)
	server(t, "suggested", "web-1", "suggested-1")
	ana.becomes(t, "web-1", "about to be maintained", func(r *plugin.Report) bool { return r.Window != nil && r.Window.Answer == v1alpha1.AnswerStateNone })
	out, complaints, code := ana.run(t.Context(), t, "show", "web-1")
	_, suggested, found := strings.Cut(out, "Answer with '")
	suggested, _, ends := strings.Cut(suggested, "'")
	if code != 0 || !found || !ends || !strings.HasPrefix(suggested, "kubectl servers ") {
		t.Fatalf("show ends with %d, and suggests %q:\n%s%s", code, suggested, out, complaints)
	}
	typed := exec.CommandContext(t.Context(), "bash", "-c", suggested)
	typed.Env = env.Kubectl(t.Context(), ana.kubeconfig).Env
	if out, err := typed.CombinedOutput(); err != nil || !strings.Contains(string(out), "web-1 answered: ready for the window of") {
		t.Errorf("%s: %v\n%s", suggested, err, out)
	}
	ana.becomes(t, "web-1", "ready", func(r *plugin.Report) bool { return r.Answer != nil && r.Answer.Counts == plugin.CountsYes })
}

func TestWithoutSeeingTheWindowOwnersNameIt(t *testing.T) {
	window := opening()
	host(t, "named-1", window)
	eve := newOwner(t, "eve", "named", reads, answers)
	ana := newOwner(t, "ana", "named", reads, sees)
	server(t, "named", "web-1", "named-1")
	if _, complaints, code := eve.run(t.Context(), t, "ready", "web-1"); code != plugin.ExitUsage || !strings.Contains(complaints, sees) || !strings.Contains(complaints, "--window") {
		t.Errorf("it ends with %d: %s", code, complaints)
	}
	if out, complaints, code := eve.run(t.Context(), t, "ready", "web-1", "--window", window.StartTime.Format(time.RFC3339)); code != 0 {
		t.Errorf("it ends with %d: %s%s", code, out, complaints)
	}
	ana.becomes(t, "web-1", "ready", func(r *plugin.Report) bool { return r.Window != nil && r.Window.Answer == v1alpha1.AnswerStateReady })
	if r := eve.report(t, "web-1"); r.Window != nil || r.Answer == nil || r.Answer.Counts != plugin.CountsNotKnown {
		t.Errorf("without the grant the report is %+v", r)
	}
	r := ana.report(t, "web-1")
	if len(r.Hints) != 1 || !strings.Contains(r.Hints[0], answers) {
		t.Errorf("without the right to read answers the hints are %q", r.Hints)
	}
	if _, complaints, code := ana.run(t.Context(), t, "ready", "web-1"); code != plugin.ExitError || !strings.Contains(complaints, "ask for the ClusterRole "+answers) {
		t.Errorf("without the right to answer it ends with %d: %s", code, complaints)
	}
}

func TestWatchPrintsWhatOwnersMaySee(t *testing.T) {
	service := host(t, "watched-1", nil)
	ana := newOwner(t, "ana", "watched", reads, sees)
	server(t, "watched", "web-1", "watched-1")
	ana.becomes(t, "web-1", "UP", func(r *plugin.Report) bool { return ptr.Deref(r.HostStatus, "") == v1alpha1.HostStatusUp })
	cmd := env.Kubectl(t.Context(), ana.kubeconfig, "servers", "watch", "--namespace=watched")
	out, err := cmd.StdoutPipe()
	expect.NoError(t, err)
	notes, err := cmd.StderrPipe()
	expect.NoError(t, err)
	expect.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if first := bufio.NewScanner(notes); !first.Scan() || first.Text() != "Watching 1 server in namespace watched." {
		t.Fatalf("it begins with %q", first.Text())
	}
	before := service.DeepCopy()
	service.Spec.ForcedDown, service.Spec.ForcedDownReason = ptr.To(true), ptr.To("fenced by ipmi")
	expect.NoError(t, env.Admin.Patch(t.Context(), service, client.MergeFrom(before)))
	if line := bufio.NewScanner(out); !line.Scan() || !strings.Contains(line.Text(), "  web-1  host status UP -> DOWN (ForcedDown), failing over is safe") {
		t.Errorf("it prints %q", line.Text())
	}
	if r := ana.report(t, "web-1"); r.FailOver != plugin.FailOverYes {
		t.Errorf("of a host that is off the report is %+v", r)
	}
}

func TestKubectlCompletesServers(t *testing.T) {
	host(t, "completed-1", nil)
	ana := newOwner(t, "ana", "completed", reads, sees)
	server(t, "completed", "web-1", "completed-1")
	env.InstallCompletion(t, "servers")
	for typed, want := range map[string]string{"show": "web-1", "list -o": "wide", "not-before web-1": "tomorrow"} {
		args := append([]string{"__complete", "servers", "--namespace=completed"}, strings.Fields(typed)...)
		out, err := env.Kubectl(t.Context(), ana.kubeconfig, append(args, "")...).Output()
		expect.NoError(t, err)
		if !strings.Contains(string(out), want) {
			t.Errorf("kubectl servers %s <Tab> offers\n%s", typed, out)
		}
	}
}
