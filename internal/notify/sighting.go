// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"encoding/json"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// sighting is what is seen of one server. It is not changed once it is made.
type sighting struct {
	types.NamespacedName
	uid     types.UID
	version string
	labels  labels.Set
	hostID  string
	// host are the host fields, nil while none are shown.
	host *v1alpha1.HostFields
}

// sightingOf keeps of a server what is needed.
func sightingOf(s *tenantv1alpha1.Server) *sighting {
	seen := &sighting{
		NamespacedName: types.NamespacedName{Namespace: s.Namespace, Name: s.Name},
		uid:            s.UID, version: s.ResourceVersion, labels: s.Labels, hostID: s.Status.HostID,
	}
	// The host fields are shown together or not at all.
	if h := s.Status.HostFields; h.HostStatus != nil || h.HostStatusReason != "" || h.HostStatusTransitionTime != nil || h.HostReporting != "" || h.MaintenanceWindow != nil || len(h.HostHistory) > 0 {
		seen.host = &h
	}
	return seen
}

// status is the host status, nil also while it is not shown.
func (s *sighting) status() *v1alpha1.HostStatus {
	if s.host == nil {
		return nil
	}
	return s.host.HostStatus
}

// end is why there is nothing more to say of a server or group.
type end string

const (
	// endDeleted: the server is deleted, or no server is on the host any more.
	endDeleted end = "Deleted"
	// endLeft: the route is not about it any more, for example by its labels.
	endLeft end = "Left"
	// endNoLongerUnknown: it is not UNKNOWN any more, and only UNKNOWN is shown to the
	// notifier.
	endNoLongerUnknown end = "NoLongerUnknown"
)

// state is what a route has to say of a server or group at one time. It is not changed once
// it is made.
type state struct {
	route     *route
	namespace string
	// server is its name, empty for a group.
	server  string
	uid     types.UID
	version string
	// newest is version or, in a group whose newest server has left or counts for nothing, that
	// of this one.
	newest string
	// sequence is version or, of a group, the newest that was seen of any server: servers leave a
	// group, also while nothing is watched.
	sequence string
	hostID   string
	// host are the host fields, nil if end is set.
	host *v1alpha1.HostFields
	end  end
	// servers are names of those of a group, at most maxNamed, and count is how many it has.
	servers []string
	count   int
	// first is set if no change was seen that led here: the state was found so.
	first bool
	// initial is set if the subject was found, at the start or when its labels came to match: the
	// sink may know of it from before.
	initial bool
	// facts are equal for two states that say the same.
	facts string
	// at is when it was decided.
	at time.Time
}

// status is the host status, nil at the end.
func (s *state) status() *v1alpha1.HostStatus {
	if s == nil || s.host == nil {
		return nil
	}
	return s.host.HostStatus
}

// factsOf is a text that is equal for host fields that say the same. Of a group the answers of
// its servers are left out, which differ.
func factsOf(h *v1alpha1.HostFields, group bool) string {
	window := ""
	if w := h.MaintenanceWindow; w != nil {
		w = w.DeepCopy()
		if group {
			w.Answer = ""
		}
		content, err := json.Marshal(w)
		if err != nil {
			content = []byte(err.Error()) // Times beyond the year 9999 cannot be written.
		}
		window = string(content)
	}
	return hoststatus.Label(h.HostStatus) + "|" + string(h.HostStatusReason) + "|" + string(h.HostReporting) + "|" + window
}

// newer reports whether a resourceVersion is after another.
func newer(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	if errX != nil || errY != nil {
		return len(a) > len(b) || len(a) == len(b) && a > b
	}
	return x > y
}

// newest is the newer of two resourceVersions; "" is older than any.
func newest(a, b string) string {
	if newer(b, a) {
		return b
	}
	return a
}
