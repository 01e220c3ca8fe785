// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

const (
	// callTimeout is how long libvirtd may take for one call, and for connecting. A listing
	// of a thousand domains took 6 ms; a libvirtd that hangs answers never.
	callTimeout = 5 * time.Second
	// headerSize is the least that a packet can have, in bytes, and maxPacket the most:
	// VIR_NET_MESSAGE_MAX of libvirt.
	headerSize = 28
	maxPacket  = 32 << 20
)

var (
	errNoAnswer   = fmt.Errorf("libvirt has not answered within %s", callTimeout)
	errClosed     = errors.New("closed")
	errEnded      = errors.New("libvirt has ended the connection")
	errNoProtocol = errors.New("what listens there does not speak libvirt's protocol")
)

// client is one connection to libvirt, as the loop uses it. A call that fails because of
// the connection ends it; after an error of libvirt about a domain it goes on.
type client interface {
	// subscribe has events called back, one at a time, until the connection ends.
	subscribe(func(event)) error
	// list returns all domains.
	list() ([]domain, error)
	// xml returns the XML of one, and errGone if it is no more.
	xml(golibvirt.Domain) (string, error)
	// leases returns the addresses that DHCP gave to the interfaces of one, by MAC.
	leases(golibvirt.Domain) (map[string][]string, error)
	// ended is closed when the connection has ended, and then there is a reason.
	ended() <-chan struct{}
	reason() error
	// close may be called at any time, and more than once.
	close()
}

// errGone is the error for a domain that has gone since it was listed.
var errGone = errors.New("there is no such domain any more")

// event is one about a domain.
type event struct {
	domain golibvirt.UUID
	// stopped is whether the domain has ended here, and has not moved to another host.
	stopped bool
}

// transport is the net.Conn under the library, which knows no deadlines: closing it frees
// whatever waits for libvirt.
type transport struct {
	net.Conn
	done chan struct{}

	mu  sync.Mutex
	err error // why it has ended

	// header has the first bytes of the packet that is being read, and rest is how many
	// more it has then. The library reads from one goroutine.
	header []byte
	rest   int
}

func newTransport(c net.Conn) *transport {
	return &transport{Conn: c, done: make(chan struct{}), header: make([]byte, 0, 4)}
}

// end closes the connection for a reason, if it is not closed yet.
func (t *transport) end(reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	t.err = reason
	_ = t.Conn.Close()
	close(t.done)
}

// reason returns why it has ended, or nil.
func (t *transport) reason() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Read reads, and ends the connection over a packet of a length that cannot be: the library
// takes each for granted.
func (t *transport) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if err != nil {
		t.end(errEnded)
		return n, err
	}
	if !t.follow(p[:n]) {
		t.end(errNoProtocol)
		return 0, errNoProtocol
	}
	return n, nil
}

// follow reports whether what has been read can be packets of libvirt.
func (t *transport) follow(read []byte) bool {
	for len(read) > 0 {
		if t.rest > 0 {
			skip := min(t.rest, len(read))
			t.rest -= skip
			read = read[skip:]
			continue
		}
		take := min(cap(t.header)-len(t.header), len(read))
		t.header = append(t.header, read[:take]...)
		read = read[take:]
		if len(t.header) < cap(t.header) {
			return true
		}
		size := binary.BigEndian.Uint32(t.header)
		if size < headerSize || size > maxPacket {
			return false
		}
		t.header, t.rest = t.header[:0], int(size)-cap(t.header)
	}
	return true
}

// Close is the library's way to end it, after a failure that it has met first.
func (t *transport) Close() error {
	t.end(errEnded)
	return nil
}

// Dial lets the library use it, once.
func (t *transport) Dial() (net.Conn, error) { return t, nil }

// watchdog calls late when a call takes longer than callTimeout. The loop makes one call
// after the other, thousands in a listing: a timer for each would wake threads for each, so
// that one timer looks from time to time.
type watchdog struct {
	late func()

	mu    sync.Mutex
	timer *time.Timer // nil while nobody looks
	since time.Time   // when the call began; zero if there is none
}

func (w *watchdog) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
	if w.timer == nil {
		w.timer = time.AfterFunc(callTimeout, w.look)
	}
}

func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Time{}
}

func (w *watchdog) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := callTimeout - time.Since(w.since)
	switch {
	case w.since.IsZero():
		w.timer = nil
	case left > 0:
		w.timer.Reset(left)
	default:
		w.timer = nil
		w.late()
	}
}

