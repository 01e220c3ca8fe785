// SPDX-License-Identifier: Apache-2.0

// Package libvirt is the driver that knows the domains of a libvirt daemon on this host. It
// reads, on the socket that is for reading only, and changes nothing.
package libvirt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/go-logr/logr"

	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/printable"
	"hoststatus.dev/hoststatus/internal/reported"
)

const (
	// settleTime is how long after an event all is listed: one change of a domain makes
	// several, and in between its state is that of neither before nor after.
	settleTime = 200 * time.Millisecond
	// settleAtMost is how long a stream of events can delay a listing.
	settleAtMost = time.Second
	// firstBackOff and lastBackOff bound how long after a failure libvirt is tried again.
	firstBackOff = time.Second
	lastBackOff  = 30 * time.Second
	// stoppedShown is how long a domain that has stopped and is listed no more (a transient
	// one) is reported as off: long enough for each reader of reports to see it.
	stoppedShown = time.Minute
	// stoppedLate is how long after a domain has gone from the list an event may still tell
	// that it stopped: libvirtd queues the event after it has removed the domain.
	stoppedLate = 5 * time.Second
	// maxChanged is how many changed domains are remembered one by one.
	maxChanged = 10_000
	// maxNotes is how many new notes on domains are logged after one listing.
	maxNotes = 16
)

// Driver reports the domains of a libvirt daemon.
type Driver struct {
	Options
	// Logger takes a line when libvirt goes away and when it comes back, and one for each
	// domain that cannot be reported.
	Logger logr.Logger
	// OnHealth, if set, is called with why libvirt cannot be asked, and with nil once it has
	// been listed again.
	OnHealth func(error)

	// dial is for tests; nil is the function of this name.
	dial func(context.Context, *Options) (client, error)
}

// Run reports until ctx ends. While libvirt cannot be asked nothing is reported, so that
// the last report stands.
func (d *Driver) Run(ctx context.Context, report func([]driver.VM)) error {
	r := &run{Driver: d, report: report, dial: d.dial, records: map[golibvirt.UUID]*record{}, stopped: map[golibvirt.UUID]bool{}}
	if r.dial == nil {
		r.dial = dial
	}
	failures, ends := 0, 0
	for {
		settled, err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if settled {
			failures = 0
		}
		r.away(err)
		// A daemon that has just been ended may still seem to listen: whether it is gone, or
		// was restarted, shows at the next try, and is logged then.
		switch ended := errors.Is(err, errEnded); {
		case ended && settled:
			ends = 0
			continue
		case ended:
			ends++
		default:
			ends = 0
		}
		if ends != 1 {
			r.logAway(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backOff(failures)):
		}
		failures++
	}
}

// backOff returns how long to wait after so many failures before this one. Agents of many
// hosts do not return in step.
func backOff(failures int) time.Duration {
	wait := min(firstBackOff<<min(failures, 8), lastBackOff)
	return wait - time.Duration(rand.Int64N(int64(wait/5)))
}

// run is what one Run of a Driver remembers, across connections.
type run struct {
	*Driver
	report func([]driver.VM)
	dial   func(context.Context, *Options) (client, error)

	// records are of the domains that were listed last, and of those that have gone lately.
	records map[golibvirt.UUID]*record
	// stopped are domains that have stopped since the last listing.
	stopped map[golibvirt.UUID]bool

	reported bool // whether there was a report
	last     []driver.VM
	listed   int // domains in the last listing
	// health is what OnHealth has heard, if healthKnown.
	health      error
	healthKnown bool
	// loggedAway are the kinds of failures that were logged since libvirt was last listed.
	loggedAway map[string]bool
	notes      map[string]note
}

// record is what is remembered of a domain.
type record struct {
	details
	// fresh is whether the details could be read since the domain last changed.
	fresh  bool
	leases map[string][]string
	before *reported.Fields
	left   bool
	name   string
	// missingSince is when it was first not listed any more, and stoppedAt when it is known
	// since that it stopped; zero otherwise.
	missingSince, stoppedAt time.Time
}

// note is what is logged of a domain.
type note struct {
	message, key, subject, problem string
}

// away tells OnHealth why libvirt cannot be asked.
func (r *run) away(err error) {
	if r.OnHealth != nil && (!r.healthKnown || r.health == nil || r.health.Error() != err.Error()) {
		r.OnHealth(err)
	}
	r.health, r.healthKnown = err, true
}

