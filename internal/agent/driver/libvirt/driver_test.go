// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

// host is a libvirt whose failures a test decides.
type host struct {
	mu      sync.Mutex
	domains []domain
	xmls    map[golibvirt.UUID]string
	leased  map[golibvirt.UUID]map[string][]string
	// down is what connecting fails with, listErr and xmlErr what these calls fail with.
	down, listErr, leaseErr error
	xmlErr                  map[golibvirt.UUID]error
	// hang lets each call wait until the connection ends.
	hang bool

	now                 *fakeClient
	dials, lists, reads int
	dialedAt            []time.Time
}

// fakeClient is a connection to a host.
type fakeClient struct {
	*host
	tell func(event)
	done chan struct{}
	err  error
}

func (h *host) dial(ctx context.Context, _ *Options) (client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials++
	h.dialedAt = append(h.dialedAt, time.Now())
	if h.down != nil {
		return nil, h.down
	}
	h.now = &fakeClient{host: h, done: make(chan struct{})}
	return h.now, ctx.Err()
}

// end ends the connection, as a daemon does that is killed.
func (c *fakeClient) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

func (c *fakeClient) close()                 { c.end(errClosed) }
func (c *fakeClient) ended() <-chan struct{} { return c.done }

func (c *fakeClient) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *fakeClient) subscribe(tell func(event)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell = tell
	return nil
}

// answer is nil if a call is answered.
func (c *fakeClient) answer() error {
	c.mu.Lock()
	hang := c.hang
	c.mu.Unlock()
	if !hang {
		return c.reason()
	}
	select {
	case <-time.After(callTimeout):
		c.end(errNoAnswer)
	case <-c.done:
	}
	return c.reason()
}

func (c *fakeClient) list() ([]domain, error) {
	if err := c.answer(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lists++
	return slices.Clone(c.domains), c.listErr
}

func (c *fakeClient) xml(d golibvirt.Domain) (string, error) {
	if err := c.answer(); err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return c.xmls[d.UUID], c.xmlErr[d.UUID]
}

func (c *fakeClient) leases(d golibvirt.Domain) (map[string][]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leased[d.UUID], c.leaseErr
}

// libvirtOf is a host with these domains.
func libvirtOf(domains ...domain) *host {
	h := &host{xmls: map[golibvirt.UUID]string{}, leased: map[golibvirt.UUID]map[string][]string{}, xmlErr: map[golibvirt.UUID]error{}}
	for _, d := range domains {
		h.set(d)
	}
	return h
}

// set adds or replaces a domain, without an event.
func (h *host) set(d domain) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.xmls[d.UUID] == "" {
		h.xmls[d.UUID] = xmlOf(strings.Replace(hs, "vm1", d.Name, 1), nic)
	}
	h.domains = append(slices.DeleteFunc(h.domains, func(o domain) bool { return o.UUID == d.UUID }), d)
}

func (h *host) remove(d domain) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.domains = slices.DeleteFunc(h.domains, func(o domain) bool { return o.UUID == d.UUID })
}

// with changes something in h.
func (h *host) with(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

func (h *host) event(e event) {
	h.mu.Lock()
	tell := h.now.tell
	h.mu.Unlock()
	tell(e)
}

// vm is a domain of this name, whose first letter makes its UUID.
func vm(name string, state golibvirt.DomainState, reason int32) domain {
	d := domain{Domain: golibvirt.Domain{Name: name, UUID: golibvirt.UUID{name[0], name[len(name)-1]}, ID: -1}, state: state, reason: reason}
	if state != golibvirt.DomainShutoff {
		d.ID = 1
	}
	return d
}

const (
	running = golibvirt.DomainRunning
	paused  = golibvirt.DomainPaused
	shutoff = golibvirt.DomainShutoff
)

// watching is a Driver that runs in a bubble.
type watching struct {
	*testing.T
	log *logbook.Book
	// health has what OnHealth heard.
	health  []string
	reports []string
	mu      sync.Mutex
	stop    func()
}

// watch runs a driver on h until the test ends.
func watch(t *testing.T, h *host) *watching {
	w := &watching{T: t, log: logbook.New()}
	d := &Driver{Options: NewOptions(), Logger: w.log.Logger, dial: h.dial, OnHealth: func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.health = append(w.health, fmt.Sprint(err))
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- d.Run(ctx, func(vms []driver.VM) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports = append(w.reports, words(vms))
			for i := range vms { // They are the receiver's.
				for n := range vms[i].Networks {
					vms[i].Networks[n].Addresses[0] = "mine"
				}
				vms[i] = driver.VM{}
			}
		})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		begin := time.Now()
		if err := <-ended; err != nil || time.Since(begin) > 0 {
			t.Errorf("ended with %v after %s", err, time.Since(begin))
		}
	})
	t.Cleanup(w.stop)
	synctest.Wait()
	return w
}

