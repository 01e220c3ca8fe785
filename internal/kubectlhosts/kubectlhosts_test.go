// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

var now = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

// service is a host with a status, as the manager leaves it.
func service(status v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, reporting metav1.ConditionStatus) *v1alpha1.ComputeService {
	since := ago(time.Minute)
	return &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{Name: "compute-1", Generation: 1},
		Status: v1alpha1.ComputeServiceStatus{
			HostStatus: &status, HostStatusReason: reason, HostStatusTransitionTime: &since, ObservedGeneration: 1,
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReporting, Status: reporting, Reason: string(reason), LastTransitionTime: since}},
		},
	}
}

func lease(renewed time.Duration, holds int32) *coordinationv1.Lease {
	return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{
		RenewTime: &metav1.MicroTime{Time: now.Add(-renewed)}, LeaseDurationSeconds: ptr.To(holds),
	}}
}

// atWork is how a manager is that leaves its signs.
func atWork() managerSign { return managerSign{state: ManagerAtWork} }

func TestEachReasonIsAnsweredByASentence(t *testing.T) {
	window := &v1alpha1.MaintenanceWindow{StartTime: ptr.To(ago(time.Hour)), EndTime: ptr.To(ago(-time.Hour))}
	announced := &v1alpha1.MaintenanceWindow{StartTime: ptr.To(ago(-time.Hour))}
	for _, c := range []struct {
		name    string
		service *v1alpha1.ComputeService
		change  func(*v1alpha1.ComputeService)
		want    string
	}{
		{"no status", &v1alpha1.ComputeService{}, nil, "No manager has set a status yet. 'kubectl hosts check' shows whether one is at work."},
		{"up", service("UP", v1alpha1.ReasonReporting, "True"), nil, "The host renews its Lease in time."},
		{
			"forced down", service("DOWN", v1alpha1.ReasonForcedDown, "False"),
			func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = ptr.To(true) },
			"The host was forced down: it counts as off, and its servers may be failed over.",
		},
		{
			"forced down, with a reason", service("DOWN", v1alpha1.ReasonForcedDown, "False"),
			func(s *v1alpha1.ComputeService) {
				s.Spec.ForcedDown, s.Spec.ForcedDownReason = ptr.To(true), ptr.To("fenced")
			},
			`The host was forced down ("fenced"): it counts as off, and its servers may be failed over.`,
		},
		{
			"disabled", service("MAINTENANCE", v1alpha1.ReasonDisabled, "True"),
			func(s *v1alpha1.ComputeService) {
				s.Spec.Disabled, s.Spec.DisabledReason = ptr.To(true), ptr.To("memory")
			},
			`The host was disabled ("memory"), so it is out of service.`,
		},
		{
			"enabled since", service("MAINTENANCE", v1alpha1.ReasonDisabled, "True"), nil,
			"The host was disabled, so it is out of service.",
		},
		{
			"open window", service("MAINTENANCE", v1alpha1.ReasonWindowOpen, "True"),
			func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow = window },
			"Its maintenance window is open until 2026-10-01T13:00:00Z (for another 60m).",
		},
		{
			"open window without an end", service("MAINTENANCE", v1alpha1.ReasonWindowOpen, "True"),
			func(s *v1alpha1.ComputeService) {
				s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: ptr.To(ago(time.Hour))}
			},
			"Its maintenance window is open until it is removed.",
		},
		{
			"announced window", service("NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, "True"),
			func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow = announced },
			"The host reports, and its maintenance window opens at 2026-10-01T13:00:00Z (in 60m).",
		},
		{
			"window without a time", service("NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, "True"),
			func(s *v1alpha1.ComputeService) {
				s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{Reason: ptr.To("new disks")}
			},
			`The host reports, and maintenance is planned for it ("new disks"), at a time that is not known yet.`,
		},
		{
			"window removed since", service("NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, "True"), nil,
			"The host reports, and a maintenance window was announced for it.",
		},
		{
			"silent", service("UNKNOWN", v1alpha1.ReasonLeaseExpired, "False"), nil,
			"Lease hoststatus-leases/compute-1 was not renewed in time. The host may be off, hung or disconnected, and its servers may still run: do not fail them over before the host is fenced.",
		},
		{
			"in the manager's words", service("UNKNOWN", v1alpha1.ReasonLeaseNotReadable, "Unknown"),
			func(s *v1alpha1.ComputeService) { s.Status.Conditions[0].Message = "The manager does not read x" },
			"The manager does not read x.",
		},
		{
			"never seen", service("UNKNOWN", v1alpha1.ReasonNeverReported, "False"),
			func(s *v1alpha1.ComputeService) {
				s.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: "kube-node-lease"}
			},
			"No renewal of Lease kube-node-lease/compute-1 has been seen.",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.change != nil {
				c.change(c.service)
			}
			if got := newReport(evidence{service: c.service}, now).Why; got != c.want {
				t.Errorf("it is %q, want %q", got, c.want)
			}
		})
	}
}

