// SPDX-License-Identifier: Apache-2.0

package computeservice

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(offset time.Duration) time.Time    { return now.Add(offset) }
func on(offset time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(at(offset))) }

type modifier = func(*v1alpha1.ComputeService)

// serviceWith returns a ComputeService that has no status yet.
func serviceWith(modifiers ...modifier) *v1alpha1.ComputeService {
	s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "host-a", UID: "uid-a", Generation: 1}}
	for _, modify := range modifiers {
		modify(s)
	}
	return s
}

func named(name string) modifier {
	return func(s *v1alpha1.ComputeService) { s.Name, s.UID = name, types.UID("uid of "+name) }
}
func generation(g int64) modifier { return func(s *v1alpha1.ComputeService) { s.Generation = g } }
func forcedDown(flag *bool) modifier {
	return func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = flag }
}
func disabled(flag *bool) modifier {
	return func(s *v1alpha1.ComputeService) { s.Spec.Disabled = flag }
}
func leaseRef(namespace, name string) modifier {
	return func(s *v1alpha1.ComputeService) {
		s.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: namespace, Name: name}
	}
}

// window is announced from and until so long after now; an until of zero is no end.
func window(from, until time.Duration) modifier {
	return func(s *v1alpha1.ComputeService) {
		s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: on(from)}
		if until != 0 {
			s.Spec.MaintenanceWindow.EndTime = on(until)
		}
	}
}

func noWindow(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow = nil }

// settled gives the service the status that it has had since t.
func settled(reporting heartbeat.Reporting, t time.Time) modifier {
	return func(s *v1alpha1.ComputeService) {
		after, _, _ := decide(s, verdictOn(s, reporting), owners{}, t)
		s.Status = after
	}
}

// verdictOn is the monitor's verdict on a service, five seconds after a renewal.
func verdictOn(s *v1alpha1.ComputeService, reporting heartbeat.Reporting) heartbeat.Verdict {
	return heartbeat.Verdict{Reporting: reporting, Version: s.ResourceVersion, Duration: time.Minute, SinceRenewal: 5 * time.Second}
}

func decideOn(s *v1alpha1.ComputeService, reporting heartbeat.Reporting, t time.Time) (v1alpha1.ComputeServiceStatus, bool) {
	after, changed, _ := decide(s, verdictOn(s, reporting), owners{}, t)
	return after, changed
}

var everyReporting = []heartbeat.Reporting{heartbeat.Waiting, heartbeat.Reports, heartbeat.Expired, heartbeat.NeverReported, heartbeat.NotReadable}

