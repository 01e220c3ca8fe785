// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

const patience = 20 * time.Second

// receiver is a sink that remembers the last that it was told of each server.
type receiver struct {
	t *testing.T
	*httptest.Server

	mu sync.Mutex
	// answer answers a request, before it is taken in; false means that it is not.
	answer func(w http.ResponseWriter, r *http.Request) bool
	// last is by server, for example "DOWN"; an alert that is resolved is gone.
	last     map[string]string
	requests int
	tokens   []string
	causes   []string
	// sequences are those of all events.
	sequences []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, last: map[string]string{}}
	r.Server = httptest.NewTLSServer(r)
	t.Cleanup(r.Close)
	return r
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.requests++
	r.tokens = append(r.tokens, request.Header.Get("Authorization"))
	answer := r.answer
	r.mu.Unlock()
	if answer != nil && !answer(w, request) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.HasSuffix(request.URL.Path, "/api/v2/alerts") {
		r.takeAlerts(w, request)
		return
	}
	e, err := cehttp.NewEventFromHTTPRequest(request)
	if err != nil {
		r.t.Errorf("reading an event: %v", err)
		return
	}
	var data EventData
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		r.t.Errorf("reading %s: %v", e.Data(), err)
		return
	}
	status := string(data.Cause)
	if data.After != nil {
		status = hoststatus.Label(data.After.HostStatus)
	}
	r.last[e.Subject()] = status
	sequence, _ := e.Extensions()[extensionSequence].(string)
	r.sequences = append(r.sequences, sequence)
	r.causes = append(r.causes, fmt.Sprintf("%s %s %s", e.Subject(), data.Cause, status))
}

func (r *receiver) takeAlerts(w http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		var all []listed
		for server, status := range r.last {
			all = append(all, listed{Labels: labelsOf(said(plainRoute, server, "1", v1alpha1.HostStatus(status), "")), StartsAt: start})
		}
		_ = json.NewEncoder(w).Encode(all)
		return
	}
	content, err := io.ReadAll(request.Body)
	var alerts []Alert
	if err != nil || json.Unmarshal(content, &alerts) != nil {
		r.t.Errorf("reading %s: %v", content, err)
	}
	for _, a := range alerts {
		server, status := a.Labels[labelServer], a.Labels[labelHostStatus]
		switch {
		case a.EndsAt.After(time.Now()):
			r.last[server] = status
		case r.last[server] == status:
			delete(r.last, server)
		}
	}
}

// unavailable answers that the sink does not work now.
func unavailable(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	return false
}

