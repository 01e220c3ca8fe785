// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

const (
	// fieldManager owns what the plugin writes.
	fieldManager = "kubectl-hosts"
	// listPage is how many objects one request asks for.
	listPage = 500
)

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
	config, err := p.config.ToRESTConfig()
	// If nothing is configured, client-go still defaults to port 8080 of localhost.
	if kubeconfig, readErr := p.config.ToRawKubeConfigLoader().RawConfig(); clientcmd.IsEmptyConfig(err) ||
		err == nil && readErr == nil && clientcmdapi.IsConfigEmpty(&kubeconfig) && text(p.config.APIServer) == "" && config.Host == "http://localhost:8080" {
		return nil, errors.New("no cluster is configured; give --kubeconfig, set $KUBECONFIG or create ~/.kube/config")
	}
	if err != nil {
		return nil, err
	}
	config.UserAgent = fieldManager
	config.QPS, config.Burst = 50, 300
	config.WarningHandler = &serverWarnings{plugin: p}
	c := &cluster{now: p.Now, patience: cmp.Or(p.ManagerPatience, managerPatience), where: p.whereIs(config)}
	if c.now == nil {
		c.now = time.Now
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("registering the kinds: %w", err)
		}
	}
	// Without discovery the first request is already the one that is needed.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.SchemeGroupVersion.WithKind("ComputeService"), meta.RESTScopeRoot)
	mapper.Add(v1alpha1.SchemeGroupVersion.WithKind("Server"), meta.RESTScopeNamespace)
	mapper.Add(tenantv1alpha1.SchemeGroupVersion.WithKind("Server"), meta.RESTScopeNamespace)
	mapper.Add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), meta.RESTScopeNamespace)
	if c.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if c.raw, err = rawClient(config); err != nil {
		return nil, err
	}
	return c, nil
}

// whereIs names the cluster in errors.
func (p *plugin) whereIs(config *rest.Config) string {
	name := text(p.config.Context)
	if name == "" {
		if kubeconfig, err := p.config.ToRawKubeConfigLoader().RawConfig(); err == nil {
			name = kubeconfig.CurrentContext
		}
	}
	if name == "" {
		return config.Host
	}
	return fmt.Sprintf("%s (context %q)", config.Host, name)
}

// get returns one host.
func (c *cluster) get(ctx context.Context, name string) (*v1alpha1.ComputeService, error) {
	service := &v1alpha1.ComputeService{}
	err := c.Get(ctx, client.ObjectKey{Name: name}, service)
	if isNoSuchObject(err) {
		return nil, exitError{c.noSuchHost(ctx, name), ExitNotFound}
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
	for _, name := range unique(names) {
		service, err := c.get(ctx, name)
		if err != nil {
			return nil, err
		}
		services = append(services, *service)
	}
	if len(names) > 0 {
		return services, nil
	}
	err := eachPage(ctx, c, &v1alpha1.ComputeServiceList{}, func(page *v1alpha1.ComputeServiceList) {
		services = append(services, page.Items...)
	}, options...)
	if err != nil {
		return nil, c.explain(err, "list", "computeservices", "")
	}
	for i := range services {
		typed(&services[i])
	}
	slices.SortFunc(services, func(a, b v1alpha1.ComputeService) int { return compareNames(a.Name, b.Name) })
	return services, nil
}

// serversOn returns the servers of a host, of one namespace or of all.
func (c *cluster) serversOn(ctx context.Context, host, namespace string) ([]v1alpha1.Server, error) {
	var servers []v1alpha1.Server
	err := eachPage(ctx, c, &v1alpha1.ServerList{}, func(page *v1alpha1.ServerList) {
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

// eachPage lists page by page.
func eachPage[L client.ObjectList](ctx context.Context, c client.Reader, list L, take func(L), options ...client.ListOption) error {
	for {
		if err := c.List(ctx, list, append(options, client.Limit(listPage), client.Continue(list.GetContinue()))...); err != nil {
			return err
		}
		take(list)
		if list.GetContinue() == "" {
			return nil
		}
	}
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
	if like := similar(name, names); len(like) > 0 {
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
	if resource == "leases" {
		group = coordinationv1.GroupName
	}
	in := ""
	if namespace != "" {
		in = " in namespace " + namespace
	}
	var unanswered *url.Error
	full := schema.GroupResource{Group: group, Resource: resource}
	switch {
	case isForbiddenByRBAC(err, verb, resource):
		return fmt.Errorf("you lack the right to %s %s%s; ask for the ClusterRole %s (%w)", verb, full, in, roleFor(verb), err)
	case apierrors.IsNotFound(err) && !isNoSuchObject(err):
		return fmt.Errorf("hoststatus is not installed in the cluster at %s: it has no %s; check --context, or install hoststatus", where, full)
	case errors.As(err, &unanswered):
		return fmt.Errorf("no answer from the cluster at %s; check --context, and that the API server runs: %w", where, unanswered.Err)
	default:
		return err
	}
}

// isForbiddenByRBAC is true if a right is missing. A refusal by admission has a message
// of its own.
func isForbiddenByRBAC(err error, verb, resource string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), fmt.Sprintf("cannot %s resource %q", verb, resource))
}

// isNoSuchObject is true if the object does not exist, and false if the API does not:
// that 404 has no Status of the API.
func isNoSuchObject(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

func unique(names []string) []string {
	var out []string
	for _, name := range names {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}