func TestDecideKeepsTheTransitionTimeWhileTheStatusStaysAndMovesItWhenItChanges(t *testing.T) {
	yes := ptr.To(true)
	for name, c := range map[string]struct {
		before    []modifier
		after     modifier
		reporting heartbeat.Reporting
		want      *metav1.Time
	}{
		"a new service gets one":                      {nil, generation(1), heartbeat.Reports, on(0)},
		"a new service gets one without a status too": {nil, generation(1), heartbeat.Waiting, on(0)},
		"UP stays UP":        {[]modifier{settled(heartbeat.Reports, at(-time.Hour))}, generation(2), heartbeat.Reports, on(-time.Hour)},
		"UP becomes UNKNOWN": {[]modifier{settled(heartbeat.Reports, at(-time.Hour))}, generation(1), heartbeat.Expired, on(0)},
		"UNKNOWN stays UNKNOWN for another reason": {[]modifier{settled(heartbeat.NotReadable, at(-time.Hour))}, generation(2), heartbeat.NeverReported, on(-time.Hour)},
		"absent becomes UP":                        {[]modifier{settled(heartbeat.Waiting, at(-time.Hour))}, generation(1), heartbeat.Reports, on(0)},
		"UP becomes absent":                        {[]modifier{settled(heartbeat.Reports, at(-time.Hour))}, generation(2), heartbeat.Waiting, on(0)},
		"MAINTENANCE stays when the host dies":     {[]modifier{disabled(yes), settled(heartbeat.Reports, at(-time.Hour))}, generation(1), heartbeat.Expired, on(-time.Hour)},
		"MAINTENANCE by hand goes on as a window": {
			[]modifier{disabled(yes), window(-time.Minute, 0), settled(heartbeat.Reports, at(-time.Hour))}, disabled(nil), heartbeat.Reports, on(-time.Hour),
		},
		"UP becomes DOWN": {[]modifier{settled(heartbeat.Reports, at(-time.Hour))}, forcedDown(yes), heartbeat.Reports, on(0)},
		"one that somebody removed comes back": {
			[]modifier{settled(heartbeat.Reports, at(-time.Hour))}, func(s *v1alpha1.ComputeService) { s.Status.HostStatusTransitionTime = nil }, heartbeat.Reports, on(0),
		},
	} {
		t.Run(name, func(t *testing.T) {
			after, changed := decideOn(serviceWith(append(c.before, c.after)...), c.reporting, now.Add(999*time.Millisecond))
			if !changed {
				t.Error("nothing to write")
			}
			if diff := cmp.Diff(c.want, after.HostStatusTransitionTime); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecideSaysWhatIsAReasonToWrite(t *testing.T) {
	up := []modifier{settled(heartbeat.Reports, at(-time.Hour))}
	withWindow := append([]modifier{window(-time.Hour, time.Hour)}, up...)
	for name, c := range map[string]struct {
		service   []modifier
		reporting heartbeat.Reporting
		want      bool
	}{
		"nothing has changed but the time of the last renewal": {up, heartbeat.Reports, false},
		"only the generation has changed":                      {append(up, generation(2)), heartbeat.Reports, true},
		"the host reports no more":                             {up, heartbeat.Expired, true},
		"only why it is silent has changed":                    {[]modifier{settled(heartbeat.NeverReported, at(-time.Hour))}, heartbeat.Expired, true},
		"the host dies behind a status that stays":             {[]modifier{forcedDown(ptr.To(true)), settled(heartbeat.Reports, at(-time.Hour))}, heartbeat.Expired, true},
		"somebody wiped the status":                            {append(up, func(s *v1alpha1.ComputeService) { s.Status = v1alpha1.ComputeServiceStatus{} }), heartbeat.Reports, true},
		"somebody wrote another status":                        {append(up, func(s *v1alpha1.ComputeService) { s.Status.HostStatus = ptr.To(v1alpha1.HostStatusDown) }), heartbeat.Reports, true},
		"somebody wrote another reason":                        {append(up, func(s *v1alpha1.ComputeService) { s.Status.HostStatusReason = v1alpha1.ReasonForcedDown }), heartbeat.Reports, true},
		"somebody removed the condition of the window": {
			append(withWindow, func(s *v1alpha1.ComputeService) {
				meta.RemoveStatusCondition(&s.Status.Conditions, v1alpha1.ConditionWindowOpen)
			}), heartbeat.Reports, true,
		},
		"a condition of somebody else is none": {append(up, func(s *v1alpha1.ComputeService) {
			s.Status.Conditions = append(s.Status.Conditions, metav1.Condition{Type: "Fenced"})
		}), heartbeat.Reports, false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, changed := decideOn(serviceWith(c.service...), c.reporting, now); changed != c.want {
				t.Errorf("changed is %t", changed)
			}
		})
	}
}

func TestDecideNotesTheLastRenewalAsOfTheLastChange(t *testing.T) {
	seenBefore := settled(heartbeat.Reports, at(-time.Hour))
	t.Run("a change brings it along", func(t *testing.T) {
		after, _ := decideOn(serviceWith(seenBefore), heartbeat.Expired, now.Add(999*time.Millisecond))
		if diff := cmp.Diff(on(-5*time.Second), after.LastSeenUpTime); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("without a change it stays", func(t *testing.T) {
		after, _ := decideOn(serviceWith(seenBefore), heartbeat.Reports, now)
		if diff := cmp.Diff(on(-time.Hour-5*time.Second), after.LastSeenUpTime); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("a process that has seen none keeps what was seen", func(t *testing.T) {
		s := serviceWith(seenBefore)
		verdict := verdictOn(s, heartbeat.Expired)
		verdict.SinceRenewal = -1
		after, changed, _ := decide(s, verdict, owners{}, now)
		if diff := cmp.Diff(on(-time.Hour-5*time.Second), after.LastSeenUpTime); !changed || diff != "" {
			t.Errorf("changed is %t (-want +got):\n%s", changed, diff)
		}
	})
}

func TestDecideWritesConditions(t *testing.T) {
	reporting := func(status metav1.ConditionStatus, since time.Duration, reason string) metav1.Condition {
		return metav1.Condition{Type: "Reporting", Status: status, Reason: reason, LastTransitionTime: *on(since), ObservedGeneration: 2}
	}
	windowOpen := func(status metav1.ConditionStatus, since time.Duration, reason string) metav1.Condition {
		return metav1.Condition{Type: "WindowOpen", Status: status, Reason: reason, LastTransitionTime: *on(since), ObservedGeneration: 2}
	}
	before := func(modifiers ...modifier) []modifier {
		return append(modifiers, settled(heartbeat.Reports, at(-time.Hour)), generation(2))
	}
	for name, c := range map[string]struct {
		service   []modifier
		reporting heartbeat.Reporting
		want      []metav1.Condition
	}{
		"they carry the generation, and the time stays while the status does": {
			before(), heartbeat.Reports, []metav1.Condition{reporting("True", -time.Hour, "Reporting")},
		},
		"the time moves with the status": {
			before(), heartbeat.Expired, []metav1.Condition{reporting("False", 0, "LeaseExpired")},
		},
		"the time stays while only the reason changes": {
			[]modifier{settled(heartbeat.NeverReported, at(-time.Hour)), generation(2)}, heartbeat.Expired,
			[]metav1.Condition{reporting("False", -time.Hour, "LeaseExpired")},
		},
		"a window is announced": {
			append(before(), window(time.Minute, 0)), heartbeat.Reports,
			[]metav1.Condition{reporting("True", -time.Hour, "Reporting"), windowOpen("False", 0, "WindowAnnounced")},
		},
		"a window opens": {
			append(before(window(-time.Minute, 0)), window(-time.Minute, 0)), heartbeat.Reports,
			[]metav1.Condition{reporting("True", -time.Hour, "Reporting"), windowOpen("True", 0, "WindowOpen")},
		},
		"a window closes": {
			before(window(-2*time.Hour, -time.Minute)), heartbeat.Reports,
			[]metav1.Condition{reporting("True", -time.Hour, "Reporting"), windowOpen("False", 0, "WindowClosed")},
		},
		"a window that is removed takes its condition along": {
			append(before(window(-2*time.Hour, 0)), noWindow), heartbeat.Reports,
			[]metav1.Condition{reporting("True", -time.Hour, "Reporting")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			after, _ := decideOn(serviceWith(c.service...), c.reporting, now)
			for i := range after.Conditions {
				if after.Conditions[i].Message == "" {
					t.Errorf("%s has no message", after.Conditions[i].Type)
				}
				after.Conditions[i].Message = ""
			}
			if diff := cmp.Diff(c.want, after.Conditions); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if after.ObservedGeneration != 2 {
				t.Errorf("status has observed generation %d", after.ObservedGeneration)
			}
		})
	}
}

func TestMessagesOfTheReportingConditionNameTheLease(t *testing.T) {
	for _, reporting := range everyReporting {
		after, _ := decideOn(serviceWith(leaseRef("kube-node-lease", "node-7")), reporting, now)
		want := map[heartbeat.Reporting]string{
			heartbeat.Waiting:       "Waiting for the first renewal of Lease kube-node-lease/node-7",
			heartbeat.Reports:       "Lease kube-node-lease/node-7 is renewed in time",
			heartbeat.Expired:       "Lease kube-node-lease/node-7 was not renewed for 1m0s",
			heartbeat.NeverReported: "Lease kube-node-lease/node-7 was never renewed; check that the agent runs on the host, and spec.leaseRef",
			heartbeat.NotReadable:   "The manager does not read Leases in namespace kube-node-lease; add it to --lease-namespaces, or change spec.leaseRef.namespace",
		}[reporting]
		if diff := cmp.Diff(want, meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionReporting).Message); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestAnOpenedWindowIsRememberedForItsGenerationOnly(t *testing.T) {
	for name, c := range map[string]struct {
		service []modifier
		want    v1alpha1.HostStatus
	}{
		"the clock goes back behind startTime":          {[]modifier{window(time.Minute, time.Hour), settled(heartbeat.Reports, at(2*time.Minute))}, v1alpha1.HostStatusMaintenance},
		"the clock goes back, and the spec has changed": {[]modifier{window(time.Minute, time.Hour), settled(heartbeat.Reports, at(2*time.Minute)), generation(2)}, v1alpha1.HostStatusNeedsMaintenance},
		"it had not opened":                             {[]modifier{window(time.Minute, time.Hour), settled(heartbeat.Reports, at(-time.Hour))}, v1alpha1.HostStatusNeedsMaintenance},
		"it had opened and its end has come":            {[]modifier{window(-time.Hour, -time.Minute), settled(heartbeat.Reports, at(-30*time.Minute))}, v1alpha1.HostStatusUp},
	} {
		t.Run(name, func(t *testing.T) {
			after, _ := decideOn(serviceWith(c.service...), heartbeat.Reports, now)
			if diff := cmp.Diff(&c.want, after.HostStatus); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// everyService calls visit with each kind of spec.
func everyService(visit func(name string, modifiers ...modifier)) {
	flags := map[string]*bool{"absent": nil, "false": ptr.To(false), "true": ptr.To(true)}
	windows := map[string]modifier{
		"none": noWindow, "announced": window(time.Hour, 0), "open": window(-time.Hour, time.Hour),
		"open without end": window(-time.Hour, 0), "closed": window(-2*time.Hour, -time.Hour),
	}
	for downName, down := range flags {
		for offName, off := range flags {
			for windowName, w := range windows {
				visit(fmt.Sprintf("forcedDown %s, disabled %s, window %s", downName, offName, windowName), forcedDown(down), disabled(off), w)
			}
		}
	}
}

func TestDecideAppliedToItsOwnResultChangesNothing(t *testing.T) {
	// Statuses to start from: what each kind of spec left behind with each verdict, each once.
	starts, known := map[string]v1alpha1.ComputeServiceStatus{"nothing": {}}, map[string]bool{}
	everyService(func(name string, modifiers ...modifier) {
		for _, reporting := range everyReporting {
			status := serviceWith(append(modifiers, settled(reporting, at(-30*time.Minute)))...).Status
			content, err := json.Marshal(status)
			if err != nil {
				t.Fatal(err)
			}
			if !known[string(content)] {
				known[string(content)] = true
				starts[fmt.Sprint(name, ", reporting ", reporting)] = status
			}
		}
	})
	everyService(func(name string, modifiers ...modifier) {
		for _, reporting := range everyReporting {
			for startName, start := range starts {
				s := serviceWith(append(modifiers, generation(2))...)
				s.Status = start
				first, changed := decideOn(s, reporting, now.Add(123456789))
				if !changed {
					t.Fatalf("%s: the new generation is not written", name)
				}
				s.Status = stored(t, first)
				second, changed := decideOn(s, reporting, now.Add(20*time.Minute))
				if changed {
					t.Fatalf("from %s to %s, verdict %d: changes again:\n%s", startName, name, reporting, cmp.Diff(first, second))
				}
			}
		}
	})
}

// stored returns the status as the API server gives it back: in whole seconds.
func stored(t *testing.T, status v1alpha1.ComputeServiceStatus) (back v1alpha1.ComputeServiceStatus) {
	t.Helper()
	body, err := json.Marshal(status)
	if err == nil {
		err = json.Unmarshal(body, &back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestMemoryOfReadsBackWhatWasWritten(t *testing.T) {
	for _, reporting := range everyReporting {
		after, _ := decideOn(serviceWith(), reporting, now)
		if got := memoryOf(stored(t, after).Conditions); got != reporting {
			t.Errorf("%d is remembered as %d", reporting, got)
		}
	}
	for name, conditions := range map[string][]metav1.Condition{
		"no condition":                            nil,
		"a reason from elsewhere":                 {{Type: v1alpha1.ConditionReporting, Status: "False", Reason: "Fenced"}},
		"a reason that belongs to another status": {{Type: v1alpha1.ConditionReporting, Status: "True", Reason: "LeaseExpired"}},
		"another condition":                       {{Type: "Other", Status: "True", Reason: "Reporting"}},
	} {
		t.Run(name+" is no memory", func(t *testing.T) {
			if got := memoryOf(conditions); got != heartbeat.NoVerdict {
				t.Errorf("got %d", got)
			}
		})
	}
}

func TestSubjectOf(t *testing.T) {
	lease := func(namespace, name string) types.NamespacedName {
		return types.NamespacedName{Namespace: namespace, Name: name}
	}
	subject := heartbeat.Subject{Name: "host-a", UID: "uid-a", Generation: 1, Lease: lease("hoststatus-leases", "host-a")}
	for name, c := range map[string]struct {
		service *v1alpha1.ComputeService
		want    func(*heartbeat.Subject)
	}{
		"the default Lease has the host's name": {serviceWith(), func(*heartbeat.Subject) {}},
		"an empty leaseRef is the default":      {serviceWith(leaseRef("", "")), func(*heartbeat.Subject) {}},
		"a namespace alone keeps the name":      {serviceWith(leaseRef("kube-node-lease", "")), func(s *heartbeat.Subject) { s.Lease = lease("kube-node-lease", "host-a") }},
		"a name alone keeps the namespace":      {serviceWith(leaseRef("", "b")), func(s *heartbeat.Subject) { s.Lease = lease("hoststatus-leases", "b") }},
		"a leaseRef may give both":              {serviceWith(leaseRef("kube-node-lease", "b")), func(s *heartbeat.Subject) { s.Lease = lease("kube-node-lease", "b") }},
		"a duration is passed on":               {serviceWith(func(s *v1alpha1.ComputeService) { s.Spec.LeaseDurationSeconds = 9 }), func(s *heartbeat.Subject) { s.Duration = 9 * time.Second }},
		"what was written down is the memory":   {serviceWith(settled(heartbeat.Expired, now)), func(s *heartbeat.Subject) { s.Memory = heartbeat.Expired }},
		"the generation is the one of the spec": {serviceWith(generation(4)), func(s *heartbeat.Subject) { s.Generation = 4 }},
		"the version is the object's":           {serviceWith(func(s *v1alpha1.ComputeService) { s.ResourceVersion = "7" }), func(s *heartbeat.Subject) { s.Version = "7" }},
	} {
		t.Run(name, func(t *testing.T) {
			want := subject
			c.want(&want)
			if diff := cmp.Diff(want, subjectOf(c.service)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The duration may be the Lease's own, and the Lease gone when the next leader looks.
func TestTheMessageOfASilentHostKeepsTheDurationByWhichItWasJudged(t *testing.T) {
	s := serviceWith(settled(heartbeat.Expired, at(-time.Hour)))
	verdict := verdictOn(s, heartbeat.Expired)
	verdict.Duration = 2 * time.Minute
	if after, changed, _ := decide(s, verdict, owners{}, now); changed {
		t.Errorf("rewritten: %+v", after.Conditions)
	}
	for name, modify := range map[string]modifier{
		"another spec":         generation(2),
		"somebody else's text": func(s *v1alpha1.ComputeService) { s.Status.Conditions[0].Message = "it is asleep" },
	} {
		s := serviceWith(settled(heartbeat.Expired, at(-time.Hour)), modify)
		after, changed, _ := decide(s, verdict, owners{}, now)
		if got := after.Conditions[0].Message; !changed || got != "Lease hoststatus-leases/host-a was not renewed for 2m0s" {
			t.Errorf("%s: changed is %v, message %q", name, changed, got)
		}
	}
}
