// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"cmp"
	"math"
	"net/url"
	"slices"
	"strings"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

const policyHypervisors = "os_compute_api:os-hypervisors:"

// hypervisorQuery is what a client asks of a list of hypervisors.
type hypervisorQuery struct {
	// pattern is what the names have in them; "" means all.
	pattern string
	// servers is set if the servers on each are asked for.
	servers bool
	detail  bool
	// limit is how many an answer has at most. paged is set if the rest is on a next page.
	limit  int
	marker string
	paged  bool
}

// everything is the limit of an answer without pages: a client that looks for one host in it,
// as fence agents do, has to find it.
const everything = math.MaxInt

// parseHypervisorQuery reads the query of a list of hypervisors.
func parseHypervisorQuery(values url.Values, v microversion) (*hypervisorQuery, error) {
	q := &hypervisorQuery{limit: everything}
	if v >= withHypervisorPages {
		q.limit, q.paged = maxPage, true
	}
	limited := false
	for _, name := range sortedKeys(values) {
		p := parameter{name, values[name]}
		switch {
		case name == "limit" && v >= withHypervisorPages:
			limit, err := parseLimit(p, p.last())
			if err != nil {
				return nil, err
			}
			q.limit, limited = limit, p.last() != ""
		case name == "marker" && v >= withHypervisorPages:
			q.marker = p.last()
		case name == "hypervisor_hostname_pattern" && v >= withServiceUUIDs:
			q.pattern = p.last()
		case name == "with_servers" && v >= withServiceUUIDs:
			yes, ok := parseBoolean(p.last())
			if !ok {
				return nil, p.invalid(p.last(), "'%s' is not a 'boolean'", p.last())
			}
			q.servers = yes
		case v >= withStrictQueries:
			return nil, badRequest("Additional properties are not allowed ('%s' was unexpected)", name)
		}
	}
	if q.pattern != "" {
		if limited {
			return nil, badRequest("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.")
		}
		q.limit, q.paged = everything, false
	}
	return q, nil
}

// listHypervisors serves GET /os-hypervisors.
func (c *call) listHypervisors() (*answer, error) { return c.hypervisors(false, "list") }

// listHypervisorsDetail serves GET /os-hypervisors/detail.
func (c *call) listHypervisorsDetail() (*answer, error) { return c.hypervisors(true, "list-detail") }

func (c *call) hypervisors(detail bool, policy string) (*answer, error) {
	q, err := parseHypervisorQuery(c.query, c.version)
	if err != nil {
		return nil, err
	}
	q.detail = detail
	return c.answerHypervisors(q, policy)
}

// searchHypervisors serves GET /os-hypervisors/PATTERN/search, until version 2.52.
func (c *call) searchHypervisors() (*answer, error) {
	if c.version >= withServiceUUIDs {
		return nil, noSuchResource()
	}
	return c.answerHypervisors(&hypervisorQuery{pattern: c.id, limit: everything}, "search")
}

// hypervisorServers serves GET /os-hypervisors/PATTERN/servers, until version 2.52.
func (c *call) hypervisorServers() (*answer, error) {
	if c.version >= withServiceUUIDs {
		return nil, noSuchResource()
	}
	return c.answerHypervisors(&hypervisorQuery{pattern: c.id, servers: true, limit: everything}, "servers")
}

func (c *call) answerHypervisors(q *hypervisorQuery, policy string) (*answer, error) {
	found, err := c.matchHypervisors(q)
	if err != nil {
		return nil, c.denial(err, policyHypervisors+policy)
	}
	if q.pattern != "" && len(found) == 0 {
		return nil, notFound("No hypervisor matching '%s' could be found.", q.pattern)
	}
	var servers map[string][]*placed
	if q.servers {
		if servers, err = c.serversOn(found); err != nil {
			return nil, c.denial(err, policyHypervisors+policy)
		}
	}
	e := &encoder{}
	e.begin("", '{')
	e.begin("hypervisors", '[')
	for _, s := range found {
		e.begin("", '{')
		s.hypervisor(e, c.version, q.detail)
		if on := servers[s.Name]; q.servers && (len(on) > 0 || c.version >= withStrictQueries) {
			encodePlaced(e, on)
		}
		e.end('}')
	}
	e.end(']')
	if q.paged && len(found) > 0 && len(found) == q.limit {
		e.begin("hypervisors_links", '[')
		e.begin("", '{')
		e.text("rel", "next")
		e.text("href", c.links.self()+"/"+c.resource+"?"+nextQuery(c.query, string(found[len(found)-1].UID)))
		e.end('}')
		e.end(']')
	}
	e.end('}')
	return ok(e.b), nil
}

