// SPDX-License-Identifier: Apache-2.0

package hoststatus

import "hoststatus.dev/hoststatus/api/v1alpha1"

// The labels in logs and metrics of the host statuses that are empty.
const (
	// LabelNone is the label of a Server that is on no host.
	LabelNone = "NO_HOST"
	// LabelNotDerived is the label of an absent host status.
	LabelNotDerived = "NOT_DERIVED"
)

// Label returns the label of a host status, absent or not.
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

// DerivedLabels are HostLabels without the one of an absent status.
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
