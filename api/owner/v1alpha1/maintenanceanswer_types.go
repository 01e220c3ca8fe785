// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Answer is an owner's answer to a maintenance window.
//
// +kubebuilder:validation:Enum=Ready;NotBefore
type Answer string

const (
	// AnswerReady means that maintenance may begin.
	AnswerReady Answer = "Ready"
	// AnswerNotBefore asks for maintenance to begin no earlier than spec.notBefore.
	AnswerNotBefore Answer = "NotBefore"
)

// MaintenanceAnswerSpec is what the owner of a server answers. It is a request and no
// veto: a window opens at its latestStartTime at the latest, and an answer to a window that
// is open changes nothing.
//
// Every time has its own rule, so that the API server decodes it: it would accept times
// that no Go client can read.
//
// +kubebuilder:validation:XValidation:rule="has(self.notBefore) == (self.answer == 'NotBefore')",fieldPath=".notBefore",message="must be given with answer NotBefore, and with no other answer"
type MaintenanceAnswerSpec struct {
	// answer is Ready if maintenance may begin, at any time from now on where the
	// window is to open early, or NotBefore to ask for a later time.
	// +required
	Answer Answer `json:"answer,omitempty"`

	// notBefore is the time before which maintenance should not begin. It counts as far
	// as the window's latestStartTime allows. Only with answer NotBefore, which needs
	// it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	NotBefore *metav1.Time `json:"notBefore,omitempty"`

	// windowStartTime names the window that this answers: its startTime, as in
	// status.maintenanceWindow.startTime of the server. An answer to any other window
	// counts for nothing, so that a window that is moved has to be answered again.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('1970-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59Z')",message="must be a time like 2030-01-01T00:00:00Z, from 1970 to 9999"
	WindowStartTime *metav1.Time `json:"windowStartTime,omitempty"`

	// serverUID is the metadata.uid of the server that is meant. With it, the answer
	// does not count for a later server of the same name. Absent means that it does.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ServerUID string `json:"serverUID,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,categories=hoststatus
// +kubebuilder:printcolumn:name="Answer",type=string,JSONPath=".spec.answer"
// +kubebuilder:printcolumn:name="Not Before",type=string,JSONPath=".spec.notBefore"
// +kubebuilder:printcolumn:name="Window",type=string,JSONPath=".spec.windowStartTime"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"

// MaintenanceAnswer is the answer of a server's owner to the maintenance window of its
// host; it has the name of the Server, in the namespace of the Server. What has become of
// it is in status.maintenanceWindow.answer of the server, for owners who may see that.
type MaintenanceAnswer struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the answer.
	// +required
	Spec MaintenanceAnswerSpec `json:"spec,omitzero"`
}

// +kubebuilder:object:root=true

// MaintenanceAnswerList is a list of MaintenanceAnswers.
type MaintenanceAnswerList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty,omitzero"`
	// items are the MaintenanceAnswers.
	// +required
	Items []MaintenanceAnswer `json:"items"`
}
