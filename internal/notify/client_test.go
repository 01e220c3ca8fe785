// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

// pairFor is a certificate for a use, which nobody but itself has signed, and its key, in PEM.
func pairFor(t *testing.T, use x509.ExtKeyUsage) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	expect.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{use},
		DNSNames: []string{"sink.example.com"},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	expect.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	expect.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

func TestAClientShowsItsCertificateAndTheTokenAsItIsNow(t *testing.T) {
	cert, key := pairFor(t, x509.ExtKeyUsageClientAuth)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	var tokens []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) != 1 {
			t.Errorf("%d certificates", len(r.TLS.PeerCertificates))
		}
		tokens = append(tokens, r.Header.Get("Authorization"))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		expect.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	sink := &SinkConfig{
		CloudEvents: &CloudEventsConfig{Parallel: 1}, TimeoutSeconds: 5, BearerTokenFile: write("token", []byte("one")),
		TLS: TLSConfig{CAFile: write("ca", certificateOf(server)), CertFile: write("cert", cert), KeyFile: write("key", key)},
	}
	c, err := newClient(sink, "test", logr.Discard())
	expect.NoError(t, err)
	ask := func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, nil)
		expect.NoError(t, err)
		return c.do(t.Context(), request, nil)
	}
	expect.NoError(t, ask())
	write("token", []byte("two\n"))
	expect.NoError(t, ask())
	if !slices.Equal(tokens, []string{"Bearer one", "Bearer two"}) {
		t.Errorf("sent %q", tokens)
	}
	write("token", []byte("two words"))
	if err := ask(); err == nil || strings.Contains(err.Error(), "words") || !strings.Contains(err.Error(), "bearerTokenFile") {
		t.Errorf("with two words: %v", err)
	}

	for name, change := range map[string]func(*SinkConfig){
		"bearerTokenFile": func(s *SinkConfig) { s.BearerTokenFile = filepath.Join(dir, "none") },
		"tls.caFile":      func(s *SinkConfig) { s.TLS.CAFile = write("bad", []byte("no PEM")) },
		"tls.certFile":    func(s *SinkConfig) { s.TLS.KeyFile = s.TLS.CertFile },
	} {
		write("token", []byte("one"))
		wrong := *sink
		change(&wrong)
		if _, err := newClient(&wrong, "test", logr.Discard()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger := *sink
	stranger.TLS.CAFile = ""
	c, err = newClient(&stranger, "test", logr.Discard())
	expect.NoError(t, err)
	if err := ask(); err == nil {
		t.Error("a sink of an unknown authority is trusted")
	}
}

// The file changes as a kubelet changes it: by a link to another one.
func TestASinkIsTrustedByTheAuthoritiesThatItsFileHasNow(t *testing.T) {
	oneCert, oneKey := pairFor(t, x509.ExtKeyUsageServerAuth)
	otherCert, otherKey := pairFor(t, x509.ExtKeyUsageServerAuth)
	var shown atomic.Pointer[tls.Certificate]
	show := func(cert, key []byte) {
		t.Helper()
		pair, err := tls.X509KeyPair(cert, key)
		expect.NoError(t, err)
		shown.Store(&pair)
	}
	show(oneCert, oneKey)
	protocol := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { protocol <- r.Proto }))
	server.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil }}
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)

	dir := t.TempDir()
	file, files := filepath.Join(dir, "ca.crt"), 0
	write := func(content []byte) {
		t.Helper()
		files++
		target, link := filepath.Join(dir, fmt.Sprint(files)), filepath.Join(dir, "link")
		expect.NoError(t, os.WriteFile(target, content, 0o600))
		expect.NoError(t, os.Symlink(target, link))
		expect.NoError(t, os.Rename(link, file))
	}
	write(oneCert)
	book := logbook.New()
	c, err := newClient(&SinkConfig{CloudEvents: &CloudEventsConfig{Parallel: 1}, TimeoutSeconds: 5, TLS: TLSConfig{CAFile: file, ServerName: "sink.example.com"}}, "test", book.Logger)
	expect.NoError(t, err)
	// trusted asks the sink, by a connection that is new unless kept is set.
	trusted := func(when string, kept, want bool) {
		t.Helper()
		if !kept {
			c.http.Transport.(*agent).next.(*authorities).transport.CloseIdleConnections()
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, nil)
		expect.NoError(t, err)
		err = c.do(t.Context(), request, nil)
		var untrusted *tls.CertificateVerificationError
		switch {
		case want && err != nil:
			t.Errorf("%s: %v", when, err)
		case !want && !errors.As(err, &untrusted):
			t.Errorf("%s: %v, want the sink not to be trusted", when, err)
		case want:
			if p := <-protocol; p != "HTTP/2.0" {
				t.Errorf("%s: by %s", when, p)
			}
		}
	}
	trusted("at first", false, true)

	write([]byte("no PEM"))
	trusted("with a broken file", false, true)
	trusted("with a file that is still broken", false, true)
	expect.NoError(t, os.Remove(file))
	trusted("without a file", false, true)
	write(bytes.Repeat([]byte("#"), maxAuthorities+1))
	trusted("with a file that is too large", false, true)
	show(otherCert, otherKey)
	trusted("with a broken file and a sink of another authority", false, false)
	book.Want(t, "tls.caFile: "+file+" holds no certificate", "tls.caFile: stat "+file, "tls.caFile: "+file+" has more than 1 MiB")

	write(otherCert)
	trusted("with a file of the other authority", false, true)
	write(oneCert)
	trusted("by a connection from before its authority was taken away", true, false)
	write([]byte("no PEM"))
	trusted("with a broken file, after that", false, false)
	write(oneCert)
	show(oneCert, oneKey)
	trusted("with the file as it was", false, true)
	book.Want(t, "no certificate", "stat", "1 MiB", "have changed", "have changed", "no certificate", "can be read again")
}

// lateAnswer is a transport whose answer comes once its caller has given up.
type lateAnswer struct{}

func (lateAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

func TestAnAnswerThatComesTooLateIsNone(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	for name, c := range map[string]struct {
		ctx     context.Context
		timeout time.Duration
	}{
		"after the deadline":      {t.Context(), time.Millisecond},
		"of a request taken back": {gone, time.Minute},
	} {
		request, err := http.NewRequestWithContext(c.ctx, http.MethodPost, "https://sink.example", nil)
		expect.NoError(t, err)
		late := &client{http: &http.Client{Transport: lateAnswer{}}, timeout: c.timeout}
		if err := late.do(c.ctx, request, nil); err == nil {
			t.Errorf("an answer %s counts as a delivery", name)
		}
	}
}

func TestWhatAnAnswerSaysOfTheSink(t *testing.T) {
	for code, want := range map[int]outcome{
		301: failed, 307: failed, 400: refused, 401: failed, 403: failed, 404: failed, 408: failed, 413: refused, 415: refused, 422: refused, 429: failed, 500: failed, 503: failed,
	} {
		if got, _ := outcomeOf(&answerError{code: code}); got != want {
			t.Errorf("%d: %v, want %v", code, got, want)
		}
	}
	for value, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "999999999": longestRetryAfter, "Fri, 31 Dec 1999 23:59:59 GMT": 0} {
		if got := retryAfter(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
