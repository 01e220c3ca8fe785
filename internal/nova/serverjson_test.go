// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

var testLinks = links{base: "http://h:8774", version: "v2.1"}

// testServer is a server of team-a, with host status.
func testServer(name string) *server {
	s := &server{}
	s.Metadata.Name, s.Metadata.Namespace, s.Metadata.UID = name, "team-a", someUID
	s.Metadata.Created = "2026-10-01T12:00:00Z"
	s.Metadata.Labels = map[string]string{"tier": "web", "app": `a"b`}
	s.Status.State, s.Status.PowerState, s.Status.HostID = "ACTIVE", "RUNNING", "abc"
	s.Status.Networks = []computev1alpha1.ServerNetwork{{Name: "net", Addresses: []string{"10.0.0.4", "fd00::4"}}}
	up := "UP"
	s.Status.HostStatus, s.Status.Since = &up, "2026-10-01T12:00:05Z"
	return s
}

// encoded returns the fields of a server as a version shows them.
func encoded(t *testing.T, s *server, v microversion, where placement, l links, single bool) map[string]any {
	t.Helper()
	e := &encoder{}
	s.detail(e, "", v, where, l, single)
	var out map[string]any
	if err := json.Unmarshal(e.b, &out); err != nil {
		t.Fatalf("%v in %s", err, e.b)
	}
	return out
}

// What each version added to a server, for those who may read where it is.
var fieldsSince = map[microversion]string{
	1: "id name status tenant_id user_id metadata hostId image flavor created updated addresses accessIPv4 accessIPv6 links OS-DCF:diskConfig progress " +
		"OS-EXT-AZ:availability_zone config_drive key_name OS-SRV-USG:launched_at OS-SRV-USG:terminated_at OS-EXT-STS:task_state OS-EXT-STS:vm_state " +
		"OS-EXT-STS:power_state os-extended-volumes:volumes_attached",
	9: "locked", 16: "host_status", 19: "description", 26: "tags", 63: "trusted_image_certificates", 73: "locked_reason",
}

var placedSince = map[microversion]string{
	1: "OS-EXT-SRV-ATTR:host OS-EXT-SRV-ATTR:instance_name OS-EXT-SRV-ATTR:hypervisor_hostname",
	3: "OS-EXT-SRV-ATTR:reservation_id OS-EXT-SRV-ATTR:launch_index OS-EXT-SRV-ATTR:hostname OS-EXT-SRV-ATTR:kernel_id OS-EXT-SRV-ATTR:ramdisk_id " +
		"OS-EXT-SRV-ATTR:root_device_name OS-EXT-SRV-ATTR:user_data",
}

func TestAServerHasTheFieldsOfEachVersion(t *testing.T) {
	for v := minVersion; v <= maxVersion; v++ {
		for _, where := range []placement{{}, {true, "compute-1"}} {
			for _, single := range []bool{false, true} {
				want := map[string]bool{}
				add := func(since map[microversion]string) {
					for from, fields := range since {
						for _, field := range strings.Fields(fields) {
							want[field] = want[field] || v >= from
						}
					}
				}
				add(fieldsSince)
				if where.readable {
					add(placedSince)
				}
				want["OS-EXT-SRV-ATTR:hostname"] = want["OS-EXT-SRV-ATTR:hostname"] || v >= 90
				want["server_groups"] = single && v >= 71
				maps.DeleteFunc(want, func(_ string, there bool) bool { return !there })
				got := encoded(t, testServer("web-1"), v, where, testLinks, single)
				if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
					t.Fatalf("%s, placed %t, single %t:\n%v, want\n%v", v, where.readable, single, g, w)
				}
			}
		}
	}
}

