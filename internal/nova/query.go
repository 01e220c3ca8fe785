// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"fmt"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// maxPage is how many servers an answer has at most.
	maxPage = 1000
	// maxValues is how many values a filter may have, and maxPatterns how many of them if they
	// are regular expressions: each server is compared with all.
	maxValues   = 64
	maxPatterns = 8
	// maxPattern is how long a regular expression may be, and maxPatternSize how large with its
	// repetitions written out, as they are to be matched: a few bytes can stand for megabytes.
	maxPattern, maxPatternSize = 1024, 1024
)

// listQuery is what a client asks of a list of servers. A filter that cannot be honoured is
// refused and never left out: a tool that evacuates what it is shown must not be shown more
// than it asked for.
type listQuery struct {
	limit  int
	marker string
	order  []sortKey

	allTenants bool
	// project is the one that is asked for, beside that of the URL.
	project string
	// host is the only host to show the servers of, "" for all.
	host string
	// uid is that of the only server to show.
	uid string
	// hostStatus is the only host status to show the servers of.
	hostStatus string
	// deleted is set if deleted servers are asked for, which only administrators may.
	deleted bool
	// nothing is set if nothing can match.
	nothing bool
	match   match
}

// match are the filters that are applied to what the owners' view shows.
type match struct {
	states                            []string
	vmStates, taskStates, powerStates []string
	names, addresses4, addresses6     []*regexp.Regexp
}

// sortKey is a field by which a list is sorted.
type sortKey struct {
	name       string
	descending bool
}

// The fields by which servers can be sorted.
const (
	sortCreated = "created_at"
	sortName    = "display_name"
	sortUID     = "uuid"
	sortState   = "vm_state"
	sortPower   = "power_state"
	sortProject = "project_id"
	sortHost    = "host"
)

var sortKeys = []string{sortCreated, sortName, sortUID, sortState, sortPower, sortProject, sortHost}

// unsupportedFilters are filters of the compute API for which there is no source here.
var unsupportedFilters = sets.New(
	"access_ip_v4", "access_ip_v6", "accessIPv4", "accessIPv6", "architecture", "auto_disk_config", "availability_zone", "block_device_mapping", "cell_name",
	"changes-before", "changes-since", "changes_since", "config_drive", "created_at", "default_ephemeral_device", "default_swap_device", "description",
	"disable_terminate", "display_description", "ephemeral_gb", "ephemeral_key_uuid", "evacuated", "fault", "flavor", "hidden", "hostname", "image", "image_ref", "info_cache",
	"instance_name", "instance_type_id", "internal_id", "kernel_id", "key_data", "key_name", "launch_index", "launched_at", "launched_on", "locked", "locked_by",
	"memory_mb", "metadata", "migration_context", "node", "not-tags", "not-tags-any", "numa_topology", "pci_devices", "pci_requests", "progress", "ramdisk_id",
	"reservation_id", "root_device_name", "root_gb", "security_groups", "services", "shutdown_terminate", "soft_deleted", "system_metadata", "tags", "tags-any",
	"task", "terminated_at", "updated_at", "user_data", "user_id", "vcpu_model", "vcpus", "vm_mode",
)

// parameter is the name of one and its values, of which there is at least one.
type parameter struct {
	name   string
	values []string
}

func (p parameter) last() string { return p.values[len(p.values)-1] }

// invalid is the answer to a value that cannot be.
func (p parameter) invalid(value, format string, args ...any) *fault {
	return badRequest("Invalid input for query parameters %s. Value: %s. %s", p.name, value, fmt.Sprintf(format, args...))
}

// parseListQuery reads the query of a list of servers, as version v does.
func parseListQuery(values url.Values, v microversion) (*listQuery, error) {
	q := &listQuery{limit: maxPage}
	for _, name := range sortedKeys(values) {
		if err := q.take(parameter{name, values[name]}, v); err != nil {
			return nil, err
		}
	}
	var err error
	q.order, err = parseOrder(values["sort_key"], values["sort_dir"])
	return q, err
}

