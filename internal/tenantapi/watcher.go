// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"
	"unique"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

const (
	// recheckInterval is how often a running watch asks again what it may show, and
	// how old the answer may be when an event is made.
	recheckInterval = 3 * time.Second
	// bookmarkInterval is that of Kubernetes' own bookmarks.
	bookmarkInterval = time.Minute
	// watchBuffer is how many events wait for a client that is slow to take them;
	// slowWatcherTimeout is when waiting ends, and the watch with it. What waits
	// was granted when it was put there: both keep a revoked grant's tail short.
	watchBuffer        = 32
	slowWatcherTimeout = 5 * time.Second
	// gatherInterval is how often a watch in a storm sends what has come since. Most of the
	// work of a storm is not in the events but in each piece of a stream, which wakes this
	// process, kube-apiserver and the client. Outside of storms nothing waits: the first
	// eagerSends that follow each other within gatherInterval are sent at once.
	gatherInterval = 50 * time.Millisecond
	eagerSends     = 4
)

// watcher is one running watch. Its goroutine reads the feed at its own pace and
// alone writes to result, which it closes at its end.
type watcher struct {
	feed   *feed
	ask    func(context.Context) (grantSet, error)
	askOne func(ctx context.Context, namespace string) (grant, error)
	clock  clock.WithTicker
	log    logr.Logger
	// shared has what other watches were sent.
	shared *sharing
	// gather is gatherInterval; sent is when the last event was sent, and sends how often
	// events were, each within gather of those before.
	gather time.Duration
	sent   time.Time
	sends  int

	namespace string
	selectors selectors
	bookmarks bool
	// initial are the servers to begin with; initialEnd asks for the bookmark that marks
	// their end.
	initial    []*record
	initialEnd bool
	// seat is that of the list which the watch begins with, zero if it begins with none.
	seat listSeat
	// rv is the resourceVersion that the client has seen everything up to. It may
	// be ahead of the feed.
	rv uint64
	// told is the newest resourceVersion that the client knows: that of the newest change
	// that it could see, or the one that it came with.
	told uint64
	// joined is the version up to which the client has seen what hosts became; owes is set if
	// it may have been told so by another replica, which may have known less.
	joined uint64
	owes   bool
	name   string
	cursor cursor
	grants grantSet
	// checked is when grants were last known to hold, or asked for.
	checked time.Time
	// newColumns is set if the next event must bring the table's new columns.
	newColumns bool

	result chan watch.Event
	cancel context.CancelFunc
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

// run sends events until ctx ends, or the watch cannot go on.
func (w *watcher) run(ctx context.Context) {
	defer close(w.result)
	defer w.cancel()
	for i, r := range w.initial {
		if ended(ctx, i) != nil {
			return
		}
		if g := w.grants.in(r.known.namespace); w.selectors.matches(r, g) && !w.send(ctx, watch.Added, r, g, r.shownAt[g]) {
			return
		}
	}
	w.initial = nil
	if w.initialEnd && !w.sendBookmark(ctx, true) {
		return
	}
	w.seat.Release()
	// Watches that began together should not ask together. All ask a little early, so
	// that a watch that keeps up never has to ask between two events.
	recheck := w.clock.NewTicker(recheckInterval*19/20 - time.Duration(rand.Int64N(int64(recheckInterval/10)))) // no secret
	defer recheck.Stop()
	bookmark := w.clock.NewTicker(bookmarkInterval - time.Duration(rand.Int64N(int64(bookmarkInterval/10)))) // no secret
	defer bookmark.Stop()
	for {
		wake, ok := w.catchUp(ctx)
		if ok && w.owes {
			wake, ok = w.tellOwed(ctx, wake)
		}
		if !ok {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
			if !w.gatherMore(ctx) {
				return
			}
		case <-recheck.C():
			if !w.recheck(ctx) {
				return
			}
		case <-bookmark.C():
			if w.bookmarks && !w.sendBookmark(ctx, false) {
				return
			}
		}
	}
}

// catchUp sends what the feed has, and returns what is closed when there is more.
func (w *watcher) catchUp(ctx context.Context) (wake <-chan struct{}, ok bool) {
	namespace := unique.Make(w.namespace)
	for {
		r, err := w.feed.next(&w.cursor, namespace)
		if err != nil {
			w.fail(ctx, err)
			return nil, false
		}
		for i := range r.changes {
			if ended(ctx, i) != nil || !w.tell(ctx, &r.changes[i]) {
				return nil, false
			}
		}
		w.rv = max(w.rv, r.latest)
		if r.wake != nil {
			return r.wake, true
		}
	}
}

// gatherMore waits, in a storm, for more that can be sent together. It returns false if the
// watch has ended.
func (w *watcher) gatherMore(ctx context.Context) bool {
	wait := w.gather - w.clock.Since(w.sent)
	if wait <= 0 {
		w.sends = 0
		return true
	}
	if w.sends++; w.sends < eagerSends {
		return true
	}
	timer := w.clock.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// tell sends the event, if any, that a change makes for this caller.
func (w *watcher) tell(ctx context.Context, c *change) bool {
	if c.rv <= w.rv && (!c.joined || c.rv <= w.joined) {
		return true // The client's list has it already.
	}
	namespace := c.namespace.Value()
	g, known := w.grants.lookup(namespace)
	if !known {
		var err error
		if g, err = w.askOne(ctx, namespace); err != nil {
			// Hidden until the next look, which ends the watch if it fails too.
			w.log.Error(err, "Checking a grant failed; host status is hidden", "namespace", namespace)
		}
		w.grants.byNamespace[namespace] = g
		w.setColumn(w.grants.any())
	}
	if c.visible(g) && (w.name == "" || c.known().name == w.name) {
		w.told = max(w.told, c.rv)
	}
	before := c.old != nil && w.selectors.matches(c.old, g)
	after := c.new != nil && w.selectors.matches(c.new, g)
	switch {
	case !before && after:
		return w.sendChange(ctx, watch.Added, c.new, g, c.rv)
	case before && !after:
		return w.sendChange(ctx, watch.Deleted, c.old, g, c.rv)
	case before && after && c.visible(g):
		return w.sendChange(ctx, watch.Modified, c.new, g, c.rv)
	}
	return true
}

// tellOwed sends again what another replica may not have told the client before it came
// here, once the feed knows everything up to the version with which it came. It returns what
// is closed when there is more: wake, or if the feed does not know that yet, any change.
func (w *watcher) tellOwed(ctx context.Context, wake <-chan struct{}) (<-chan struct{}, bool) {
	owed, later := w.feed.owed(w.cursor, w.namespace, w.joined)
	if later != nil {
		return later, true
	}
	w.owes = false
	for i, r := range owed {
		if ended(ctx, i) != nil {
			return nil, false
		}
		g, known := w.grants.lookup(r.known.namespace)
		if !known || g == grantNone || g == grantUnknown && !r.unknown {
			continue
		}
		event := watch.Modified
		if !w.selectors.matches(r.record, g) {
			if !w.selectors.onHost || !w.selectors.matchesBase(r.record) {
				continue
			}
			event = watch.Deleted
		}
		if !w.send(ctx, event, r.record, g, w.told) {
			return nil, false
		}
	}
	return wake, true
}

// recheck asks again what the caller may see, and sends what that changes. It returns
// false if the watch cannot go on.
func (w *watcher) recheck(ctx context.Context) bool {
	now, ok := w.look(ctx)
	if !ok {
		return false
	}
	if err := w.selectors.admit(now.wide()); err != nil {
		w.fail(ctx, apierrors.NewResourceExpired(err.Error()))
		return false
	}
	if now.same(w.grants) {
		return true
	}
	var servers []*record
	var latest uint64
	for {
		if _, ok := w.catchUp(ctx); !ok {
			return false
		}
		var ok bool
		if servers, latest, ok = w.feed.at(w.cursor, w.namespace); ok {
			break
		}
	}
	before, told := w.grants, false
	now.column = before.column
	w.grants = now
	w.setColumn(now.any())
	for i, r := range servers {
		if ended(ctx, i) != nil {
			return false
		}
		old, known := before.lookup(r.known.namespace)
		g, asked := now.lookup(r.known.namespace)
		if !asked {
			// Its namespace came while we asked; what we knew of it still holds.
			g = old
			if known {
				w.grants.byNamespace[r.known.namespace] = g
			}
		}
		if old == g {
			continue
		}
		told = true
		if !w.tellGrant(ctx, r, old, g) {
			return false
		}
	}
	if !told {
		return true
	}
	// The feed may be behind what the client had listed. What was sent now is the
	// feed's, so everything that follows in it must be sent too.
	if latest < w.rv {
		w.rv, w.told = latest, min(w.told, latest)
		w.joined = min(w.joined, latest)
	}
	w.told = max(w.told, w.feed.place(w.namespace, w.name, w.grants, w.rv))
	// The events carried the resourceVersions of their servers, which lie in the
	// past. A bookmark brings the client's place back to the present.
	return !w.bookmarks || w.sendBookmark(ctx, false)
}

// tellGrant sends the event, if any, that a change of the grant from old to g makes
// of a server that has not changed.
func (w *watcher) tellGrant(ctx context.Context, r *record, old, g grant) bool {
	before, after := w.selectors.matches(r, old), w.selectors.matches(r, g)
	switch {
	case !before && after:
		return w.send(ctx, watch.Added, r, g, r.shownAt[g])
	case before && !after:
		return w.send(ctx, watch.Deleted, r, g, r.shownAt[g])
	case before && after && old.shows(r.host.HostStatus) != g.shows(r.host.HostStatus):
		return w.send(ctx, watch.Modified, r, g, r.shownAt[g])
	}
	return true
}

// look asks what the caller may see. Without an answer nothing is known to have changed:
// the watch ends without an error, and the client starts another.
func (w *watcher) look(ctx context.Context) (grantSet, bool) {
	asked := w.clock.Now()
	w.seat.Yield() // Others work while this one waits for reviews.
	now, err := w.ask(ctx)
	if err == nil {
		err = w.seat.Resume(ctx)
	}
	if err != nil {
		w.endUnchecked(ctx, err)
		return grantSet{}, false
	}
	// However long the answer took, there must be time to use it.
	w.checked = asked
	if late := w.clock.Now().Add(-recheckInterval / 2); late.After(asked) {
		w.checked = late
	}
	return now, true
}

func (w *watcher) endUnchecked(ctx context.Context, err error) {
	if ctx.Err() == nil {
		w.log.Error(err, "Rechecking the grants of a watch failed; ending it")
	}
}

// confirm returns false if what the caller may see has changed, or is not known, and the
// watch is over. It asks only if the last answer is old, which it is while a slow client,
// or a slow list, keeps the watch from its rechecks. What has changed cannot be sent
// then, because what happened before is still to be sent.
func (w *watcher) confirm(ctx context.Context) bool {
	if w.clock.Since(w.checked) <= recheckInterval {
		return true
	}
	now, ok := w.look(ctx)
	if !ok {
		return false
	}
	same := now.all == w.grants.all
	for namespace, g := range w.grants.byNamespace {
		current, known := now.lookup(namespace)
		if !known {
			// Its last server has gone, which this watch has yet to send.
			var err error
			if current, err = w.askOne(ctx, namespace); err != nil {
				w.endUnchecked(ctx, err)
				return false
			}
		}
		same = same && current == g
	}
	if !same {
		w.fail(ctx, apierrors.NewResourceExpired("what you may see has changed; list again"))
	}
	return same
}

func (w *watcher) setColumn(show bool) {
	if show != w.grants.column {
		w.grants.column, w.newColumns = show, true
	}
}

// send sends what a caller with grant g sees of r, as of the version rv.
func (w *watcher) send(ctx context.Context, event watch.EventType, r *record, g grant, rv uint64) bool {
	v := viewOf(r, g, rv)
	return w.confirm(ctx) && w.emit(ctx, watch.Event{Type: event, Object: w.columns(&v)})
}

// sendChange sends what a change brings, which other watches are sent, too.
func (w *watcher) sendChange(ctx context.Context, event watch.EventType, r *record, g grant, rv uint64) bool {
	w.sent = w.clock.Now()
	if w.newColumns {
		return w.send(ctx, event, r, g, rv)
	}
	return w.confirm(ctx) && w.emit(ctx, watch.Event{Type: event, Object: w.shared.view(sharedKey{r, g, rv, w.grants.column})})
}

func (w *watcher) sendBookmark(ctx context.Context, initialEnd bool) bool {
	// A client that comes back with this version is sent the changes since, which it could
	// not see.
	w.told = max(w.told, w.feed.silence(w.rv))
	v := &view{Server: v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(w.told, 10)}}}
	if initialEnd {
		v.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	return w.emit(ctx, watch.Event{Type: watch.Bookmark, Object: w.columns(v)})
}

func (w *watcher) columns(v *view) runtime.Object {
	v.hostColumn, v.newColumns = w.grants.column, w.newColumns
	w.newColumns = false
	return v
}

// fail ends the watch with an error that is sent to the client.
func (w *watcher) fail(ctx context.Context, err error) {
	var status *apierrors.StatusError
	if s, ok := err.(*apierrors.StatusError); ok { //nolint:errorlint // made here, never wrapped
		status = s
	} else {
		status = apierrors.NewInternalError(err)
	}
	w.emit(ctx, watch.Event{Type: watch.Error, Object: &status.ErrStatus})
}

// emit sends an event to the client, and returns false if the watch has ended.
func (w *watcher) emit(ctx context.Context, event watch.Event) bool {
	select {
	case w.result <- event:
		return true
	default:
	}
	timeout := w.clock.NewTimer(slowWatcherTimeout)
	defer timeout.Stop()
	// A slow client keeps no seat.
	patience := w.clock.NewTimer(readerPatience)
	defer patience.Stop()
	for {
		select {
		case w.result <- event:
			return w.seat.Resume(ctx) == nil
		case <-patience.C():
			w.seat.Yield()
		case <-timeout.C():
			w.log.Info("A watch client does not read its events; ending the watch")
			return false
		case <-ctx.Done():
			return false
		}
	}
}
