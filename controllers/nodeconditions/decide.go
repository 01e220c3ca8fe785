// SPDX-License-Identifier: Apache-2.0

package nodeconditions

import (
	"strings"

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
	return &corev1.NodeCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: open.Reason, Message: messageOf(open, w), LastTransitionTime: open.LastTransitionTime,
	}
}

// messageOf describes a window: why, what is worked on, what that does to servers, and when
// it opens or closes. Owners can move the opening, and open.Message follows that.
func messageOf(open *metav1.Condition, w *v1alpha1.MaintenanceWindow) string {
	var sentences, terms []string
	if w.Reason != nil && *w.Reason != "" {
		sentences = append(sentences, *w.Reason)
	}
	if w.Category != "" {
		terms = append(terms, "category "+string(w.Category))
	}
	if w.Impact != "" {
		terms = append(terms, "impact "+string(w.Impact))
	}
	if len(terms) > 0 {
		described := strings.Join(terms, ", ")
		sentences = append(sentences, strings.ToUpper(described[:1])+described[1:])
	}
	return strings.Join(append(sentences, open.Message), ". ")
}

// same compares what is written of two conditions. The time of the transition follows from
// the rest.
func same(a, b *corev1.NodeCondition) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
}