func (r *receiver) set(answer func(w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// has waits until it was told want, and nothing else.
func (r *receiver) has(want map[string]string) {
	r.t.Helper()
	expect.Eventually(r.t, patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for server, status := range want {
			if r.last[server] != status {
				return fmt.Errorf("of %s it has %q, want %q, after %d requests", server, r.last[server], status, r.requests)
			}
		}
		if len(r.last) != len(want) {
			return fmt.Errorf("it has %v, want %v", r.last, want)
		}
		return nil
	})
}

// asked returns how many requests came.
func (r *receiver) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// rights answers what it is set to.
type rights struct {
	mu      sync.Mutex
	allowed map[string]bool
	err     error
}

func (r *rights) may(_ context.Context, verb, subresource, _ string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.allowed[verb+"/"+subresource], r.err
}

// world is a notifier whose watch is the test.
type world struct {
	*notifier
	t      *testing.T
	store  *store
	rights *rights
	book   *logbook.Book
}

// newWorld runs a notifier with one sink, of the kind that sink says.
func newWorld(t *testing.T, r *receiver, sink string, routes ...RouteConfig) *world {
	t.Helper()
	dir, ca := t.TempDir(), writeCertificate(t, r)
	token := filepath.Join(dir, "token")
	expect.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	s := SinkConfig{Name: "sink", TLS: TLSConfig{CAFile: ca}, BearerTokenFile: token, TimeoutSeconds: 1}
	if sink == "alertmanager" {
		s.Alertmanager = &AlertmanagerConfig{URL: r.URL}
	} else {
		s.CloudEvents = &CloudEventsConfig{URL: r.URL + "/in", Mode: Mode(sink)}
	}
	if len(routes) == 0 {
		routes = []RouteConfig{{Name: "r"}}
	}
	for i := range routes {
		routes[i].Sink = "sink"
	}
	config := &Config{Namespaces: []string{"team-a"}, Sinks: []SinkConfig{s}, Routes: routes}
	config.complete(dir, "")
	expect.NoError(t, config.Validate().ToAggregate())
	book := logbook.New()
	n, err := newNotifier(config, "test", clock.RealClock{}, book.Logger)
	expect.NoError(t, err)
	w := runWorld(t, n)
	w.book = book
	return w
}

// runWorld runs a notifier until the test ends.
func runWorld(t *testing.T, n *notifier) *world {
	t.Helper()
	w := &world{notifier: n, t: t, store: &store{scope: n.scopes[0]}, rights: &rights{allowed: map[string]bool{"get/status": true}}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- n.run(ctx, func(ctx context.Context, _ *scope) error { <-ctx.Done(); return nil }, w.rights)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// list is what the watch begins with.
func (w *world) list(servers ...*tenantv1alpha1.Server) {
	w.t.Helper()
	var all []any
	for _, s := range servers {
		all = append(all, s)
	}
	expect.NoError(w.t, w.store.Replace(all, "1"))
}

func (w *world) see(s *tenantv1alpha1.Server) {
	w.t.Helper()
	expect.NoError(w.t, w.store.Update(s))
}

// waiting is how many entries the queue of the sink has.
func (w *world) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.boxes[0].usage().waiting
}

var sinks = []string{"Structured", "Binary", "alertmanager"}

// subjectIn is how a receiver of a kind names a server.
func subjectIn(sink, name string) string {
	if sink == "alertmanager" {
		return name
	}
	return "team-a/" + name
}

func TestASinkIsToldOverTLSWithItsToken(t *testing.T) {
	for _, sink := range sinks {
		t.Run(sink, func(t *testing.T) {
			r := newReceiver(t)
			w := newWorld(t, r, sink)
			w.list(row("a", "1", v1alpha1.HostStatusDown))
			r.has(map[string]string{subjectIn(sink, "a"): "DOWN"})
			w.see(row("a", "2", v1alpha1.HostStatusUnknown))
			r.has(map[string]string{subjectIn(sink, "a"): "UNKNOWN"})
			for _, token := range r.tokens {
				if token != "Bearer secret" {
					t.Errorf("sent %q", token)
				}
			}
		})
	}
}

// A sink that does not work is told the newest state once it works again; meanwhile the queue
// has an entry per server and no more, and the log two lines in all.
func TestASinkThatDoesNotWorkIsToldLater(t *testing.T) {
	elsewhere := newReceiver(t)
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"dead": func(w http.ResponseWriter, _ *http.Request) bool {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
			return false
		},
		"slow": func(_ http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body) // Only then the server notices that the client has gone.
			<-r.Context().Done()
			return false
		},
		"500": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return false
		},
		"429": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return false
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			return false
		},
		"refuses": func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadRequest); return false },
	} {
		for _, sink := range sinks[1:] {
			t.Run(name+" "+sink, func(t *testing.T) {
				t.Parallel()
				r := newReceiver(t)
				w := newWorld(t, r, sink)
				w.list(row("a", "1", v1alpha1.HostStatusUnknown), row("b", "1", v1alpha1.HostStatusUnknown))
				r.has(map[string]string{subjectIn(sink, "a"): "UNKNOWN", subjectIn(sink, "b"): "UNKNOWN"})
				r.set(answer)
				statuses := []v1alpha1.HostStatus{v1alpha1.HostStatusUp, v1alpha1.HostStatusMaintenance, v1alpha1.HostStatusUnknown}
				before := r.asked()
				for i := range 300 {
					for _, server := range []string{"a", "b"} {
						w.see(row(server, fmt.Sprint(2+i), statuses[i%3]))
					}
					if n := w.waiting(); n > 2 {
						t.Fatalf("%d entries wait", n)
					}
				}
				w.see(row("a", "400", v1alpha1.HostStatusDown))
				w.see(row("b", "400", v1alpha1.HostStatusNeedsMaintenance))
				expect.Eventually(t, patience, func() error {
					if n := r.asked() - before; n < 3 {
						return fmt.Errorf("%d attempts", n)
					}
					return nil
				})
				r.set(nil)
				r.has(map[string]string{subjectIn(sink, "a"): "DOWN", subjectIn(sink, "b"): "NEEDS_MAINTENANCE"})
				expect.Eventually(t, patience, func() error {
					if n := w.waiting(); n > 0 {
						return fmt.Errorf("%d wait", n)
					}
					return nil
				})
				if n := r.asked() - before; n > 60 {
					t.Errorf("it took %d requests", n)
				}
				w.book.Want(t, "Servers are watched", "The sink fails; of each server the newest state is kept for it", "The sink works again")
			})
		}
	}
	t.Cleanup(func() {
		if n := elsewhere.asked(); n > 0 {
			t.Errorf("%d requests followed a redirect", n)
		}
	})
}

