// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// The resources of the plugin.
const (
	servers = "servers"
	answers = "maintenanceanswers"
)

// groups has the API group of each resource, and roles the shipped ClusterRole that gives
// the rights on it.
var (
	groups = map[string]string{servers: tenantv1alpha1.SchemeGroupVersion.Group, answers: ownerv1alpha1.SchemeGroupVersion.Group}
	roles  = map[string]string{servers: "hoststatus-server-viewer", answers: "hoststatus-maintenance-answerer"}
)

// hostStatusRole is the ClusterRole that shows host status.
const hostStatusRole = "hoststatus-host-status-viewer"

// Grant is how much of host status the caller may see.
type Grant string

// The grants.
const (
	GrantAll          Grant = "All"
	GrantWhileUnknown Grant = "WhileUnknown"
	GrantNone         Grant = "None"
	// GrantNotKnown: the API server did not answer which it is.
	GrantNotKnown Grant = "NotKnown"
)

// inNamespace ends a sentence about a right; an empty namespace is all of them.
func inNamespace(namespace string) string {
	if namespace == "" {
		return "in all namespaces"
	}
	return "in namespace " + namespace
}

// lacksHostStatus names the right without which host status is not shown.
func lacksHostStatus(namespace string) string {
	return fmt.Sprintf("you lack the right to get %s.%s/%s %s; ask for the ClusterRole %s",
		servers, tenantv1alpha1.SchemeGroupVersion.Group, tenantv1alpha1.SubresourceStatus, inNamespace(namespace), hostStatusRole)
}

// explain adds the cause of an error, and what to do. where names the cluster; chosen says that
// the caller has named the namespace.
func explain(err error, where, verb, resource, namespace string, chosen bool) error {
	full := resource + "." + groups[resource]
	switch {
	case err == nil:
		return nil
	case kubectlplugin.IsForbiddenByRBAC(err, verb, resource) && namespace == "":
		return fmt.Errorf("you lack the right to %s %s %s; name one with --namespace, or ask for the ClusterRole %s (%w)", verb, full, inNamespace(""), roles[resource], err)
	case kubectlplugin.IsForbiddenByRBAC(err, verb, resource) && resource == servers && !chosen:
		return fmt.Errorf("you lack the right to %s %s %s; if your servers are in another one, name it with --namespace, or else ask for the ClusterRole %s (%w)", verb, full, inNamespace(namespace), roles[resource], err)
	case kubectlplugin.IsForbiddenByRBAC(err, verb, resource):
		return fmt.Errorf("you lack the right to %s %s %s; ask for the ClusterRole %s (%w)", verb, full, inNamespace(namespace), roles[resource], err)
	case apierrors.IsNotFound(err) && !kubectlplugin.IsNoSuchObject(err):
		return fmt.Errorf("the cluster at %s does not serve %s; check --context, or ask the platform team whether hoststatus is installed", where, full)
	case apierrors.IsServiceUnavailable(err):
		return fmt.Errorf("the cluster at %s does not serve %s at present; try again later, or ask the platform team (%w)", where, full, err)
	case errors.Is(err, context.Canceled):
		return kubectlplugin.Interrupted(where)
	case kubectlplugin.Unanswered(err) != nil:
		return fmt.Errorf("no answer from the cluster at %s; check --context, and that the API server runs: %w", where, kubectlplugin.Unanswered(err))
	default:
		return err
	}
}
