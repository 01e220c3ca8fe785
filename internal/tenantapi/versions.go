// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"maps"
	"math"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// A resourceVersion counts every write, so anyone who is given a new one knows that
// something was written. Two servers whose versions move together share a host, whatever
// else is hidden. So a caller is given only versions of changes that it can see. A client
// that goes on from one misses nothing: what lies between it and the present is hidden
// from that caller.

// quietInterval is how often the version moves that is reported where nothing has
// changed. It has to move: if it became older than the history of this or another
// replica, every client of a quiet namespace would have to list again whenever a watch
// ends.
const quietInterval = 10 * time.Minute

// versions are the resourceVersions of the newest changes that a caller with each grant
// could see.
type versions [grantFull + 1]uint64

// visible reports whether a caller with grant g sees a difference between the two sides
// of a change.
func (c *change) visible(g grant) bool {
	if c.old == nil || c.new == nil {
		return true
	}
	before, after := g.shows(c.old.host.HostStatus), g.shows(c.new.host.HostStatus)
	return c.base || before != after || (after && c.host) || (c.settles && g != grantNone)
}

// concerns reports whether the change is of a server that a request is for: in namespace,
// or in any if that is "", and called name, or any if that is "".
func (c *change) concerns(namespace, name string) bool {
	k := c.known()
	return (namespace == "" || k.namespace == namespace) && (name == "" || k.name == name)
}

// show records with which grants a change can be seen.
func (f *feed) show(c *change) {
	namespace := c.known().namespace
	newest := f.newest[namespace]
	for g := range newest {
		if c.visible(grant(g)) {
			newest[g] = c.rv
		} else if c.new != c.old {
			c.new.shownAt[g] = c.old.shownAt[g]
		}
	}
	f.newest[namespace] = newest
}

// place returns the resourceVersion that is reported to the caller for the state at rv:
// that of the newest change up to rv that the caller could see, or if there is none, one
// that reveals nothing.
func (f *feed) place(namespace, name string, granted grantSet, rv uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := min(f.quiet, rv)
	if name == "" {
		exact := true
		take := func(namespace string, newest versions) {
			if at := newest[granted.in(namespace)]; at <= rv {
				v = max(v, at)
			} else {
				exact = false
			}
		}
		if namespace != "" {
			take(namespace, f.newest[namespace])
		} else {
			for namespace, newest := range f.newest {
				take(namespace, newest)
			}
		}
		if exact {
			return v
		}
	}
	for i := len(f.history) - 1; i >= 0 && f.history[i].rv > v; i-- {
		if c := &f.history[i]; c.rv <= rv && c.concerns(namespace, name) && c.visible(granted.in(c.known().namespace)) {
			return c.rv
		}
	}
	return v
}

// silence returns the version that is reported up to rv where nothing has changed.
func (f *feed) silence(rv uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return min(f.quiet, rv)
}

// strike moves the version that is reported where nothing has changed to the rv of the
// call before. rv is etcd's at a time that has nothing to do with the servers.
func (f *feed) strike(rv uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled, f.latestAtStrike = f.latestAtStrike, f.latest
	if f.struck <= f.latest {
		f.hush(f.struck)
	}
	f.struck = rv
}

// margin is a version that the history will still have for a while.
func (f *feed) margin() uint64 {
	if n := len(f.history); n > 0 {
		return max(f.start, f.history[n/4].rv)
	}
	return f.start
}

// hush moves the version that is reported where nothing has changed on to rv.
func (f *feed) hush(rv uint64) {
	f.quiet = max(f.quiet, rv)
	maps.DeleteFunc(f.newest, func(_ string, v versions) bool { return max(v[grantNone], v[grantUnknown], v[grantFull]) <= f.quiet })
}

// recognise returns r, which was not read from the feed, with the versions of the last
// changes that callers could see. certain is false if the feed may still bring one that a
// caller with grant g could see.
func (f *feed) recognise(r *record, g grant) (known *record, certain bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.versions[r.rv]; known.is(r) {
		return known, true
	}
	current := f.current[r.known.namespace][r.known.name]
	known = &record{}
	*known = *r
	f.join(known, current)
	if !current.is(r) {
		return known, false
	}
	c := change{old: current, new: known, base: !sameBase(current, r), host: !hoststatus.SameFields(current.host, known.host)}
	for level := range known.shownAt {
		if !c.visible(grant(level)) {
			known.shownAt[level] = current.shownAt[level]
			certain = certain || grant(level) == g
		}
	}
	return known, certain
}

