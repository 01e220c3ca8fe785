// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	d        = 30 * time.Second
	interval = 10 * time.Second
)

// rule runs a test named after the rule that it shows.
func rule(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, test)
}

func TestRule1JudgeByArrivalNotByTheHostsClock(t *testing.T) {
	rule(t, "a renewal is a change of renewTime and counts from the moment it was seen", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.run(7 * time.Second)
		s.want("a", Waiting)
		h := s.host("a", interval)
		s.want("a", Reports)
		h.alive = false
		within(t, "verdict after the arrival", s.until("a", Expired, time.Hour)-7*time.Second, d, d+250*time.Millisecond)
	})
	rule(t, "an event that does not change renewTime is no renewal", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval).alive = false
		for range 6 {
			s.run(10 * time.Second)
			s.core.observe(s.now, s.wall(), space, "a", s.leases["a"])
		}
		s.want("a", Expired)
	})
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		rule(t, fmt.Sprintf("a host whose clock is %v off is not a dead host, and its skew is a warning at the edge only", skew), func(t *testing.T) {
			s := newSim(t)
			s.track(d, NoVerdict, "a")
			h := s.host("a", interval)
			s.run(time.Minute)
			h.skew = skew
			s.never("a", Expired, 5*time.Minute)
			h.skew = 0
			s.never("a", Expired, agreementHolds-time.Minute)
			if got := fmt.Sprint(s.skews); got != "[a true]" {
				t.Fatalf("warnings of skew, while the clock may go wrong again: %s", got)
			}
			s.never("a", Expired, 2*time.Minute)
			if got := fmt.Sprint(s.skews); got != "[a true a false]" {
				t.Fatalf("warnings of skew: %s", got)
			}
		})
	}
	rule(t, "a clock that goes to and fro is warned of once, however often it does", func(t *testing.T) {
		for _, skews := range [][]time.Duration{{0, time.Hour}, {0, -time.Hour}, {maxClockSkew - time.Second, maxClockSkew + time.Second}, {-time.Hour, time.Hour}, {0, 0, 0, 0, 0, time.Minute}} {
			s := newSim(t)
			s.track(d, NoVerdict, "a")
			h := s.host("a", interval)
			for i := range 360 {
				h.skew = skews[i%len(skews)]
				s.run(interval)
			}
			if got := fmt.Sprint(s.skews); got != "[a true]" {
				t.Errorf("an hour of %v gave %d warnings: %.60s", skews, len(s.skews), got)
			}
			if got := s.core.sights(s.now)[0].skewed; got != 1 {
				t.Errorf("an hour of %v: %d hosts are counted as skewed, want 1", skews, got)
			}
		}
	})
	rule(t, "a renewal that is read late, after a pause of our own, shows nothing about the host's clock", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval)
		s.run(time.Minute)
		s.paused = true
		s.run(20 * time.Second)
		s.resume()
		s.run(time.Minute)
		if len(s.skews) > 0 {
			t.Fatalf("warnings of skew: %v", s.skews)
		}
	})
	rule(t, "a renewTime that goes backwards, is in year 9999 or comes after none is a renewal, an empty one is not", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.core.observe(s.now, s.wall(), space, "a", Lease{})
		s.want("a", Waiting)
		times := []time.Time{epoch, epoch.Add(-time.Hour), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), epoch}
		for _, at := range times {
			s.core.observe(s.now, s.wall(), space, "a", Lease{RenewTime: at})
			s.want("a", Reports)
			s.never("a", Expired, d-time.Second)
		}
		s.core.observe(s.now, s.wall(), space, "a", Lease{})
		s.until("a", Expired, 2*time.Second)
	})
	rule(t, "an own duration of the Lease is brought into range, and zero or less is none", func(t *testing.T) {
		for own, want := range map[time.Duration]time.Duration{
			0: time.Minute, -time.Second: time.Minute, time.Second: 3 * time.Second,
			20 * time.Second: 20 * time.Second, 100 * time.Hour: time.Hour,
		} {
			s := newSim(t)
			s.track(0, NoVerdict, "a")
			s.core.observe(s.now, s.wall(), space, "a", Lease{RenewTime: epoch, Duration: own})
			if v, _ := s.core.verdict(s.now, "a", "a"); v.Duration != want {
				t.Errorf("Lease with %v is judged by %v, want %v", own, v.Duration, want)
			}
		}
	})
}

