// SPDX-License-Identifier: Apache-2.0

package nodeconditions

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/nodemirror"
)

// of returns the condition that the Node with this UID should have of the host's window; nil
// if it should have none: there is no window, it is over, the host is not this Node, or the
// window only repeats what the Node says itself.
func of(service *v1alpha1.ComputeService, node types.UID) *corev1.NodeCondition {
	if service == nil || service.DeletionTimestamp != nil || service.Spec.MaintenanceWindow == nil ||
		nodemirror.NodeOf(service) != node || nodemirror.WindowFromNode(service) {
		return nil
	}
	open := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionWindowOpen)
	switch {
	case open == nil || open.Reason == v1alpha1.WindowOpenReasonClosed:
		return nil
	case open.Status == metav1.ConditionTrue:
		return condition(corev1.NodeMaintenanceInProgress, open, service.Spec.MaintenanceWindow)
	default:
		return condition(corev1.NodeMaintenancePlanned, open, service.Spec.MaintenanceWindow)
	}
}

func condition(kind corev1.NodeConditionType, open *metav1.Condition, w *v1alpha1.MaintenanceWindow) *corev1.NodeCondition {
	message := open.Message
	if w.Reason != nil && *w.Reason != "" {
		message = *w.Reason + ". " + message
	}
	return &corev1.NodeCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: open.Reason, Message: message, LastTransitionTime: open.LastTransitionTime,
	}
}

// same compares what is written of two conditions. The time of the transition follows from
// the rest.
func same(a, b *corev1.NodeCondition) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
}
