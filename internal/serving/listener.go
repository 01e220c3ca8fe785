// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// caller is the address that a connection comes from. Of an IPv6 address it is the
// network of 64 bits, since anyone who has one address there usually has all.
type caller = netip.Prefix

// callerOf returns the caller of a remote address. Those that cannot be parsed are one
// caller.
func callerOf(remote string) caller {
	address, err := netip.ParseAddrPort(remote)
	if err != nil {
		return caller{}
	}
	ip := address.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

// listener accepts a bounded number of connections. When all are taken, a caller with few
// gets a place of the caller with most. So no caller keeps others from connecting,
// however many connections it opens and however little it sends.
type listener struct {
	net.Listener
	limit int
	// refused counts a connection that is closed, to make room or because there is none.
	refused func()

	mu   sync.Mutex
	held int
	open map[caller][]*heldConn
}

// Bounded returns a listener that has at most limit connections of plain at once, shared
// fairly between the addresses that they come from. refused is called for each that is
// closed because of that.
func Bounded(plain net.Listener, limit int, refused func()) net.Listener {
	return &listener{Listener: plain, limit: limit, open: map[caller][]*heldConn{}, refused: refused}
}

// heldConn is a connection that has a place.
type heldConn struct {
	net.Conn
	from     *listener
	caller   caller
	released bool // guarded by from.mu
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		held, loser := l.admit(conn)
		if loser != nil {
			l.refused()
			_ = loser.Close()
		}
		if held != nil {
			return held, nil
		}
	}
}

// admit returns conn with a place, nil if it gets none, and the connection to close, if
// any.
func (l *listener) admit(conn net.Conn) (held *heldConn, loser net.Conn) {
	from := callerOf(conn.RemoteAddr().String())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held >= l.limit {
		victim := l.toGo(len(l.open[from]))
		if victim == nil {
			return nil, conn
		}
		l.release(victim)
		loser = victim.Conn
	}
	held = &heldConn{Conn: conn, from: l, caller: from}
	l.open[from] = append(l.open[from], held)
	l.held++
	return held, loser
}

// toGo returns the newest connection of the caller with most, if that caller keeps more
// than the newcomer has so far, which is have.
func (l *listener) toGo(have int) *heldConn {
	var most []*heldConn
	for _, conns := range l.open {
		if len(conns) > len(most) {
			most = conns
		}
	}
	if len(most) <= have+1 {
		return nil
	}
	return most[len(most)-1]
}

// release frees the place of a connection, once.
func (l *listener) release(c *heldConn) {
	if c.released {
		return
	}
	c.released = true
	l.held--
	conns := l.open[c.caller]
	i := slices.Index(conns, c)
	if conns = slices.Delete(conns, i, i+1); len(conns) == 0 {
		delete(l.open, c.caller)
		return
	}
	l.open[c.caller] = conns
}

// Close implements net.Conn.
func (c *heldConn) Close() error {
	c.from.mu.Lock()
	c.from.release(c)
	c.from.mu.Unlock()
	return c.Conn.Close()
}
