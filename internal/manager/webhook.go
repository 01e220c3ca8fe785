// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/go-logr/logr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/serving"
	"hoststatus.dev/hoststatus/internal/servingcert"
	"hoststatus.dev/hoststatus/webhook"
)

// The objects of the webhook, as config/webhook has them.
const (
	webhookConfiguration = "hoststatus-webhook"
	webhookService       = "hoststatus-webhook"
	webhookSecret        = "hoststatus-webhook-tls" // a name
)

// webhookServing is how the webhook is served: its server, and its certificate, which is
// its own or provided by somebody else.
type webhookServing struct {
	server   *serving.Server
	hooks    webhook.Registrar
	own      *servingcert.Cert
	provided *certwatcher.CertWatcher
}

// newWebhookServing returns nil if the webhook is off.
func newWebhookServing(restConfig *rest.Config, options *Options, log logr.Logger) (*webhookServing, error) {
	if options.WebhookBindAddress == "0" {
		return nil, nil
	}
	w, config := &webhookServing{}, &tls.Config{} // its oldest version is a flag
	options.TLS.Apply(config)
	var err error
	if options.WebhookCertDir != "" {
		w.provided, err = certwatcher.New(filepath.Join(options.WebhookCertDir, certFile), filepath.Join(options.WebhookCertDir, keyFile))
		if err != nil {
			return nil, fmt.Errorf("--webhook-cert-dir: %w", err)
		}
		config.GetCertificate = w.provided.GetCertificate
	} else {
		if w.own, err = newWebhookCert(restConfig, options.Namespace, log); err != nil {
			return nil, err
		}
		// The server listens at once, and fails handshakes until there is a certificate.
		config.GetCertificate = w.own.GetCertificate
	}
	paths := http.NewServeMux()
	// This server never starts: it provides the metrics for each path.
	w.hooks = ctrlwebhook.NewServer(ctrlwebhook.Options{WebhookMux: paths})
	w.server = serving.NewServer(serving.Options{
		Address: options.WebhookBindAddress, TLS: config, ShutdownDelay: options.ShutdownDelay,
		Handler: paths, Clock: clock.RealClock{}, Logger: log,
	})
	return w, nil
}

func newWebhookCert(restConfig *rest.Config, namespace string, log logr.Logger) (*servingcert.Cert, error) {
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("making the client for the webhook's Secret: %w", err)
	}
	objects, err := dynamic.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("making the client for the webhook's configuration: %w", err)
	}
	return servingcert.New(servingcert.Options{
		Client: client, Dynamic: objects, Namespace: namespace, Secret: webhookSecret,
		Names:  []string{webhookService + "." + namespace + ".svc"},
		Target: servingcert.ValidatingWebhookConfiguration(webhookConfiguration),
		Clock:  clock.RealClock{}, Logger: log.WithName("certificate"),
	}), nil
}

// addWebhook registers the webhook, and makes mgr ready only once it is served.
func addWebhook(mgr ctrl.Manager, w *webhookServing, monitor *heartbeat.Monitor, serversOn func(string) (int, error), options *Options) error {
	if w == nil {
		return nil
	}
	webhook.Register(w.hooks, webhook.Options{
		Cache: mgr.GetClient(), Live: mgr.GetAPIReader(), ServersOn: serversOn, Monitor: monitor,
		LeaseNamespaces: options.LeaseNamespaces, Scheme: mgr.GetScheme(),
	})
	if err := mgr.AddReadyzCheck("webhook", w.server.Ready); err != nil {
		return fmt.Errorf("adding the readiness probe: %w", err)
	}
	var certificate ctrlmanager.Runnable = w.provided
	if w.own != nil {
		certificate = &everywhere{w.own.Run}
	}
	if err := mgr.Add(certificate); err != nil {
		return fmt.Errorf("adding the webhook's certificate: %w", err)
	}
	return nil
}

// everywhere runs in standbys too.
type everywhere struct{ run func(context.Context) }

// Start implements manager.Runnable.
func (e *everywhere) Start(ctx context.Context) error {
	e.run(ctx)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*everywhere) NeedLeaderElection() bool { return false }