// matchHypervisors returns the services that q asks for, by their names.
func (c *call) matchHypervisors(q *hypervisorQuery) ([]*service, error) {
	var found []*service
	after := q.marker == ""
	err := walk(c.ctx, c.kube, c.token, target{path: computeServices()}, c.passWarnings, func(s *service) error {
		switch {
		case !after:
			after = string(s.UID) == q.marker || s.Name == q.marker || s.hasID(q.marker, c.version)
		case q.limit > 0 && len(found) == q.limit:
			return errEnough
		case q.limit > 0 && strings.Contains(s.Name, q.pattern):
			s.ManagedFields, s.Annotations = nil, nil // There may be many, and these are most of each.
			found = append(found, s)
		}
		return nil
	})
	if err == nil && !after {
		err = badRequest("marker [%s] not found", q.marker)
	}
	return found, err
}

// fewHosts is how many hosts are asked for one by one for what is on them. From more on, all
// servers are looked through once.
const fewHosts = 4

// serversOn returns the servers on hosts, by the name of the host.
func (c *call) serversOn(hosts []*service) (map[string][]*placed, error) {
	on := make(map[string][]*placed, len(hosts))
	keep := func(p *placed) { on[p.Spec.Host] = append(on[p.Spec.Host], p) }
	if len(hosts) > fewHosts {
		names := make(map[string]bool, len(hosts))
		for _, s := range hosts {
			names[s.Name] = true
		}
		return on, walk(c.ctx, c.kube, c.token, target{path: computeServers("")}, nil, func(p *placed) error {
			if names[p.Spec.Host] {
				keep(p)
			}
			return nil
		})
	}
	for _, s := range hosts {
		query := url.Values{"fieldSelector": {computev1alpha1.ServerHostField + "=" + s.Name}}
		err := walk(c.ctx, c.kube, c.token, target{path: computeServers(""), query: query}, nil, func(p *placed) error {
			keep(p)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return on, nil
}

func encodePlaced(e *encoder, servers []*placed) {
	slices.SortFunc(servers, func(a, b *placed) int {
		return cmp.Or(cmp.Compare(a.Metadata.Name, b.Metadata.Name), cmp.Compare(a.Metadata.UID, b.Metadata.UID))
	})
	e.begin("servers", '[')
	for _, p := range servers {
		e.begin("", '{')
		e.text("name", p.Metadata.Name)
		e.text("uuid", p.Metadata.UID)
		e.end('}')
	}
	e.end(']')
}

// showHypervisor serves GET /os-hypervisors/ID.
func (c *call) showHypervisor() (*answer, error) {
	id := c.id
	missing := notFound("Compute host %s could not be found.", id)
	if c.version >= withServiceUUIDs && !isUID(id) {
		return nil, badRequest("Invalid uuid %s", id)
	}
	var found *service
	err := walk(c.ctx, c.kube, c.token, target{path: computeServices()}, c.passWarnings, func(s *service) error {
		if s.hasID(id, c.version) {
			found = s
			return errEnough
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, c.denial(err, policyHypervisors+"show")
	case found == nil:
		return nil, missing
	}
	e := &encoder{}
	e.begin("", '{')
	e.begin("hypervisor", '{')
	found.hypervisor(e, c.version, true)
	e.end('}')
	e.end('}')
	return ok(e.b), nil
}

// hypervisor appends the fields of a service as those of a hypervisor. Of its sizes nothing
// is known here.
func (s *service) hypervisor(e *encoder, v microversion, detail bool) {
	s.id(e, v)
	e.text("hypervisor_hostname", s.Name)
	e.text("state", s.state())
	e.text("status", s.status())
	if !detail {
		return
	}
	e.text("host_ip", "")
	e.text("hypervisor_type", "unknown")
	e.number("hypervisor_version", 0)
	e.begin("service", '{')
	s.id(e, v)
	e.text("host", s.Name)
	_, reason := s.disabled()
	e.textOrNull("disabled_reason", reason)
	e.end('}')
	if v >= withoutHypervisorSizes {
		e.null("uptime")
		return
	}
	if v >= withCPUInfoObject {
		e.begin("cpu_info", '{')
		e.end('}')
	} else {
		e.text("cpu_info", "")
	}
	for _, size := range []string{
		"current_workload", "disk_available_least", "free_disk_gb", "free_ram_mb", "local_gb", "local_gb_used",
		"memory_mb", "memory_mb_used", "running_vms", "vcpus", "vcpus_used",
	} {
		e.number(size, 0)
	}
}
