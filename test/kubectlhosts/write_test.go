// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

func TestAHostThatStillReportsIsForcedDownOnlyByWhoConfirms(t *testing.T) {
	up("compute-1").make(t)
	s := newSession()
	forceDown := []string{"force-down", "compute-1", "--reason", "fenced by ipmi"}
	for _, refused := range []func(){
		func() {},
		func() { s.answer("n") },
		func() { s.answer("") },
	} {
		refused()
		if code := s.run(t.Context(), forceDown...); code != 4 {
			t.Errorf("it ends with %d, not 4", code)
		}
		if spec := read(t, "compute-1").Spec; spec.ForcedDown != nil {
			t.Error("it was forced down although nobody has confirmed it")
		}
	}
	s.answer("y")
	s.run(t.Context(), forceDown...)
	s.run(t.Context(), forceDown...) // changes nothing, so nobody is asked
	s.golden(t)
}

func TestEitherSignOfLifeIsEnoughToAsk(t *testing.T) {
	seen := up("seen-by-the-manager")
	seen.renewed = ptr.To(10 * time.Minute) // its clock is slow
	seen.make(t)
	renewed := silent("renewed-since")
	renewed.renewed = ptr.To(time.Second)
	renewed.make(t)
	off := silent("off")
	off.make(t)
	s := newSession()
	for _, name := range []string{"seen-by-the-manager", "renewed-since", "off"} {
		s.run(t.Context(), "force-down", name, "--reason", "no power")
	}
	s.golden(t)
}

func TestForceDownAndUpTouchTheirFieldsOnly(t *testing.T) {
	h := silent("compute-2")
	h.spec.Disabled, h.spec.DisabledReason = ptr.To(false), ptr.To("kept")
	h.spec.LeaseDurationSeconds = 30
	h.make(t)
	before := read(t, "compute-2").Spec
	s := newSession()
	s.run(t.Context(), "up", "compute-2")
	s.run(t.Context(), "force-down", "compute-2", "--reason", "fenced by ipmi")
	forced := read(t, "compute-2")
	want := before.DeepCopy()
	want.ForcedDown, want.ForcedDownReason = ptr.To(true), ptr.To("fenced by ipmi")
	if diff := cmp.Diff(*want, forced.Spec); diff != "" {
		t.Errorf("after force-down (-want +got):\n%s", diff)
	}
	s.run(t.Context(), "force-down", "compute-2", "--reason", "fenced by ipmi")
	if again := read(t, "compute-2"); again.ResourceVersion != forced.ResourceVersion {
		t.Error("to force a host down twice writes twice")
	}
	s.run(t.Context(), "force-down", "compute-2", "--reason", "no power")
	s.run(t.Context(), "up", "compute-2")
	if diff := cmp.Diff(before, read(t, "compute-2").Spec); diff != "" {
		t.Errorf("after up (-want +got):\n%s", diff)
	}
	s.golden(t)
}

func TestDisableAndEnable(t *testing.T) {
	up("compute-3").make(t)
	h := up("compute-4")
	h.spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: ago(time.Hour)}
	h.spec.Disabled = ptr.To(true)
	h.status, h.reason = v1alpha1.HostStatusMaintenance, v1alpha1.ReasonDisabled
	h.make(t)
	s := newSession()
	s.run(t.Context(), "disable", "compute-3", "--reason", "new memory")
	s.run(t.Context(), "disable", "compute-3", "compute-4", "--reason", "new memory")
	s.run(t.Context(), "show", "compute-3")
	s.run(t.Context(), "enable", "compute-3", "compute-4")
	s.run(t.Context(), "enable", "compute-3")
	if diff := cmp.Diff(v1alpha1.ComputeServiceSpec{}, read(t, "compute-3").Spec); diff != "" {
		t.Errorf("somebody still owns a field (-want +got):\n%s", diff)
	}
	s.golden(t)
}

func TestWindow(t *testing.T) {
	up("compute-3").make(t)
	over := up("compute-4")
	over.spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: ago(2 * time.Hour), EndTime: ago(time.Hour), Reason: ptr.To("the last one")}
	over.make(t)
	s := newSession()
	for _, args := range [][]string{
		{"compute-3", "--clear"},
		{"compute-3", "--start", "+2h", "--end", "180m", "--reason", "new memory"},
		{"compute-3", "--start", "2026-10-01T14:00:00Z", "--for", "1h"},
		{"compute-3", "--end", "2026-10-01T18:30:00+02:00"},
		{"compute-3", "--start", "+5h"},
		{"compute-3", "--end", "never"},
		{"compute-3", "--start", "now"},
		{"compute-3", "--reason", ""},
		{"compute-3", "--for", "45m"},
		{"compute-3", "--end", "2026-10-01T11:00:00Z"},
		{"compute-3", "--start", "-2h", "--end", "-1h"},
		{"compute-3", "--clear"},
		{"compute-4", "--for", "30m"},
		{"compute-3", "compute-4", "--start", "1h", "--for", "30m", "--reason", "new kernel"},
	} {
		s.run(t.Context(), append([]string{"window"}, args...)...)
	}
	want := &v1alpha1.MaintenanceWindow{StartTime: ago(-time.Hour), EndTime: ago(-90 * time.Minute), Reason: ptr.To("new kernel")}
	for _, name := range []string{"compute-3", "compute-4"} {
		if diff := cmp.Diff(want, read(t, name).Spec.MaintenanceWindow); diff != "" {
			t.Errorf("the window of %s (-want +got):\n%s", name, diff)
		}
	}
	s.golden(t)
}