func TestRule2OnlySightedTimeCounts(t *testing.T) {
	rule(t, "the leader renews the canary every tenth of the shortest D, within 0.25 and 2 s", func(t *testing.T) {
		for shortest, every := range map[time.Duration]time.Duration{
			3 * time.Second: 300 * time.Millisecond, 10 * time.Second: time.Second, time.Hour: 2 * time.Second,
		} {
			s := newSim(t)
			s.track(shortest, NoVerdict, "a")
			s.track(time.Hour, NoVerdict, "b")
			s.host("a", shortest/3)
			s.host("b", shortest/3)
			s.run(time.Minute)
			if want := int(time.Minute / every); s.canaries < want-1 || s.canaries > want+1 {
				t.Errorf("%d canaries in a minute with a shortest D of %v, want %d", s.canaries, shortest, want)
			}
		}
	})
	rule(t, "a gap between echoes of more than a quarter of the shortest D is blind time, by which every deadline moves", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", interval)
		s.run(time.Minute)
		h.alive = false
		last := h.renewedAt
		s.run(d/4 + last - s.now)
		s.watchStalled = true
		s.run(10 * time.Second)
		s.resume()
		// From the last echo before to the first one after.
		s.wantBlindness("true 0s", "false 11s")
		// Up to one canary interval more, since only the echoes tell what was seen.
		within(t, "verdict", s.until("a", Expired, time.Hour)-last, d+10*time.Second, d+10*time.Second+maxCanaryInterval+250*time.Millisecond)
	})
	rule(t, "a shorter gap is not blind time", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", interval)
		s.run(time.Minute)
		h.alive = false
		last := h.renewedAt
		s.run(10 * time.Second)
		s.watchStalled = true
		s.run(d/4 - maxCanaryInterval)
		s.resume()
		s.wantBlindness()
		within(t, "verdict", s.until("a", Expired, time.Hour)-last, d, d+250*time.Millisecond)
	})
	rule(t, "a gap that is blind for a short D does not hold up the verdict on a host of a long one", func(t *testing.T) {
		s := newSim(t)
		s.track(4*time.Second, NoVerdict, "short")
		s.track(time.Minute, NoVerdict, "long")
		s.host("short", time.Second)
		s.host("long", 20*time.Second).alive = false
		for range 5 { // With each stall, half of the long D would have to be waited for.
			s.run(14 * time.Second)
			s.watchStalled = true
			s.run(2 * time.Second)
			s.resume()
			if s.verdictOn("long") == Expired {
				break
			}
		}
		s.want("long", Expired)
		s.want("short", Reports)
		if len(s.blindness) == 0 {
			t.Fatal("it was never blind")
		}
	})
	rule(t, "a pause of our own loop is blind time", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a", "b")
		a, b := s.host("a", interval), s.host("b", interval)
		s.run(time.Minute)
		a.alive = false
		last := a.renewedAt
		s.paused = true
		s.run(10 * time.Minute)
		b.alive = false // It dies in the pause, so D counts from the end of it.
		s.run(time.Minute)
		s.resume()
		end := s.now
		s.want("a", Reports)
		s.never("a", Expired, d/2)
		s.until("a", Expired, d-(time.Minute-last)+maxCanaryInterval)
		within(t, "verdict on the host that died in the pause", s.until("b", Expired, time.Hour)-end, d/2, d+250*time.Millisecond)
	})
	rule(t, "no verdict falls before D/2 of sighted time has followed blind time, so that hosts cut off together with us come back first", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval)
		s.run(time.Minute)
		s.apiDown = true // For everybody.
		s.never("a", Expired, 20*time.Minute)
		s.apiDown = false
		s.never("a", Expired, time.Hour)
	})
	rule(t, "a host whose deadline was near when sight was lost has D/2 after it too", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", time.Hour) // Renews by hand, below.
		s.run(d - time.Second)
		s.watchStalled = true
		s.run(10 * time.Second)
		s.resume()
		s.never("a", Expired, d/2)
		h.renewals++
		s.renew("a", h)
		s.never("a", Expired, d-time.Second)
	})
	rule(t, "a host that died while nobody saw it is found D/2 to D after sight is back", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", interval)
		s.run(time.Minute)
		s.apiDown = true
		h.alive = false
		s.run(10 * time.Minute)
		s.apiDown = false
		up := s.now
		within(t, "verdict", s.until("a", Expired, time.Hour)-up, d/2, d+time.Second)
	})
	rule(t, "a slow API server does not hide dead hosts for ever", func(t *testing.T) {
		s := newSim(t)
		s.track(10*time.Second, NoVerdict, "a")
		s.watchDelay = 4 * time.Second
		h := s.host("a", 3*time.Second)
		s.run(time.Minute)
		s.want("a", Reports)
		h.alive = false
		within(t, "verdict", s.until("a", Expired, time.Hour)-h.renewedAt, 10*time.Second, 10*time.Second+2*s.watchDelay+time.Second)
	})
	rule(t, "guards delay a verdict by D/2 for each blind time at most", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", interval)
		s.run(time.Minute)
		h.alive = false
		last := h.renewedAt
		blind := time.Duration(0)
		for range 3 {
			s.run(12 * time.Second)
			s.watchStalled = true
			s.run(9 * time.Second)
			blind += 9*time.Second + maxCanaryInterval
			s.resume()
		}
		within(t, "verdict", s.until("a", Expired, time.Hour)-last, d, d+blind+3*d/2+time.Second)
	})
	rule(t, "a watch that delivers nothing while canaries are written is opened again, and again", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.watchStalled = true
		s.run(d + time.Second)
		if s.reopened < 2 || s.reopened > 4 {
			t.Fatalf("opened again %d times in one D, want about one each D/4", s.reopened)
		}
		s.want("a", Waiting)
	})
	rule(t, "a watch is not opened again while the API server is down", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.run(time.Second)
		s.apiDown = true
		s.run(10 * time.Minute)
		if s.reopened != 0 {
			t.Fatalf("opened again %d times", s.reopened)
		}
		if len(s.core.watches[space].pending) > maxCanariesPending {
			t.Fatalf("%d canaries are remembered", len(s.core.watches[space].pending))
		}
	})
}

