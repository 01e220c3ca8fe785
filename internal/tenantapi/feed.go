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
	"unique"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

const (
	// historyLength is how many changes a watcher may be behind. 15,000 servers can change
	// at once twice, by their hosts and then by their copies, and each watcher still gets
	// every change.
	historyLength = 1 << 16
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
	// namespace is that of the server. record sets it.
	namespace unique.Handle[string]
	// base and host report which of the two parts of the server changed, and joined that its
	// ComputeService did, not itself.
	base, host, joined bool
	// settles is set if another replica may have shown something else of the host until then,
	// whatever this one has, so that it is sent to whoever may see any of it.
	settles bool
}

// size is about how many bytes the history takes for it: what is only in old.
func (c *change) size() int {
	if c.old == nil || c.base {
		return c.old.size()
	}
	return recordSize
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
	// heard is when the watch last brought something, and hostsHeard that of the hosts.
	heard, hostsHeard time.Time
	// current has the servers of each namespace that has any, by name.
	current map[string]map[string]*record
	// versions are the current versions and those in the history, by their
	// resourceVersion: no two writes have the same one.
	versions map[uint64]*record
	// uids are the servers in current, by their uid.
	uids map[types.UID]*record
	// onHost has the keys of the servers that name a host. taken has the hosts as they were
	// taken in, and waiting what is to be, in the order in which it came.
	onHost  map[string]map[key]struct{}
	taken   map[string]*takenHost
	waiting []hostNews
	// settled is a version, 10 to 20 minutes old: what was taken in by then every replica
	// has told. latestAtStrike becomes the next one.
	settled, latestAtStrike uint64
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
	// wake is closed, and another made, when there is more to read. A watch of one namespace,
	// of which there can be thousands, waits for its own instead: woken has them.
	wake  chan struct{}
	woken map[unique.Handle[string]]chan struct{}
	// lately is how many changes came since all were woken, and latelySize their bytes.
	lately, latelySize int
	// maxRead bounds how many changes a watcher takes at once.
	maxRead int
}

