// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

// daemon is a libvirt with a few domains, whose events come late, and to which things
// happen while it is asked.
type daemon struct {
	*rapid.T
	run    *run
	events *inbox
	// domains are by UUID, which is made of the name that they had first. transient ones are
	// gone when they stop.
	domains   map[golibvirt.UUID]*guest
	pending   []event
	broken    map[golibvirt.UUID]bool
	meanwhile bool
}

type guest struct {
	domain
	server    string
	transient bool
	// left is whether its definition was left behind by a migration.
	left bool
}

// The methods of a client that are used by a listing.
func (d *daemon) list() ([]domain, error) {
	if rapid.IntRange(0, 9).Draw(d.T, "listing fails") == 0 {
		return nil, errEnded
	}
	var all []domain
	for _, id := range d.ids() {
		all = append(all, d.domains[id].domain)
	}
	d.happens()
	return all, nil
}

func (d *daemon) xml(of golibvirt.Domain) (string, error) {
	d.happens()
	g := d.domains[of.UUID]
	switch {
	case g == nil:
		return "", errGone
	case d.broken[of.UUID]:
		return "", golibvirt.Error{Message: "the domain cannot be read"}
	}
	return xmlOf(strings.Replace(hs, "vm1", g.server, 1), ""), nil
}

func (d *daemon) leases(golibvirt.Domain) (map[string][]string, error) { return nil, nil }
func (d *daemon) subscribe(func(event)) error                          { return nil }
func (d *daemon) ended() <-chan struct{}                               { return nil }
func (d *daemon) reason() error                                        { return nil }
func (d *daemon) close()                                               {}

func (d *daemon) ids() []golibvirt.UUID {
	return slices.SortedFunc(maps.Keys(d.domains), func(a, b golibvirt.UUID) int { return strings.Compare(string(a[:]), string(b[:])) })
}

// happens lets something happen in the midst of a listing, now and then.
func (d *daemon) happens() {
	if d.meanwhile && rapid.IntRange(0, 2).Draw(d.T, "meanwhile") == 0 {
		d.change()
		d.deliver()
	}
}

func (d *daemon) change() {
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(d.T, "domain")
	id := golibvirt.UUID{name[0]}
	g := d.domains[id]
	tell := func(stopped bool) { d.pending = append(d.pending, event{domain: id, stopped: stopped}) }
	set := func(state golibvirt.DomainState, reason int32) {
		g.state, g.reason, g.ID = state, reason, 1
		if state == shutoff {
			g.ID = -1
		}
	}
	if g == nil {
		g = &guest{transient: rapid.Bool().Draw(d.T, "transient"), server: rapid.SampledFrom([]string{"s", "t"}).Draw(d.T, "server")}
		g.Domain = golibvirt.Domain{Name: name, UUID: id}
		d.domains[id] = g
		set(running, int32(golibvirt.DomainRunningMigrated))
		tell(false)
		return
	}
	gone := func(stopped bool) {
		if g.transient {
			delete(d.domains, id)
		}
		tell(stopped)
	}
	switch rapid.IntRange(0, 7).Draw(d.T, "change") {
	case 0, 1:
		if g.state == shutoff {
			delete(d.domains, id)
			tell(false)
			return
		}
		set(shutoff, int32(golibvirt.DomainShutoffDestroyed))
		g.left = false
		gone(true)
	case 2:
		if g.state == shutoff {
			return
		}
		set(shutoff, int32(golibvirt.DomainShutoffMigrated))
		g.left = true
		gone(false)
	case 3:
		set(running, int32(golibvirt.DomainRunningBooted))
		g.saved, g.left = false, false
		tell(false)
	case 4:
		if g.state == running {
			set(paused, int32(golibvirt.DomainPausedUser))
			tell(false)
		}
	case 5:
		if g.state != shutoff && !g.transient {
			set(shutoff, int32(golibvirt.DomainShutoffSaved))
			g.saved = true
			tell(true)
		}
	case 6:
		g.Name += "x"
		tell(false)
	case 7:
		g.server = rapid.SampledFrom([]string{"s", "t", "not a server"}).Draw(d.T, "server")
		tell(false)
	}
}

// deliver brings some of the events, in order.
func (d *daemon) deliver() {
	n := rapid.IntRange(0, len(d.pending)).Draw(d.T, "events")
	for _, e := range d.pending[:n] {
		d.events.put(e)
	}
	d.pending = d.pending[n:]
}

// look lists, and connects anew if that fails.
func (d *daemon) look(all bool) {
	for err := d.run.list(d, d.events, all); err != nil; err = d.run.list(d, d.events, true) {
		if !errors.Is(err, errEnded) {
			d.Fatal(err)
		}
		d.connect()
	}
}

// pass lets time pass: what is remembered grows older.
func (d *daemon) pass(by time.Duration) {
	for _, one := range d.run.records {
		for _, at := range []*time.Time{&one.missingSince, &one.stoppedAt} {
			if !at.IsZero() {
				*at = at.Add(-by)
			}
		}
	}
}

func (d *daemon) connect() {
	d.events, d.pending = newInbox(), nil
}

// truth is what has to be reported in the end.
func (d *daemon) truth() string {
	var claims []claim
	for _, id := range d.ids() {
		g := d.domains[id]
		fields, p := fieldsOf(g.state, g.reason, g.saved)
		if p == here && !g.left && g.server != "not a server" {
			one := claim{domain: g.Name, active: g.active()}
			one.Server.Namespace, one.Server.Name, one.Fields = "tenant", g.server, fields
			claims = append(claims, one)
		}
	}
	vms, _ := compose(claims)
	return words(vms)
}

// Whatever happens to domains, also while they are listed, and whenever the events come: in
// the end what is reported is what there is.
func TestInTheEndWhatIsReportedIsWhatThereIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var reported string
		d := &daemon{T: t, domains: map[golibvirt.UUID]*guest{}, broken: map[golibvirt.UUID]bool{}}
		d.run = &run{
			Driver: &Driver{Options: NewOptions(), Logger: logbook.New().Logger}, records: map[golibvirt.UUID]*record{}, stopped: map[golibvirt.UUID]bool{},
			report: func(vms []driver.VM) { reported = words(vms) },
		}
		d.connect()
		d.look(true)
		t.Repeat(map[string]func(*rapid.T){
			"change":  func(*rapid.T) { d.change() },
			"deliver": func(*rapid.T) { d.deliver() },
			"look":    func(*rapid.T) { d.look(false) },
			"resync":  func(*rapid.T) { d.look(true) },
			"look while things change": func(*rapid.T) {
				d.meanwhile = true
				d.look(false)
				d.meanwhile = false
			},
			"break": func(t *rapid.T) {
				id := golibvirt.UUID{rapid.SampledFrom([]byte("abc")).Draw(t, "broken")}
				d.broken[id] = !d.broken[id]
			},
			"restart of libvirt": func(*rapid.T) {
				d.look(true)
				for _, g := range d.domains {
					if g.state == shutoff {
						g.reason = int32(golibvirt.DomainShutoffUnknown)
					}
				}
				d.connect()
				d.look(true)
			},
			"pass": func(t *rapid.T) {
				d.pass(time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second)
			},
		})
		clear(d.broken)
		for _, e := range d.pending {
			d.events.put(e)
		}
		d.pending = nil
		d.look(false)
		d.pass(stoppedShown)
		d.look(false)
		if diff := cmp.Diff(d.truth(), reported); diff != "" {
			t.Fatalf("(-there +reported):\n%s", diff)
		}
	})
}
