// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// complaintInterval is how often failures of one route are logged: whoever can send requests
// can cause them.
const complaintInterval = 10 * time.Second

// complaints logs failures, and how many were not logged since the line before.
type complaints struct {
	log   logr.Logger
	clock clock.PassiveClock

	mu    sync.Mutex
	state map[string]complaint
}

// complaint is when a failure of a route was logged last, and how many came since.
type complaint struct {
	at    time.Time
	since int
}

// report logs that a request of a route, of which there are few, has failed.
func (c *complaints) report(route string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, known := c.state[route]
	if known && c.clock.Since(last.at) < complaintInterval {
		last.since++
		c.state[route] = last
		return
	}
	if c.state == nil {
		c.state = map[string]complaint{}
	}
	c.state[route] = complaint{at: c.clock.Now()}
	c.log.Error(err, "Asking kube-apiserver failed", "route", route, "notLogged", last.since)
}
