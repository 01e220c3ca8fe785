// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"

	"github.com/go-logr/logr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/servingcert"
	"hoststatus.dev/hoststatus/webhook"
)

// The objects of the webhook, as config/webhook has them.
const (
	webhookConfiguration = "hoststatus-webhook"
	webhookService       = "hoststatus-webhook"
	webhookSecret        = "hoststatus-webhook-tls" //nolint:gosec // a name
)

// webhookServing is how the webhook is served: by which server, and with which
// certificate of its own, if any.
type webhookServing struct {
	server ctrlwebhook.Server
	own    *servingcert.Cert
}

// newWebhookServing returns nil if no webhook is to be served.
func newWebhookServing(restConfig *rest.Config, options *Options, log logr.Logger) (*webhookServing, error) {
	if options.WebhookBindAddress == "0" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(options.WebhookBindAddress)
	if err != nil {
		return nil, fmt.Errorf("--webhook-bind-address: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("--webhook-bind-address: %w", err)
	}
	serving := ctrlwebhook.Options{Host: host, Port: number, CertDir: options.WebhookCertDir, CertName: certFile, KeyName: keyFile}
	if options.WebhookCertDir != "" {
		return &webhookServing{server: ctrlwebhook.NewServer(serving)}, nil
	}
	own, err := newWebhookCert(restConfig, options.Namespace, log)
	if err != nil {
		return nil, err
	}
	// The server listens at once, and fails handshakes until there is a certificate.
	serving.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.GetCertificate = own.GetCertificate }}
	return &webhookServing{server: ctrlwebhook.NewServer(serving), own: own}, nil
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

// addWebhook lets mgr serve the webhook, and makes it ready only once it does.
func addWebhook(mgr ctrl.Manager, serving *webhookServing, monitor *heartbeat.Monitor, serversOn func(string) (int, error), options *Options) error {
	if serving == nil {
		return nil
	}
	webhook.Register(serving.server, webhook.Options{
		Cache: mgr.GetClient(), Live: mgr.GetAPIReader(), ServersOn: serversOn, Monitor: monitor,
		LeaseNamespaces: options.LeaseNamespaces, Scheme: mgr.GetScheme(),
	})
	if err := mgr.Add(serving.server); err != nil {
		return fmt.Errorf("adding the webhook: %w", err)
	}
	if err := mgr.AddReadyzCheck("webhook", serving.server.StartedChecker()); err != nil {
		return fmt.Errorf("adding the readiness probe: %w", err)
	}
	if serving.own == nil {
		return nil
	}
	if err := mgr.Add(&everywhere{serving.own.Run}); err != nil {
		return fmt.Errorf("adding the webhook's certificate: %w", err)
	}
	return nil
}

// everywhere is what runs in standbys too.
type everywhere struct{ run func(context.Context) }

// Start implements manager.Runnable.
func (e *everywhere) Start(ctx context.Context) error {
	e.run(ctx)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*everywhere) NeedLeaderElection() bool { return false }
