// SPDX-License-Identifier: Apache-2.0

// Package hostsfirst orders the manager's writes: while many hosts are written, and for a
// moment after any is, the servers on them wait. Owners see a host's status as soon as that is
// written, through the owners' view, and the copies in its servers, thousands of them, would
// take from the view what it needs to tell them.
package hostsfirst

import (
	"context"
	"sync"
	"time"
)

const (
	// Servers is how many servers are written at once while no host is.
	Servers = 16
	// minCalm and maxCalm bound the calm after hosts were written, in which the owners' view
	// tells the owners: as long again as the writing of the hosts took.
	minCalm, maxCalm = 100 * time.Millisecond, time.Second
	// patience is how long one server waits for hosts, which may be hard to write.
	patience = 2 * time.Second
)

// Gate counts the writes that are on their way. Hosts and servers share the Servers places: a
// host takes one whether or not it is free, a server only a free one, and only the first in
// the calm after a host. One server may always be written, because the owners' view goes on
// with what the watch of the servers brings.
type Gate struct {
	mu             sync.Mutex
	hosts, servers int
	// since is when the first was written of the hosts that follow each other without calm,
	// and calm when that is over.
	since, calm time.Time
	// ended is closed, and another made, when a write ends.
	ended chan struct{}
}

// New returns a Gate through which nothing is on its way.
func New() *Gate { return &Gate{ended: make(chan struct{})} }

// Host begins to write a host, which ends with done.
func (g *Gate) Host() (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); g.hosts == 0 && !now.Before(g.calm) {
		g.since = now
	}
	g.hosts++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		g.calm = now.Add(min(max(now.Sub(g.since), minCalm), maxCalm))
		g.end(&g.hosts)
	}
}

// Server waits until a server may be written, for as long as patience lasts and ctx does not
// end. The write ends with done.
func (g *Gate) Server(ctx context.Context) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free() {
		return g.begin()
	}
	over := time.Now().Add(patience)
	waited := time.NewTimer(0)
	defer waited.Stop()
	for now := time.Now(); !g.free() && now.Before(over) && ctx.Err() == nil; now = time.Now() {
		until := over
		if now.Before(g.calm) && g.calm.Before(over) {
			until = g.calm
		}
		waited.Reset(until.Sub(now))
		ended := g.ended
		g.mu.Unlock()
		select {
		case <-ended:
		case <-waited.C:
		case <-ctx.Done():
		}
		g.mu.Lock()
	}
	return g.begin()
}

// free reports whether there is a place for one more server.
func (g *Gate) free() bool {
	return g.servers == 0 || g.hosts+g.servers < Servers && !time.Now().Before(g.calm)
}

func (g *Gate) begin() (done func()) {
	g.servers++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.end(&g.servers)
	}
}

func (g *Gate) end(count *int) {
	*count--
	close(g.ended)
	g.ended = make(chan struct{})
}
