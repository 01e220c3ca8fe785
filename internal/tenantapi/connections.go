// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// connectionAge is after how long a connection should take no new requests. kube-apiserver
	// keeps one for all its users for as long as it works, so that after a rollout it would
	// stay with a replica on another node, although the Service prefers the one on its own.
	connectionAge = time.Minute
	// connectionsKnown is how many connections are remembered.
	connectionsKnown = 1024
)

// connections asks clients to open a new connection from time to time.
type connections struct {
	clock clock.PassiveClock

	mu sync.Mutex
	// since is when a connection was first seen, by the client's address and port.
	since map[string]time.Time
}

func newConnections(c clock.PassiveClock) *connections {
	return &connections{clock: c, since: map[string]time.Time{}}
}

// handler adds the request for a new connection to answers on an old one. What is open on
// that goes on: Go's HTTP/2 server sends GOAWAY then, and closes it after the last answer.
func (c *connections) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.old(r.RemoteAddr) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// old reports whether the connection from an address is old. It does so once, and then takes
// the connection for a new one.
func (c *connections) old(address string) bool {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	since, known := c.since[address]
	switch {
	case known && now.Sub(since) >= connectionAge:
		delete(c.since, address)
		return true
	case known:
		return false
	case len(c.since) >= connectionsKnown:
		// Most of them have been closed, which nobody reports here.
		clear(c.since)
	}
	c.since[address] = now
	return false
}