func TestRule3ProveBeforeDeclaring(t *testing.T) {
	rule(t, "when a deadline has passed, one canary is written at once and its echo is the barrier", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", interval)
		h.alive = false
		within(t, "verdict", s.until("a", Expired, time.Hour), d+latency, d+proofInterval+latency+2*time.Millisecond)
	})
	rule(t, "what was renewed before the echo is not silent, however late it arrives", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", time.Hour) // Renews by hand, below.
		s.run(d - time.Millisecond)
		s.watchDelay = 5 * time.Second
		h.renewals++
		s.renew("a", h)
		s.never("a", Expired, d)
	})
	rule(t, "one canary in flight serves all: 500 hosts that fall silent in the same second cost a handful of writes", func(t *testing.T) {
		s := newSim(t)
		for i := range 500 {
			name := fmt.Sprintf("host-%d", i)
			s.track(d, NoVerdict, name)
			h := s.host(name, interval)
			s.after(time.Duration(i)*2*time.Millisecond+25*time.Second, func() { h.alive = false })
		}
		s.run(40 * time.Second)
		before := s.canaries
		s.run(20 * time.Second)
		for i := range 500 {
			s.want(fmt.Sprintf("host-%d", i), Expired)
		}
		if extra := s.canaries - before - int(20*time.Second/maxCanaryInterval); extra > 20 {
			t.Fatalf("%d canaries beyond the regular ones", extra)
		}
	})
	rule(t, "no echo means blind time", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval).alive = false
		s.run(d - time.Second)
		s.watchStalled = true
		s.never("a", Expired, time.Hour)
		s.wantBlindness("true 0s")
	})
	rule(t, "a canary that was sent before the deadline proves nothing", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval).alive = false
		s.run(d - time.Millisecond)
		t1 := s.core.newToken(s.wall())
		w := s.core.watches[space]
		w.pending = append(w.pending, sentCanary{token: t1, at: s.now})
		s.run(0)
		s.now = d + time.Millisecond
		s.core.echoed(s.now, space, t1)
		s.want("a", Reports)
	})
	rule(t, "a canary in a list does not overtake the renewals in the same list", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		h := s.host("a", time.Hour)
		s.run(d - time.Millisecond)
		s.watchStalled = true
		s.run(time.Second) // The proof is written, and the renewal too.
		h.renewals++
		s.renew("a", h)
		s.backlog, s.watchStalled = nil, false
		s.list()
		s.want("a", Reports)
		s.never("a", Expired, d-time.Second)
	})
	rule(t, "a Lease that was deleted is no verdict: its deadline stands", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval).alive = false
		s.run(10 * time.Second)
		s.core.deleted(space, "a")
		s.never("a", Expired, 19*time.Second)
		s.until("a", Expired, 2*time.Second)
	})
	rule(t, "a write that fails is tried again, and does not keep the verdict waiting", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval).alive = false
		s.run(d - 10*time.Millisecond)
		s.apiDown = true
		s.run(20 * time.Millisecond)
		s.apiDown = false
		within(t, "verdict", s.until("a", Expired, time.Hour), d, d+500*time.Millisecond)
	})
}

