// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/notify"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// patch changes the spec of a host.
func patch(t *testing.T, host, spec string) {
	t.Helper()
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}}
	expect.NoError(t, env.Client.Patch(t.Context(), service, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":`+spec+`}`))))
}

// backUp lets all hosts be up at the end of a test.
func backUp(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, host := range fleet.Hosts {
			service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}}
			if err := env.Client.Patch(ctx, service, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":{"forcedDown":null,"disabled":null,"maintenanceWindow":null}}`))); err != nil {
				t.Error(err)
			}
		}
		if err := env.WaitFor(ctx, patience, fleet.All(v1alpha1.HostStatusUp)); err != nil {
			t.Error(err)
		}
	})
}

// makeServers makes n servers in a new namespace, over all hosts.
func makeServers(t *testing.T, namespace string, n int) {
	t.Helper()
	if out, err := env.Kubectl(t.Context(), "create", "namespace", namespace).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var making sync.WaitGroup
	for worker := range 4 {
		making.Go(func() {
			for i := worker; i < n; i += 4 {
				s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("vm-%03d", i)}, Spec: v1alpha1.ServerSpec{Host: fleet.Hosts[i%len(fleet.Hosts)]}}
				if err := env.Client.Create(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	making.Wait()
	expect.NoError(t, env.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUp)))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := env.Client.DeleteAllOf(ctx, &v1alpha1.Server{}, ctrlclient.InNamespace(namespace)); err != nil {
			t.Error(err)
		}
	})
}

// view reads the owners' view with all rights.
func view(t *testing.T) ctrlclient.WithWatch {
	t.Helper()
	config, err := env.Cluster.AdminConfig()
	expect.NoError(t, err)
	scheme := runtime.NewScheme()
	expect.NoError(t, tenantv1alpha1.AddToScheme(scheme))
	c, err := ctrlclient.NewWithWatch(config, ctrlclient.Options{Scheme: scheme})
	expect.NoError(t, err)
	return c
}

func TestAnOwnersSinksHearWhatBecomesOfTheirServers(t *testing.T) {
	backUp(t)
	r := newReceiver(t)
	var route string
	file := config(t, r, env.alertmanager, []string{"team-a"}, func(c *notify.Config) {
		route = c.Routes[1].Name
		c.Routes = append(c.Routes, notify.RouteConfig{Name: "grouped", Sink: "pager", GroupByHost: true, HostStatuses: []v1alpha1.HostStatus{v1alpha1.HostStatusDown}})
	})
	n := startNotifier(t, "notifier", owner("team-a", "first"), file)
	for _, server := range []string{"db-1", "db-2", "web-1", "web-2", "web-3"} {
		r.is("team-a/"+server, "UP")
	}
	patch(t, "compute-1", `{"forcedDown":true}`)
	r.is("team-a/db-1", "DOWN")
	r.is("team-a/web-1", "DOWN")
	alertsAre(t, route, map[string]string{"team-a/db-1": "DOWN", "team-a/web-1": "DOWN"})
	alertsAre(t, "grouped", map[string]string{"team-a: db-1, web-1": "DOWN"})
	patch(t, "compute-2", `{"disabled":true}`)
	alertsAre(t, route, map[string]string{"team-a/db-1": "DOWN", "team-a/web-1": "DOWN", "team-a/web-2": "MAINTENANCE"})

	// While it is away one host recovers, one gets worse, and a server goes.
	n.Kill()
	gone := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "passing"}, Spec: v1alpha1.ServerSpec{Host: "compute-2"}}
	patch(t, "compute-1", `{"forcedDown":null}`)
	patch(t, "compute-2", `{"forcedDown":true}`)
	expect.NoError(t, env.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUp, "compute-1")))
	expect.NoError(t, n.Start())
	alertsAre(t, route, map[string]string{"team-a/web-2": "DOWN"})
	alertsAre(t, "grouped", map[string]string{"team-a: web-2": "DOWN"})
	r.is("team-a/web-1", "UP")
	r.is("team-a/web-2", "DOWN")

	expect.NoError(t, env.Client.Create(t.Context(), gone))
	r.is("team-a/passing", "DOWN")
	alertsAre(t, route, map[string]string{"team-a/web-2": "DOWN", "team-a/passing": "DOWN"})
	expect.NoError(t, env.Client.Delete(t.Context(), gone))
	r.is("team-a/passing", "Deleted")
	alertsAre(t, route, map[string]string{"team-a/web-2": "DOWN"})
	patch(t, "compute-2", `{"forcedDown":null,"disabled":null}`)
	alertsAre(t, route, map[string]string{})
	alertsAre(t, "grouped", map[string]string{})

	// The owners' view goes away while a host changes, and comes back.
	env.TenantAPI.Kill()
	patch(t, "compute-3", `{"disabled":true}`)
	expect.NoError(t, env.TenantAPI.Start())
	r.is("team-a/web-3", "MAINTENANCE")
	alertsAre(t, route, map[string]string{"team-a/web-3": "MAINTENANCE"})

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, note := range r.notes {
		if !strings.HasPrefix(note, "team-a/") {
			t.Errorf("the owner of team-a was told %s", note)
		}
	}
	for _, want := range []string{"team-a/web-1 Snapshot UP", "team-a/web-1 Changed DOWN", "team-a/web-2 Snapshot DOWN", "team-a/passing Changed DOWN", "team-a/web-3 Changed MAINTENANCE"} {
		if !slices.Contains(r.notes, want) {
			t.Errorf("no event %q in %q", want, r.notes)
		}
	}
}

