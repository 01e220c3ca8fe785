// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// What nova-api runs as may do nothing here, and everything else in this package works.
func TestTheFaceHasNoRights(t *testing.T) {
	config, err := env.Cluster.ConfigFor(fleet.NovaUser, "system:serviceaccounts", "system:serviceaccounts:hoststatus-system")
	expect.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	for _, resource := range []authorizationv1.ResourceAttributes{
		{Group: "tenant.hoststatus.dev", Resource: "servers"},
		{Group: "tenant.hoststatus.dev", Resource: "servers", Subresource: "status"},
		{Group: "compute.hoststatus.dev", Resource: "servers"},
		{Group: "compute.hoststatus.dev", Resource: "computeservices"},
		{Group: "coordination.k8s.io", Resource: "leases"},
		{Resource: "secrets"}, {Resource: "pods"}, {Resource: "namespaces"},
		{Group: "authentication.k8s.io", Resource: "tokenreviews"}, {Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
	} {
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
			for _, namespace := range []string{"", "team-a", "hoststatus-system"} {
				resource.Verb, resource.Namespace = verb, namespace
				review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(),
					&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &resource}}, metav1.CreateOptions{})
				expect.NoError(t, err)
				if review.Status.Allowed {
					t.Errorf("it may %s %s in %q", verb, resource.Resource, namespace)
				}
			}
		}
	}
}

// The ungranted are answered the same bytes, whatever happens to the hosts of their servers.
func TestTheUngrantedCannotTellTheStateOfAHost(t *testing.T) {
	uid := serverUID(t, "team-a", "web-2")
	ask := func(account string) string {
		var all strings.Builder
		for _, version := range []string{"2.1", "2.16", "2.72", "2.93"} {
			c := as(account, version)
			for _, path := range []string{
				"/v2.1/team-a/servers", "/v2.1/team-a/servers/detail", "/v2.1/team-a/servers/" + uid, "/v2.1/team-a/servers?limit=2&sort_key=display_name",
				"/v2.1/team-a/servers/detail?host_status=DOWN", "/v2.1/team-a/servers/detail?host=compute-2", "/v2.1/team-a/servers?sort_key=host",
				"/v2.1/servers/detail?all_tenants=1", "/v2.1/team-a/os-services", "/v2.1/team-a/os-services?host=compute-2", "/v2.1/team-a/os-hypervisors/detail", "/v2.1/team-a/servers?marker=" + uid,
			} {
				got := c.get(t, path)
				fmt.Fprintf(&all, "%s %s: %d %v %s\n", version, path, got.code, got.header.Values("Warning"), got.body)
			}
		}
		return all.String()
	}
	set := func(spec string, want v1alpha1.HostStatus) {
		t.Helper()
		kubectl(t, "patch", "computeservice", "compute-2", "--type=merge", "--patch="+`{"spec":`+spec+`}`)
		hostIs(t, want, "compute-2")
	}
	const back = `{"forcedDown":null,"forcedDownReason":null,"disabled":null,"maintenanceWindow":null}`
	t.Cleanup(func() { set(back, v1alpha1.HostStatusUp) })
	before := map[string]string{"ada": ask("ada"), "abe": ask("abe"), "stranger": ask("stranger")}
	for _, state := range []struct {
		spec string
		want v1alpha1.HostStatus
	}{
		{`{"forcedDown":true,"forcedDownReason":"fenced"}`, v1alpha1.HostStatusDown},
		{`{"forcedDown":null,"disabled":true,"disabledReason":"new memory"}`, v1alpha1.HostStatusMaintenance},
		{`{"disabled":null,"maintenanceWindow":{"startTime":"2099-01-01T00:00:00Z"}}`, v1alpha1.HostStatusNeedsMaintenance},
		{back, v1alpha1.HostStatusUp},
	} {
		set(state.spec, state.want)
		for account, was := range before {
			if now := ask(account); now != was {
				t.Errorf("%s can tell that the host is %s:\n%s\nwas\n%s", account, state.want, now, was)
			}
		}
	}
}