// is reports whether both are of one server; r may be nil.
func (r *record) is(other *record) bool {
	return r != nil && r.known == other.known && r.base.UID == other.base.UID
}

// recognise does so for a server that a caller with grant g has asked for, and waits for
// the feed if it is about to bring it.
func (s *storage) recognise(ctx context.Context, r *record, g grant) *record {
	known, certain := s.feed.recognise(r, g)
	if certain {
		return known
	}
	if found, _, err := s.find(ctx, []uint64{r.rv}, math.MaxUint64); err == nil && found[0].is(r) {
		return found[0]
	}
	return known
}

// place returns the resourceVersion that is reported for a list. It is not older than
// asked, which its caller gave and knows.
func (s *storage) place(ctx context.Context, namespace, asked string, granted grantSet, p page) uint64 {
	if p.told != 0 {
		return p.told
	}
	v := s.feed.place(namespace, nameOf(ctx), granted, p.at)
	if rv, err := parseResourceVersion(asked); err == nil {
		v = max(v, min(rv, p.rv))
	}
	for _, r := range p.records { // The feed may be behind them.
		v = max(v, min(r.shownAt[granted.in(r.known.namespace)], p.rv))
	}
	return v
}

// keepQuiet moves, by the clock alone, the version that is reported where nothing has
// changed.
func (s *storage) keepQuiet(ctx context.Context) {
	ticker := s.clock.NewTicker(quietInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		page, err := s.upstream.list(ctx, "", metav1.ListOptions{Limit: 1})
		if err != nil {
			continue // Logged; the next time will do.
		}
		if rv, err := parseResourceVersion(page.ResourceVersion); err == nil {
			s.feed.strike(rv)
		}
	}
}

// notOlderThan returns the resourceVersion that the answer to a list must have at least,
// 0 if its caller asks for none, or for just one. kube-apiserver is not asked for it: it
// would wait for the next change of any server, and so reveal it. What it has now is
// newer, or the caller asks for what has not happened yet.
func notOlderThan(options *metainternalversion.ListOptions) (uint64, error) {
	switch options.ResourceVersionMatch {
	case metav1.ResourceVersionMatchNotOlderThan:
	case "":
		if options.Limit > 0 {
			return 0, nil // With a limit Kubernetes takes it to be the exact one.
		}
	default:
		return 0, nil
	}
	if options.ResourceVersion == "" || options.Continue != "" {
		return 0, nil
	}
	rv, err := parseResourceVersion(options.ResourceVersion)
	if err != nil {
		return 0, apierrors.NewBadRequest(err.Error())
	}
	return rv, nil
}

// readOne reads one server, in a version that is not older than resourceVersion.
func (s *storage) readOne(ctx context.Context, namespace, name, resourceVersion string) (*computev1alpha1.Server, error) {
	if resourceVersion == "" || resourceVersion == "0" {
		return s.upstream.get(ctx, namespace, name, resourceVersion)
	}
	atLeast, err := notOlderThan(&metainternalversion.ListOptions{ResourceVersion: resourceVersion})
	if err != nil {
		return nil, err
	}
	if atLeast > s.feed.version() {
		present, err := s.upstream.list(ctx, namespace, metav1.ListOptions{Limit: 1})
		if err != nil {
			return nil, err
		}
		if rv, err := parseResourceVersion(present.ResourceVersion); err != nil || rv < atLeast {
			return nil, tooNew()
		}
	}
	return s.upstream.get(ctx, namespace, name, "")
}

// tooNew is the answer to anyone who asks for what has not happened yet. kube-apiserver's
// answer names the newest change of any server.
func tooNew() error {
	err := apierrors.NewTimeoutError("Too large resource version: nothing that new has happened yet; try again, or ask without a resourceVersion", 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}