func (r *run) logAway(err error) {
	kind := err.Error()
	if known := (*awayError)(nil); errors.As(err, &known) {
		kind = known.kind
	}
	if r.loggedAway[kind] {
		return
	}
	if r.loggedAway == nil {
		r.loggedAway = map[string]bool{}
	}
	r.loggedAway[kind] = true
	r.Logger.Error(err, "Libvirt cannot be asked; what was last reported stands")
}

// back records that everything was listed.
func (r *run) back() {
	if r.OnHealth != nil && (!r.healthKnown || r.health != nil) {
		r.OnHealth(nil)
	}
	r.health, r.healthKnown, r.loggedAway = nil, true, nil
}

// session is one connection, from the first listing until it ends. settled is whether it
// has listed, and lasted for a moment.
func (r *run) session(ctx context.Context) (settled bool, err error) {
	c, err := r.dial(ctx, &r.Options)
	if err != nil {
		return false, err
	}
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	// Subscribe first: what happens during the listing must not be missed.
	events := newInbox()
	if err := c.subscribe(events.put); err != nil {
		return false, explained(err)
	}
	if err := r.list(c, events, true); err != nil {
		return false, explained(err)
	}
	r.Logger.Info("Connected to libvirt", "uri", r.URI, "domains", r.listed, "servers", len(r.last))
	begin := time.Now()
	err = r.follow(ctx, c, events)
	return time.Since(begin) >= firstBackOff, explained(err)
}

// follow lists again after events, and from time to time, until the connection ends.
func (r *run) follow(ctx context.Context, c client, events *inbox) error {
	settle := time.NewTimer(0)
	settle.Stop()
	resync := time.NewTimer(r.Resync)
	defer settle.Stop()
	defer resync.Stop()
	var dirtySince time.Time // zero: nothing has happened since the last listing
	for {
		all := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended():
			return c.reason()
		case <-events.wake:
			now := time.Now()
			if dirtySince.IsZero() {
				dirtySince = now
			}
			settle.Reset(min(settleTime, dirtySince.Add(settleAtMost).Sub(now)))
			continue
		case <-settle.C:
		case <-resync.C:
			all = true
		}
		dirtySince = time.Time{}
		settle.Stop()
		if err := r.list(c, events, all); err != nil {
			return err
		}
		if all {
			resync.Reset(r.Resync)
		}
	}
}

// list lists all domains, reads what has changed of them, or all, and reports.
func (r *run) list(c client, events *inbox, all bool) error {
	changed, stopped, many := events.take()
	maps.Copy(r.stopped, stopped)
	domains, err := c.list()
	if err != nil {
		return err
	}
	now := time.Now()
	notes := map[string]note{}
	listed := make(map[golibvirt.UUID]bool, len(domains))
	var claims []claim
	for i := range domains {
		d := &domains[i]
		one := r.records[d.UUID]
		if one == nil {
			one = &record{}
		}
		if all || many || changed[d.UUID] || !one.fresh {
			switch problem, err := r.read(c, d, one); {
			case errors.Is(err, errGone):
				continue
			case err != nil:
				return err
			case problem != "":
				notes[d.id()] = note{"A domain cannot be read, so what was known of it is used", "domain", d.Name, problem}
			}
		}
		listed[d.UUID], r.records[d.UUID] = true, one
		one.name, one.missingSince, one.stoppedAt = d.Name, time.Time{}, time.Time{}
		if one.problem != "" {
			notes[d.id()] = note{"A domain does not name a Server that can be, so it is not reported", "domain", d.Name, one.problem}
		}
		e := entry{domain: *d, details: one.details, leases: one.leases, before: one.before, leftBefore: one.left}
		one.before, one.left = e.fields()
		switch {
		case one.server.Name == "":
			one.before = nil
		case one.before != nil:
			claims = append(claims, claim{VM: driver.VM{Server: one.server, Fields: *one.before}, domain: d.Name, active: d.active()})
		}
	}
	claims = append(claims, r.lately(listed, claims, now)...)
	clear(r.stopped)
	vms, rivals := compose(claims)
	for server, problem := range rivals {
		notes[server.String()] = note{"More than one domain claims to be a Server", "Server", server.String(), problem}
	}
	r.listed = len(domains)
	r.log(notes)
	if !r.reported || !reflect.DeepEqual(r.last, vms) {
		r.reported, r.last = true, vms
		r.report(cloned(vms))
	}
	r.back()
	return nil
}