func (q *listQuery) take(p parameter, v microversion) error {
	if len(p.values) > maxValues {
		return badRequest("Invalid input for query parameters %s. It has %d values, and can have %d.", p.name, len(p.values), maxValues)
	}
	switch p.name {
	case "sort_key", "sort_dir":
		return nil
	case "limit", "marker", "all_tenants", "tenant_id", "project_id":
		return q.takeScope(p)
	case "host", "uuid", "host_status", "deleted":
		return q.takeSelector(p, v)
	case "status", "vm_state", "task_state", "power_state":
		return q.takeState(p, v)
	case "name", "display_name", "ip", "ip6":
		return q.takePattern(p)
	}
	switch {
	case strings.HasPrefix(p.name, "_"):
		return p.invalid(p.last(), "Filters that begin with '_' are not allowed")
	case unsupportedFilters.Has(p.name):
		return badRequest("Invalid filter field: %s. Servers cannot be filtered by it here; list without it, and select from the answer.", p.name)
	case v >= withStrictQueries:
		return unknownParameter(p.name)
	}
	return nil
}

func unknownParameter(name string) *fault {
	return badRequest("'%s' does not match any of the regexes: '^_'", name)
}

// takeScope reads how many servers of which projects are asked for.
func (q *listQuery) takeScope(p parameter) error {
	value := p.last()
	switch p.name {
	case "limit":
		for _, value := range p.values {
			limit, err := parseLimit(p, value)
			if err != nil {
				return err
			}
			q.limit = limit
		}
	case "marker":
		q.marker = value
	case "all_tenants":
		yes, ok := parseBoolean(value)
		if !ok && value != "" {
			return badRequest("Unrecognized value '%s' for all_tenants, acceptable values are: '0', 'f', 'false', 'n', 'no', 'off', 'on', '1', 't', 'true', 'y', 'yes'", value)
		}
		q.allTenants = yes || value == ""
	default:
		if !isProject(value) || q.project != "" && q.project != value {
			q.nothing = true // No namespace can have this name, or both.
			return nil
		}
		q.project = value
	}
	return nil
}

func parseLimit(p parameter, value string) (int, error) {
	if strings.Trim(value, "0123456789") != "" {
		return 0, p.invalid(value, "'%s' does not match '^[0-9]*$'", value)
	}
	if value == "" {
		return maxPage, nil
	}
	limit, err := strconv.Atoi(value)
	if err != nil {
		return maxPage, nil // It is larger than any number.
	}
	return min(limit, maxPage), nil
}

// takeSelector reads the filters that kube-apiserver is asked by.
func (q *listQuery) takeSelector(p parameter, v microversion) error {
	value := p.last()
	if len(p.values) > 1 {
		return badRequest("Invalid input for query parameters %s. It can be given once.", p.name)
	}
	switch p.name {
	case "host":
		q.host = value
		q.nothing = q.nothing || value == "" || len(validation.IsDNS1123Subdomain(value)) > 0
	case "uuid":
		q.uid = strings.ToLower(value)
		q.nothing = q.nothing || !isUID(value)
	case "host_status":
		if v >= withStrictQueries {
			return unknownParameter(p.name)
		}
		q.hostStatus = strings.ToUpper(value)
		if !slices.Contains(hostStatuses, q.hostStatus) {
			return p.invalid(value, "'%s' is not one of %s", value, strings.Join(hostStatuses, ", "))
		}
	case "deleted":
		yes, ok := parseBoolean(value)
		if !ok {
			return p.invalid(value, "'%s' is not a 'boolean'", value)
		}
		if yes {
			return badRequest("Invalid filter field: deleted. Servers that are deleted are not known here.")
		}
	}
	return nil
}

// hostStatuses are those that servers can be selected by.
var hostStatuses = []string{"UP", "DOWN", "UNKNOWN", "MAINTENANCE", "NEEDS_MAINTENANCE"}

func (q *listQuery) takeState(p parameter, v microversion) error {
	switch p.name {
	case "vm_state":
		q.match.vmStates = p.values
	case "task_state":
		q.match.taskStates = p.values
	case "power_state":
		q.match.powerStates = p.values
	default:
		for _, value := range p.values {
			if state := strings.ToUpper(value); states[state] != "" {
				q.match.states = append(q.match.states, state)
				q.deleted = q.deleted || state == stateDeleted
			}
		}
		if len(q.match.states) == 0 {
			if v >= withStrictStatus {
				return badRequest("Invalid status value")
			}
			q.nothing = true
		}
	}
	return nil
}