func TestAtTheStartAnAlertmanagerIsAskedWhatItHas(t *testing.T) {
	r := newReceiver(t)
	r.last = map[string]string{"up": "DOWN", "down": "DOWN", "worse": "UNKNOWN", "gone": "DOWN", "hidden": "DOWN"}
	w := newWorld(t, r, "alertmanager")
	w.list(row("up", "1", v1alpha1.HostStatusUp), row("down", "1", v1alpha1.HostStatusDown), row("worse", "1", v1alpha1.HostStatusDown),
		row("new", "1", v1alpha1.HostStatusMaintenance), row("hidden", "1", v1alpha1.HostStatusDown, hidden))
	r.has(map[string]string{"down": "DOWN", "worse": "DOWN", "new": "MAINTENANCE", "hidden": "DOWN"})
}

func TestAtTheStartAReceiverOfEventsGetsASnapshot(t *testing.T) {
	r := newReceiver(t)
	w := newWorld(t, r, "Structured", RouteConfig{Name: "r", HostStatuses: []v1alpha1.HostStatus{v1alpha1.HostStatusDown}})
	w.list(row("a", "1", v1alpha1.HostStatusUp), row("b", "1", v1alpha1.HostStatusDown), row("c", "1", v1alpha1.HostStatusDown, hidden))
	r.has(map[string]string{"team-a/a": "UP", "team-a/b": "DOWN"})
	w.see(row("b", "2", v1alpha1.HostStatusUp))
	r.has(map[string]string{"team-a/a": "UP", "team-a/b": "UP"})
	slices.Sort(r.causes)
	if want := []string{"team-a/a Snapshot UP", "team-a/b Changed UP", "team-a/b Snapshot DOWN"}; !slices.Equal(r.causes, want) {
		t.Errorf("%v, want %v", r.causes, want)
	}
}

