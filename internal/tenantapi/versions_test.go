// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// told returns every version that ann gets by each way to ask, except one that she gives.
func (s testStorage) told(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, options := range map[string]metainternalversion.ListOptions{
		"a list":                   {},
		"a list from the cache":    {ResourceVersion: "0"},
		"a chunk":                  {Limit: 1},
		"a list of what is newer":  {ResourceVersion: "5", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
		"a list that is not older": {ResourceVersion: "5"},
	} {
		ctx, _ := s.request(t)
		object, err := s.List(ctx, &options)
		check(t, err)
		list := object.(*viewList)
		out[name] = list.ResourceVersion
		table, err := s.ConvertToTable(ctx, list, nil)
		check(t, err)
		out["a table of "+name] = table.ResourceVersion
		for i := range list.Items {
			out[list.Items[i].Name+" in "+name] = list.Items[i].ResourceVersion
		}
	}
	for name, options := range map[string]metainternalversion.ListOptions{
		"a watch":                       {},
		"a watch from the cache":        {ResourceVersion: "0"},
		"a watch of what comes":         {SendInitialEvents: ptr.To(false)},
		"a watch of what the cache has": {ResourceVersion: "0", SendInitialEvents: ptr.To(false)},
		"a watch with a list":           {SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
	} {
		ctx, _ := s.request(t)
		options.AllowWatchBookmarks = true
		w, err := s.Watch(ctx, &options)
		check(t, err)
		running := &testWatch{watcher: w.(*watcher), clock: s.clock}
		for {
			if options.SendInitialEvents == nil || !*options.SendInitialEvents {
				running.waitUntilIdle(t)
			}
			event := running.nextOrTick(t)
			if event.Type == watch.Bookmark {
				out["the bookmark of "+name] = viewIn(event.Object).ResourceVersion
				break
			}
			out[viewIn(event.Object).Name+" in "+name] = viewIn(event.Object).ResourceVersion
		}
		w.Stop()
		for range w.ResultChan() { // Its tickers are gone with it.
			continue
		}
	}
	return out
}

// waitUntilIdle waits until the watcher has sent what there is, or something is there to take.
func (w *testWatch) waitUntilIdle(t *testing.T) {
	t.Helper()
	waitFor(t, "the watch waits", func() bool { return len(w.result) > 0 || w.clock.HasWaiters() })
}

// nextOrTick returns the next event, and lets the bookmark's time come if there is none.
func (w *testWatch) nextOrTick(t *testing.T) watch.Event {
	t.Helper()
	for {
		select {
		case e := <-w.result:
			return e
		default:
			if w.clock.HasWaiters() && len(w.result) == 0 {
				w.clock.Step(bookmarkInterval / 20)
			}
		}
	}
}

func TestNoVersionTellsOfWhatIsHidden(t *testing.T) {
	for name, c := range map[string]struct {
		allow []string
		// hidden are changes of web that the caller does not see, shown is one that it does.
		hidden []func(*computev1alpha1.Server)
		shown  func(*computev1alpha1.Server)
	}{
		"no grant": {nil, []func(*computev1alpha1.Server){host("DOWN"), host("UNKNOWN"), host("UP")}, state("PAUSED")},
		"unknown only": {[]string{"unknownstatus/ns/"}, []func(*computev1alpha1.Server){host("DOWN"), host("MAINTENANCE"), host("UP")},
			host("UNKNOWN")},
		"full": {[]string{"status/ns/"}, []func(*computev1alpha1.Server){
			func(s *computev1alpha1.Server) { s.Annotations = map[string]string{"a": "b"} },
			func(s *computev1alpha1.Server) { s.Status.ObservedGeneration = 3 },
		}, host("DOWN")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStorage(t)
			s.authorizer.set(c.allow...)
			before := s.told(t)
			rv := 10
			for _, change := range c.hidden {
				rv++
				check(t, s.feed.Update(server(rv, "ns", "web", change)))
				rv++
				check(t, s.feed.Add(server(rv, "elsewhere", fmt.Sprint("vm-", rv))))
				check(t, s.feed.Bookmark(fmt.Sprint(rv)))
				s.revision.Store(int64(rv))
				if diff := cmp.Diff(before, s.told(t)); diff != "" {
					t.Errorf("versions tell of a hidden change (-before +after):\n%s", diff)
				}
			}
			check(t, s.feed.Update(server(rv+1, "ns", "web", c.shown)))
			s.revision.Store(int64(rv + 5))
			for way, got := range s.told(t) {
				if want := fmt.Sprint(rv + 1); got != want && !strings.HasPrefix(way, "db ") {
					t.Errorf("after a change that is shown %s is of %s, want %s", way, got, want)
				}
			}
		})
	}
}

func TestAPlaceIsNeverNewerThanTheListNorOlderThanItsCallerKnows(t *testing.T) {
	s := newTestStorage(t)
	check(t, s.feed.Update(server(11, "ns", "web", state("PAUSED"))))
	check(t, s.feed.Update(server(15, "ns", "web", state("ACTIVE"))))
	s.revision.Store(13) // The feed was faster.
	list := func(options metainternalversion.ListOptions) (string, error) {
		ctx, _ := s.request(t)
		object, err := s.List(ctx, &options)
		if err != nil {
			return "", err
		}
		return object.(*viewList).ResourceVersion, nil
	}
	for asked, want := range map[string]string{"": "11", "5": "11", "11": "11", "12": "12", "13": "13"} {
		if got, err := list(metainternalversion.ListOptions{ResourceVersion: asked}); err != nil || got != want {
			t.Errorf("a list that is not older than %q is of %q, want %s (%v)", asked, got, want, err)
		}
	}
	for _, options := range []metainternalversion.ListOptions{
		{ResourceVersion: "14"}, {ResourceVersion: "14", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
	} {
		if _, err := list(options); !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) || strings.ContainsAny(err.Error(), "0123456789") {
			t.Errorf("a list of the future: %v", err)
		}
	}
	ctx, _ := s.request(t)
	if _, err := s.Get(ctx, "web", &metav1.GetOptions{ResourceVersion: "16"}); !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		t.Errorf("a get of the future: %v", err)
	}
	if _, err := list(metainternalversion.ListOptions{ResourceVersion: "abc"}); !apierrors.IsBadRequest(err) {
		t.Errorf("a version that is none: %v", err)
	}
}

