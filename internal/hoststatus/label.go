// SPDX-License-Identifier: Apache-2.0

package hoststatus

import "hoststatus.dev/hoststatus/api/v1alpha1"

// The words that stand in logs and metrics for the host statuses that are empty.
const (
	// LabelNone is a Server's that is on no host.
	LabelNone = "NO_HOST"
	// LabelNotDerived stands for an absent host status.
	LabelNotDerived = "NOT_DERIVED"
)

// Label returns a word for a host status, absent or not.
func Label(s *v1alpha1.HostStatus) string {
	switch {
	case s == nil:
		return LabelNotDerived
	case *s == v1alpha1.HostStatusNone:
		return LabelNone
	default:
		return string(*s)
	}
}

// HostLabels are the labels of the statuses that a host can have.
func HostLabels() []string {
	return []string{
		string(v1alpha1.HostStatusUp), string(v1alpha1.HostStatusDown), string(v1alpha1.HostStatusUnknown),
		string(v1alpha1.HostStatusMaintenance), string(v1alpha1.HostStatusNeedsMaintenance), LabelNotDerived,
	}
}

// ServerLabels are the labels of the host statuses that a server can have.
func ServerLabels() []string { return append(HostLabels(), LabelNone) }
