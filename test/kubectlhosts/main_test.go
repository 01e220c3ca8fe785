// SPDX-License-Identifier: Apache-2.0

// Package kubectlhosts tests the plugin kubectl-hosts against a real API server.
// Statuses are written by the tests, at fixed times, so that what the plugin prints
// can be compared letter by letter; only live_test.go runs a manager.
package kubectlhosts

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	plugin "hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/kubectlplugin"
)

// patience is how long something may take that is not timed.
const patience = 15 * time.Second

var update = flag.Bool("update", false, "write the golden files")

// now is the time of all tests without a manager.
var now = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// env is the control plane that the tests share, one after the other.
var env kubectlplugin.World

// uninstalled is what the plugin says of a cluster without hoststatus.
var uninstalled *session

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	os.Exit(env.Main(m, start, "kubectl-hosts", "manager"))
}

func start(ctx context.Context) error {
	uninstalled = newSession()
	uninstalled.run(ctx, "list")
	uninstalled.run(ctx, "show", "compute-1")
	uninstalled.run(ctx, "up", "compute-1")
	if err := env.Install(ctx); err != nil {
		return err
	}
	return sign(ctx, now, time.Hour)
}

// sign leaves the sign of a manager that is at work.
func sign(ctx context.Context, renewed time.Time, holds time.Duration) error {
	canary := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: v1alpha1.CanaryLeaseName}}
	spec := coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: renewed}, LeaseDurationSeconds: ptr.To(int32(holds / time.Second))}
	err := env.Admin.Get(ctx, client.ObjectKeyFromObject(canary), canary)
	canary.Spec = spec
	if apierrors.IsNotFound(err) {
		return env.Admin.Create(ctx, canary)
	}
	if err != nil {
		return err
	}
	return env.Admin.Update(ctx, canary)
}

// managerAt lets the last sign of a manager be of some time, until the test ends.
func managerAt(t *testing.T, renewed time.Time) {
	t.Helper()
	expect.NoError(t, sign(t.Context(), renewed, 15*time.Second))
	t.Cleanup(func() { expect.NoError(t, sign(context.Background(), now, time.Hour)) })
}

// noManager lets there be no sign of any manager until the test ends.
func noManager(t *testing.T) {
	t.Helper()
	canary := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: v1alpha1.CanaryLeaseName}}
	expect.NoError(t, env.Admin.Delete(t.Context(), canary))
	t.Cleanup(func() { expect.NoError(t, sign(context.Background(), now, time.Hour)) })
}

// kubectl runs kubectl as administrator, with the plugin in its path.
func kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return env.Kubectl(ctx, env.Kubeconfig, args...)
}

// session is what somebody types, and what comes of it.
type session struct {
	kubeconfig string
	// terminal says that a person sits before a terminal, and types answers.
	terminal bool
	answers  io.Reader
	environ  map[string]string
	// width is that of the terminal; 0 for any.
	width int

	transcript bytes.Buffer
}

// newSession is one of the administrator, without a terminal.
func newSession() *session { return &session{kubeconfig: env.Kubeconfig} }

// as is a session of a user with the given ClusterRoles and no other right.
func as(t *testing.T, user string, roles ...string) *session {
	t.Helper()
	return &session{kubeconfig: env.As(t, user, "", roles...)}
}

// run runs the plugin, writes down what it printed, and returns its exit code.
func (s *session) run(ctx context.Context, args ...string) int {
	var out, errOut bytes.Buffer
	code := plugin.Run(ctx, s.environment(&out, &errOut), append(args, "--kubeconfig="+s.kubeconfig))
	s.transcript.WriteString("$ kubectl hosts")
	for _, arg := range args {
		if strings.ContainsAny(arg, " '{}*") {
			arg = "'" + arg + "'"
		}
		s.transcript.WriteString(" " + arg)
	}
	s.transcript.WriteString("\n" + out.String())
	for line := range strings.Lines(errOut.String()) {
		s.transcript.WriteString("2> " + line)
		if !strings.HasSuffix(line, "\n") {
			s.transcript.WriteString("\n")
		}
	}
	if code != plugin.ExitOK {
		_, _ = fmt.Fprintf(&s.transcript, "[exit code %d]\n", code)
	}
	s.transcript.WriteString("\n")
	return code
}

func (s *session) environment(out, errOut io.Writer) plugin.Environment {
	in := s.answers
	if in == nil {
		in = strings.NewReader("")
	}
	return plugin.Environment{
		IOStreams:  genericiooptions.IOStreams{In: in, Out: out, ErrOut: errOut},
		InTerminal: s.terminal, OutTerminal: s.terminal,
		Getenv: func(name string) string { return s.environ[name] },
		Now:    func() time.Time { return now },
		// The managers of these tests are at work, or are not.
		ManagerPatience: time.Millisecond,
		Width:           func() int { return s.width },
	}
}

// answer lets a person at a terminal type a line to each question.
func (s *session) answer(lines ...string) *session {
	s.terminal, s.answers = true, strings.NewReader(strings.Join(lines, "\n")+"\n")
	return s
}

