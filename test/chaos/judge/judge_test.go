// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at is a moment, in seconds from the start of a record.
func at(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

// renewals arrive a hundredth of a second after they were sent.
func renewals(seconds ...float64) (out []Renewal) {
	for _, s := range seconds {
		out = append(out, Renewal{at(s), at(s + 0.01)})
	}
	return out
}

// every returns the renewals of a host that renews each second.
func every(from, to float64) (out []Renewal) {
	for s := from; s <= to; s++ {
		out = append(out, renewals(s)...)
	}
	return out
}

func seen(value string, s float64) Status {
	return Status{Value: value, At: at(s), Since: at(s).Truncate(time.Second)}
}

// A host with a D of 6 s that dies at 20 and comes back at 40, and a Server on it.
func TestOfServer(t *testing.T) {
	host := Host{
		Name: "a", Duration: 6 * time.Second, Renewals: append(every(0, 20), every(40, 100)...),
		Statuses: []Status{seen(Up, 0), seen(Unknown, 26.1), seen(Up, 40.1)},
	}
	for name, c := range map[string]struct {
		statuses []Status
		want     int
	}{
		"follows":                             {[]Status{seen(Up, 0.1), seen(Unknown, 26.2), seen(Up, 40.2)}, 0},
		"follows late":                        {[]Status{seen(Up, 0.1), seen(Unknown, 35), seen(Up, 45)}, 0},
		"is seen a moment before its host":    {[]Status{seen(Up, 0.1), seen(Unknown, 25.9), seen(Up, 40.2)}, 0},
		"is written just as the host is back": {[]Status{seen(Up, 0.1), seen(Unknown, 40.5), seen(Up, 40.9)}, 0},
		"is UNKNOWN before its host":          {[]Status{seen(Up, 0.1), seen(Unknown, 23), seen(Up, 40.2)}, 1},
		"is UNKNOWN long after its host":      {[]Status{seen(Up, 0.1), seen(Unknown, 26.2), seen(Up, 40.2), seen(Unknown, 43), seen(Up, 43.1)}, 1},
		"says anything else":                  {[]Status{seen(Up, 0.1), seen("DOWN", 60)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := OfServer("s", c.statuses, host, Sight{}, at(0), at(100)); len(got) != c.want {
				t.Errorf("found %v, want %d", got, c.want)
			}
		})
	}
}

func span(from, to float64) Span { return Span{at(from), at(to)} }

// bareVerdicts are usual ones of 50 ms each second, and one from from to to.
func bareVerdicts(from, to float64) (out []Span) {
	for s := 0.0; s < 100; s++ {
		if s+0.05 < from || s > to {
			out = append(out, span(s, s+0.05))
		}
	}
	return append(out, span(from, to))
}

// A host with a D of 6 s that dies at 20 in MAINTENANCE. Nobody leads from 40 to 47, and the
// flag is cleared at 45.
func TestWhatTheLeaderBeforeHadDecidedMayShowUntilTheNextRenewal(t *testing.T) {
	const maintenance = "MAINTENANCE"
	takeover := Sight{BlindAtBest: []Span{span(40, 47)}, Takeovers: []Takeover{{At: at(47), Started: at(30)}}}
	for name, c := range map[string]struct {
		back    []Renewal
		unknown float64
		sight   Sight
		want    int
	}{
		"it came back while nobody led":                 {renewals(46, 47.5, 49), 47.8, takeover, 0},
		"it came back before that":                      {renewals(39, 40.5, 42, 43.5, 45, 46.5, 48), 47.8, takeover, 1},
		"it has renewed since, for longer than a write": {renewals(46, 47.5, 49, 50.5), 50, takeover, 1},
		"there was a leader all the time":               {renewals(46, 47.5, 49), 47.8, Sight{}, 1},
		"another has taken over, long before":           {renewals(46, 47.5, 49), 47.8, Sight{BlindAtBest: []Span{span(30, 37)}, Takeovers: []Takeover{{At: at(37), Started: at(1)}}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			host := Host{
				Name: "a", Duration: 6 * time.Second, Renewals: append(every(0, 20), c.back...),
				Statuses: []Status{seen(maintenance, 0), seen(Unknown, c.unknown), seen(Up, c.unknown+0.3)},
			}
			got := slices.DeleteFunc(Judge(host, c.sight, at(0), at(51)), func(f Finding) bool { return f.Kind != FalseUnknown })
			if len(got) != c.want {
				t.Errorf("found %v, want %d", got, c.want)
			}
		})
	}
}

// A host with a D of 6 s that was UP from the start, in a record of 100 s.
func TestJudge(t *testing.T) {
	type kinds []Kind
	up := seen(Up, 0)
	for name, c := range map[string]struct {
		renewals []Renewal
		statuses []Status
		sight    Sight
		want     kinds
	}{
		"a host that lives and is UP": {
			every(0, 100), []Status{up}, Sight{}, nil,
		},
		"a host that dies and is found after D": {
			every(0, 20), []Status{up, seen(Unknown, 26.1)}, Sight{}, nil,
		},
		"a host that dies and is found too early": {
			every(0, 20), []Status{up, seen(Unknown, 24.5)}, Sight{}, kinds{FalseUnknown},
		},
		"a host that dies and is found too late": {
			every(0, 20), []Status{up, seen(Unknown, 27.2)}, Sight{}, kinds{Late},
		},
		"a host that dies and is never found": {
			every(0, 20), []Status{up}, Sight{}, kinds{Late},
		},
		"a host that dies so late that the record ends first": {
			every(0, 95), []Status{up}, Sight{}, nil,
		},
		"a host that lives and is UNKNOWN": {
			every(0, 100), []Status{up, seen(Unknown, 50.5), seen(Up, 51.1)}, Sight{}, kinds{FalseUnknown},
		},
		"a host that is back, and whose verdict is seen too long after that": {
			append(every(0, 20), every(40, 100)...), []Status{up, seen("MAINTENANCE", 22), seen(Unknown, 41.6), seen(Up, 42.2)}, Sight{}, kinds{FalseUnknown},
		},
		"a host that is back, and whose verdict is seen as late as a bare client's write": {
			append(every(0, 20), every(40, 100)...), []Status{up, seen("MAINTENANCE", 22), seen(Unknown, 41.6), seen(Up, 42.2)}, Sight{Bare: bareVerdicts(39.5, 41.5)}, nil,
		},
		"a host that was UNKNOWN while nobody looked": {
			every(0, 100), []Status{up, seen(Up, 60)}, Sight{}, kinds{FalseUnknown},
		},
		"a host whose flag was set and cleared while nobody looked": {
			every(0, 100), []Status{up, {Value: Up, At: at(60), Since: at(59), Generation: 3}}, Sight{}, nil,
		},
		"a host that renews between the verdict and the moment it is seen": {
			append(every(0, 20), every(26.5, 100)...), []Status{up, seen(Unknown, 26.9), seen(Up, 27)}, Sight{}, nil,
		},
		"a host that renewed long before the verdict came": {
			append(every(0, 20), every(26.1, 100)...), []Status{up, seen(Unknown, 28.5), seen(Up, 29.2)}, Sight{}, kinds{FalseUnknown},
		},
		"a host that renewed, on a slow API server, while the verdict was written": {
			append(every(0, 20), every(26.1, 100)...), []Status{up, seen(Unknown, 28.5), seen(Up, 29.2)}, Sight{Latency: 2 * time.Second}, nil,
		},
		"a host that comes back": {
			append(every(0, 20), every(40, 100)...), []Status{up, seen(Unknown, 26), seen(Up, 40.1)}, Sight{}, nil,
		},
		"a host that is UP again without a renewal": {
			every(0, 20), []Status{up, seen(Unknown, 26), seen(Up, 40), seen(Unknown, 46)}, Sight{}, kinds{FalseState},
		},
		"a renewal between a verdict and the moment, long after, at which it is seen": {
			append(every(0, 20), every(27.5, 100)...), []Status{up, {Value: Unknown, At: at(33), Since: at(26)}, seen(Up, 34)}, Sight{}, kinds{Late},
		},
		"a status that is lost": {
			every(0, 100), []Status{up, seen(Absent, 30), seen(Up, 31)}, Sight{}, kinds{FalseState},
		},
		"a host that dies while it is forced down": {
			every(0, 20), []Status{up, seen("DOWN", 10)}, Sight{}, nil,
		},
		"a verdict in blind time on a host that was cut off with us": {
			append(every(0, 20), every(40, 100)...), []Status{up, seen(Unknown, 30), seen(Up, 40.1)},
			Sight{Blind: []Span{span(20.5, 39)}}, kinds{FalseUnknown},
		},
		"a verdict right after blind time on a host that comes back a second later": {
			append(every(0, 20), every(40, 100)...), []Status{up, seen(Unknown, 39.1), seen(Up, 40.1)},
			Sight{Blind: []Span{span(20.5, 39)}}, kinds{FalseUnknown},
		},
		"a verdict that the observer takes for early, who may have seen the end of blind time late, since a bare client was slow": {
			every(0, 20), []Status{up, seen(Unknown, 44.5)}, Sight{Blind: []Span{span(20.5, 39.5)}, Bare: bareVerdicts(38.9, 39.6)}, nil,
		},
		"the same, while a bare client took what it always takes": {
			every(0, 20), []Status{up, seen(Unknown, 44.5)}, Sight{Blind: []Span{span(20.5, 39.5)}, Bare: bareVerdicts(38.9, 38.95)}, kinds{FalseUnknown},
		},
		"a host that dies in blind time, found after the rest of D and half a D": {
			every(0, 20), []Status{up, seen(Unknown, 47.5)}, Sight{Blind: []Span{span(20.5, 39)}}, nil,
		},
		"a host that dies in blind time, found later than that": {
			every(0, 20), []Status{up, seen(Unknown, 49)}, Sight{Blind: []Span{span(20.5, 39)}}, kinds{Late},
		},
		"a host that dies before two blind spells": {
			every(0, 20), []Status{up, seen(Unknown, 36)}, Sight{Blind: []Span{span(21, 23), span(24, 26)}}, nil,
		},
		"gaps that are too short to be blind for the host's D": {
			every(0, 20), []Status{up, seen(Unknown, 27.5)}, Sight{Blind: []Span{span(21, 22), span(23, 24)}}, kinds{Late},
		},
		"a short gap in which the deadline passes: until its end nothing is proven": {
			every(0, 20), []Status{up, seen(Unknown, 27.6)}, Sight{Blind: []Span{span(25.6, 26.7)}}, nil,
		},
		"a short gap in which the deadline passes, and a verdict too long after it": {
			every(0, 20), []Status{up, seen(Unknown, 27.9)}, Sight{Blind: []Span{span(25.6, 26.7)}}, kinds{Late},
		},
		"a leader that knew the host before it died": {
			every(0, 20), []Status{up, seen(Unknown, 33)}, Sight{Takeovers: []Takeover{{At: at(25), Started: at(5)}}}, kinds{Late},
		},
		"a leader that started after the host died keeps it for one D": {
			every(0, 20), []Status{up, seen(Unknown, 31.5)}, Sight{Takeovers: []Takeover{{At: at(25), Started: at(22)}}}, nil,
		},
		"a leader that is killed in the moment in which its verdict is due": {
			every(0, 20), []Status{up, seen(Unknown, 40.8)},
			Sight{Blind: []Span{span(26.2, 34)}, Takeovers: []Takeover{{At: at(34), Started: at(28)}}}, nil,
		},
		"a leader that keeps a dead host for more than one D": {
			every(0, 20), []Status{up, seen(Unknown, 33)}, Sight{Takeovers: []Takeover{{At: at(25), Started: at(22)}}}, kinds{Late},
		},
		"a host that is found late, while a bare client took as much longer": {
			every(0, 20), []Status{up, seen(Unknown, 27.5)}, Sight{Bare: bareVerdicts(26.2, 26.8)}, kinds{LateAsAll},
		},
		"a host that is found later than a bare client would have": {
			every(0, 20), []Status{up, seen(Unknown, 27.7)}, Sight{Bare: bareVerdicts(26.2, 26.8)}, kinds{Late},
		},
		"a host that is found late, while a bare client took what it always takes": {
			every(0, 20), []Status{up, seen(Unknown, 27.1)}, Sight{Bare: bareVerdicts(26.2, 26.25)}, kinds{Late},
		},
		"a host that is found late, a while after a bare client was slow": {
			every(0, 20), []Status{up, seen(Unknown, 27.5)}, Sight{Bare: bareVerdicts(22, 25.9)}, kinds{Late},
		},
		"a host that is found late, when a bare client had been waiting before its deadline": {
			every(0, 20), []Status{up, seen(Unknown, 27.5)}, Sight{Bare: bareVerdicts(22, 26.3)}, kinds{Late},
		},
		"a host that is found late on a machine with three threads for each CPU": {
			every(0, 20), []Status{up, seen(Unknown, 27.9)}, Sight{Busy: busy(3)}, kinds{LateAsAll},
		},
		"a host that is found later than that explains": {
			every(0, 20), []Status{up, seen(Unknown, 28.1)}, Sight{Busy: busy(3)}, kinds{Late},
		},
		"a host that is found late on a machine that only the test is at work on": {
			every(0, 20), []Status{up, seen(Unknown, 27.9)}, Sight{Busy: busy(2)}, kinds{Late},
		},
		"a host that renews before it could have been found on a busy machine": {
			append(every(0, 20), every(27.3, 100)...), []Status{up}, Sight{Busy: busy(3)}, kinds{LateAsAll},
		},
		"a host that renews long after it should have been found on a busy machine": {
			append(every(0, 20), every(29.3, 100)...), []Status{up}, Sight{Busy: busy(3)}, kinds{Late},
		},
		"a host that is never found, while a bare client was slow": {
			every(0, 20), []Status{up}, Sight{Bare: bareVerdicts(26.2, 26.8)}, kinds{Late},
		},
		"a verdict on a host that was seen to be silent in lists, while no watch worked": {
			every(0, 20), []Status{up, seen(Unknown, 26.1)}, Sight{Blind: []Span{span(20.5, 39)}, BlindAtBest: []Span{}}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.sight.BlindAtBest == nil {
				c.sight.BlindAtBest = c.sight.Blind
			}
			h := Host{Name: "host", Duration: 6 * time.Second, Renewals: c.renewals, Statuses: c.statuses}
			var got kinds
			for _, f := range Judge(h, c.sight, at(0), at(100)) {
				got = append(got, f.Kind)
				t.Log(f.Kind, f.What)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAHostWithoutALeaseHasTheDefaultDForWhoeverStartsLater(t *testing.T) {
	takeover := Sight{Takeovers: []Takeover{{Started: at(21), At: at(22)}}}
	for name, c := range map[string]struct {
		deletions []time.Time
		sight     Sight
		found     float64
		want      []Kind
	}{
		"its process started after the deletion":               {[]time.Time{at(20.5)}, takeover, 82, nil},
		"it is later than that":                                {[]time.Time{at(20.5)}, takeover, 84, []Kind{Late}},
		"its process knew the Lease":                           {[]time.Time{at(21.5)}, takeover, 82, []Kind{Late}},
		"nobody takes over":                                    {[]time.Time{at(20.5)}, Sight{}, 82, []Kind{Late}},
		"the host has renewed since":                           {[]time.Time{at(10.5)}, takeover, 82, []Kind{Late}},
		"its process started after the deletion, and is early": {[]time.Time{at(20.5)}, takeover, 30, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := Host{Name: "host", Duration: 6 * time.Second, Renewals: every(0, 20), Statuses: []Status{seen(Up, 0), seen(Unknown, c.found)}, Deletions: c.deletions}
			var got []Kind
			for _, f := range Judge(h, c.sight, at(0), at(100)) {
				got = append(got, f.Kind)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBlindSpans(t *testing.T) {
	got := BlindSpans([]time.Time{at(1), at(2), at(6), at(7)}, 1500*time.Millisecond, at(0), at(10))
	if diff := cmp.Diff([]Span{span(2, 6), span(7, 10)}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBlindTimeBeginsWithTheListThatShowsTheLastCanary(t *testing.T) {
	for name, c := range map[string]struct {
		lists []time.Time
		want  Span
	}{
		"none":                              {nil, span(20, 27)},
		"one before the last canary":        {[]time.Time{at(19.5)}, span(20, 27)},
		"one soon after it":                 {[]time.Time{at(20.5)}, span(20.5, 27)},
		"of several the last":               {[]time.Time{at(20.5), at(20.9), at(20.7)}, span(20.9, 27)},
		"one by a manager that had seen it": {[]time.Time{at(21.1)}, span(20, 27)},
	} {
		t.Run(name, func(t *testing.T) {
			blind := []Span{span(2, 6), span(20, 27)}
			if diff := cmp.Diff([]Span{span(2, 6), c.want}, Relisted(blind, c.lists, time.Second)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if blind[1] != span(20, 27) {
				t.Errorf("what was given is %v now", blind[1])
			}
		})
	}
}

func TestWhatSlowsTheMachineDownExplainsBlindTime(t *testing.T) {
	for name, c := range map[string]struct {
		sight Sight
		want  time.Duration
	}{
		"nothing was slow":                {Sight{Bare: bareVerdicts(50, 50.05)}, 3 * time.Second},
		"a bare client was as slow":       {Sight{Bare: bareVerdicts(9.5, 14)}, 0},
		"the machine was too busy":        {Sight{Busy: []Load{{at(11), 4}}}, time.Second},
		"the machine was busy before it":  {Sight{Busy: []Load{{at(8), 9}}}, 3 * time.Second},
		"the machine was busy by us only": {Sight{Busy: []Load{{at(11), ownLoad}}}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.sight.Unexplained(span(10, 13)); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestLastWrite(t *testing.T) {
	changes := []Change{{at(0), 100}, {at(1), 100}, {at(30), 100}}
	for name, c := range map[string]struct {
		change int
		blind  []Span
		want   time.Time
	}{
		"the first of two changes that queue up": {0, nil, at(5)},
		"the second of them":                     {1, nil, at(5)},
		"one alone":                              {2, nil, at(33)},
		"a handover among the writes":            {2, []Span{span(31, 41)}, at(43)},
		"blind time before":                      {2, []Span{span(10, 20)}, at(33)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := LastWrite(changes, c.change, 50, c.blind); !got.Equal(c.want) {
				t.Errorf("%v, want %v", got.Sub(start), c.want.Sub(start))
			}
		})
	}
}

// busy is a load around the deadline of a host whose last renewal was at 20.
func busy(perCPU float64) (loads []Load) {
	for seconds := 20.0; seconds < 30; seconds += 0.2 {
		loads = append(loads, Load{at(seconds), perCPU})
	}
	return loads
}

func TestALateServerIsMeasuredByABareClientOfTheSameMoment(t *testing.T) {
	quick := Sight{Bare: []Span{span(1, 1.1), span(9, 9.1), span(20, 20.1), span(30, 30.1)}}
	slow := Sight{Bare: []Span{span(1, 1.1), span(9.5, 11.6), span(20, 20.1), span(30, 30.1)}}
	for name, c := range map[string]struct {
		sight    Sight
		followed time.Time
		want     Kind
	}{
		"late, and a bare client is quick":                     {quick, at(12), LateServer},
		"as late as a bare client":                             {slow, at(12), LateAsAll},
		"later than a bare client":                             {slow, at(14), LateServer},
		"never, and a bare client is slow":                     {slow, time.Time{}, LateServer},
		"late, and a bare client was slow before or after it":  {Sight{Bare: []Span{span(1, 6), span(20, 20.1), span(21, 21.1), span(30, 36)}}, at(12), LateServer},
		"late, on a machine that is as busy":                   {Sight{Busy: []Load{{at(10.5), 3.5}}}, at(12), LateAsAll},
		"late, and the machine was busy before it":             {Sight{Busy: []Load{{at(9), 9}}}, at(12), LateServer},
		"late, and there is no bare client to compare it with": {Sight{}, at(12), LateServer},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.sight.OfLateServer(at(10), at(11), c.followed); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
