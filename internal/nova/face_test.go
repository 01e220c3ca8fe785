// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"
)

var instant = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// cluster is an API server that knows two tokens: that of an administrator, and that of an
// owner of team-a who is shown no host status and may not read where servers are.
type cluster struct {
	*testing.T
	server *httptest.Server
	// pages is how many servers are in a page of a list.
	pages int

	mu   sync.Mutex
	seen []*http.Request
	// hold, if it is set, is what requests of the token slow wait for.
	hold chan struct{}
	// down is the host status of each server.
	status string
}

const (
	adminToken = "admin-token"
	ownerToken = "owner-token"
	slowToken  = "slow-token"
)

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{T: t, pages: 1000, status: "UP"}
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.seen = append(c.seen, r)
	hold := c.hold
	c.mu.Unlock()
	secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if secret == slowToken && hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}
	refuse := func(code int, reason string) {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"kind":"Status","code":%d,"reason":%q,"message":"User \"system:serviceaccount:team-a:secret-name\" cannot, says %s"}`, code, reason, secret)
	}
	switch {
	case secret != adminToken && secret != ownerToken && secret != slowToken:
		refuse(http.StatusUnauthorized, "Unauthorized")
	case secret != adminToken && !strings.HasPrefix(r.URL.Path, "/apis/tenant.hoststatus.dev/v1alpha1/namespaces/team-a/servers"):
		refuse(http.StatusForbidden, "Forbidden")
	case strings.HasPrefix(r.URL.Path, "/apis/tenant.hoststatus.dev/"):
		c.list(w, r, func(n int) string { return c.tenantServer(n, secret == adminToken) })
	case strings.HasPrefix(r.URL.Path, "/apis/compute.hoststatus.dev/v1alpha1/") && strings.HasSuffix(r.URL.Path, "/servers"):
		if r.URL.Query().Get("includeObject") == "None" {
			c.list(w, r, func(n int) string { return fmt.Sprintf(`{"cells":[%q,"ACTIVE","compute-%d"]}`, name(n), n%3) })
			break
		}
		c.list(w, r, func(n int) string {
			return fmt.Sprintf(`{"metadata":{"namespace":%q,"name":%q,"uid":%q},"spec":{"host":"compute-%d"}}`, namespace(n), name(n), uid(n), n%3)
		})
	case strings.HasPrefix(r.URL.Path, "/apis/compute.hoststatus.dev/v1alpha1/namespaces/"):
		refuse(http.StatusForbidden, "Forbidden")
	default:
		refuse(http.StatusNotFound, "NotFound")
	}
}

// serversInCluster are as many in each of two namespaces.
const serversInCluster = 20

func namespace(n int) string { return []string{"team-a", "team-b"}[n/(serversInCluster/2)] }
func name(n int) string      { return fmt.Sprintf("vm-%02d", n) }
func uid(n int) string       { return fmt.Sprintf("%08d-0000-4000-8000-000000000000", n) }

func (c *cluster) tenantServer(n int, granted bool) string {
	host := ""
	if granted {
		host = fmt.Sprintf(`,"hostStatus":%q,"hostStatusTransitionTime":"2026-10-01T12:00:30Z"`, c.status)
	}
	return fmt.Sprintf(`{"metadata":{"namespace":%q,"name":%q,"uid":%q,"creationTimestamp":"2026-10-01T12:00:%02dZ"},"status":{"state":"ACTIVE"%s}}`,
		namespace(n), name(n), uid(n), n, host)
}

// list answers with a page of the servers that are asked for.
func (c *cluster) list(w http.ResponseWriter, r *http.Request, item func(int) string) {
	var all []string
	for n := range serversInCluster {
		inNamespace := !strings.Contains(r.URL.Path, "/namespaces/") || strings.Contains(r.URL.Path, "/namespaces/"+namespace(n)+"/")
		selector := r.URL.Query().Get("fieldSelector")
		if inNamespace && (selector == "" || selector == "metadata.uid="+uid(n) || selector == "metadata.name="+name(n) || selector == fmt.Sprintf("spec.host=compute-%d", n%3)) {
			all = append(all, item(n))
		}
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	to, next := min(from+c.pages, len(all)), ""
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	w.Header().Add("Warning", `299 - "from the cluster"`)
	if r.URL.Query().Get("includeObject") == "None" {
		_, _ = fmt.Fprintf(w, `{"kind":"Table","metadata":{"continue":%q},"columnDefinitions":[{"name":"Name"},{"name":"Status"},{"name":"Host"}],"rows":[%s]}`, next, strings.Join(all[from:to], ","))
		return
	}
	_, _ = fmt.Fprintf(w, `{"kind":"ServerList","metadata":{"continue":%q,"resourceVersion":"7"},"items":[%s]}`, next, strings.Join(all[from:to], ","))
}

// face makes one for the cluster.
func (c *cluster) face(log logr.Logger, change func(*Options)) *face {
	c.Helper()
	options := NewOptions()
	options.PlainHTTP = true
	if change != nil {
		change(options)
	}
	k, err := newKube(&rest.Config{Host: c.server.URL, BearerToken: "its-own", Username: "its-own", Password: "its-own"})
	if err != nil {
		c.Fatal(err)
	}
	return newFace(options, k, testingclock.NewFakePassiveClock(instant), log)
}

// get asks f, as 2.16, and returns the status and the body.
func get(f http.Handler, secret, path string, header ...string) (int, string, http.Header) {
	r := httptest.NewRequest(http.MethodGet, "http://nova.example.com:8774"+path, nil)
	if secret != "" {
		r.Header.Set(headerToken, secret)
	}
	r.Header.Set(headerVersion, "compute 2.16")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Result().Header
}

type shown struct {
	Servers []struct {
		ID         string
		Name       string
		TenantID   string  `json:"tenant_id"`
		HostStatus *string `json:"host_status"`
		Host       *string `json:"OS-EXT-SRV-ATTR:host"`
	}
	Links []struct{ Href string } `json:"servers_links"`
}

func parse(t *testing.T, body string) (s shown) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return s
}

func TestListsAreJoinedPageByPageWithWhereServersAre(t *testing.T) {
	for _, pages := range []int{1, 3, 7, 1000} {
		c := newCluster(t)
		c.pages = pages
		code, body, header := get(c.face(logr.Discard(), nil), adminToken, "/v2.1/servers/detail?all_tenants=1")
		s := parse(t, body)
		if code != http.StatusOK || len(s.Servers) != serversInCluster || len(s.Links) != 0 {
			t.Fatalf("%d, %d servers, %d links", code, len(s.Servers), len(s.Links))
		}
		_, inOne, _ := get(c.face(logr.Discard(), nil), adminToken, "/v2.1/team-a/servers/detail")
		one := parse(t, inOne)
		if len(one.Servers) != serversInCluster/2 {
			t.Fatalf("%d servers in one namespace", len(one.Servers))
		}
		for i, got := range one.Servers {
			if n := serversInCluster/2 - 1 - i; got.ID != uid(n) || got.Host == nil || *got.Host != fmt.Sprintf("compute-%d", n%3) {
				t.Errorf("pages of %d, server %d of one namespace: %+v", pages, n, got)
			}
		}
		for i, got := range s.Servers {
			n := serversInCluster - 1 - i // The newest is first.
			if got.ID != uid(n) || got.Host == nil || *got.Host != fmt.Sprintf("compute-%d", n%3) || got.HostStatus == nil || *got.HostStatus != "UP" || got.TenantID != namespace(n) {
				t.Errorf("pages of %d, server %d: %+v", pages, n, got)
			}
		}
		if header.Get("Warning") == "" {
			t.Error("the cluster's warning is not passed on")
		}
	}
}

func TestAnOwnerIsShownNothingOfHosts(t *testing.T) {
	c := newCluster(t)
	f := c.face(logr.Discard(), nil)
	_, up, _ := get(f, ownerToken, "/v2.1/team-a/servers/detail")
	if s := parse(t, up); len(s.Servers) != serversInCluster/2 || s.Servers[0].Host != nil || s.Servers[0].HostStatus != nil {
		t.Errorf("an owner is shown %s", up)
	}
	for _, host := range []string{"host", "compute-", "12:00:30"} {
		if strings.Contains(strings.ReplaceAll(up, "hostId", ""), host) {
			t.Errorf("an owner is shown %s in %s", host, up)
		}
	}
	c.mu.Lock()
	c.status = "DOWN"
	c.mu.Unlock()
	if _, down, _ := get(f, ownerToken, "/v2.1/team-a/servers/detail"); down != up {
		t.Errorf("the answer depends on the host:\n%s\n%s", up, down)
	}
}

func TestWhatIsAskedOnlyOfThoseWhoMay(t *testing.T) {
	c := newCluster(t)
	f := c.face(logr.Discard(), nil)
	for request, want := range map[string]struct {
		code    int
		message string
	}{
		"admin-token /v2.1/servers?all_tenants=1&host=compute-1": {200, ""},
		"owner-token /v2.1/team-a/servers?host=compute-1":        {403, "cannot be filtered by host"},
		"owner-token /v2.1/team-a/servers?sort_key=host":         {403, "Only administrators can sort servers by host"},
		"owner-token /v2.1/team-a/servers?status=DELETED":        {403, "Only administrators may list deleted instances"},
		"owner-token /v2.1/team-a/servers?host=no+such":          {403, "cannot be filtered by host"},
		"owner-token /v2.1/servers/detail?all_tenants=1":         {403, "Policy doesn't allow os_compute_api:servers:detail:get_all_tenants to be performed."},
		"owner-token /v2.1/team-b/servers":                       {403, "Policy doesn't allow os_compute_api:servers:index to be performed."},
		"owner-token /v2.1/team-a/servers?project_id=team-b":     {403, "Policy doesn't allow os_compute_api:servers:index to be performed."},
		"owner-token /v2.1/team-a/servers?host=x&all_tenants=1":  {403, "Policy doesn't allow"},
		"owner-token /v2.1/servers":                              {400, "The project is not known"},
		"owner-token /v2.1/team-a/servers/" + uid(1):             {200, ""},
		"owner-token /v2.1/team-a/servers/" + uid(15):            {404, "Instance " + uid(15) + " could not be found."},
		"owner-token /v2.1/team-a/servers/vm-01":                 {404, "Instance vm-01 could not be found."},
		"admin-token /v2.1/team-a/servers/" + uid(99):            {404, "Instance " + uid(99) + " could not be found."},
		"owner-token /v2.1/team-a/servers?marker=" + uid(15):     {400, "marker [" + uid(15) + "] not found"},
		"owner-token /v2.1/team-a/os-services":                   {403, "Policy doesn't allow os_compute_api:os-services:list to be performed."},
		"owner-token /v2.1/team-a/os-hypervisors":                {403, "Policy doesn't allow os_compute_api:os-hypervisors:list to be performed."},
		"nobody /v2.1/team-a/servers":                            {401, "The request you have made requires authentication."},
		"nobody /v2.1/team-a/servers/" + uid(1):                  {401, "The request you have made requires authentication."},
	} {
		secret, path, _ := strings.Cut(request, " ")
		code, body, _ := get(f, secret, path)
		if code != want.code || !strings.Contains(body, want.message) {
			t.Errorf("%s: %d %s\nwant %d %s", request, code, body, want.code, want.message)
		}
		if strings.Contains(body, "secret-name") || strings.Contains(body, secret) {
			t.Errorf("%s: the answer names the caller: %s", request, body)
		}
	}
}

func TestPagesAreWalkedByTheirLinks(t *testing.T) {
	c := newCluster(t)
	f := c.face(logr.Discard(), nil)
	var newestFirst, byHost []string
	for n := range serversInCluster {
		newestFirst = append(newestFirst, uid(serversInCluster-1-n))
	}
	for host := range 3 {
		for n := host; n < serversInCluster; n += 3 {
			byHost = append(byHost, uid(n))
		}
	}
	for query, want := range map[string][]string{
		"": newestFirst,
		// The cluster lets nobody get one server where it may list all.
		"&sort_key=host&sort_dir=asc": byHost,
	} {
		var got []string
		path := "/v2.1/team-a/servers?limit=4&all_tenants=1" + query
		for range 10 {
			_, body, _ := get(f, adminToken, path)
			s := parse(t, body)
			for _, server := range s.Servers {
				got = append(got, server.ID)
			}
			if len(s.Links) == 0 {
				break
			}
			var ok bool
			if path, ok = strings.CutPrefix(s.Links[0].Href, "http://nova.example.com:8774"); !ok {
				t.Fatalf("the next page is at %s", s.Links[0].Href)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v", query, got)
		}
	}
}

// Headers that change who asks, wherever a proxy between might believe them.
var smuggled = []string{
	"Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scopes", "X-Remote-User", "X-Remote-Group", "X-Remote-Extra-A",
	"Authorization", "Proxy-Authorization", "Cookie", "X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "X-Service-Token", "Content-Type", "Transfer-Encoding", "Upgrade",
}

func TestNothingButTheTokenReachesTheAPIServer(t *testing.T) {
	c := newCluster(t)
	f := c.face(logr.Discard(), nil)
	var header []string
	for _, name := range smuggled {
		header = append(header, name, "smuggled")
	}
	code, body, _ := get(f, adminToken, "/v2.1/team-a/servers/detail", header...)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	if strings.Contains(body, "smuggled") {
		t.Errorf("links believe a header: %s", body)
	}
	if len(c.seen) == 0 {
		t.Fatal("nothing was asked")
	}
	for _, r := range c.seen {
		for name, values := range r.Header {
			switch name {
			case "Authorization":
				if !slices.Equal(values, []string{"Bearer " + adminToken}) {
					t.Errorf("asked with %v", values)
				}
			case "Accept", "User-Agent", "Content-Length", "Accept-Encoding":
			default:
				t.Errorf("the API server is sent %s: %v", name, values)
			}
		}
	}
}

func TestPathsLeadNowhereElse(t *testing.T) {
	c := newCluster(t)
	f := c.face(logr.Discard(), nil)
	for _, path := range []string{
		"/v2.1/../servers", "/v2.1/%2e%2e/servers", "/v2.1/..%2f..%2fapi/servers", "/v2.1/team-a%2f../servers", "/v2.1/Team/servers", "/v2.1/a.b/servers",
		"/v2.1/team-a/servers/%2e%2e", "/v2.1/team-a/servers/..%2fnodes", "/v2.1/team-a//servers", "/v2.1/team-a/servers/", "/api/v1/secrets", "/apis", "/v2.1/team-a/servers/x/y",
		"/v2.1/team-a/servers/%252e%252e",
	} {
		if code, body, _ := get(f, adminToken, path); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for _, query := range []string{"uuid=" + uid(1) + ",status.hostStatus%3DDOWN", "marker=a,b", "host=a,metadata.name%3Db", "host=a%26limit%3D1"} {
		get(f, adminToken, "/v2.1/team-a/servers?"+query)
	}
	for _, r := range c.seen {
		selector := r.URL.Query().Get("fieldSelector")
		if !strings.HasPrefix(r.URL.Path, "/apis/tenant.hoststatus.dev/v1alpha1/namespaces/team-a/servers") && !strings.HasPrefix(r.URL.Path, "/apis/compute.hoststatus.dev/v1alpha1/namespaces/team-a/servers") ||
			strings.Contains(selector, ",") {
			t.Errorf("the API server was asked for %s", r.URL)
		}
	}
}

func TestATokenIsInNoLogAndNoError(t *testing.T) {
	c := newCluster(t)
	var log bytes.Buffer
	f := c.face(funcr.New(func(prefix, args string) { log.WriteString(prefix + args) }, funcr.Options{Verbosity: 9}), nil)
	c.server.Close() // Every request fails.
	code, body, header := get(f, "a-very-secret-token", "/v2.1/team-a/servers/detail")
	if code != http.StatusServiceUnavailable || log.Len() == 0 {
		t.Errorf("%d %s, logged %q", code, body, log.String())
	}
	for range 5 {
		get(f, "a-very-secret-token", "/v2.1/team-a/servers/detail")
	}
	if lines := strings.Count(log.String(), "Asking kube-apiserver failed"); lines != 1 || strings.Contains(log.String(), "team-a") {
		t.Errorf("six failures within a moment are logged %d times: %s", lines, log.String())
	}
	f.clock.(*testingclock.FakePassiveClock).SetTime(instant.Add(complaintInterval))
	get(f, "a-very-secret-token", "/v2.1/team-a/servers/detail")
	if !strings.Contains(log.String(), `"notLogged"=5`) {
		t.Errorf("how many were not logged is not in %s", log.String())
	}
	if all := log.String() + body + fmt.Sprint(header) + fmt.Sprintf("%v %+v", f.kube, token{}); strings.Contains(all, "very-secret") {
		t.Errorf("the token is in %s", all)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	c := newCluster(t)
	f := c.face(logr.Discard(), nil)
	put := func(body io.Reader, length int64) int {
		r := httptest.NewRequest(http.MethodPut, "http://nova/v2.1/team-a/os-services/enable", body)
		r.ContentLength = length
		r.Header.Set(headerToken, adminToken)
		r.Header.Set("Content-Type", contentTypeJSON)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w.Code
	}
	endless := &counted{}
	if code := put(endless, -1); code != http.StatusRequestEntityTooLarge || endless.read > 4*f.options.MaxBodyBytes {
		t.Errorf("a body without end: %d, after %d bytes", code, endless.read)
	}
	declared := &counted{}
	if code := put(declared, 1<<40); code != http.StatusRequestEntityTooLarge || declared.read > 0 {
		t.Errorf("a body of a terabyte: %d, after %d bytes", code, declared.read)
	}
	deep := strings.Repeat("[", 100_000)
	if code := put(strings.NewReader(deep), int64(len(deep))); code != http.StatusBadRequest {
		t.Errorf("a deep body: %d", code)
	}
}

// counted is a body that never ends.
type counted struct{ read int }

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	c.read += len(p)
	return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
}

func TestOneTokenKeepsNoOtherWaiting(t *testing.T) {
	c := newCluster(t)
	c.hold = make(chan struct{})
	f := c.face(logr.Discard(), func(o *Options) { o.MaxRequests, o.MaxRequestsPerToken, o.MaxWaitingPerToken = 4, 2, 3 })
	codes := make(chan int, 8)
	for range 8 {
		go func() {
			code, _, _ := get(f, slowToken, "/v2.1/team-a/servers")
			codes <- code
		}()
	}
	// Two are worked on, three wait, and the others are refused at once.
	for range 3 {
		if code := <-codes; code != http.StatusTooManyRequests {
			t.Errorf("a request too many: %d", code)
		}
	}
	if code, body, _ := get(f, ownerToken, "/v2.1/team-a/servers"); code != http.StatusOK {
		t.Errorf("the victim: %d %s", code, body)
	}
	close(c.hold)
	for range 5 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("a request within bounds: %d", code)
		}
	}
	if usage := f.queue.Usage(); usage.Callers != 0 {
		t.Errorf("after all have ended: %+v", usage)
	}
}

func TestDocumentsOfVersions(t *testing.T) {
	f := newCluster(t).face(logr.Discard(), nil)
	own := jwt(`{"kubernetes.io":{"namespace":"team-a"}}`)
	for _, c := range []struct {
		path, secret string
		code         int
		version      string
	}{
		{"/", "", 200, ""},
		{"/v2.1", "", 200, "compute 2.16"},
		{"/v2.1/", "", 200, "compute 2.16"},
		{"/v2/", "", 200, ""},
		{"/v2.1/team-a", "", 200, "compute 2.16"},
		{"/v2.1/team-a/", own, 200, "compute 2.16"},
		{"/v2.1/nosuch", own, 404, ""},
		{"/v2.1/os-keypairs", own, 404, ""},
		{"/v2.1/os-keypairs", "", 401, ""},
	} {
		code, body, header := get(f, c.secret, c.path)
		if code != c.code || header.Get(headerVersion) != c.version {
			t.Errorf("%s: %d with version %q, want %d with %q: %s", c.path, code, header.Get(headerVersion), c.code, c.version, body)
		}
	}
	for host, want := range map[string]string{"nova.example.com": "http://nova.example.com/v2.1/", "[::1]:8774": "http://[::1]:8774/v2.1/", `a"<b>`: "/v2.1/"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), `"`+want+`"`) {
			t.Errorf("Host %s: %s", host, w.Body)
		}
	}
}

