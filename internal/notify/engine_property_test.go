// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// outboxOf is the queue of an Alertmanager that a test delivers.
type outboxOf struct {
	*queue[[]Alert]
	// active are the alerts that it has, by fingerprint.
	active map[string]map[string]string
}

// deliver takes what there is, of which the sink takes in everything or, if it fails, perhaps
// everything.
func (o *outboxOf) deliver(now time.Time, what outcome, takenIn bool) {
	items := o.take(maxBatch, func() {})
	if takenIn {
		for _, i := range items {
			for _, a := range i.payload {
				if a.EndsAt.After(now) {
					o.active[fingerprint(a.Labels)] = a.Labels
				} else {
					delete(o.active, fingerprint(a.Labels))
				}
			}
		}
	}
	o.done(items, what, 0)
}

// Whatever is seen, hidden and delivered in whatever order: an Alertmanager ends with the alerts
// of what is shown, no other alert was made after a right was gone, and none of a server that
// was never shown.
func TestAnAlertmanagerEndsWithWhatIsShown(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	hosts := []string{"h1", "h2", ""}
	statuses := []v1alpha1.HostStatus{v1alpha1.HostStatusUp, v1alpha1.HostStatusDown, v1alpha1.HostStatusUnknown}
	rapid.Check(t, func(t *rapid.T) {
		c := testingclock.NewFakeClock(start)
		o := &outboxOf{queue: newQueue(ledger[[]Alert](newAlertLedger("", time.Hour)), c), active: map[string]map[string]string{}}
		r, err := newRoute(&RouteConfig{Name: "r", GroupByHost: rapid.Bool().Draw(t, "grouped"), MinSeconds: rapid.SampledFrom([]float64{0, 5}).Draw(t, "min")}, o)
		if err != nil {
			t.Fatal(err)
		}
		e := newEngine([]*route{r})
		// there are the servers, and granted says whether host status is shown.
		there := map[string]*tenantv1alpha1.Server{}
		granted := true
		version := 0
		see := func(s *tenantv1alpha1.Server) {
			shown := s.DeepCopy()
			if !granted {
				hidden(shown)
			}
			e.see(sightingOf(shown), c.Now(), false)
		}
		// before are the alerts when the right went.
		var before map[string]map[string]string
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				version++
				name := rapid.SampledFrom(names).Draw(t, "server")
				s := row(name, fmt.Sprint(version), rapid.SampledFrom(statuses).Draw(t, "status"), onHost(rapid.SampledFrom(hosts).Draw(t, "host")))
				there[name] = s
				see(s)
			},
			"delete": func(t *rapid.T) {
				name := rapid.SampledFrom(names).Draw(t, "server")
				delete(there, name)
				e.gone(types.NamespacedName{Namespace: "team-a", Name: name}, c.Now())
			},
			"grant": func(*rapid.T) {
				granted = !granted
				before = nil
				if !granted {
					before = map[string]map[string]string{}
					for mark, labels := range o.active {
						before[mark] = labels
					}
				}
				for _, name := range names {
					if s := there[name]; s != nil {
						see(s)
					}
				}
				if !granted {
					o.hideEnded("team-a") // As the notifier does once it knows why they are hidden.
				}
			},
			"deliver": func(t *rapid.T) {
				what := rapid.SampledFrom([]outcome{delivered, delivered, failed}).Draw(t, "outcome")
				o.deliver(c.Now(), what, what == delivered || rapid.Bool().Draw(t, "taken in"))
			},
			"resend": func(*rapid.T) { o.repeat(func(_ slotKey, s *state) bool { return isAlert(s) }) },
			"time": func(t *rapid.T) {
				c.Step(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
				e.tick(c.Now())
			},
			"": func(t *rapid.T) {
				if before == nil {
					return
				}
				for mark := range o.active {
					if before[mark] == nil {
						t.Fatalf("%s was made after the right was gone", mark)
					}
				}
				for mark := range before {
					if o.active[mark] == nil {
						t.Fatalf("%s was resolved by a right that went", mark)
					}
				}
			},
		})
		if !granted {
			granted = true
			for _, s := range there {
				see(s)
			}
		}
		c.Step(time.Hour)
		e.tick(c.Now())
		for range 20 {
			c.Step(time.Minute)
			o.deliver(c.Now(), delivered, true)
		}
		if !r.group {
			for name, s := range there {
				want := *s.Status.HostStatus
				got := []string{}
				for _, labels := range o.active {
					if labels[labelServer] == name {
						got = append(got, labels[labelHostStatus])
					}
				}
				if want == v1alpha1.HostStatusUp && len(got) > 0 || want != v1alpha1.HostStatusUp && (len(got) != 1 || got[0] != string(want)) {
					t.Fatalf("%s is %s, and there are alerts of %v", name, want, got)
				}
			}
		}
		for _, labels := range o.active {
			if server := labels[labelServer]; server != "" && there[server] == nil {
				// It was deleted while it was hidden: nobody says so, the alert expires.
				continue
			}
			id := labels[labelHostID]
			if sub := r.subjects[groupSubject("team-a", id)]; id != "" && sub != nil && hoststatus.Label(sub.handed.status()) != labels[labelHostStatus] {
				t.Fatalf("the host %s is %s, and there is an alert of %s", id, hoststatus.Label(sub.handed.status()), labels[labelHostStatus])
			}
		}
		if len(o.slots) > len(names)+len(hosts) {
			t.Fatalf("%d subjects are kept", len(o.slots))
		}
	})
}
