// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// DefaultManifests writes, into dir, config/default with the webhook of a manager that
// serves on a port of localhost.
func DefaultManifests(root, dir, port string) error {
	patches := externalName("hoststatus-webhook", port) + `- target: {kind: ValidatingWebhookConfiguration, name: hoststatus-webhook}
  patch: |-
`
	for entry := range 3 {
		patches += fmt.Sprintf("    - {op: replace, path: /webhooks/%d/clientConfig/service/port, value: %s}\n", entry, port)
	}
	return writeOverlay(root, dir, "default", patches)
}

// waitForWebhook waits until the webhook warns about an unknown host.
func (f *Fleet) waitForWebhook(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	config, err := f.Cluster.AdminConfig()
	if err != nil {
		return err
	}
	var warned warned
	config.WarningHandlerWithContext = &warned
	c, err := NewClient(config)
	if err != nil {
		return err
	}
	return f.retry(ctx, func() error {
		server := &v1alpha1.Server{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "nobody"},
			Spec:       v1alpha1.ServerSpec{Host: "nowhere"},
		}
		if err := c.Create(ctx, server, client.DryRunAll); err != nil {
			return fmt.Errorf("asking the webhook: %w", err)
		}
		if !warned.Load() {
			return errors.New("the webhook does not warn")
		}
		return nil
	})
}

type warned struct{ atomic.Bool }

var _ rest.WarningHandlerWithContext = &warned{}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w *warned) HandleWarningHeaderWithContext(context.Context, int, string, string) { w.Store(true) }
