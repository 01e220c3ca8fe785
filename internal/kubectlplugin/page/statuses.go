// SPDX-License-Identifier: Apache-2.0

package page

import (
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// Status is a row of the table of host statuses, as pages get it.
type Status struct {
	// Value is that of the API; nil is the absent one.
	Value *v1alpha1.HostStatus `json:"value"`
	// Name is the value for people.
	Name   string `json:"name"`
	Letter string `json:"letter"`
	// Tile is a colour, and Ink that of the letter on it.
	Tile string `json:"tile"`
	Ink  string `json:"ink"`
	// Meaning explains the value in a sentence or two.
	Meaning string `json:"meaning"`
	// OfHosts: a host can have it. All others are of servers only.
	OfHosts bool `json:"ofHosts"`
}

// statuses are the host statuses, from the best to the worst.
func statuses() (all []Status) {
	for row := range hoststatus.Rows() {
		name := row.Label()
		switch {
		case row.Status == nil:
			name = "not known yet"
		case !row.OfHosts():
			name = "no host"
		}
		all = append(all, Status{
			Value: row.Status, Name: name, Letter: row.Letter, Tile: row.Tile, Ink: row.Ink(), Meaning: row.Explanation(), OfHosts: row.OfHosts(),
		})
	}
	return all
}
