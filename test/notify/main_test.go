// SPDX-License-Identifier: Apache-2.0

// Package notify tests the notifier as owners run it: against a real kube-apiserver with the
// owners' view, a manager and agents at work, and a real Alertmanager.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/notify"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

const (
	// patience is how long something may take that is not timed.
	patience = 30 * time.Second
	// leaseDuration is for how long a heartbeat holds.
	leaseDuration = 4 * time.Second
)

// env is what the tests share.
var env struct {
	*fleet.Fleet
	// alertmanager is the URL of a real one.
	alertmanager string
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !testing.Short() {
		folder, complaint := ensureAlertmanager()
		if complaint != "" {
			fmt.Println("SKIPPED: the notifier is not tested, because Alertmanager cannot be had:", complaint)
			if os.Getenv("CI") == "true" {
				fmt.Println("CI does not accept that.")
				return 1
			}
			return 0
		}
		dir, err := os.MkdirTemp("", "hoststatus-alertmanager-")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		p, err := startAlertmanager(folder, dir)
		if p != nil {
			defer p.Stop()
		}
		if err != nil {
			fmt.Println("starting Alertmanager:", err)
			return 1
		}
	}
	return fleet.RunTests(m, "notify", func(ctx context.Context, dir string) (_ *fleet.Fleet, err error) {
		env.Fleet, err = fleet.Start(ctx, fleet.Options{Dir: filepath.Join(dir, "fleet"), LeaseDuration: leaseDuration, RenewInterval: leaseDuration / 4, Log: os.Stderr})
		return env.Fleet, err
	})
}

// ensureAlertmanager returns the folder that holds Debian's Alertmanager, or why there is none.
func ensureAlertmanager() (folder, complaint string) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return "", err.Error()
	}
	ensure := exec.CommandContext(context.Background(), filepath.Join(root, "hack", "ensure-prometheus.sh"), "alertmanager")
	var printed bytes.Buffer
	ensure.Stderr = &printed
	out, err := ensure.Output()
	if err != nil {
		return "", fmt.Sprintf("%v\n%s", err, printed.Bytes())
	}
	return strings.TrimSpace(string(out)), ""
}

// startAlertmanager starts a real one that notifies nobody.
func startAlertmanager(folder, dir string) (*controlplane.Process, error) {
	config := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), 0o600); err != nil {
		return nil, err
	}
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", ports[0])
	env.alertmanager = "http://" + address
	program, args := alertmanagerCommand(folder,
		"--config.file="+config, "--storage.path="+filepath.Join(dir, "alertmanager"), "--web.listen-address="+address, "--cluster.listen-address=")
	log := filepath.Join(dir, "alertmanager.log")
	p := controlplane.NewProcess("alertmanager", program, log, os.Environ(), args...)
	if err := p.Start(); err != nil {
		return nil, err
	}
	err = expect.Poll(context.Background(), patience, func() error {
		_, err := alerts(context.Background(), "none")
		return err
	})
	if err != nil {
		content, _ := os.ReadFile(log)
		err = fmt.Errorf("%w\n%s", err, content)
	}
	return p, err
}

// alertmanagerCommand runs Debian's Alertmanager, which reads its templates from /usr/share. If
// it is not installed but unpacked, its folder is laid over that for it alone.
func alertmanagerCommand(folder string, args ...string) (program string, all []string) {
	const installed, template = "/usr/share", "prometheus/alertmanager/default.tmpl"
	program = filepath.Join(folder, "prometheus-alertmanager")
	unpacked := filepath.Join(folder, "..", "share")
	if _, err := os.Stat(filepath.Join(installed, template)); err == nil {
		return program, args
	}
	if _, err := os.Stat(filepath.Join(unpacked, template)); err != nil {
		return program, args
	}
	// It still ends with this process: the new namespaces take that from it.
	const script = `mount -t overlay -o lowerdir="$0:/usr/share" overlay /usr/share && exec setpriv --pdeathsig KILL "$@"`
	return "unshare", append([]string{"--map-root-user", "--mount", "sh", "-c", script, unpacked, program}, args...)
}

// receiver takes CloudEvents over TLS, with a token, and remembers what it was told.
type receiver struct {
	t *testing.T
	*httptest.Server

	mu sync.Mutex
	// last is by subject: the host status, or the cause of the end.
	last map[string]string
	// at is when the last event about a subject came, and count how many came in all.
	at    map[string]time.Time
	count int
	// notes are all events, as "subject cause status".
	notes []string
	// bodies are the last events, in structured mode.
	bodies map[string][]byte
}

