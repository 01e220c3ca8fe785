// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ownersView is the APIService by which kube-apiserver finds the owners' view.
const ownersView = "v1alpha1.tenant.hoststatus.dev"

// ownersViewHint warns if the owners' view is not available: for the name servers kubectl
// then finds the custom resource, and remembers that. It returns "" if the view is
// available, if there is none, and if the caller may not read the APIService.
func (c *cluster) ownersViewHint(ctx context.Context) string {
	body, err := c.raw.Get().AbsPath("apis", "apiregistration.k8s.io", "v1", "apiservices", ownersView).Do(ctx).Raw()
	if err != nil {
		return ""
	}
	var service struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := json.Unmarshal(body, &service); err != nil {
		return ""
	}
	for _, condition := range service.Status.Conditions {
		if condition.Type == "Available" && condition.Status != metav1.ConditionTrue {
			return fmt.Sprintf("the owners' view is not available (APIService %s: %s). Until it is, 'kubectl get servers' gets the custom resources: "+
				"you see another table, and owners are refused. 'kubectl get servers.tenant.hoststatus.dev' always gets the view, and 'kubectl get servers.compute' the custom resources.",
				ownersView, condition.Reason)
		}
	}
	return ""
}
