// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// routeKey names a route. Routes to different sinks may have the same name.
type routeKey struct{ sink, name string }

// box is a courier, whatever it carries.
type box interface {
	outbox
	// sink is the name of its sink.
	sink() string
	run(context.Context)
	hideEnded(namespace string)
	ended(each func(namespace string))
	told(each func(slotKey, *state))
	wasUnknown(key slotKey) bool
	usage() sinkUsage
}

// notifier is the engine with its surroundings: scopes put in what they see, couriers take out
// what there is to send.
type notifier struct {
	clock clock.WithTicker
	log   logr.Logger

	// mu protects the engine, the queues of all couriers, and what is known of scopes.
	mu     sync.Mutex
	engine *engine
	routes map[routeKey]*route
	boxes  []box
	scopes []*scope
	// doubts are servers whose host status was UNKNOWN and is not shown any more.
	doubts map[types.NamespacedName]bool
	// hidden are namespaces in which host status was shown and is not any more, or in which
	// what is gone is not told yet.
	hidden map[string]bool
	// endings are what sinks know of and what is gone.
	endings map[ending]*state // by what the sink was told last, nil if that is not known
	// timer and doubt wake what waits for them.
	timer, doubt chan struct{}
}

// newNotifier makes one that watches nothing yet.
func newNotifier(config *Config, userAgent string, c clock.WithTicker, log logr.Logger) (*notifier, error) {
	n := &notifier{
		clock: c, log: log, routes: map[routeKey]*route{}, doubts: map[types.NamespacedName]bool{}, hidden: map[string]bool{}, endings: map[ending]*state{},
		timer: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
	}
	boxes := map[string]box{}
	for i := range config.Sinks {
		s := &config.Sinks[i]
		client, err := newClient(s, userAgent, log.WithValues("sink", s.Name))
		if err != nil {
			return nil, fmt.Errorf("sinks[%d] (%s): %w", i, s.Name, err)
		}
		var made box
		if s.CloudEvents != nil {
			made = n.newEvents(config, s, client)
		} else {
			made = n.newAlerts(config, s, client)
		}
		boxes[s.Name] = made
		n.boxes = append(n.boxes, made)
	}
	var routes []*route
	for i := range config.Routes {
		r, err := newRoute(&config.Routes[i], boxes[config.Routes[i].Sink])
		if err != nil {
			return nil, fmt.Errorf("routes[%d].selector: %w", i, err)
		}
		routes = append(routes, r)
		n.routes[routeKey{config.Routes[i].Sink, r.name}] = r
	}
	n.engine = newEngine(routes)
	n.engine.inDoubt = n.inDoubt
	for _, namespace := range config.Namespaces {
		if namespace == allNamespaces {
			namespace = ""
		}
		n.scopes = append(n.scopes, &scope{notifier: n, namespace: namespace})
	}
	return n, nil
}

func (n *notifier) newEvents(config *Config, s *SinkConfig, c *client) box {
	sender := &events{client: c, url: s.CloudEvents.URL, source: config.Source, mode: s.CloudEvents.Mode}
	made := newCourier(s.Name, ledger[telling](newEventLedger()), &n.mu, n.clock, n.log)
	made.parallel, made.send = s.CloudEvents.Parallel, sender.send
	return made
}

