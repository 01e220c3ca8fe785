// SPDX-License-Identifier: Apache-2.0

package nodeconditions

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/nodemirror"
)

var (
	start   = metav1.NewTime(time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC))
	changed = metav1.NewTime(time.Date(2029, 12, 24, 12, 0, 0, 0, time.UTC))
)

// host is one that the mirror keeps for the Node of UID u, with a window in a phase.
func host(phase string, change ...func(*v1alpha1.ComputeService)) *v1alpha1.ComputeService {
	s := &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{
			Name: "n", Labels: map[string]string{nodemirror.LabelManagedBy: nodemirror.FieldOwner},
			Annotations: map[string]string{nodemirror.AnnotationNodeUID: "u"},
		},
		Spec: v1alpha1.ComputeServiceSpec{
			LeaseRef:          &v1alpha1.LeaseReference{Namespace: corev1.NamespaceNodeLease, Name: "n"},
			MaintenanceWindow: &v1alpha1.MaintenanceWindow{StartTime: &start, Reason: ptr.To("new disks")},
		},
	}
	open := metav1.Condition{Type: v1alpha1.ConditionWindowOpen, Status: metav1.ConditionFalse, Reason: phase, Message: "message", LastTransitionTime: changed}
	if phase == string(v1alpha1.ReasonWindowOpen) {
		open.Status = metav1.ConditionTrue
	}
	s.Status.Conditions = []metav1.Condition{open}
	for _, c := range change {
		c(s)
	}
	return s
}

func TestTheConditionOfANodeFollowsTheWindowOfItsHost(t *testing.T) {
	const announced, open = string(v1alpha1.ReasonWindowAnnounced), string(v1alpha1.ReasonWindowOpen)
	planned := &corev1.NodeCondition{Type: corev1.NodeMaintenancePlanned, Status: corev1.ConditionTrue, Reason: announced, Message: "new disks. message", LastTransitionTime: changed}
	inProgress := &corev1.NodeCondition{Type: corev1.NodeMaintenanceInProgress, Status: corev1.ConditionTrue, Reason: open, Message: "new disks. message", LastTransitionTime: changed}
	// What the mirror has written of the Node's own condition.
	fromNode := func(s *v1alpha1.ComputeService) {
		s.Spec.MaintenanceWindow.StartTime = nil
		s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: nodemirror.FieldOwner, FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:maintenanceWindow":{"f:reason":{}}}}`)}}
	}
	for name, test := range map[string]struct {
		service *v1alpha1.ComputeService
		want    *corev1.NodeCondition
	}{
		"announced":                        {host(announced), planned},
		"open":                             {host(open), inProgress},
		"over":                             {host(v1alpha1.WindowOpenReasonClosed), nil},
		"not judged yet":                   {host(announced, func(s *v1alpha1.ComputeService) { s.Status.Conditions = nil }), nil},
		"no window":                        {host(announced, func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow = nil }), nil},
		"no host":                          {nil, nil},
		"a host that is going":             {host(open, func(s *v1alpha1.ComputeService) { s.DeletionTimestamp = &changed }), nil},
		"a host of another Node":           {host(open, func(s *v1alpha1.ComputeService) { s.Annotations[nodemirror.AnnotationNodeUID] = "v" }), nil},
		"a host that is no Node":           {host(open, func(s *v1alpha1.ComputeService) { s.Labels = nil }), nil},
		"a window that repeats the Node's": {host(announced, fromNode), nil},
		"the same, with a time that somebody has added": {host(announced, fromNode, func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.StartTime = &start }), planned},
	} {
		if diff := cmp.Diff(test.want, of(test.service, "u")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheMessageDescribesTheWindow(t *testing.T) {
	const announced = string(v1alpha1.ReasonWindowAnnounced)
	for name, test := range map[string]struct {
		window v1alpha1.MaintenanceWindow
		want   string
	}{
		"nothing but its time":    {v1alpha1.MaintenanceWindow{}, "Opens at 2030-01-01T14:00:00Z"},
		"no reason is no text":    {v1alpha1.MaintenanceWindow{Reason: ptr.To("")}, "Opens at 2030-01-01T14:00:00Z"},
		"a reason":                {v1alpha1.MaintenanceWindow{Reason: ptr.To("new disks")}, "new disks. Opens at 2030-01-01T14:00:00Z"},
		"what is worked on":       {v1alpha1.MaintenanceWindow{Category: v1alpha1.CategoryHardware}, "Category Hardware. Opens at 2030-01-01T14:00:00Z"},
		"what that does":          {v1alpha1.MaintenanceWindow{Impact: v1alpha1.ImpactReboot}, "Impact Reboot. Opens at 2030-01-01T14:00:00Z"},
		"all of it, in one order": {v1alpha1.MaintenanceWindow{Reason: ptr.To("new disks"), Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot}, "new disks. Category Hardware, impact Reboot. Opens at 2030-01-01T14:00:00Z"},
	} {
		service := host(announced, func(s *v1alpha1.ComputeService) {
			// Owners have put it off.
			s.Status.Conditions[0].Message = "Opens at 2030-01-01T14:00:00Z"
			s.Spec.MaintenanceWindow = &test.window
			s.Spec.MaintenanceWindow.StartTime = &start
		})
		if got := of(service, "u").Message; got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// A Node hears of all that its condition shows, and of nothing else.
func TestWhatWakesTheController(t *testing.T) {
	const announced = string(v1alpha1.ReasonWindowAnnounced)
	for name, test := range map[string]struct {
		change func(*v1alpha1.ComputeService)
		want   bool
	}{
		"owners put it off": {func(s *v1alpha1.ComputeService) { s.Status.Conditions[0].Message = "Opens at another time" }, true},
		"another category":  {func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.Category = v1alpha1.CategoryNetwork }, true},
		"another impact":    {func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.Impact = v1alpha1.ImpactStop }, true},
		"an answer that moves nothing": {func(s *v1alpha1.ComputeService) {
			s.Status.Maintenance = &v1alpha1.MaintenanceStatus{Ready: ptr.To[int32](1)}
		}, false},
		"until when it may be put off": {func(s *v1alpha1.ComputeService) { s.Spec.MaintenanceWindow.LatestStartTime = &start }, false},
	} {
		if got := windowChange.Update(event.UpdateEvent{ObjectOld: host(announced), ObjectNew: host(announced, test.change)}); got != test.want {
			t.Errorf("%s wakes it: %t", name, got)
		}
	}
}
