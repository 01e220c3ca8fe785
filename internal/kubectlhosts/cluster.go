// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// fieldManager owns what the plugin writes.
const fieldManager = "kubectl-hosts"

// cluster is a connection to the API server.
type cluster struct {
	client.WithWatch
	now func() time.Time
	// patience is how long a stale canary is watched for a renewal.
	patience time.Duration
	// raw requests what is not one of our objects.
	raw rest.Interface
	// where names the cluster in errors: its address and the context.
	where string
}

// connect makes a client. It sends no request yet.
func (p *plugin) connect() (*cluster, error) {
	config, where, err := p.RESTConfig()
	if err != nil {
		return nil, err
	}
	c := &cluster{now: p.Clock(), patience: cmp.Or(p.ManagerPatience, managerPatience), where: where}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, ownerv1alpha1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("registering the kinds: %w", err)
		}
	}
	// Without discovery the first request is already the one that is needed.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.SchemeGroupVersion.WithKind("ComputeService"), meta.RESTScopeRoot)
	mapper.Add(v1alpha1.SchemeGroupVersion.WithKind("Server"), meta.RESTScopeNamespace)
	mapper.Add(tenantv1alpha1.SchemeGroupVersion.WithKind("Server"), meta.RESTScopeNamespace)
	mapper.Add(ownerv1alpha1.SchemeGroupVersion.WithKind("MaintenanceAnswer"), meta.RESTScopeNamespace)
	mapper.Add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), meta.RESTScopeNamespace)
	if c.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if c.raw, err = kubectlplugin.RawClient(config, v1alpha1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	return c, nil
}

// get returns one host.
func (c *cluster) get(ctx context.Context, name string) (*v1alpha1.ComputeService, error) {
	service := &v1alpha1.ComputeService{}
	err := c.Get(ctx, client.ObjectKey{Name: name}, service)
	if kubectlplugin.IsNoSuchObject(err) {
		return nil, kubectlplugin.WithCode(c.noSuchHost(ctx, name), ExitNotFound)
	}
	if err != nil {
		return nil, c.explain(err, "get", "computeservices", "")
	}
	typed(service)
	return service, nil
}

// all returns the named hosts, or all that match options if none is named.
func (c *cluster) all(ctx context.Context, names []string, options ...client.ListOption) ([]v1alpha1.ComputeService, error) {
	var services []v1alpha1.ComputeService
	for _, name := range kubectlplugin.Unique(names) {
		service, err := c.get(ctx, name)
		if err != nil {
			return nil, err
		}
		services = append(services, *service)
	}
	if len(names) > 0 {
		return services, nil
	}
	err := kubectlplugin.EachPage(ctx, c, &v1alpha1.ComputeServiceList{}, func(page *v1alpha1.ComputeServiceList) {
		services = append(services, page.Items...)
	}, options...)
	if err != nil {
		return nil, c.explain(err, "list", "computeservices", "")
	}
	for i := range services {
		typed(&services[i])
	}
	slices.SortFunc(services, func(a, b v1alpha1.ComputeService) int { return kubectlplugin.CompareNames(a.Name, b.Name) })
	return services, nil
}

// serversOn returns the servers of a host, of one namespace or of all.
func (c *cluster) serversOn(ctx context.Context, host, namespace string) ([]v1alpha1.Server, error) {
	var servers []v1alpha1.Server
	err := kubectlplugin.EachPage(ctx, c, &v1alpha1.ServerList{}, func(page *v1alpha1.ServerList) {
		servers = append(servers, page.Items...)
	}, client.InNamespace(namespace), client.MatchingFields{v1alpha1.ServerHostField: host})
	if err != nil {
		return nil, c.explain(err, "list", "servers", namespace)
	}
	return servers, nil
}

// lease reads a Lease. It returns nil if there is none.
func (c *cluster) lease(ctx context.Context, key client.ObjectKey) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{}
	err := c.Get(ctx, key, lease)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain(err, "get", "leases", key.Namespace)
	}
	return lease, nil
}

// typed sets the kind, which decoding leaves out and printing needs.
func typed(service *v1alpha1.ComputeService) {
	service.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("ComputeService"))
}

// noSuchHost is the error for a host that does not exist. It lists similar names.
func (c *cluster) noSuchHost(ctx context.Context, name string) error {
	services, err := c.all(ctx, nil)
	if err != nil {
		return fmt.Errorf("there is no host %q", name)
	}
	if len(services) == 0 {
		return fmt.Errorf("there is no host %q; the cluster has no hosts", name)
	}
	var names []string
	for _, s := range services {
		names = append(names, s.Name)
	}
	if like := kubectlplugin.Similar(name, names); len(like) > 0 {
		return fmt.Errorf("there is no host %q; similar names: %s", name, strings.Join(like, ", "))
	}
	return fmt.Errorf("there is no host %q; 'kubectl hosts list' lists all %d", name, len(names))
}

// roleFor names the shipped role that grants a right.
func roleFor(verb string) string {
	if verb == "patch" {
		return "hoststatus-fleet-operator"
	}
	return "hoststatus-fleet-viewer"
}

// explain adds the cause of an error, and what to do.
func (c *cluster) explain(err error, verb, resource, namespace string) error {
	return explain(err, c.where, verb, resource, namespace)
}

func explain(err error, where, verb, resource, namespace string) error {
	group := v1alpha1.SchemeGroupVersion.Group
	switch resource {
	case "leases":
		group = coordinationv1.GroupName
	case "maintenanceanswers":
		group = ownerv1alpha1.SchemeGroupVersion.Group
	}
	in := ""
	if namespace != "" {
		in = " in namespace " + namespace
	}
	full := schema.GroupResource{Group: group, Resource: resource}
	switch {
	case errors.Is(err, context.Canceled):
		return kubectlplugin.Interrupted(where)
	case kubectlplugin.IsForbiddenByRBAC(err, verb, resource):
		return fmt.Errorf("you lack the right to %s %s%s; ask for the ClusterRole %s (%w)", verb, full, in, roleFor(verb), err)
	case apierrors.IsNotFound(err) && !kubectlplugin.IsNoSuchObject(err):
		return fmt.Errorf("hoststatus is not installed in the cluster at %s: it has no %s; check --context, or install hoststatus", where, full)
	case kubectlplugin.Unanswered(err) != nil:
		return fmt.Errorf("no answer from the cluster at %s; check --context, and that the API server runs: %w", where, kubectlplugin.Unanswered(err))
	default:
		return err
	}
}
