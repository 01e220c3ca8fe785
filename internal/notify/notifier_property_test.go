// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// play is a notifier with two sinks, a cluster that it sees in part, and what the sinks know.
type play struct {
	t     *rapid.T
	n     *notifier
	clock *testingclock.FakeClock
	bus   *courier[telling]
	pager *courier[[]Alert]
	// servers are those of the cluster, and versions counts their changes.
	servers  map[types.NamespacedName]*tenantv1alpha1.Server
	versions int
	// level is what may be seen of host status, and watched whether servers are.
	level map[string]string
	// changed is when that changed last.
	changed map[string]time.Time
	watched map[string]bool
	events  []*flight[telling]
	alerts  []*flight[[]Alert]
	// last is what the receiver of events knows, by source and subject, and seen the ids that
	// it had.
	last     map[string]heardEvent
	sequence map[string]string
	// active are the alerts that the Alertmanager has.
	active map[string]Alert
}

// flight is a request on its way.
type flight[P any] struct {
	items    []item[P]
	recalled bool
}

// heardEvent is what is known by an event.
type heardEvent struct{ uid, status, id string }

var (
	playNamespaces = []string{"team-a", "team-b"}
	playServers    = []types.NamespacedName{
		{Namespace: "team-a", Name: "a"}, {Namespace: "team-a", Name: "b"}, {Namespace: "team-a", Name: "c"}, {Namespace: "team-b", Name: "a"},
	}
)

// may implements asker.
func (p *play) may(_ context.Context, _, subresource, namespace string) (bool, error) {
	return p.watched[namespace] && (subresource == tenantv1alpha1.SubresourceStatus && p.level[namespace] == "all" ||
		subresource == tenantv1alpha1.SubresourceUnknownStatus && p.level[namespace] == "unknown"), nil
}

// begin starts a notifier, or starts it again.
func (p *play) begin(config *Config) {
	n, err := newNotifier(config, "test", p.clock, logr.Discard())
	if err != nil {
		p.t.Fatal(err)
	}
	p.n, p.bus, p.pager = n, n.boxes[0].(*courier[telling]), n.boxes[1].(*courier[[]Alert])
	known := p.pager.queue.ledger.(*alertLedger)
	for _, mark := range slices.Sorted(maps.Keys(p.active)) {
		known.adopt(p.active[mark].Labels, p.active[mark].StartsAt, p.clock.Now())
	}
	p.pager.queue.review()
	for _, namespace := range playNamespaces {
		if p.watched[namespace] {
			p.list(namespace)
		} else {
			p.scope(namespace).refuse()
		}
	}
}

func (p *play) scope(namespace string) *scope {
	return p.n.scopes[slices.Index(playNamespaces, namespace)]
}

// shown is a server as the notifier sees it.
func (p *play) shown(s *tenantv1alpha1.Server) *tenantv1alpha1.Server {
	s = s.DeepCopy()
	level := p.level[s.Namespace]
	if level == "none" || level == "unknown" && *s.Status.HostStatus != v1alpha1.HostStatusUnknown {
		hidden(s)
	}
	return s
}

func (p *play) list(namespace string) {
	var all []any
	for _, name := range playServers {
		if s := p.servers[name]; s != nil && name.Namespace == namespace {
			all = append(all, p.shown(s))
		}
	}
	if err := (&store{scope: p.scope(namespace)}).Replace(all, fmt.Sprint(p.versions)); err != nil {
		p.t.Fatal(err)
	}
	p.n.answer(context.Background(), p)
}

// see lets the notifier see a server, if it watches.
func (p *play) see(s *tenantv1alpha1.Server) {
	if !p.watched[s.Namespace] {
		return
	}
	if err := (&store{scope: p.scope(s.Namespace)}).Update(p.shown(s)); err != nil {
		p.t.Fatal(err)
	}
}

// change makes a server, or changes it.
func (p *play) change(name types.NamespacedName, again bool, change func(*tenantv1alpha1.Server)) {
	p.versions++
	s := p.servers[name]
	if s == nil || again {
		s = row(name.Name, "", v1alpha1.HostStatusUp, withUID(fmt.Sprintf("u%d", p.versions)), labelled("app", "web"))
		s.Namespace = name.Namespace
	} else {
		s = s.DeepCopy()
	}
	s.ResourceVersion = fmt.Sprint(p.versions)
	change(s)
	p.servers[name] = s
	p.see(s)
}

