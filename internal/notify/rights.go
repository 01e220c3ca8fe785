// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"fmt"
	"maps"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	if apierrors.IsUnauthorized(err) {
		return false, nil // The account is gone, or its token.
	}
	if err != nil {
		return false, fmt.Errorf("asking for the right to %s servers: %w", verb, err)
	}
	return review.Status.Allowed, nil
}

// visible reports what of host status the notifier may see in a namespace: all, or it while it
// is UNKNOWN.
func visible(ctx context.Context, a asker, namespace string) (all, unknown bool, err error) {
	if all, err = a.may(ctx, "get", tenantv1alpha1.SubresourceStatus, namespace); all || err != nil {
		return all, false, err
	}
	unknown, err = a.may(ctx, "get", tenantv1alpha1.SubresourceUnknownStatus, namespace)
	return false, unknown, err
}

// clearDoubts finds out of servers whose host status was UNKNOWN and is not shown any more
// which it is: that they have left UNKNOWN, which is news, or that they may not be seen any
// more, of which nothing is said. It does the same for what was found gone. While something
// that is gone is not told yet, it asks again and again: nothing that is seen shows any more
// that the right to see it has gone, too.
func (n *notifier) clearDoubts(ctx context.Context, grants asker) {
	ticker := n.clock.NewTicker(recheckInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-n.doubt:
		case <-ticker.C():
			n.doubtEnded()
		}
		if n.answer(ctx, grants) && pause(ctx, n.clock, recheckInterval) {
			wake(n.doubt)
		}
	}
}

// doubtEnded lets the right be asked for to see what is gone and not told yet.
func (n *notifier) doubtEnded() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range n.boxes {
		b.ended(func(namespace string) { n.hidden[namespace] = true })
	}
}

// answer asks what there is to ask, and reports whether some of it was not answered.
func (n *notifier) answer(ctx context.Context, grants asker) (unanswered bool) {
	n.mu.Lock()
	doubts, endings := map[string][]types.NamespacedName{}, maps.Clone(n.endings)
	namespaces := map[string]bool{}
	for name := range n.doubts {
		doubts[name.Namespace] = append(doubts[name.Namespace], name)
		namespaces[name.Namespace] = true
	}
	for e := range n.endings {
		in, _, _ := parseSubject(e.key.subject)
		namespaces[in] = true
	}
	for namespace := range n.hidden {
		namespaces[namespace] = true
	}
	clear(n.doubts)
	clear(n.hidden)
	clear(n.endings)
	n.mu.Unlock()
	for namespace := range namespaces {
		all, unknown, err := visible(ctx, grants, namespace)
		n.mu.Lock()
		if err != nil {
			n.hidden[namespace] = true
		} else if !all && !unknown {
			// Also what is deleted and not told yet.
			for _, b := range n.boxes {
				b.hideEnded(namespace)
			}
		}
		for _, name := range doubts[namespace] {
			switch {
			case err != nil:
				n.doubts[name] = true
			case unknown:
				n.engine.leftUnknown(name, n.clock.Now())
				n.wakeTimer()
			}
		}
		for e, last := range endings {
			switch in, _, _ := parseSubject(e.key.subject); {
			case in != namespace:
			case err != nil:
				n.endings[e] = last
			default:
				n.finish(e, last, all, unknown)
			}
		}
		n.mu.Unlock()
		unanswered = unanswered || err != nil
	}
	return unanswered
}