func TestTheDurationInForceIsTheManagers(t *testing.T) {
	for _, c := range []struct {
		name       string
		host, from int32
		want       time.Duration
		source     DurationFrom
	}{
		{"the host's goes first", 20, 40, 20 * time.Second, DurationFromHost},
		{"then the Lease's", 0, 40, 40 * time.Second, DurationFromLease},
		{"which is brought into the range from below", 0, 1, 3 * time.Second, DurationFromLease},
		{"and from above", 0, 100_000, time.Hour, DurationFromLease},
		{"unless it is none", 0, 0, time.Minute, DurationFromManager},
		{"or negative", 0, -5, time.Minute, DurationFromManager},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := service("UP", v1alpha1.ReasonReporting, "True")
			s.Spec.LeaseDurationSeconds = c.host
			if d, from := durationOf(s, lease(0, c.from)); d != c.want || from != c.source {
				t.Errorf("it is %s (%s), want %s (%s)", d, from, c.want, c.source)
			}
		})
	}
}

func TestAHostThatIsWellGetsNoHint(t *testing.T) {
	r := newReport(evidence{service: service("UP", v1alpha1.ReasonReporting, "True"), lease: lease(2*time.Second, 40)}, now)
	if len(r.Hints) > 0 {
		t.Errorf("there are hints: %q", r.Hints)
	}
}

func TestAForcedDownHostThatLastRenewedBeforeIsOff(t *testing.T) {
	s := service("DOWN", v1alpha1.ReasonForcedDown, "True") // down for a minute
	s.Spec.ForcedDown = ptr.To(true)
	if hints := newReport(evidence{service: s, lease: lease(61*time.Second, 40)}, now).Hints; slices.ContainsFunc(hints, runs) {
		t.Errorf("the hints of a host that is off state that it runs: %q", hints)
	}
	if hints := newReport(evidence{service: s, lease: lease(30*time.Second, 40)}, now).Hints; !slices.ContainsFunc(hints, runs) {
		t.Errorf("no hint states that the host still runs: %q", hints)
	}
}

func runs(hint string) bool { return strings.Contains(hint, "still runs") }

func TestAnOwnerThatAppliesHasPrecedence(t *testing.T) {
	field := metav1.NewFieldsV1
	managed := []metav1.ManagedFieldsEntry{
		{Manager: "kubectl-patch", Operation: metav1.ManagedFieldsOperationUpdate, FieldsV1: field(`{"f:spec":{"f:disabled":{}}}`)},
		{Manager: "argocd", Operation: metav1.ManagedFieldsOperationApply, FieldsV1: field(`{"f:spec":{".":{},"f:disabled":{}}}`)},
		{Manager: "fencing", Operation: metav1.ManagedFieldsOperationUpdate, FieldsV1: field(`{"f:spec":{"f:forcedDown":{}}}`)},
		{Manager: "broken", FieldsV1: field(`{`)},
		{Manager: "empty"},
	}
	for path, want := range map[string]fieldOwner{"disabled": {"argocd", true}, "forcedDown": {"fencing", false}, "leaseRef": {}} {
		if got := owner(managed, "spec", path); got != want {
			t.Errorf("spec.%s is of %+v, want %+v", path, got, want)
		}
	}
}

func TestAPlanKeepsAWindowOpenThatItDoesNotTouch(t *testing.T) {
	s := service("MAINTENANCE", v1alpha1.ReasonDisabled, "True")
	s.Spec.Disabled = ptr.To(true)
	// The manager has opened it; by the clock of this machine it is still to come.
	s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: ptr.To(ago(-time.Minute))}
	s.Status.Conditions[0].Reason = string(v1alpha1.ReasonReporting)
	s.Status.Conditions = append(s.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionWindowOpen, Status: "True", ObservedGeneration: 1})
	enable := verbs[slices.IndexFunc(verbs, func(v verb) bool { return strings.HasPrefix(v.use, "enable") })].make("")
	p, err := newPlan(enable, s, nil, atWork, now)
	if err != nil {
		t.Fatal(err)
	}
	if want := "MAINTENANCE stays (WindowOpen)"; p.outcome(atWork()) != want {
		t.Errorf("it expects %q, want %q", p.outcome(atWork()), want)
	}
}