func TestAServerThatIsHiddenAfterUnknownIsToldOnlyToWhoeverSeesUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		rights map[string]bool
		want   map[string]string
	}{
		"the right is gone":         {nil, map[string]string{"a": "UNKNOWN", "z": "DOWN"}},
		"only UNKNOWN may be seen":  {map[string]bool{"get/unknownstatus": true}, map[string]string{"z": "DOWN"}},
		"all may be seen, and will": {map[string]bool{"get/unknownstatus": true, "get/status": true}, map[string]string{"a": "UNKNOWN", "z": "DOWN"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			w := newWorld(t, r, "alertmanager")
			w.rights.mu.Lock()
			w.rights.allowed = c.rights
			w.rights.mu.Unlock()
			w.list(row("a", "1", v1alpha1.HostStatusUnknown))
			r.has(map[string]string{"a": "UNKNOWN"})
			w.see(row("a", "2", v1alpha1.HostStatusUp, hidden))
			w.see(row("z", "3", v1alpha1.HostStatusDown))
			r.has(c.want)
			expect.Eventually(t, patience, func() error {
				w.mu.Lock()
				defer w.mu.Unlock()
				if len(w.doubts) > 0 {
					return errors.New("a question is open")
				}
				return nil
			})
			r.has(c.want)
		})
	}
}

// What is not delivered when the right goes never is: not what waits for a sink that fails, and
// not what is on its way.
func TestAfterTheRightIsGoneNothingIsDelivered(t *testing.T) {
	for _, how := range []string{"fields", "watch"} {
		for _, sink := range sinks[1:] {
			t.Run(how+" "+sink, func(t *testing.T) {
				r := newReceiver(t)
				w := newWorld(t, r, sink)
				w.list(row("a", "1", v1alpha1.HostStatusUnknown))
				r.has(map[string]string{subjectIn(sink, "a"): "UNKNOWN"})
				r.set(unavailable)
				w.see(row("a", "2", v1alpha1.HostStatusDown))
				w.see(row("b", "2", v1alpha1.HostStatusDown))
				before := r.asked()
				expect.Eventually(t, patience, func() error {
					if r.asked() <= before {
						return errors.New("not tried yet")
					}
					return nil
				})
				if how == "fields" {
					w.see(row("a", "2", v1alpha1.HostStatusDown, hidden))
					w.see(row("b", "2", v1alpha1.HostStatusDown, hidden))
				} else {
					w.scopes[0].refuse()
				}
				expect.Eventually(t, patience, func() error { // What is on its way is recalled.
					if n := w.waiting(); n > 0 {
						return fmt.Errorf("%d wait", n)
					}
					return nil
				})
				r.set(nil)
				// What is told later shows that nothing was before.
				w.list(row("a", "2", v1alpha1.HostStatusDown, hidden), row("b", "2", v1alpha1.HostStatusDown, hidden), row("c", "3", v1alpha1.HostStatusDown))
				r.has(map[string]string{subjectIn(sink, "a"): "UNKNOWN", subjectIn(sink, "c"): "DOWN"})
			})
		}
	}
}

// What is gone shows nothing any more by which the loss of the right could be seen.
func TestAfterTheRightIsGoneTheEndOfAServerIsNotDelivered(t *testing.T) {
	for _, sink := range sinks[1:] {
		t.Run(sink, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t)
			w := newWorld(t, r, sink)
			w.list(row("a", "1", v1alpha1.HostStatusDown))
			r.has(map[string]string{subjectIn(sink, "a"): "DOWN"})
			r.set(unavailable)
			expect.NoError(t, w.store.Delete(row("a", "2", v1alpha1.HostStatusDown)))
			if n := w.waiting(); n != 1 {
				t.Fatalf("%d wait", n)
			}
			w.rights.mu.Lock()
			w.rights.allowed = nil
			w.rights.mu.Unlock()
			expect.Eventually(t, patience, func() error {
				if n := w.waiting(); n > 0 {
					return fmt.Errorf("%d wait", n)
				}
				return nil
			})
			r.set(nil)
			w.see(row("c", "3", v1alpha1.HostStatusDown))
			r.has(map[string]string{subjectIn(sink, "a"): "DOWN", subjectIn(sink, "c"): "DOWN"})
		})
	}
}