// words are VMs as name=STATE, with their addresses.
func words(vms []driver.VM) string {
	all := make([]string, len(vms))
	for i, vm := range vms {
		all[i] = vm.Server.Name + "=" + string(vm.State)
		for _, n := range vm.Networks {
			all[i] += "," + n.Name + ":" + strings.Join(n.Addresses, ",")
		}
	}
	return strings.Join(all, " ")
}

// after waits, and checks what was reported meanwhile.
func (w *watching) after(wait time.Duration, want ...string) {
	w.Helper()
	time.Sleep(wait)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(want, w.reports); diff != "" {
		w.Errorf("reports (-want +got):\n%s", diff)
	}
	w.reports = nil
}

// inBubble runs a test with a clock of its own.
func inBubble(t *testing.T, test func(*testing.T)) { t.Helper(); synctest.Test(t, test) }

func TestDomainsAreReportedAtFirstAndWhenTheyChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := vm("a", running, 1), vm("b", shutoff, 2)
		h := libvirtOf(b, a)
		w := watch(t, h)
		w.after(0, "a=ACTIVE b=SHUTOFF")
		a.state, a.reason = paused, 1
		h.set(a)
		w.after(time.Second) // There was no event.
		h.event(event{domain: a.UUID})
		w.after(settleTime - time.Millisecond)
		w.after(time.Millisecond, "a=PAUSED b=SHUTOFF")
		h.event(event{domain: a.UUID})
		w.after(time.Second) // Nothing has changed.
		h.remove(b)
		w.after(time.Minute, "a=PAUSED") // The resync finds it.
	})
}

func TestThereIsAReportOfAHostWithoutDomains(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := watch(t, libvirtOf())
		w.after(time.Hour, "")
		if diff := cmp.Diff([]string{"<nil>"}, w.health); diff != "" {
			t.Errorf("health (-want +got):\n%s", diff)
		}
		w.log.Want(t, "Connected to libvirt")
	})
}

func TestAStreamOfEventsDelaysAReportByASecondAtMost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := vm("a", running, 1)
		h := libvirtOf(a)
		w := watch(t, h)
		w.after(0, "a=ACTIVE")
		a.state, a.reason = paused, 1
		h.set(a)
		for range 9 {
			h.event(event{domain: a.UUID})
			w.after(100 * time.Millisecond)
		}
		h.event(event{domain: a.UUID})
		w.after(100*time.Millisecond, "a=PAUSED")
		// And a thousand of them at once cost one listing.
		h.with(func() { h.lists = 0 })
		for range 1000 {
			h.event(event{domain: a.UUID})
		}
		w.after(10 * time.Second)
		if h.lists != 1 {
			t.Errorf("%d listings", h.lists)
		}
	})
}

func TestTheXMLIsReadOnlyOfWhatIsNewOrChanged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := vm("a", running, 1), vm("b", running, 1)
		h := libvirtOf(a, b)
		w := watch(t, h)
		w.after(0, "a=ACTIVE b=ACTIVE")
		h.with(func() { h.reads, h.xmls[a.UUID] = 0, xmlOf(strings.Replace(hs, "vm1", "renamed", 1), "") })
		h.event(event{domain: a.UUID})
		w.after(time.Second, "b=ACTIVE renamed=ACTIVE")
		if h.reads != 1 {
			t.Errorf("the XML was read %d times", h.reads)
		}
		// A change without an event is found by the resync, which reads all.
		h.with(func() { h.xmls[b.UUID] = xmlOf("", "") })
		w.after(time.Minute, "renamed=ACTIVE")
	})
}

