// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// testdata/captured has exchanges with a real Nova, one a file: the request, whose lines
// begin with >, and the answer. Each is asked of nova-api, in this order, on a fleet like the
// one that it was captured on.

// skipped are the exchanges that nova-api answers otherwise on purpose.
var skipped = map[string]string{
	"031-roles-notoken":          "the answer is that of the harness of the capture; the one of keystonemiddleware, which clients know, is tested in internal/nova",
	"058-show-otherproject-url":  "Nova takes only projects of hexadecimal digits for such; here a project is a namespace",
	"115-f-host-nonadmin":        "Nova ignores the filter of a caller who may not filter by host, so that the answer is wider than what was asked for; here 403",
	"116-f-host-nonadmin-2.75":   "Nova ignores the filter, as above; here 403",
	"134-f-uuid-nonadmin":        "Nova ignores the filter, as above; here it is honoured",
	"136-f-hoststatus-2.16":      "Nova does not know the filter and ignores it; here it is honoured, so there is no next page",
	"143-f-services-nonadmin":    "Nova ignores the filter, as above; here 400",
	"145-f-tags-2.26":            "there are no tags here to filter by: 400",
	"146-f-flavor":               "there are no flavors here to filter by: 400",
	"148-f-image":                "there are no images here to filter by: 400",
	"149-f-az":                   "there are no availability zones here to filter by: 400",
	"152-f-deleted":              "servers that are deleted are not known here: 400",
	"154-f-changes-since-future": "what has changed since is not known here: 400",
	"157-f-changes-before-2.16":  "what has changed before is not known here, and Nova ignores it: 400",
	"158-f-changes-before-2.66":  "what has changed before is not known here: 400",
	"242-flavors":                "there are no flavors here: the list is empty",
	"244-flavors-detail-2.61":    "there are no flavors here: the list is empty",
	"245-flavor-2":               "there are no flavors here: 404",
	"247-images-2.1":             "the capture has an error of an image service that was not there; here 404",
	"254-migrations":             "not served: 404; an empty list would say that nothing is being moved, which nobody knows here",
	"259-srv-actions":            "not served: 404; an empty list would say that nothing was done",
	"260-srv-interfaces":         "not served: 404",
	"262-srv-secgroups":          "not served: 404",
	"263-srv-migrations":         "not served: 404; an empty list would say that nothing is being moved, which nobody knows here",
	"265-srv-topology":           "not served: 404",
	"266-hosts":                  "not served: 404; clients use os-services and os-hypervisors",
	"268-srv-put-name-2.74":      "servers are not changed here: 403",
	"269-srv-put-name-2.75":      "servers are not changed here: 403",
	"277-pid-version":            "the answer is that of noauth2, which Nova's own tests use",
	"278-pid-version-slash":      "the answer is that of noauth2",
	"284-pid-notoken-root":       "the answer is that of noauth2",
	"283-pid-mismatch":           "a token is of no project here: RBAC decides what it may read of which namespace",
}

// exchange is one file.
type exchange struct {
	name                string
	method, path, token string
	header              http.Header
	body                string

	code       int
	wantHeader http.Header
	wantBody   string
}

func readExchange(t *testing.T, path string) exchange {
	t.Helper()
	content, err := os.ReadFile(path)
	expect.NoError(t, err)
	e := exchange{name: strings.TrimSuffix(filepath.Base(path), ".http"), header: http.Header{}, wantHeader: http.Header{}}
	lines := strings.Split(string(content), "\n")
	i := 0
	for ; i < len(lines) && strings.HasPrefix(lines[i], "> "); i++ {
		e.readRequest(t, i, strings.TrimPrefix(lines[i], "> "))
	}
	answer := strings.TrimLeft(strings.ReplaceAll(strings.Join(lines[i:], "\n"), "\r", ""), "\n")
	status, rest, _ := strings.Cut(answer, "\n")
	if _, err := fmt.Sscanf(status, "HTTP/1.1 %d", &e.code); err != nil {
		t.Fatalf("%s: %v in %q", path, err, status)
	}
	head, body, _ := strings.Cut("\n"+rest, "\n\n")
	for line := range strings.SplitSeq(head, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			e.wantHeader.Add(name, value)
		}
	}
	if e.wantBody = strings.TrimSpace(body); strings.HasPrefix(e.wantBody, "HTTP/") {
		e.wantBody = "" // The capture of a HEAD has the head twice.
	}
	return e
}