func newFeed(p *projector, c clock.PassiveClock, log logr.Logger) *feed {
	return &feed{
		projector: p,
		clock:     c,
		log:       log,
		heard:     c.Now(),
		current:   map[string]map[string]*record{},
		versions:  map[uint64]*record{},
		uids:      map[types.UID]*record{},
		onHost:    map[string]map[key]struct{}{},
		taken:     map[string]*takenHost{},
		newest:    map[string]versions{},
		wake:      make(chan struct{}),
		woken:     map[unique.Handle[string]]chan struct{}{},
		maxRead:   256,

		hostsHeard: c.Now(),
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
	if rv <= f.latest {
		return nil
	}
	f.joinAgain(f.takeIn(rv), rv)
	f.latest = rv
	f.wakeAll()
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
	before := f.current
	f.current = make(map[string]map[string]*record, len(before))
	clear(f.versions)
	clear(f.uids)
	clear(f.newest)
	clear(f.onHost)
	f.quiet, f.struck = rv, 0
	maps.DeleteFunc(f.taken, func(_ string, t *takenHost) bool { return t.Version > rv }) // etcd was restored.
	// What follows joins all.
	_ = f.takeIn(rv)
	for _, r := range records {
		r.shownAt, r.copiedAt = versions{rv, rv, rv}, r.rv
		r.moved = !r.stored.Current
		f.join(r, before[r.known.namespace][r.known.name])
		f.set(r)
	}
	f.start, f.latest, f.synced = rv, rv, true
	f.wakeAll()
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
	var taken []hostNews
	if rv > f.latest {
		taken = f.takeIn(rv)
	}
	c := change{rv: rv, old: old, new: r, base: true, host: true}
	if r != nil {
		f.join(r, old)
		r.since, r.copiedAt = rv, rv
	}
	if old != nil && r != nil {
		if old.is(r) && old.stored.Version == r.stored.Version {
			r.copiedAt = old.copiedAt
		}
		r.moved = !r.stored.Current && (old.moved || old.on != r.on)
		c.settles = old.moved && r.stored.Current || old.stored.Version != 0 && r.stored.Version == 0
		c.base, c.host = !sameBase(old, r), !hoststatus.SameFields(old.host, r.host)
		if !c.base {
			r.base = old.base // Shared, so that a change of the host costs no copy of the server.
		}
	}
	// The server itself comes first of all that is of this version. A client that is cut off
	// in the midst of it, and comes back with it, is told again what became of hosts (owed),
	// and nothing else.
	f.record(c)
	f.joinAgain(taken, rv)
	f.latest = max(f.latest, rv)
	f.broadcast()
	if f.lately > historyLength/8 || f.latelySize > historySize/8 {
		f.wakeAll()
	}
}

// record makes a change the newest of the history.
func (f *feed) record(c change) {
	f.show(&c)
	if k := c.known(); c.new == nil {
		f.leaveHost(c.old)
		delete(f.current[k.namespace], k.name)
		delete(f.uids, c.old.base.UID)
		if len(f.current[k.namespace]) == 0 {
			delete(f.current, k.namespace)
		}
	} else {
		f.set(c.new)
	}
	c.namespace = unique.Make(c.known().namespace)
	f.history = append(f.history, c)
	size := c.size()
	f.size += size
	f.lately++
	f.latelySize += size
	if wake := f.woken[c.namespace]; wake != nil {
		close(wake)
		delete(f.woken, c.namespace)
	}
	if len(f.history) > historyLength || f.size > historySize {
		f.trim()
	}
}

func (f *feed) set(r *record) {
	old := f.current[r.known.namespace][r.known.name]
	if old == nil || old.on != r.on {
		f.leaveHost(old)
		f.enterHost(r)
	}
	if old != nil && old.base.UID != r.base.UID { // It was deleted and made again.
		delete(f.uids, old.base.UID)
	}
	f.uids[r.base.UID] = r
	servers := f.current[r.known.namespace]
	if servers == nil {
		servers = map[string]*record{}
		f.current[r.known.namespace] = servers
	}
	servers[r.known.name], f.versions[r.rv] = r, r
}

func (f *feed) enterHost(r *record) {
	if r.on == "" {
		return
	}
	if f.onHost[r.on] == nil {
		f.onHost[r.on] = map[key]struct{}{}
	}
	f.onHost[r.on][r.known] = struct{}{}
}

func (f *feed) leaveHost(r *record) {
	if r == nil || r.on == "" {
		return
	}
	delete(f.onHost[r.on], r.known)
	if len(f.onHost[r.on]) == 0 {
		delete(f.onHost, r.on)
		f.forgetIfGone(r.on)
	}
}

// trim forgets the oldest changes, an eighth of what there may be.
func (f *feed) trim() {
	n := 0
	for ; len(f.history)-n > historyLength*7/8 || n < len(f.history) && f.size > historySize*7/8; n++ {
		c := &f.history[n]
		f.size -= c.size()
		switch {
		case c.joined:
			c.new.before = nil
		case c.old != nil:
			delete(f.versions, c.old.rv)
		}
	}
	f.start = f.history[n-1].rv
	f.sequence += uint64(n) // n is a length
	f.history = slices.Clone(f.history[n:])
	f.hush(f.margin())
}

// broadcast wakes whoever waits for what comes in any namespace.
func (f *feed) broadcast() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// wakeAll wakes all watches, also those in whose namespace nothing has happened: their place
// in the history must move before it is forgotten.
func (f *feed) wakeAll() {
	f.broadcast()
	for _, wake := range f.woken {
		close(wake)
	}
	clear(f.woken)
	f.lately, f.latelySize = 0, 0
}

// wakeOf returns what is closed when something comes in namespace, or in any if it is
// noNamespace.
func (f *feed) wakeOf(namespace unique.Handle[string]) <-chan struct{} {
	if namespace == noNamespace {
		return f.wake
	}
	wake := f.woken[namespace]
	if wake == nil {
		wake = make(chan struct{})
		f.woken[namespace] = wake
	}
	return wake
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

// byUID returns the server of namespace, or of any if it is "", that has this uid, nil if
// there is none, and the resourceVersion that this is of. A uid is never that of another
// server, in another namespace or of another name.
func (f *feed) byUID(namespace string, uid types.UID) (r *record, rv uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r = f.uids[uid]; r != nil && namespace != "" && namespace != r.known.namespace {
		r = nil
	}
	return r, f.latest
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
// there may be more once wake is closed, and at is 0. If it finds all, they are as of the
// version at, the newest that is known and not newer than asOf.
func (f *feed) find(versions []uint64, asOf uint64, found []*record) (at uint64, wake <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	complete := true
	for i, rv := range versions {
		if r := f.versions[rv]; r != nil {
			found[i] = r
		}
		complete = complete && found[i] != nil
	}
	if !complete {
		return 0, f.wake
	}
	at = min(asOf, f.latest)
	for i, r := range found {
		found[i] = r.asOf(at)
	}
	return at, f.wake
}

// cursor is a place in the history.
type cursor struct{ epoch, next uint64 }

// end is the number that the next change will have.
func (f *feed) end() uint64 { return f.sequence + uint64(len(f.history)) }

// endsAt reports whether there is nothing to read at the place c.
func (f *feed) endsAt(c cursor) bool { return c == cursor{f.epoch, f.end()} }

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
	// wake is closed when there is more. It is nil if there is more already.
	wake <-chan struct{}
}

// closed is returned where there is more already.
var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// noNamespace is given where what is asked for can be in any.
var noNamespace = unique.Make("")

// next returns the changes from the place c on that are in namespace, and moves it.
func (f *feed) next(c *cursor, namespace unique.Handle[string]) (read, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.epoch != f.epoch || c.next < f.sequence {
		return read{}, apierrors.NewResourceExpired("too old resource version: the watch fell behind, or changes may have been missed; list again")
	}
	r := read{latest: f.latest}
	for rest := f.history[c.next-f.sequence:]; len(rest) > 0; rest = rest[1:] {
		if len(r.changes) == f.maxRead {
			r.latest = r.changes[len(r.changes)-1].rv
			return r, nil
		}
		if namespace == noNamespace || rest[0].namespace == namespace {
			r.changes = append(r.changes, rest[0])
		}
		c.next++
	}
	r.wake = f.wakeOf(namespace)
	return r, nil
}

// at returns the servers as they are at the place c; ok is false while there is
// more to read first.
func (f *feed) at(c cursor, namespace string) (records []*record, latest uint64, ok bool) {
	f.mu.Lock()
	if !f.endsAt(c) {
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