// stop ends it.
func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// connection is a client of a real libvirtd. Each has a library object of its own: what one
// still cleans up must not meet the next connection.
type connection struct {
	*transport
	library  *golibvirt.Libvirt
	watchdog watchdog
	// streams are the goroutines that pass events on, which end with ctx.
	streams sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
}

// dial connects to the first socket that something listens on.
func dial(ctx context.Context, o *Options) (client, error) {
	sockets := DefaultSockets
	if o.Socket != "" {
		sockets = []string{o.Socket}
	}
	dialer := net.Dialer{Timeout: callTimeout}
	var failed error
	for _, socket := range sockets {
		c, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil {
			return open(ctx, newTransport(c), o.URI)
		}
		// A socket that is there and refuses says more than one that is not.
		if failed == nil || errors.Is(failed, os.ErrNotExist) {
			failed = err
		}
	}
	return nil, unreachable(sockets, failed)
}

// open speaks to what listens at the other end.
func open(ctx context.Context, t *transport, uri string) (client, error) {
	defer context.AfterFunc(ctx, func() { t.end(errClosed) })()
	c := &connection{transport: t, library: golibvirt.NewWithDialer(t)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.watchdog.late = func() { t.end(errNoAnswer) }
	if err := c.call("connecting to "+uri, func() error { return c.library.ConnectToURI(golibvirt.ConnectURI(uri)) }); err != nil {
		c.close()
		return nil, explained(err)
	}
	return c, nil
}

// unreachable is the error where no socket could be connected to, with what to do.
func unreachable(sockets []string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &awayError{kind: "missing", text: fmt.Sprintf("there is no %s: start libvirtd (or virtqemud), or set --libvirt-socket; in a pod, mount the socket's folder, not the socket", strings.Join(sockets, " and no ")), err: err}
	case errors.Is(err, os.ErrPermission):
		return &awayError{kind: "denied", text: fmt.Sprintf("this process, uid %d, gid %d, may not open the socket: use the read-only one, which is for everybody (unix_sock_ro_perms is \"0777\" by default)", os.Getuid(), os.Getgid()), err: err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &awayError{kind: "refused", text: "nothing listens on the socket: start libvirtd; in a pod, mount the socket's folder, not the socket", err: err}
	default:
		return &awayError{kind: "unreachable", text: "the socket cannot be connected to", err: err}
	}
}

// explained is the error of something that listens, with what to do.
func explained(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "Failed to find user record") || strings.Contains(text, "Failed to find group record"):
		return &awayError{kind: "nameless", text: fmt.Sprintf("libvirtd refuses users and groups that have no name on its host, and this process is uid %d, gid %d: run it as one that has, such as 65534 (nobody; runAsUser and runAsGroup of a pod)", os.Getuid(), os.Getgid()), err: err}
	case errors.Is(err, errEnded):
		return &awayError{kind: "ended", text: "libvirtd ends connections: its log says why", err: err}
	case errors.Is(err, errNoAnswer):
		return &awayError{kind: "frozen", text: "libvirtd hangs: restart it, domains go on", err: err}
	default:
		return &awayError{kind: text, text: "libvirt cannot be used", err: err}
	}
}

// awayError is why libvirt cannot be asked. One of a kind is logged once.
type awayError struct {
	kind, text string
	err        error
}

func (e *awayError) Error() string { return e.text + ": " + e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// call makes one call, and ends the connection if there is no answer in time.
func (c *connection) call(what string, do func() error) error {
	c.watchdog.begin()
	defer c.watchdog.end()
	err := do()
	if err == nil {
		return nil
	}
	if !isAnswer(err) {
		// Of a connection that has ended, the library returns whatever it met first.
		if errors.Is(err, golibvirt.ErrInterrupted) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EINVAL) {
			err = errEnded
		}
		c.end(err)
		err = c.reason()
	}
	return fmt.Errorf("%s: %w", what, err)
}

// isAnswer reports whether err is what libvirt has answered.
func isAnswer(err error) bool {
	var answer golibvirt.Error
	return errors.As(err, &answer) || errors.Is(err, golibvirt.ErrUnsupported)
}

// eventsBeside are those that change what is reported, beside those of the lifecycle. An
// older libvirt may not know them all; then the next resync finds what they tell of.
var eventsBeside = []golibvirt.DomainEventID{
	golibvirt.DomainEventIDMetadataChange, golibvirt.DomainEventIDDeviceAdded, golibvirt.DomainEventIDDeviceRemoved,
	golibvirt.DomainEventIDPmwakeup, golibvirt.DomainEventIDPmsuspend, golibvirt.DomainEventIDPmsuspendDisk,
}

