// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// fieldManager owns what the plugin writes.
const fieldManager = "kubectl-servers"

// cluster is a connection to the API server.
type cluster struct {
	client.WithWatch
	now func() time.Time
	// raw requests what is not one of our objects.
	raw rest.Interface
	// where names the cluster in errors: its address and the context.
	where string
	// namespaceFlag is what a command that is suggested needs behind it; empty if the caller has
	// not named the namespace.
	namespaceFlag string
}

// connect makes a client. It sends no request yet.
func (p *plugin) connect() (*cluster, error) {
	config, where, err := p.RESTConfig()
	if err != nil {
		return nil, err
	}
	c := &cluster{now: p.Clock(), where: where, namespaceFlag: p.namespaceFlag()}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{tenantv1alpha1.AddToScheme, ownerv1alpha1.AddToScheme, authorizationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("registering the kinds: %w", err)
		}
	}
	// Without discovery the first request is already the one that is needed, and servers
	// never means the custom resource.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(tenantv1alpha1.SchemeGroupVersion.WithKind("Server"), meta.RESTScopeNamespace)
	mapper.Add(ownerv1alpha1.SchemeGroupVersion.WithKind("MaintenanceAnswer"), meta.RESTScopeNamespace)
	mapper.Add(authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), meta.RESTScopeRoot)
	if c.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if c.raw, err = kubectlplugin.RawClient(config, tenantv1alpha1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *cluster) explain(err error, verb, resource, namespace string) error {
	return explain(err, c.where, verb, resource, namespace, c.namespaceFlag != "")
}

// get returns one server.
func (c *cluster) get(ctx context.Context, key client.ObjectKey) (*tenantv1alpha1.Server, error) {
	server := &tenantv1alpha1.Server{}
	err := c.Get(ctx, key, server)
	if kubectlplugin.IsNoSuchObject(err) {
		return nil, kubectlplugin.WithCode(c.noSuchServer(ctx, key), ExitNotFound)
	}
	if err != nil {
		return nil, c.explain(err, "get", servers, key.Namespace)
	}
	typed(server)
	return server, nil
}

// all returns the servers of a namespace, or of all, in the order of their names.
func (c *cluster) all(ctx context.Context, namespace string, options ...client.ListOption) ([]tenantv1alpha1.Server, error) {
	var found []tenantv1alpha1.Server
	err := kubectlplugin.EachPage(ctx, c, &tenantv1alpha1.ServerList{}, func(page *tenantv1alpha1.ServerList) {
		found = append(found, page.Items...)
	}, append(options, client.InNamespace(namespace))...)
	if err != nil {
		return nil, c.explain(err, "list", servers, namespace)
	}
	for i := range found {
		typed(&found[i])
	}
	slices.SortFunc(found, func(a, b tenantv1alpha1.Server) int {
		if a.Namespace != b.Namespace {
			return kubectlplugin.CompareNames(a.Namespace, b.Namespace)
		}
		return kubectlplugin.CompareNames(a.Name, b.Name)
	})
	return found, nil
}

// typed sets the kind, which decoding leaves out and printing needs.
func typed(server *tenantv1alpha1.Server) {
	server.SetGroupVersionKind(tenantv1alpha1.SchemeGroupVersion.WithKind("Server"))
}

// noSuchServer is the error for a server that does not exist. It lists similar names.
func (c *cluster) noSuchServer(ctx context.Context, key client.ObjectKey) error {
	found, err := c.all(ctx, key.Namespace)
	if err != nil {
		return fmt.Errorf("there is no server %q in namespace %s", key.Name, key.Namespace)
	}
	names := make([]string, len(found))
	for i := range found {
		names[i] = found[i].Name
	}
	return noSuchServer(key.Name, key.Namespace, c.namespaceFlag, names)
}

func noSuchServer(name, namespace, namespaceFlag string, names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("there is no server %q in namespace %s, which has no servers; check --namespace", name, namespace)
	}
	if like := kubectlplugin.Similar(name, names); len(like) > 0 {
		return fmt.Errorf("there is no server %q in namespace %s; similar names: %s", name, namespace, strings.Join(like, ", "))
	}
	return fmt.Errorf("there is no server %q in namespace %s; 'kubectl servers list%s' lists all %d", name, namespace, namespaceFlag, len(names))
}

// answer reads the answer for a server. It returns nil if there is none.
func (c *cluster) answer(ctx context.Context, key client.ObjectKey) (*ownerv1alpha1.MaintenanceAnswer, error) {
	answer := &ownerv1alpha1.MaintenanceAnswer{}
	err := c.Get(ctx, key, answer)
	if kubectlplugin.IsNoSuchObject(err) {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain(err, "get", answers, key.Namespace)
	}
	return answer, nil
}

// grant asks the API server how much of a server's host status the caller may see.
func (c *cluster) grant(ctx context.Context, key client.ObjectKey) Grant {
	for _, ask := range []struct {
		subresource string
		grant       Grant
	}{
		{tenantv1alpha1.SubresourceStatus, GrantAll},
		{tenantv1alpha1.SubresourceUnknownStatus, GrantWhileUnknown},
	} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: "get", Group: tenantv1alpha1.SchemeGroupVersion.Group, Version: tenantv1alpha1.SchemeGroupVersion.Version,
				Resource: servers, Subresource: ask.subresource, Namespace: key.Namespace, Name: key.Name,
			},
		}}
		if err := c.Create(ctx, review); err != nil {
			return GrantNotKnown
		}
		if review.Status.Allowed {
			return ask.grant
		}
	}
	return GrantNone
}