func TestAWindowWithoutATimeIsShownAndGetsAnEndOnlyWithAStart(t *testing.T) {
	s := service("NEEDS_MAINTENANCE", v1alpha1.ReasonWindowAnnounced, "True")
	s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{Reason: ptr.To("new disks")}
	if got := showWindow(s.Spec.MaintenanceWindow); got != "planned" {
		t.Errorf("a list shows %q", got)
	}
	if got, want := showWindowReport(windowReport(s, now), now), `announced, at a time that is not known yet, "new disks"`; got != want {
		t.Errorf("show says %q, want %q", got, want)
	}
	for name, c := range map[string]struct {
		change windowChange
		want   string
	}{
		"a length alone":       {windowChange{length: time.Hour}, "add --start"},
		"another reason":       {windowChange{reason: ptr.To("new memory")}, ""},
		"a start and a length": {windowChange{start: &kubectlplugin.Moment{At: now.Add(time.Hour)}, length: time.Hour}, ""},
	} {
		err := c.change.apply(s.Spec.DeepCopy(), now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAFlagThatIsFalseIsNoObstacleAndIsNotTakenAway(t *testing.T) {
	flag, reason := ptr.To(false), ptr.To("kept")
	withdraw(&flag, &reason)
	if flag == nil || reason == nil {
		t.Error("a false that another field manager has set was removed")
	}
	assert(&flag, &reason, "why")
	if !*flag || *reason != "why" {
		t.Errorf("it is %t because of %q", *flag, *reason)
	}
	withdraw(&flag, &reason)
	if flag != nil || reason != nil {
		t.Error("a field manager still owns it")
	}
}

func TestErrorsStateWhatToDo(t *testing.T) {
	resource := schema.GroupResource{Group: "compute.hoststatus.dev", Resource: "computeservices"}
	refused := apierrors.NewForbidden(resource, "compute-1", errors.New(`User "ana" cannot patch resource "computeservices" in API group`))
	if got := explain(refused, "", "patch", "computeservices", "").Error(); !strings.HasPrefix(got, "you lack the right to patch computeservices.compute.hoststatus.dev; ask for the ClusterRole hoststatus-fleet-operator") {
		t.Errorf("a missing right is reported as %q", got)
	}
	admission := apierrors.NewForbidden(resource, "compute-1", errors.New("denied: renewed 3 s ago"))
	if got := explain(admission, "", "patch", "computeservices", ""); !errors.Is(got, admission) || got.Error() != admission.Error() {
		t.Errorf("a refusal by admission is reported as %q", got)
	}
}

func TestTransitionsArePrintedOnce(t *testing.T) {
	up := service("UP", v1alpha1.ReasonReporting, "True")
	var printed []string
	changes := newTransitions([]v1alpha1.ComputeService{*up}, nil, false, func() time.Time { return now }, func(tr Transition) {
		printed = append(printed, showTransition(tr, false, false))
	})
	unknown := service("UNKNOWN", v1alpha1.ReasonLeaseExpired, "False")
	other := service("", "", "Unknown")
	other.Name, other.Status, other.CreationTimestamp = "compute-2", v1alpha1.ComputeServiceStatus{}, ago(time.Second)
	for _, step := range []func() error{
		func() error { return changes.Replace([]any{up}, "1") },
		func() error { return changes.Update(unknown) },
		func() error { return changes.Update(unknown) },
		func() error { return changes.Replace([]any{other, unknown}, "2") },
		func() error { return changes.Replace([]any{other}, "3") },
		func() error { return changes.Delete(unknown) },
		func() error { return changes.Delete(other) },
		changes.Resync,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"2026-10-01T11:59:00Z  compute-1  UP  ->  UNKNOWN  LeaseExpired  (reporting: True -> False)",
		"2026-10-01T11:59:59Z  compute-2  added  <none>",
		"2026-10-01T12:00:00Z  compute-1  deleted, was  UNKNOWN",
		"2026-10-01T12:00:00Z  compute-2  deleted, was  <none>",
	}
	if diff := cmp.Diff(want, printed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A host that does not match a selector any more is not deleted, and one that matches now may
// be as old as the cluster.
func TestAHostThatDoesNotMatchAnyMoreIsNotCalledDeleted(t *testing.T) {
	old := service("UP", v1alpha1.ReasonReporting, "True")
	old.CreationTimestamp = ago(1000 * time.Hour)
	var printed []string
	changes := newTransitions(nil, nil, true, func() time.Time { return now }, func(tr Transition) {
		printed = append(printed, showTransition(tr, true, false))
	})
	for _, step := range []func(any) error{changes.Add, changes.Delete} {
		if err := step(old); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"2026-10-01T12:00:00Z  compute-1  added, or matches now  UP  Reporting",
		"2026-10-01T12:00:00Z  compute-1  deleted, or does not match any more, was  UP",
	}
	if diff := cmp.Diff(want, printed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
