// SPDX-License-Identifier: Apache-2.0

package devfleet

import (
	"context"
	"fmt"
	"os"

	"hoststatus.dev/hoststatus/internal/devcluster"
)

// TenantAPIUser is the service account of the tenant API server, and
// TenantAPIGroups are its groups.
const TenantAPIUser = "system:serviceaccount:hoststatus-system:hoststatus-tenant-apiserver"

// TenantAPIGroups are the groups of TenantAPIUser.
var TenantAPIGroups = []string{"system:serviceaccounts", "system:serviceaccounts:hoststatus-system"}

// TenantAPIManifests writes, into dir, the manifests by which kube-apiserver finds a
// tenant API server on a port of localhost.
func TenantAPIManifests(root, dir, port string) error {
	return writeOverlay(root, dir, "tenant-apiserver", externalName("hoststatus-tenant-apiserver", port)+fmt.Sprintf(`- target: {kind: APIService, name: v1alpha1.tenant.hoststatus.dev}
  patch: |-
    - {op: replace, path: /spec/service/port, value: %s}
`, port))
}

// StartTenantAPI registers and starts the tenant API.
func (f *Fleet) StartTenantAPI(ctx context.Context) error {
	f.say("Starting the tenant API")
	root, err := devcluster.RepositoryRoot()
	if err != nil {
		return err
	}
	ports, err := devcluster.FreePorts(1)
	if err != nil {
		return err
	}
	if err := TenantAPIManifests(root, f.path("tenant-apiserver"), ports[0]); err != nil {
		return err
	}
	if out, err := f.Kubectl(ctx, "apply", "--server-side", "-k", f.path("tenant-apiserver")).CombinedOutput(); err != nil {
		return fmt.Errorf("registering the tenant API: %w\n%s", err, out)
	}
	config, err := f.Cluster.ConfigFor(TenantAPIUser, TenantAPIGroups...)
	if err != nil {
		return err
	}
	f.TenantAPI, err = f.process("tenant-apiserver", "tenant-apiserver", config,
		leaseNamespaces, "--bind-address=127.0.0.1", "--secure-port="+ports[0], "--shutdown-delay=0s")
	return err
}

// WaitForTenantAPI waits until kube-apiserver reaches the tenant API, and kubectl
// finds it in discovery.
func (f *Fleet) WaitForTenantAPI(ctx context.Context) error {
	if out, err := f.Kubectl(ctx, "wait", "--for=condition=Available", "--timeout="+settleTimeout.String(),
		"apiservice/v1alpha1.tenant.hoststatus.dev").CombinedOutput(); err != nil {
		return fmt.Errorf("waiting for the tenant API: %w\n%s", err, out)
	}
	// kubectl believes its copy of discovery for six hours, and what it read before
	// the API was there says that `servers` are the custom resources.
	if err := os.RemoveAll(f.path(".kube", "cache", "discovery")); err != nil {
		return fmt.Errorf("removing kubectl's copy of discovery: %w", err)
	}
	return f.retry(ctx, func() error {
		if out, err := f.Kubectl(ctx, "get", "servers.tenant.hoststatus.dev", "-A").CombinedOutput(); err != nil {
			return fmt.Errorf("reading the tenant API: %w\n%s", err, out)
		}
		return nil
	})
}