// From marked down until the sink has it, beside a bare watch of the same view for the same
// change.
func TestASinkHearsOfAHostThatIsMarkedDownLittleLaterThanABareWatch(t *testing.T) {
	backUp(t)
	const host, server, samples = "compute-2", "team-a/web-2", 40
	r := newReceiver(t)
	startNotifier(t, "notifier-fast", owner("team-a", "notifier-fast"), config(t, r, "", []string{"team-a"}, nil))
	r.is(server, "UP")
	bare := make(chan time.Time, 1)
	stream, err := view(t).Watch(t.Context(), &tenantv1alpha1.ServerList{}, ctrlclient.InNamespace("team-a"))
	expect.NoError(t, err)
	t.Cleanup(stream.Stop)
	go func() {
		for event := range stream.ResultChan() {
			now := time.Now()
			s, ok := event.Object.(*tenantv1alpha1.Server)
			if !ok || s.Namespace+"/"+s.Name != server || s.Status.HostStatus == nil {
				continue
			}
			if *s.Status.HostStatus == v1alpha1.HostStatusDown {
				select {
				case bare <- now:
				default:
				}
			}
		}
	}()
	const attempts = 3
	var ratio float64
	for range attempts {
		var ours, theirs, later []time.Duration
		for range samples {
			expect.NoError(t, env.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUp, host)))
			r.is(server, "UP")
			for len(bare) > 0 {
				<-bare
			}
			begin := time.Now()
			patch(t, host, `{"forcedDown":true}`)
			select {
			case at := <-bare:
				theirs = append(theirs, at.Sub(begin))
			case <-time.After(patience):
				t.Fatal("the bare watch has not seen it")
			}
			r.is(server, "DOWN")
			_, at := r.told(server)
			ours = append(ours, at.Sub(begin))
			later = append(later, at.Sub(begin)-theirs[len(theirs)-1])
			patch(t, host, `{"forcedDown":null}`)
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		slices.Sort(later)
		p99 := samples * 99 / 100
		ratio = float64(ours[p99]) / float64(theirs[p99])
		t.Logf("from marked down until known, %d samples: sink median %s p99 %s, bare watch median %s p99 %s, ratio of medians %.2f, of p99 %.2f; the sink is later by %s (median), %s (p99)", samples,
			ours[samples/2].Round(10*time.Microsecond), ours[p99].Round(10*time.Microsecond), theirs[samples/2].Round(10*time.Microsecond), theirs[p99].Round(10*time.Microsecond),
			float64(ours[samples/2])/float64(theirs[samples/2]), ratio, later[samples/2].Round(10*time.Microsecond), later[p99].Round(10*time.Microsecond))
		if ratio <= 1.5 {
			return
		}
	}
	t.Errorf("the ratio is %.2f, and may be 1.5", ratio)
}

// truth is what the owners' view shows of a namespace, by "namespace/name".
func truth(t *testing.T, c ctrlclient.Client, namespace string) map[string]string {
	t.Helper()
	var list tenantv1alpha1.ServerList
	expect.NoError(t, c.List(t.Context(), &list, ctrlclient.InNamespace(namespace)))
	out := map[string]string{}
	for i := range list.Items {
		s := &list.Items[i]
		out[s.Namespace+"/"+s.Name] = hoststatus.Label(s.Status.HostStatus)
	}
	return out
}