func TestRule4ARestartForgetsNothing(t *testing.T) {
	rule(t, "a new leader keeps what reports for one D from its first sight", func(t *testing.T) {
		s := newSim(t, "a")
		s.track(d, Reports, "a")
		s.want("a", Reports)
		within(t, "verdict", s.until("a", Expired, time.Hour), d, d+250*time.Millisecond)
	})
	rule(t, "its first sight is its first list, whatever the Ds in it, and however late it comes", func(t *testing.T) {
		for _, delay := range []time.Duration{0, time.Second, 10 * time.Second, time.Minute, 5 * time.Minute} {
			s := unsyncedSim(t)
			s.core.lead(s.now)
			s.track(0, Reports, "a")
			s.leases["a"] = Lease{RenewTime: epoch.Add(-time.Hour), Duration: 8 * time.Second}
			s.run(delay)
			s.list()
			within(t, "verdict", s.until("a", Expired, time.Hour)-delay, 8*time.Second, 8*time.Second+250*time.Millisecond)
		}
	})
	rule(t, "until its first list comes a leader is blind, and reports it", func(t *testing.T) {
		s := unsyncedSim(t)
		s.track(d, Reports, "a")
		s.run(time.Minute)
		s.wantBlindness() // A standby judges nothing.
		s.core.lead(s.now)
		s.run(d/4 - time.Millisecond)
		s.wantBlindness()
		s.run(d)
		s.wantBlindness("true 0s")
		s.list()
		s.wantBlindness("true 0s", fmt.Sprintf("false %v", (d+d/4-time.Millisecond).Round(time.Second)))
		if s.canaries > 0 || s.reopened > 0 {
			t.Errorf("%d canaries were written and the watch was opened %d times again before there was one", s.canaries, s.reopened)
		}
	})
	rule(t, "a new leader keeps what was silent silent until a renewal arrives", func(t *testing.T) {
		for _, memory := range []Reporting{Expired, NeverReported} {
			s := newSim(t, "a")
			s.track(d, memory, "a")
			for range 10 {
				s.run(d / 2)
				s.want("a", memory)
			}
			s.host("a", interval)
			s.want("a", Reports)
		}
	})
	rule(t, "a Lease that appears after the initial list is a renewal, one in the initial list is not", func(t *testing.T) {
		s := newSim(t, "old")
		s.track(d, NoVerdict, "old", "new")
		s.run(time.Second)
		s.want("old", Waiting)
		s.core.observe(s.now, s.wall(), space, "new", Lease{RenewTime: epoch.Add(-time.Hour)})
		s.want("new", Reports)
	})
	rule(t, "a Lease that appears in a later list is a renewal too, and what is unchanged in it is none", func(t *testing.T) {
		s := newSim(t, "old")
		s.track(d, NoVerdict, "old", "new")
		s.run(time.Second)
		s.leases["new"] = Lease{RenewTime: epoch}
		s.list()
		s.want("old", Waiting)
		s.want("new", Reports)
	})
	rule(t, "a Lease that was deleted and made again is a renewal, even with the same renewTime", func(t *testing.T) {
		s := newSim(t, "a")
		s.track(d, Expired, "a")
		s.run(time.Second)
		s.core.deleted(space, "a")
		s.want("a", Expired)
		s.core.observe(s.now, s.wall(), space, "a", s.leases["a"])
		s.want("a", Reports)
	})
	rule(t, "a new ComputeService whose Lease is known to report is UP at once", func(t *testing.T) {
		s := newSim(t)
		h := s.host("a", interval)
		s.run(time.Minute + 5*time.Second)
		s.track(d, NoVerdict, "a")
		s.want("a", Reports)
		h.alive = false
		within(t, "verdict", s.until("a", Expired, time.Hour)-h.renewedAt, d, d+250*time.Millisecond)
	})
	rule(t, "otherwise it waits for its first renewal or one D, and then has never reported", func(t *testing.T) {
		s := newSim(t, "b")
		s.run(time.Second)
		s.track(d, NoVerdict, "a", "b")
		s.never("a", NeverReported, d)
		s.until("a", NeverReported, time.Second)
		s.until("b", NeverReported, time.Second)
		s.host("a", interval)
		s.want("a", Reports)
	})
	rule(t, "a ComputeService made again under the same name is a new one", func(t *testing.T) {
		s := newSim(t)
		s.track(d, Expired, "a")
		again := subjectNamed("a", d, NoVerdict)
		again.UID = "other"
		s.core.track(s.now, again)
		if v, ok := s.core.verdict(s.now, "a", "other"); !ok || v.Reporting != Waiting {
			t.Fatalf("verdict on the new one: %v, %v", v, ok)
		}
		s.core.forget("a", "a") // The deletion of the old one comes late.
		if _, ok := s.core.verdict(s.now, "a", "other"); !ok {
			t.Fatal("the new one was forgotten with the old one")
		}
	})
	rule(t, "re-pointing leaseRef keeps the last verdict for one D", func(t *testing.T) {
		s := newSim(t, "elsewhere")
		s.track(d, NoVerdict, "a")
		s.host("a", interval)
		s.run(time.Minute)
		moved := subjectNamed("a", d, Reports)
		moved.Generation, moved.Lease.Name = 2, "elsewhere"
		s.core.track(s.now, moved)
		s.never("a", Expired, d-time.Second)
		s.until("a", Expired, 2*time.Second)
		moved.Generation, moved.Lease.Name = 3, "a"
		s.core.track(s.now, moved)
		s.want("a", Reports)
	})
	rule(t, "a Lease in a namespace that is not read: the last verdict for one D, then NotReadable, and at once if there was none", func(t *testing.T) {
		s := newSim(t)
		for name, memory := range map[string]Reporting{"up": Reports, "new": NoVerdict, "silent": Expired} {
			in := subjectNamed(name, d, memory)
			in.Lease.Namespace = "elsewhere"
			s.core.track(s.now, in)
		}
		s.want("new", NotReadable)
		s.want("silent", NotReadable)
		s.run(d - time.Millisecond)
		s.want("up", Reports)
		s.run(2 * time.Millisecond)
		s.want("up", NotReadable)
		s.core.track(s.now, Subject{Name: "up", UID: "up", Generation: 2, Duration: d, Lease: types.NamespacedName{Namespace: space, Name: "up"}})
		s.want("up", NeverReported)
		s.host("up", interval)
		s.want("up", Reports)
	})
	rule(t, "the Lease of another Node of the same name does not count for a host, whether it is renewed before or after the Node has changed", func(t *testing.T) {
		s := newSim(t)
		s.host("a", interval).node = "old"
		s.run(time.Minute)
		of := func(node types.UID, uid types.UID, memory Reporting) Subject {
			in := subjectNamed("a", d, memory)
			in.UID, in.Node = uid, node
			return in
		}
		s.core.track(s.now, of("old", "a", NoVerdict))
		s.want("a", Reports)
		s.core.forget("a", "a")
		s.core.track(s.now, of("new", "a", NoVerdict))
		s.want("a", Waiting)
		s.never("a", Reports, 10*time.Minute)
		s.want("a", NeverReported)
		if v, _ := s.core.verdict(s.now, "a", "a"); v.SinceRenewal >= 0 {
			t.Errorf("it has renewed %v ago", v.SinceRenewal)
		}
		s.hosts["a"].node = "new"
		s.until("a", Reports, interval)
		s.hosts["a"].node = "old"
		began := s.now
		within(t, "silence after its own last renewal", s.until("a", Expired, time.Hour)-began, d-interval, d+time.Second)
		s.core.track(s.now, of("old", "a", Expired))
		s.want("a", Reports)
		s.hosts["a"].node = ""
		s.core.track(s.now, of("new", "a", Reports))
		s.never("a", Expired, 10*time.Minute) // A Lease without an owner is the host's own.
	})
	rule(t, "standbys keep warm: one that takes over judges by what it saw", func(t *testing.T) {
		s := unsyncedSim(t)
		s.list()
		s.track(d, NoVerdict, "dead", "alive", "silent")
		s.core.track(s.now, subjectNamed("silent", d, Expired)) // The leader's verdict.
		dead, _ := s.host("dead", interval), s.host("alive", interval)
		foreign := func() { s.canary = s.core.newToken(s.wall()); s.core.echoed(s.now, space, s.canary) }
		for range 30 { // The leader's canaries.
			s.run(time.Second)
			foreign()
		}
		dead.alive = false
		for range 60 {
			s.run(time.Second)
			foreign()
		}
		if s.canaries > 0 {
			t.Fatal("a standby wrote canaries")
		}
		s.want("dead", Reports) // It does not judge.
		s.core.lead(s.now)
		within(t, "verdict after taking over", s.until("dead", Expired, time.Hour)-90*time.Second, 0, time.Second)
		s.want("alive", Reports)
		s.want("silent", Expired)
	})
	rule(t, "a canary that has waited while a standby was paused does not show it anything", func(t *testing.T) {
		const d = 4 * time.Second
		s := unsyncedSim(t)
		s.list()
		s.track(d, NoVerdict, "a")
		h := s.host("a", d/3)
		foreign := func() { s.canary = s.core.newToken(s.wall()); s.core.echoed(s.now, space, s.canary) }
		for range 100 { // The leader's canaries.
			s.run(400 * time.Millisecond)
			foreign()
		}
		h.alive = false
		s.paused = true
		s.run(20 * time.Second)
		s.paused = false
		foreign() // Both were written in the middle of the pause.
		foreign()
		s.run(d/4 - 350*time.Millisecond)
		s.core.lead(s.now)
		took := s.now
		within(t, "verdict after the first canary of its own", s.until("a", Expired, time.Hour)-took, d-d/10, d+d/10)
	})
	rule(t, "a canary that has waited does not divide a blind time in two, of which one is too short to count for a long D", func(t *testing.T) {
		const short, long = 4 * time.Second, 12 * time.Second
		s := unsyncedSim(t)
		s.list()
		s.core.track(s.now, subjectNamed("short", short, NoVerdict))
		s.core.track(s.now, subjectNamed("long", long, NoVerdict))
		s.host("short", 400*time.Millisecond)
		h := s.host("long", 400*time.Millisecond)
		foreign := func() { s.canary = s.core.newToken(s.wall()); s.core.echoed(s.now, space, s.canary) }
		for range 100 { // The leader's canaries.
			s.run(400 * time.Millisecond)
			foreign()
		}
		h.alive = false
		s.paused = true // Its watch stalls, and its leader dies.
		s.run(6 * time.Second)
		s.resume()
		foreign()
		foreign()
		s.run(long/4 - 400*time.Millisecond)
		s.core.lead(s.now)
		took := s.now
		within(t, "verdict after the first canary of its own", s.until("long", Expired, time.Hour)-took, long-time.Second, long+time.Second)
	})
	rule(t, "canaries that come slowly after a blind time do not put off verdicts for ever", func(t *testing.T) {
		s := newSim(t)
		s.track(4*time.Second, NoVerdict, "a")
		s.host("a", time.Second).alive = false
		s.run(time.Second)
		s.watchStalled = true
		s.run(10 * time.Second)
		s.resume()
		s.watchDelay = 2 * time.Second // Each canary is old when it comes.
		s.until("a", Expired, 20*time.Second)
	})
	rule(t, "a standby that sees no canary opens its watches again, over and over", func(t *testing.T) {
		s := unsyncedSim(t)
		s.list()
		s.track(d, NoVerdict, "a")
		for range 60 {
			s.run(time.Second)
			s.canary = s.core.newToken(s.wall())
			s.core.echoed(s.now, space, s.canary)
		}
		if s.reopened > 0 {
			t.Fatalf("opened %d times while a leader was visible", s.reopened)
		}
		s.run(d)
		if s.reopened != 3 {
			t.Fatalf("opened %d times in %s", s.reopened, d)
		}
	})
	rule(t, "a standby follows the leader's verdict and a renewal after it", func(t *testing.T) {
		s := unsyncedSim(t)
		s.list()
		s.track(d, Reports, "a")
		s.track(d, Expired, "a")
		s.want("a", Expired)
		s.host("a", interval)
		s.want("a", Reports)
		s.track(d, Expired, "a") // The same verdict again is no news.
		s.want("a", Reports)
	})
	rule(t, "a standby that takes over does not contradict the last verdict by what it was shown, which may be older", func(t *testing.T) {
		s := unsyncedSim(t)
		s.list()
		s.track(d, Expired, "dead", "back")
		for i, name := range []string{"dead", "back"} { // From a watch that brought nothing for a while.
			s.core.observe(s.now, s.wall(), space, name, Lease{RenewTime: epoch.Add(-time.Duration(i+1) * time.Minute)})
			s.want(name, Reports)
		}
		s.core.lead(s.now)
		s.want("dead", Expired)
		s.want("back", Expired)
		s.run(time.Second)
		s.host("back", interval)
		s.want("back", Reports)
		s.never("dead", Reports, 2*d)
	})
	rule(t, "that a namespace cannot be read is no news from another leader to one that can read it", func(t *testing.T) {
		s := unsyncedSim(t)
		s.list()
		s.track(d, NoVerdict, "a")
		s.track(d, NotReadable, "a")
		s.want("a", NeverReported)
	})
	rule(t, "a leader does not take its own stored verdict for news", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.run(time.Second)
		s.host("a", interval)
		s.track(d, Expired, "a")
		s.want("a", Reports)
	})
	rule(t, "what a new leader is shown before it sees may be older than the last leader's verdict, and does not contradict it", func(t *testing.T) {
		s := newSim(t, "dead", "back", "known")
		s.track(d, Expired, "dead", "back")
		s.track(d, Reports, "known")
		for i, name := range []string{"dead", "back", "known"} { // From a watch that brought nothing for a while.
			s.core.observe(s.now, s.wall(), space, name, Lease{RenewTime: epoch.Add(-time.Duration(i+1) * time.Minute)})
		}
		s.want("dead", Expired)
		s.want("back", Expired)
		s.track(d, Expired, "known") // The last leader's verdict, late.
		s.want("known", Expired)
		s.run(time.Second)
		s.want("dead", Expired)
		s.host("back", interval)
		s.want("back", Reports)
		s.never("dead", Reports, 2*d)
	})
	rule(t, "the last leader's verdict is followed although it comes after the takeover, unless we know better", func(t *testing.T) {
		s := newSim(t, "back", "gone", "seen")
		s.track(d, Expired, "back")
		s.track(d, Reports, "gone", "seen")
		s.run(time.Second)
		s.host("seen", interval)
		s.track(d, Reports, "back")
		s.track(d, Expired, "gone", "seen")
		s.want("back", Reports)
		s.want("gone", Expired)
		s.want("seen", Reports)
		s.never("gone", Reports, 2*d)
		s.want("back", Expired) // It is kept for one D, like all that reported.
		s.track(d, Reports, "back")
		s.want("back", Expired)
	})
	rule(t, "an older spec, as a restore of etcd brings it back, is the spec", func(t *testing.T) {
		s := newSim(t)
		in := subjectNamed("a", time.Hour, NoVerdict)
		in.Generation, in.Version = 5, "50"
		s.core.track(s.now, in)
		s.changes = nil
		in.Generation, in.Version, in.Duration = 4, "40", d
		s.core.track(s.now, in)
		if v, _ := s.core.verdict(s.now, "a", "a"); v.Version != "40" || v.Duration != d {
			t.Errorf("verdict is %+v", v)
		}
		if got := fmt.Sprint(s.changes); got != "[a]" {
			t.Errorf("woke %s", got)
		}
	})
	rule(t, "a changed D moves the deadline by the change", func(t *testing.T) {
		s := newSim(t)
		s.track(time.Minute, NoVerdict, "a")
		s.host("a", interval).alive = false
		s.run(20 * time.Second)
		in := subjectNamed("a", d, NoVerdict)
		in.Generation = 2
		s.core.track(s.now, in)
		within(t, "verdict", s.until("a", Expired, time.Hour), d, d+250*time.Millisecond)
	})
}