const sinkToken = "let-me-in"

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, last: map[string]string{}, at: map[string]time.Time{}, bodies: map[string][]byte{}}
	r.Server = httptest.NewTLSServer(r)
	t.Cleanup(r.Close)
	return r
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	now := time.Now()
	if request.Header.Get("Authorization") != "Bearer "+sinkToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // The notifier was killed.
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	e, err := cehttp.NewEventFromHTTPRequest(request)
	if err != nil {
		r.t.Errorf("reading an event: %v", err)
		return
	}
	var data notify.EventData
	if err := e.DataAs(&data); err != nil || e.Type() != notify.EventType {
		r.t.Errorf("an event of type %s: %v", e.Type(), err)
		return
	}
	status := string(data.Cause)
	if data.After != nil {
		status = hoststatus.Label(data.After.HostStatus)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[e.Subject()], r.at[e.Subject()] = status, now
	r.count++
	r.notes = append(r.notes, fmt.Sprintf("%s %s %s", e.Subject(), data.Cause, status))
	r.bodies[e.Subject()] = body
}

func (r *receiver) told(subject string) (status string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[subject], r.at[subject]
}

// is waits until it was told this last.
func (r *receiver) is(subject, want string) {
	r.t.Helper()
	expect.Eventually(r.t, patience, func() error {
		if got, _ := r.told(subject); got != want {
			return fmt.Errorf("of %s it was told %q last, want %q", subject, got, want)
		}
		return nil
	})
}

func (r *receiver) events() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// config writes a configuration that tells receiver r and the Alertmanager at URL alertmanager, ""
// for none, of all of some namespaces. modify changes it.
func config(t *testing.T, r *receiver, alertmanager string, namespaces []string, modify func(*notify.Config)) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		expect.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	c := &notify.Config{
		Namespaces: namespaces,
		Sinks: []notify.SinkConfig{{
			Name: "bus", CloudEvents: &notify.CloudEventsConfig{URL: r.URL}, BearerTokenFile: write("token", []byte(sinkToken+"\n")),
			TLS: notify.TLSConfig{CAFile: write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}))},
		}},
		Routes: []notify.RouteConfig{{Name: "all", Sink: "bus"}},
	}
	if alertmanager != "" {
		c.Sinks = append(c.Sinks, notify.SinkConfig{Name: "pager", Alertmanager: &notify.AlertmanagerConfig{URL: alertmanager, ResendSeconds: 5, ExpireSeconds: 10}})
		c.Routes = append(c.Routes, notify.RouteConfig{Name: strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())), Sink: "pager"})
		c.Routes[1].Name = c.Routes[1].Name[:min(len(c.Routes[1].Name), 40)]
	}
	if modify != nil {
		modify(c)
	}
	content, err := yaml.Marshal(c)
	expect.NoError(t, err)
	return write("config.yaml", content)
}

// owner is a service account that sees host status in a namespace.
func owner(namespace, name string) fleet.Account {
	return fleet.Account{Namespace: namespace, Name: name, Roles: []string{"hoststatus-server-viewer", "hoststatus-host-status-viewer"}}
}

// startNotifier starts one, and waits until it is ready.
func startNotifier(t *testing.T, name string, a fleet.Account, config string) *fleet.Notifier {
	t.Helper()
	n, err := env.StartNotifier(t.Context(), name, a, config)
	expect.NoError(t, err)
	t.Cleanup(func() {
		n.Stop()
		if t.Failed() {
			content, _ := os.ReadFile(env.LogFile(name))
			t.Logf("the log of %s ends with\n%s", name, content[max(0, len(content)-3000):])
		}
	})
	expect.Eventually(t, patience, n.Ready)
	return n
}

// rawAlerts are those of a route, as Alertmanager lists them.
func rawAlerts(ctx context.Context, route string) ([]byte, error) {
	query := url.Values{"filter": {fmt.Sprintf("route=%q", route)}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, env.alertmanager+"/api/v2/alerts?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return io.ReadAll(response.Body)
}

// alerts are those of a route that Alertmanager has, as "server" or "host id" by host status.
func alerts(ctx context.Context, route string) (map[string]string, error) {
	content, err := rawAlerts(ctx, route)
	if err != nil {
		return nil, err
	}
	var found []notify.Alert
	if err := json.Unmarshal(content, &found); err != nil {
		return nil, fmt.Errorf("%s: %w", content, err)
	}
	out := map[string]string{}
	for _, a := range found {
		name := a.Labels["namespace"] + "/" + a.Labels["server"]
		if a.Labels["server"] == "" {
			name = fmt.Sprintf("%s: %s", a.Labels["namespace"], a.Annotations["servers"])
		}
		if other, twice := out[name]; twice {
			return nil, fmt.Errorf("%s is both %s and %s", name, other, a.Labels["host_status"])
		}
		out[name] = a.Labels["host_status"]
	}
	return out, nil
}

// alertsAre waits until Alertmanager has these of a route, and no others.
func alertsAre(t *testing.T, route string, want map[string]string) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		got, err := alerts(t.Context(), route)
		if err != nil {
			return err
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("Alertmanager has %v, want %v", got, want)
		}
		return nil
	})
}

// counter is a proxy before Alertmanager that counts what is posted.
type counter struct {
	*httptest.Server
	mu    sync.Mutex
	posts int
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	to, err := url.Parse(env.alertmanager)
	expect.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(to)
	c := &counter{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			c.mu.Lock()
			c.posts++
			c.mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *counter) posted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.posts
}