// serverMade is what the API server makes up.
var serverMade = regexp.MustCompile(`("?(?:uid|resourceVersion|creationTimestamp)"?: )("?)[-0-9a-fTZ:]+"?`)

// warning is what the API server adds to an answer.
var warning = regexp.MustCompile(`(?m)^2> Warning: `)

// golden compares the transcript with the file of the test's name.
func (s *session) golden(t *testing.T) {
	t.Helper()
	got := serverMade.ReplaceAll(s.transcript.Bytes(), []byte("${1}${2}..${2}"))
	got = bytes.ReplaceAll(got, []byte(env.Cluster.URL), []byte("https://10.0.0.1:6443"))
	path := filepath.Join("testdata", strings.ReplaceAll(t.Name(), "/", "-")+".golden")
	if *update {
		expect.NoError(t, os.WriteFile(path, got, 0o644))
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

// ago is a time before now.
func ago(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(-d)} }

// host is a ComputeService as the manager leaves it.
type host struct {
	name      string
	labels    map[string]string
	spec      v1alpha1.ComputeServiceSpec
	status    v1alpha1.HostStatus
	reason    v1alpha1.HostStatusReason
	since     time.Duration
	reporting metav1.ConditionStatus
	// why is the reason of the condition Reporting.
	why v1alpha1.HostStatusReason
	// renewed is how long ago its Lease was renewed; nil for no Lease.
	renewed *time.Duration
	// holds is the Lease's own duration; 0 for none.
	holds int32
}

// up is a host that reports.
func up(name string) host {
	return host{
		name: name, status: v1alpha1.HostStatusUp, reason: v1alpha1.ReasonReporting, since: 3 * time.Hour,
		reporting: metav1.ConditionTrue, why: v1alpha1.ReasonReporting, renewed: ptr.To(4 * time.Second), holds: 40,
	}
}

// silent is a host that has stopped reporting.
func silent(name string) host {
	return host{
		name: name, status: v1alpha1.HostStatusUnknown, reason: v1alpha1.ReasonLeaseExpired, since: 5 * time.Minute,
		reporting: metav1.ConditionFalse, why: v1alpha1.ReasonLeaseExpired, renewed: ptr.To(340 * time.Second), holds: 40,
	}
}

// message is what the manager writes into the condition Reporting.
func (h host) message() string {
	switch h.why {
	case v1alpha1.ReasonReporting:
		return "Lease hoststatus-leases/" + h.name + " is renewed in time"
	case v1alpha1.ReasonLeaseExpired:
		return "Lease hoststatus-leases/" + h.name + " was not renewed for 40s"
	default:
		return "Waiting for the first renewal of Lease hoststatus-leases/" + h.name
	}
}

// make creates the host until the test ends.
func (h host) make(t *testing.T) *v1alpha1.ComputeService {
	t.Helper()
	// Who sets what is not recorded for an object that is created without anything.
	labels := map[string]string{"site": "a"}
	maps.Copy(labels, h.labels)
	s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: h.name, Labels: labels}, Spec: h.spec}
	env.Create(t, s)
	if h.reason != "" {
		s.Status = v1alpha1.ComputeServiceStatus{
			HostStatus: &h.status, HostStatusReason: h.reason, HostStatusTransitionTime: ago(h.since), ObservedGeneration: s.Generation,
			Conditions: []metav1.Condition{{
				Type: v1alpha1.ConditionReporting, Status: h.reporting, Reason: string(h.why), Message: h.message(),
				LastTransitionTime: *ago(h.since), ObservedGeneration: s.Generation,
			}},
		}
		if h.reason == v1alpha1.ReasonWaitingForHeartbeat {
			s.Status.HostStatus = nil
		}
		expect.NoError(t, env.Admin.Status().Update(t.Context(), s))
	}
	if h.renewed != nil {
		lease(t, v1alpha1.DefaultLeaseNamespace, h.name, *h.renewed, h.holds)
	}
	return s
}

func lease(t *testing.T, namespace, name string, renewed time.Duration, holds int32) {
	t.Helper()
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To(name), RenewTime: &metav1.MicroTime{Time: now.Add(-renewed)},
		},
	}
	if holds > 0 {
		l.Spec.LeaseDurationSeconds = &holds
	}
	env.Create(t, l)
}

// server creates a Server on a host until the test ends.
func server(t *testing.T, namespace, name, host string, status v1alpha1.HostStatus) {
	t.Helper()
	s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.ServerSpec{Host: host}}
	env.Create(t, s)
	s.Status = v1alpha1.ServerStatus{State: "ACTIVE", PowerState: "RUNNING", HostFields: v1alpha1.HostFields{HostStatus: &status}}
	expect.NoError(t, env.Admin.Status().Update(t.Context(), s))
}

func tenant(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		err := env.Admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if client.IgnoreAlreadyExists(err) != nil {
			t.Fatal(err)
		}
	}
}

// read returns a host as it is now.
func read(t *testing.T, name string) *v1alpha1.ComputeService {
	t.Helper()
	s := &v1alpha1.ComputeService{}
	expect.NoError(t, env.Admin.Get(t.Context(), client.ObjectKey{Name: name}, s))
	return s
}
