// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/sets"
)

// route is one operation of the compute API, on a path within a project. Its name is the
// path, as metrics have it.
type route struct {
	method, path string
	serve        func(*call) (*answer, error)
}

// routes are what is served below a version. {id} stands for any element of a path.
var routes = []route{
	{http.MethodGet, "servers", (*call).listBrief},
	{http.MethodGet, "servers/detail", (*call).listDetail},
	{http.MethodGet, "servers/{id}", (*call).show},
	{http.MethodGet, "servers/{id}/ips", (*call).addresses},
	{http.MethodPost, "servers", refuse("Creating a server")},
	{http.MethodPut, "servers/{id}", refuse("Changing a server")},
	{http.MethodDelete, "servers/{id}", refuse("Deleting a server")},
	{http.MethodPost, "servers/{id}/action", (*call).act},

	{http.MethodGet, "os-services", (*call).listServices},
	{http.MethodPut, "os-services/{id}", (*call).updateService},
	{http.MethodDelete, "os-services/{id}", (*call).deleteService},

	{http.MethodGet, "os-hypervisors", (*call).listHypervisors},
	{http.MethodGet, "os-hypervisors/detail", (*call).listHypervisorsDetail},
	{http.MethodGet, "os-hypervisors/{id}", (*call).showHypervisor},
	{http.MethodGet, "os-hypervisors/{id}/search", (*call).searchHypervisors},
	{http.MethodGet, "os-hypervisors/{id}/servers", (*call).hypervisorServers},

	{http.MethodGet, "flavors", empty(`{"flavors":[]}`)},
	{http.MethodGet, "flavors/detail", empty(`{"flavors":[]}`)},
	{http.MethodGet, "flavors/{id}", (*call).noFlavor},
	{http.MethodGet, "images", (*call).noImages},
	{http.MethodGet, "images/detail", (*call).noImages},
	{http.MethodGet, "images/{id}", (*call).noImages},
	{http.MethodGet, "limits", empty(`{"limits":{"rate":[],"absolute":{}}}`)},
	{http.MethodGet, "extensions", empty(`{"extensions":[]}`)},
	{http.MethodGet, "os-availability-zone", empty(`{"availabilityZoneInfo":[]}`)},
	{http.MethodGet, "os-availability-zone/detail", empty(`{"availabilityZoneInfo":[]}`)},
	// A client that authenticates by its token alone looks projects up here, as if this were the
	// identity API, and takes the name itself where it may not.
	{http.MethodGet, "projects", refuse("Looking up a project")},
	{http.MethodGet, "projects/{id}", refuse("Looking up a project")},
	{http.MethodGet, "os-server-groups", empty(`{"server_groups":[]}`)},
}

// words are the first elements of paths of the compute API: they are no projects, also where
// nothing is served of them.
var words = sets.New(
	"extensions", "flavors", "images", "limits", "servers", "os-agents", "os-aggregates", "os-assisted-volume-snapshots", "os-availability-zone",
	"os-baremetal-nodes", "os-cells", "os-certificates", "os-cloudpipe", "os-console-auth-tokens", "os-fixed-ips", "os-floating-ip-dns", "os-floating-ip-pools",
	"os-floating-ips", "os-floating-ips-bulk", "os-fping", "os-hosts", "os-hypervisors", "os-instance_usage_audit_log", "os-keypairs", "os-migrations",
	"os-networks", "os-quota-class-sets", "os-quota-sets", "os-security-group-default-rules", "os-security-group-rules", "os-security-groups",
	"os-server-external-events", "os-server-groups", "os-services", "os-simple-tenant-usage", "os-snapshots", "os-tenant-networks", "os-virtual-interfaces",
	"os-volume_attachments", "os-volumes", "os-volumes_boot", "projects",
)

// place is what a path names.
type place struct {
	version apiVersion
	// project is the one in the path, "" if there is none.
	project string
	// rest are the elements after the version and the project.
	rest []string
}

// elements returns the elements of a path. ok is false if it has one that could be read as
// several, as another one or as none: an encoded slash, a dot, two slashes. A slash at the
// end is an empty last element.
func elements(u *url.URL) (elements []string, ok bool) {
	path, rooted := strings.CutPrefix(u.EscapedPath(), "/")
	if !rooted {
		return nil, false
	}
	elements = strings.Split(path, "/")
	for i, escaped := range elements {
		element, err := url.PathUnescape(escaped)
		switch {
		case err != nil, element == ".", element == "..", element == "" && i < len(elements)-1:
			return nil, false
		case strings.ContainsFunc(element, func(r rune) bool {
			return r == '/' || r == '\\' || unicode.IsControl(r) || r == unicode.ReplacementChar
		}):
			return nil, false
		}
		elements[i] = element
	}
	return elements, true
}

// locate reads the elements of a path of the compute API.
func locate(elements []string) (p place, ok bool) {
	switch elements[0] {
	case v21.element:
		p.version = v21
	case v2.element:
		p.version = v2
	default:
		return p, false
	}
	rest := elements[1:]
	if len(rest) > 0 && rest[0] != "" && !words.Has(rest[0]) {
		if !isProject(rest[0]) {
			return p, false
		}
		p.project, rest = rest[0], rest[1:]
	}
	if len(rest) == 1 && rest[0] == "" {
		rest = nil // The slash after a version or a project.
	}
	p.rest = rest
	return p, true
}

// find returns the route of a request, and what stands for {id}.
func find(method string, path []string) (r route, id string, ok bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, r := range routes {
		if r.method != method {
			continue
		}
		if id, ok := r.match(path); ok {
			return r, id, true
		}
	}
	return route{}, "", false
}

func (r route) match(path []string) (id string, ok bool) {
	pattern := strings.Split(r.path, "/")
	if len(pattern) != len(path) || slices.Contains(path, "") {
		return "", false
	}
	for i, element := range pattern {
		switch element {
		case "{id}":
			id = path[i]
		case path[i]:
		default:
			return "", false
		}
	}
	return id, true
}

// known reports whether a path has a route of any method.
func known(path []string) bool {
	return slices.ContainsFunc(routes, func(r route) bool {
		_, ok := r.match(path)
		return ok
	})
}
