// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// start is when tests begin.
var start = time.Date(2026, 5, 4, 3, 0, 0, 0, time.UTC)

// row is a server of namespace team-a as the owners' view shows it.
func row(name, version string, status v1alpha1.HostStatus, modify ...func(*tenantv1alpha1.Server)) *tenantv1alpha1.Server {
	s := &tenantv1alpha1.Server{}
	s.Namespace, s.Name, s.UID, s.ResourceVersion = "team-a", name, types.UID("uid-of-"+name), version
	s.Status.HostID = "h1"
	s.Status.HostStatus = &status
	s.Status.HostStatusReason = v1alpha1.ReasonReporting
	s.Status.HostReporting = v1alpha1.HostReportingTrue
	for _, m := range modify {
		m(s)
	}
	return s
}

func hidden(s *tenantv1alpha1.Server) { s.Status.HostFields = v1alpha1.HostFields{} }
func onHost(id string) func(*tenantv1alpha1.Server) {
	return func(s *tenantv1alpha1.Server) { s.Status.HostID = id }
}
func withUID(id string) func(*tenantv1alpha1.Server) {
	return func(s *tenantv1alpha1.Server) { s.UID = types.UID(id) }
}
func labelled(kv ...string) func(*tenantv1alpha1.Server) {
	return func(s *tenantv1alpha1.Server) {
		s.Labels = map[string]string{}
		for i := 0; i+1 < len(kv); i += 2 {
			s.Labels[kv[i]] = kv[i+1]
		}
	}
}

func since(ago time.Duration) func(*tenantv1alpha1.Server) {
	return func(s *tenantv1alpha1.Server) {
		s.Status.HostStatusTransitionTime = ptr.To(metav1.NewTime(start.Add(-ago)))
	}
}

// heard is an outbox that writes down what it gets.
type heard struct{ lines []string }

func (h *heard) want(key slotKey, s *state) {
	what := hoststatus.Label(s.status())
	if s.end != "" {
		what = string(s.end)
	}
	if s.first && s.end == "" {
		what += " first"
	}
	if s.server == "" {
		what += fmt.Sprintf(" %d %s", s.count, strings.Join(s.servers, ","))
	}
	h.lines = append(h.lines, key.subject+" "+strings.TrimSpace(what))
}
func (h *heard) hide(key slotKey)   { h.lines = append(h.lines, key.subject+" hidden") }
func (h *heard) forget(key slotKey) { h.lines = append(h.lines, key.subject+" forgotten") }

// took returns what came since the last call.
func (h *heard) took() []string {
	out := h.lines
	h.lines = nil
	return out
}

// step is something that happens, at a time after start, and what has to be said then.
type step struct {
	after time.Duration
	// One of these: a server is seen, found at the start, or gone; the right is gone; a server
	// has left UNKNOWN; or nothing but the time.
	see, found  *tenantv1alpha1.Server
	gone        string
	hide        bool
	leftUnknown string
	want        []string
}

