// SPDX-License-Identifier: Apache-2.0

// Package reported knows the reported fields of a Server: what whoever runs a VM
// reports about it.
package reported

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/printable"
)

// Limits of the schema of Servers; a test compares them.
const (
	maxNetworks    = 32
	maxAddresses   = 32
	maxNetworkName = 253
	maxTaskState   = 64
	// unnamedNetwork is the name of a network that has none: its addresses are worth more
	// to the server's owner than its name.
	unnamedNetwork = "unnamed"
	// maxNotes is how many notes on one server are kept: enough to find a reporter that
	// gets everything wrong.
	maxNotes = 8
)

var (
	serverStates = []v1alpha1.ServerState{
		"ACTIVE", "BUILD", "DELETED", "ERROR", "HARD_REBOOT", "MIGRATING", "PASSWORD", "PAUSED", "REBOOT", "REBUILD",
		"RESCUE", "RESIZE", "REVERT_RESIZE", "SHELVED", "SHELVED_OFFLOADED", "SHUTOFF", "SOFT_DELETED", "SUSPENDED", "UNKNOWN", "VERIFY_RESIZE",
	}
	powerStates = []v1alpha1.PowerState{"NOSTATE", "RUNNING", "PAUSED", "SHUTDOWN", "CRASHED", "SUSPENDED"}
	taskState   = regexp.MustCompile(`^[A-Za-z0-9][-_A-Za-z0-9]*$`)
)

// Fields are the reported fields of a Server, as in its status. Empty ones are not
// reported.
type Fields struct {
	State      v1alpha1.ServerState     `json:"state,omitempty"`
	TaskState  string                   `json:"taskState,omitempty"`
	PowerState v1alpha1.PowerState      `json:"powerState,omitempty"`
	Networks   []v1alpha1.ServerNetwork `json:"networks,omitempty"`
}

// Of returns the reported fields of a Server.
func Of(s *v1alpha1.ServerStatus) Fields {
	return Fields{State: s.State, TaskState: s.TaskState, PowerState: s.PowerState, Networks: s.Networks}
}

// Equal reports whether a and b are the same to a reader.
func Equal(a, b Fields) bool {
	return a.State == b.State && a.TaskState == b.TaskState && a.PowerState == b.PowerState &&
		slices.EqualFunc(a.Networks, b.Networks, func(m, n v1alpha1.ServerNetwork) bool {
			return m.Name == n.Name && slices.Equal(m.Addresses, n.Addresses)
		})
}

// Normalise returns the fields in the form that the API accepts, so
// that one invalid field does not lose the others: the state of a server must not depend
// on how somebody writes an address. Values that cannot be used are left out. The notes
// list, for a person, what it had to cut, rename or leave out, but not mere differences
// of spelling.
func Normalise(in Fields) (normal Fields, notes []string) {
	note := func(format string, args ...any) {
		if len(notes) < maxNotes {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	if s := v1alpha1.ServerState(enumValue(string(in.State))); s == "" || slices.Contains(serverStates, s) {
		normal.State = s
	} else {
		note("state %s is unknown: left out", short(string(in.State)))
	}
	if s := v1alpha1.PowerState(enumValue(string(in.PowerState))); s == "" || slices.Contains(powerStates, s) {
		normal.PowerState = s
	} else {
		note("power state %s is unknown: left out", short(string(in.PowerState)))
	}
	if s := strings.TrimSpace(in.TaskState); s == "" || len(s) <= maxTaskState && taskState.MatchString(s) {
		normal.TaskState = s
	} else {
		note("task state %s is not one word of at most %d letters, digits, '-' and '_': left out", short(in.TaskState), maxTaskState)
	}
	normal.Networks = normaliseNetworks(in.Networks, note)
	return normal, notes
}

func normaliseNetworks(networks []v1alpha1.ServerNetwork, note func(string, ...any)) []v1alpha1.ServerNetwork {
	var normal []v1alpha1.ServerNetwork
	for _, n := range networks {
		name := normaliseName(n.Name, note)
		i := slices.IndexFunc(normal, func(other v1alpha1.ServerNetwork) bool { return other.Name == name })
		if i < 0 && len(normal) == maxNetworks {
			note("more than %d networks: %s left out", maxNetworks, short(n.Name))
			continue
		}
		if i < 0 {
			i = len(normal)
			normal = append(normal, v1alpha1.ServerNetwork{Name: name})
		}
		for _, text := range n.Addresses {
			address, err := normaliseAddress(text)
			switch {
			case err != nil:
				note("network %s: %s is not an IP address: left out", short(n.Name), short(text))
			case slices.Contains(normal[i].Addresses, address):
			case len(normal[i].Addresses) == maxAddresses:
				note("network %s: more than %d addresses: %s left out", short(n.Name), maxAddresses, address)
			default:
				normal[i].Addresses = append(normal[i].Addresses, address)
			}
		}
	}
	return normal
}

func normaliseName(name string, note func(string, ...any)) string {
	clean := strings.TrimSpace(printable.Clean(name))
	switch {
	case clean == "":
		note("a network without a name: called %s", unnamedNetwork)
		return unnamedNetwork
	case utf8.RuneCountInString(clean) > maxNetworkName:
		note("network %s: its name is longer than %d characters: cut", short(name), maxNetworkName)
		return string([]rune(clean)[:maxNetworkName])
	case clean != strings.TrimSpace(name):
		note("network %s: its name has characters that cannot be shown: replaced", short(name))
	}
	return clean
}

// normaliseAddress returns an address as the API accepts it: without its prefix length and
// its zone, which has a meaning only on the host, and an IPv4-mapped address as IPv4.
func normaliseAddress(text string) (string, error) {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "/")
	address, err := netip.ParseAddr(text)
	if err != nil {
		return "", err
	}
	return address.WithZone("").Unmap().String(), nil
}

// enumValue returns text as the enumerations are spelt.
func enumValue(text string) string { return strings.ToUpper(strings.TrimSpace(text)) }

// short quotes text for a note, cut and with unprintable characters escaped.
func short(text string) string {
	const most = 64
	if runes := []rune(text); len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", text)
}
