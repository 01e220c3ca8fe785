// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"net/url"
	"strings"
	"testing"
)

func TestPathsAreReadAsClientsMeanThem(t *testing.T) {
	const unserved = "404"
	for path, want := range map[string]string{
		"/v2.1":                             "v2.1  ",
		"/v2.1/":                            "v2.1  ",
		"/v2/":                              "v2  ",
		"/v2.1/team-a":                      "v2.1 team-a ",
		"/v2.1/team-a/":                     "v2.1 team-a ",
		"/v2.1/servers":                     "v2.1  servers",
		"/v2.1/servers/detail":              "v2.1  servers/detail",
		"/v2.1/team-a/servers/x":            "v2.1 team-a servers/x",
		"/v2.1/team-a/os-services":          "v2.1 team-a os-services",
		"/v2.1/os-keypairs":                 "v2.1  os-keypairs",
		"/v2.1/servers/detail/":             "v2.1  servers/detail/",
		"/v2.1/Team":                        unserved, // No namespace has such a name.
		"/v2.1/team_a/servers":              unserved,
		"/v2.1/..":                          unserved,
		"/v2.1/../servers":                  unserved,
		"/v2.1/./servers":                   unserved,
		"/v2.1/%2e%2e/servers":              unserved,
		"/v2.1/a%2fb/servers":               unserved,
		"/v2.1/a%5cb/servers":               unserved,
		"/v2.1/servers/a%2f..%2f..%2fnodes": unserved,
		"/v2.1/servers/%00":                 unserved,
		"/v2.1//servers":                    unserved,
		"//v2.1/servers":                    unserved,
		"/v2.1/servers/a%0d%0ab":            unserved,
		"/v2.1/servers/%ff":                 unserved,
		"/v3/servers":                       unserved,
		"/api/v1/nodes":                     unserved,
		"/":                                 unserved, // The list of versions is no version.
	} {
		u, err := url.Parse("http://h" + path)
		if err != nil {
			t.Fatal(err)
		}
		got := unserved
		if elements, ok := elements(u); ok {
			if at, ok := locate(elements); ok {
				got = at.version.element + " " + at.project + " " + strings.Join(at.rest, "/")
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestRoutesAreFound(t *testing.T) {
	for request, want := range map[string]string{
		"GET servers":                 "servers",
		"HEAD servers":                "servers",
		"GET servers/detail":          "servers/detail",
		"GET servers/x":               "servers/{id} x",
		"GET servers/x/ips":           "servers/{id}/ips x",
		"GET servers/x/os-interface":  "",
		"GET servers/":                "",
		"POST servers/x":              "",
		"POST servers/x/action":       "servers/{id}/action x",
		"PUT os-services/force-down":  "os-services/{id} force-down",
		"POST os-services":            "",
		"GET os-services/x":           "",
		"GET os-hypervisors/detail":   "os-hypervisors/detail",
		"GET os-hypervisors/x/search": "os-hypervisors/{id}/search x",
		"GET nosuch":                  "",
		"PATCH servers":               "",
	} {
		method, path, _ := strings.Cut(request, " ")
		got := ""
		if r, id, ok := find(method, strings.Split(path, "/")); ok {
			if got = r.path; id != "" {
				got += " " + id
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", request, got, want)
		}
	}
}

func TestEveryRouteBeginsWithAWordThatIsNoProject(t *testing.T) {
	for _, r := range routes {
		if first, _, _ := strings.Cut(r.path, "/"); !words.Has(first) {
			t.Errorf("%s: %q is not among the words, so it would be taken for a project", r.path, first)
		}
	}
}