func TestWhatWasReadPastTheFeedHasTheVersionOfTheLastChangeThatWasShown(t *testing.T) {
	s := newTestStorage(t)
	check(t, s.feed.Update(server(11, "ns", "web", state("PAUSED"))))
	for name, c := range map[string]struct {
		read  *computev1alpha1.Server
		grant grant
		want  uint64
	}{
		"what the feed has":                       {server(11, "ns", "web", state("PAUSED")), grantNone, 11},
		"what the feed had":                       {server(8, "ns", "web"), grantNone, 10},
		"a hidden change that the feed is behind": {server(13, "ns", "web", state("PAUSED"), host("DOWN")), grantNone, 11},
		"the same, shown":                         {server(13, "ns", "web", state("PAUSED"), host("DOWN")), grantFull, 13},
		"another server of that name":             {server(13, "ns", "web", func(s *computev1alpha1.Server) { s.UID = "other" }), grantNone, 13},
		"a server that is new":                    {server(13, "ns", "new"), grantNone, 13},
	} {
		r := s.recognise(untilEnd(t), mustRecord(t, c.read), c.grant)
		if got := r.shownAt[c.grant]; got != c.want {
			t.Errorf("%s: version %d, want %d", name, got, c.want)
		}
	}
}

func untilEnd(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestTheVersionWhereNothingChangesMovesByTheClockAlone(t *testing.T) {
	f := newTestFeed(t)
	granted := grantSet{within: true, byNamespace: map[string]grant{"quiet": grantNone}}
	expect := func(when string, want uint64) {
		t.Helper()
		if got := f.place("quiet", "", granted, f.version()); got != want {
			t.Errorf("%s: %d, want %d", when, got, want)
		}
	}
	for rv := 11; rv < 40; rv++ {
		check(t, f.Update(server(rv, "ns", "web", state(computev1alpha1.ServerState(fmt.Sprint(rv))))))
	}
	check(t, f.Bookmark("50"))
	expect("after changes elsewhere", 10)
	f.strike(45)
	expect("after the first interval", 10)
	f.strike(60)
	expect("after the second one", 45)
	f.strike(70)
	expect("while the feed is behind", 45)

	// A busy cluster's history moves on faster; the version that is reported stays within
	// it for a while.
	for rv := range historyLength + 100 {
		check(t, f.Update(server(rv+100, "ns", "web", state(computev1alpha1.ServerState(fmt.Sprint(rv))))))
	}
	place := f.place("quiet", "", granted, f.version())
	for rv := range historyLength / 16 {
		check(t, f.Update(server(rv+1000+historyLength, "ns", "web", state(computev1alpha1.ServerState(fmt.Sprint(rv))))))
	}
	if _, err := f.open(place); err != nil || place == 45 {
		t.Errorf("a watch from %d: %v", place, err)
	}
	if len(f.newest) > 1 {
		t.Errorf("namespaces that are remembered: %v", f.newest)
	}
}

func TestAVersionOfANamespaceWhoseServersAreGoneIsThatOfTheDeletion(t *testing.T) {
	f := newTestFeed(t)
	check(t, f.Add(server(11, "other", "web")))
	check(t, f.Delete(server(14, "other", "web")))
	granted := grantSet{within: true, byNamespace: map[string]grant{"other": grantNone}}
	if got := f.place("other", "", granted, 20); got != 14 {
		t.Errorf("place %d", got)
	}
	// A caller that may read one server only learns of no other.
	check(t, f.Update(server(15, "ns", "web", state("PAUSED"))))
	check(t, f.Update(server(16, "ns", "db", state("PAUSED"))))
	if got := f.place("ns", "web", grantSet{within: true, byNamespace: map[string]grant{"ns": grantNone}}, 20); got != 15 {
		t.Errorf("place of one server %d", got)
	}
}

func TestATokenTellsNothingAndIsGoodOnEachReplica(t *testing.T) {
	one, two := newTokens(testProjector().hostIDKey), newTokens(testProjector().hostIDKey)
	first, second := one.seal("as of 4711", 17), one.seal("as of 4711", 17)
	if first == second {
		t.Error("equal tokens tell that nothing has been written")
	}
	if raw, err := base64.RawURLEncoding.DecodeString(first); err != nil || strings.Contains(string(raw), "4711") {
		t.Errorf("the token is readable (%v)", err)
	}
	if next, told, err := two.open(first); err != nil || next != "as of 4711" || told != 17 {
		t.Errorf("opened to %q, %d (%v)", next, told, err)
	}
	if one.seal("", 17) != "" {
		t.Error("the last page has a token")
	}
	if _, _, err := one.open("nonsense"); !apierrors.IsBadRequest(err) {
		t.Errorf("nonsense: %v", err)
	}
	raw := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":4711,"start":"ns/web\u0000"}`))
	if _, _, err := one.open(raw); !apierrors.IsResourceExpired(err) {
		t.Errorf("a token of the custom resource: %v", err)
	}
	expired := apierrors.NewResourceExpired("too old")
	expired.ErrStatus.Continue = "as of 5000"
	var sealed *apierrors.StatusError
	if !errors.As(one.sealError(expired), &sealed) || strings.Contains(sealed.ErrStatus.Continue, "5000") || sealed.ErrStatus.Continue == "" {
		t.Errorf("an expired list is answered %v", sealed)
	}
}

func TestAllChunksAreOfTheVersionOfTheFirst(t *testing.T) {
	s := newTestStorage(t)
	s.more.Store(true)
	check(t, s.feed.Update(server(11, "ns", "web", state("PAUSED"))))
	s.revision.Store(12)
	list := func(token string) *viewList {
		ctx, _ := s.request(t)
		object, err := s.List(ctx, &metainternalversion.ListOptions{Limit: 1, Continue: token})
		check(t, err)
		return object.(*viewList)
	}
	first := list("")
	check(t, s.feed.Update(server(13, "ns", "web", state("ACTIVE"))))
	s.revision.Store(14)
	if rest := list(first.Continue); first.ResourceVersion != "11" || rest.ResourceVersion != "11" || rest.Continue != "" {
		t.Errorf("chunks of %s and %s, then %q", first.ResourceVersion, rest.ResourceVersion, rest.Continue)
	}
}
