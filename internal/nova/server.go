// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	restclient "k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"hoststatus.dev/hoststatus/internal/serving"
)

const (
	// maxHeader bounds the headers of a request: a token, and a query with many filters.
	maxHeader = 32 << 10
	// headerTimeout and bodyTimeout are how long a request may take to arrive.
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	// sendTimeout is how long an answer may take to be sent, after the time for making it.
	sendTimeout = 20 * time.Second
	// slowAfter is how long a client may take its answer while another caller waits for its seat.
	slowAfter = 5 * time.Second
	// idleTimeout is longer than that of usual proxies, so that they close connections first.
	idleTimeout = 75 * time.Second
	// drainTimeout is how long requests may take that still run at the end.
	drainTimeout = 5 * time.Second
	// probeTimeout is how long kube-apiserver may take to answer a probe, and probeInterval
	// how long that holds.
	probeTimeout, probeInterval = 2 * time.Second, time.Second
)

// Run serves until ctx ends. Of config only the address of the API server is used, and how
// to trust it.
func Run(ctx context.Context, config *restclient.Config, options *Options, log logr.Logger) error {
	if errs := options.Validate(); len(errs) > 0 {
		return errs.ToAggregate()
	}
	k, err := newKube(config)
	if err != nil {
		return err
	}
	f := newFace(options, k, clock.RealClock{}, log)
	defer scraped.Provide(f.collect)()
	metrics := serving.ForScrapers(config, promhttp.HandlerFor(registry(), promhttp.HandlerOpts{}), func(err error) { f.complaints.report("metrics", err) })
	s := &servers{face: f, metrics: metrics}
	// Requests run on after ctx has ended, until the last answer is sent.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	running, runs := errgroup.WithContext(background)
	if !options.PlainHTTP {
		certificate, err := certwatcher.New(filepath.Join(options.CertDir, certFile), filepath.Join(options.CertDir, keyFile))
		if err != nil {
			return fmt.Errorf("--cert-dir: %w", err)
		}
		s.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.GetCertificate, NextProtos: []string{"http/1.1"}}
		options.TLS.Apply(s.tls)
		running.Go(func() error { return certificate.Start(runs) })
	}
	if err := s.listen(ctx); err != nil {
		return err
	}
	for _, served := range s.served {
		running.Go(func() error { return served.run(runs) })
	}
	running.Go(func() error {
		defer stop()
		s.waitForEnd(ctx, runs)
		return nil
	})
	return running.Wait()
}

// servers are the three servers of the process.
type servers struct {
	*face
	metrics  http.Handler
	tls      *tls.Config
	served   []*served
	stopping atomic.Bool
	probe    probe
}

// served is one of them.
type served struct {
	name     string
	listener net.Listener
	server   *http.Server
}

func (s *servers) listen(ctx context.Context) error {
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	health.HandleFunc("GET /readyz", s.ready)
	for _, on := range []struct {
		name, flag, address string
		handler             http.Handler
		secured             bool
	}{
		{"clients", "bind-address", s.options.BindAddress, s.closing(s.face), true},
		{"metrics", "metrics-bind-address", s.options.MetricsBindAddress, serving.WithFairQueue(s.metrics), true},
		{"probes", "health-probe-bind-address", s.options.HealthProbeBindAddress, serving.WithFairQueue(health), false},
	} {
		if on.address == "0" {
			continue
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", on.address)
		if err != nil {
			s.close()
			return fmt.Errorf("--%s: %w", on.flag, err)
		}
		s.log.Info("Serving", "what", on.name, "address", listener.Addr().String())
		listener = serving.Bounded(listener, s.options.MaxConnections, func() { refusedConnections.WithLabelValues().Inc() })
		if on.secured && s.tls != nil {
			listener = tls.NewListener(listener, s.tls)
		}
		s.served = append(s.served, &served{on.name, listener, s.newServer(on.handler)})
	}
	return nil
}

func (s *servers) close() {
	for _, served := range s.served {
		_ = served.listener.Close()
	}
}

// newServer makes a server with one request at a time on each connection, so that a bound on
// connections is a bound on requests.
func (s *servers) newServer(handler http.Handler) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      bodyTimeout + s.options.RequestTimeout + sendTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          serving.ErrorLog(s.log),
	}
}

// run serves until ctx ends.
func (s *served) run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(s.listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving %s: %w", s.name, err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if s.server.Shutdown(last) != nil {
		_ = s.server.Close() // A request takes too long.
	}
	return nil
}

// waitForEnd returns when all has to stop: it takes a moment until clients of the Service stop
// connecting here.
func (s *servers) waitForEnd(ctx, runs context.Context) {
	select {
	case <-ctx.Done():
	case <-runs.Done():
		return
	}
	s.stopping.Store(true)
	if s.options.ShutdownDelay > 0 {
		s.log.Info("Stopping; serving until the shutdown delay has passed", "for", s.options.ShutdownDelay.String())
	}
	timer := time.NewTimer(s.options.ShutdownDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-runs.Done():
	}
}

// closing lets clients send their next request to another replica once this one is to stop.
func (s *servers) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// ready serves /readyz: it is ready while kube-apiserver answers, whatever it answers.
func (s *servers) ready(w http.ResponseWriter, r *http.Request) {
	err := errors.New("it is being stopped")
	if !s.stopping.Load() {
		// The answer is for all who ask meanwhile, so it does not end with one who hangs up.
		err = s.probe.check(s.clock, func() error { return s.kube.reach(context.WithoutCancel(r.Context())) })
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok"))
}

// probe remembers the last answer for a moment: anybody may ask.
type probe struct {
	mu   sync.Mutex
	at   time.Time
	last error
}

func (p *probe) check(c clock.PassiveClock, ask func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.IsZero() || c.Since(p.at) >= probeInterval {
		p.last, p.at = ask(), c.Now()
	}
	return p.last
}

// reach returns an error if kube-apiserver does not answer. It is asked without a token, which
// it may refuse.
func (k *kube) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	address := *k.base
	address.Path = strings.TrimSuffix(address.Path, "/") + "/readyz"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	response, err := k.client.Do(request)
	if err != nil {
		return errors.New("the API server does not answer")
	}
	defer drain(response)
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("the API server is not ready: it answers %d", response.StatusCode)
	}
	return nil
}
