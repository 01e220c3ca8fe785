// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

// maxTerms is how many terms a selector can have: requirements, and the values of in
// and notin. Each server, and each change that a watch is sent, is compared with each.
const maxTerms = 512

// boundedSelectors refuses selectors of more than maxTerms. It counts the commas before
// the terms are read: authorization sends them to kube-apiserver with its question.
func boundedSelectors(next http.Handler, s runtime.NegotiatedSerializer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := checkSelectors(r); err != nil {
			refusals.WithLabelValues(refusedSelector).Inc()
			responsewriters.ErrorNegotiated(err, s, v1alpha1.SchemeGroupVersion, w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func checkSelectors(r *http.Request) error {
	if len(r.URL.RawQuery) <= maxTerms {
		return nil // Each term has a letter.
	}
	query := r.URL.Query()
	for _, parameter := range []string{"labelSelector", "fieldSelector"} {
		for _, selector := range query[parameter] {
			if n := strings.Count(selector, ",") + 1; n > maxTerms {
				return apierrors.NewBadRequest(fmt.Sprintf("%s: it has %d terms (requirements, and values of in and notin), and can have %d; "+
					"split it into several requests, or list with fewer and select what you need of the answer", parameter, n, maxTerms))
			}
		}
	}
	return nil
}
