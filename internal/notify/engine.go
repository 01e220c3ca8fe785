// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"container/heap"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// maxNamed is how many servers of a group a message names; it has the number of all.
const maxNamed = 100

// route is what one sink is told.
type route struct {
	name       string
	namespaces map[string]bool // nil: all
	selector   labels.Selector
	// statuses are those that matter, nil for all.
	statuses map[v1alpha1.HostStatus]bool
	min      time.Duration
	group    bool
	severity string
	// outbox is that of the sink.
	outbox outbox

	subjects map[string]*subject
}

// outbox takes what a sink is to be told.
type outbox interface {
	// want sets what the sink is to know of a subject.
	want(key slotKey, s *state)
	// hide takes it back: host status is not shown any more.
	hide(key slotKey)
	// forget is hide, for a subject that is gone.
	forget(key slotKey)
}

// slotKey names a server or a group within a route.
type slotKey struct{ route, subject string }

func newRoute(c *RouteConfig, to outbox) (*route, error) {
	selector, err := labels.Parse(c.Selector)
	if err != nil {
		return nil, err
	}
	r := &route{name: c.Name, selector: selector, min: c.min(), group: c.GroupByHost, severity: c.Severity, outbox: to, subjects: map[string]*subject{}}
	if len(c.Namespaces) > 0 {
		r.namespaces = map[string]bool{}
		for _, namespace := range c.Namespaces {
			r.namespaces[namespace] = true
		}
	}
	if len(c.HostStatuses) > 0 {
		r.statuses = map[v1alpha1.HostStatus]bool{}
		for _, status := range c.HostStatuses {
			r.statuses[status] = true
		}
	}
	return r, nil
}

// matters reports whether the route is about a host status; nil is none that is known.
func (r *route) matters(s *v1alpha1.HostStatus) bool {
	return r.statuses == nil || s != nil && r.statuses[*s]
}

// about returns the key of the subject to which a server belongs, "" if the route is not
// about it. A server on no host is in no group.
func (r *route) about(s *sighting) string {
	switch {
	case s == nil, r.namespaces != nil && !r.namespaces[s.Namespace], !r.selector.Matches(s.labels):
		return ""
	case !r.group:
		return serverSubject(s.Namespace, s.Name)
	case s.hostID == "":
		return ""
	default:
		return groupSubject(s.Namespace, s.hostID)
	}
}

func serverSubject(namespace, name string) string  { return namespace + "/" + name }
func groupSubject(namespace, hostID string) string { return namespace + "#" + hostID }

// subject is a server, or the servers of a namespace on one host, in one route.
type subject struct {
	engine  *engine
	route   *route
	key     string
	members map[types.NamespacedName]*sighting
	// newest is the newest resourceVersion that a member has had.
	newest string
	// shown is set while host status is, and wasHidden if it once was not.
	shown, wasHidden bool
	// hiddenAt is when it was shown last.
	hiddenAt time.Time
	// initial is set if it was found so: at the start, or when its labels came to match.
	initial bool
	// now is the host status, and since is from when on.
	now   string
	since time.Time
	// handed is what the outbox was given last, nil if nothing, and held is set while it has that:
	// it is taken back when host status is not shown any more.
	handed *state
	held   bool
	// found is set while the host status is the one with which it began to be shown, and the
	// outbox does not have it yet.
	found bool
	// due is when the host status has lasted long enough; index is its place among the timers,
	// -1 for none.
	due   time.Time
	index int
}

// engine turns what is seen of servers into what each sink is to be told. It reads no clock
// and does no I/O, and is not for concurrent use.
type engine struct {
	routes  []*route
	servers map[types.NamespacedName]*sighting
	timers  timers
	// newest is the newest resourceVersion that was seen.
	newest string
	// inDoubt is called for a server of which leftUnknown came before that counts.
	inDoubt func(types.NamespacedName)
}

func newEngine(routes []*route) *engine {
	return &engine{routes: routes, servers: map[types.NamespacedName]*sighting{}}
}

// advance takes in that what is seen is of a resourceVersion, or newer.
func (e *engine) advance(version string) {
	e.newest = newest(e.newest, version)
}

