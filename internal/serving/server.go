// SPDX-License-Identifier: Apache-2.0

// Package serving serves the admission webhook to anyone who can reach its port: the API
// server shows no certificate unless it is configured to, so only the address of a caller
// is known before its request is read. What one caller can hold is bounded, and so is
// what all hold together: connections, bodies, the work on them, and the time that each
// may take.
package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// The bounds. An AdmissionReview of ours is some kilobytes; the largest that
// kube-apiserver can send holds the old and the new object, of 1.5 MiB each.
const (
	maxBody = 4 << 20
	// smallBody is how much of a body is read before it needs one of the few seats of
	// large ones.
	smallBody = 32 << 10
	// maxValues bounds what decoding can make of a body: an element of three bytes can
	// become a struct of a hundred.
	maxValues      = 20_000
	maxHeader      = 16 << 10
	maxConnections = 256
	// largeSeats is how many large bodies are in memory at once.
	largeSeats, largePerCaller = 4, 2
	// workSeats is how many requests are worked on at once: most take no time, some ask
	// the API server first.
	workSeats, workPerCaller = 16, 8
	// heavySeats is how many large bodies are worked on at once: decoding one takes some
	// tenths of a second of a CPU that others need, too.
	heavySeats, heavyPerCaller = 1, 1
	// maxWaiting is how many requests of one caller wait for a seat.
	maxWaiting = 256
)

// The deadlines. kube-apiserver gives up after 2 s, as the webhook's configuration sets.
const (
	// readTimeout is how long a handshake, or a request with its body, may take to arrive.
	readTimeout = 3 * time.Second
	// largeTimeout is how long the rest of a large body may take once it has its seat.
	largeTimeout = time.Second
	// waitTimeout is how long a request waits for a seat.
	waitTimeout  = 2 * time.Second
	writeTimeout = 10 * time.Second
	// idleTimeout is longer than kube-apiserver's, so that kube-apiserver sends no request
	// on a connection that is being closed here.
	idleTimeout = 2 * time.Minute
	// drainTimeout is how long requests may take that still run at the end.
	drainTimeout = 5 * time.Second
)

// Options are what a Server needs. All fields but ShutdownDelay are required.
type Options struct {
	// Address is host:port.
	Address string
	// TLS needs GetCertificate.
	TLS *tls.Config
	// ShutdownDelay is how long it still serves once it is to stop.
	ShutdownDelay time.Duration
	// Handler answers the requests that are within bounds; it knows the paths.
	Handler *http.ServeMux
	Clock   clock.Clock
	Logger  logr.Logger
}

// Server serves the webhook.
type Server struct {
	Options
	large, work, heavy *queue
	serves, stopping   atomic.Bool
	closed             chan struct{}
}

// NewServer makes a Server that does not listen yet.
func NewServer(options Options) *Server {
	return &Server{
		Options: options,
		large:   newQueue(largeSeats, largePerCaller, maxWaiting),
		work:    newQueue(workSeats, workPerCaller, maxWaiting),
		heavy:   newQueue(heavySeats, heavyPerCaller, maxWaiting),
		closed:  make(chan struct{}),
	}
}

// Ready returns why it cannot answer, nil if it can.
func (s *Server) Ready(*http.Request) error {
	switch {
	case !s.serves.Load():
		return errors.New("the webhook does not listen yet")
	case s.stopping.Load():
		return errors.New("the webhook is being stopped")
	}
	if _, err := s.TLS.GetCertificate(&tls.ClientHelloInfo{}); err != nil {
		return fmt.Errorf("the webhook has no certificate: %w", err)
	}
	return nil
}

// Close ends Run without a delay.
func (s *Server) Close() { close(s.closed) }

// Run serves until ctx ends, and for ShutdownDelay longer: it takes a moment until
// clients of the Service stop connecting here.
func (s *Server) Run(ctx context.Context) error {
	plain, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("listening for the webhook: %w", err)
	}
	return s.serve(ctx, plain)
}

func (s *Server) serve(ctx context.Context, plain net.Listener) error {
	requests := logr.NewContext(context.WithoutCancel(ctx), s.Logger)
	config := s.TLS.Clone()
	// One request at a time on each connection: then a bound on connections is a bound on
	// requests.
	config.NextProtos = []string{"http/1.1"}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler:           http.HandlerFunc(s.handle),
		BaseContext:       func(net.Listener) context.Context { return requests },
		Protocols:         protocols,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          ErrorLog(s.Logger),
	}
	bounded := Bounded(plain, maxConnections, func() { refused.WithLabelValues(reasonConnections).Inc() })
	served := make(chan error, 1)
	go func() { served <- server.Serve(tls.NewListener(bounded, config)) }()
	s.serves.Store(true)
	s.Logger.Info("Serving", "address", plain.Addr().String())

	select {
	case err := <-served:
		return fmt.Errorf("serving the webhook: %w", err)
	case <-s.closed:
		_ = server.Close()
		return nil
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	if s.ShutdownDelay > 0 {
		s.Logger.Info("Stopping; serving until the shutdown delay has passed", "for", s.ShutdownDelay.String())
	}
	select {
	case err := <-served:
		return fmt.Errorf("serving the webhook: %w", err)
	case <-s.closed:
	case <-s.Clock.After(s.ShutdownDelay):
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if server.Shutdown(last) != nil {
		_ = server.Close() // A request takes too long.
	}
	return nil
}
