// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	secretHost = "very-secret-host"
	limit      = 10 * time.Second
)

// secrets are the bytes that no tenant may be sent.
var secrets = []string{secretHost, "secret:///", "label-secret", "hidden.example.com", "last-applied", "managedFields", "ownerReferences", "finalizers", "providerID", "hoststatus-agent"}

// questions are all ways to ask for a tenant's servers, good ones and bad ones.
func questions(namespace string) []string {
	list := pathOf(namespace)
	return []string{
		list, list + "?resourceVersion=0", list + "?limit=1", list + "?labelSelector=app%3Dweb",
		list + "?labelSelector=hidden.example.com%2Frack%3Dlabel-secret", list + "?labelSelector=hidden.example.com%2Frack",
		list + "?fieldSelector=status.hostStatus%3DDOWN", list + "?fieldSelector=status.hostStatus%3DUP", list + "?fieldSelector=status.hostStatus%21%3DUP",
		list + "?fieldSelector=spec.host%3D" + "some-guess", list + "?continue=nonsense",
		pathOf(namespace, "web"), pathOf(namespace, "web", "status"), pathOf(namespace, "web", "unknownstatus"), pathOf(namespace, "none"),
		pathOf(""), groupPath,
	}
}

// continueToken is another one in each answer.
var continueToken = regexp.MustCompile(`"?continue"?: ?"?[A-Za-z0-9_-]+"?`)