func (n *notifier) newAlerts(config *Config, s *SinkConfig, c *client) box {
	sender := newAlertmanager(c, s.Alertmanager.URL)
	known := newAlertLedger(config.GeneratorURL, time.Duration(s.Alertmanager.ExpireSeconds)*time.Second)
	made := newCourier(s.Name, ledger[[]Alert](known), &n.mu, n.clock, n.log)
	made.batch, made.send = maxBatch, sender.send
	made.resend = time.Duration(s.Alertmanager.ResendSeconds) * time.Second
	made.selected = func(_ slotKey, s *state) bool { return isAlert(s) }
	var names []string
	for i := range config.Routes {
		if config.Routes[i].Sink == s.Name {
			names = append(names, config.Routes[i].Name)
		}
	}
	made.prepare = func(ctx context.Context) error {
		var found []*listed
		for _, name := range names {
			if err := sender.list(ctx, name, func(alert *listed) { found = append(found, alert) }); err != nil {
				return err
			}
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, alert := range found {
			known.adopt(alert.Labels, alert.StartsAt, n.clock.Now())
		}
		made.queue.review()
		n.findEnded(made, "")
		return nil
	}
	return made
}

// run works until ctx ends. watch runs a scope.
func (n *notifier) run(ctx context.Context, watch func(context.Context, *scope) error, grants asker) error {
	running, runs := errgroup.WithContext(ctx)
	for _, b := range n.boxes {
		running.Go(func() error {
			b.run(runs)
			return nil
		})
	}
	for _, s := range n.scopes {
		running.Go(func() error { return watch(runs, s) })
	}
	running.Go(func() error {
		n.tick(runs)
		return nil
	})
	running.Go(func() error {
		n.clearDoubts(runs, grants)
		return nil
	})
	return running.Wait()
}

// see takes in a server; mu is held.
func (n *notifier) see(s *sighting, at time.Time, initial bool) {
	before := n.engine.servers[s.NamespacedName]
	n.engine.see(s, at, initial)
	if s.host == nil && before != nil && before.host != nil {
		n.hidden[s.Namespace] = true
		wake(n.doubt)
	}
	if s.host == nil && (initial || before != nil && before.uid == s.uid && isUnknown(before)) {
		n.inDoubt(s.NamespacedName)
	}
}

func isUnknown(s *sighting) bool {
	status := s.status()
	return status != nil && *status == v1alpha1.HostStatusUnknown
}

// inDoubt asks whether a server has left UNKNOWN or may not be seen; mu is held.
func (n *notifier) inDoubt(name types.NamespacedName) {
	n.doubts[name] = true
	wake(n.doubt)
}

// ending is the end of something that a sink knows, and that was found gone.
type ending struct {
	box box
	key slotKey
}

// findEnded looks for what a sink knows and what is not there any more, in a namespace or, with
// "", in all; mu is held. Servers can be deleted while nothing is watched.
func (n *notifier) findEnded(b box, namespace string) {
	b.told(func(key slotKey, last *state) {
		r := n.routes[routeKey{b.sink(), key.route}]
		in, _, _ := parseSubject(key.subject)
		if r == nil || namespace != "" && in != namespace || !n.sees(in) {
			return
		}
		sub := r.subjects[key.subject]
		switch {
		case sub == nil:
			n.endings[ending{b, key}] = last
			wake(n.doubt)
		case !sub.shown && b.wasUnknown(key):
			// It may have left UNKNOWN while nobody watched.
			for name := range sub.members {
				n.inDoubt(name)
			}
		}
	})
}

// finish tells a sink of an ending, if the right to see the host status of such servers is
// there; mu is held.
func (n *notifier) finish(e ending, last *state, all, unknown bool) {
	r := n.routes[routeKey{e.box.sink(), e.key.route}]
	in, server, hostID := parseSubject(e.key.subject)
	switch {
	case r.subjects[e.key.subject] != nil || !n.sees(in):
		return // It is back, or not known any more to be gone.
	case !all && (!unknown || !e.box.wasUnknown(e.key)):
		e.box.forget(e.key)
		return
	}
	said := &state{route: r, namespace: in, server: server, hostID: hostID, end: endDeleted, at: n.clock.Now()}
	if last != nil {
		said.uid, said.version, said.newest = last.uid, last.version, last.newest
		said.sequence = last.version
	}
	if r.group {
		said.sequence = n.engine.newest
	}
	if n.engine.servers[types.NamespacedName{Namespace: in, Name: server}] != nil {
		said.end = endLeft
	}
	said.facts = string(said.end)
	e.box.want(e.key, said)
}

// parseSubject takes the key of a subject apart.
func parseSubject(key string) (namespace, server, hostID string) {
	if namespace, server, ok := strings.Cut(key, "/"); ok {
		return namespace, server, ""
	}
	namespace, hostID, _ = strings.Cut(key, "#")
	return namespace, "", hostID
}

// sees reports whether all servers of a namespace are known; mu is held.
func (n *notifier) sees(namespace string) bool {
	for _, s := range n.scopes {
		if s.namespace == "" || s.namespace == namespace {
			return s.synced
		}
	}
	return false
}

// tick hands out what has lasted long enough, when it has.
func (n *notifier) tick(ctx context.Context) {
	for ctx.Err() == nil {
		n.mu.Lock()
		now := n.clock.Now()
		n.engine.tick(now)
		next, ok := n.engine.next()
		n.mu.Unlock()
		await(ctx, n.clock, n.timer, next.Sub(now), ok)
	}
}

// wakeTimer lets tick look again; mu is held.
func (n *notifier) wakeTimer() {
	if len(n.engine.timers) > 0 {
		wake(n.timer)
	}
}

// shown counts the servers whose host status is shown, and those whose is not; mu is held.
func (n *notifier) shown() (shown, hidden int) {
	for _, s := range n.engine.servers {
		if s.host != nil {
			shown++
		} else {
			hidden++
		}
	}
	return shown, hidden
}
