// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"errors"
	"fmt"
	"net/http"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// behalf asks kube-apiserver on behalf of callers. It keeps client-go from asking again
// what was answered 429 or 5xx with Retry-After, which it would do up to ten times while
// the caller waits: the caller gets that answer, and decides.
type behalf struct {
	http.RoundTripper
	// yields lets others have the seat of the request until the answer begins, since
	// kube-apiserver may wait too, for priority and fairness or for a resourceVersion that
	// it does not have yet. The answer is read with the seat, which bounds the memory.
	yields bool
}

func forReads(next http.RoundTripper) http.RoundTripper { return behalf{next, true} }

// forReviews yields no seat: reviews are asked beside the work that has the seat.
func forReviews(next http.RoundTripper) http.RoundTripper { return behalf{next, false} }

// WrappedRoundTripper implements net.RoundTripperWrapper.
func (b behalf) WrappedRoundTripper() http.RoundTripper { return b.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b behalf) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	var seat listSeat
	if b.yields {
		seat = seatOf(ctx)
	}
	seat.Yield()
	response, err := b.RoundTripper.RoundTrip(r)
	broken := err != nil && ctx.Err() == nil && (utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err))
	if broken && r.Method == http.MethodGet {
		// For example, the API server behind the connection has stopped. client-go would wait
		// for a second before each of ten tries; one on another connection shows whether
		// there is an API server.
		response, err = b.RoundTripper.RoundTrip(r)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, final{err}
	}
	if err := seat.Resume(ctx); err != nil {
		return nil, errors.Join(err, response.Body.Close())
	}
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= http.StatusInternalServerError {
		response.Header.Del("Retry-After")
	}
	return response, nil
}

// final is an error that client-go does not look into, or it would try again.
type final struct{ err error }

func (f final) Error() string { return fmt.Sprintf("asking the API server: %v", f.err) }
