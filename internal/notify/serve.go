// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"hoststatus.dev/hoststatus/internal/serving"
)

// The bounds of /metrics and the probes.
const (
	maxConnections = 64
	maxHeader      = 16 << 10
	headerTimeout  = 5 * time.Second
	answerTimeout  = 15 * time.Second
)

// serve serves /metrics and the probes until ctx ends.
func (n *notifier) serve(ctx context.Context, running *errgroup.Group, config *rest.Config, options *Options, metrics *prometheus.Registry) error {
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	health.HandleFunc("GET /readyz", n.ready)
	if err := n.listen(ctx, running, "probes", "health-probe-bind-address", options.HealthProbeBindAddress, health, nil); err != nil {
		return err
	}
	if options.MetricsBindAddress == "0" {
		return nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	options.TLS.Apply(secure)
	if options.CertDir == "" {
		cert, key, err := certutil.GenerateSelfSignedCertKey("hoststatus-notifier", nil, nil)
		if err != nil {
			return fmt.Errorf("making a certificate: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("making a certificate: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	} else {
		certificate, err := certwatcher.New(filepath.Join(options.CertDir, certFile), filepath.Join(options.CertDir, keyFile))
		if err != nil {
			return fmt.Errorf("--cert-dir: %w", err)
		}
		secure.GetCertificate = certificate.GetCertificate
		running.Go(func() error { return certificate.Start(ctx) })
	}
	handler := serving.ForScrapers(config, promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}), func(err error) {
		n.log.V(1).Info("Asking about the right to read metrics failed", "error", err.Error())
	})
	return n.listen(ctx, running, "metrics", "metrics-bind-address", options.MetricsBindAddress, handler, secure)
}

// listen serves one address until ctx ends.
func (n *notifier) listen(ctx context.Context, running *errgroup.Group, what, flag, address string, handler http.Handler, secure *tls.Config) error {
	if address == "0" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	n.log.Info("Serving", "what", what, "address", listener.Addr().String())
	listener = serving.Bounded(listener, maxConnections, func() {})
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler: serving.WithFairQueue(handler), Protocols: protocols,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: serving.ErrorLog(n.log),
	}
	running.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving %s: %w", what, err)
		}
		return nil
	})
	running.Go(func() error {
		<-ctx.Done()
		_ = server.Close()
		return nil
	})
	return nil
}

// ready serves /readyz: it is ready once it knows of each namespace what there is to see, if
// only nothing. A sink that fails does not make it less ready: nobody sends it anything.
func (n *notifier) ready(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.scopes {
		if !s.answered() {
			http.Error(w, "servers are not known yet in namespace "+s.where(), http.StatusServiceUnavailable)
			return
		}
	}
	_, _ = w.Write([]byte("ok"))
}
