// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"cmp"
	"container/heap"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// entry is a server of a list, and where it is.
type entry struct {
	*server
	where placement
}

// compare compares two servers by an order.
func compare(order []sortKey, a, b entry) int {
	for _, key := range order {
		c := cmp.Compare(key.of(a), key.of(b))
		if key.name == sortPower {
			c = cmp.Compare(powerStates[a.Status.PowerState], powerStates[b.Status.PowerState])
		}
		if key.descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func (k sortKey) of(e entry) string {
	switch k.name {
	case sortCreated:
		return e.Metadata.Created
	case sortName:
		return e.Metadata.Name
	case sortState:
		return states[e.Status.State]
	case sortProject:
		return e.Metadata.Namespace
	case sortHost:
		return e.where.host
	case sortUID:
		return e.Metadata.UID
	}
	return ""
}

// pager keeps the servers of one page while it is shown all of them, in any order. It never
// holds more than a page.
type pager struct {
	order []sortKey
	limit int
	// after is the last server of the page before, nil for the first page.
	after *entry
	// kept is a heap with the last of the page on top.
	kept []entry
}

// Len implements heap.Interface.
func (p *pager) Len() int { return len(p.kept) }

// Less implements heap.Interface.
func (p *pager) Less(i, j int) bool { return compare(p.order, p.kept[i], p.kept[j]) > 0 }

// Swap implements heap.Interface.
func (p *pager) Swap(i, j int) { p.kept[i], p.kept[j] = p.kept[j], p.kept[i] }

// Push implements heap.Interface.
func (p *pager) Push(e any) { p.kept = append(p.kept, e.(entry)) }

// Pop implements heap.Interface.
func (p *pager) Pop() any {
	last := p.kept[len(p.kept)-1]
	p.kept = p.kept[:len(p.kept)-1]
	return last
}

// offer keeps a server if it is of the page, as far as is known.
func (p *pager) offer(e entry) {
	switch {
	case p.limit == 0 || p.after != nil && compare(p.order, e, *p.after) <= 0:
	case len(p.kept) < p.limit:
		heap.Push(p, e)
	case compare(p.order, e, p.kept[0]) < 0:
		p.kept[0] = e
		heap.Fix(p, 0)
	}
}

// page returns the servers of the page in order.
func (p *pager) page() []entry {
	slices.SortFunc(p.kept, func(a, b entry) int { return compare(p.order, a, b) })
	return p.kept
}

// nextQuery returns the query of the page after the one that ends with marker: that of this
// page, sorted, and the marker.
func nextQuery(query url.Values, marker string) string {
	var out strings.Builder
	add := func(name, value string) {
		if out.Len() > 0 {
			out.WriteByte('&')
		}
		out.WriteString(url.QueryEscape(name) + "=" + url.QueryEscape(value))
	}
	for _, name := range sortedKeys(query) {
		values := query[name]
		switch name {
		case "marker":
			continue
		case "limit": // Only the last one counts.
			values = values[len(values)-1:]
		}
		for _, value := range values {
			add(name, value)
		}
	}
	add("marker", marker)
	return out.String()
}

func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}