// Two thousand changes, in the middle of which the notifier is killed again and again.
func TestEveryFinalStateArrivesThoughTheNotifierIsKilled(t *testing.T) {
	backUp(t)
	const namespace, servers, rounds = "storm", 200, 40 // a round changes the 50 servers of a host
	makeServers(t, namespace, servers)
	r := newReceiver(t)
	var route string
	file := config(t, r, env.alertmanager, []string{namespace}, func(c *notify.Config) { route = c.Routes[1].Name })
	n := startNotifier(t, "notifier-storm", owner(namespace, "notifier"), file)
	specs := []string{`{"forcedDown":true,"disabled":null}`, `{"forcedDown":null,"disabled":true}`, `{"forcedDown":null,"disabled":null}`}
	last := map[string]string{}
	kills := 0
	begin := time.Now()
	for i := range rounds {
		host := fleet.Hosts[i%len(fleet.Hosts)]
		spec := specs[rand.IntN(len(specs))]
		for spec == last[host] {
			spec = specs[rand.IntN(len(specs))]
		}
		last[host] = spec
		patch(t, host, spec)
		if i%10 == 7 {
			n.Kill()
			kills++
			expect.NoError(t, n.Start())
		}
		time.Sleep(20 * time.Millisecond) // So that the changes last as long as it takes to start.
	}
	c := view(t)
	expect.Eventually(t, time.Minute, func() error {
		want := truth(t, c, namespace)
		r.mu.Lock()
		got := maps.Clone(r.last)
		r.mu.Unlock()
		for name, status := range want {
			if got[name] != status {
				return fmt.Errorf("of %s the sink was told %q last, want %q", name, got[name], status)
			}
		}
		alerted := map[string]string{}
		for name, status := range want {
			if status != "UP" {
				alerted[name] = status
			}
		}
		have, err := alerts(t.Context(), route)
		if err != nil {
			return err
		}
		if !maps.Equal(have, alerted) {
			return fmt.Errorf("Alertmanager has %d alerts, want %d", len(have), len(alerted))
		}
		return nil
	})
	t.Logf("%d changes, %d kills, %d events; all final states after %s", rounds*servers/len(fleet.Hosts), kills, r.events(), time.Since(begin).Round(10*time.Millisecond))
}

// unbind removes a role from a service account in its namespace.
func unbind(t *testing.T, namespace, account, role string) {
	t.Helper()
	if out, err := env.Kubectl(t.Context(), "delete", "rolebinding", "-n", namespace, account+"-"+role).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Ten seconds after a right is revoked nothing is delivered any more, though hosts go on
// changing. Alerts of whoever keeps the right are still there then: they outlive their expiry.
func TestNothingIsDeliveredTenSecondsAfterARightIsRevoked(t *testing.T) {
	backUp(t)
	type subject struct {
		name, role string
		events     *receiver
		alerts     *counter
		route      string
	}
	// The last one keeps its rights.
	subjects := []*subject{{name: "loses-fields", role: "hoststatus-host-status-viewer"}, {name: "loses-watch", role: "hoststatus-server-viewer"}, {name: "keeps"}}
	for _, s := range subjects {
		s.events, s.alerts = newReceiver(t), newCounter(t)
		file := config(t, s.events, s.alerts.URL, []string{"team-b"}, func(c *notify.Config) {
			s.route = s.name
			c.Routes[1].Name = s.name
		})
		startNotifier(t, s.name, owner("team-b", s.name), file)
	}
	patch(t, "compute-2", `{"forcedDown":true}`) // queue-1 and api-2 are there.
	for _, s := range subjects {
		s.events.is("team-b/queue-1", "DOWN")
		alertsAre(t, s.route, map[string]string{"team-b/api-2": "DOWN", "team-b/queue-1": "DOWN"})
	}
	for _, s := range subjects[:2] {
		unbind(t, "team-b", s.name, s.role)
	}
	revoked := time.Now()
	const rhythm = time.Second
	// Each change would be told.
	flap := func() {
		patch(t, "compute-1", `{"disabled":true}`)
		expect.NoError(t, env.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusMaintenance, "compute-1")))
		patch(t, "compute-1", `{"disabled":null}`)
		expect.NoError(t, env.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUp, "compute-1")))
	}
	type figure struct{ events, posts int }
	count := func(s *subject) figure { return figure{s.events.events(), s.alerts.posted()} }
	silent := map[string]time.Duration{}
	before := map[string]figure{}
	for time.Since(revoked) < 10*time.Second {
		flap()
		for _, s := range subjects {
			if now := count(s); now != before[s.name] {
				before[s.name], silent[s.name] = now, time.Since(revoked)
			}
		}
		time.Sleep(rhythm)
	}
	for _, s := range subjects {
		before[s.name] = count(s)
	}
	for time.Since(revoked) < 14*time.Second {
		flap()
		time.Sleep(rhythm)
	}
	for _, s := range subjects[:2] {
		t.Logf("%s: the last delivery %s after the revocation", s.name, silent[s.name].Round(100*time.Millisecond))
		if now := count(s); now != before[s.name] {
			t.Errorf("%s: ten seconds after the revocation there were %+v, now %+v", s.name, before[s.name], now)
		}
		if status, _ := s.events.told("team-b/queue-1"); status != "DOWN" {
			t.Errorf("%s: the sink was told %s by the revocation", s.name, status)
		}
	}
	keeps := subjects[2]
	if now := count(keeps); now.events <= before[keeps.name].events || now.posts <= before[keeps.name].posts {
		t.Errorf("whoever keeps the right was told nothing")
	}
	alertsAre(t, keeps.route, map[string]string{"team-b/api-2": "DOWN", "team-b/queue-1": "DOWN"})
}