func TestAPlanOfWindowsIsCarriedOut(t *testing.T) {
	names := []string{"compute-1", "compute-2", "compute-3"}
	for _, name := range names {
		h := up(name)
		h.labels = map[string]string{"rack": "r12"}
		h.make(t)
	}
	plan := []string{"window", "-l", "rack=r12", "--max-unavailable", "1", "--start", "1h", "--put-off", "2h", "--for", "1h", "--category", "Software", "--impact", "Reboot"}
	s := newSession()
	if code := s.run(t.Context(), plan...); code != 4 || read(t, "compute-1").Spec.MaintenanceWindow != nil {
		t.Errorf("a plan that nobody has confirmed ends with %d", code)
	}
	if code := s.run(t.Context(), append(plan, "--dry-run=server")...); code != 0 || read(t, "compute-1").Spec.MaintenanceWindow != nil {
		t.Errorf("a dry run ends with %d", code)
	}
	if code := s.run(t.Context(), append(plan, "--yes")...); code != 0 {
		t.Errorf("the plan ends with %d:\n%s", code, s.transcript.String())
	}
	for i, name := range names {
		starts := time.Duration(1+3*i) * time.Hour
		want := &v1alpha1.MaintenanceWindow{
			StartTime: ago(-starts), LatestStartTime: ago(-starts - 2*time.Hour), EndTime: ago(-starts - 3*time.Hour),
			Category: v1alpha1.CategorySoftware, Impact: v1alpha1.ImpactReboot,
		}
		if diff := cmp.Diff(want, read(t, name).Spec.MaintenanceWindow); diff != "" {
			t.Errorf("the window of %s (-want +got):\n%s", name, diff)
		}
	}
	// Nothing is left to do, so nobody is asked.
	version := read(t, "compute-3").ResourceVersion
	if code := s.run(t.Context(), plan...); code != 0 || read(t, "compute-3").ResourceVersion != version {
		t.Errorf("the same once more ends with %d", code)
	}
}

func TestADryRunWritesNothing(t *testing.T) {
	up("compute-1").make(t)
	version := read(t, "compute-1").ResourceVersion
	s := newSession()
	s.run(t.Context(), "force-down", "compute-1", "--reason", "x", "--dry-run=client")
	s.run(t.Context(), "force-down", "compute-1", "--reason", "x", "--dry-run=server")
	s.run(t.Context(), "disable", "compute-1", "--reason", "x", "--dry-run=client", "-o", "yaml")
	s.run(t.Context(), "window", "compute-1", "--start", "1h", "--dry-run=server", "-o", "name")
	s.run(t.Context(), "window", "compute-1", "--clear", "--dry-run=server")
	if read(t, "compute-1").ResourceVersion != version {
		t.Error("it was written")
	}
	s.golden(t)
}

func TestHostsChosenByLabelsAreConfirmed(t *testing.T) {
	for _, h := range []host{up("compute-1"), up("compute-2"), silent("compute-3")} {
		h.labels = map[string]string{"rack": "r12"}
		h.make(t)
	}
	up("compute-4").make(t)
	s := newSession()
	s.run(t.Context(), "disable", "-l", "rack=r12", "--reason", "new switch")
	s.answer("n").run(t.Context(), "disable", "-l", "rack=r12", "--reason", "new switch")
	s.answer("yes").run(t.Context(), "disable", "-l", "rack=r12", "--reason", "new switch")
	s.answer("y").run(t.Context(), "force-down", "-l", "rack=r12", "--reason", "no power")
	s.terminal = false
	s.run(t.Context(), "up", "-l", "rack=r12", "--yes")
	s.run(t.Context(), "up", "-l", "rack=r12")
	s.run(t.Context(), "up", "-l", "rack=r13")
	s.golden(t)
}

// whileAsked does something between a question and its answer.
type whileAsked struct {
	do []func()
}

func (w *whileAsked) Read(p []byte) (int, error) {
	if len(w.do) == 0 {
		return 0, io.EOF
	}
	w.do[0]()
	w.do = w.do[1:]
	return copy(p, "y\n"), nil
}

// silentRack makes silent hosts with the label of a rack.
func silentRack(t *testing.T, rack string, names ...string) {
	t.Helper()
	for _, name := range names {
		h := silent(name)
		h.labels = map[string]string{"rack": rack}
		h.make(t)
	}
}