func (e *exchange) readRequest(t *testing.T, i int, line string) {
	t.Helper()
	if i == 0 {
		method, address, _ := strings.Cut(line, " ")
		u, err := url.Parse(address)
		expect.NoError(t, err)
		e.method, e.path = method, u.RequestURI()
		return
	}
	name, value, ok := strings.Cut(line, ": ")
	switch {
	case strings.HasPrefix(line, "{") || strings.HasPrefix(line, "["):
		e.body = line
	case strings.HasSuffix(line, ";"): // An empty header, as curl writes it.
		e.header.Add(strings.TrimSuffix(line, ";"), "")
	case ok && name == "X-Auth-Token":
		e.token = value
	case ok && name == "Content-Type" && e.header.Get(name) != "": // curl shows its own, too.
	case ok:
		e.header.Add(name, value)
	}
}

// The accounts of the capture: administrators and others, of some projects. demo has been
// granted host status in some exchanges, by their names.
func (e *exchange) account() (fleet.Account, bool) {
	role, project, ok := strings.Cut(e.token, ":")
	if !ok {
		return fleet.Account{}, false
	}
	account := fleet.Account{Namespace: project, Name: role, Roles: []string{"view"}}
	switch {
	case role == "admin":
		account.Everywhere, account.Roles = "cluster-admin", nil
	case strings.Contains(e.name, "unknownonly"):
		account.Name, account.Roles = "demo-unknown", append(account.Roles, "hoststatus-host-status-unknown-viewer")
	case strings.Contains(e.name, "granted"):
		account.Name, account.Roles = "demo-granted", append(account.Roles, "hoststatus-host-status-viewer")
	}
	return account, true
}

func TestExchangesWithNovaAreAnsweredAlike(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "captured", "*.http"))
	expect.NoError(t, err)
	if len(files) == 0 {
		t.Fatal("there are no exchanges")
	}
	ids := makeCapturedFleet(t)
	tokens := map[string]string{}
	seen := map[string]bool{}
	for _, file := range files {
		e := readExchange(t, file)
		seen[e.name] = true
		t.Run(e.name, func(t *testing.T) {
			if reason := skipped[e.name]; reason != "" {
				t.Skip(reason)
			}
			c := &client{url: env.url}
			if account, ok := e.account(); ok {
				key := account.Namespace + "/" + account.Name
				if tokens[key] == "" {
					var err error
					tokens[key], err = env.NewToken(t.Context(), account)
					expect.NoError(t, err)
				}
				c.token = tokens[key]
			}
			e.compare(t, c.replay(t, e, ids))
		})
	}
	for name := range skipped {
		if !seen[name] {
			t.Errorf("%s is skipped, and there is no such exchange", name)
		}
	}
}

// replay sends the request of an exchange, with the ids that the servers and services have
// here.
func (c *client) replay(t *testing.T, e exchange, ids *strings.Replacer) response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), e.method, c.url+ids.Replace(e.path), nil)
	expect.NoError(t, err)
	maps.Copy(request.Header, e.header)
	if c.token != "" {
		request.Header.Set("X-Auth-Token", c.token)
	}
	if e.body != "" {
		request.Body, request.ContentLength = io.NopCloser(strings.NewReader(e.body)), int64(len(e.body))
	}
	answer, err := http.DefaultClient.Do(request)
	expect.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(answer.Body)
	expect.NoError(t, err)
	return response{answer.StatusCode, answer.Header, string(content)}
}

// ownHeaders are those that the captures leave out.
var ownHeaders = []string{"Date", "Content-Length", "Warning"}