func TestRule5ExactTimersNoPollingNoSteadyStateWrites(t *testing.T) {
	rule(t, "a renewal moves a deadline in memory and wakes nobody", func(t *testing.T) {
		s := newSim(t)
		s.track(d, NoVerdict, "a")
		s.host("a", interval)
		s.changes = nil
		s.run(time.Hour)
		if len(s.changes) != 0 {
			t.Fatalf("woke %v", s.changes)
		}
	})
	rule(t, "a renewal allocates nothing", func(t *testing.T) {
		s := newSim(t)
		for i := range 1000 {
			s.track(d, NoVerdict, fmt.Sprintf("host-%d", i))
		}
		at := epoch
		if allocs := testing.AllocsPerRun(1000, func() {
			at = at.Add(time.Second)
			s.core.observe(s.now, s.wall(), space, "host-500", Lease{RenewTime: at})
		}); allocs != 0 {
			t.Fatalf("%v allocations", allocs)
		}
	})
	rule(t, "a Lease that nobody waits for is forgotten with its deletion", func(t *testing.T) {
		s := newSim(t)
		s.host("a", interval).alive = false
		s.track(d, NoVerdict, "a")
		s.core.deleted(space, "a")
		s.core.forget("a", "a")
		if n := len(s.core.watches[space].leases); n != 0 {
			t.Fatalf("%d Leases are remembered", n)
		}
	})
}