func TestWhileLibvirtIsAwayTheLastReportStands(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(*host)
		logs string
	}{
		"it was killed": {func(h *host) {
			h.down = errors.New("connection refused")
			go h.now.end(errEnded)
		}, "connection refused"},
		"it hangs": {func(h *host) {
			h.hang, h.down = true, errors.New("no answer")
			go h.now.tell(event{})
		}, "libvirtd hangs: restart it"},
		"its socket is gone":     {func(h *host) { h.down = errors.New("no such file"); go h.now.end(errEnded) }, "no such file"},
		"it refuses to list":     {func(h *host) { h.listErr = golibvirt.Error{Message: "no driver"}; go h.now.tell(event{}) }, "no driver"},
		"it refuses to list all": {func(h *host) { h.down = errors.New("gone"); h.listErr = errEnded; go h.now.tell(event{}) }, "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a := vm("a", running, 1)
				h := libvirtOf(a)
				w := watch(t, h)
				w.after(time.Minute/2, "a=ACTIVE")
				h.with(func() { c.fail(h) })
				w.after(10 * time.Minute)
				if len(w.health) < 2 || w.health[0] != "<nil>" || w.health[len(w.health)-1] == "<nil>" {
					t.Errorf("health: %q", w.health)
				}
				a.state, a.reason = paused, 1
				h.set(a)
				h.with(func() { h.down, h.hang, h.listErr = nil, false, nil })
				w.after(lastBackOff, "a=PAUSED")
				if w.health[len(w.health)-1] != "<nil>" {
					t.Errorf("health at the end: %q", w.health)
				}
				// The second edge of the one that hangs is that it cannot even be connected to.
				if name == "it hangs" {
					w.log.Want(t, "Connected", c.logs, "no answer", "Connected")
				} else {
					w.log.Want(t, "Connected", c.logs, "Connected")
				}
			})
		})
	}
}

func TestADaemonThatRestartsAtOnceIsNotWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := vm("a", running, 1)
		h := libvirtOf(a)
		w := watch(t, h)
		w.after(time.Minute/2, "a=ACTIVE")
		a.state, a.reason, a.ID = shutoff, 3, -1
		h.set(a)
		h.now.end(errEnded)
		w.after(0, "a=SHUTOFF")
		w.log.Want(t, "Connected", "Connected")
	})
}

// The kernel still accepts connections for a daemon whose end it has begun with.
func TestOneEndOfADaemonIsLoggedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := libvirtOf()
		w := watch(t, h)
		w.after(time.Minute/2, "")
		h.with(func() { h.down = explained(errEnded) })
		h.now.end(errEnded)
		w.after(100 * time.Millisecond)
		h.with(func() { h.down = errors.New("nothing listens") })
		w.after(time.Minute)
		w.log.Want(t, "Connected", "nothing listens")
		// But if it goes on like that, it is logged, too.
		h.with(func() { h.down = explained(errEnded) })
		w.after(10 * time.Minute)
		w.log.Want(t, "Connected", "nothing listens", "its log says why")
	})
}

func TestTriesAreMadeLessOften(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := libvirtOf()
		h.down = errors.New("no such file")
		w := watch(t, h)
		w.after(5 * time.Minute)
		w.log.Want(t, "no such file")
		if diff := cmp.Diff([]string{"no such file"}, w.health); diff != "" {
			t.Errorf("health (-want +got):\n%s", diff)
		}
		for i := 1; i < len(h.dialedAt); i++ {
			wait := h.dialedAt[i].Sub(h.dialedAt[i-1])
			if longest := min(firstBackOff<<(i-1), lastBackOff); wait > longest || wait < longest*4/5 {
				t.Errorf("wait %d: %s", i, wait)
			}
		}
		if len(h.dialedAt) < 13 {
			t.Errorf("%d tries in 5 minutes", len(h.dialedAt))
		}
	})
}

// A daemon that answers once and ends each time must not be tried as fast as it can end.
func TestAConnectionThatEndsAtOnceIsNotTriedAtOnceAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := libvirtOf()
		w := watch(t, h)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				h.mu.Lock()
				c := h.now
				h.mu.Unlock()
				c.end(errEnded)
			}
		}()
		w.after(5*time.Minute, "")
		close(stop)
		if h.dials > 17 {
			t.Errorf("%d tries in 5 minutes", h.dials)
		}
	})
}

