// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"net"
	"net/netip"
	"testing"
)

func from(n byte) caller { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 32) }

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	remote string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.remote))
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

// script is a listener to which these connect, one after the other.
type script struct {
	net.Listener
	conns []net.Conn
}

func (s *script) Accept() (net.Conn, error) {
	if len(s.conns) == 0 {
		return nil, net.ErrClosed
	}
	conn := s.conns[0]
	s.conns = s.conns[1:]
	return conn, nil
}

func TestACallerWithFewConnectionsGetsThePlaceOfOneWithMany(t *testing.T) {
	closedForOthers := 0
	source := &script{}
	l := &listener{Listener: source, limit: 4, open: map[caller][]*heldConn{}, refused: func() { closedForOthers++ }}
	connect := func(remote string) (*fakeConn, net.Conn) {
		conn := &fakeConn{remote: remote}
		source.conns = append(source.conns, conn)
		held, _ := l.Accept() // It fails where the connection is not let in, at the end of the script.
		return conn, held
	}
	var greedy []*fakeConn
	var helds []net.Conn
	for range 5 {
		conn, held := connect("10.0.0.1:1000")
		greedy, helds = append(greedy, conn), append(helds, held)
	}
	if helds[4] != nil || !greedy[4].closed || greedy[3].closed {
		t.Error("the fifth connection of one caller is not the one that is closed")
	}
	first, held := connect("10.0.0.2:1000")
	if held == nil || !greedy[3].closed || greedy[2].closed {
		t.Error("a caller without connections does not get the youngest place of one who has all")
	}
	second, held := connect("10.0.0.2:1001")
	if held == nil || !greedy[2].closed || greedy[1].closed {
		t.Error("a caller with one does not get the youngest place of one who has three")
	}
	third, held := connect("10.0.0.2:1002")
	if held != nil || !third.closed || greedy[1].closed || second.closed {
		t.Error("a caller takes a place that leaves another with less")
	}
	if other, held := connect("10.0.0.3:1000"); held == nil || other.closed || !greedy[1].closed && !second.closed || first.closed || greedy[0].closed {
		t.Error("a third caller gets no place, or not the youngest of another")
	}
	if closedForOthers != 5 {
		t.Errorf("%d were counted", closedForOthers)
	}
	for range 2 { // Twice is once.
		_ = helds[0].Close()
		_ = helds[3].Close() // It lost its place before.
	}
	if l.held != 3 || len(l.open[from(3)]) != 1 {
		t.Errorf("%d are held, %d of the third caller", l.held, len(l.open[from(3)]))
	}
}

func TestCallers(t *testing.T) {
	for remote, want := range map[string]string{
		"10.0.0.1:443":             "10.0.0.1/32",
		"[::ffff:10.0.0.1]:443":    "10.0.0.1/32",
		"[2001:db8:0:1:2:3:4:5]:1": "2001:db8:0:1::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
		"@":                        "invalid Prefix",
	} {
		if got := callerOf(remote).String(); got != want {
			t.Errorf("%s is %s, want %s", remote, got, want)
		}
	}
}