func TestWhatARouteHasToSay(t *testing.T) {
	const up, down, unknown = v1alpha1.HostStatusUp, v1alpha1.HostStatusDown, v1alpha1.HostStatusUnknown
	team := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "team-a", Name: name} }
	for name, c := range map[string]struct {
		route RouteConfig
		steps []step
	}{
		"what is there at the start, and its changes": {steps: []step{
			{found: row("a", "1", up), want: []string{"team-a/a UP first"}},
			{see: row("a", "2", down), want: []string{"team-a/a DOWN"}},
			{see: row("b", "3", up), want: []string{"team-a/b UP"}},
			{gone: "a", want: []string{"team-a/a Deleted"}},
		}},
		"nothing while nothing of the host changes": {steps: []step{
			{found: row("a", "1", up), want: []string{"team-a/a UP first"}},
			{see: row("a", "2", up, labelled("app", "web"))},
			{see: row("a", "3", up, func(s *tenantv1alpha1.Server) { s.Status.PowerState = "SHUTDOWN" })},
			{see: row("a", "4", up, func(s *tenantv1alpha1.Server) { s.Status.HostReporting = v1alpha1.HostReportingFalse }), want: []string{"team-a/a UP"}},
		}},
		"no word of a server whose host status is not shown": {steps: []step{
			{found: row("a", "1", up, hidden)},
			{see: row("a", "2", up, hidden)},
			{gone: "a", want: []string{"team-a/a forgotten"}},
		}},
		"a right that goes takes everything back, and when it returns nothing is known of changes": {steps: []step{
			{found: row("a", "1", down), want: []string{"team-a/a DOWN first"}},
			{see: row("a", "1", down, hidden), want: []string{"team-a/a hidden"}},
			{see: row("a", "1", down, hidden)},
			{see: row("a", "1", down), want: []string{"team-a/a DOWN first"}},
			{hide: true, want: []string{"team-a/a hidden"}},
			{gone: "a"},
		}},
		"what was taken back is said again, however it came about": {route: RouteConfig{MinSeconds: 5}, steps: []step{
			{found: row("a", "1", down)},
			{after: 5 * time.Second, want: []string{"team-a/a DOWN first"}},
			{after: 10 * time.Second, see: row("a", "2", up)},
			{after: 11 * time.Second, see: row("a", "2", up, hidden), want: []string{"team-a/a hidden"}},
			{after: 12 * time.Second, see: row("a", "2", up)},
			{after: 13 * time.Second, see: row("a", "3", down)},
			{after: 18 * time.Second, want: []string{"team-a/a DOWN"}},
		}},
		"what is shown again, and has to last first, is still no change": {route: RouteConfig{MinSeconds: 5}, steps: []step{
			{found: row("a", "1", down)},
			{after: 5 * time.Second, want: []string{"team-a/a DOWN first"}},
			{after: 11 * time.Second, see: row("a", "1", down, hidden), want: []string{"team-a/a hidden"}},
			{after: 12 * time.Second, see: row("a", "2", up)},
			{after: 17 * time.Second, want: []string{"team-a/a UP first"}},
		}},
		"a new server, whose host status is derived a moment later": {steps: []step{
			{see: row("a", "1", up, hidden)},
			{see: row("a", "2", down), want: []string{"team-a/a DOWN"}},
		}},
		"the end of a server, whatever becomes of another with its name": {steps: []step{
			{found: row("a", "1", down), want: []string{"team-a/a DOWN first"}},
			{gone: "a", want: []string{"team-a/a Deleted"}},
			{see: row("a", "2", up, withUID("another"), hidden)},
			{gone: "a"},
		}},
		"a server that was there before the right to see it": {steps: []step{
			{found: row("a", "1", up, hidden)},
			{see: row("a", "1", up), want: []string{"team-a/a UP first"}},
		}},
		"whoever sees only UNKNOWN": {steps: []step{
			{found: row("a", "1", up, hidden)},
			{see: row("a", "2", unknown), want: []string{"team-a/a UNKNOWN"}},
			{see: row("a", "3", up, hidden), want: []string{"team-a/a hidden"}},
			{leftUnknown: "a", want: []string{"team-a/a NoLongerUnknown"}},
			{see: row("a", "4", unknown), want: []string{"team-a/a UNKNOWN"}},
		}},
		"whoever sees only UNKNOWN, and a return that is too short": {route: RouteConfig{MinSeconds: 5}, steps: []step{
			{see: row("a", "1", unknown)},
			{after: 5 * time.Second, want: []string{"team-a/a UNKNOWN"}},
			{after: 10 * time.Second, see: row("a", "2", up, hidden), want: []string{"team-a/a hidden"}},
			{after: 11 * time.Second, leftUnknown: "a"},
			{after: 12 * time.Second, see: row("a", "3", unknown)},
			{after: 17 * time.Second, want: []string{"team-a/a UNKNOWN"}},
			{after: 20 * time.Second, see: row("a", "4", up, hidden), want: []string{"team-a/a hidden"}},
			{after: 21 * time.Second, leftUnknown: "a"},
			{after: 22 * time.Second, see: row("a", "5", up, hidden, labelled("app", "web"))},
			{after: 25 * time.Second, want: []string{"team-a/a NoLongerUnknown"}},
		}},
		"a flap that is too short": {route: RouteConfig{MinSeconds: 5}, steps: []step{
			{found: row("a", "1", up, since(time.Hour)), want: []string{"team-a/a UP first"}},
			{after: 10 * time.Second, see: row("a", "2", unknown)},
			{after: 12 * time.Second, see: row("a", "3", up)},
			{after: time.Minute},
			{after: 61 * time.Second, see: row("a", "4", unknown)},
			{after: 65 * time.Second},
			{after: 66 * time.Second, want: []string{"team-a/a UNKNOWN"}},
			{after: 67 * time.Second, see: row("a", "5", up)},
			{after: 72 * time.Second, want: []string{"team-a/a UP"}},
		}},
		"a minimum duration that has begun before the notifier": {route: RouteConfig{MinSeconds: 5}, steps: []step{
			{found: row("a", "1", unknown, since(3*time.Second))},
			{found: row("b", "1", unknown, since(-time.Hour))},
			{after: 2 * time.Second, want: []string{"team-a/a UNKNOWN first"}},
			{after: 5 * time.Second, want: []string{"team-a/b UNKNOWN first"}},
		}},
		"another status restarts it, another reason does not": {route: RouteConfig{MinSeconds: 5}, steps: []step{
			{see: row("a", "1", unknown)},
			{after: 3 * time.Second, see: row("a", "2", down)},
			{after: 5 * time.Second, see: row("a", "3", down, func(s *tenantv1alpha1.Server) { s.Status.HostStatusReason = v1alpha1.ReasonForcedDown })},
			{after: 8 * time.Second, want: []string{"team-a/a DOWN"}},
			{after: 9 * time.Second, see: row("a", "4", down), want: []string{"team-a/a DOWN"}},
		}},
		"a server that comes and goes before that": {route: RouteConfig{MinSeconds: 5}, steps: []step{
			{see: row("a", "1", unknown)},
			{after: time.Second, gone: "a"},
			{after: time.Minute},
		}},
		"labels": {route: RouteConfig{Selector: "app=web"}, steps: []step{
			{found: row("a", "1", up)},
			{see: row("a", "2", up, labelled("app", "web")), want: []string{"team-a/a UP first"}},
			{see: row("a", "3", down), want: []string{"team-a/a Left"}},
			{see: row("b", "4", up, labelled("app", "web")), want: []string{"team-a/b UP"}},
		}},
		"another namespace": {route: RouteConfig{Namespaces: []string{"team-b"}}, steps: []step{{found: row("a", "1", up)}}},
		"another server with its name": {steps: []step{
			{found: row("a", "1", down), want: []string{"team-a/a DOWN first"}},
			{see: row("a", "2", up, withUID("another")), want: []string{"team-a/a Deleted", "team-a/a UP"}},
		}},
		"one message for a host": {route: RouteConfig{GroupByHost: true}, steps: []step{
			{found: row("a", "1", up), want: []string{"team-a#h1 UP first 1 a"}},
			{found: row("b", "2", up), want: []string{"team-a#h1 UP first 2 a,b"}},
			{found: row("c", "3", up), want: []string{"team-a#h1 UP first 3 a,b,c"}},
			{see: row("a", "10", down)},
			{see: row("b", "10", down), want: []string{"team-a#h1 DOWN 3 a,b,c"}},
			{see: row("c", "10", down)},
			{see: row("c", "11", up, onHost("")), want: []string{"team-a#h1 DOWN 2 a,b"}},
			{gone: "a", want: []string{"team-a#h1 DOWN 1 b"}},
			{gone: "b", want: []string{"team-a#h1 Deleted 0"}},
		}},
		"a server that arrives with the status of the host where it was": {route: RouteConfig{GroupByHost: true}, steps: []step{
			{found: row("a", "1", up), want: []string{"team-a#h1 UP first 1 a"}},
			{found: row("b", "2", down, onHost("h2")), want: []string{"team-a#h2 DOWN first 1 b"}},
			{see: row("b", "3", down), want: []string{"team-a#h2 Deleted 0", "team-a#h1 UP first 2 a,b"}},
			{see: row("b", "4", up)},
		}},
		"a group of which the right leaves one server, whose host status has to last first": {route: RouteConfig{GroupByHost: true, MinSeconds: 5}, steps: []step{
			{found: row("a", "1", up, since(time.Hour)), want: []string{"team-a#h1 UP first 1 a"}},
			{see: row("b", "2", unknown), want: []string{"team-a#h1 UP first 2 a,b"}},
			{see: row("a", "1", up, hidden), want: []string{"team-a#h1 hidden"}},
			{after: 5 * time.Second, want: []string{"team-a#h1 UNKNOWN 1 b"}},
		}},
		"a group whose right goes": {route: RouteConfig{GroupByHost: true}, steps: []step{
			{found: row("a", "1", up), want: []string{"team-a#h1 UP first 1 a"}},
			{found: row("b", "1", up), want: []string{"team-a#h1 UP first 2 a,b"}},
			{see: row("a", "1", up, hidden), want: []string{"team-a#h1 UP first 1 b"}},
			{see: row("b", "1", up, hidden), want: []string{"team-a#h1 hidden"}},
			{gone: "a"},
			{gone: "b", want: []string{"team-a#h1 forgotten"}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			box := &heard{}
			c.route.Name = "r"
			r, err := newRoute(&c.route, box)
			if err != nil {
				t.Fatal(err)
			}
			e := newEngine([]*route{r})
			var at time.Time
			e.inDoubt = func(name types.NamespacedName) { e.leftUnknown(name, at) }
			for i, s := range c.steps {
				at = start.Add(s.after)
				e.tick(at)
				switch {
				case s.see != nil:
					e.see(sightingOf(s.see), at, false)
				case s.found != nil:
					e.see(sightingOf(s.found), at, true)
				case s.gone != "":
					e.gone(team(s.gone), at)
				case s.hide:
					e.hide("team-a")
				case s.leftUnknown != "":
					e.leftUnknown(team(s.leftUnknown), at)
				}
				if diff := cmp.Diff(s.want, box.took()); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i+1, diff)
				}
			}
		})
	}
}

func TestAMessageNamesSomeServersOfAHostAndCountsAll(t *testing.T) {
	box := &heard{}
	r, err := newRoute(&RouteConfig{Name: "r", GroupByHost: true}, box)
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine([]*route{r})
	for i := range maxNamed + 20 {
		e.see(sightingOf(row(fmt.Sprintf("s%03d", i), strconv.Itoa(i+1), v1alpha1.HostStatusUp)), start, true)
	}
	last := r.subjects["team-a#h1"].handed
	if last.count != maxNamed+20 || len(last.servers) != maxNamed || last.servers[0] != "s000" {
		t.Errorf("it names %d of %d", len(last.servers), last.count)
	}
}
