// SPDX-License-Identifier: Apache-2.0

package nodeconditions

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

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
