// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

// askTimeout is how long an answer about a right may take.
const askTimeout = 5 * time.Second

// asker asks whether the notifier has a right on servers of the owners' view, in a namespace
// or, with "", in all.
type asker interface {
	may(ctx context.Context, verb, subresource, namespace string) (bool, error)
}

// reviews asks kube-apiserver.
type reviews struct {
	client authorizationclient.SelfSubjectAccessReviewsGetter
}

// may implements asker.
func (r reviews) may(ctx context.Context, verb, subresource, namespace string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	review, err := r.client.SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: tenantv1alpha1.SchemeGroupVersion.Group, Version: tenantv1alpha1.SchemeGroupVersion.Version,
			Resource: "servers", Subresource: subresource, Verb: verb, Namespace: namespace,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("asking for the right to %s servers: %w", verb, err)
	}
	return review.Status.Allowed, nil
}

// onlyUnknown reports whether the notifier may see host status in a namespace only while it is
// UNKNOWN.
func onlyUnknown(ctx context.Context, a asker, namespace string) (bool, error) {
	all, err := a.may(ctx, "get", tenantv1alpha1.SubresourceStatus, namespace)
	if all || err != nil {
		return false, err
	}
	return a.may(ctx, "get", tenantv1alpha1.SubresourceUnknownStatus, namespace)
}

// clearDoubts finds out of servers whose host status was UNKNOWN and is not shown any more
// which it is: that they have left UNKNOWN, which is news, or that they may not be seen any
// more, of which nothing is said.
func (n *notifier) clearDoubts(ctx context.Context, grants asker) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-n.doubt:
		}
		n.mu.Lock()
		byNamespace := map[string][]types.NamespacedName{}
		for name := range n.doubts {
			byNamespace[name.Namespace] = append(byNamespace[name.Namespace], name)
		}
		clear(n.doubts)
		n.mu.Unlock()
		unanswered := false
		for namespace, names := range byNamespace {
			only, err := onlyUnknown(ctx, grants, namespace)
			n.mu.Lock()
			for _, name := range names {
				switch {
				case err != nil:
					n.doubts[name] = true
					unanswered = true
				case only:
					n.engine.leftUnknown(name, n.clock.Now())
				}
			}
			n.mu.Unlock()
		}
		if unanswered {
			timer := n.clock.NewTimer(recheckInterval)
			select {
			case <-ctx.Done():
			case <-timer.C():
				wake(n.doubt)
			}
			timer.Stop()
		}
	}
}