// Whoever may not see host status is told nothing, not even that there is something.
func TestAnOwnerWithoutTheRightToSeeHostStatusIsToldNothing(t *testing.T) {
	backUp(t)
	r, c := newReceiver(t), newCounter(t)
	account := fleet.Account{Namespace: "team-a", Name: "ungranted", Roles: []string{"hoststatus-server-viewer"}}
	startNotifier(t, "ungranted", account, config(t, r, c.URL, []string{"team-a"}, nil))
	patch(t, "compute-1", `{"forcedDown":true}`)
	expect.NoError(t, env.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusDown, "compute-1")))
	passing := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "passing-2"}, Spec: v1alpha1.ServerSpec{Host: "compute-1"}}
	expect.NoError(t, env.Client.Create(t.Context(), passing))
	expect.NoError(t, env.Client.Delete(t.Context(), passing))
	// Once the right is there, everything comes: what came before would be among it.
	if r.events() > 0 || c.posted() > 0 {
		t.Errorf("%d events and %d posts", r.events(), c.posted())
	}
	granted := account
	granted.Roles = []string{"hoststatus-host-status-viewer"}
	_, err := env.NewToken(t.Context(), granted)
	expect.NoError(t, err)
	r.is("team-a/db-1", "DOWN")
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, note := range r.notes {
		if !strings.Contains(note, " Snapshot ") {
			t.Errorf("%s", note)
		}
	}
}

func TestAConfigurationThatIsWrongIsRefusedAtTheStart(t *testing.T) {
	r := newReceiver(t)
	file := config(t, r, "", []string{"team-a"}, func(c *notify.Config) { c.Routes[0].Sink = "nowhere" })
	n, err := env.StartNotifier(t.Context(), "wrong", owner("team-a", "wrong"), file)
	expect.NoError(t, err)
	select {
	case <-n.Done():
	case <-time.After(patience):
		n.Kill()
		t.Fatal("it runs")
	}
	content, err := os.ReadFile(env.LogFile("wrong"))
	expect.NoError(t, err)
	if n.Err() == nil || !strings.Contains(string(content), "routes[0].sink: Invalid value: ") {
		t.Errorf("%v\n%s", n.Err(), content)
	}
}

// Whoever may get /metrics reads them, with no right of the notifier's own.
func TestMetricsAreReadWithTheRightsOfTheReader(t *testing.T) {
	r := newReceiver(t)
	n := startNotifier(t, "notifier-metrics", owner("team-a", "metrics"), config(t, r, "", []string{"team-a"}, nil))
	r.is("team-a/db-1", "UP")
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(token string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+n.Metrics+"/metrics", nil)
		expect.NoError(t, err)
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := insecure.Do(request)
		expect.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		content, err := io.ReadAll(response.Body)
		expect.NoError(t, err)
		return response.StatusCode, string(content)
	}
	reader, err := env.NewToken(t.Context(), fleet.Account{Namespace: "kube-system", Name: "metrics-reader", Everywhere: "cluster-admin"})
	expect.NoError(t, err)
	stranger, err := env.NewToken(t.Context(), owner("team-a", "metrics"))
	expect.NoError(t, err)
	for name, c := range map[string]struct {
		token string
		want  int
	}{"nobody": {"", http.StatusUnauthorized}, "a wrong token": {"wrong", http.StatusUnauthorized}, "an owner": {stranger, http.StatusForbidden}, "who may": {reader, http.StatusOK}} {
		code, body := get(c.token)
		if code != c.want {
			t.Errorf("%s: %d, want %d: %s", name, code, c.want, body)
		}
		if code != http.StatusOK {
			continue
		}
		for _, line := range []string{
			`hoststatus_notifier_servers{host_status="shown"} 5`, `hoststatus_notifier_servers{host_status="hidden"} 0`, `hoststatus_notifier_watches{state="running"} 1`,
			`hoststatus_notifier_sink_failing{sink="bus"} 0`, `hoststatus_notifier_deliveries_total{result="failed",sink="bus"} 0`, `hoststatus_notifier_queue_length{sink="bus"}`,
			`hoststatus_notifier_queue_oldest_seconds{sink="bus"}`, `hoststatus_notifier_delivery_seconds_count{sink="bus"}`,
		} {
			if !strings.Contains(body, line) {
				t.Errorf("the metrics have no %s", line)
			}
		}
		for _, name := range []string{"web-1", "team-a", "compute-1"} {
			if strings.Contains(body, name) {
				t.Errorf("the metrics have %s", name)
			}
		}
	}
}

