// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestASightSaysWhatIsOverdueAndNotProven(t *testing.T) {
	s := newSim(t)
	s.track(d, NoVerdict, "a")
	s.track(d, NoVerdict, "b")
	dies := s.host("a", interval)
	s.host("b", interval)
	s.run(time.Minute)
	want := func(what string, want sight) {
		t.Helper()
		got := s.core.sights(s.now)[0]
		got.blindTime = got.blindTime.Round(time.Second)
		want.namespace = space
		if got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	want("all is well", sight{judged: true})
	if v, _ := s.core.verdict(s.now, "a", "a"); v.Overdue != 0 {
		t.Errorf("a host that reports is overdue by %v", v.Overdue)
	}

	dies.alive = false
	s.run(dies.renewedAt + d - time.Second - s.now)
	s.watchStalled = true
	s.run(3 * time.Second)
	want("a deadline has passed, and no canary comes back", sight{judged: true, unconfirmed: 1})
	s.run(d)
	if got := s.core.sights(s.now)[0]; !got.blind || got.blindTime < d {
		t.Errorf("blind for %v: %+v", d, got)
	}
	s.resume()
	s.until("a", Expired, time.Hour)
	if got := s.core.sights(s.now)[0]; got.blind || got.unconfirmed != 0 || got.blindTime < d {
		t.Errorf("sighted again, and the silence proven: %+v", got)
	}
	v, _ := s.core.verdict(s.now, "a", "a")
	within(t, "a host that was declared silent is overdue by", v.Overdue, 0, time.Second)
}

func TestAStandbyDoesNotSayHowItSees(t *testing.T) {
	s := newSim(t)
	s.core.leader = false
	s.track(d, NoVerdict, "a")
	s.host("a", interval).alive = false
	s.run(2 * d)
	if got := s.core.sights(s.now)[0]; got.judged || got.unconfirmed != 0 {
		t.Errorf("%+v", got)
	}
}

func TestPassedCountsTheDeadlinesBeforeNow(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 0))
	for range 100 {
		var all deadlines
		want, now := 0, time.Duration(random.IntN(100))
		for range random.IntN(50) {
			at := time.Duration(random.IntN(100))
			all.set(&subject{place: noPlace}, at)
			if at < now {
				want++
			}
		}
		if got := all.passed(now); got != want {
			t.Fatalf("%d of %d deadlines have passed, want %d", got, len(all.items), want)
		}
	}
}