// setLevel changes what may be seen of host status.
func (p *play) setLevel(namespace, level string) {
	p.level[namespace], p.changed[namespace] = level, p.clock.Now()
	for _, name := range playServers {
		if s := p.servers[name]; s != nil && name.Namespace == namespace {
			p.see(s)
		}
	}
	p.n.doubtEnded()
	p.n.answer(context.Background(), p)
}

func (p *play) setWatched(namespace string, watched bool) {
	if p.watched[namespace] == watched {
		return
	}
	if p.watched[namespace] = watched; watched {
		p.list(namespace)
	} else {
		p.scope(namespace).refuse()
	}
}

func (p *play) step(d time.Duration) {
	p.clock.Step(d)
	p.n.engine.tick(p.clock.Now())
	p.n.doubtEnded()
	p.n.answer(context.Background(), p)
}

// mayTell fails if a state must not be told now.
func (p *play) mayTell(s *state) {
	level := p.level[s.namespace]
	unknown := s.status() == nil || *s.status() == v1alpha1.HostStatusUnknown
	if level == "unknown" && s.route.min > 0 && p.clock.Since(p.changed[s.namespace]) < 10*time.Second {
		return // UNKNOWN is shown before and after, and has to last before it takes the place of what waits.
	}
	if !p.watched[s.namespace] || level == "none" || level == "unknown" && !unknown {
		p.t.Fatalf("%s/%s %s%s is sent, which may not be seen", s.namespace, s.server, hoststatus.Label(s.status()), s.end)
	}
}

func (p *play) takeEvents() bool {
	f := &flight[telling]{}
	f.items = p.bus.queue.take(1, func() { f.recalled = true })
	for _, i := range f.items {
		p.mayTell(i.want)
		p.events = append(p.events, f)
	}
	return len(f.items) > 0
}

func (p *play) takeAlerts(n int) bool {
	f := &flight[[]Alert]{}
	f.items = p.pager.queue.take(n, func() { f.recalled = true })
	for _, i := range f.items {
		p.mayTell(i.want)
	}
	if len(f.items) > 0 {
		p.alerts = append(p.alerts, f)
	}
	return len(f.items) > 0
}

func (p *play) landEvent(at int, what outcome, takenIn bool) {
	f := p.events[at]
	p.events = slices.Delete(p.events, at, at+1)
	if takenIn {
		p.takeIn(f.items[0])
	}
	p.bus.queue.done(f.items, what, 0)
}

// takeIn is what a receiver does that follows the page: it drops what it had, and what is outdated.
func (p *play) takeIn(i item[telling]) {
	e, err := i.payload.event(defaultSource)
	if err != nil {
		p.t.Fatal(err)
	}
	key, sequence := e.Source()+" "+e.Subject(), e.Extensions()[extensionSequence].(string)
	if sequence < p.sequence[key] {
		return
	}
	p.sequence[key] = sequence
	var data EventData
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		p.t.Fatal(err)
	}
	now := heardEvent{uid: data.UID, status: string(data.Cause), id: e.ID()}
	if data.After != nil {
		now.status = hoststatus.Label(data.After.HostStatus)
	}
	p.last[key] = now
}

func (p *play) landAlerts(at int, what outcome, takenIn bool) {
	f := p.alerts[at]
	p.alerts = slices.Delete(p.alerts, at, at+1)
	if takenIn {
		for _, i := range f.items {
			for _, a := range i.payload {
				if a.EndsAt.After(p.clock.Now()) {
					p.active[fingerprint(a.Labels)] = a
				} else {
					delete(p.active, fingerprint(a.Labels))
				}
			}
		}
	}
	p.pager.queue.done(f.items, what, 0)
}

func (p *play) resend() {
	p.pager.queue.repeat(p.pager.selected)
	maps.DeleteFunc(p.active, func(_ string, a Alert) bool { return !a.EndsAt.After(p.clock.Now()) })
}