func TestTheIdentityServiceHandsBackWhatItIsGiven(t *testing.T) {
	f := newCluster(t).face(logr.Discard(), nil)
	issuedIn := func(namespace string) string {
		return jwt(fmt.Sprintf(`{"sub":"ana","exp":%d,"kubernetes.io":{"namespace":%q}}`, instant.Add(time.Hour).Unix(), namespace))
	}
	own := issuedIn("team-a")
	for name, c := range map[string]struct {
		body    string
		code    int
		project string
	}{
		"a project whose name is a word of the API": {`{"auth":{"identity":{"methods":["token"],"token":{"id":"` + issuedIn("servers") + `"}},"scope":{"project":{"name":"servers"}}}}`, 201, "servers"},
		"its service account without a scope":       {`{"auth":{"identity":{"methods":["token"],"token":{"id":"` + issuedIn("servers") + `"}}}}`, 201, "servers"},
		"such a project with the token of another":  {`{"auth":{"identity":{"methods":["token"],"token":{"id":"` + own + `"}},"scope":{"project":{"name":"servers"}}}}`, 400, ""},
		"a password":         {`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"x","password":"` + own + `"}}},"scope":{"project":{"name":"team-b"}}}}`, 201, "team-b"},
		"a token":            {`{"auth":{"identity":{"methods":["token"],"token":{"id":"` + own + `"}},"scope":{"project":{"id":"team-b"}}}}`, 201, "team-b"},
		"a credential":       {`{"auth":{"identity":{"methods":["application_credential"],"application_credential":{"id":"x","secret":"` + own + `"}}}}`, 201, "team-a"},
		"without a scope":    {`{"auth":{"identity":{"methods":["token"],"token":{"id":"` + own + `"}},"scope":"unscoped"}}`, 201, "team-a"},
		"an opaque token":    {`{"auth":{"identity":{"methods":["token"],"token":{"id":"opaque"}}}}`, 201, ""},
		"another project":    {`{"auth":{"identity":{"methods":["token"],"token":{"id":"opaque"}},"scope":{"project":{"name":"../x"}}}}`, 400, ""},
		"no token":           {`{"auth":{"identity":{"methods":["token"],"token":{}}}}`, 401, ""},
		"a line feed":        {`{"auth":{"identity":{"methods":["token"],"token":{"id":"a\nb"}}}}`, 401, ""},
		"no method":          {`{"auth":{}}`, 400, ""},
		"an unknown method":  {`{"auth":{"identity":{"methods":["totp"]}}}`, 400, ""},
		"no JSON":            {`{`, 400, ""},
		"nothing":            {``, 400, ""},
		"an array of arrays": {`[[[[`, 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "http://nova/identity/v3/auth/tokens", strings.NewReader(c.body))
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			if w.Code != c.code {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if c.code != http.StatusCreated {
				return
			}
			var got struct {
				Token struct {
					ExpiresAt time.Time `json:"expires_at"`
					Project   struct{ ID string }
					Catalog   []struct {
						Type      string
						Endpoints []struct{ URL string }
					}
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			compute := strings.TrimSuffix("http://nova/v2.1/"+c.project, "/")
			if words.Has(c.project) { // In a URL it would be the list of servers.
				compute = "http://nova/v2.1"
			}
			if got.Token.Project.ID != c.project || len(got.Token.Catalog) != 3 || got.Token.Catalog[0].Endpoints[0].URL != compute || !got.Token.ExpiresAt.Equal(instant.Add(time.Hour)) {
				t.Errorf("got %s", w.Body)
			}
			if back := w.Header().Get(headerSubjectToken); back != own && back != "opaque" && back != issuedIn("servers") {
				t.Errorf("it handed back %q", back)
			}
		})
	}
	for path, want := range map[string]int{"/identity": 300, "/identity/": 300, "/identity/v3": 200, "/identity/v3/": 200, "/identity/v3/projects/team-a": 403, "/identity/v2.0": 404, "/image": 300, "/image/v2": 200, "/image/v2/images": 200, "/image/v2/images/x": 404} {
		if code, body, _ := get(f, "any", path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _, header := get(f, own, "/identity/v3/auth/tokens", headerSubjectToken, own); code != http.StatusOK || header.Get(headerSubjectToken) != own {
		t.Errorf("asked about a token: %d", code)
	}
	if code, _, _ := get(f, "", "/identity/v3/auth/tokens", headerSubjectToken, own); code != http.StatusUnauthorized {
		t.Errorf("asked about a token without one: %d", code)
	}
}

func TestRefusedActionsSaySo(t *testing.T) {
	f := newCluster(t).face(logr.Discard(), nil)
	for _, c := range []struct {
		method, path, body, contentType string
		code                            int
		message                         string
	}{
		{"POST", "/v2.1/team-a/servers/x/action", `{"evacuate":{}}`, contentTypeJSON, 403, "The action evacuate is not possible here"},
		{"POST", "/v2.1/team-a/servers/x/action", `{"os-resetState":{"state":"error"}}`, contentTypeJSON, 403, "os-resetState"},
		{"POST", "/v2.1/team-a/servers/x/action", `{"explode":null}`, contentTypeJSON, 400, "There is no such action: explode"},
		{"POST", "/v2.1/team-a/servers", `{"server":{}}`, contentTypeJSON, 403, "Creating a server"},
		{"PUT", "/v2.1/team-a/servers/x", `{"server":{}}`, contentTypeJSON, 403, "Changing a server"},
		{"PUT", "/v2.1/team-a/servers/x", `{"server":{}}`, "text/plain", 415, "Unsupported Content-Type"},
		{"DELETE", "/v2.1/team-a/servers/x", "", "", 403, "Deleting a server"},
		{"POST", "/v2.1/team-a/servers/x", `{}`, contentTypeJSON, 404, "The resource could not be found."},
		{"POST", "/v2.1/team-a/os-services", `{}`, contentTypeJSON, 404, "The resource could not be found."},
		{"OPTIONS", "/v2.1/team-a/servers", "", "", 200, ""},
		{"OPTIONS", "/v2.1/team-a/os-keypairs", "", "", 404, ""},
		{"TRACE", "/v2.1/team-a/servers", "", "", 404, ""},
	} {
		r := httptest.NewRequest(c.method, "http://nova"+c.path, strings.NewReader(c.body))
		r.Header.Set(headerToken, ownerToken)
		if c.contentType != "" {
			r.Header.Set("Content-Type", c.contentType)
		}
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.message) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, w.Code, w.Body)
		}
	}
}
