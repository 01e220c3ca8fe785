// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

func uid(id types.UID) func(*computev1alpha1.Server) {
	return func(s *computev1alpha1.Server) { s.UID = id }
}

func TestServersAreFoundByTheirUID(t *testing.T) {
	f := newFeed(testProjector(), testingclock.NewFakeClock(instant), logr.Discard())
	want := func(when, namespace string, id types.UID, name string) {
		t.Helper()
		got := ""
		if r, _ := f.byUID(namespace, id); r != nil {
			got = r.known.namespace + "/" + r.known.name
		}
		if got != name {
			t.Errorf("%s, %q in %q: %q, want %q", when, id, namespace, got, name)
		}
	}
	check(t, f.Replace([]any{server(1, "a", "web", uid("1")), server(2, "b", "web", uid("2"))}, "2"))
	want("at first", "", "1", "a/web")
	want("in its namespace", "a", "1", "a/web")
	want("in another namespace", "b", "1", "")
	want("at first", "", "3", "")

	check(t, f.Add(server(3, "a", "db", uid("3"))))
	want("added", "", "3", "a/db")
	check(t, f.Update(server(4, "a", "db", uid("3"), state("SHUTOFF"))))
	if r, rv := f.byUID("", "3"); r.base.Status.State != "SHUTOFF" || rv != 4 {
		t.Errorf("after an update: %s at %d", r.base.Status.State, rv)
	}
	check(t, f.Update(server(5, "a", "db", uid("4"))))
	want("made again under the same name", "", "4", "a/db")
	want("the one before", "", "3", "")
	check(t, f.Delete(server(6, "a", "db", uid("4"))))
	want("deleted", "", "4", "")

	check(t, f.Replace([]any{server(7, "b", "web", uid("2"))}, "8"))
	want("after another list", "", "1", "")
	want("after another list", "b", "2", "b/web")
	if len(f.uids) != 1 {
		t.Errorf("%d uids are known, want 1", len(f.uids))
	}
}