func TestTheTimeBetweenRenewalsIsThatOfAHealthyHost(t *testing.T) {
	s := newSim(t)
	s.track(d, NoVerdict, "a")
	want := func(want time.Duration) {
		t.Helper()
		if got := s.core.watches[space].leases["a"].interval(); got != want {
			t.Errorf("at %v: renewed every %v, want %v", s.now, got, want)
		}
	}
	want(0)
	h := s.host("a", interval)
	s.run(interval + time.Second)
	want(0) // One gap alone may be a retry.
	s.run(interval)
	want(interval)
	s.apiDown = true
	s.run(time.Minute)
	s.apiDown = false
	s.run(2 * interval)
	want(interval)
	h.interval = 2 * interval
	s.run(10 * interval)
	want(2 * interval)
}

func TestRule6AClockThatWasSetIsNoticed(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour, 1500 * time.Millisecond} {
		rule(t, fmt.Sprintf("wall and monotonic clocks drifted apart by %v", step), func(t *testing.T) {
			s := newSim(t)
			s.run(time.Minute)
			s.wallOffset = step
			s.run(maxCanaryInterval)
			if s.steps != 1 {
				t.Fatalf("noticed %d times", s.steps)
			}
			s.run(time.Minute)
			if s.steps != 1 || s.canaries < 50 {
				t.Fatalf("noticed %d times, %d canaries", s.steps, s.canaries)
			}
		})
	}
}