func TestATokenOpensNothingForAnother(t *testing.T) {
	uid := serverUID(t, "team-a", "web-1")
	path := "/v2.1/team-a/servers/" + uid
	for range 3 { // Whatever is remembered of the first is of no use to the others.
		if got := as("administrator", "2.72").get(t, path); got.code != http.StatusOK {
			t.Fatalf("administrator: %d %s", got.code, got.body)
		}
		for account, want := range map[string]int{"ana": http.StatusOK, "stranger": http.StatusNotFound} {
			if got := as(account, "2.72").get(t, path); got.code != want || strings.Contains(got.body, "compute-1") {
				t.Errorf("%s: %d %s", account, got.code, got.body)
			}
		}
		bad := &client{url: env.url, token: env.tokens["administrator"] + "x", version: "2.72"}
		if got := bad.get(t, path); got.code != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("a token with one letter too many: %d %s", got.code, got.body)
		}
	}
}

func TestHeadersMakeNobodySomeoneElse(t *testing.T) {
	admin := "Bearer " + env.tokens["administrator"]
	got := as("stranger", "2.72").do(t, http.MethodGet, "/v2.1/team-a/servers/detail", "",
		"Impersonate-User", "ana", "Impersonate-Group", "system:masters", "X-Remote-User", "admin", "X-Remote-Group", "system:masters", "Authorization", admin,
		"Cookie", "token="+env.tokens["administrator"], "X-Service-Token", env.tokens["administrator"], "Connection", "X-Auth-Token")
	if got.code != http.StatusForbidden {
		t.Errorf("a stranger with others' headers: %d %s", got.code, got.body)
	}
	two := as("stranger", "2.72").do(t, http.MethodGet, "/v2.1/team-a/servers", "", "X-Auth-Token", env.tokens["administrator"])
	if two.code != http.StatusUnauthorized {
		t.Errorf("two tokens: %d %s", two.code, two.body)
	}
}

// raw sends bytes over a connection from an address of localhost, and returns the status line.
func raw(t *testing.T, from, request string) string {
	t.Helper()
	conn := dial(t, from)
	defer func() { _ = conn.Close() }()
	_, err := io.WriteString(conn, request)
	expect.NoError(t, err)
	expect.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

func dial(t *testing.T, from string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(env.url, "http://"))
	expect.NoError(t, err)
	return conn
}

func TestRequestsThatAreReadTwoWaysAreRefused(t *testing.T) {
	token := "X-Auth-Token: " + env.tokens["ana"] + "\r\n"
	for name, c := range map[string]struct{ request, want string }{
		"two lengths":          {"PUT /v2.1/team-a/os-services/enable HTTP/1.1\r\nHost: h\r\n" + token + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "HTTP/1.1 400"},
		"a space in a header":  {"GET /v2.1/team-a/servers HTTP/1.1\r\nHost: h\r\nX-Auth-Token : x\r\n\r\n", "HTTP/1.1 400"},
		"two hosts":            {"GET /v2.1/team-a/servers HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + token + "\r\n", "HTTP/1.1 400"},
		"no host":              {"GET /v2.1/team-a/servers HTTP/1.1\r\n" + token + "\r\n", "HTTP/1.1 400"},
		"dots":                 {"GET /v2.1/team-a/../../api/v1/secrets HTTP/1.1\r\nHost: h\r\n" + token + "\r\n", "HTTP/1.1 404"},
		"encoded slashes":      {"GET /v2.1/team-a%2f..%2fkube-system/servers HTTP/1.1\r\nHost: h\r\n" + token + "\r\n", "HTTP/1.1 404"},
		"an absolute address":  {"GET http://other/v2.1/team-a/servers HTTP/1.1\r\nHost: h\r\n" + token + "\r\n", "HTTP/1.1 200"},
		"a tunnel":             {"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n" + token + "\r\n", "HTTP/1.1 404"},
		"headers without end":  {"GET /v2.1/team-a/servers HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		"a body that is large": {"PUT /v2.1/team-a/os-services/enable HTTP/1.1\r\nHost: h\r\n" + token + "Content-Length: 999999999\r\n\r\n{}", "HTTP/1.1 413"},
	} {
		if got := raw(t, "127.0.0.1", c.request); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// An attacker at one address opens as many connections as there may be, and sends almost
// nothing on each. Others are served meanwhile, and it is cut off in the end.
func TestSlowClientsKeepNobodyWaiting(t *testing.T) {
	const attacker = "127.0.0.2"
	var slow []net.Conn
	for range 600 { // More than there may be of all.
		conn := dial(t, attacker)
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "PUT /v2.1/team-a/os-services/enable HTTP/1.1\r\nHost: h\r\nX-Auth-Token: x\r\nContent-Length: 100\r\n\r\n{")
		slow = append(slow, conn)
	}
	victim := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, env.url+"/v2.1/team-a/servers", nil)
		expect.NoError(t, err)
		request.Header.Set("X-Auth-Token", env.tokens["ana"])
		answer, err := victim.Do(request)
		if err != nil {
			t.Errorf("the victim: %v", err)
		} else {
			_ = answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Errorf("the victim: %s", answer.Status)
			}
		}
		cancel()
	}
	// A body has 10 s to arrive.
	last := slow[0]
	expect.NoError(t, last.SetReadDeadline(time.Now().Add(patience)))
	if _, err := io.ReadAll(last); err != nil {
		t.Errorf("a connection that sends nothing is kept: %v", err)
	}
}

