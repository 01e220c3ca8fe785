// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"strings"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// server is what is read of a server in the owners' view. Only what is used here is
// decoded.
type server struct {
	Metadata struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace"`
		UID       string            `json:"uid"`
		Created   string            `json:"creationTimestamp"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	Status struct {
		State      string                          `json:"state"`
		TaskState  string                          `json:"taskState"`
		PowerState string                          `json:"powerState"`
		Networks   []computev1alpha1.ServerNetwork `json:"networks"`
		HostID     string                          `json:"hostID"`
		// HostStatus is nil if it is not shown to the caller, or not derived yet, and so is
		// the time since when it holds.
		HostStatus *string `json:"hostStatus"`
		Since      string  `json:"hostStatusTransitionTime"`
	} `json:"status"`
}

// placement is where a server is, for callers who may read that.
type placement struct {
	// readable is set if the caller may read it.
	readable bool
	// host is the name of the host; "" means none.
	host string
}

// links makes the links of one request.
type links struct {
	// base is the URL of this server, without a slash at its end.
	base string
	// version is the path element of the API, v2.1 or v2.
	version string
	// project is the one that the request's URL names, "" if it names none. Links repeat it.
	project string
}

func (l links) root() string {
	if l.project == "" {
		return l.base
	}
	return l.base + "/" + l.project
}

func (l links) self() string {
	if l.project == "" {
		return l.base + "/" + l.version
	}
	return l.base + "/" + l.version + "/" + l.project
}

// bookmark appends the link of a resource without a version.
func (l links) bookmark(e *encoder, resource string) {
	e.begin("", '{')
	e.text("rel", "bookmark")
	e.text("href", l.root()+"/"+resource)
	e.end('}')
}

// of appends the links of a resource, for example servers/ID.
func (l links) of(e *encoder, resource string) {
	e.begin("links", '[')
	e.begin("", '{')
	e.text("rel", "self")
	e.text("href", l.self()+"/"+resource)
	e.end('}')
	l.bookmark(e, resource)
	e.end(']')
}

const (
	stateUnknown = "UNKNOWN"
	// unknownFlavor stands for the flavor, which is not known here. Clients need a name.
	unknownFlavor = "unknown"
)

// states are those in which a server can be, and what the compute API calls the state of
// the VM beneath; those in which something is being done have that of a running one.
var states = map[string]string{
	"ACTIVE":            "active",
	"BUILD":             "building",
	stateDeleted:        "deleted",
	"ERROR":             "error",
	"HARD_REBOOT":       "active",
	"MIGRATING":         "active",
	"PASSWORD":          "active",
	"PAUSED":            "paused",
	"REBOOT":            "active",
	"REBUILD":           "active",
	"RESCUE":            "rescued",
	"RESIZE":            "active",
	"REVERT_RESIZE":     "resized",
	"SHELVED":           "shelved",
	"SHELVED_OFFLOADED": "shelved_offloaded",
	"SHUTOFF":           "stopped",
	"SOFT_DELETED":      "soft-delete",
	"SUSPENDED":         "suspended",
	"VERIFY_RESIZE":     "resized",
}

const stateDeleted = "DELETED"

// withProgress are the states in which a server has the field progress.
var withProgress = map[string]bool{"ACTIVE": true, "BUILD": true, "REBUILD": true, "RESIZE": true, "VERIFY_RESIZE": true, "MIGRATING": true}

// powerStates are the numbers of the compute API.
var powerStates = map[string]int64{"RUNNING": 1, "PAUSED": 3, "SHUTDOWN": 4, "CRASHED": 6, "SUSPENDED": 7}

// brief appends a server as GET /servers shows it.
func (s *server) brief(e *encoder, l links) {
	e.begin("", '{')
	e.text("id", s.Metadata.UID)
	e.text("name", s.Metadata.Name)
	l.of(e, "servers/"+s.Metadata.UID)
	e.end('}')
}

// detail appends a server with all its fields, for key, as version v shows it; single is set
// for GET /servers/ID.
func (s *server) detail(e *encoder, key string, v microversion, where placement, l links, single bool) {
	e.begin(key, '{')
	e.text("id", s.Metadata.UID)
	e.text("name", s.Metadata.Name)
	e.text("status", s.state())
	e.text("tenant_id", s.Metadata.Namespace)
	e.text("user_id", "")
	s.metadata(e)
	e.text("hostId", s.Status.HostID)
	e.text("image", "")
	flavor(e, v, l)
	e.text("created", s.Metadata.Created)
	e.text("updated", s.updated())
	s.addresses(e, true)
	e.text("accessIPv4", "")
	e.text("accessIPv6", "")
	l.of(e, "servers/"+s.Metadata.UID)
	e.text("OS-DCF:diskConfig", "MANUAL")
	if withProgress[s.Status.State] {
		e.number("progress", 0)
	}
	e.text("OS-EXT-AZ:availability_zone", "")
	e.text("config_drive", "")
	e.null("key_name")
	e.null("OS-SRV-USG:launched_at")
	e.null("OS-SRV-USG:terminated_at")
	s.placed(e, v, where)
	e.textOrNull("OS-EXT-STS:task_state", s.Status.TaskState)
	e.textOrNull("OS-EXT-STS:vm_state", states[s.Status.State])
	e.number("OS-EXT-STS:power_state", powerStates[s.Status.PowerState])
	e.begin("os-extended-volumes:volumes_attached", '[')
	e.end(']')
	s.later(e, v, single)
	e.end('}')
}

// later appends the fields that came after version 2.1.
func (s *server) later(e *encoder, v microversion, single bool) {
	if v >= withLocked {
		e.boolean("locked", false)
	}
	if v >= withHostStatus && s.Status.HostStatus != nil {
		e.text("host_status", *s.Status.HostStatus)
	}
	if v >= withDescription {
		e.null("description")
	}
	if v >= withTags {
		e.begin("tags", '[')
		e.end(']')
	}
	if v >= withTrustedImages {
		e.null("trusted_image_certificates")
	}
	if v >= withServerGroups && single {
		e.begin("server_groups", '[')
		e.end(']')
	}
	if v >= withLockedReason {
		e.null("locked_reason")
	}
}

// placed appends what only those who may read where a server is are shown.
func (s *server) placed(e *encoder, v microversion, where placement) {
	const prefix = "OS-EXT-SRV-ATTR:"
	if where.readable {
		e.textOrNull(prefix+"host", where.host)
		e.text(prefix+"instance_name", s.Metadata.Name)
		e.textOrNull(prefix+"hypervisor_hostname", where.host)
	}
	extended := where.readable && v >= withExtendedAttributes
	if extended || v >= withHostnameForAll {
		e.text(prefix+"hostname", s.Metadata.Name)
	}
	if extended {
		e.text(prefix+"reservation_id", "")
		e.number(prefix+"launch_index", 0)
		e.text(prefix+"kernel_id", "")
		e.text(prefix+"ramdisk_id", "")
		e.null(prefix + "root_device_name")
		e.null(prefix + "user_data")
	}
}

func (s *server) state() string {
	if s.Status.State == "" {
		return stateUnknown
	}
	return s.Status.State
}

// updated is when the server last changed, as far as it is known and the caller may see it.
// Both times are in the one form of Kubernetes, so they can be compared as texts.
func (s *server) updated() string { return max(s.Metadata.Created, s.Status.Since) }

func (s *server) metadata(e *encoder) {
	e.begin("metadata", '{')
	for _, label := range sortedKeys(s.Metadata.Labels) {
		e.dataKey(label)
		e.b = appendText(e.b, s.Metadata.Labels[label])
	}
	e.end('}')
}

// addresses appends the networks; long is set for the form within a server.
func (s *server) addresses(e *encoder, long bool) {
	e.begin("addresses", '{')
	for _, network := range s.Status.Networks {
		e.dataKey(network.Name)
		e.next = false
		e.begin("", '[')
		for _, address := range network.Addresses {
			e.begin("", '{')
			version := int64(4)
			if isIPv6(address) {
				version = 6
			}
			e.number("version", version)
			e.text("addr", address)
			if long {
				e.text("OS-EXT-IPS:type", "fixed")
			}
			e.end('}')
		}
		e.end(']')
	}
	e.end('}')
}

func isIPv6(address string) bool { return strings.Contains(address, ":") }

// flavor appends a flavor of which nothing is known.
func flavor(e *encoder, v microversion, l links) {
	e.begin("flavor", '{')
	if v < withEmbeddedFlavor {
		e.text("id", unknownFlavor)
		e.begin("links", '[')
		l.bookmark(e, "flavors/"+unknownFlavor)
		e.end(']')
	} else {
		for _, size := range []string{"vcpus", "ram", "disk", "ephemeral", "swap"} {
			e.number(size, 0)
		}
		e.text("original_name", unknownFlavor)
		e.begin("extra_specs", '{')
		e.end('}')
	}
	e.end('}')
}
