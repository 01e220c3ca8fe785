// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"strconv"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// EventType is the type of every event.
const EventType = "dev.hoststatus.server.hoststatus.changed.v1"

// The extension attributes of events, by which brokers can filter.
const (
	extensionCause  = "hoststatuscause"
	extensionStatus = "hoststatus"
	// extensionSequence orders the events of one server: a text that grows with its
	// resourceVersion, also across restarts.
	extensionSequence = "sequence"
)

// Cause is why an event is sent.
type Cause string

// The causes.
const (
	// CauseChanged: a host field has changed, or the server is new.
	CauseChanged Cause = "Changed"
	// CauseSnapshot: it was found so, after a start of the notifier, when it was allowed to see
	// host status, or when labels came to match the route's selector. Whether it has changed, and
	// from what, is not known.
	CauseSnapshot Cause = "Snapshot"
	// CauseDeleted: the server is deleted; or, in a group, no server is on the host any more.
	CauseDeleted Cause = "Deleted"
	// CauseNoLongerUnknown: the host is not UNKNOWN any more, and only UNKNOWN is shown to the
	// notifier.
	CauseNoLongerUnknown Cause = "NoLongerUnknown"
)

// EventData is the data of an event.
type EventData struct {
	// Cause is why the event is sent.
	Cause Cause `json:"cause"`
	// Namespace is that of the server, or servers.
	Namespace string `json:"namespace"`
	// Server and UID are of the server, absent from an event for a group.
	Server string `json:"server,omitempty"`
	UID    string `json:"uid,omitempty"`
	// HostID is equal for servers of one namespace on one host.
	HostID string `json:"hostID,omitempty"`
	// Servers are the first 100 names of a group, and ServerCount is how many it has.
	Servers     []string `json:"servers,omitempty"`
	ServerCount int      `json:"serverCount,omitempty"`
	// Before are the host fields that the sink was sent last, absent if it was sent none.
	Before *v1alpha1.HostFields `json:"before,omitempty"`
	// After are the host fields now, absent if the cause is Deleted or NoLongerUnknown.
	After *v1alpha1.HostFields `json:"after,omitempty"`
}

// telling is a state, and the one that the sink had before.
type telling struct{ before, now *state }

// eventLedger is what a receiver of CloudEvents was told.
type eventLedger struct {
	last map[slotKey]*state
	// maybe is what the sink may have been told since.
	maybe map[slotKey]*state
}

func newEventLedger() *eventLedger {
	return &eventLedger{last: map[slotKey]*state{}, maybe: map[slotKey]*state{}}
}

// news implements ledger.
func (l *eventLedger) news(key slotKey, want *state) bool {
	last := l.last[key]
	switch {
	case want.end == endLeft:
		l.forget(key) // Nothing has become of the server: nobody is told.
		return false
	case l.maybe[key] != nil:
		return true // Even if it is what the sink was told before: it may know better.
	case want.end == endNoLongerUnknown && !want.route.matters(ptr.To(v1alpha1.HostStatusUnknown)):
		return false
	case want.end != "":
		// A server that the sink was told nothing of it may know from before a restart.
		return last == nil && want.initial || last != nil && last.end == ""
	case last == nil:
		// What it was told before a restart is not known: it may have been anything.
		return want.first || want.initial || want.route.matters(want.status())
	default:
		// Another server with the name is news, even if its host is as that of the one before.
		return (last.facts != want.facts || last.uid != want.uid) && (want.route.matters(last.status()) || want.route.matters(want.status()))
	}
}

// compose implements ledger.
func (l *eventLedger) compose(key slotKey, want *state, _ time.Time) telling {
	before := l.last[key]
	if before != nil && before.uid != want.uid {
		before = nil // Another server had the name.
	}
	return telling{before, want}
}

// told implements ledger.
func (l *eventLedger) told(key slotKey, want *state) {
	delete(l.maybe, key)
	if want.end == endDeleted {
		delete(l.last, key)
		return
	}
	l.last[key] = want
}

// maybeTold implements ledger.
func (l *eventLedger) maybeTold(key slotKey, want *state) { l.maybe[key] = want }

// forget implements ledger.
func (l *eventLedger) forget(key slotKey) {
	delete(l.last, key)
	delete(l.maybe, key)
}

// expire implements ledger: receivers keep what they like.
func (l *eventLedger) expire(time.Time) {}

// known implements ledger.
func (l *eventLedger) known(each func(slotKey, *state)) {
	for key, maybe := range l.maybe {
		each(key, maybe)
	}
	for key, last := range l.last {
		if l.maybe[key] == nil {
			each(key, last)
		}
	}
}

// wasUnknown implements ledger.
func (l *eventLedger) wasUnknown(key slotKey) bool {
	for _, s := range []*state{l.last[key], l.maybe[key]} {
		if status := s.status(); status != nil && *status == v1alpha1.HostStatusUnknown {
			return true
		}
	}
	return false
}

// cause is why it is told.
func (t telling) cause() Cause {
	switch {
	case t.now.end == endNoLongerUnknown:
		return CauseNoLongerUnknown
	case t.now.end != "":
		return CauseDeleted
	case t.now.first:
		return CauseSnapshot
	default:
		return CauseChanged
	}
}

// event makes a CloudEvent. Its id is the same for the same state of a server, however often
// that is sent.
func (t telling) event(source string) (*cloudevents.Event, error) {
	s := t.now
	subject, id := s.namespace+"/"+s.server, string(s.uid)+"."+s.version
	if s.server == "" {
		subject, id = s.namespace+"/hosts/"+s.hostID, s.hostID+"."+s.newest
		if s.version != s.newest {
			id += "." + s.version // By another server it may be another status.
		}
	}
	if s.end != "" {
		id += "." + string(t.cause()) // It comes without a resourceVersion of its own.
	}
	data := EventData{
		Cause: t.cause(), Namespace: s.namespace, Server: s.server, UID: string(s.uid), HostID: s.hostID,
		Servers: s.servers, ServerCount: s.count, After: s.host,
	}
	if t.before != nil {
		data.Before = t.before.host
	}
	e := cloudevents.New()
	e.SetType(EventType)
	e.SetSource(source + "/" + s.route.name)
	e.SetSubject(subject)
	e.SetID(id)
	e.SetTime(s.at)
	e.SetExtension(extensionCause, string(data.Cause))
	if sequence, err := strconv.ParseUint(s.sequence, 10, 64); err == nil {
		e.SetExtension(extensionSequence, fmt.Sprintf("%020d", sequence))
	}
	if s.host != nil {
		e.SetExtension(extensionStatus, hoststatus.Label(s.host.HostStatus))
	}
	if err := e.SetData(cloudevents.ApplicationJSON, data); err != nil {
		return nil, err
	}
	return &e, e.Validate()
}