// Whatever happens to the API server, the watch and our process: no host that
// renewed within D of sighted time is called silent, and every dead one is, in
// the end.
func TestNoFalseAlarmAndNoMissedOneInRandomWorlds(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			s := newSim(t)
			names := []string{"a", "b", "c", "d", "e"}
			durations := []time.Duration{6 * time.Second, 12 * time.Second, d, time.Minute}
			specs := map[string]time.Duration{}
			inLeases := random.IntN(2) == 0
			for _, name := range names {
				own := durations[random.IntN(len(durations))]
				if !inLeases {
					specs[name] = own
				}
				s.track(specs[name], NoVerdict, name)
				s.host(name, own/3).duration = own
			}
			look := func(times int, apart time.Duration) {
				t.Helper()
				for range times {
					s.run(time.Duration(random.Int64N(int64(apart))))
					for _, name := range names {
						if got := s.verdictOn(name); got != Reports {
							t.Fatalf("at %v: verdict on %s, which renews, is %d", s.now, name, got)
						}
					}
				}
			}
			for range 40 {
				switch random.IntN(6) {
				case 0:
					s.apiDown = true
				case 1:
					s.watchStalled = true
				case 2:
					s.paused = true
				case 3:
					s.wallOffset = time.Duration(random.Int64N(int64(time.Hour)))
				case 4:
					s.takeOver(time.Duration(random.Int64N(int64(20*time.Second))), names, specs)
					look(20, 100*time.Millisecond)
				case 5:
					s.apiDown = true
					s.takeOver(time.Duration(random.Int64N(int64(20*time.Second))), names, specs)
				}
				s.run(time.Duration(random.Int64N(int64(40 * time.Second))))
				s.apiDown = false
				s.resume()
				look(20, 2*time.Second)
			}
			for _, h := range s.hosts {
				h.alive = false
			}
			for _, name := range names {
				s.until(name, Expired, 2*time.Minute)
			}
		})
	}
}

func BenchmarkMoveDeadline(b *testing.B) {
	for _, hosts := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			nothing := hooks{
				changed: func(string) {}, clockStepped: func(time.Duration) {},
				blind: func(string, bool, time.Duration) {}, skewed: func(types.NamespacedName, time.Duration, bool) {},
			}
			c := newCore([]string{space}, time.Minute, nothing)
			c.replaced(0, epoch, space, nil, 0)
			names := make([]string, hosts)
			for i := range names {
				names[i] = fmt.Sprintf("host-%d", i)
				c.track(0, subjectNamed(names[i], d, NoVerdict))
			}
			b.ReportAllocs()
			now, i := time.Duration(0), 0
			for b.Loop() {
				now += time.Millisecond
				c.observe(now, epoch.Add(now), space, names[i%hosts], Lease{RenewTime: epoch.Add(now)})
				i++
			}
		})
	}
}
