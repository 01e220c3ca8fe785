// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

const (
	// historyLength is how many changes a watcher may be behind. Twice 5,000 servers
	// can change at once, and each watcher still gets every change; 16,384 changes of
	// servers of 1 KiB are 16 MiB.
	historyLength = 1 << 14
	// historySize bounds the bytes of the old versions in it, about: a server can have
	// a thousand addresses.
	historySize = 64 << 20
)

// feedPatience is how long the watch of the servers may bring nothing before answers
// carry a warning. kube-apiserver sends a bookmark about once a minute, even while nothing
// changes, and a watch that brings none is opened again after 90 s.
const feedPatience = 150 * time.Second

// change is one step of one server from one version to the next. old is nil when
// it appears, new when it goes.
type change struct {
	rv       uint64
	old, new *record
	// base and host report which of the two parts of the server changed.
	base, host bool
}

// known returns the key of the server.
func (c *change) known() key {
	if c.new != nil {
		return c.new.known
	}
	return c.old.known
}

// feed holds the servers as a watch on the custom resource brings them, and the last
// changes. Unlike an event of that watch, a change has the server before and after it, so
// each watcher can send just what its caller sees of it, wherever the watch starts: a
// watch that is passed through does not know what its client has seen before. A reflector
// writes the feed; watchers read the history each at their own pace.
type feed struct {
	projector *projector
	clock     clock.PassiveClock
	log       logr.Logger

	mu     sync.Mutex
	synced bool
	// heard is when the watch last brought something.
	heard time.Time
	// current has the servers of each namespace that has any, by name.
	current map[string]map[string]*record
	// versions are the current versions and those in the history, by their
	// resourceVersion: no two writes have the same one.
	versions map[uint64]*record
	// history holds every change after the resourceVersion start, in order.
	history []change
	start   uint64
	// newest has the version of the newest change in each namespace that a caller could
	// see; quiet is the version that is reported where there is none, and struck the one
	// that follows it.
	newest map[string]versions
	quiet  uint64
	struck uint64
	// size is about how many bytes the old versions in it take.
	size int
	// latest is the resourceVersion up to which everything is known.
	latest uint64
	// sequence is the number of history[0], counted since the feed was made; epoch is the
	// number of times that the history started over.
	sequence, epoch uint64
	// wake is closed, and another made, when there is more to read.
	wake chan struct{}
}

func newFeed(p *projector, c clock.PassiveClock, log logr.Logger) *feed {
	return &feed{
		projector: p,
		clock:     c,
		log:       log,
		heard:     c.Now(),
		current:   map[string]map[string]*record{},
		versions:  map[uint64]*record{},
		newest:    map[string]versions{},
		wake:      make(chan struct{}),
	}
}

// Add implements cache.ReflectorStore.
func (f *feed) Add(obj any) error { return f.put(obj) }

// Update implements cache.ReflectorStore.
func (f *feed) Update(obj any) error { return f.put(obj) }

func (f *feed) put(obj any) error {
	r, err := f.read(obj)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = f.clock.Now()
	f.apply(r.rv, r.known, r)
	return nil
}

// Delete implements cache.ReflectorStore.
func (f *feed) Delete(obj any) error {
	r, err := f.read(obj)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = f.clock.Now()
	f.apply(r.rv, r.known, nil)
	return nil
}

// Bookmark implements cache.ReflectorBookmarkStore.
func (f *feed) Bookmark(resourceVersion string) error {
	rv, err := parseResourceVersion(resourceVersion)
	if err != nil {
		return fmt.Errorf("reading a bookmark: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = f.clock.Now()
	// Watchers are not woken: nothing has happened that they could send.
	f.latest = max(f.latest, rv)
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *feed) Resync() error { return nil }

// Replace implements cache.ReflectorStore. What happened between the last event and the
// list is not known, so the history starts over, and watchers with it.
func (f *feed) Replace(objects []any, resourceVersion string) error {
	rv, err := parseResourceVersion(resourceVersion)
	if err != nil {
		return fmt.Errorf("reading the list of servers: %w", err)
	}
	records := make([]*record, 0, len(objects))
	for _, object := range objects {
		r, err := f.read(object)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = f.clock.Now()
	f.sequence += uint64(len(f.history))
	f.history, f.size = nil, 0
	f.epoch++
	clear(f.current)
	clear(f.versions)
	clear(f.newest)
	f.quiet, f.struck = rv, 0
	for _, r := range records {
		r.shownAt = versions{rv, rv, rv}
		f.set(r)
	}
	f.start, f.latest, f.synced = rv, rv, true
	f.broadcast()
	return nil
}

func (f *feed) read(obj any) (*record, error) {
	server, ok := obj.(*computev1alpha1.Server)
	if !ok {
		return nil, fmt.Errorf("the watch of servers brought a %T", obj)
	}
	return f.projector.record(server)
}

// apply adds the step of k to version r, nil if it went, to the history.
func (f *feed) apply(rv uint64, k key, r *record) {
	old := f.current[k.namespace][k.name]
	if rv <= f.start || (old == nil && r == nil) || (old != nil && rv <= old.rv) {
		return // It was sent again after the connection broke.
	}
	c := change{rv: rv, old: old, new: r, base: true, host: true}
	if old != nil && r != nil {
		c.base, c.host = !sameBase(old, r), !hoststatus.SameFields(old.host, r.host)
	}
	f.show(&c)
	if r == nil {
		delete(f.current[k.namespace], k.name)
		if len(f.current[k.namespace]) == 0 {
			delete(f.current, k.namespace)
		}
	} else {
		f.set(r)
	}
	f.history = append(f.history, c)
	f.size += old.size()
	f.latest = max(f.latest, rv)
	if len(f.history) > historyLength || f.size > historySize {
		f.trim()
	}
	f.broadcast()
}

func (f *feed) set(r *record) {
	servers := f.current[r.known.namespace]
	if servers == nil {
		servers = map[string]*record{}
		f.current[r.known.namespace] = servers
	}
	servers[r.known.name], f.versions[r.rv] = r, r
}

// trim forgets the oldest changes, an eighth of what there may be.
func (f *feed) trim() {
	n := 0
	for ; len(f.history)-n > historyLength*7/8 || n < len(f.history) && f.size > historySize*7/8; n++ {
		if old := f.history[n].old; old != nil {
			delete(f.versions, old.rv)
			f.size -= old.size()
		}
	}
	f.start = f.history[n-1].rv
	f.sequence += uint64(n) // n is a length
	f.history = slices.Clone(f.history[n:])
	f.hush(f.margin())
}

func (f *feed) broadcast() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// stale returns a warning for callers that are answered from the feed, or "" if it is up
// to date as far as is known.
func (f *feed) stale() string {
	f.mu.Lock()
	silent := f.clock.Since(f.heard)
	f.mu.Unlock()
	if silent <= feedPatience {
		return ""
	}
	return fmt.Sprintf("servers may be out of date: the tenant API server has heard nothing of them for %s", silent.Round(time.Second))
}

// hasSynced reports whether the servers have been listed.
func (f *feed) hasSynced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced
}

// namespaces returns those that have servers, in order.
func (f *feed) namespaces() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.current))
}