// dialSmall opens a connection with segments as on a wire. On loopback they are so large that
// the server's kernel buffers megabytes for each connection.
func dialSmall(t *testing.T) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var size, buffer error
		err := raw.Control(func(fd uintptr) {
			size = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1460)
			buffer = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
		})
		return errors.Join(err, size, buffer)
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(env.url, "http://"))
	expect.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// clientsThatDoNotRead lets the tokens of one account take all turns, with answers that their
// clients do not read. Somebody else is answered all the same.
func clientsThatDoNotRead(t *testing.T) {
	t.Helper()
	const tokens, perToken = 4, 8 // Of 32.
	account := fleet.Account{Namespace: fastNamespace, Name: "attacker", Roles: []string{"view"}}
	for range tokens {
		token, err := env.NewToken(t.Context(), account)
		expect.NoError(t, err)
		for range perToken {
			conn := dialSmall(t)
			_, err := io.WriteString(conn, "GET /v2.1/"+fastNamespace+"/servers/detail HTTP/1.1\r\nHost: h\r\nX-Auth-Token: "+token+"\r\n\r\n")
			expect.NoError(t, err)
		}
	}
	metrics := &client{url: "http://" + env.NovaMetrics}
	expect.Eventually(t, 2*patience, func() error {
		got := metrics.do(t, http.MethodGet, "/metrics", "", "Authorization", "Bearer "+env.tokens["administrator"])
		if want := fmt.Sprintf("\nhoststatus_nova_requests_running %d\n", tokens*perToken); !strings.Contains(got.body, want) {
			return fmt.Errorf("/metrics: %d, without %q", got.code, want)
		}
		return nil
	})
	begin := time.Now()
	got := as("ana", "2.72").get(t, "/v2.1/team-a/servers")
	t.Logf("somebody else was answered after %s", time.Since(begin))
	if got.code != http.StatusOK {
		t.Errorf("somebody else: %d %s", got.code, got.body)
	}
}

func TestNoTokenAndNoNameIsInTheLogOrTheMetrics(t *testing.T) {
	uid := serverUID(t, "team-a", "web-1")
	_ = as("ana", "2.72").get(t, "/v2.1/team-a/servers/"+uid)
	bad := &client{url: env.url, token: "a-token-that-nobody-has", version: "2.72"}
	_ = bad.get(t, "/v2.1/team-a/servers/detail")
	log, err := os.ReadFile(env.LogFile("nova-api"))
	expect.NoError(t, err)
	scraper := &client{url: "http://" + env.NovaMetrics}
	metrics := scraper.do(t, http.MethodGet, "/metrics", "", "Authorization", "Bearer "+env.tokens["administrator"])
	if metrics.code != http.StatusOK || !strings.Contains(metrics.body, `hoststatus_nova_requests_total{code="200",microversion="2.72",route="servers/{id}"}`) {
		t.Fatalf("/metrics: %d %s", metrics.code, metrics.body)
	}
	if got := scraper.do(t, http.MethodGet, "/metrics", "", "Authorization", "Bearer "+env.tokens["ana"]); got.code != http.StatusForbidden {
		t.Errorf("/metrics for ana: %d", got.code)
	}
	secrets := map[string]string{"the bad token": bad.token, "the id of a server": uid, "a project": "team-a"}
	for account, token := range env.tokens {
		secrets["the token of "+account] = token
	}
	for what, secret := range secrets {
		if strings.Contains(string(log), secret) {
			t.Errorf("%s is in the log", what)
		}
		if strings.Contains(metrics.body, secret) {
			t.Errorf("%s is in the metrics", what)
		}
	}
}