func TestATransientDomainThatStoppedIsReportedAsOffForAMoment(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, c, d := vm("a", running, 1), vm("b", running, 1), vm("c", running, 1), vm("d", running, 1)
		h := libvirtOf(a, b, c, d)
		w := watch(t, h)
		w.after(0, "a=ACTIVE b=ACTIVE c=ACTIVE d=ACTIVE")
		for _, gone := range []domain{a, b, c} {
			h.remove(gone)
		}
		h.event(event{domain: a.UUID, stopped: true})
		h.event(event{domain: b.UUID}) // It has moved to another host.
		// c was undefined while it was off, long after it stopped. d is persistent.
		d.state, d.reason, d.ID = shutoff, 2, -1
		h.set(d)
		h.event(event{domain: d.UUID, stopped: true})
		w.after(time.Second, "a=SHUTOFF d=SHUTOFF")
		h.remove(d)
		h.event(event{domain: d.UUID})
		w.after(time.Second, "a=SHUTOFF")
		w.after(2*time.Minute, "")
	})
}

// libvirtd removes a domain from its list before it queues the event.
func TestAnEventThatComesLateStillTellsThatADomainStopped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, c := vm("a", running, 1), vm("b", running, 1), vm("c", running, 1)
		h := libvirtOf(a, b, c)
		w := watch(t, h)
		w.after(0, "a=ACTIVE b=ACTIVE c=ACTIVE")
		h.remove(a)
		h.remove(b)
		h.event(event{domain: c.UUID})
		w.after(time.Second, "c=ACTIVE")
		h.event(event{domain: a.UUID, stopped: true})
		w.after(time.Second, "a=SHUTOFF c=ACTIVE")
		w.after(2*time.Minute, "c=ACTIVE")
		h.event(event{domain: b.UUID, stopped: true}) // of another life
		w.after(time.Hour)
	})
}

func TestATransientDomainThatIsBackIsReportedAsItIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := vm("a", running, 1)
		h := libvirtOf(a)
		w := watch(t, h)
		w.after(0, "a=ACTIVE")
		h.remove(a)
		h.event(event{domain: a.UUID, stopped: true})
		w.after(time.Second, "a=SHUTOFF")
		again := vm("z", running, 1) // with another UUID
		h.xmls[again.UUID] = h.xmls[a.UUID]
		h.set(again)
		h.event(event{domain: again.UUID})
		w.after(time.Hour, "a=ACTIVE")
		w.log.Want(t, "Connected")
	})
}

func TestADomainThatMovesLeavesAndOneThatComesIsReportedWhenItRuns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := vm("a", running, 1), vm("b", paused, 11)
		h := libvirtOf(a, b)
		w := watch(t, h)
		w.after(0, "a=ACTIVE")
		a.state, a.reason, a.ID = shutoff, 4, -1
		h.set(a)
		b.reason = 2
		h.set(b)
		h.event(event{domain: a.UUID})
		w.after(time.Second, "b=MIGRATING")
		b.state, b.reason = running, 2
		h.set(b)
		h.event(event{domain: b.UUID})
		w.after(time.Second, "b=ACTIVE")
		// The daemon restarts, and forgets why a is off.
		a.reason = 0
		h.set(a)
		h.now.end(errEnded)
		w.after(time.Minute)
	})
}

func TestADefinitionThatWasLeftBehindAndGetsItsNameLaterIsNotReported(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := vm("a", shutoff, 4)
		h := libvirtOf(a)
		named := h.xmls[a.UUID]
		h.xmls[a.UUID] = xmlOf("", "")
		w := watch(t, h)
		w.after(0, "")
		a.reason = 0 // The daemon restarts.
		h.set(a)
		h.now.end(errEnded)
		h.with(func() { h.xmls[a.UUID] = named })
		w.after(time.Hour)
	})
}

func TestADomainThatIsUndefinedWhileItRunsIsStillThere(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := vm("a", running, 1)
		h := libvirtOf(a)
		w := watch(t, h)
		w.after(0, "a=ACTIVE")
		h.event(event{domain: a.UUID})
		w.after(time.Hour)
	})
}

func TestLeasesAreReadAgainAndErrorsMeanNotKnown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := vm("a", running, 1)
		h := libvirtOf(a)
		w := watch(t, h)
		w.after(0, "a=ACTIVE")
		h.with(func() { h.leased[a.UUID] = map[string][]string{"52:54:00:00:00:01": {"192.168.122.2"}} })
		w.after(time.Minute, "a=ACTIVE,default:192.168.122.2")
		h.with(func() { h.leaseErr = golibvirt.Error{Message: "no network driver"} })
		w.after(2 * time.Minute)
		h.with(func() { h.leaseErr, h.leased = nil, nil })
		w.after(time.Minute, "a=ACTIVE")
	})
}

