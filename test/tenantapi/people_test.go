// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	acceptTable = "application/json;as=Table;v=v1;g=meta.k8s.io"
	groupPath   = "/apis/tenant.hoststatus.dev/v1alpha1"

	viewer        = "hoststatus-server-viewer"
	statusViewer  = "hoststatus-host-status-viewer"
	unknownViewer = "hoststatus-host-status-unknown-viewer"
)

// pathOf returns the path of a server, or of all of a namespace, or of all.
func pathOf(namespace string, more ...string) string {
	path := groupPath
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return strings.Join(append([]string{path + "/servers"}, more...), "/")
}

// newNamespace makes a tenant.
func newNamespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("tenant-%d", env.users.Add(1))}}
	expect.NoError(t, env.admin.Create(t.Context(), namespace))
	return namespace.Name
}

// person is a user of the cluster.
type person struct {
	name   string
	config *rest.Config
	http   *http.Client
}

// newPerson makes a user without any right.
func newPerson(t testing.TB, groups ...string) *person {
	t.Helper()
	name := fmt.Sprintf("user-%d", env.users.Add(1))
	config, err := env.cluster.ConfigFor(name, groups...)
	expect.NoError(t, err)
	return personWith(t, name, config)
}

func administrator(t testing.TB) *person {
	t.Helper()
	config, err := env.cluster.AdminConfig()
	expect.NoError(t, err)
	return personWith(t, "admin", config)
}

func personWith(t testing.TB, name string, config *rest.Config) *person {
	t.Helper()
	c, err := rest.HTTPClientFor(config)
	expect.NoError(t, err)
	return &person{name: name, config: config, http: c}
}

// bind gives a role to a user in a namespace, or everywhere if it is "". It returns
// how to take it back, and returns once kube-apiserver knows of it.
func bind(t testing.TB, p *person, role, namespace string) (unbind func()) {
	t.Helper()
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: p.name}}
	meta := metav1.ObjectMeta{Name: p.name + "-" + role, Namespace: namespace}
	var object client.Object = &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
	if namespace == "" {
		object = &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
	}
	expect.NoError(t, env.admin.Create(t.Context(), object))
	var once sync.Once
	unbind = func() {
		once.Do(func() {
			if err := env.admin.Delete(context.WithoutCancel(t.Context()), object); err != nil {
				t.Errorf("taking %s from %s: %v", role, p.name, err)
			}
		})
	}
	if namespace == "" {
		t.Cleanup(unbind)
	}
	subresource := map[string]string{viewer: "", statusViewer: "status", unknownViewer: "unknownstatus"}[role]
	expect.Eventually(t, patience, func() error { return p.may(t, namespace, subresource, true) })
	return unbind
}

// may checks what kubectl auth can-i says.
func (p *person) may(t testing.TB, namespace, subresource string, want bool) error {
	args := []string{"auth", "can-i", "get", "servers.tenant.hoststatus.dev", "--as=" + p.name}
	if subresource != "" {
		args = append(args, "--subresource="+subresource)
	}
	if namespace != "" {
		args = append(args, "-n", namespace)
	} else {
		args = append(args, "-A")
	}
	out, _ := env.kubectl(t.Context(), args...).Output()
	if got := strings.TrimSpace(string(out)) == "yes"; got != want {
		return fmt.Errorf("kubectl %s says %q, want %t", strings.Join(args, " "), out, want)
	}
	return nil
}

// putServer makes a server, with everything in it that no tenant may see.
func putServer(t testing.TB, namespace, name, host string, change ...func(*computev1alpha1.Server)) *computev1alpha1.Server {
	t.Helper()
	s := &computev1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace,
			Labels: map[string]string{
				"app": "web", "app.kubernetes.io/name": "web", "hidden.example.com/rack": "label-secret",
			},
			Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": `{"spec":{"host":"` + host + `"}}`},
			Finalizers:  nil,
		},
		Spec: computev1alpha1.ServerSpec{Host: host, ProviderID: "secret:///" + host},
	}
	for _, c := range change {
		c(s)
	}
	status := s.Status
	expect.NoError(t, env.admin.Create(t.Context(), s))
	s.Status = status
	if s.Status.State == "" {
		s.Status.State = "ACTIVE"
	}
	s.Status.PowerState = "RUNNING"
	s.Status.Networks = []computev1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}}
	expect.NoError(t, env.admin.Status().Update(t.Context(), s))
	return s
}

// withHostStatus fills in the host fields.
func withHostStatus(status computev1alpha1.HostStatus) func(*computev1alpha1.Server) {
	return func(s *computev1alpha1.Server) { setHostFields(s, status) }
}