func (c *connection) subscribe(tell func(event)) error {
	var mu sync.Mutex
	put := func(e event) {
		mu.Lock()
		defer mu.Unlock()
		tell(e)
	}
	var lifecycle <-chan golibvirt.DomainEventLifecycleMsg
	err := c.call("subscribing to events", func() (err error) {
		lifecycle, err = c.library.LifecycleEvents(c.ctx)
		return err
	})
	if err != nil {
		return err
	}
	// The library keeps events until they are taken, so all are taken at once.
	c.streams.Go(func() {
		for e := range lifecycle {
			put(event{domain: e.Dom.UUID, stopped: e.Event == int32(golibvirt.DomainEventStopped) && e.Detail != int32(golibvirt.DomainEventStoppedMigrated)})
		}
	})
	for _, id := range eventsBeside {
		var others <-chan any
		err := c.call("subscribing to events", func() (err error) {
			others, err = c.library.SubscribeEvents(c.ctx, id, nil)
			return err
		})
		switch {
		case isAnswer(err):
			continue
		case err != nil:
			return err
		}
		c.streams.Go(func() {
			for e := range others {
				put(event{domain: domainOf(e)})
			}
		})
	}
	return nil
}

// domainOf returns which domain an event is about.
func domainOf(e any) golibvirt.UUID {
	switch e := e.(type) {
	case *golibvirt.DomainEventCallbackMetadataChangeMsg:
		return e.Dom.UUID
	case *golibvirt.DomainEventCallbackDeviceAddedMsg:
		return e.Dom.UUID
	case *golibvirt.DomainEventCallbackDeviceRemovedMsg:
		return e.Msg.Dom.UUID
	case *golibvirt.DomainEventCallbackPmwakeupMsg:
		return e.Msg.Dom.UUID
	case *golibvirt.DomainEventCallbackPmsuspendMsg:
		return e.Msg.Dom.UUID
	case *golibvirt.DomainEventCallbackPmsuspendDiskMsg:
		return e.Msg.Dom.UUID
	}
	return golibvirt.UUID{}
}

func (c *connection) list() ([]domain, error) {
	var records []golibvirt.DomainStatsRecord
	err := c.call("listing the states of domains", func() (err error) {
		records, err = c.library.ConnectGetAllDomainStats(nil, uint32(golibvirt.DomainStatsState), 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	// Afterwards: the image is there before the domain is off.
	var images []golibvirt.Domain
	err = c.call("listing saved domains", func() (err error) {
		images, _, err = c.library.ConnectListAllDomains(1, golibvirt.ConnectListDomainsManagedsave)
		return err
	})
	if err != nil {
		return nil, err
	}
	saved := make(map[golibvirt.UUID]bool, len(images))
	for _, d := range images {
		saved[d.UUID] = true
	}
	domains := make([]domain, len(records))
	for i, r := range records {
		domains[i] = domain{Domain: r.Dom, state: -1, saved: saved[r.Dom.UUID]}
		for _, p := range r.Params {
			value, ok := p.Value.I.(int32)
			switch {
			case !ok:
			case p.Field == golibvirt.DomainStatsStateState:
				domains[i].state = golibvirt.DomainState(value)
			case p.Field == golibvirt.DomainStatsStateReason:
				domains[i].reason = value
			}
		}
	}
	return domains, nil
}

func (c *connection) xml(d golibvirt.Domain) (text string, err error) {
	err = c.call("reading the XML of a domain", func() (err error) {
		text, err = c.library.DomainGetXMLDesc(d, 0)
		return err
	})
	if golibvirt.IsNotFound(err) {
		return "", errGone
	}
	return text, err
}

func (c *connection) leases(d golibvirt.Domain) (map[string][]string, error) {
	var interfaces []golibvirt.DomainInterface
	err := c.call("reading the DHCP leases of a domain", func() (err error) {
		interfaces, err = c.library.DomainInterfaceAddresses(d, uint32(golibvirt.DomainInterfaceAddressesSrcLease), 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	leases := map[string][]string{}
	for _, i := range interfaces {
		for _, mac := range i.Hwaddr {
			mac = normalMAC(mac)
			for _, a := range i.Addrs {
				leases[mac] = append(leases[mac], a.Addr)
			}
		}
	}
	return leases, nil
}

func (c *connection) ended() <-chan struct{} { return c.done }

// close ends the connection, and waits until nothing passes events on any more. It does not
// take leave of libvirtd, which might hang.
func (c *connection) close() {
	c.end(errClosed)
	c.watchdog.stop()
	c.cancel()
	c.streams.Wait()
}
