// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// packet is one of libvirt of this size in bytes, its length included.
func packet(size int) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(size))[:4:4]
}

func TestAConnectionGoesOnOnlyWithWhatCanBePackets(t *testing.T) {
	whole := func(size int) []byte { return append(packet(size), make([]byte, size-4)...) }
	for name, c := range map[string]struct {
		read []byte
		ok   bool
	}{
		"nothing":             {ok: true},
		"the least":           {read: whole(headerSize), ok: true},
		"two":                 {read: append(whole(headerSize), whole(100)...), ok: true},
		"a part":              {read: whole(100)[:50], ok: true},
		"half a length":       {read: []byte{0, 0}, ok: true},
		"the most":            {read: packet(maxPacket), ok: true},
		"less than a header":  {read: packet(headerSize - 1)},
		"no length":           {read: packet(0)},
		"more than the most":  {read: packet(maxPacket + 1)},
		"HTTP":                {read: []byte("HTTP/1.1 400 Bad Request\r\n")},
		"a bad one after one": {read: append(whole(40), packet(3)...)},
	} {
		t.Run(name, func(t *testing.T) {
			if ok := newTransport(nil).follow(c.read); ok != c.ok {
				t.Errorf("goes on: %v", ok)
			}
			// However it comes in pieces.
			pieces, ok := newTransport(nil), true
			for i := range c.read {
				ok = ok && pieces.follow(c.read[i:i+1])
			}
			if ok != c.ok {
				t.Errorf("goes on in pieces: %v", ok)
			}
		})
	}
}

// opened opens a connection to a peer that does what serve does.
func opened(ctx context.Context, serve func(net.Conn)) (client, error) {
	here, there := net.Pipe()
	go serve(there)
	return open(ctx, newTransport(here), "test:///default")
}

func TestALibvirtThatHangsIsGivenUpAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := opened(t.Context(), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		if took := time.Since(begin); took != callTimeout {
			t.Errorf("after %s", took)
		}
		var away *awayError
		if !errors.Is(err, errNoAnswer) || !errors.As(err, &away) || away.kind != "frozen" {
			t.Errorf("error %v", err)
		}
	})
}

func TestOnlyTheCallThatTakesTooLongIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan time.Time, 1)
		w := &watchdog{late: func() { late <- time.Now() }}
		for range 10 {
			w.begin()
			time.Sleep(callTimeout - time.Millisecond)
			w.end()
		}
		time.Sleep(time.Hour)
		w.begin()
		time.Sleep(time.Second)
		w.end()
		if len(late) > 0 {
			t.Fatal("a call in time is late")
		}
		w.begin()
		begin := time.Now()
		if got := (<-late).Sub(begin); got != callTimeout {
			t.Errorf("late after %s", got)
		}
		w.stop()
	})
}

func TestALibvirtThatDoesNotEvenReadIsGivenUpAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		hang := make(chan struct{})
		_, err := opened(t.Context(), func(net.Conn) { <-hang })
		close(hang)
		if took := time.Since(begin); took != callTimeout || !errors.Is(err, errNoAnswer) {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

func TestTheEndOfTheAgentWaitsForNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := opened(ctx, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		if took := time.Since(begin); err == nil || took != time.Second {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

func TestWhatIsNotLibvirtEndsTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   error
	}{
		"it hangs up":            {"", errEnded},
		"it speaks another word": {"HTTP/1.1 400 Bad Request\r\n\r\n", errNoProtocol},
		"it sends a short one":   {"\x00\x00\x00\x05x", errNoProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := opened(t.Context(), func(conn net.Conn) {
					_, _ = conn.Read(make([]byte, 1000))
					_, _ = conn.Write([]byte(c.answer))
					_ = conn.Close()
				})
				if !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
			})
		})
	}
}

func TestASocketThatCannotBeUsedIsExplained(t *testing.T) {
	dir := t.TempDir()
	missing, stale := filepath.Join(dir, "missing"), filepath.Join(dir, "stale")
	listener, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()
	for socket, want := range map[string]string{missing: "start libvirtd", stale: "nothing listens"} {
		_, err := dial(t.Context(), &Options{Socket: socket, URI: "qemu:///system"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), socket) {
			t.Errorf("%s: error %v, want %q", socket, err, want)
		}
	}
	// Root may open all, so this cannot be provoked here.
	if err := unreachable([]string{"/s"}, os.ErrPermission); !strings.Contains(err.Error(), "may not open the socket") {
		t.Errorf("error %v", err)
	}
}

func TestTheFirstSocketThatSomethingListensOnIsUsed(t *testing.T) {
	before := DefaultSockets
	defer func() { DefaultSockets = before }()
	dir := t.TempDir()
	DefaultSockets = []string{filepath.Join(dir, "virtqemud-sock-ro"), filepath.Join(dir, "libvirt-sock-ro")}
	for _, path := range DefaultSockets {
		if _, err := dial(t.Context(), &Options{URI: "x"}); err == nil || !strings.Contains(err.Error(), DefaultSockets[0]+" and no "+DefaultSockets[1]) {
			t.Errorf("neither is there: %v", err)
		}
		listener, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan struct{})
		go func() {
			defer close(accepted)
			if c, err := listener.Accept(); err == nil {
				_ = c.Close()
			}
		}()
		if _, err := dial(t.Context(), &Options{URI: "x"}); !errors.Is(err, errEnded) {
			t.Errorf("only %s listens: %v", path, err)
		}
		<-accepted
		_ = listener.Close() // which removes it
	}
}

func TestAnAnswerOfLibvirtIsNoFailureOfTheConnection(t *testing.T) {
	c := &connection{transport: newTransport(nopConn{})}
	defer c.watchdog.stop()
	refusal := golibvirt.Error{Code: uint32(golibvirt.ErrNoDomain), Message: "Domain not found"}
	if err := c.call("reading", func() error { return refusal }); !isAnswer(err) || !golibvirt.IsNotFound(err) || c.reason() != nil {
		t.Errorf("error %v, connection %v", err, c.reason())
	}
	if err := c.call("reading", func() error { return golibvirt.ErrInterrupted }); isAnswer(err) || !errors.Is(err, errEnded) || c.reason() == nil {
		t.Errorf("error %v, connection %v", err, c.reason())
	}
}

func TestARefusalOfTheUserNamesItAndWhatToDo(t *testing.T) {
	err := explained(golibvirt.Error{Message: "Failed to find user record for uid '65532'"})
	var away *awayError
	if !errors.As(err, &away) || away.kind != "nameless" || !strings.Contains(err.Error(), "65534") || !strings.Contains(err.Error(), "gid") {
		t.Errorf("error %v", err)
	}
}

// nopConn is a connection that can be closed.
type nopConn struct{ net.Conn }

func (nopConn) Close() error { return nil }