// compare compares status, names of headers, keys and types.
func (e *exchange) compare(t *testing.T, got response) {
	t.Helper()
	if got.code != e.code {
		t.Fatalf("%s %s: %d %s\nwant %d %s", e.method, e.path, got.code, got.body, e.code, e.wantBody)
	}
	names := func(h http.Header) []string {
		var out []string
		for name, values := range h {
			if !slices.Contains(ownHeaders, name) {
				out = append(out, fmt.Sprintf("%s×%d", name, len(values)))
			}
		}
		slices.Sort(out)
		return out
	}
	if g, w := names(got.header), names(e.wantHeader); !slices.Equal(g, w) {
		t.Errorf("headers %v, want %v", g, w)
	}
	if e.wantBody == "" {
		if got.body != "" {
			t.Errorf("body %s, want none", got.body)
		}
		return
	}
	var g, w any
	expect.NoError(t, json.Unmarshal([]byte(e.wantBody), &w))
	if err := json.Unmarshal([]byte(got.body), &g); err != nil {
		t.Fatalf("%v in %s", err, got.body)
	}
	for _, difference := range compareShapes("", g, w) {
		t.Errorf("%s\nin %s\nwant %s", difference, got.body, e.wantBody)
	}
	if e.code >= http.StatusBadRequest {
		compareMessages(t, g, w)
	}
}

// compareMessages compares what clients print of an error: its code and its message.
func compareMessages(t *testing.T, got, want any) {
	t.Helper()
	code := func(v any) any {
		object, _ := v.(map[string]any)
		for _, inner := range object {
			if o, ok := inner.(map[string]any); ok {
				return o["code"]
			}
		}
		return object["code"]
	}
	if code(got) != code(want) {
		t.Errorf("code %v, want %v", code(got), code(want))
	}
}

// placeholders are fields that are null, or a text, here or there: nothing is known of them
// here, or the value was another at the time of the capture.
var placeholders = map[string]bool{
	"image": true, "OS-SRV-USG:launched_at": true, "OS-EXT-SRV-ATTR:root_device_name": true, "description": true, "updated_at": true, "disabled_reason": true,
	"OS-EXT-SRV-ATTR:host": true, "OS-EXT-SRV-ATTR:hypervisor_hostname": true,
}

// mapsOf are objects whose keys are data.
var mapsOf = map[string]bool{"metadata": true, "extra_specs": true, "addresses": true}

// compareShapes returns where two values differ in keys or types.
func compareShapes(path string, got, want any) []string {
	key := path[strings.LastIndexByte(path, '/')+1:]
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			if placeholders[key] {
				return nil
			}
			return []string{fmt.Sprintf("%s is %T, want an object", path, got)}
		}
		return compareObjects(path, key, g, w)
	case []any:
		g, ok := got.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %T, want a list", path, got)}
		}
		if len(g) > 0 && len(w) > 0 {
			return compareShapes(path+"[]", g[0], w[0])
		}
		if (len(g) == 0) != (len(w) == 0) {
			return []string{fmt.Sprintf("%s has %d elements, want %d", path, len(g), len(w))}
		}
		return nil
	}
	if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) && !placeholders[key] {
		return []string{fmt.Sprintf("%s is %T, want %T", path, got, want)}
	}
	return nil
}

func compareObjects(path, key string, got, want map[string]any) (differences []string) {
	if mapsOf[key] {
		g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))
		if len(g) > 0 && len(w) > 0 {
			return compareShapes(path+"/*", got[g[0]], want[w[0]])
		}
		return nil
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			if name == "OS-EXT-IPS-MAC:mac_addr" { // Nobody reports these here.
				continue
			}
			differences = append(differences, fmt.Sprintf("%s/%s is missing", path, name))
			continue
		}
		differences = append(differences, compareShapes(path+"/"+name, got[name], want[name])...)
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			differences = append(differences, fmt.Sprintf("%s/%s is too much", path, name))
		}
	}
	return differences
}

// capturedHosts are the hosts that the exchanges name, and what they were.
var capturedHosts = map[string]v1alpha1.ComputeServiceSpec{
	"compute-000": {},
	"compute-050": {},
	"compute-091": {ForcedDown: ptr.To(true)},
	"compute-092": {ForcedDown: ptr.To(true), Disabled: ptr.To(true), DisabledReason: ptr.To("both")},
	"compute-093": {LeaseDurationSeconds: v1alpha1.MinLeaseDurationSeconds},
	"compute-096": {LeaseDurationSeconds: v1alpha1.MinLeaseDurationSeconds},
	"compute-098": {},
	"compute-099": {},
}

// silentHosts never report. The others do, once, and that holds for as long as the test.
var silentHosts = []string{"compute-093", "compute-096"}

