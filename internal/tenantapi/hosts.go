// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"fmt"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// A host that changes is one write, which the copies in its servers follow one by one. So
// the feed joins: what a server shows of its host is the newer of its copy and the
// ComputeService.
//
// The history stays in the order of resourceVersions, by which any replica finds the place
// of a client. A ComputeService of version r is therefore taken in only when the watch of
// the servers has brought something of a version x > r, such as the first copy, and at that
// version: whoever is told x has been told everything before it.
//
// Two replicas can take in a ComputeService at different versions, and one of them not at
// all for a while. So a client that comes back with a version may have been told less, by
// another replica, than this one knew at that version. It is told again what it may have
// missed (owed).

// heardHost is what a ComputeService says of a host.
type heardHost struct {
	hoststatus.Host
	// same is the newest version that says the same, 0 if that is its own.
	same uint64
	// gone is set if the ComputeService has been deleted. Its servers show what they did
	// until the copies say that.
	gone bool
}

// covers reports whether news say what h does: not what servers show of the host has changed,
// but something else of its ComputeService, such as a label. Such news are as if they had never
// been. Or each watch that begins later would be told again of all servers on the host, whose
// copies stay as they are. Of a list only the version that is known already is such news.
func (h *heardHost) covers(n *hostNews) bool {
	switch {
	case n.gone || h.gone || !hoststatus.SameFields(h.Fields, n.Fields):
		return false
	case n.listed:
		return n.Version == h.same
	}
	if n.Version > h.Version {
		h.same = n.Version
	}
	return true
}

// takenHost is a host as it was taken in.
type takenHost struct {
	heardHost
	// at is the version at which it was taken in, and unknown the last one at which it was
	// UNKNOWN, or may have been.
	at, unknown uint64
}

// hostNews is a ComputeService that is to be taken in.
type hostNews struct {
	name string
	heardHost
	// listed is set if it comes from a list: it holds even if it is older than what was
	// known, because etcd was restored, and what happened in between is not known.
	listed bool
}

// maxWaitingHosts is how many news of hosts wait, beside one for each host, before all but the
// newest of each host are dropped.
const maxWaitingHosts = 1 << 10

// hostStore takes what the watch of the ComputeServices brings.
type hostStore struct{ feed *feed }

// Add implements cache.ReflectorStore.
func (s hostStore) Add(obj any) error { return s.put(obj, false) }

// Update implements cache.ReflectorStore.
func (s hostStore) Update(obj any) error { return s.put(obj, false) }

// Delete implements cache.ReflectorStore.
func (s hostStore) Delete(obj any) error { return s.put(obj, true) }

// Resync implements cache.ReflectorStore.
func (s hostStore) Resync() error { return nil }

func (s hostStore) put(obj any, gone bool) error {
	news, ok, err := readHost(obj)
	if err != nil {
		return err
	}
	news.gone = gone
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.feed.hostsHeard = s.feed.clock.Now()
	if ok || gone {
		s.feed.await(news)
	}
	return nil
}

// Bookmark implements cache.ReflectorBookmarkStore.
func (s hostStore) Bookmark(string) error {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.feed.hostsHeard = s.feed.clock.Now()
	return nil
}

// Replace implements cache.ReflectorStore.
func (s hostStore) Replace(objects []any, resourceVersion string) error {
	rv, err := parseResourceVersion(resourceVersion)
	if err != nil {
		return fmt.Errorf("reading the list of ComputeServices: %w", err)
	}
	listed := make(map[string]bool, len(objects))
	var waiting []hostNews
	for _, obj := range objects {
		news, ok, err := readHost(obj)
		if err != nil {
			return err
		}
		listed[news.name] = true
		if news.listed = true; ok {
			waiting = append(waiting, news)
		}
	}
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hostsHeard = f.clock.Now()
	for name := range f.taken {
		if !listed[name] {
			waiting = append(waiting, hostNews{name: name, heardHost: heardHost{Host: hoststatus.Host{Version: rv}, gone: true}, listed: true})
		}
	}
	f.waiting = waiting
	return nil
}

// readHost reads a ComputeService. ok is false while its status does not reflect its spec:
// then it brings no news.
func readHost(obj any) (news hostNews, ok bool, err error) {
	service, isService := obj.(*computev1alpha1.ComputeService)
	if !isService {
		return news, false, fmt.Errorf("the watch of ComputeServices brought a %T", obj)
	}
	news.name = service.Name
	if news.Version, err = parseResourceVersion(service.ResourceVersion); err != nil {
		return news, false, fmt.Errorf("reading a ComputeService: %w", err)
	}
	news.Fields, ok = hoststatus.ForServer(service.Name, service)
	return news, ok, nil
}

// await keeps news until the servers' watch has passed them.
func (f *feed) await(news hostNews) {
	f.waiting = append(f.waiting, news)
	most := maxWaitingHosts + 2*len(f.taken)
	if len(f.waiting) <= most {
		return
	}
	f.dropRepeated()
	if len(f.waiting) <= most/2 { // Each time much is dropped, so that this is done seldom.
		return
	}
	last := make(map[string]int, len(f.taken))
	for i, n := range f.waiting {
		last[n.name] = i
	}
	var newest []hostNews
	for i, n := range f.waiting {
		if last[n.name] == i {
			n.listed = true // What is dropped may have been anything.
			newest = append(newest, n)
		}
	}
	f.waiting = newest
}

