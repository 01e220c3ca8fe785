// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/watch"
	testingclock "k8s.io/utils/clock/testing"
)

// startWatchOfAll starts a watch of all namespaces for ann, whose rights f knows.
func startWatchOfAll(t *testing.T, f *feed, rv uint64, a *fakeAuthorizer) *testWatch {
	t.Helper()
	fake := testingclock.NewFakeClock(instant)
	g := newGrants(a, fake)
	granted, err := g.set(t.Context(), ann, "", "", f.namespaces)
	check(t, err)
	c, err := f.open(rv)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &testWatch{clock: fake, live: ctx}
	w.watcher = &watcher{
		feed: f, clock: fake, log: logr.Discard(), selectors: newSelectors(&metainternalversion.ListOptions{}), rv: rv, cursor: c, grants: granted,
		ask: func(ctx context.Context) (grantSet, error) { return g.set(ctx, ann, "", "", f.namespaces) },
		askOne: func(ctx context.Context, namespace string) (grant, error) {
			return g.of(ctx, ann, namespace, "")
		},
		result: make(chan watch.Event, watchBuffer), cancel: cancel,
	}
	go w.run(ctx)
	return w
}

func TestAWatchOfAllNamespacesFollowsTheGrantOfEach(t *testing.T) {
	f := newTestFeed(t)
	check(t, f.Add(server(11, "a", "one")))
	check(t, f.Add(server(12, "b", "two")))
	a := &fakeAuthorizer{}
	a.set("status/a/")
	w := startWatchOfAll(t, f, 12, a)
	check(t, f.Update(server(13, "a", "one", host("DOWN"))))
	check(t, f.Update(server(14, "b", "two", host("DOWN"))))
	check(t, f.Update(server(15, "b", "two", state("PAUSED"), host("DOWN"))))
	// Namespaces that come later are asked for when they come.
	a.set("status/a/", "status/new/")
	check(t, f.Add(server(16, "new", "three")))
	check(t, f.Add(server(17, "newer", "four")))
	w.expect(t, "MODIFIED one@13 DOWN", "MODIFIED two@15", "ADDED three@16 UP", "ADDED four@17")

	a.set("status/b/", "status/new/")
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED one@13", "MODIFIED two@15 DOWN")
	a.set("status//")
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED one@13 DOWN", "MODIFIED four@17 UP", "MODIFIED db@9 UP", "MODIFIED web@8 UP")
	a.set()
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED one@13 new columns", "MODIFIED two@15", "MODIFIED three@16", "MODIFIED four@17", "MODIFIED db@9", "MODIFIED web@8")
}

func TestANewNamespaceWhoseGrantCannotBeFoundIsHidden(t *testing.T) {
	f := newTestFeed(t)
	a := &fakeAuthorizer{}
	a.set("status/new/")
	w := startWatchOfAll(t, f, 10, a)
	a.setBroken(true)
	check(t, f.Add(server(11, "new", "web")))
	w.expect(t, "ADDED web@11")
	a.setBroken(false)
	w.tick(t, recheckInterval)
	w.expect(t, "MODIFIED web@11 UP new columns")
}
