// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"os"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
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
	f.progress("Starting the tenant API")
	if s, ok := f.Installation.(shipped); ok {
		ports, err := controlplane.FreePorts(1)
		if err != nil {
			return err
		}
		f.tenantAPIPort = ports[0]
		if err := f.RegisterTenantAPI(ctx, s.root, f.tenantAPIPort); err != nil {
			return err
		}
	}
	config, err := f.Cluster.ConfigFor(TenantAPIUser, TenantAPIGroups...)
	if err != nil {
		return err
	}
	f.TenantAPI, err = f.start(Command{
		Binary: "tenant-apiserver", Name: "tenant-apiserver", Config: config,
		Args:      []string{leaseNamespaces, "--shutdown-delay=0s"},
		Addresses: []string{"--bind-address=127.0.0.1", "--secure-port=" + f.tenantAPIPort},
	})
	return err
}

// RegisterTenantAPI applies the manifests of the tenant API that are in root.
func (f *Fleet) RegisterTenantAPI(ctx context.Context, root, port string) error {
	if err := TenantAPIManifests(root, f.path("tenant-apiserver"), port); err != nil {
		return err
	}
	return f.Apply(ctx, f.path("tenant-apiserver"))
}

// WaitForTenantAPI waits until kube-apiserver reaches the tenant API, and kubectl
// finds it in discovery.
func (f *Fleet) WaitForTenantAPI(ctx context.Context) error {
	if out, err := f.Kubectl(ctx, "wait", "--for=condition=Available", "--timeout="+settleTimeout.String(),
		"apiservice/v1alpha1.tenant.hoststatus.dev").CombinedOutput(); err != nil {
		return fmt.Errorf("waiting for the tenant API: %w\n%s", err, out)
	}
	// kubectl uses its copy of discovery for six hours, and in one from before the API
	// was there `servers` are the custom resources.
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