// dropRepeated drops the news that wait and bring nothing.
func (f *feed) dropRepeated() {
	last := make(map[string]*heardHost, len(f.taken))
	kept := f.waiting[:0]
	for _, n := range f.waiting {
		before := last[n.name]
		if t := f.taken[n.name]; before == nil && t != nil {
			before = &t.heardHost
		}
		if before != nil && before.covers(&n) {
			continue
		}
		kept = append(kept, n)
		last[n.name] = &kept[len(kept)-1].heardHost
	}
	clear(f.waiting[len(kept):])
	f.waiting = kept
}

// takeIn takes in what waits and is older than rv, which the servers' watch has brought, and
// returns what has changed by it, for joinAgain.
func (f *feed) takeIn(rv uint64) (taken []hostNews) {
	if len(f.taken) > 0 && f.clock.Since(f.hostsHeard) > feedPatience {
		// Nobody knows what has become of the hosts. The copies say it.
		f.log.Info("The watch of the ComputeServices brings nothing; servers show what is stored in them", "for", f.clock.Since(f.hostsHeard))
		for name := range f.taken {
			taken = append(taken, hostNews{name: name})
		}
		clear(f.taken)
	}
	if len(f.waiting) == 0 {
		return taken
	}
	kept := f.waiting[:0]
	for _, news := range f.waiting {
		switch {
		case news.Version > rv:
			kept = append(kept, news)
		case f.take(news, rv):
			taken = append(taken, news)
		}
	}
	clear(f.waiting[len(kept):])
	f.waiting = kept
	return taken
}

// take takes in one host at version rv, and reports whether its servers may show something
// else by it.
func (f *feed) take(news hostNews, rv uint64) bool {
	before := f.taken[news.name]
	switch {
	case before == nil && news.gone:
		return false
	case before != nil && before.Version >= news.Version && (!news.listed || before.Version == news.Version):
		return false // It was sent again after the connection broke.
	case before != nil && before.covers(&news):
		return false
	case news.gone:
		before.gone = true
		f.forgetIfGone(news.name)
		return false
	}
	now := &takenHost{heardHost: news.heardHost, at: rv}
	switch {
	case news.unknown() || before != nil && grantUnknown.shows(before.Fields.HostStatus):
		now.unknown = rv
	case before != nil:
		now.unknown = before.unknown
	}
	f.taken[news.name] = now
	return true
}

// unknown reports whether the host is UNKNOWN, or may have been.
func (n *hostNews) unknown() bool { return n.listed || grantUnknown.shows(n.Fields.HostStatus) }

// joinAgain adds to the history, at version rv, what the servers on the hosts that were
// taken in show from now on.
func (f *feed) joinAgain(taken []hostNews, rv uint64) {
	for _, news := range taken {
		for k := range f.onHost[news.name] {
			old := f.current[k.namespace][k.name]
			r := *old
			f.join(&r, old)
			if hoststatus.SameFields(r.host, old.host) {
				continue
			}
			r.since, r.before, r.shownAt = rv, old, versions{rv, rv, rv}
			f.record(change{rv: rv, old: old, new: &r, host: true, joined: true})
		}
		if news.unknown() {
			f.settle(news, rv)
		}
	}
}

// settle adds to the history what the servers on a host show, if others may have been
// shown something else that this replica never had: a list leaves out what was in between,
// and of a host that was UNKNOWN the copies can be faster than the watch of the hosts.
func (f *feed) settle(news hostNews, rv uint64) {
	for k := range f.onHost[news.name] {
		if r := f.current[k.namespace][k.name]; news.listed || !grantUnknown.shows(r.host.HostStatus) {
			f.record(change{rv: rv, old: r, new: r, joined: true, settles: true})
		}
	}
}

// forgetIfGone forgets a host that is gone, if no servers are on it.
func (f *feed) forgetIfGone(name string) {
	if t := f.taken[name]; t != nil && t.gone && len(f.onHost[name]) == 0 {
		delete(f.taken, name)
	}
}

// join decides what r shows of its host. old is what was known of the server before, nil if
// nothing was.
func (f *feed) join(r, old *record) {
	stored := &r.stored
	if !stored.Current && old.is(r) && hoststatus.SameFields(stored.Fields, old.stored.Fields) {
		// It may have moved. What it showed holds until its controller has looked at it, which
		// may be newer than what is stored.
		r.host = old.host
		return
	}
	t := f.taken[r.on]
	if t == nil {
		r.host = stored.Fields
		return
	}
	r.host = hoststatus.Join(*stored, &t.Host)
	if grantUnknown.shows(stored.Fields.HostStatus) && !grantUnknown.shows(r.host.HostStatus) {
		t.unknown = max(t.unknown, t.at) // By the copy, even if the host was not known here then.
	}
}

// owed returns the servers of namespace, or of all if it is "", of which a client may have
// been told something else up to version rv: their host was taken in lately, and the copy
// came later or not at all. While the place c is before rv, or there is more to read first,
// that is not known: later is closed when it may be.
func (f *feed) owed(c cursor, namespace string, rv uint64) (owed []owedServer, later <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.latest < rv:
		return nil, f.wake
	case !f.endsAt(c):
		return nil, closed
	}
	for _, r := range f.listLocked(namespace) {
		t := f.taken[r.on]
		if t == nil || t.at <= f.settled || r.stored.Version >= t.Version && r.copiedAt <= rv {
			continue
		}
		owed = append(owed, owedServer{r, t.unknown > f.settled})
	}
	return owed, nil
}

// owedServer is a server that a client has to be told again.
type owedServer struct {
	*record
	// unknown is set if the client may have been told that it is UNKNOWN.
	unknown bool
}