// see takes in a server as it is at a time. initial is set for those that are there when the
// notifier starts.
func (e *engine) see(s *sighting, at time.Time, initial bool) {
	e.advance(s.version)
	before := e.servers[s.NamespacedName]
	if before != nil && before.uid != s.uid {
		// Another server has taken its name.
		e.gone(s.NamespacedName, at)
		before = nil
	}
	e.servers[s.NamespacedName] = s
	for _, r := range e.routes {
		was, is := r.about(before), r.about(s)
		if was != is {
			e.leave(r, was, s.NamespacedName, at, endLeft)
		}
		if is == "" {
			continue
		}
		sub := r.subjects[is]
		if sub == nil {
			// By its labels it may have been in the route before, and sinks are not told when it leaves.
			enters := before != nil && !r.selector.Matches(before.labels)
			sub = &subject{engine: e, route: r, key: is, members: map[types.NamespacedName]*sighting{}, index: -1, initial: initial || enters}
			r.subjects[is] = sub
		}
		sub.members[s.NamespacedName] = s
		sub.newest = newest(sub.newest, s.version)
		e.evaluate(sub, at)
	}
}

// gone takes in that a server is deleted.
func (e *engine) gone(name types.NamespacedName, at time.Time) {
	before := e.servers[name]
	if before == nil {
		return
	}
	delete(e.servers, name)
	for _, r := range e.routes {
		e.leave(r, r.about(before), name, at, endDeleted)
	}
}

// hide takes in that nothing may be seen any more, of a namespace or, with "", of all. What is
// known is forgotten; nothing is said of it.
func (e *engine) hide(namespace string) {
	for name := range e.servers {
		if namespace != "" && name.Namespace != namespace {
			continue
		}
		before := e.servers[name]
		delete(e.servers, name)
		for _, r := range e.routes {
			key := r.about(before)
			sub := r.subjects[key]
			if sub == nil {
				continue
			}
			delete(sub.members, name)
			if len(sub.members) == 0 {
				e.unschedule(sub)
				delete(r.subjects, key)
				r.outbox.hide(slotKey{r.name, key})
			}
		}
	}
}

// leftUnknown takes in that a server whose host status is not shown is not UNKNOWN any more.
func (e *engine) leftUnknown(name types.NamespacedName, at time.Time) {
	s := e.servers[name]
	if s == nil || s.host != nil {
		return
	}
	for _, r := range e.routes {
		sub := r.subjects[r.about(s)]
		if sub == nil || sub.shown {
			continue
		}
		if due := sub.hiddenAt.Add(r.min); at.Before(due) {
			e.schedule(sub, due)
			continue
		}
		said := sub.describe(s, at)
		said.host, said.end, said.facts = nil, endNoLongerUnknown, string(endNoLongerUnknown)
		sub.hand(said)
	}
}

// leave takes a server out of a subject.
func (e *engine) leave(r *route, key string, name types.NamespacedName, at time.Time, why end) {
	sub := r.subjects[key]
	if sub == nil {
		return
	}
	last := sub.members[name]
	delete(sub.members, name)
	if len(sub.members) > 0 {
		e.evaluate(sub, at)
		return
	}
	e.unschedule(sub)
	delete(r.subjects, key)
	switch {
	case sub.handed == nil && !sub.initial:
		// It was too short for anybody to hear of it.
	case !sub.shown:
		// Whoever may not see host status learns nothing by an end either.
		r.outbox.forget(slotKey{r.name, key})
	default:
		if r.group {
			why = endDeleted // Of a group without servers nothing is left.
		}
		said := sub.describe(last, at)
		said.host, said.end, said.facts = nil, why, string(why)
		r.outbox.want(slotKey{r.name, key}, said)
	}
}

// next returns when tick is to be called, if it is.
func (e *engine) next() (at time.Time, ok bool) {
	if len(e.timers) == 0 {
		return time.Time{}, false
	}
	return e.timers[0].due, true
}

// tick hands out what has lasted long enough.
func (e *engine) tick(at time.Time) {
	for len(e.timers) > 0 && !e.timers[0].due.After(at) {
		sub := e.timers[0]
		e.unschedule(sub)
		if sub.shown {
			e.evaluate(sub, at)
			continue
		}
		for name := range sub.members {
			e.inDoubt(name) // The right may have gone meanwhile.
		}
	}
}

