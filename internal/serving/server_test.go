// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"hoststatus.dev/hoststatus/internal/racedetector"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// served is a Server that listens.
type served struct {
	*Server
	address string
	stop    context.CancelFunc
	ended   chan error
}

// serve starts a server whose hook, at /hook, answers with the body that it gets.
func serve(t *testing.T, c clock.Clock, delay time.Duration) *served {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	expect.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	expect.NoError(t, err)
	paths := http.NewServeMux()
	paths.HandleFunc("/hook", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	expect.NoError(t, err)
	s := &served{address: listener.Addr().String(), ended: make(chan error, 1)}
	s.Server = NewServer(Options{
		Address: s.address, ShutdownDelay: delay, Handler: paths, Clock: c, Logger: logr.Discard(),
		TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key}, nil
		}},
	})
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	go func() { s.ended <- s.serve(ctx, listener) }()
	return s
}

// dial connects from an address of this machine: each is a caller of its own.
func (s *served) dial(from string) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := tls.DialWithDialer(dialer, "tcp", s.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// client is a caller at an address.
func (s *served) client(t *testing.T, from string) *http.Client {
	t.Helper()
	transport := &http.Transport{
		DialTLSContext:        func(context.Context, string, string) (net.Conn, error) { return s.dial(from) },
		ExpectContinueTimeout: time.Minute,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// answered is what matters of an answer beside its body.
type answered struct {
	code   int
	closes bool
}

func (s *served) post(client *http.Client, body io.Reader) (string, answered, error) {
	request, err := http.NewRequest(http.MethodPost, "https://"+s.address+"/hook", body)
	if err != nil {
		return "", answered{}, err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := client.Do(request)
	if err != nil {
		return "", answered{}, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return string(content), answered{response.StatusCode, response.Close}, err
}

func TestWhatIsRefusedBeforeItIsLookedAt(t *testing.T) {
	s := serve(t, clock.RealClock{}, 0)
	defer s.stop()
	client := s.client(t, "127.0.0.1")
	largest := `{"a":"` + strings.Repeat("x", maxBody-8) + `"}`
	for name, c := range map[string]struct {
		method, path, contentType, body string
		chunked                         bool
		code                            int
	}{
		"a body that is good":            {code: http.StatusOK, body: `{"a":["{[,\"{[,",1,{}]}`},
		"one of unknown length":          {code: http.StatusOK, body: `{}`, chunked: true},
		"the largest that is small":      {code: http.StatusOK, body: `{"a":"` + strings.Repeat("x", smallBody-8) + `"}`},
		"the smallest that is large":     {code: http.StatusOK, body: `{"a":"` + strings.Repeat("x", smallBody-7) + `"}`},
		"the largest":                    {code: http.StatusOK, body: largest},
		"the largest of unknown length":  {code: http.StatusOK, body: largest, chunked: true},
		"one that is larger":             {code: http.StatusRequestEntityTooLarge, body: largest + " "},
		"a larger one of unknown length": {code: http.StatusRequestEntityTooLarge, body: largest + " ", chunked: true},
		"nothing":                        {code: http.StatusBadRequest},
		"YAML":                           {code: http.StatusBadRequest, body: "a:\n- a\n"},
		"protobuf":                       {code: http.StatusBadRequest, body: "k8s\x00{}"},
		"a list":                         {code: http.StatusBadRequest, body: "[{}]"},
		"as many values as there may be": {code: http.StatusOK, body: `{"a":[` + strings.Repeat("{},", (maxValues-4)/2) + `1]}`},
		"more values than there may be":  {code: http.StatusRequestEntityTooLarge, body: `{"a":[` + strings.Repeat("{},", maxValues/2) + `1]}`},
		"YAML that says so":              {code: http.StatusUnsupportedMediaType, body: `{}`, contentType: "application/yaml"},
		"a body that does not say what":  {code: http.StatusUnsupportedMediaType, body: `{}`, contentType: "text/plain"},
		"a path at which nothing is":     {code: http.StatusNotFound, body: `{}`, path: "/hook/else"},
		"a request that posts nothing":   {code: http.StatusMethodNotAllowed, method: http.MethodGet},
		"a header that is too large":     {code: http.StatusRequestHeaderFieldsTooLarge, body: `{}`, path: "/hook?" + strings.Repeat("x", 2*maxHeader)},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, kind := http.MethodPost, "/hook", contentType
			if c.method != "" {
				method = c.method
			}
			if c.path != "" {
				path = c.path
			}
			if c.contentType != "" {
				kind = c.contentType
			}
			ask := func() (code int, answer string) {
				var body io.Reader = strings.NewReader(c.body)
				if c.chunked {
					body = io.MultiReader(body)
				}
				request, err := http.NewRequest(method, "https://"+s.address+path, body)
				expect.NoError(t, err)
				request.Header.Set("Content-Type", kind)
				request.Header.Set("Expect", "100-continue") // Otherwise a client that sends more than is read may see no answer.
				response, err := client.Do(request)
				expect.NoError(t, err)
				defer func() { _ = response.Body.Close() }()
				read, err := io.ReadAll(response.Body)
				expect.NoError(t, err)
				return response.StatusCode, string(read)
			}
			code, answer := ask()
			// A busy machine can need more than largeTimeout for the largest.
			for begin := time.Now(); code == http.StatusRequestTimeout && time.Since(begin) < time.Minute; {
				code, answer = ask()
			}
			if code != c.code || c.code == http.StatusOK && answer != c.body {
				t.Errorf("%d %.100s, want %d", code, answer, c.code)
			}
		})
	}
}

// Whatever others hold, from one address or from several, the API server is answered
// within the 2 s for which it waits.
func TestACallerIsAnsweredWhileOthersHoldWhatTheyCan(t *testing.T) {
	s := serve(t, clock.RealClock{}, 0)
	defer s.stop()
	victim := s.client(t, "127.0.0.1")
	ask := func(body string) (took time.Duration) {
		t.Helper()
		begin := time.Now()
		answer, response, err := s.post(victim, strings.NewReader(body))
		took = time.Since(begin)
		if err != nil || response.code != http.StatusOK || answer != body {
			t.Fatalf("after %v: %.100q (%v)", took, answer, err)
		}
		return took
	}
	small, large := `{"a":1}`, `{"a":"`+strings.Repeat("x", maxBody/2)+`"}`
	aloneSmall, aloneLarge := ask(small), ask(large)

	over := make(chan struct{})
	var attackers sync.WaitGroup
	defer attackers.Wait()
	defer sync.OnceFunc(func() { close(over) })()
	header := func(length int) string {
		return fmt.Sprintf("POST /hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", length)
	}
	begins := []string{"", "POST /hook", header(1000), header(maxBody) + strings.Repeat(" ", 2*smallBody)}
	var reached sync.WaitGroup
	for i := range maxConnections + 88 {
		from := fmt.Sprintf("127.0.0.%d", 2+i%3)
		reached.Add(1)
		attackers.Go(func() {
			first := sync.OnceFunc(reached.Done)
			defer first()
			for { // One whose connection is closed connects again.
				conn, err := s.dial(from)
				if err == nil {
					_, _ = io.WriteString(conn, begins[i%len(begins)])
				}
				first()
				if err == nil {
					waited := make(chan struct{})
					go func() { _, _ = io.Copy(io.Discard, conn); close(waited) }()
					select {
					case <-waited:
					case <-over:
					}
					_ = conn.Close()
					<-waited
				}
				select {
				case <-over:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	reached.Wait()
	victim.CloseIdleConnections() // It has to connect, like the others.
	var duringSmall []time.Duration
	var duringLarge time.Duration
	for range 10 {
		duringSmall = append(duringSmall, ask(small))
		if !racedetector.On { // With it the attackers take all the CPU that 2 MiB need.
			duringLarge = max(duringLarge, ask(large))
		}
	}
	slices.Sort(duringSmall)
	t.Logf("small: %v alone, %v beside the attack; large: %v and %v at most", aloneSmall, duringSmall, aloneLarge, duringLarge)
	// What else runs on the machine may hold up one of them.
	if second := duringSmall[len(duringSmall)-2]; second > 2*time.Second && !racedetector.On {
		t.Errorf("two answers took %v and more", second)
	}
}

func TestABodyThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	s := serve(t, clock.RealClock{}, 0)
	defer s.stop()
	conn, err := s.dial("127.0.0.1")
	expect.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST /hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	expect.NoError(t, err)
	expect.NoError(t, conn.SetReadDeadline(time.Now().Add(10*readTimeout)))
	answer, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || err != nil {
		t.Errorf("%q (%v)", answer, err)
	}
}

func TestItGoesOnServingForAWhileAfterItWasToldToStop(t *testing.T) {
	c := clocktesting.NewFakeClock(time.Now())
	s := serve(t, c, 5*time.Second)
	client := s.client(t, "127.0.0.1")
	if _, response, err := s.post(client, strings.NewReader("{}")); err != nil || response.closes {
		t.Fatalf("%v, %v", response, err)
	}
	expect.NoError(t, s.Ready(nil))
	s.stop()
	for !c.HasWaiters() {
		time.Sleep(time.Millisecond)
	}
	if s.Ready(nil) == nil {
		t.Error("it is ready still")
	}
	for range 2 {
		answer, response, err := s.post(client, strings.NewReader("{}"))
		if err != nil || answer != "{}" {
			t.Fatalf("%q (%v)", answer, err)
		}
		if !response.closes {
			t.Error("the connection stays open")
		}
	}
	c.Step(5 * time.Second)
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	if _, err := s.dial("127.0.0.1"); err == nil {
		t.Error("it listens still")
	}
}

func TestWhatIsClosedDoesNotWait(t *testing.T) {
	s := serve(t, clocktesting.NewFakeClock(time.Now()), time.Minute)
	s.Close()
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	s.stop()
}

func TestWhatHasAFairQueueIsAskedFewTimesAtOnce(t *testing.T) {
	begun, end := make(chan string, metricsSeats), make(chan struct{})
	handler := WithFairQueue(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- r.RemoteAddr
		<-end
	}))
	var asked sync.WaitGroup
	ask := func(from string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
		r.RemoteAddr = from
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		return answer
	}
	codes := make(chan int, 10*metricsPerCaller)
	for range 2 * metricsPerCaller { // Half of them wait in vain.
		asked.Go(func() { codes <- ask("10.0.0.1:1").Code })
	}
	for range metricsPerCaller {
		<-begun
	}
	asked.Go(func() { codes <- ask("10.0.0.2:1").Code })
	if from := <-begun; from != "10.0.0.2:1" {
		t.Errorf("%s is let in", from)
	}
	for range metricsPerCaller {
		if code := <-codes; code != http.StatusTooManyRequests {
			t.Errorf("is answered %d", code)
		}
	}
	close(end)
	asked.Wait()
}

func TestReadyNeedsACertificate(t *testing.T) {
	s := serve(t, clock.RealClock{}, 0)
	defer s.stop()
	if _, _, err := s.post(s.client(t, "127.0.0.1"), strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	expect.NoError(t, s.Ready(nil))
	s.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none yet") }
	if err := s.Ready(nil); err == nil || !strings.Contains(err.Error(), "none yet") {
		t.Errorf("%v", err)
	}
}
