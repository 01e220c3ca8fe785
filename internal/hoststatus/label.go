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

// HostLabels are the labels of the statuses that a host can have, from the best to the
// worst.
func HostLabels() []string { return labels(Row.OfHosts) }

// DerivedLabels are those of HostLabels that a host has in its status.
func DerivedLabels() []string { return labels(Row.Derived) }

// ServerLabels are the labels of the host statuses that a server can have.
func ServerLabels() []string { return labels(func(Row) bool { return true }) }

func labels(wanted func(Row) bool) []string {
	var out []string
	for row := range Rows() {
		if wanted(row) {
			out = append(out, row.Label())
		}
	}
	return out
}
