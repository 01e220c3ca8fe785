// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// serviceWith returns the ComputeService of a host that is UP.
func serviceWith(modifiers ...func(*v1alpha1.ComputeService)) *v1alpha1.ComputeService {
	s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "host-a", Generation: 3}}
	s.Status.ObservedGeneration = 3
	for _, modify := range append([]func(*v1alpha1.ComputeService){derived(ptr.To(v1alpha1.HostStatusUp)), reports("True")}, modifiers...) {
		modify(s)
	}
	return s
}

func derived(status *v1alpha1.HostStatus) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) {
		s.Status.HostStatus, s.Status.HostStatusReason = status, v1alpha1.ReasonReporting
	}
}

func reports(status metav1.ConditionStatus) func(*v1alpha1.ComputeService) {
	return condition(v1alpha1.ConditionReporting, status, "Any")
}

func condition(kind string, status metav1.ConditionStatus, reason string) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) {
		kept := []metav1.Condition{{Type: kind, Status: status, Reason: reason}}
		for _, c := range s.Status.Conditions {
			if c.Type != kind {
				kept = append(kept, c)
			}
		}
		s.Status.Conditions = kept
	}
}

// hasWindow gives the service a window with a secret reason, in the phase that a
// reason of the condition WindowOpen stands for; an empty one is no condition.
func hasWindow(until time.Duration, phase string) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) {
		s.Spec.MaintenanceWindow = windowOf(time.Hour, until)
		s.Spec.MaintenanceWindow.Reason = ptr.To("recall of host-a's board")
		if phase != "" {
			condition(v1alpha1.ConditionWindowOpen, "Unknown", phase)(s)
		}
	}
}

// opensAt says when the window of the service is to open.
func opensAt(d time.Duration) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) {
		s.Status.Maintenance = &v1alpha1.MaintenanceStatus{StartTime: s.Spec.MaintenanceWindow.StartTime, OpensAt: after(d)}
	}
}

func stale(s *v1alpha1.ComputeService) { s.Generation++ }

var windowReasons = []string{"", string(v1alpha1.ReasonWindowAnnounced), string(v1alpha1.ReasonWindowOpen), v1alpha1.WindowOpenReasonClosed}

// everyStatus is what host status can be, absent as well.
var everyStatus = func() (all []*v1alpha1.HostStatus) {
	for row := range Rows() {
		all = append(all, row.Status)
	}
	return all
}()

