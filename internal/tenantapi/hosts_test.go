// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/go-logr/logr"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// computeService is host-a as of rv.
func computeService(rv int, status computev1alpha1.HostStatus, row string) *computev1alpha1.ComputeService {
	s := &computev1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "host-a", ResourceVersion: strconv.Itoa(rv), Labels: map[string]string{"row": row}}}
	s.Status.HostStatus, s.Status.HostStatusTransitionTime = &status, ptr.To(metav1.NewTime(instant))
	return s
}

// newFeedOfHost has web on host-a, of version 5, whose copy is of that version, listed at 10.
func newFeedOfHost(t *testing.T) *feed {
	t.Helper()
	f := newFeed(testProjector(), testingclock.NewFakePassiveClock(instant), logr.Discard())
	check(t, hostStore{f}.Replace([]any{computeService(5, computev1alpha1.HostStatusUp, "1")}, "10"))
	onHost := func(s *computev1alpha1.Server) {
		s.Spec.Host, s.Status.HostVersion = "host-a", "5"
		s.Status.HostReporting, s.Status.HostStatusTransitionTime = computev1alpha1.HostReportingUnknown, ptr.To(metav1.NewTime(instant))
	}
	check(t, f.Replace([]any{server(8, "ns", "web", onHost)}, "10"))
	return f
}

// relabel gives host-a another label with each version from first to last.
func relabel(t *testing.T, f *feed, first, last int, status computev1alpha1.HostStatus) {
	t.Helper()
	for rv := first; rv <= last; rv++ {
		check(t, hostStore{f}.Update(computeService(rv, status, strconv.Itoa(rv))))
	}
}

func TestALabelOfAHostIsNoNewsForItsServers(t *testing.T) {
	f := newFeedOfHost(t)
	check(t, hostStore{f}.Update(computeService(12, computev1alpha1.HostStatusUp, "2")))
	check(t, f.Bookmark("13"))

	// It comes with a version by which another replica may have told it less.
	w := startWatch(t, f, 13, grantFull, metainternalversion.ListOptions{}, func(w *watcher) { w.joined, w.owes = 13, true })
	w.waitUntilIdle(t)
	check(t, hostStore{f}.Update(computeService(14, computev1alpha1.HostStatusDown, "2")))
	check(t, f.Bookmark("15"))
	w.expect(t, "MODIFIED web@15 DOWN")
}

func TestAListOfHostsThatOnlyHaveOtherLabelsIsNoNews(t *testing.T) {
	for name, labels := range map[string]int{"each taken in": 1, "many, of which most were dropped": 3 * maxWaitingHosts} {
		t.Run(name, func(t *testing.T) {
			f := newFeedOfHost(t)
			// DOWN is the first of those that wait.
			check(t, hostStore{f}.Update(computeService(11, computev1alpha1.HostStatusDown, "1")))
			last := 11 + labels
			relabel(t, f, 12, last, computev1alpha1.HostStatusDown)
			check(t, f.Bookmark(strconv.Itoa(last)))
			changes := len(f.history)
			check(t, hostStore{f}.Replace([]any{computeService(last, computev1alpha1.HostStatusDown, strconv.Itoa(last))}, strconv.Itoa(last)))
			check(t, f.Bookmark(strconv.Itoa(last+1)))
			if n := len(f.history); changes != 1 || n != changes {
				t.Errorf("the history had %d changes before the list and has %d after it, want 1", changes, n)
			}
		})
	}
}

func TestAnyNumberOfLabelsOfAHostIsNoNewsForItsServers(t *testing.T) {
	f := newFeedOfHost(t)
	last := 10 + 3*maxWaitingHosts
	relabel(t, f, 11, last, computev1alpha1.HostStatusUp)
	if n, most := len(f.waiting), maxWaitingHosts+2; n > most {
		t.Errorf("%d news of one host wait, want %d at most", n, most)
	}
	check(t, f.Bookmark(strconv.Itoa(last)))
	if n := len(f.history); n != 0 {
		t.Errorf("the history has %d changes, want none", n)
	}
}

func TestManyLabelsOfAHostHideNoChangeOfIt(t *testing.T) {
	f := newFeedOfHost(t)
	const last = 10 + 2*maxWaitingHosts
	relabel(t, f, 11, 10+maxWaitingHosts, computev1alpha1.HostStatusUp)
	relabel(t, f, 11+maxWaitingHosts, last, computev1alpha1.HostStatusDown)
	w := startWatch(t, f, 10, grantFull, metainternalversion.ListOptions{})
	check(t, f.Bookmark(strconv.Itoa(last)))
	w.expect(t, fmt.Sprintf("MODIFIED web@%d DOWN", last))
}