func TestOneMessageIsSentForFiftyServersOfAHost(t *testing.T) {
	r := newReceiver(t)
	w := newWorld(t, r, "Structured", RouteConfig{Name: "r", GroupByHost: true})
	var servers []*tenantv1alpha1.Server
	for i := range 50 {
		servers = append(servers, row(fmt.Sprintf("s%02d", i), "1", v1alpha1.HostStatusUp))
	}
	w.list(servers...)
	r.has(map[string]string{"team-a/hosts/h1": "UP"})
	for i := range 50 {
		w.see(row(fmt.Sprintf("s%02d", i), "2", v1alpha1.HostStatusDown))
	}
	r.has(map[string]string{"team-a/hosts/h1": "DOWN"})
	w.see(row("s00", "3", v1alpha1.HostStatusUnknown, onHost("h2")))
	r.has(map[string]string{"team-a/hosts/h1": "DOWN", "team-a/hosts/h2": "UNKNOWN"})
	if n := r.asked(); n != 3 {
		t.Errorf("%d messages: %q", n, r.causes)
	}
}

func TestMembersOfAClusterOfAlertmanagersGetTheSameAlerts(t *testing.T) {
	one, other := newReceiver(t), newReceiver(t)
	c, err := load(t, fmt.Sprintf(`
sinks: [{name: one, alertmanager: {url: %q}, tls: {caFile: %[3]s}}, {name: other, alertmanager: {url: %[2]q}, tls: {caFile: %[3]s}}]
routes: [{name: r, sink: one}, {name: r, sink: other}]
`, one.URL, other.URL, writeCertificate(t, one)))
	expect.NoError(t, err)
	n, err := newNotifier(c, "test", clock.RealClock{}, logbook.New().Logger)
	expect.NoError(t, err)
	w := runWorld(t, n)
	w.list(row("a", "1", v1alpha1.HostStatusDown))
	for _, r := range []*receiver{one, other} {
		r.has(map[string]string{"a": "DOWN"})
	}
}

func TestServersThatWereDeletedWhileNobodyWatchedAreToldWhenTheRightIsBack(t *testing.T) {
	r := newReceiver(t)
	w := newWorld(t, r, "Structured")
	w.list(row("a", "1", v1alpha1.HostStatusUnknown), row("b", "1", v1alpha1.HostStatusUp))
	r.has(map[string]string{"team-a/a": "UNKNOWN", "team-a/b": "UP"})
	w.scopes[0].refuse()
	w.list(row("b", "1", v1alpha1.HostStatusUp))
	r.has(map[string]string{"team-a/a": "Deleted", "team-a/b": "UP"})
	if n := len(w.engine.servers); n != 1 || w.engine.servers[types.NamespacedName{Namespace: "team-a", Name: "b"}] == nil {
		t.Errorf("%d servers are known", n)
	}
}

// A group that is found without the server by which the sink knew it is no older than before.
func TestTheEventsOfAHostHaveGrowingSequencesThoughServersLeaveItWhileNobodyWatches(t *testing.T) {
	r := newReceiver(t)
	w := newWorld(t, r, "Structured", RouteConfig{Name: "r", GroupByHost: true})
	w.list(row("a", "2", v1alpha1.HostStatusDown), row("b", "4", v1alpha1.HostStatusUp), row("c", "3", v1alpha1.HostStatusUp))
	r.has(map[string]string{"team-a/hosts/h1": "UP"})
	w.scopes[0].refuse()
	expect.NoError(t, w.store.Replace([]any{row("a", "2", v1alpha1.HostStatusDown)}, "5"))
	r.has(map[string]string{"team-a/hosts/h1": "DOWN"})
	expect.NoError(t, w.store.Replace(nil, "6"))
	r.has(map[string]string{"team-a/hosts/h1": "Deleted"})
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.IsSorted(r.sequences) {
		t.Errorf("sequences %v", r.sequences)
	}
}

// writeCertificate writes certificateOf into a file. All receivers have the same.
func writeCertificate(t *testing.T, r *receiver) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	expect.NoError(t, os.WriteFile(path, certificateOf(r.Server), 0o600))
	return path
}

// certificateOf is the certificate of a server, in PEM.
func certificateOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}