func setHostFields(s *computev1alpha1.Server, status computev1alpha1.HostStatus) {
	s.Status.HostStatus = &status
	s.Status.HostStatusReason = cmp.Or(map[computev1alpha1.HostStatus]computev1alpha1.HostStatusReason{
		computev1alpha1.HostStatusDown:             computev1alpha1.ReasonForcedDown,
		computev1alpha1.HostStatusUnknown:          computev1alpha1.ReasonLeaseExpired,
		computev1alpha1.HostStatusMaintenance:      computev1alpha1.ReasonDisabled,
		computev1alpha1.HostStatusNeedsMaintenance: computev1alpha1.ReasonWindowAnnounced,
		computev1alpha1.HostStatusNone:             computev1alpha1.ReasonNoHost,
	}[status], computev1alpha1.ReasonReporting)
	s.Status.HostStatusTransitionTime = ptr.To(metav1.Now())
	s.Status.HostReporting = computev1alpha1.HostReportingTrue
	if status == computev1alpha1.HostStatusNone {
		s.Status.HostReporting = ""
	}
	s.Status.MaintenanceWindow = nil
	if status == computev1alpha1.HostStatusNeedsMaintenance {
		s.Status.MaintenanceWindow = &computev1alpha1.AnnouncedWindow{StartTime: ptr.To(metav1.NewTime(time.Now().Add(time.Hour)))}
	}
	s.Status.HostHistory = []computev1alpha1.HostStatusChange{{HostStatus: &status, Reason: s.Status.HostStatusReason, Since: s.Status.HostStatusTransitionTime}}
	s.Status.ObservedGeneration = 1
}

// update changes a server's status.
func update(t testing.TB, s *computev1alpha1.Server, change func(*computev1alpha1.Server)) {
	t.Helper()
	expect.NoError(t, env.admin.Get(t.Context(), client.ObjectKeyFromObject(s), s))
	change(s)
	expect.NoError(t, env.admin.Status().Update(t.Context(), s))
}

// answer is what the API server said.
type answer struct {
	code     int
	warnings []string
	body     []byte
}

// get asks for a path.
func (p *person) get(t testing.TB, path, accept string) answer {
	t.Helper()
	a, err := p.try(t.Context(), path, accept)
	expect.NoError(t, err)
	return a
}

func (p *person) try(ctx context.Context, path, accept string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, env.cluster.URL+path, nil)
	if err != nil {
		return answer{}, err
	}
	if accept == "" {
		accept = "application/json"
	}
	request.Header.Set("Accept", accept)
	response, err := p.http.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header.Values("Warning"), body}, err
}

// decode reads an answer that must be good.
func decode[T any](t testing.TB, a answer) *T {
	t.Helper()
	out := new(T)
	if a.code != http.StatusOK {
		t.Fatalf("the answer is %d: %s", a.code, a.body)
	}
	expect.NoError(t, json.Unmarshal(a.body, out))
	return out
}

func (p *person) server(t testing.TB, namespace, name string) *v1alpha1.Server {
	t.Helper()
	return decode[v1alpha1.Server](t, p.get(t, pathOf(namespace, name), ""))
}

func (p *person) list(t testing.TB, namespace, query string) *v1alpha1.ServerList {
	t.Helper()
	return decode[v1alpha1.ServerList](t, p.get(t, pathOf(namespace)+"?"+query, ""))
}

// event is one of a watch.
type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

func (e event) server(t testing.TB) *v1alpha1.Server {
	t.Helper()
	s := &v1alpha1.Server{}
	expect.NoError(t, json.Unmarshal(e.Object, s))
	return s
}

// stream is a running watch.
type stream struct {
	events chan event
	cancel context.CancelFunc
}

// watch opens a watch; it ends with the test.
func (p *person) watch(t testing.TB, namespace, query, accept string) *stream {
	t.Helper()
	s, err := p.tryWatch(t, namespace, query, accept)
	expect.NoError(t, err)
	return s
}

func (p *person) tryWatch(t testing.TB, namespace, query, accept string) (*stream, error) {
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, env.cluster.URL+pathOf(namespace)+"?watch=true&"+query, nil)
	expect.NoError(t, err)
	if accept == "" {
		accept = "application/json"
	}
	request.Header.Set("Accept", accept)
	response, err := p.http.Do(request) //nolint:bodyclose // the goroutine below closes it
	if err != nil {
		cancel()
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		cancel()
		return nil, fmt.Errorf("the watch is answered %d: %s", response.StatusCode, body)
	}
	s := &stream{events: make(chan event, 10_000), cancel: cancel}
	go func() {
		defer close(s.events)
		defer func() { _ = response.Body.Close() }()
		decoder := json.NewDecoder(bufio.NewReader(response.Body))
		for {
			var e event
			if err := decoder.Decode(&e); err != nil {
				return
			}
			s.events <- e
		}
	}()
	t.Cleanup(cancel)
	return s, nil
}

// next returns the next event.
func (s *stream) next(t testing.TB, limit time.Duration) event {
	t.Helper()
	select {
	case e, ok := <-s.events:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return e
	case <-time.After(limit):
		t.Fatalf("no event within %s", limit)
	}
	return event{}
}

// silentUntil checks that nothing but the event that last makes comes.
func (s *stream) silentUntil(t testing.TB, limit time.Duration, last func(event) bool) {
	t.Helper()
	e := s.next(t, limit)
	if !last(e) {
		t.Errorf("the watch is not silent: %s %s", e.Type, e.Object)
	}
}

// kubeconfig writes the user's configuration for kubectl.
func (p *person) kubectl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	path := filepath.Join(env.dir, p.name+".kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(path, p.config))
	out, err := env.cluster.Kubectl(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

func (p *person) mustKubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.kubectl(t, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}
