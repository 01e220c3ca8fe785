// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestHostsWhoseDriverFailsAreCountedUntilItWorks(t *testing.T) {
	lease := func(name, driverError string) *coordinationv1.Lease {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if driverError != "" {
			l.Annotations = map[string]string{v1alpha1.AnnotationDriverError: driverError}
		}
		return l
	}
	failing := drivers{}
	for i, step := range []struct {
		lease *coordinationv1.Lease
		want  int
	}{
		{lease("a", ""), 0},
		{lease("a", "no file"), 1},
		{lease("a", "no folder"), 1},
		{lease("b", "no file"), 2},
		{lease("a", ""), 1},
		{lease("a", ""), 1},
		{lease("b", ""), 0},
	} {
		if failing.note(step.lease); len(failing) != step.want {
			t.Errorf("%d after step %d, want %d", len(failing), i, step.want)
		}
	}
}

// The Lease of a host that is gone keeps what its agent wrote last.
func TestAFailingDriverCountsOnlyWhileItsHostReports(t *testing.T) {
	m := NewMonitor(Options{
		Leases: fake.NewClientset().CoordinationV1(), Namespaces: []string{space}, DefaultDuration: d, Clock: clock.RealClock{},
	})
	m.core.replaced(m.now(), epoch, space, nil, 0)
	renews := func(at time.Time) {
		if err := m.watches[space].Update(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{v1alpha1.AnnotationDriverError: "no file"}},
			Spec:       coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: at}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, want int) {
		t.Helper()
		if got := m.sights()[0].drivers; got != want {
			t.Errorf("%s: %d hosts, want %d", what, got, want)
		}
	}
	renews(epoch)
	want("a Lease that is no host's", 0)
	m.Track(subjectNamed("a", d, NoVerdict))
	want("a host that reports", 1)
	m.Track(subjectNamed("a", d, Expired))
	want("a host that is silent", 0)
	renews(epoch.Add(time.Second))
	want("a host that reports again", 1)
}
