// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// By default it would wait for up to 1000 s, after an outage of some minutes for as
// long again.
func TestAWriteThatKeepsOnFailingIsTriedEverySecond(t *testing.T) {
	limiter := options().RateLimiter
	var last time.Duration
	for range 100 {
		last = limiter.When(reconcile.Request{})
	}
	if last != time.Second {
		t.Errorf("the 100th wait is %s", last)
	}
}
