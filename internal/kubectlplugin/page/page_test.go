// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"pgregory.net/rapid"

	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	secret   = "the-user's-bearer-token"
	token    = "aaaabbbbccccddddeeeeffffgggghhhhiiiijjjjkkk"
	hosts    = "apis/compute.hoststatus.dev/v1alpha1/computeservices"
	homepage = `{{define "title"}}Hosts{{end}}{{define "files"}}<script src="hosts.js"></script>{{end}}{{define "filter"}}name{{end}}` +
		`{{define "controls"}}{{end}}{{define "main"}}<p>All of them.</p>{{end}}{{define "keys"}}{{end}}`
)

// upstream is the API server; it remembers what it was asked.
type upstream struct {
	*httptest.Server
	mu    sync.Mutex
	asked []*http.Request
	// answers takes the place of the usual answer.
	answers http.HandlerFunc
}

func newUpstream(t *testing.T, answers http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{answers: answers}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.asked = append(u.asked, r.Clone(context.Background()))
		u.mu.Unlock()
		if u.answers != nil {
			u.answers(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Warning", `299 - "old"`)
		w.Header().Set("Audit-Id", "1")
		w.Header().Set("Set-Cookie", "a=b")
		_, _ = io.WriteString(w, `{"items":[]}`)
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.asked)
}

func (u *upstream) config() *rest.Config {
	return &rest.Config{Host: u.URL + "/prefix", BearerToken: secret, UserAgent: "kubectl-hosts", Impersonate: rest.ImpersonationConfig{UserName: "ana"}}
}

func site() Site {
	return Site{
		Assets: fstest.MapFS{"index.html": {Data: []byte(homepage)}, "hosts.js": {Data: []byte("1")}, "notes.txt": {Data: []byte("none of the page's")}},
		Start:  map[string]any{"cluster": "here"},
		Reads:  []Read{{"compute.hoststatus.dev", "v1alpha1", "computeservices", ""}, {"tenant.hoststatus.dev", "v1alpha1", "servers", "team-a"}},
		Answers: map[string]Answer{
			"show": func(_ context.Context, query url.Values) (any, error) {
				switch query.Get("host") {
				case "":
					return nil, kubectlplugin.UsageError("no host")
				case "gone":
					return nil, kubectlplugin.WithCode(errors.New("there is no host\x1b[31m"), kubectlplugin.ExitNotFound)
				}
				return "Host: " + query.Get("host"), nil
			},
			"broken": func(context.Context, url.Values) (any, error) { return nil, errors.New("no answer") },
			"late":   func(context.Context, url.Values) (any, error) { return nil, context.DeadlineExceeded },
			"object": func(context.Context, url.Values) (any, error) { return map[string]int{"one": 1}, nil },
		},
	}
}

// serve serves the site, and returns the address of the machine that it is on.
func serve(t *testing.T, config *rest.Config) string {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	h, err := newHandler(site(), config, token, server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = h
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// answered is what came back.
type answered struct {
	code   int
	header http.Header
	body   string
}

// send sends a request as it is written, which http.Client would clean first.
func send(t *testing.T, address, method, target string, header map[string]string) answered {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	host := address
	if given, ok := header["Host"]; ok {
		host = given
	}
	_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, host)
	for name, value := range header {
		if name != "Host" {
			_, _ = fmt.Fprintf(conn, "%s: %s\r\n", name, value)
		}
	}
	_, _ = io.WriteString(conn, "Connection: close\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return answered{response.StatusCode, response.Header, string(body)}
}

func TestOnlyWhatThePageNeedsIsAnswered(t *testing.T) {
	up := newUpstream(t, nil)
	address := serve(t, up.config())
	_, port, _ := net.SplitHostPort(address)
	at := "/" + token + "/"
	list := at + "api/" + hosts
	for name, c := range map[string]struct {
		method, target string
		header         map[string]string
		code           int
		// passes says that the API server is asked.
		passes bool
	}{
		"the page":                      {target: at, code: 200},
		"its script":                    {target: at + "hosts.js", code: 200},
		"a shared file":                 {target: at + "shared/follow.js", code: 200},
		"what it begins with":           {target: at + "start.json", code: 200},
		"a list":                        {target: list + "?limit=500", code: 200, passes: true},
		"a list of a namespace":         {target: at + "api/apis/tenant.hoststatus.dev/v1alpha1/namespaces/team-a/servers", code: 200, passes: true},
		"by the name of the machine":    {target: list, header: map[string]string{"Host": "localhost:" + port}, code: 200, passes: true},
		"from the page itself":          {target: list, header: map[string]string{"Origin": "http://" + address, "Sec-Fetch-Site": "same-origin"}, code: 200, passes: true},
		"what the plugin answers":       {target: at + "show?host=compute-1", code: 200},
		"an answer that is a value":     {target: at + "object", code: 200},
		"a link to the page":            {target: at, header: map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, code: 200},
		"a host that is not there":      {target: at + "show?host=gone", code: 404},
		"no host":                       {target: at + "show", code: 400},
		"an answer that fails":          {target: at + "broken", code: 502},
		"an answer that is late":        {target: at + "late", code: 504},
		"no token":                      {target: "/", code: 404},
		"a file without the token":      {target: "/hosts.js", code: 404},
		"a token that is nearly right":  {target: "/" + token[:len(token)-1] + "x/", code: 404},
		"a longer token":                {target: "/" + token + "x/", code: 404},
		"a token without its slash":     {target: "/" + token, code: 404},
		"an encoded token":              {target: "/%61" + token[1:] + "/", code: 404},
		"an address with a server":      {target: "http://" + address + at, code: 404},
		"a file that is no part":        {target: at + "notes.txt", code: 404},
		"a folder":                      {target: at + "shared/", code: 404},
		"up to the page":                {target: at + "shared/../hosts.js", code: 404},
		"post":                          {method: "POST", target: list, code: 405},
		"put":                           {method: "PUT", target: list, code: 405},
		"patch":                         {method: "PATCH", target: list + "/compute-1", code: 405},
		"delete":                        {method: "DELETE", target: list + "/compute-1", code: 405},
		"head":                          {method: "HEAD", target: at, code: 405},
		"options":                       {method: "OPTIONS", target: list, code: 405},
		"trace":                         {method: "TRACE", target: at, code: 405},
		"a method of its own":           {method: "WATCH", target: list, code: 405},
		"one object":                    {target: list + "/compute-1", code: 403},
		"a subresource":                 {target: list + "/compute-1/status", code: 403},
		"another namespace":             {target: at + "api/apis/tenant.hoststatus.dev/v1alpha1/namespaces/team-b/servers", code: 403},
		"all namespaces":                {target: at + "api/apis/tenant.hoststatus.dev/v1alpha1/servers", code: 403},
		"secrets":                       {target: at + "api/api/v1/secrets", code: 403},
		"the root of the API":           {target: at + "api/", code: 403},
		"another version":               {target: at + "api/apis/compute.hoststatus.dev/v1/computeservices", code: 403},
		"dots":                          {target: list + "/../../../../api/v1/secrets", code: 403},
		"encoded dots":                  {target: list + "/%2e%2e/secrets", code: 403},
		"an encoded slash":              {target: at + "api/apis%2fcompute.hoststatus.dev/v1alpha1/computeservices", code: 403},
		"an encoded letter":             {target: at + "api/%61pis/compute.hoststatus.dev/v1alpha1/computeservices", code: 403},
		"two slashes":                   {target: at + "api//" + hosts, code: 403},
		"a slash at the end":            {target: list + "/", code: 403},
		"a back slash":                  {target: at + `api\` + hosts, code: 404},
		"a semicolon in the path":       {target: list + ";v=1", code: 403},
		"other capitals":                {target: at + "api/" + strings.ToUpper(hosts), code: 403},
		"the old way to watch":          {target: at + "api/apis/compute.hoststatus.dev/v1alpha1/watch/computeservices", code: 403},
		"a dry run":                     {target: list + "?dryRun=All", code: 403},
		"a parameter twice":             {target: list + "?watch=0&watch=1", code: 403},
		"an odd watch":                  {target: list + "?watch=maybe", code: 400},
		"a semicolon in the parameters": {target: list + "?limit=1;watch=1", code: 400},
		"parameters without end":        {target: list + "?continue=" + strings.Repeat("a", maxQuery), code: 414},
		"an upgrade":                    {target: list, header: map[string]string{"Upgrade": "websocket"}, code: 400},
		"a body":                        {target: list, header: map[string]string{"Content-Length": "0", "Transfer-Encoding": "chunked"}, code: 400},
		"a name that points here":       {target: at, header: map[string]string{"Host": "evil.example:" + port}, code: 403},
		"another port":                  {target: at, header: map[string]string{"Host": "127.0.0.1:1"}, code: 403},
		"no port":                       {target: at, header: map[string]string{"Host": "127.0.0.1"}, code: 403},
		"another page":                  {target: list, header: map[string]string{"Origin": "http://evil.example"}, code: 403},
		"a page without an origin":      {target: list, header: map[string]string{"Origin": "null"}, code: 403},
		"another page's image":          {target: at, header: map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, code: 403},
		"another page's frame":          {target: at, header: map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, code: 403},
		"another port's page":           {target: list, header: map[string]string{"Sec-Fetch-Site": "same-site"}, code: 403},
		"a link to the list":            {target: list, header: map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, code: 403},
	} {
		t.Run(name, func(t *testing.T) {
			method := c.method
			if method == "" {
				method = http.MethodGet
			}
			before := up.count()
			got := send(t, address, method, c.target, c.header)
			if got.code != c.code {
				t.Errorf("%s %s is answered with %d, want %d: %s", method, c.target, got.code, c.code, got.body)
			}
			if passed := up.count() > before; passed != c.passes {
				t.Errorf("the API server was asked: %t", passed)
			}
			if strings.Contains(got.body, token) || strings.Contains(got.body, secret) || strings.ContainsRune(got.body, '\x1b') {
				t.Errorf("the answer has what it must not have: %s", got.body)
			}
			for header, want := range headers {
				if got := got.header.Get(header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
			for _, header := range []string{"Access-Control-Allow-Origin", "Set-Cookie", "Location", "Audit-Id"} {
				if got := got.header.Get(header); got != "" {
					t.Errorf("there is a header %s: %q", header, got)
				}
			}
		})
	}
}

func TestAPageIsPutIntoTheFrameOfAllPages(t *testing.T) {
	page, err := framed([]byte(homepage))
	for _, want := range []string{"<!doctype html>", "<title>Hosts</title>", `<script src="hosts.js"></script>`, `placeholder="Filter: name"`, "<p>All of them.</p>", `id="details"`} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%v; the page is without %s: %s", err, want, page)
		}
	}
	if _, err := framed([]byte(strings.ReplaceAll(homepage, `"main"`, `"body"`))); err == nil || !strings.Contains(err.Error(), `"main"`) {
		t.Errorf("of a page without content it says %v", err)
	}
}

func TestNoOtherPathIsEverPassedOn(t *testing.T) {
	up := newUpstream(t, nil)
	server := httptest.NewUnstartedServer(nil)
	defer server.Close()
	h, err := newHandler(site(), up.config(), token, server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	start := "/" + token + "/api/" + hosts
	rapid.Check(t, func(rt *rapid.T) {
		// The right path, with some of it replaced by what could be taken for something else.
		from := rapid.IntRange(0, len(start)).Draw(rt, "from")
		to := rapid.IntRange(from, len(start)).Draw(rt, "to")
		put := rapid.SliceOfN(rapid.SampledFrom([]string{"/", ".", "..", "%2e", "%2f", "%5c", "\\", "//", "/../", "api", "secrets", "a", "%00", ";", "#", "@", ":", "*"}), 0, 4).Draw(rt, "put")
		target := start[:from] + strings.Join(put, "") + start[to:]
		r := &http.Request{Method: http.MethodGet, Host: server.Listener.Addr().String(), RequestURI: target, URL: &url.URL{Path: target}, Header: http.Header{}}
		before := up.count()
		h.ServeHTTP(httptest.NewRecorder(), r.WithContext(t.Context()))
		if passed := up.count() > before; passed != (target == start) {
			rt.Errorf("%s is passed on: %t", target, passed)
		}
	})
}

func TestTheAPIServerGetsTheUsersRightsAndNothingOfTheBrowser(t *testing.T) {
	up := newUpstream(t, nil)
	address := serve(t, up.config())
	got := send(t, address, http.MethodGet, "/"+token+"/api/"+hosts+"?watch=1&resourceVersion=7", map[string]string{
		"Authorization": "Bearer other", "Cookie": "a=b", "Impersonate-User": "root", "Impersonate-Group": "system:masters",
		"X-Remote-User": "root", "X-Forwarded-For": "10.0.0.1", "Accept": "application/json;as=Table", "User-Agent": "browser", "Referer": "http://x/",
	})
	if got.code != http.StatusOK || got.body != `{"items":[]}` || got.header.Get("Warning") != `299 - "old"` {
		t.Errorf("the answer is %d, %v, %s", got.code, got.header, got.body)
	}
	asked := up.asked[0]
	if asked.URL.String() != "/prefix/"+hosts+"?watch=1&resourceVersion=7" {
		t.Errorf("the API server is asked for %s", asked.URL)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + secret, "Impersonate-User": "ana", "Impersonate-Group": "", "Cookie": "", "X-Remote-User": "",
		"X-Forwarded-For": "", "Referer": "", "Accept": "application/json", "User-Agent": "kubectl-hosts",
	} {
		if got := asked.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestWhatTheAPIServerSaysIsPassedBackUnlessItSendsElsewhere(t *testing.T) {
	code := http.StatusOK
	up := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://elsewhere.example/")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"message":"why"}`)
	})
	address := serve(t, up.config())
	for _, c := range []struct {
		says, passes int
		body         string
	}{{403, 403, "why"}, {410, 410, "why"}, {503, 503, "why"}, {302, 502, "no answer"}, {307, 502, "no answer"}} {
		code = c.says
		got := send(t, address, http.MethodGet, "/"+token+"/api/"+hosts, nil)
		if got.code != c.passes || !strings.Contains(got.body, c.body) || got.header.Get("Location") != "" {
			t.Errorf("of %d the page gets %d: %s", c.says, got.code, got.body)
		}
	}
	up.Close()
	got := send(t, address, http.MethodGet, "/"+token+"/api/"+hosts, nil)
	if got.code != http.StatusBadGateway || !strings.Contains(got.body, "no answer from the API server") || strings.Contains(got.body, secret) {
		t.Errorf("without an API server the page gets %d: %s", got.code, got.body)
	}
}

func TestEventsGoOnAtOnceAndAWatchEndsWithTheTab(t *testing.T) {
	ended, next := make(chan struct{}), make(chan struct{})
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-next
		_, _ = io.WriteString(w, "one\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	})
	address := serve(t, up.config())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/"+token+"/api/"+hosts+"?watch=1", nil)
	// The header comes before any event.
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	close(next)
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if line != "one\n" {
		t.Fatalf("the first event is %q, %v", line, err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the watch goes on without the tab")
	}
}

func TestTheRequestsThatAreOpenAtOnceAreBounded(t *testing.T) {
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	address := serve(t, up.config())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := func() (code int) {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/"+token+"/api/"+hosts+"?watch=1", nil)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response.StatusCode
	}
	for range maxOpen {
		if code := watch(); code != http.StatusOK {
			t.Fatalf("a watch is answered with %d", code)
		}
	}
	if code := watch(); code != http.StatusServiceUnavailable {
		t.Errorf("one more is answered with %d", code)
	}
	if got := send(t, address, http.MethodGet, "/"+token+"/", nil); got.code != http.StatusOK {
		t.Errorf("the page itself is answered with %d", got.code)
	}
}

// syncBuffer is written to while it is read.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func TestTheAddressIsNewEachTimeAndGoneAtTheEnd(t *testing.T) {
	up := newUpstream(t, nil)
	var addresses []string
	for range 2 {
		out, errOut := &syncBuffer{}, &syncBuffer{}
		printed, in := io.Pipe()
		p := kubectlplugin.New("hosts", kubectlplugin.Environment{IOStreams: genericiooptions.IOStreams{Out: io.MultiWriter(in, out), ErrOut: errOut}, Getenv: func(string) string { return "" }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, p, up.config(), site(), &Options{}); _ = in.Close() }()
		address, err := bufio.NewReader(printed).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		address = strings.TrimSpace(address)
		parsed, err := url.Parse(address)
		if err != nil || parsed.Hostname() != "127.0.0.1" || len(parsed.Path) != len(token)+2 {
			t.Errorf("the address is %q", address)
		}
		response, err := http.Get(address)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("the page is answered with %v, %v", response, err)
		}
		_ = response.Body.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ends with %v", err)
		}
		if conn, err := net.Dial("tcp", parsed.Host); err == nil {
			_ = conn.Close()
			t.Error("the page is still there")
		}
		if strings.Contains(errOut.String(), parsed.Path) || strings.Contains(out.String()+errOut.String(), secret) {
			t.Errorf("it prints %q and %q", out, errOut)
		}
		addresses = append(addresses, parsed.Path)
	}
	if addresses[0] == addresses[1] {
		t.Error("both runs have the same address")
	}
}

func TestAPortThatCannotBeUsedIsNamed(t *testing.T) {
	for _, port := range []int{-1, maxPort + 1} {
		err := (&Options{Port: port}).Validate()
		if kubectlplugin.CodeOf(err) != kubectlplugin.ExitUsage || !strings.Contains(err.Error(), "--port") || !strings.Contains(err.Error(), "0 for any") {
			t.Errorf("port %d: %v", port, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	p := kubectlplugin.New("hosts", kubectlplugin.Environment{IOStreams: genericiooptions.NewTestIOStreamsDiscard()})
	err = Serve(t.Context(), p, &rest.Config{Host: "http://127.0.0.1:1"}, site(), &Options{Port: taken.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "--port") || !strings.Contains(err.Error(), "another port") {
		t.Errorf("of a port that is taken it says %v", err)
	}
}

func TestThePageKnowsEveryStatusOfTheTable(t *testing.T) {
	address := serve(t, newUpstream(t, nil).config())
	got := send(t, address, http.MethodGet, "/"+token+"/start.json", nil)
	var start struct {
		Statuses []Status `json:"statuses"`
		Cluster  string   `json:"cluster"`
	}
	if err := json.Unmarshal([]byte(got.body), &start); err != nil || start.Cluster != "here" {
		t.Fatalf("%v: %s", err, got.body)
	}
	i := 0
	for row := range hoststatus.Rows() {
		have := start.Statuses[i]
		if !hoststatus.SameStatus(have.Value, row.Status) || have.Letter != row.Letter || have.Tile != row.Tile || have.Name == "" || have.Meaning == "" {
			t.Errorf("row %d is %+v, want %+v", i, have, row)
		}
		i++
	}
	if i != len(start.Statuses) {
		t.Errorf("the page has %d statuses, the table %d", len(start.Statuses), i)
	}
}