// version returns the resourceVersion up to which everything is known.
func (f *feed) version() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest
}

// list returns the servers of namespace, or of all if it is "", in order, and the
// resourceVersion that they are of.
func (f *feed) list(namespace string) ([]*record, uint64) {
	f.mu.Lock()
	records, latest := f.listLocked(namespace), f.latest
	f.mu.Unlock()
	return inOrder(records), latest
}

// listLocked returns the servers of namespace, or of all if it is "", in no order.
func (f *feed) listLocked(namespace string) []*record {
	if namespace != "" {
		return slices.Collect(maps.Values(f.current[namespace]))
	}
	var records []*record
	for _, servers := range f.current {
		records = slices.AppendSeq(records, maps.Values(servers))
	}
	return records
}

func inOrder(records []*record) []*record {
	slices.SortFunc(records, func(a, b *record) int { return a.known.compare(b.known) })
	return records
}

// find looks up versions by their resourceVersion. What it does not find is nil; then
// there may be more once wake is closed.
func (f *feed) find(versions []uint64, found []*record) (complete bool, wake <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	complete = true
	for i, rv := range versions {
		if found[i] == nil {
			found[i] = f.versions[rv]
		}
		complete = complete && found[i] != nil
	}
	return complete, f.wake
}

// cursor is a place in the history.
type cursor struct{ epoch, next uint64 }

// open returns the place right after the resourceVersion rv.
func (f *feed) open(rv uint64) (cursor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rv < f.start {
		return cursor{}, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", rv, f.start))
	}
	i := sort.Search(len(f.history), func(i int) bool { return f.history[i].rv > rv })
	return cursor{epoch: f.epoch, next: f.sequence + uint64(i)}, nil // i is an index
}

// read is what a watcher gets of the feed at its place.
type read struct {
	changes []change
	// latest is the resourceVersion that the watcher has seen everything up to,
	// once it has seen changes.
	latest uint64
	// wake is closed when there is more.
	wake <-chan struct{}
}

// maxRead bounds how much a watcher takes at once.
const maxRead = 256

// next returns the changes from the place c on, and moves it.
func (f *feed) next(c *cursor) (read, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.epoch != f.epoch || c.next < f.sequence {
		return read{}, apierrors.NewResourceExpired("too old resource version: the watch fell behind, or changes may have been missed; list again")
	}
	rest := f.history[c.next-f.sequence:]
	r := read{latest: f.latest, wake: f.wake}
	if len(rest) > 0 {
		r.changes = slices.Clone(rest[:min(len(rest), maxRead)])
		r.latest = r.changes[len(r.changes)-1].rv
		c.next += uint64(len(r.changes))
	}
	return r, nil
}

// at returns the servers as they are at the place c; ok is false while there is
// more to read first.
func (f *feed) at(c cursor, namespace string) (records []*record, latest uint64, ok bool) {
	f.mu.Lock()
	if c.epoch != f.epoch || c.next != f.sequence+uint64(len(f.history)) {
		f.mu.Unlock()
		return nil, 0, false
	}
	records, latest = f.listLocked(namespace), f.latest
	f.mu.Unlock()
	return inOrder(records), latest, true
}

func (k key) compare(other key) int {
	return cmp.Or(cmp.Compare(k.namespace, other.namespace), cmp.Compare(k.name, other.name))
}