// evaluate decides whether there is something to say of a subject that has servers.
func (e *engine) evaluate(sub *subject, at time.Time) {
	typical := sub.typical()
	if typical == nil {
		if sub.shown { // If it never was, what the outbox may have is the end of another server.
			e.unschedule(sub)
			sub.route.outbox.hide(slotKey{sub.route.name, sub.key})
			sub.held, sub.hiddenAt = false, at
		}
		sub.shown, sub.wasHidden = false, true
		return
	}
	status := hoststatus.Label(typical.host.HostStatus)
	switch {
	case !sub.shown:
		// How long it has been so is known by its own time alone.
		sub.now, sub.since, sub.found = status, at, true
		if t := typical.host.HostStatusTransitionTime; t != nil && t.Time.Before(at) {
			sub.since = t.Time
		}
	case status != sub.now:
		sub.now, sub.since, sub.found = status, at, false
	}
	sub.shown = true
	settled := sub.held && sub.handed.end == "" && hoststatus.Label(sub.handed.status()) == status
	if !settled && at.Sub(sub.since) < sub.route.min {
		if sub.held && sub.handed.end == "" && sub.hides(hoststatus.Label(sub.handed.status())) {
			sub.route.outbox.hide(slotKey{sub.route.name, sub.key})
			sub.held = false
		}
		e.schedule(sub, sub.since.Add(sub.route.min))
		return
	}
	e.unschedule(sub)
	facts := factsOf(typical.host, sub.route.group)
	same := sub.held && sub.handed.facts == facts
	if same && !sub.route.group {
		return
	}
	said := sub.describe(typical, at)
	said.facts = facts
	if same && said.count == sub.handed.count && slices.Equal(said.servers, sub.handed.servers) {
		return
	}
	// Who may see only UNKNOWN is shown a change by it. Any other status that appears was there
	// before the right to see it, unless the server is new: then there was none.
	unknown := typical.host.HostStatus != nil && *typical.host.HostStatus == v1alpha1.HostStatusUnknown
	switch {
	case same:
		said.first = sub.handed.first
	case sub.wasHidden:
		said.first = sub.found && !unknown && (sub.initial || sub.handed != nil)
	default:
		said.first = sub.initial && sub.handed == nil
	}
	sub.hand(said)
}

// hand gives the outbox what there is to say.
func (sub *subject) hand(said *state) {
	sub.handed, sub.held, sub.found = said, true, false
	sub.route.outbox.want(slotKey{sub.route.name, sub.key}, said)
}

// hides reports whether a host status is shown of no server any more, and some are not shown.
func (sub *subject) hides(status string) (hides bool) {
	for _, s := range sub.members {
		if s.host != nil && hoststatus.Label(s.host.HostStatus) == status {
			return false
		}
		hides = hides || s.host == nil
	}
	return hides
}

// typical is the server by which a subject is judged, nil if none shows its host status. In a
// group that is the newest of those with the status that most have: a server that has just
// arrived still has that of the host where it was. While two are as frequent, the one that
// the group has stays.
func (sub *subject) typical() *sighting {
	votes := map[string]int{}
	for _, s := range sub.members {
		if s.host != nil {
			votes[hoststatus.Label(s.host.HostStatus)]++
		}
	}
	var best *sighting
	better := func(s, than *sighting) bool {
		a, b := hoststatus.Label(s.host.HostStatus), hoststatus.Label(than.host.HostStatus)
		switch {
		case a == b && s.version == than.version:
			return s.Name < than.Name
		case a == b:
			return newer(s.version, than.version)
		case votes[a] != votes[b]:
			return votes[a] > votes[b]
		case sub.shown && (a == sub.now) != (b == sub.now):
			return a == sub.now
		case s.version != than.version:
			return newer(s.version, than.version)
		}
		return s.Name < than.Name
	}
	for _, s := range sub.members {
		if s.host != nil && (best == nil || better(s, best)) {
			best = s
		}
	}
	return best
}

// describe is what there is to say of a subject, by one of its servers.
func (sub *subject) describe(s *sighting, at time.Time) *state {
	said := &state{route: sub.route, namespace: s.Namespace, version: s.version, newest: sub.newest, sequence: s.version, hostID: s.hostID, host: s.host, initial: sub.initial, at: at}
	if !sub.route.group {
		said.server, said.uid = s.Name, s.uid
		return said
	}
	said.sequence = sub.engine.newest
	for name, member := range sub.members {
		if member.host != nil {
			said.servers = append(said.servers, name.Name)
		}
	}
	if s.host != nil {
		// What differs between servers of one host is of none of them.
		said.host = s.host.DeepCopy()
		said.host.HostHistory = nil
		if w := said.host.MaintenanceWindow; w != nil {
			w.Answer = ""
		}
	}
	slices.Sort(said.servers)
	said.count = len(said.servers)
	said.servers = slices.Clip(said.servers[:min(maxNamed, said.count)])
	return said
}

func (e *engine) schedule(sub *subject, due time.Time) {
	sub.due = due
	if sub.index >= 0 {
		heap.Fix(&e.timers, sub.index)
		return
	}
	heap.Push(&e.timers, sub)
}

func (e *engine) unschedule(sub *subject) {
	if sub.index >= 0 {
		heap.Remove(&e.timers, sub.index)
	}
}

// timers is a heap of subjects, by when they are due.
type timers []*subject

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	sub := x.(*subject)
	sub.index = len(*t)
	*t = append(*t, sub)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = nil
	*t = (*t)[:len(*t)-1]
	last.index = -1
	return last
}
