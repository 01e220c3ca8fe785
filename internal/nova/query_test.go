// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
)

const someUID = "495250ce-4cf4-5dfc-b745-ff5148e8976d"

func TestQueriesOfServers(t *testing.T) {
	for _, c := range []struct {
		query   string
		version microversion
		// want is the message of the refusal; "" means that there is none.
		want  string
		check func(*listQuery) bool
	}{
		{query: "", check: func(q *listQuery) bool { return q.limit == 1000 && !q.allTenants && !q.nothing }},
		{query: "limit=2", check: func(q *listQuery) bool { return q.limit == 2 }},
		{query: "limit=0", check: func(q *listQuery) bool { return q.limit == 0 }},
		{query: "limit=", check: func(q *listQuery) bool { return q.limit == 1000 }},
		{query: "limit=2&limit=3", check: func(q *listQuery) bool { return q.limit == 3 }},
		{query: "limit=5000", check: func(q *listQuery) bool { return q.limit == 1000 }},
		{query: "limit=99999999999999999999999", check: func(q *listQuery) bool { return q.limit == 1000 }},
		{query: "limit=-1", want: "Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'"},
		{query: "limit=x", want: "Invalid input for query parameters limit. Value: x. 'x' does not match '^[0-9]*$'"},
		{query: "marker=" + someUID, check: func(q *listQuery) bool { return q.marker == someUID }},
		{query: "all_tenants", check: func(q *listQuery) bool { return q.allTenants }},
		{query: "all_tenants=", check: func(q *listQuery) bool { return q.allTenants }},
		{query: "all_tenants=True", check: func(q *listQuery) bool { return q.allTenants }},
		{query: "all_tenants=0", check: func(q *listQuery) bool { return !q.allTenants }},
		{query: "all_tenants=maybe", want: "Unrecognized value 'maybe' for all_tenants"},
		{query: "all_tenants=1&tenant_id=team-b", check: func(q *listQuery) bool { return q.project == "team-b" }},
		{query: "project_id=team-b&tenant_id=team-b", check: func(q *listQuery) bool { return q.project == "team-b" && !q.nothing }},
		{query: "project_id=team-b&tenant_id=team-c", check: func(q *listQuery) bool { return q.nothing }},
		{query: "project_id=..", check: func(q *listQuery) bool { return q.nothing && q.project == "" }},
		{query: "host=compute-1", check: func(q *listQuery) bool { return q.host == "compute-1" }},
		{query: "host=", check: func(q *listQuery) bool { return q.nothing }},
		{query: "host=a,b", check: func(q *listQuery) bool { return q.nothing }},
		{query: "host=a&host=b", want: "Invalid input for query parameters host. It can be given once."},
		{query: "uuid=" + strings.ToUpper(someUID), check: func(q *listQuery) bool { return q.uid == someUID }},
		{query: "uuid=web-1", check: func(q *listQuery) bool { return q.nothing }},
		{query: "status=active", check: func(q *listQuery) bool { return reflect.DeepEqual(q.match.states, []string{"ACTIVE"}) }},
		{query: "status=NOSUCH", version: 37, check: func(q *listQuery) bool { return q.nothing }},
		{query: "status=UNKNOWN", version: 37, check: func(q *listQuery) bool { return q.nothing }},
		{query: "status=NOSUCH", version: 38, want: "Invalid status value"},
		{query: "status=NOSUCH&status=ERROR", version: 38, check: func(q *listQuery) bool { return len(q.match.states) == 1 && !q.nothing }},
		{query: "status=deleted", check: func(q *listQuery) bool { return q.deleted }},
		{query: "host_status=down", check: func(q *listQuery) bool { return q.hostStatus == "DOWN" }},
		{query: "host_status=BROKEN", want: "Invalid input for query parameters host_status. Value: BROKEN. 'BROKEN' is not one of"},
		{query: "host_status=DOWN", version: 75, want: "'host_status' does not match any of the regexes: '^_'"},
		{query: "name=vm[", want: "Invalid input for query parameters name. Value: vm[. 'vm[' is not a 'regex'"},
		{query: "name=" + strings.Repeat("a", 2000), want: "Invalid input for query parameters name. It is longer than 1024 bytes."},
		{query: strings.Repeat("name=a&", 65), want: "Invalid input for query parameters name. It has 65 values, and can have 64."},
		{query: strings.Repeat("name=a&", 9), want: "Invalid input for query parameters name. It has 9 values, and can have 8."},
		{query: "name=(abcdefghij){1000}", want: "Invalid input for query parameters name. Its repetitions and classes make it too large"},
		{query: "name=((a{10}){10}){10}{10}", want: "Invalid input for query parameters name."},
		{query: "ip=%5CpL%7B100%7D", want: "Invalid input for query parameters ip. Its repetitions and classes make it too large"},
		{query: "name=^vm-[0-9]{3}%5C.(a|b)*$", check: func(q *listQuery) bool { return len(q.match.names) == 1 }},
		{query: "deleted=False", check: func(q *listQuery) bool { return !q.nothing }},
		{query: "deleted=True", want: "Invalid filter field: deleted."},
		{query: "changes-since=2050-01-01T00:00:00Z", want: "Invalid filter field: changes-since."},
		{query: "flavor=2", want: "Invalid filter field: flavor."},
		{query: "tags=x", version: 1, want: "Invalid filter field: tags."},
		{query: "foo=bar", version: 74, check: func(q *listQuery) bool { return !q.nothing }},
		{query: "foo=bar", version: 75, want: "'foo' does not match any of the regexes: '^_'"},
		{query: "_foo=bar", version: 74, want: "Invalid input for query parameters _foo."},
		{query: "sort_key=uuid&sort_dir=desc", check: order("-uuid", "uuid")},
		{query: "", check: order("-created_at", "uuid")},
		{query: "sort_dir=asc", check: order("created_at", "uuid")},
		{query: "sort_key=host&sort_dir=desc&sort_key=display_name&sort_dir=asc", check: order("-host", "display_name", "uuid")},
		{query: "sort_key=host&sort_key=display_name", check: order("-host", "-display_name", "uuid")},
		{query: "sort_key=host&sort_key=host&sort_dir=asc", check: order("host", "uuid")},
		{query: "sort_key=flavor", want: "Invalid input for query parameters sort_key. Value: flavor."},
		{query: "sort_dir=up", want: "Invalid input received: Unknown sort direction, must be 'desc' or 'asc'"},
		{query: "sort_dir=asc&sort_dir=desc", want: "Invalid input received: Sort direction size exceeds sort key size"},
	} {
		t.Run(c.query[:min(len(c.query), 80)], func(t *testing.T) {
			values, err := url.ParseQuery(c.query)
			if err != nil {
				t.Fatal(err)
			}
			version := c.version
			if version == 0 {
				version = 16
			}
			q, err := parseListQuery(values, version)
			switch {
			case c.want != "":
				if err == nil || asFault(err).code != 400 || !strings.HasPrefix(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			case err != nil:
				t.Error(err)
			case !c.check(q):
				t.Errorf("read as %+v", q)
			}
		})
	}
}

// order checks by what a list is sorted; a minus stands for descending.
func order(want ...string) func(*listQuery) bool {
	return func(q *listQuery) bool {
		var got []string
		for _, k := range q.order {
			name := k.name
			if k.descending {
				name = "-" + name
			}
			got = append(got, name)
		}
		return reflect.DeepEqual(got, want)
	}
}

func TestEveryUnsupportedFilterIsRefusedAtEveryVersion(t *testing.T) {
	for name := range unsupportedFilters {
		for _, v := range []microversion{minVersion, 74, 75, maxVersion} {
			if _, err := parseListQuery(url.Values{name: {"1"}}, v); err == nil {
				t.Errorf("%s at %s: it is ignored, so the answer would be wider than what was asked for", name, v)
			}
		}
	}
}

func TestFiltersOnWhatIsShown(t *testing.T) {
	s := testServer("web-1")
	for query, want := range map[string]bool{
		"":                              true,
		"status=active":                 true,
		"status=error":                  false,
		"status=error&status=ACTIVE":    true,
		"vm_state=active":               true,
		"vm_state=stopped":              false,
		"task_state=powering-off":       false,
		"power_state=1":                 true,
		"power_state=4":                 false,
		"name=WEB":                      true,
		"name=^web-[12]$":               true,
		"name=^b":                       false,
		"name=web&display_name=1":       true,
		"ip=10%5C.0%5C.":                true,
		"ip=10.0.0.9":                   false,
		"ip=fd00":                       false,
		"ip6=fd00":                      true,
		"name=web&status=error":         false,
		"name=web&status=active&ip=10.": true,
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		q, err := parseListQuery(values, 16)
		if err != nil {
			t.Fatal(query, err)
		}
		if got := q.match.matches(s); got != want {
			t.Errorf("%s: %t, want %t", query, got, want)
		}
	}
}