// The page's commands are run, and its configuration, with other addresses, against real sinks.
func TestThePageIsTrue(t *testing.T) {
	backUp(t)
	const page = "docs/use/notifier.md"
	steps, err := env.RunPage(t.Context(), page)
	expect.NoError(t, err)
	for _, step := range steps {
		if step.Want != "" && step.Want != step.Got {
			t.Errorf("$ %s prints %q, the page shows %q", step.Command, step.Got, step.Want)
		}
	}
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	content, err := os.ReadFile(filepath.Join(root, page))
	expect.NoError(t, err)
	block := func(begin string) string {
		t.Helper()
		_, found, ok := strings.Cut(string(content), begin)
		if !ok {
			t.Fatalf("the page has no %q", begin)
		}
		found, _, _ = strings.Cut(found, "```")
		return found
	}
	apply := env.Kubectl(t.Context(), "apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
	apply.Stdin = strings.NewReader(block("```yaml\n# notifier.yaml\n"))
	if out, err := apply.CombinedOutput(); err != nil {
		t.Errorf("the Deployment of the page: %v\n%s", err, out)
	}
	r := newReceiver(t)
	dir := filepath.Dir(config(t, r, "", []string{"team-a"}, nil)) // It has the token and the authority.
	for file, from := range map[string]string{"pager-token": "token", "bus-token": "token", "bus-ca.crt": "ca.crt"} {
		expect.NoError(t, os.Symlink(from, filepath.Join(dir, file)))
	}
	text := strings.NewReplacer("https://alertmanager.example.com", env.alertmanager, "https://events.example.com", r.URL, "/secrets/", dir+"/").Replace(block("```yaml\n# config.yaml\n"))
	file := filepath.Join(dir, "page.yaml")
	expect.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	startNotifier(t, "notifier-page", fleet.Account{Namespace: "team-a", Name: "notifier"}, file)
	r.is("team-a/web-1", "UP")
	patch(t, "compute-1", `{"forcedDown":true}`)
	r.is("team-a/web-1", "DOWN")
	alertsAre(t, "page", map[string]string{"team-a: db-1, web-1": "DOWN"})

	real, err := rawAlerts(t.Context(), "page")
	expect.NoError(t, err)
	var all []map[string]any
	expect.NoError(t, json.Unmarshal(real, &all))
	for _, own := range []string{"fingerprint", "receivers", "status", "updatedAt"} { // What Alertmanager adds.
		delete(all[0], own)
	}
	delete(all[0], "generatorURL")
	sameJSON(t, "the alert", all[0], block("of it:\n\n```json\n"))
	r.mu.Lock()
	body := r.bodies["team-a/web-1"]
	r.mu.Unlock()
	var event map[string]any
	expect.NoError(t, json.Unmarshal(body, &event))
	for side, shown := range map[string]int{"before": 1, "after": 2} { // The rest is of other tests.
		fields := event["data"].(map[string]any)[side].(map[string]any)
		fields["hostHistory"] = fields["hostHistory"].([]any)[:shown]
	}
	sameJSON(t, "the event", event, block("same change is:\n\n```json\n"))
}

// What differs between two runs.
var varies = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.\d+`), "UID.VERSION"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`[0-9a-f]{32,}`), "HOSTID"},
	{regexp.MustCompile(`"\d{20}"`), "SEQUENCE"},
}

// sameJSON compares what a page shows with what came, but for what differs between two runs.
func sameJSON(t *testing.T, what string, got any, page string) {
	t.Helper()
	pretty, err := json.MarshalIndent(got, "", "  ")
	expect.NoError(t, err)
	normal := func(text string) string {
		for _, v := range varies {
			text = v.pattern.ReplaceAllString(text, v.with)
		}
		return strings.TrimSpace(text)
	}
	if diff := cmp.Diff(normal(page), normal(string(pretty))); diff != "" {
		t.Errorf("%s on the page (-) and in truth (+):\n%s\nit is\n%s", what, diff, pretty)
	}
}
