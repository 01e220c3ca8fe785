// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	golibvirt "github.com/digitalocean/go-libvirt"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/reported"
)

// presence is whether a domain that libvirt lists counts as a server of this host.
type presence int

const (
	// here is a domain whose state is known.
	here presence = iota
	// starting is one that is being started, or received from another host. Until it is
	// clear which, what was reported of it before stands.
	starting
	// moved is one that was migrated away. Its definition may stay behind.
	moved
)

// powerStates are the words of Nova's libvirt driver.
var powerStates = map[golibvirt.DomainState]v1alpha1.PowerState{
	golibvirt.DomainNostate:     "NOSTATE",
	golibvirt.DomainRunning:     "RUNNING",
	golibvirt.DomainBlocked:     "RUNNING",
	golibvirt.DomainPaused:      "PAUSED",
	golibvirt.DomainShutdown:    "SHUTDOWN",
	golibvirt.DomainShutoff:     "SHUTDOWN",
	golibvirt.DomainCrashed:     "CRASHED",
	golibvirt.DomainPmsuspended: "SUSPENDED",
}

// fieldsOf returns what is reported of a domain in this state. saved is whether it has a
// managed save image. A state that this code does not know is not reported.
func fieldsOf(state golibvirt.DomainState, reason int32, saved bool) (fields reported.Fields, p presence) {
	fields.PowerState = powerStates[state]
	switch state {
	case golibvirt.DomainRunning, golibvirt.DomainBlocked:
		fields.State = "ACTIVE"
	case golibvirt.DomainPaused:
		if golibvirt.DomainPausedReason(reason) == golibvirt.DomainPausedStartingUp {
			return reported.Fields{}, starting
		}
		fields.State, fields.TaskState = pausedFor(golibvirt.DomainPausedReason(reason))
	case golibvirt.DomainShutdown:
		fields.State, fields.TaskState = "ACTIVE", "powering-off"
	case golibvirt.DomainShutoff:
		// The other reasons do not survive restarts of libvirtd: they end as UNKNOWN.
		switch {
		case golibvirt.DomainShutoffReason(reason) == golibvirt.DomainShutoffMigrated:
			return reported.Fields{}, moved
		case saved:
			fields.State = "SUSPENDED"
		default:
			fields.State = "SHUTOFF"
		}
	case golibvirt.DomainCrashed:
		fields.State = "ERROR"
	case golibvirt.DomainPmsuspended:
		fields.State = "SUSPENDED"
	}
	return fields, here
}

// pausedFor returns the state of a domain whose CPUs stand still for a reason. Where
// libvirt stops them for a moment of its own accord, the server is not paused for its owner.
func pausedFor(reason golibvirt.DomainPausedReason) (state v1alpha1.ServerState, task string) {
	switch reason {
	case golibvirt.DomainPausedMigration, golibvirt.DomainPausedPostcopy:
		return "MIGRATING", "migrating"
	case golibvirt.DomainPausedSave:
		return "ACTIVE", "suspending"
	case golibvirt.DomainPausedDump, golibvirt.DomainPausedShuttingDown, golibvirt.DomainPausedSnapshot:
		return "ACTIVE", ""
	case golibvirt.DomainPausedIoerror, golibvirt.DomainPausedCrashed, golibvirt.DomainPausedPostcopyFailed, golibvirt.DomainPausedAPIError:
		return "ERROR", ""
	default: // a person, a watchdog, a snapshot, or unknown
		return "PAUSED", ""
	}
}
