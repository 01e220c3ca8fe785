// SPDX-License-Identifier: Apache-2.0

// Package hostsfirst orders the manager's writes: while many hosts are written, those of the
// servers on them wait. Owners see a host's status as soon as that is written, through the
// owners' view, and the copies in its servers, thousands of them, would only be in the way.
package hostsfirst

import (
	"context"
	"sync"
	"time"
)

const (
	// Servers is how many servers are written at once while no host is.
	Servers = 16
	// patience is how long one server waits for hosts, which may be hard to write.
	patience = 2 * time.Second
)

// Gate counts the writes that are on their way. Hosts and servers share the Servers places: a
// host takes one whether or not it is free, a server only a free one. One server may always
// be written, because the owners' view goes on with what the watch of the servers brings.
type Gate struct {
	mu             sync.Mutex
	hosts, servers int
	// ended is closed, and another made, when a write ends.
	ended chan struct{}
}

// New returns a Gate through which nothing is on its way.
func New() *Gate { return &Gate{ended: make(chan struct{})} }

// Host begins to write a host, which ends with done.
func (g *Gate) Host() (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hosts++
	return func() { g.end(&g.hosts) }
}

// Server waits until a server may be written, for as long as patience lasts and ctx does not
// end. The write ends with done.
func (g *Gate) Server(ctx context.Context) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.full() {
		return g.begin()
	}
	waited := time.NewTimer(patience)
	defer waited.Stop()
	for g.full() {
		ended := g.ended
		g.mu.Unlock()
		over := false
		select {
		case <-ended:
		case <-waited.C:
			over = true
		case <-ctx.Done():
			over = true
		}
		g.mu.Lock()
		if over {
			break
		}
	}
	return g.begin()
}

func (g *Gate) full() bool { return g.servers > 0 && g.hosts+g.servers >= Servers }

func (g *Gate) begin() (done func()) {
	g.servers++
	return func() { g.end(&g.servers) }
}

func (g *Gate) end(count *int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*count--
	close(g.ended)
	g.ended = make(chan struct{})
}
