// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// hours is a span in hours after now; without an end where to is 0.
func hours(from, to int) *span {
	s := &span{from: now.Add(time.Duration(from) * time.Hour)}
	if to != 0 {
		s.to = now.Add(time.Duration(to) * time.Hour)
	}
	return s
}

func TestSchedule(t *testing.T) {
	free := func(n int) []candidate { return make([]candidate, n) }
	keeps := func(from, to int) candidate { return candidate{taken: hours(from, to), keeps: true} }
	out := candidate{taken: hours(0, 0)}
	for name, c := range map[string]struct {
		hosts  []candidate
		length int
		limit  int
		// want are the hours at which the spans begin; -1 for a host that gets none.
		want []int
	}{
		"nobody":                                    {nil, 2, 1, []int{}},
		"one at a time":                             {free(3), 2, 1, []int{1, 3, 5}},
		"two at a time":                             {free(5), 2, 2, []int{1, 1, 3, 3, 5}},
		"all at once":                               {free(3), 2, 3, []int{1, 1, 1}},
		"more than there are":                       {free(2), 2, 9, []int{1, 1}},
		"around one that has a window":              {append(free(3), keeps(2, 4)), 2, 1, []int{4, 6, 8, -1}},
		"beside one that has a window":              {append(free(3), keeps(2, 4)), 2, 2, []int{1, 3, 4, -1}},
		"before one that has a window":              {append(free(2), keeps(3, 4)), 2, 1, []int{1, 4, -1}},
		"a window that ends when the first begins":  {append(free(2), keeps(0, 1)), 2, 1, []int{1, 3, -1}},
		"two windows one after the other count one": {append(free(1), keeps(1, 2), keeps(2, 3)), 2, 2, []int{1, -1, -1}},
		"two windows at once count two":             {append(free(1), keeps(1, 3), keeps(2, 4)), 2, 2, []int{3, -1, -1}},
		"a host that is out of service is first":    {[]candidate{{}, out, {}}, 2, 2, []int{1, 1, 3}},
		"such a host alone":                         {[]candidate{out}, 2, 1, []int{1}},
		"two such hosts are too many":               {[]candidate{out, out}, 2, 1, nil},
		"and wait for others with them":             {[]candidate{out, keeps(0, 4)}, 2, 1, []int{4, -1}},
		"such a host leaves no room":                {[]candidate{{}, out}, 2, 1, nil},
		"nor does a window without an end":          {append(free(1), keeps(5, 0)), 5, 1, nil},
		"but before it there is":                    {append(free(1), keeps(5, 0)), 4, 1, []int{1, -1}},
		"windows that are too many by themselves":   {append(free(1), keeps(0, 9), keeps(0, 7), keeps(0, 8)), 2, 2, []int{8, -1, -1, -1}},
		"no host is without a window":               {[]candidate{keeps(0, 0), keeps(0, 0)}, 2, 1, []int{-1, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			length := time.Duration(c.length) * time.Hour
			spans, fits := schedule(c.hosts, now.Add(time.Hour), length, c.limit)
			if fits != (c.want != nil) {
				t.Fatalf("there is room: %t", fits)
			}
			var got []int
			for _, s := range spans {
				if s == (span{}) {
					got = append(got, -1)
					continue
				}
				got = append(got, int(s.from.Sub(now)/time.Hour))
				if s.to.Sub(s.from) != length {
					t.Errorf("%v lasts %s", s, s.to.Sub(s.from))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" && len(c.want)+len(got) > 0 {
				t.Errorf("hours after now (-want +got):\n%s", diff)
			}
		})
	}
}

// covers reports whether a host is in maintenance at a time, in one of the spans.
func covers(at time.Time, spans ...span) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return !at.Before(s.from) && (s.endless() || at.Before(s.to)) })
}

// However the hosts are taken, no host gets a time at which limit others are taken, no
// host could have got an earlier one, and there is room unless limit hosts are taken
// without an end.
func TestAScheduleNeverTakesMoreThanTheLimitAndIsTheEarliest(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		minute := func(n int) time.Time { return now.Add(time.Duration(n) * time.Minute) }
		limit := rapid.IntRange(1, 4).Draw(r, "limit")
		length := rapid.IntRange(1, 12).Draw(r, "length")
		start := rapid.IntRange(0, 20).Draw(r, "start")
		hosts := make([]candidate, rapid.IntRange(0, 9).Draw(r, "hosts"))
		endless := 0
		for i := range hosts {
			hosts[i].name = fmt.Sprintf("compute-%d", i+1)
			switch rapid.SampledFrom([]string{"free", "free", "free", "window", "window", "no end", "out"}).Draw(r, "host") {
			case "window":
				from := rapid.IntRange(-10, 50).Draw(r, "from")
				hosts[i].keeps, hosts[i].taken = true, &span{minute(from), minute(from + rapid.IntRange(1, 20).Draw(r, "open for"))}
			case "no end":
				endless++
				hosts[i].keeps, hosts[i].taken = true, &span{from: minute(rapid.IntRange(-10, 50).Draw(r, "from"))}
			case "out":
				endless++
				hosts[i].taken = &span{from: now}
			}
		}
		spans, fits := schedule(hosts, minute(start), time.Duration(length)*time.Minute, limit)
		if !fits {
			if endless < limit {
				r.Fatalf("there is no room beside %d endless ones", endless)
			}
			return
		}
		// all are the spans of each host: at first what it has already.
		all := make([][]span, len(hosts))
		for i, host := range hosts {
			if host.taken != nil {
				all[i] = append(all[i], *host.taken)
			}
		}
		taken := func(from, length int) (n int) {
			for at := from; at < from+length; at++ {
				now := 0
				for _, s := range all {
					if covers(minute(at), s...) {
						now++
					}
				}
				n = max(n, now)
			}
			return n
		}
		earliest := func(host candidate, s span, more int) {
			from := int(s.from.Sub(now) / time.Minute)
			if taken(from, length)+more > limit {
				r.Fatalf("%s begins at %d, when there is no room", host.name, from)
			}
			for earlier := start; earlier < from; earlier++ {
				if taken(earlier, length)+more <= limit {
					r.Fatalf("%s begins at %d, and could have begun at %d", host.name, from, earlier)
				}
			}
		}
		for i, s := range spans {
			if hosts[i].keeps && s != (span{}) {
				r.Fatalf("%s keeps its window and gets another", hosts[i].name)
			} else if !hosts[i].keeps && hosts[i].taken != nil {
				earliest(hosts[i], s, 0)
			}
		}
		for i, s := range spans {
			if hosts[i].taken == nil {
				earliest(hosts[i], s, 1)
				all[i] = append(all[i], s)
			}
		}
		for i, s := range spans {
			if from := int(s.from.Sub(now) / time.Minute); !hosts[i].keeps && taken(from, length) > limit {
				r.Fatalf("while %s has its time, from %d on, too many are taken", hosts[i].name, from)
			}
		}
	})
}

func TestManyHostsAreScheduledOneAfterTheOther(t *testing.T) {
	for _, limit := range []int{1, 50, 5000} {
		spans, fits := schedule(make([]candidate, 5000), now, time.Hour, limit)
		if last := spans[len(spans)-1].from; !fits || !last.Equal(now.Add(time.Duration(4999/limit)*time.Hour)) {
			t.Errorf("with %d at a time the last begins at %s", limit, last)
		}
	}
}
