// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"encoding/binary"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzLease feeds whatever an outsider can write into a Lease: a host reports if
// its renewTime changed and is there, by a D within the limits, and nothing else
// about it matters.
func FuzzLease(f *testing.F) {
	f.Add(int64(0), int64(0), int32(0), true, true)
	f.Add(int64(1), int64(1), int32(60), true, true)
	f.Add(int64(5_000_000), int64(-5_000_000), int32(-1), true, false)
	f.Add(int64(253402300799999999), int64(0), int32(1<<31-1), true, true)
	f.Add(int64(-62135596800000000), int64(1), int32(2), false, true)
	f.Fuzz(func(t *testing.T, first, second int64, seconds int32, hasTime, hasDuration bool) {
		of := func(micros int64) Lease {
			l := &coordinationv1.Lease{}
			if hasTime {
				l.Spec.RenewTime = &metav1.MicroTime{Time: time.UnixMicro(micros)}
			}
			if hasDuration {
				l.Spec.LeaseDurationSeconds = &seconds
			}
			return fromLease(l)
		}
		s := newSim(t)
		s.leases["a"] = of(first)
		s.restart()
		s.list()
		s.core.lead(s.now)
		s.track(0, NoVerdict, "a")
		s.want("a", Waiting) // What is in the first list is no renewal.
		s.core.observe(s.now, s.wall(), space, "a", of(second))

		want := Waiting
		if hasTime && !of(second).RenewTime.IsZero() && first != second {
			want = Reports
		}
		s.want("a", want)
		v, _ := s.core.verdict(s.now, "a", "a")
		if v.Duration < 3*time.Second || v.Duration > time.Hour {
			t.Fatalf("judged by %v", v.Duration)
		}
		s.run(v.Duration + time.Second)
		if want == Reports {
			s.want("a", Expired)
		} else {
			s.want("a", NeverReported)
		}
	})
}

// FuzzEvents feeds events in any order, for a few hosts: nothing panics, and the
// deadlines stay in order and belong to subjects that wait for one.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("a renewal, a canary, a deletion and some time in between"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Fuzz(func(t *testing.T, script []byte) {
		s := newSim(t, "0")
		names := []string{"0", "1", "2", "3"}
		for len(script) >= 3 {
			what, name, n := script[0]%10, names[script[1]%4], script[2]
			arg := time.Duration(binary.LittleEndian.Uint16([]byte{n, script[1]})) * time.Millisecond
			script = script[3:]
			switch what {
			case 0:
				s.run(arg)
			case 1:
				s.leases[name] = Lease{RenewTime: s.wall(), Duration: time.Duration(int8(n)) * time.Second}
				s.core.observe(s.now, s.wall(), space, name, s.leases[name])
			case 2:
				delete(s.leases, name)
				s.core.deleted(space, name)
			case 3:
				s.list()
			case 4:
				in := subjectNamed(name, time.Duration(n%4)*3*time.Second, Reporting(n)%(NotReadable+1))
				in.Generation = int64(script0(script))
				s.core.track(s.now, in)
			case 5:
				s.core.forget(name, subjectNamed(name, 0, NoVerdict).UID)
			case 6:
				in := subjectNamed(name, 0, NoVerdict)
				in.Generation, in.Lease.Name = 1000, names[n%4]
				if n > 127 {
					in.Lease.Namespace = "elsewhere"
				}
				s.core.track(s.now, in)
			case 7:
				s.core.echoed(s.now, space, token(n))
			case 8:
				s.apiDown = n%2 == 0
			case 9:
				s.resume()
				s.watchStalled = n%2 == 0
			}
			check(t, s.core)
		}
	})
}

func script0(script []byte) byte {
	if len(script) == 0 {
		return 0
	}
	return script[0]
}

// check compares everything that is kept twice.
func check(t *testing.T, c *core) {
	t.Helper()
	waiting := map[*namespace]int{}
	inUse := map[*namespace]int{}
	for _, s := range c.subjects {
		inUse[s.watch]++
		if (s.place == noPlace) != s.reporting.silent() {
			t.Fatalf("%s is %d and has place %d among the deadlines", s.name, s.reporting, s.place)
		}
		if s.place != noPlace {
			waiting[s.watch]++
			if s.watch.deadlines.items[s.place] != s {
				t.Fatalf("%s is not where it thinks it is", s.name)
			}
		}
	}
	for _, w := range append([]*namespace{c.unreadable}, c.watches[space]) {
		if len(w.deadlines.items) != waiting[w] {
			t.Fatalf("%d deadlines for %d subjects that wait", len(w.deadlines.items), waiting[w])
		}
		for i, s := range w.deadlines.items {
			if i > 0 && w.deadlines.items[(i-1)/2].deadline > s.deadline {
				t.Fatal("deadlines are out of order")
			}
		}
		total := 0
		for _, n := range w.durations {
			total += n
		}
		if total != inUse[w] {
			t.Fatalf("%d values of D for %d subjects", total, inUse[w])
		}
	}
}
