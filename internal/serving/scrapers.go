// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
)

// reviewTimeout is how long kube-apiserver may take to say what a scraper may do.
const reviewTimeout = 5 * time.Second

// ForScrapers serves metrics at /metrics to whoever may get that URL. A process that may ask
// nothing about others lets the scraper's own token ask: may I? config has the address of
// kube-apiserver and how to trust it; credentials in it are not used. failed takes why it could
// not be asked.
func ForScrapers(config *rest.Config, metrics http.Handler, failed func(error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			http.Error(w, "send a bearer token with the right to get /metrics", http.StatusUnauthorized)
			return
		}
		allowed, err := mayScrape(r.Context(), config, token)
		switch {
		case apierrors.IsUnauthorized(err):
			http.Error(w, "the API server does not accept the token", http.StatusUnauthorized)
		case apierrors.IsForbidden(err), err == nil && !allowed:
			http.Error(w, "the right to get /metrics is missing", http.StatusForbidden)
		case err != nil:
			failed(err)
			http.Error(w, "the API server did not answer", http.StatusServiceUnavailable)
		default:
			metrics.ServeHTTP(w, r)
		}
	})
	return mux
}

func mayScrape(ctx context.Context, config *rest.Config, token string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	config = rest.AnonymousClientConfig(config)
	config.BearerToken = token
	c, err := authorizationclient.NewForConfig(config)
	if err != nil {
		return false, fmt.Errorf("making a client: %w", err)
	}
	review, err := c.SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("asking for the right to read metrics: %w", err)
	}
	return review.Status.Allowed, nil
}