func TestWhatWasConfirmedIsWhatIsWritten(t *testing.T) {
	patch := func(name, body string) {
		obj := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
		expect.NoError(t, env.Admin.Patch(t.Context(), obj, client.RawPatch(types.MergePatchType, []byte(body))))
	}
	comesBack := func(name string) func() {
		return func() {
			s := read(t, name)
			s.Status.Conditions[0].Status = metav1.ConditionTrue
			expect.NoError(t, env.Admin.Status().Update(t.Context(), s))
		}
	}
	silentRack(t, "r12", "compute-1", "compute-2")
	s := newSession()
	s.terminal = true
	// Meanwhile compute-1 comes back, which is a new question, and the label of
	// compute-2 changes, which is not.
	s.answers = &whileAsked{do: []func(){func() {
		comesBack("compute-1")()
		patch("compute-2", `{"metadata":{"labels":{"row":"3"}}}`)
	}, func() {}}}
	s.run(t.Context(), "force-down", "-l", "rack=r12", "--reason", "no power")
	if row := read(t, "compute-2").Labels["row"]; row != "3" {
		t.Error("the write undid what somebody else wrote meanwhile")
	}
	// Somebody else does the same meanwhile: nothing is left to do.
	s.answers = &whileAsked{do: []func(){func() {
		patch("compute-2", `{"spec":{"forcedDown":null,"forcedDownReason":null}}`)
	}}}
	s.run(t.Context(), "up", "-l", "rack=r12")
	s.golden(t)
}

func TestWhatIsNotAsItWasConfirmedIsNotWritten(t *testing.T) {
	silentRack(t, "r13", "compute-1", "compute-2")
	s := newSession()
	s.terminal = true
	// Meanwhile compute-2 is replaced: what was said of the old one is not said of the new.
	s.answers = &whileAsked{do: []func(){func() {
		expect.NoError(t, env.Admin.Delete(t.Context(), read(t, "compute-2")))
		expect.NoError(t, env.Admin.Create(t.Context(), &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "compute-2"}}))
	}}}
	if code := s.run(t.Context(), "force-down", "-l", "rack=r13", "--reason", "no power"); code != 1 {
		t.Errorf("ends with %d", code)
	}
	if f := read(t, "compute-2").Spec.ForcedDown; f != nil {
		t.Error("another host was forced down")
	}
	s.golden(t)
}

func TestWhoAppliesAFieldIsNamed(t *testing.T) {
	obj := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "compute-1"}}
	expect.NoError(t, env.Admin.Patch(t.Context(), obj, client.RawPatch(types.ApplyPatchType, []byte(
		`{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"ComputeService","metadata":{"name":"compute-1"},"spec":{"disabled":true}}`)),
		client.FieldOwner("argocd-controller")))
	t.Cleanup(func() { expect.NoError(t, env.Admin.Delete(context.Background(), obj)) })
	s := newSession()
	s.run(t.Context(), "disable", "compute-1", "--reason", "new memory")
	s.run(t.Context(), "disable", "compute-1", "--reason", "new memory")
	s.run(t.Context(), "enable", "compute-1")
	s.golden(t)
}

func TestWarningsOfTheAPIServerReachThePerson(t *testing.T) {
	silent("compute-1").make(t)
	everyWrite := []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{v1alpha1.SchemeGroupVersion.Group}, APIVersions: []string{"*"}, Resources: []string{"computeservices"},
		},
	}}}
	for name, action := range map[string]admissionregistrationv1.ValidationAction{"test-warns": admissionregistrationv1.Warn, "test-denies": admissionregistrationv1.Deny} {
		expression := "!has(object.spec.forcedDown)"
		if action == admissionregistrationv1.Deny {
			expression = "!has(object.spec.disabled)"
		}
		env.Create(t, &admissionregistrationv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
				MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: everyWrite},
				Validations:      []admissionregistrationv1.Validation{{Expression: expression, Message: "renewed 3 s ago"}},
			},
		})
		env.Create(t, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{action}},
		})
	}
	// A policy takes a moment to be in force.
	expect.Eventually(t, patience, func() error {
		trial := newSession()
		if trial.run(t.Context(), "disable", "compute-1", "--reason", "x", "--dry-run=server") == 0 {
			return io.ErrNoProgress
		}
		trial.run(t.Context(), "force-down", "compute-1", "--reason", "x", "--dry-run=server")
		if !containsWarning(trial) {
			return io.ErrNoProgress
		}
		return nil
	})
	s := newSession()
	s.run(t.Context(), "disable", "compute-1", "--reason", "new memory")
	s.run(t.Context(), "force-down", "compute-1", "--reason", "fenced by ipmi")
	s.golden(t)
}

func containsWarning(s *session) bool {
	return warning.Match(s.transcript.Bytes())
}