func TestForServer(t *testing.T) {
	none, up := ptr.To(v1alpha1.HostStatusNone), ptr.To(v1alpha1.HostStatusUp)
	upFields := func(window *v1alpha1.AnnouncedWindow) v1alpha1.HostFields {
		return v1alpha1.HostFields{HostStatus: up, HostStatusReason: v1alpha1.ReasonReporting, HostReporting: v1alpha1.HostReportingTrue, MaintenanceWindow: window}
	}
	start, end := metav1.NewTime(now.Add(time.Hour)), metav1.NewTime(now.Add(2*time.Hour))
	window := &v1alpha1.AnnouncedWindow{StartTime: &start, EndTime: &end}
	latest := metav1.NewTime(now.Add(100 * time.Minute))
	for name, c := range map[string]struct {
		host    string
		service *v1alpha1.ComputeService
		want    v1alpha1.HostFields
		notYet  bool
	}{
		"a server without a host has none":                         {"", nil, v1alpha1.HostFields{HostStatus: none, HostStatusReason: v1alpha1.ReasonNoHost}, false},
		"a server without a host has none, whatever else there is": {"", serviceWith(), v1alpha1.HostFields{HostStatus: none, HostStatusReason: v1alpha1.ReasonNoHost}, false},
		"a host without a compute service is none":                 {"host-a", nil, v1alpha1.HostFields{HostStatus: none, HostStatusReason: v1alpha1.ReasonHostNotFound}, false},
		"a status of an older spec is not passed on":               {"host-a", serviceWith(stale), v1alpha1.HostFields{}, true},
		"a service without any status is not passed on":            {"host-a", &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "host-a", Generation: 1}}, v1alpha1.HostFields{}, true},
		"an announced window is shown without its reason":          {"host-a", serviceWith(hasWindow(2*time.Hour, "WindowAnnounced")), upFields(window), false},
		"an open window is shown":                                  {"host-a", serviceWith(hasWindow(2*time.Hour, "WindowOpen")), upFields(window), false},
		"a window without an end is shown without one":             {"host-a", serviceWith(hasWindow(0, "WindowOpen")), upFields(&v1alpha1.AnnouncedWindow{StartTime: &start}), false},
		"what owners may know of a window is shown": {"host-a", serviceWith(hasWindow(2*time.Hour, "WindowAnnounced"), opensAt(90*time.Minute), func(s *v1alpha1.ComputeService) {
			w := s.Spec.MaintenanceWindow
			w.LatestStartTime, w.OpenWhenReady, w.Category, w.Impact = &latest, ptr.To(true), v1alpha1.CategoryHardware, v1alpha1.ImpactReboot
		}), upFields(&v1alpha1.AnnouncedWindow{StartTime: &start, OpensAt: after(90 * time.Minute), LatestStartTime: &latest, EndTime: &end, Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot}), false},
		"when a former window was to open is not shown": {"host-a", serviceWith(hasWindow(2*time.Hour, "WindowAnnounced"), opensAt(90*time.Minute), func(s *v1alpha1.ComputeService) {
			s.Status.Maintenance.StartTime = after(30 * time.Minute)
		}), upFields(window), false},
		"a closed window is not shown":                          {"host-a", serviceWith(hasWindow(2*time.Hour, "WindowClosed")), upFields(nil), false},
		"a window that nobody has looked at is not shown":       {"host-a", serviceWith(hasWindow(2*time.Hour, "")), upFields(nil), false},
		"whether the host reports is unknown without condition": {"host-a", serviceWith(func(s *v1alpha1.ComputeService) { s.Status.Conditions = nil }), v1alpha1.HostFields{HostStatus: up, HostStatusReason: v1alpha1.ReasonReporting, HostReporting: v1alpha1.HostReportingUnknown}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := ForServer(c.host, c.service)
			if ok == c.notYet {
				t.Errorf("ok is %t", ok)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, status := range everyStatus {
		for _, reporting := range []metav1.ConditionStatus{"True", "False", "Unknown"} {
			t.Run(fmt.Sprintf("%q of a host whose reporting is %s is copied", ptr.Deref(status, "absent"), reporting), func(t *testing.T) {
				want := v1alpha1.HostFields{HostStatus: status, HostStatusReason: v1alpha1.ReasonReporting, HostReporting: v1alpha1.HostReporting(reporting)}
				got, ok := ForServer("host-a", serviceWith(derived(status), reports(reporting)))
				if diff := cmp.Diff(want, got); !ok || diff != "" {
					t.Errorf("ok is %t (-want +got):\n%s", ok, diff)
				}
			})
		}
	}
}

// What a server carries follows from the status of the service, plus the times of
// the window that this status is about: not from flags, texts, labels or history.
func TestHostFieldsAreAFunctionOfTheServicesStatusAlone(t *testing.T) {
	irrelevant := map[string]func(*v1alpha1.ComputeService){
		"forcedDown":           func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = ptr.To(true) },
		"forcedDownReason":     func(s *v1alpha1.ComputeService) { s.Spec.ForcedDownReason = ptr.To("fenced") },
		"disabled":             func(s *v1alpha1.ComputeService) { s.Spec.Disabled = ptr.To(true) },
		"disabledReason":       func(s *v1alpha1.ComputeService) { s.Spec.DisabledReason = ptr.To("broken") },
		"leaseRef":             func(s *v1alpha1.ComputeService) { s.Spec.LeaseRef = &v1alpha1.LeaseReference{Name: "other"} },
		"leaseDurationSeconds": func(s *v1alpha1.ComputeService) { s.Spec.LeaseDurationSeconds = 9 },
		"the window's reason": func(s *v1alpha1.ComputeService) {
			if s.Spec.MaintenanceWindow != nil {
				s.Spec.MaintenanceWindow.Reason = ptr.To("another")
			}
		},
		"metadata": func(s *v1alpha1.ComputeService) {
			s.UID, s.ResourceVersion, s.Labels, s.Annotations = "u", "9", map[string]string{"a": "b"}, map[string]string{"c": "d"}
		},
		"lastSeenUpTime": func(s *v1alpha1.ComputeService) { s.Status.LastSeenUpTime = ptr.To(metav1.NewTime(now)) },
		"texts and times of conditions": func(s *v1alpha1.ComputeService) {
			for i := range s.Status.Conditions {
				s.Status.Conditions[i].Message, s.Status.Conditions[i].LastTransitionTime = "host-a", metav1.NewTime(now)
			}
		},
	}
	for _, status := range everyStatus {
		for _, reporting := range []metav1.ConditionStatus{"True", "False", "Unknown"} {
			for _, phase := range windowReasons {
				base := serviceWith(derived(status), reports(reporting), hasWindow(0, phase))
				want, wantOK := ForServer("host-a", base)
				for what, change := range irrelevant {
					changed := base.DeepCopy()
					change(changed)
					got, ok := ForServer("host-a", changed)
					if diff := cmp.Diff(want, got); ok != wantOK || diff != "" {
						t.Errorf("%s changes the fields of servers (-without +with):\n%s", what, diff)
					}
					if NewsForServers(base, changed) {
						t.Errorf("%s wakes servers", what)
					}
				}
			}
		}
	}
}