// capturedIDs are ids in the exchanges, and of which servers and services they are.
var capturedIDs = map[string]string{
	"0f0fbc02-de97-5b0a-ba62-86e1aaa168d5": "proj1/vm-000-0",
	"495250ce-4cf4-5dfc-b745-ff5148e8976d": "proj1/vm-091-0",
	"b573eb7d-a5a3-55b9-9b3e-cb6559048a72": "proj1/vm-092-0",
	"f7c5d070-de49-53b0-85de-b4fd0e96e61b": "proj1/vm-093-0",
	"23cdc98c-3ee5-55a0-ae92-7e9bcf084a67": "proj1/vm-099-1",
	"ec6ba5a8-e2d6-5cf8-be69-db70d2bf05ad": "projnull/nohost-0",
	"4fd4cfe7-fff6-5838-b1b1-cec091e27775": "projnull/emptyhost-0",
	"6d501686-02d5-4a25-8017-ae5ac2d010a4": "compute-050",
	"4847fdd7-3bbf-4d29-87c3-3d2f2643e032": "compute-000",
}

// makeCapturedFleet makes what the exchanges ask for, and returns what replaces the ids in
// them.
func makeCapturedFleet(t *testing.T) *strings.Replacer {
	t.Helper()
	for _, name := range []string{"proj1", "proj2", "projnull", "nobody", "abc", "def"} {
		kubectl(t, "create", "namespace", name)
	}
	ids := map[string]string{}
	for host, spec := range capturedHosts {
		s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}, Spec: spec}
		expect.NoError(t, env.Client.Create(t.Context(), s))
		ids[host] = string(s.UID)
		if !slices.Contains(silentHosts, host) {
			report(t, host)
		}
	}
	makeServers(t, ids)
	for _, host := range []string{"compute-091", "compute-092"} {
		hostIs(t, v1alpha1.HostStatusDown, host)
	}
	hostIs(t, v1alpha1.HostStatusUnknown, "compute-093")
	hostIs(t, v1alpha1.HostStatusUp, "compute-098")
	var pairs []string
	for captured, name := range capturedIDs {
		pairs = append(pairs, captured, ids[name])
	}
	return strings.NewReplacer(pairs...)
}

func makeServers(t *testing.T, ids map[string]string) {
	t.Helper()
	make := func(namespace, name, host string, status v1alpha1.ServerStatus) {
		s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.ServerSpec{Host: host}}
		expect.NoError(t, env.Client.Create(t.Context(), s))
		ids[namespace+"/"+name] = string(s.UID)
		patch, err := json.Marshal(map[string]any{"status": status})
		expect.NoError(t, err)
		kubectl(t, "patch", "servers.compute", "--namespace="+namespace, name, "--subresource=status", "--type=merge", "--patch="+string(patch))
	}
	for _, host := range slices.Sorted(maps.Keys(capturedHosts)) {
		for i := range 2 {
			make("proj1", fmt.Sprintf("%s-%d", strings.Replace(host, "compute", "vm", 1), i), host, v1alpha1.ServerStatus{
				State: "ACTIVE", PowerState: "RUNNING", Networks: []v1alpha1.ServerNetwork{{Name: "private", Addresses: []string{"10.0.3.163"}}},
			})
		}
	}
	make("proj1", "vm-092-5", "compute-092", v1alpha1.ServerStatus{State: "ACTIVE", PowerState: "RUNNING", Networks: []v1alpha1.ServerNetwork{{Name: "private", Addresses: []string{"10.0.3.178"}}}})
	for _, name := range []string{"nohost-0", "nohost-1", "nohost-2", "emptyhost-0"} {
		make("projnull", name, "", v1alpha1.ServerStatus{State: "BUILD", PowerState: "NOSTATE"})
	}
}

// report lets a host report once, for an hour.
func report(t *testing.T, host string) {
	t.Helper()
	config, err := env.Cluster.AdminConfig()
	expect.NoError(t, err)
	admin, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	leases := admin.CoordinationV1().Leases(v1alpha1.DefaultLeaseNamespace)
	_, err = leases.Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: host},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To(host), RenewTime: ptr.To(metav1.NowMicro()), LeaseDurationSeconds: ptr.To[int32](v1alpha1.MaxLeaseDurationSeconds)},
	}, metav1.CreateOptions{})
	expect.NoError(t, err)
}

func kubectl(t testing.TB, args ...string) {
	t.Helper()
	if out, err := env.Kubectl(context.WithoutCancel(t.Context()), args...).CombinedOutput(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
