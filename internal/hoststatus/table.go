// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Health is what a host status means to a tool that waits for a healthy fleet, with the
// values of Argo CD.
type Health string

// The values of Health.
const (
	// HealthGood lets the tool go on.
	HealthGood Health = "Healthy"
	// HealthPaused is out of service on purpose: there is nothing to repair.
	HealthPaused Health = "Suspended"
	// HealthBad is a failure.
	HealthBad Health = "Degraded"
	// HealthNotYet makes the tool wait.
	HealthNotYet Health = "Progressing"
)

// Row is all that hoststatus knows of one host status.
type Row struct {
	// Status is the value; nil is the absent one.
	Status *v1alpha1.HostStatus
	// FailOver: failing servers over is safe.
	FailOver bool
	// Terminal is the colour in a terminal, as SGR parameters; empty for none. Dashboard
	// is the colour in Grafana.
	Terminal, Dashboard string
	// Letter stands for the value where there is no room for its name, and Tile is the
	// colour behind it on the plugins' pages, as #rrggbb. The colours can be told apart also
	// by people who do not see red, green or blue as others do.
	Letter, Tile string
	// Health is that of a ComputeService with this status.
	Health Health
	// Meaning is what the value means, in one sentence, and Advice what to do about it.
	// kubectl explain shows both, see Explanation.
	Meaning, Advice string
}

// rows are ordered from the best to the worst, for an owner of servers as for an
// operator of hosts. The position in this order is the rank.
var rows = []Row{
	{
		Status: ptr.To(v1alpha1.HostStatusUp), Terminal: "32", Dashboard: "green", Letter: "U", Tile: "#009e73", Health: HealthGood,
		Meaning: "the host reports",
		Advice:  "Nothing to do; do not fail over.",
	}, {
		Status: ptr.To(v1alpha1.HostStatusNone), Dashboard: "light-blue", Letter: "–", Tile: "#56b4e9", Health: HealthGood,
		Meaning: "the server is on no host, or on none that is known; hostStatusReason tells which",
	}, {
		Status: ptr.To(v1alpha1.HostStatusNeedsMaintenance), Terminal: "36", Dashboard: "yellow", Letter: "N", Tile: "#f0e442", Health: HealthGood,
		Meaning: "the host reports, and maintenance is announced for it",
		Advice:  "Prepare, or move away, before the window's startTime; do not fail over.",
	}, {
		Status: ptr.To(v1alpha1.HostStatusMaintenance), Terminal: "34", Dashboard: "blue", Letter: "M", Tile: "#0072b2", Health: HealthPaused,
		Meaning: "the host is out of service on purpose",
		Advice:  "The server may run, pause or stop with it; do not fail over.",
	}, {
		Status: nil, Dashboard: "gray", Letter: "…", Tile: "#b0b0b0", Health: HealthNotYet,
		Meaning: "not derived yet",
	}, {
		Status: ptr.To(v1alpha1.HostStatusUnknown), Terminal: "33;1", Dashboard: "orange", Letter: "?", Tile: "#e69f00", Health: HealthBad,
		Meaning: "the host does not report",
		Advice:  "It may be off, or only cut off with the server still running: do not fail over, wait for DOWN.",
	}, {
		Status: ptr.To(v1alpha1.HostStatusDown), FailOver: true, Terminal: "31;1", Dashboard: "red", Letter: "D", Tile: "#d55e00", Health: HealthBad,
		Meaning: "an operator or a fencing tool asserts that the host is off",
		Advice:  "It is the only value on which failing over is safe.",
	},
}

// Rows yields the table, from the best host status to the worst.
func Rows() iter.Seq[Row] { return slices.Values(rows) }

// WorstFirst yields the table from the worst host status to the best.
func WorstFirst() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for _, row := range slices.Backward(rows) {
			if !yield(row) {
				return
			}
		}
	}
}

// RowOf returns the row of a host status. ok is false for a value that is not in the
// table, such as one of a later release.
func RowOf(s *v1alpha1.HostStatus) (row Row, ok bool) {
	if i := Rank(s); i < len(rows) {
		return rows[i], true
	}
	return Row{}, false
}

// Rank orders host statuses: the greater, the worse. A value that is not in the table is
// worse than all that are, since it might mean anything.
func Rank(s *v1alpha1.HostStatus) int {
	for i := range rows {
		if SameStatus(rows[i].Status, s) {
			return i
		}
	}
	return len(rows)
}

// Label returns the value's label in logs, metrics and dashboards.
func (r Row) Label() string { return Label(r.Status) }

// OfHosts reports whether a host can have the value: a server can have one more.
func (r Row) OfHosts() bool { return r.Status == nil || *r.Status != v1alpha1.HostStatusNone }

// Derived reports whether the value is a status that a host can have, and not absent.
func (r Row) Derived() bool { return r.Status != nil && r.OfHosts() }

// Explanation is the paragraph on the value in the documentation of the API.
func (r Row) Explanation() string {
	if r.Advice == "" {
		return r.Meaning + "."
	}
	return r.Meaning + ". " + r.Advice
}

// Ink is the colour of a letter on the row's tile, as #rrggbb: black or white, whichever is
// read more easily.
func (r Row) Ink() string {
	const black, white = "#000000", "#ffffff"
	rgb, err := strconv.ParseUint(strings.TrimPrefix(r.Tile, "#"), 16, 32)
	// What the eye makes of red, green and blue, in thousandths. Below about half of white's,
	// white is read more easily.
	bright := 299*(rgb>>16&0xff) + 587*(rgb>>8&0xff) + 114*(rgb&0xff)
	if err == nil && bright < 100*1000 {
		return white
	}
	return black
}