func TestNewsForServers(t *testing.T) {
	open := hasWindow(2*time.Hour, "WindowOpen")
	for name, c := range map[string]struct {
		before, after *v1alpha1.ComputeService
		want          bool
	}{
		"equal states are none":                                     {serviceWith(open), serviceWith(open), false},
		"another status is":                                         {serviceWith(), serviceWith(derived(ptr.To(v1alpha1.HostStatusDown))), true},
		"absent is not the same as none":                            {serviceWith(derived(nil)), serviceWith(derived(ptr.To(v1alpha1.HostStatusNone))), true},
		"another reason is":                                         {serviceWith(), serviceWith(func(s *v1alpha1.ComputeService) { s.Status.HostStatusReason = v1alpha1.ReasonDisabled }), true},
		"another reporting under the same status is":                {serviceWith(), serviceWith(reports("False")), true},
		"a window that appears is":                                  {serviceWith(), serviceWith(open), true},
		"a window that opens is not, since servers show both alike": {serviceWith(hasWindow(2*time.Hour, "WindowAnnounced")), serviceWith(open), false},
		"a window that closes is":                                   {serviceWith(open), serviceWith(hasWindow(2*time.Hour, "WindowClosed")), true},
		"a change and its end in between are":                       {serviceWith(), serviceWith(func(s *v1alpha1.ComputeService) { s.Status.HostStatusTransitionTime = ptr.To(metav1.NewTime(now)) }), true},
		"a window that is to open at another time is":               {serviceWith(open, opensAt(time.Hour)), serviceWith(open, opensAt(2*time.Hour)), true},
		"other counts of answers are not":                           {serviceWith(open, opensAt(time.Hour)), serviceWith(open, opensAt(time.Hour), func(s *v1alpha1.ComputeService) { s.Status.Maintenance.Ready = ptr.To[int32](1) }), false},
		"a window with another end is":                              {serviceWith(open), serviceWith(hasWindow(3*time.Hour, "WindowOpen")), true},
		"a status that has become stale is not":                     {serviceWith(), serviceWith(stale, derived(nil)), false},
		"a status after a stale one is, whatever it is":             {serviceWith(stale), serviceWith(), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := NewsForServers(c.before, c.after); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
		})
	}
}