// settle lets everything arrive.
func (p *play) settle(d time.Duration) {
	for over := p.clock.Now().Add(d); p.clock.Now().Before(over); {
		for len(p.events) > 0 {
			p.landEvent(0, delivered, true)
		}
		for len(p.alerts) > 0 {
			p.landAlerts(0, delivered, true)
		}
		if p.takeEvents() || p.takeAlerts(maxBatch) {
			continue
		}
		p.step(15 * time.Second)
		p.resend()
	}
}

// Whatever happens: sinks are sent nothing that may not be seen, and end with the truth.
func TestSinksEndWithTheTruthAndLearnNothingElse(t *testing.T) {
	statuses := []v1alpha1.HostStatus{v1alpha1.HostStatusUp, v1alpha1.HostStatusDown, v1alpha1.HostStatusUnknown}
	hosts := []string{"h1", "h2"}
	config := &Config{
		Namespaces: playNamespaces,
		Sinks: []SinkConfig{
			{Name: "bus", CloudEvents: &CloudEventsConfig{URL: "http://bus.example.com"}},
			{Name: "pager", Alertmanager: &AlertmanagerConfig{URL: "http://pager.example.com"}},
		},
	}
	for _, sink := range []string{"bus", "pager"} {
		config.Routes = append(config.Routes,
			RouteConfig{Name: "all", Sink: sink}, RouteConfig{Name: "down", Sink: sink, HostStatuses: statuses[1:2]},
			RouteConfig{Name: "slow", Sink: sink, MinSeconds: 5}, RouteConfig{Name: "labels", Sink: sink, Selector: "app=web"},
			RouteConfig{Name: "downlabels", Sink: sink, Selector: "app=web", HostStatuses: statuses[1:2]},
			RouteConfig{Name: "hosts", Sink: sink, GroupByHost: true}, RouteConfig{Name: "slowhosts", Sink: sink, GroupByHost: true, MinSeconds: 5})
	}
	config.complete("", "")
	if err := config.Validate().ToAggregate(); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		p := &play{
			t: t, clock: testingclock.NewFakeClock(start), servers: map[types.NamespacedName]*tenantv1alpha1.Server{},
			level: map[string]string{"team-a": "all", "team-b": "all"}, watched: map[string]bool{"team-a": true, "team-b": true},
			changed: map[string]time.Time{}, last: map[string]heardEvent{}, sequence: map[string]string{}, active: map[string]Alert{},
		}
		p.begin(config)
		name := func(t *rapid.T) types.NamespacedName { return rapid.SampledFrom(playServers).Draw(t, "server") }
		namespace := func(t *rapid.T) string { return rapid.SampledFrom(playNamespaces).Draw(t, "namespace") }
		set := func(t *rapid.T) func(s *tenantv1alpha1.Server) {
			status := rapid.SampledFrom(statuses).Draw(t, "status")
			return func(s *tenantv1alpha1.Server) { s.Status.HostStatus = &status }
		}
		landing := func(t *rapid.T, n int, stopped func(int) bool) (at int, what outcome, takenIn bool) {
			at = rapid.IntRange(0, n-1).Draw(t, "request")
			outcomes := []outcome{delivered, failed, refused}
			if stopped(at) {
				outcomes = []outcome{delivered, recalled}
			}
			what = rapid.SampledFrom(outcomes).Draw(t, "outcome")
			return at, what, what == delivered || what != refused && rapid.Bool().Draw(t, "taken in")
		}
		t.Repeat(map[string]func(*rapid.T){
			"status": func(t *rapid.T) { p.change(name(t), false, set(t)) },
			"move": func(t *rapid.T) {
				host := rapid.SampledFrom(hosts).Draw(t, "host")
				p.change(name(t), false, onHost(host))
			},
			"label": func(t *rapid.T) {
				app := rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app")
				p.change(name(t), false, labelled("app", app))
			},
			"again": func(t *rapid.T) { p.change(name(t), true, set(t)) },
			"delete": func(t *rapid.T) {
				name := name(t)
				s := p.servers[name]
				if s == nil {
					return
				}
				delete(p.servers, name)
				p.versions++
				if p.watched[name.Namespace] {
					if err := (&store{scope: p.scope(name.Namespace)}).Delete(s); err != nil {
						t.Fatal(err)
					}
				}
			},
			"level": func(t *rapid.T) {
				p.setLevel(namespace(t), rapid.SampledFrom([]string{"all", "all", "unknown", "none"}).Draw(t, "level"))
			},
			"watched": func(t *rapid.T) { p.setWatched(namespace(t), rapid.Bool().Draw(t, "watched")) },
			"take": func(t *rapid.T) {
				p.takeEvents()
				p.takeAlerts(rapid.IntRange(1, 4).Draw(t, "batch"))
			},
			"land an event": func(t *rapid.T) {
				if len(p.events) > 0 {
					p.landEvent(landing(t, len(p.events), func(i int) bool { return p.events[i].recalled }))
				}
			},
			"land alerts": func(t *rapid.T) {
				if len(p.alerts) > 0 {
					p.landAlerts(landing(t, len(p.alerts), func(i int) bool { return p.alerts[i].recalled }))
				}
			},
			"resend": func(*rapid.T) { p.resend() },
			"time":   func(t *rapid.T) { p.step(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second) },
			"restart": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "restart") > 0 {
					return
				}
				p.events, p.alerts = nil, nil
				p.begin(config)
			},
		})
		for _, namespace := range playNamespaces {
			p.setWatched(namespace, true)
			p.setLevel(namespace, "all")
		}
		// Servers of one host end with its status.
		of := map[string]v1alpha1.HostStatus{}
		for _, name := range playServers {
			s := p.servers[name]
			if s == nil {
				continue
			}
			host := name.Namespace + s.Status.HostID
			if status, known := of[host]; known && *s.Status.HostStatus != status {
				p.change(name, false, func(s *tenantv1alpha1.Server) { s.Status.HostStatus = &status })
			} else {
				of[host] = *s.Status.HostStatus
			}
		}
		p.settle(2 * time.Minute)
		p.check(false)
		p.settle(10 * time.Minute) // Alerts of which nothing could be said have expired.
		p.check(true)
	})
}