func TestTheFieldsOfAServer(t *testing.T) {
	got := encoded(t, testServer("web-1"), 47, placement{true, "compute-1"}, testLinks, true)
	check := func(got map[string]any, field, want string) {
		t.Helper()
		text, err := json.Marshal(got[field])
		if err != nil || string(text) != want {
			t.Errorf("%s: %s, want %s", field, text, want)
		}
	}
	check(got, "id", `"`+someUID+`"`)
	check(got, "tenant_id", `"team-a"`)
	check(got, "metadata", `{"app":"a\"b","tier":"web"}`)
	check(got, "hostId", `"abc"`)
	check(got, "image", `""`)
	check(got, "created", `"2026-10-01T12:00:00Z"`)
	check(got, "updated", `"2026-10-01T12:00:05Z"`)
	check(got, "addresses", `{"net":[{"OS-EXT-IPS:type":"fixed","addr":"10.0.0.4","version":4},{"OS-EXT-IPS:type":"fixed","addr":"fd00::4","version":6}]}`)
	check(got, "flavor", `{"disk":0,"ephemeral":0,"extra_specs":{},"original_name":"unknown","ram":0,"swap":0,"vcpus":0}`)
	check(got, "OS-EXT-SRV-ATTR:host", `"compute-1"`)
	check(got, "OS-EXT-STS:vm_state", `"active"`)
	check(got, "OS-EXT-STS:task_state", `null`)
	check(got, "OS-EXT-STS:power_state", `1`)
	check(got, "host_status", `"UP"`)
	check(got, "links", `[{"href":"http://h:8774/v2.1/servers/`+someUID+`","rel":"self"},{"href":"http://h:8774/servers/`+someUID+`","rel":"bookmark"}]`)

	inProject := testLinks
	inProject.project = "team-a"
	got = encoded(t, testServer("web-1"), 46, placement{true, ""}, inProject, true)
	check(got, "links", `[{"href":"http://h:8774/v2.1/team-a/servers/`+someUID+`","rel":"self"},{"href":"http://h:8774/team-a/servers/`+someUID+`","rel":"bookmark"}]`)
	check(got, "flavor", `{"id":"unknown","links":[{"href":"http://h:8774/team-a/flavors/unknown","rel":"bookmark"}]}`)
	check(got, "OS-EXT-SRV-ATTR:host", `null`)
	check(got, "OS-EXT-SRV-ATTR:hypervisor_hostname", `null`)

	bare := &server{}
	got = encoded(t, bare, 93, placement{}, testLinks, true)
	check(got, "status", `"UNKNOWN"`)
	check(got, "OS-EXT-STS:vm_state", `null`)
	check(got, "OS-EXT-STS:power_state", `0`)
	check(got, "addresses", `{}`)
	check(got, "metadata", `{}`)
	check(got, "hostId", `""`)
	for _, absent := range []string{"progress", "host_status"} {
		if _, ok := got[absent]; ok {
			t.Errorf("a server without a state has %s", absent)
		}
	}
}

func TestHostStatusIsShownWhereTheOwnersViewShowsIt(t *testing.T) {
	for _, value := range []string{"", "UP", "DOWN", "UNKNOWN", "MAINTENANCE", "NEEDS_MAINTENANCE"} {
		s := testServer("web-1")
		s.Status.HostStatus = &value
		if got := encoded(t, s, 16, placement{}, testLinks, false)["host_status"]; got != value {
			t.Errorf("%q is shown as %v", value, got)
		}
		if _, ok := encoded(t, s, 15, placement{}, testLinks, false)["host_status"]; ok {
			t.Error("2.15 has it")
		}
	}
	s := testServer("web-1")
	s.Status.HostStatus, s.Status.Since = nil, ""
	got := encoded(t, s, 93, placement{}, testLinks, true)
	if _, ok := got["host_status"]; ok || got["updated"] != got["created"] {
		t.Errorf("what is hidden is shown: %v, updated %v", got["host_status"], got["updated"])
	}
}

func TestEveryStateIsKnown(t *testing.T) {
	for _, state := range []string{
		"ACTIVE", "BUILD", "DELETED", "ERROR", "HARD_REBOOT", "MIGRATING", "PASSWORD", "PAUSED", "REBOOT", "REBUILD", "RESCUE", "RESIZE",
		"REVERT_RESIZE", "SHELVED", "SHELVED_OFFLOADED", "SHUTOFF", "SOFT_DELETED", "SUSPENDED", "VERIFY_RESIZE",
	} {
		if states[state] == "" {
			t.Errorf("%s is not among the states", state)
		}
	}
}