// cloned returns a copy for a receiver that may change it.
func cloned(vms []driver.VM) []driver.VM {
	all := slices.Clone(vms)
	for i := range all {
		all[i].Networks = slices.Clone(all[i].Networks)
		for n := range all[i].Networks {
			all[i].Networks[n].Addresses = slices.Clone(all[i].Networks[n].Addresses)
		}
	}
	return all
}

// lately returns the claims of domains that have stopped and are listed no more, and
// forgets in time all that are not listed.
func (r *run) lately(listed map[golibvirt.UUID]bool, claims []claim, now time.Time) (more []claim) {
	for id, one := range r.records {
		if listed[id] {
			continue
		}
		if one.missingSince.IsZero() {
			one.missingSince = now
		}
		if r.stopped[id] && one.before != nil && one.stoppedAt.IsZero() {
			one.stoppedAt = now
			one.before = &reported.Fields{State: "SHUTOFF", PowerState: "SHUTDOWN", Networks: one.before.Networks}
		}
		if one.stoppedAt.IsZero() {
			if one.before == nil || now.Sub(one.missingSince) >= stoppedLate {
				delete(r.records, id)
			}
			continue
		}
		taken := slices.ContainsFunc(claims, func(c claim) bool { return c.Server == one.server })
		if taken || now.Sub(one.stoppedAt) >= stoppedShown {
			delete(r.records, id)
			continue
		}
		more = append(more, claim{VM: driver.VM{Server: one.server, Fields: *one.before}, domain: one.name})
	}
	return more
}

// read reads what the list does not have of a domain. An answer that is an error is the
// problem of this domain, and leaves what was known of it.
func (r *run) read(c client, d *domain, one *record) (problem string, err error) {
	one.fresh = false
	text, err := c.xml(d.Domain)
	switch {
	case err == nil:
	case isAnswer(err):
		return err.Error(), nil
	default:
		return "", err
	}
	details, err := readXML(text, d.id(), &r.Options)
	if err != nil {
		return err.Error(), nil
	}
	one.details, one.fresh = details, true
	if len(one.leased) == 0 {
		one.leases = nil
		return "", nil
	}
	if !d.active() {
		return "", nil // Nobody asks for leases of what is off: those that were known stand.
	}
	switch leases, err := c.leases(d.Domain); {
	case err == nil:
		one.leases = leases
	case !isAnswer(err):
		return "", err
	}
	return "", nil
}

// id is the UUID as it is written.
func (d *domain) id() string {
	u := d.UUID
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// log logs the notes that are new.
func (r *run) log(notes map[string]note) {
	logged, more := 0, 0
	for _, key := range slices.Sorted(maps.Keys(notes)) {
		n := notes[key]
		switch {
		case r.notes[key] == n:
		case logged == maxNotes:
			more++
		default:
			logged++
			r.Logger.Info(n.message, n.key, shortened(n.subject), "problem", printable.CleanUpTo(maxProblem, n.problem))
		}
	}
	if more > 0 {
		r.Logger.Info("There are more such problems", "number", more)
	}
	r.notes = notes
}

// inbox has what events have told since the last listing.
type inbox struct {
	// wake has a value when there is something.
	wake chan struct{}

	mu               sync.Mutex
	changed, stopped map[golibvirt.UUID]bool
	many             bool
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), changed: map[golibvirt.UUID]bool{}, stopped: map[golibvirt.UUID]bool{}}
}

func (b *inbox) put(e event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.changed) < maxChanged {
		b.changed[e.domain] = true
		if e.stopped {
			b.stopped[e.domain] = true
		}
	} else {
		b.many = true
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns what there is, and empties it. many is whether more has changed than that.
func (b *inbox) take() (changed, stopped map[golibvirt.UUID]bool, many bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed, stopped, many = b.changed, b.stopped, b.many
	b.changed, b.stopped, b.many = map[golibvirt.UUID]bool{}, map[golibvirt.UUID]bool{}, false
	select {
	case <-b.wake:
	default:
	}
	return changed, stopped, many
}

var _ driver.Driver = (*Driver)(nil)