func TestALeaseStaysKnownWhileTheDomainIsOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := vm("a", running, 1)
		h := libvirtOf(a)
		h.leased[a.UUID] = map[string][]string{"52:54:00:00:00:01": {"192.168.122.2"}}
		w := watch(t, h)
		w.after(0, "a=ACTIVE,default:192.168.122.2")
		a.state, a.reason, a.ID = shutoff, 1, -1
		h.set(a)
		h.with(func() { h.leased = nil })
		w.after(time.Hour, "a=SHUTOFF,default:192.168.122.2")
	})
}

func TestADomainThatCannotBeReadSilencesNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, c := vm("a", running, 1), vm("b", running, 1), vm("c", running, 1)
		h := libvirtOf(a, b, c)
		h.xmlErr[a.UUID] = golibvirt.Error{Message: "internal error"}
		h.xmls[b.UUID] = "<domain"
		w := watch(t, h)
		w.after(time.Hour, "c=ACTIVE")
		w.log.Want(t, "internal error", "reading its XML", "Connected")
		h.with(func() { delete(h.xmlErr, a.UUID); h.xmls[b.UUID] = h.xmls[c.UUID] })
		h.event(event{domain: c.UUID})
		w.after(time.Second, "a=ACTIVE") // b claims to be c now, and both run.
		// What was known stays in use.
		h.with(func() { h.xmlErr[a.UUID] = golibvirt.Error{Message: "internal error"} })
		w.after(time.Hour)
	})
}

func TestADomainThatGoesDuringAListingIsLeftOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := vm("a", running, 1), vm("b", running, 1)
		h := libvirtOf(a, b)
		h.xmlErr[a.UUID] = errGone
		w := watch(t, h)
		w.after(time.Hour, "b=ACTIVE")
		w.log.Want(t, "Connected")
	})
}

func TestAListingThatWasCutShortIsNotReported(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b := vm("a", running, 1), vm("b", running, 1)
		h := libvirtOf(a, b)
		w := watch(t, h)
		w.after(time.Second, "a=ACTIVE b=ACTIVE")
		h.with(func() { h.xmlErr[b.UUID] = errEnded })
		a.state, a.reason = paused, 1
		h.set(a)
		h.event(event{domain: b.UUID})
		w.after(time.Hour)
		h.with(func() { clear(h.xmlErr) })
		w.after(time.Minute, "a=PAUSED b=ACTIVE")
	})
}

func TestWhatIsWrongWithDomainsIsLoggedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := libvirtOf(vm("a", running, 1), vm("b", running, 1), vm("c", shutoff, 0))
		h.xmls[golibvirt.UUID{'a', 'a'}] = xmlOf(strings.Replace(hs, "vm1", "_", 1), "")
		h.xmls[golibvirt.UUID{'b', 'b'}] = xmlOf(hs, "")
		h.xmls[golibvirt.UUID{'c', 'c'}] = xmlOf(hs, "")
		w := watch(t, h)
		w.after(time.Hour, "vm1=ACTIVE")
		w.log.Want(t, `does not name a Server`, `"Server"="tenant/vm1"`, "Connected")
	})
}

func TestALogIsNotFloodedWithDomains(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := libvirtOf()
		for i := range 1000 {
			d := vm("a", running, 1)
			d.UUID = golibvirt.UUID{byte(i), byte(i >> 8)}
			h.xmls[d.UUID] = xmlOf(strings.Replace(hs, "vm1", "_", 1), "")
			h.set(d)
		}
		w := watch(t, h)
		w.after(3*time.Minute, "")
		w.log.Want(t, append(slices.Repeat([]string{"does not name a Server"}, maxNotes), `"number"=984`, "Connected")...)
	})
}

func TestMoreChangesThanCanBeKeptHaveAllRead(t *testing.T) {
	b := newInbox()
	for i := range maxChanged + 1 {
		b.put(event{domain: golibvirt.UUID{byte(i), byte(i >> 8), byte(i >> 16)}})
	}
	if changed, _, many := b.take(); len(changed) != maxChanged || !many {
		t.Errorf("%d changed, many %v", len(changed), many)
	}
	if changed, _, many := b.take(); len(changed) != 0 || many {
		t.Errorf("afterwards %d changed, many %v", len(changed), many)
	}
}