func (q *listQuery) takePattern(p parameter) error {
	if len(p.values) > maxPatterns {
		return badRequest("Invalid input for query parameters %s. It has %d values, and can have %d.", p.name, len(p.values), maxPatterns)
	}
	var patterns []*regexp.Regexp
	for _, value := range p.values {
		if len(value) > maxPattern {
			return badRequest("Invalid input for query parameters %s. It is longer than %d bytes.", p.name, maxPattern)
		}
		parsed, err := syntax.Parse("(?i)"+value, syntax.Perl)
		if err == nil && patternSize(parsed) > maxPatternSize {
			return badRequest("Invalid input for query parameters %s. Its repetitions and classes make it too large; write a shorter pattern, and select from the answer.", p.name)
		}
		pattern, compileErr := regexp.Compile("(?i)" + value)
		if err != nil || compileErr != nil {
			return p.invalid(value, "'%s' is not a 'regex'", value)
		}
		patterns = append(patterns, pattern)
	}
	switch p.name {
	case "ip":
		q.match.addresses4 = patterns
	case "ip6":
		q.match.addresses6 = patterns
	default:
		q.match.names = append(q.match.names, patterns...)
	}
	return nil
}

// patternSize is about how large a pattern is with its repetitions written out.
func patternSize(re *syntax.Regexp) int {
	size := 1 + len(re.Rune)
	for _, part := range re.Sub {
		size += patternSize(part)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(re.Min, re.Max, 1)
	}
	return size
}

// matches reports whether a server is one of those that are asked for.
func (m *match) matches(s *server) bool {
	in := func(list []string, value string) bool { return list == nil || slices.Contains(list, value) }
	return in(m.states, s.Status.State) &&
		in(m.vmStates, states[s.Status.State]) &&
		in(m.taskStates, s.Status.TaskState) &&
		(m.powerStates == nil || slices.Contains(m.powerStates, strconv.FormatInt(powerStates[s.Status.PowerState], 10))) &&
		all(m.names, func(p *regexp.Regexp) bool { return p.MatchString(s.Metadata.Name) }) &&
		all(m.addresses4, func(p *regexp.Regexp) bool { return s.hasAddress(p, false) }) &&
		all(m.addresses6, func(p *regexp.Regexp) bool { return s.hasAddress(p, true) })
}

func all(patterns []*regexp.Regexp, holds func(*regexp.Regexp) bool) bool {
	return !slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return !holds(p) })
}

func (s *server) hasAddress(pattern *regexp.Regexp, six bool) bool {
	for _, network := range s.Status.Networks {
		if slices.ContainsFunc(network.Addresses, func(a string) bool { return isIPv6(a) == six && pattern.MatchString(a) }) {
			return true
		}
	}
	return false
}

// parseOrder reads how to sort. A key without a direction has that of the first one. What
// is equal is sorted by id, so that pages are stable.
func parseOrder(keys, directions []string) ([]sortKey, error) {
	for _, direction := range directions {
		if direction != "asc" && direction != "desc" {
			return nil, badRequest("Invalid input received: Unknown sort direction, must be 'desc' or 'asc'")
		}
	}
	if len(keys) == 0 {
		keys = []string{sortCreated}
	}
	if len(directions) > len(keys) {
		return nil, badRequest("Invalid input received: Sort direction size exceeds sort key size")
	}
	if len(directions) == 0 {
		directions = []string{"desc"}
	}
	var order []sortKey
	for i, key := range keys {
		if !slices.Contains(sortKeys, key) {
			return nil, parameter{"sort_key", keys}.invalid(key, "'%s' is not one of %s", key, strings.Join(sortKeys, ", "))
		}
		if slices.ContainsFunc(order, func(k sortKey) bool { return k.name == key }) {
			continue // It decides nothing more.
		}
		direction := directions[0]
		if i < len(directions) {
			direction = directions[i]
		}
		order = append(order, sortKey{key, direction == "desc"})
	}
	return append(order, sortKey{name: sortUID}), nil
}

// byHost reports whether the order needs to know where servers are.
func (q *listQuery) byHost() bool {
	return slices.ContainsFunc(q.order, func(k sortKey) bool { return k.name == sortHost })
}

// parseBoolean reads the words that the compute API takes.
func parseBoolean(text string) (value, ok bool) {
	switch strings.ToLower(text) {
	case "1", "t", "true", "on", "y", "yes":
		return true, true
	case "0", "f", "false", "off", "n", "no":
		return false, true
	}
	return false, false
}

var uidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// isUID reports whether a text can be the id of a server or of a service.
func isUID(text string) bool { return uidPattern.MatchString(text) }