// check compares what the sinks have with what there is.
func (p *play) check(expired bool) {
	for _, r := range p.n.engine.routes {
		want, uids := map[string]string{}, map[string]string{}
		for _, s := range p.servers {
			if key := r.about(sightingOf(s)); key != "" {
				want[key], uids[key] = hoststatus.Label(s.Status.HostStatus), string(s.UID)
			}
		}
		if r.outbox == outbox(p.bus) {
			for key, status := range want {
				subject := strings.Replace(key, "#", "/hosts/", 1)
				got, known := p.last[defaultSource+"/"+r.name+" "+subject]
				if !r.matters(ptrTo(status)) && (!known || !r.matters(ptrTo(got.status)) || got.uid != uids[key]) {
					continue
				}
				if got.status != status || !r.group && got.uid != uids[key] {
					p.t.Fatalf("of %s the route %s has told %+v, and it is %s of %s", key, r.name, got, status, uids[key])
				}
			}
			continue
		}
		have := map[string][]string{}
		for _, a := range p.active {
			if a.Labels[labelRoute] == r.name {
				key, _ := subjectOf(a.Labels)
				have[key.subject] = append(have[key.subject], a.Labels[labelHostStatus])
			}
		}
		for key, status := range want {
			var alerts []string
			if status != "UP" && r.matters(ptrTo(status)) {
				alerts = []string{status}
			}
			if !slices.Equal(have[key], alerts) {
				p.t.Fatalf("of %s the route %s has alerts of %v, and it is %s", key, r.name, have[key], status)
			}
			delete(have, key)
		}
		if expired && len(have) > 0 {
			p.t.Fatalf("the route %s has alerts of what is gone: %v", r.name, have)
		}
	}
	for _, n := range []int{len(p.bus.queue.slots), len(p.pager.queue.slots)} {
		if n > len(p.servers)*len(p.n.engine.routes) {
			p.t.Fatalf("%d subjects are kept", n)
		}
	}
}

func ptrTo(status string) *v1alpha1.HostStatus {
	s := v1alpha1.HostStatus(status)
	return &s
}