func TestSameFields(t *testing.T) {
	full := v1alpha1.HostFields{
		HostStatus:               ptr.To(v1alpha1.HostStatusUp),
		HostStatusReason:         v1alpha1.ReasonReporting,
		HostStatusTransitionTime: ptr.To(metav1.NewTime(now)),
		HostReporting:            v1alpha1.HostReportingTrue,
		MaintenanceWindow:        &v1alpha1.AnnouncedWindow{StartTime: ptr.To(metav1.NewTime(now)), EndTime: ptr.To(metav1.NewTime(now.Add(time.Hour)))},
		HostHistory:              []v1alpha1.HostStatusChange{{HostStatus: ptr.To(v1alpha1.HostStatusUp), Reason: v1alpha1.ReasonReporting, Since: ptr.To(metav1.NewTime(now))}},
	}
	t.Run("by value, and times as instants", func(t *testing.T) {
		elsewhere := time.FixedZone("elsewhere", 3600)
		other := v1alpha1.HostFields{
			HostStatus:               ptr.To(*full.HostStatus),
			HostStatusReason:         full.HostStatusReason,
			HostStatusTransitionTime: ptr.To(metav1.NewTime(now.In(elsewhere))),
			HostReporting:            full.HostReporting,
			MaintenanceWindow: &v1alpha1.AnnouncedWindow{
				StartTime: ptr.To(metav1.NewTime(now.In(elsewhere))),
				EndTime:   ptr.To(metav1.NewTime(now.Add(time.Hour).In(elsewhere))),
			},
			HostHistory: []v1alpha1.HostStatusChange{{HostStatus: ptr.To(*full.HostStatus), Reason: v1alpha1.ReasonReporting, Since: ptr.To(metav1.NewTime(now.In(elsewhere)))}},
		}
		if !SameFields(full, other) || !SameFields(other, full) || !SameFields(v1alpha1.HostFields{}, v1alpha1.HostFields{}) {
			t.Error("not equal")
		}
	})
	t.Run("times of the window as they are stored", func(t *testing.T) {
		inTheSpec := *full.MaintenanceWindow
		inTheSpec.StartTime, inTheSpec.EndTime = after(time.Millisecond), after(time.Hour+999*time.Millisecond)
		other := full
		other.MaintenanceWindow = &inTheSpec
		if !SameFields(full, other) || !SameFields(other, full) {
			t.Error("not equal")
		}
	})
	t.Run("an end of the window counts", func(t *testing.T) {
		open := full
		open.MaintenanceWindow = &v1alpha1.AnnouncedWindow{StartTime: full.MaintenanceWindow.StartTime}
		if SameFields(full, open) || SameFields(open, full) {
			t.Error("equal")
		}
	})
	t.Run("each field of the window counts", func(t *testing.T) {
		for name, modify := range map[string]func(*v1alpha1.AnnouncedWindow){
			"StartTime":       func(w *v1alpha1.AnnouncedWindow) { w.StartTime = after(time.Minute) },
			"OpensAt":         func(w *v1alpha1.AnnouncedWindow) { w.OpensAt = after(time.Minute) },
			"LatestStartTime": func(w *v1alpha1.AnnouncedWindow) { w.LatestStartTime = after(time.Minute) },
			"EndTime":         func(w *v1alpha1.AnnouncedWindow) { w.EndTime = nil },
			"Category":        func(w *v1alpha1.AnnouncedWindow) { w.Category = v1alpha1.CategoryHardware },
			"Impact":          func(w *v1alpha1.AnnouncedWindow) { w.Impact = v1alpha1.ImpactNone },
			"Answer":          func(w *v1alpha1.AnnouncedWindow) { w.Answer = v1alpha1.AnswerStateReady },
		} {
			if _, ok := reflect.TypeFor[v1alpha1.AnnouncedWindow]().FieldByName(name); !ok {
				t.Errorf("there is no field %s", name)
			}
			other := *full.MaintenanceWindow
			modify(&other)
			changed := full
			changed.MaintenanceWindow = &other
			if SameFields(full, changed) || SameFields(changed, full) {
				t.Errorf("another %s is equal", name)
			}
		}
		if n := reflect.TypeFor[v1alpha1.AnnouncedWindow]().NumField(); n != 7 {
			t.Errorf("the window has %d fields", n)
		}
	})
	t.Run("each change in the history counts", func(t *testing.T) {
		for name, change := range map[string]v1alpha1.HostStatusChange{
			"status": {HostStatus: ptr.To(v1alpha1.HostStatusDown), Reason: v1alpha1.ReasonReporting, Since: after(0)},
			"reason": {HostStatus: full.HostStatus, Reason: v1alpha1.ReasonDisabled, Since: after(0)},
			"time":   {HostStatus: full.HostStatus, Reason: v1alpha1.ReasonReporting, Since: after(time.Second)},
		} {
			other := full
			other.HostHistory = []v1alpha1.HostStatusChange{change}
			if SameFields(full, other) || SameFields(other, full) {
				t.Errorf("another %s is equal", name)
			}
		}
	})
	for _, f := range reflect.VisibleFields(reflect.TypeFor[v1alpha1.HostFields]()) {
		t.Run("without "+f.Name+" it is another", func(t *testing.T) {
			if reflect.ValueOf(full).FieldByIndex(f.Index).IsZero() {
				t.Fatal("the test does not know this field")
			}
			other := full
			reflect.ValueOf(&other).Elem().FieldByIndex(f.Index).SetZero()
			if SameFields(full, other) || SameFields(other, full) {
				t.Error("equal")
			}
		})
	}
}
