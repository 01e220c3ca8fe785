// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

// rightsPatience is how long kube-apiserver may take to hear of a binding.
const rightsPatience = 30 * time.Second

// WaitForRights returns once kube-apiserver grants a user what ClusterRoles that were just bound
// to it say, in a namespace or, if that is "", everywhere. kube-apiserver hears of bindings by a
// watch, so that who was just given a role may still be refused.
func (c *Cluster) WaitForRights(ctx context.Context, user *rest.Config, namespace string, clusterRoles ...string) error {
	config, err := c.AdminConfig()
	if err != nil {
		return err
	}
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making the administrator's client: %w", err)
	}
	asUser, err := kubernetes.NewForConfig(user)
	if err != nil {
		return fmt.Errorf("making the user's client: %w", err)
	}
	return expect.Poll(ctx, rightsPatience, func() error {
		// What is granted everywhere is granted in each namespace.
		review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: cmp.Or(namespace, metav1.NamespaceDefault)}}
		review, err := asUser.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("asking what the user may do: %w", err)
		}
		for _, name := range clusterRoles {
			role, err := admin.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("reading the ClusterRole %s: %w", name, err)
			}
			for _, rule := range role.Rules {
				if !grants(review.Status, rule) {
					return fmt.Errorf("the ClusterRole %s is bound, and kube-apiserver does not grant %v yet", name, rule)
				}
			}
		}
		return nil
	})
}

// grants reports whether a rule is among those that kube-apiserver applies, which it lists as
// they are in the roles.
func grants(granted authorizationv1.SubjectRulesReviewStatus, rule rbacv1.PolicyRule) bool {
	if len(rule.NonResourceURLs) > 0 {
		return slices.ContainsFunc(granted.NonResourceRules, func(r authorizationv1.NonResourceRule) bool {
			return slices.Equal(r.NonResourceURLs, rule.NonResourceURLs) && slices.Equal(r.Verbs, rule.Verbs)
		})
	}
	return slices.ContainsFunc(granted.ResourceRules, func(r authorizationv1.ResourceRule) bool {
		return slices.Equal(r.APIGroups, rule.APIGroups) && slices.Equal(r.Resources, rule.Resources) &&
			slices.Equal(r.ResourceNames, rule.ResourceNames) && slices.Equal(r.Verbs, rule.Verbs)
	})
}
