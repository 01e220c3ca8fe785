// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// proxy stands between hoststatus and the API server and does to their traffic
// what networks and overloaded servers do. One HTTP/2 connection carries watches
// and other requests, so it ends TLS to tell them apart; it speaks to the API
// server as a front proxy, which vouches for the users whose certificates it saw.
type proxy struct {
	url    string
	server *http.Server

	mu sync.Mutex
	// changed is closed, and made anew, whenever one of the following changes.
	changed chan struct{}
	down    bool
	delay   time.Duration
	// stalled is the part of a path whose watches bring nothing; "/" is in all.
	stalled string
	// streams ends the watches that are open.
	streams map[*stream]struct{}
	conns   map[net.Conn]struct{}
	// lists are when a manager began to list or watch the Leases of a namespace.
	lists map[string][]time.Time
}

func startProxy(c *controlplane.Cluster) (*proxy, error) {
	file := func(name string) string { return filepath.Join(c.Dir, name) }
	target, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	serving, err := tls.LoadX509KeyPair(file("apiserver.crt"), file("apiserver.key"))
	if err != nil {
		return nil, err
	}
	front, err := tls.LoadX509KeyPair(file("front-proxy-client.crt"), file("front-proxy-client.key"))
	if err != nil {
		return nil, err
	}
	pools := map[string]*x509.CertPool{}
	for _, name := range []string{"client-ca.crt", "server-ca.crt"} {
		content, err := os.ReadFile(file(name))
		if err != nil {
			return nil, err
		}
		pools[name] = x509.NewCertPool()
		pools[name].AppendCertsFromPEM(content)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{
		url:     "https://" + listener.Addr().String(),
		changed: make(chan struct{}),
		streams: map[*stream]struct{}{},
		conns:   map[net.Conn]struct{}{},
		lists:   map[string][]time.Time{},
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			user := r.In.TLS.PeerCertificates[0].Subject
			r.Out.Header.Set("X-Remote-User", user.CommonName)
			r.Out.Header["X-Remote-Group"] = user.Organization
		},
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pools["server-ca.crt"], Certificates: []tls.Certificate{front}},
			ForceAttemptHTTP2: true,
			DialContext:       (&net.Dialer{Timeout: time.Second}).DialContext,
		},
		FlushInterval:  -1,
		ModifyResponse: p.wrap,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	p.server = &http.Server{
		Handler:     p.handler(forward),
		TLSConfig:   &tls.Config{Certificates: []tls.Certificate{serving}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pools["client-ca.crt"]},
		ErrorLog:    log.New(io.Discard, "", 0),
		ConnState:   p.track,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return ctx },
	}
	go func() { _ = p.server.ServeTLS(listener, "", "") }()
	return p, nil
}

// via returns config with the way through the proxy.
func (p *proxy) via(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Host = p.url
	return config
}

func (p *proxy) stop() { _ = p.server.Close() }

// set changes what the proxy does, and lets whoever waits look again.
func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

// cut closes every connection and refuses new ones, until the returned function
// is called.
func (p *proxy) cut() (restore func()) {
	p.set(func() {
		p.down = true
		for c := range p.conns {
			_ = c.Close()
		}
	})
	return func() { p.set(func() { p.down = false }) }
}

// slow lets every request that is no watch wait before it is passed on.
func (p *proxy) slow(by time.Duration) (restore func()) {
	p.set(func() { p.delay = by })
	return func() { p.set(func() { p.delay = 0 }) }
}

// stall holds back what watches bring whose path has part in it.
func (p *proxy) stall(part string) (restore func()) {
	p.set(func() { p.stalled = part })
	return func() { p.set(func() { p.stalled = "" }) }
}

// freeze lets the watches that are open bring nothing any more. New ones work.
func (p *proxy) freeze() {
	p.set(func() {
		for s := range p.streams {
			s.frozen = true
		}
	})
}

// cutWatches ends the watches that are open; new ones may be opened.
func (p *proxy) cutWatches() {
	p.set(func() {
		for s := range p.streams {
			s.cut = true
		}
	})
}

func (p *proxy) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		down, delay := p.down, p.delay
		p.mu.Unlock()
		if down {
			panic(http.ErrAbortHandler)
		}
		if delay > 0 && !isWatch(r) {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		p.noteList(r)
		next.ServeHTTP(w, r)
	})
}

// noteList notes when a manager lists the Leases of a namespace.
func (p *proxy) noteList(r *http.Request) {
	const before, after = "/apis/coordination.k8s.io/v1/namespaces/", "/leases"
	namespace, isLeases := strings.CutPrefix(r.URL.Path, before)
	namespace, isList := strings.CutSuffix(namespace, after)
	if !isLeases || !isList || r.Method != http.MethodGet || r.URL.Query().Has("fieldSelector") || !strings.HasSuffix(r.TLS.PeerCertificates[0].Subject.CommonName, ":hoststatus-manager") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists[namespace] = append(p.lists[namespace], time.Now())
}

// listed returns when managers began to list the Leases of namespace.
func (p *proxy) listed(namespace string) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lists[namespace])
}

func isWatch(r *http.Request) bool {
	v := r.URL.Query().Get("watch")
	return v == "true" || v == "1"
}

func (p *proxy) track(c net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.conns[c] = struct{}{}
		if p.down {
			_ = c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, c)
	}
}

// wrap puts a stream where the body of a watch is.
func (p *proxy) wrap(r *http.Response) error {
	if isWatch(r.Request) {
		s := &stream{ReadCloser: r.Body, proxy: p, path: r.Request.URL.Path, context: r.Request.Context()}
		p.mu.Lock()
		p.streams[s] = struct{}{}
		p.mu.Unlock()
		r.Body = s
	}
	return nil
}

// stream is the body of a watch.
type stream struct {
	io.ReadCloser
	proxy   *proxy
	path    string
	context context.Context
	cut     bool
	frozen  bool
}

// Read hands on what the API server sent, once it may.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	for {
		s.proxy.mu.Lock()
		held := s.frozen || s.proxy.stalled != "" && strings.Contains(s.path, s.proxy.stalled)
		cut, changed := s.cut, s.proxy.changed
		s.proxy.mu.Unlock()
		if cut {
			return 0, fmt.Errorf("the watch was cut")
		}
		if !held {
			return n, err
		}
		select {
		case <-changed:
		case <-s.context.Done():
			return 0, s.context.Err()
		}
	}
}

// Close ends the watch.
func (s *stream) Close() error {
	s.proxy.mu.Lock()
	delete(s.proxy.streams, s)
	s.proxy.mu.Unlock()
	return s.ReadCloser.Close()
}
