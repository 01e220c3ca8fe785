// SPDX-License-Identifier: Apache-2.0

package hostsfirst

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// begin begins to write n servers, and returns what is closed as each begins.
func begin(ctx context.Context, g *Gate, n int) (begun chan func()) {
	begun = make(chan func(), n)
	for range n {
		go func() { begun <- g.Server(ctx) }()
	}
	synctest.Wait()
	return begun
}

func TestServersAreWrittenAllAtOnceWhileNoHostIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if begun := begin(t.Context(), New(), Servers); len(begun) != Servers {
			t.Errorf("%d of %d servers are written", len(begun), Servers)
		}
	})
}

func TestServersTakeThePlacesThatHostsLeave(t *testing.T) {
	for hosts, want := range map[int]int{1: Servers - 1, 4: Servers - 4, Servers - 1: 1, Servers: 1, 64: 1} {
		synctest.Test(t, func(t *testing.T) {
			g := New()
			var ends []func()
			for range hosts {
				ends = append(ends, g.Host())
			}
			begun := begin(t.Context(), g, Servers)
			if len(begun) != want {
				t.Errorf("beside %d hosts %d servers are written, not %d", hosts, len(begun), want)
			}
			(<-begun)()
			synctest.Wait()
			if len(begun) != want {
				t.Errorf("beside %d hosts, after one server ended, %d are written, not %d", hosts, len(begun), want)
			}
			for _, end := range ends {
				end()
			}
			synctest.Wait()
			if len(begun) != want {
				t.Errorf("right after the hosts ended %d servers are written, not %d", len(begun), want)
			}
			time.Sleep(minCalm)
			synctest.Wait()
			if len(begun) != Servers-1 {
				t.Errorf("%s after the hosts ended %d servers are written, not the other %d", minCalm, len(begun), Servers-1)
			}
		})
	}
}

func TestOneServerAtATimeIsWrittenInTheCalmAfterHosts(t *testing.T) {
	for took, calm := range map[time.Duration]time.Duration{
		0:                      minCalm,
		time.Millisecond:       minCalm,
		300 * time.Millisecond: 300 * time.Millisecond,
		time.Minute:            maxCalm,
	} {
		synctest.Test(t, func(t *testing.T) {
			g := New()
			for end := time.Now().Add(took); ; { // Hosts follow each other, each within the calm of the last.
				done := g.Host()
				next := min(time.Until(end), minCalm/2)
				time.Sleep(next)
				done()
				if next <= 0 {
					break
				}
			}
			ended := time.Now()
			begun := begin(t.Context(), g, 2)
			if len(begun) != 1 {
				t.Fatalf("hosts for %s: right after them %d servers are written, not one", took, len(begun))
			}
			(<-begun)()
			done := <-begun // The second follows the first.
			if waited := time.Since(ended); waited != 0 {
				t.Errorf("hosts for %s: the next server was written %s after the first had been", took, waited)
			}
			begun = begin(t.Context(), g, 1)
			(<-begun)()
			if waited := time.Since(ended); waited != calm {
				t.Errorf("hosts for %s: a server beside another was written after %s, not %s", took, waited, calm)
			}
			done()
		})
	}
}

func TestTheCalmIsMeasuredFromTheLastCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		done := g.Host()
		time.Sleep(500 * time.Millisecond)
		done()
		time.Sleep(500 * time.Millisecond) // It is over.
		g.Host()()
		ended := time.Now()
		begun := begin(t.Context(), g, 2)
		<-begun
		<-begun
		if waited := time.Since(ended); waited != minCalm {
			t.Errorf("a server beside another was written after %s, not %s", waited, minCalm)
		}
	})
}

func TestAServerWaitsForHostsWithAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		for range 64 {
			g.Host()
		}
		ctx, cancel := context.WithCancel(t.Context())
		begun := begin(ctx, g, 3)
		cancel()
		synctest.Wait()
		if len(begun) != 3 {
			t.Errorf("after the end of their context %d of 3 servers go on", len(begun))
		}
		begun = begin(t.Context(), g, 3)
		if len(begun) != 0 {
			t.Fatalf("%d servers are written beside 64 hosts and three others", len(begun))
		}
		time.Sleep(patience)
		synctest.Wait()
		if len(begun) != 3 {
			t.Errorf("after %s %d of 3 servers are written", patience, len(begun))
		}
	})
}