func TestNoByteOfAnAnswerTellsAnUngrantedUserOfTheHost(t *testing.T) {
	namespace := newNamespace(t)
	s := putServer(t, namespace, "web", secretHost, withHostStatus(computev1alpha1.HostStatusUp))
	putServer(t, namespace, "web-2", secretHost, withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	// So that the cache has what the custom resources have.
	expect.Eventually(t, limit, func() error {
		if n := len(p.list(t, namespace, "resourceVersion=0").Items); n != 2 {
			return fmt.Errorf("%d servers in the cache", n)
		}
		return nil
	})
	ask := func() map[string]string {
		answers := map[string]string{}
		for _, path := range questions(namespace) {
			for _, accept := range []string{"application/json", "application/yaml", acceptTable, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"} {
				a := p.get(t, path, accept)
				for _, secret := range secrets {
					// The user's own words come back in errors.
					if bytes.Contains(bytes.ReplaceAll(a.body, []byte("hidden.example.com/rack"), nil), []byte(secret)) && !strings.Contains(path, secret) {
						t.Errorf("%s (%s) answers %s:\n%s", path, accept, secret, a.body)
					}
				}
				if strings.Contains(string(a.body), `"hostStatus`) || strings.Contains(string(a.body), "Host Status") {
					t.Errorf("%s (%s) answers host status:\n%s", path, accept, a.body)
				}
				text := continueToken.ReplaceAllString(string(a.body), "")
				answers[path+" "+accept] = fmt.Sprint(a.code, ages.ReplaceAllString(text, ""))
			}
		}
		return answers
	}
	before := ask()
	for _, status := range []computev1alpha1.HostStatus{computev1alpha1.HostStatusDown, computev1alpha1.HostStatusUnknown, computev1alpha1.HostStatusNeedsMaintenance} {
		update(t, s, func(s *computev1alpha1.Server) { setHostFields(s, status) })
		expect.Eventually(t, limit, func() error { return cacheHas(t, namespace, s) })
		for path, answer := range ask() {
			if answer != before[path] {
				t.Errorf("%s tells that the host is %s now:\n%s\nbefore:\n%s", path, status, answer, before[path])
			}
		}
	}
	for path, answer := range before {
		if strings.Contains(path, "labelSelector=hidden") && strings.Contains(answer, `"web`) {
			t.Errorf("a label that is hidden can be selected by: %s %s", path, answer)
		}
		if strings.Contains(path, "fieldSelector=status") && !strings.HasPrefix(answer, "403") {
			t.Errorf("%s is answered %s", path, answer)
		}
		if strings.Contains(path, "fieldSelector=spec") && !strings.HasPrefix(answer, "400") {
			t.Errorf("%s is answered %s", path, answer)
		}
	}
	if a, b := before[questions(namespace)[6]+" application/json"], before[questions(namespace)[7]+" application/json"]; a != b {
		t.Errorf("the refusal of a selector depends on its value:\n%s\n%s", a, b)
	}
	for _, path := range []string{"/openapi/v3/apis/tenant.hoststatus.dev/v1alpha1", "/openapi/v2"} {
		// kube-apiserver fetches the OpenAPI of an aggregated API every minute at worst.
		expect.Eventually(t, 2*time.Minute, func() error {
			a := administrator(t).get(t, path, "")
			if a.code != http.StatusOK {
				return fmt.Errorf("%s is answered %d", path, a.code)
			}
			if strings.Contains(string(a.body), secretHost) {
				t.Errorf("%s tells of the host", path)
			}
			return nil
		})
	}
}

// Polling the versions of two namespaces, a tenant once learned of each transition of a
// host, and which of its servers in them share one.
func TestNoVersionTellsAnUngrantedUserOfHostsOrOtherTenants(t *testing.T) {
	mine, second, other := newNamespace(t), newNamespace(t), newNamespace(t)
	hidden := map[string][]computev1alpha1.HostStatus{
		"no grant":     {computev1alpha1.HostStatusDown, computev1alpha1.HostStatusUnknown, computev1alpha1.HostStatusUp},
		"unknown only": {computev1alpha1.HostStatusDown, computev1alpha1.HostStatusMaintenance, computev1alpha1.HostStatusUp},
		"host status":  nil,
	}
	var servers []*computev1alpha1.Server
	for _, namespace := range []string{mine, second} {
		servers = append(servers, putServer(t, namespace, "web", secretHost, withHostStatus(computev1alpha1.HostStatusUp)))
	}
	neighbour := putServer(t, other, "web", secretHost, withHostStatus(computev1alpha1.HostStatusUp))
	for _, g := range grades {
		t.Run(g.name, func(t *testing.T) {
			p := newPerson(t)
			for _, role := range g.roles {
				bind(t, p, role, mine)
				bind(t, p, role, second)
			}
			versions := func() string {
				var out strings.Builder
				for _, namespace := range []string{mine, second} {
					for _, path := range []string{"", "?resourceVersion=0", "?limit=1", "?limit=500", "?fieldSelector=metadata.name%3Dweb", "/web", "/web?resourceVersion=0"} {
						for _, accept := range []string{"", acceptTable} {
							_, _ = fmt.Fprintln(&out, path, anyVersion.FindAllString(string(p.get(t, pathOf(namespace)+path, accept).body), -1))
						}
					}
					for _, query := range []string{"sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", ""} {
						w := p.watch(t, namespace, query, "")
						_, _ = fmt.Fprintln(&out, "watch", anyVersion.FindAllString(string(w.next(t, limit).Object), -1))
						if query != "" {
							_, _ = fmt.Fprintln(&out, "bookmark", anyVersion.FindAllString(string(w.next(t, limit).Object), -1))
						}
						w.cancel()
					}
				}
				return out.String()
			}
			for _, s := range append(servers, neighbour) {
				expect.Eventually(t, limit, func() error { return cacheHas(t, s.Namespace, s) })
			}
			before := versions()
			check := func(what string) {
				t.Helper()
				if after := versions(); after != before {
					t.Errorf("versions tell of %s:\n%s\nbefore:\n%s", what, after, before)
				}
			}
			update(t, neighbour, func(s *computev1alpha1.Server) { s.Status.TaskState = "of-" + strings.ReplaceAll(g.name, " ", "-") })
			expect.Eventually(t, limit, func() error { return cacheHas(t, other, neighbour) })
			check("another tenant's server")
			for _, status := range hidden[g.name] {
				for _, s := range append(servers, neighbour) {
					update(t, s, func(s *computev1alpha1.Server) { setHostFields(s, status) })
				}
				check("a host that is " + string(status) + ", before the view has heard of it or after")
				for _, s := range append(servers, neighbour) {
					expect.Eventually(t, limit, func() error { return cacheHas(t, s.Namespace, s) })
				}
				check("a host that is " + string(status))
			}
			future := p.get(t, pathOf(mine)+"?resourceVersion=99999999", "")
			if future.code != http.StatusGatewayTimeout || strings.Contains(string(future.body), "current") {
				t.Errorf("a list of the future is answered %d: %s", future.code, future.body)
			}
			// What is shown moves the version to that of the change.
			s := servers[0]
			update(t, s, func(s *computev1alpha1.Server) { s.Status.TaskState = "of-" + strings.ReplaceAll(g.name, " ", "-") })
			if got := p.list(t, mine, ""); got.ResourceVersion != s.ResourceVersion || got.Items[0].ResourceVersion != s.ResourceVersion {
				t.Errorf("after version %s the list is of %s, and its server of %s", s.ResourceVersion, got.ResourceVersion, got.Items[0].ResourceVersion)
			}
			w := p.watch(t, mine, "resourceVersion="+p.list(t, mine, "").ResourceVersion, "")
			update(t, s, func(s *computev1alpha1.Server) { s.Status.TaskState = "" })
			w.silentUntil(t, limit, func(e event) bool { return e.Type == "MODIFIED" && e.server(t).ResourceVersion == s.ResourceVersion })
		})
	}
}

var anyVersion = regexp.MustCompile(`"resourceVersion":"[0-9]*"`)

// ages are in tables, and pass.
var ages = regexp.MustCompile(`"[0-9]+[smh]([0-9]+[sm])?"`)

// cacheHas checks that a list from the cache has the server's present version.
func cacheHas(t testing.TB, namespace string, s *computev1alpha1.Server) error {
	expect.NoError(t, env.admin.Get(t.Context(), client.ObjectKeyFromObject(s), s))
	for _, item := range administrator(t).list(t, namespace, "resourceVersion=0").Items {
		if item.Name == s.Name && item.ResourceVersion == s.ResourceVersion {
			return nil
		}
	}
	return fmt.Errorf("the cache does not have %s in version %s", s.Name, s.ResourceVersion)
}

func TestAWatchIsSilentWhileAHostFlaps(t *testing.T) {
	namespace := newNamespace(t)
	s := putServer(t, namespace, "web", secretHost, withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	begin := p.list(t, namespace, "").ResourceVersion
	flap := func(times int) {
		for i := range times {
			status := computev1alpha1.HostStatusDown
			if i%2 == 1 {
				status = computev1alpha1.HostStatusUp
			}
			update(t, s, func(s *computev1alpha1.Server) { setHostFields(s, status) })
		}
	}
	first := p.watch(t, namespace, "allowWatchBookmarks=true&resourceVersion="+begin, "")
	flap(10)
	// A watch that comes back in the middle starts from where the client was.
	second := p.watch(t, namespace, "allowWatchBookmarks=true&resourceVersion="+begin, "")
	flap(10)
	update(t, s, func(s *computev1alpha1.Server) { s.Status.State = "SHUTOFF" })
	for _, w := range []*stream{first, second} {
		w.silentUntil(t, limit, func(e event) bool {
			return e.Type == "MODIFIED" && e.server(t).Status.State == "SHUTOFF"
		})
	}
}

func TestAWatchOfOneNamespaceTellsNothingOfAnother(t *testing.T) {
	mine, other := newNamespace(t), newNamespace(t)
	p := newPerson(t)
	bind(t, p, viewer, mine)
	bind(t, p, statusViewer, mine)
	w := p.watch(t, mine, "", "")
	s := putServer(t, other, "web", secretHost, withHostStatus(computev1alpha1.HostStatusUp))
	update(t, s, func(s *computev1alpha1.Server) { s.Status.State = "SHUTOFF" })
	expect.NoError(t, env.admin.Delete(t.Context(), s))
	putServer(t, mine, "last", "host-1")
	w.silentUntil(t, limit, func(e event) bool { return e.Type == "ADDED" && e.server(t).Namespace == mine })
}

// askReplica asks a replica itself, past kube-apiserver; config nil is nobody.
func askReplica(t *testing.T, config *rest.Config, path string) (int, string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // loopback, in a test
	if config != nil {
		pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
		expect.NoError(t, err)
		transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://" + env.replicas[0].address + path)
	expect.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	expect.NoError(t, err)
	return response.StatusCode, string(body)
}

func TestMetricsAndProbesTellATenantNothing(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", secretHost, withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	for _, c := range []struct {
		name   string
		config *rest.Config
		path   string
		want   int
	}{
		{"a tenant may not read /metrics", p.config, "/metrics", http.StatusForbidden},
		{"nobody may read /metrics", nil, "/metrics", http.StatusUnauthorized},
		{"an unauthenticated caller is refused", nil, pathOf(namespace), http.StatusUnauthorized},
		{"an unauthenticated caller is refused discovery", nil, "/apis", http.StatusUnauthorized},
		{"a tenant may read directly what it may read", p.config, pathOf(namespace), http.StatusOK},
		{"a tenant without the right is refused directly", newPerson(t).config, pathOf(namespace), http.StatusForbidden},
		{"a probe is open", nil, "/readyz", http.StatusOK},
		{"a probe is open", nil, "/livez", http.StatusOK},
		{"a detail of a probe is not", nil, "/readyz/front-proxy-ca", http.StatusUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body := askReplica(t, c.config, c.path)
			if code != c.want {
				t.Errorf("%s is answered %d: %s", c.path, code, body)
			}
			if strings.Contains(body, secretHost) {
				t.Errorf("%s tells the host", c.path)
			}
		})
	}
	admin, err := env.cluster.AdminConfig()
	expect.NoError(t, err)
	code, metrics := askReplica(t, admin, "/metrics")
	if code != http.StatusOK || strings.Contains(metrics, secretHost) || strings.Contains(metrics, namespace) {
		t.Errorf("/metrics is answered %d, or names hosts or tenants", code)
	}
	a := newPerson(t)
	anonymous := rest.AnonymousClientConfig(a.config)
	if a := personWith(t, "anonymous", anonymous).get(t, pathOf(namespace), ""); a.code != http.StatusForbidden {
		t.Errorf("an anonymous caller is answered %d through the API server", a.code)
	}
}

func TestTheHostIDTellsWhichServersShareAHostAndNothingElse(t *testing.T) {
	a, b := newNamespace(t), newNamespace(t)
	for _, namespace := range []string{a, b} {
		putServer(t, namespace, "one", "host-1")
		putServer(t, namespace, "two", "host-1")
		putServer(t, namespace, "other", "host-2")
		putServer(t, namespace, "none", "")
	}
	p := newPerson(t)
	bind(t, p, viewer, "")
	ids := func() map[string]string {
		out := map[string]string{}
		for _, namespace := range []string{a, b} {
			for _, s := range p.list(t, namespace, "").Items {
				out[namespace+"/"+s.Name] = s.Status.HostID
			}
		}
		return out
	}
	before := ids()
	if before[a+"/one"] != before[a+"/two"] || len(before[a+"/one"]) != 64 {
		t.Errorf("two servers on one host have ids %q and %q", before[a+"/one"], before[a+"/two"])
	}
	for _, pair := range [][2]string{{a + "/one", a + "/other"}, {a + "/one", b + "/one"}, {a + "/other", b + "/other"}} {
		if before[pair[0]] == before[pair[1]] {
			t.Errorf("%s and %s have the same host id", pair[0], pair[1])
		}
	}
	if id := before[a+"/none"]; id != "" {
		t.Errorf("a server on no host has host id %q", id)
	}
	restart(t, env.replicas[0])
	after := ids()
	for name, id := range before {
		if after[name] != id {
			t.Errorf("a restart changed the host id of %s", name)
		}
	}
}

// restart ends a replica and starts it again, and returns when it serves.
func restart(t testing.TB, r *replica) {
	t.Helper()
	r.Stop()
	expect.NoError(t, r.Start())
	waitReady(t, r)
}

func waitReady(t testing.TB, r *replica) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // loopback, in a test
	defer transport.CloseIdleConnections()
	expect.Eventually(t, patience, func() error {
		response, err := (&http.Client{Transport: transport, Timeout: time.Second}).Get("https://" + r.address + "/readyz")
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", response.Status)
		}
		return nil
	})
	expect.Eventually(t, patience, func() error {
		if a, err := administrator(t).try(context.WithoutCancel(t.Context()), pathOf("default"), ""); err != nil || a.code != http.StatusOK {
			return fmt.Errorf("through the API server: %d %s %w", a.code, a.body, err)
		}
		return nil
	})
}
