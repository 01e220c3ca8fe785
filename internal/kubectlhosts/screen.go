// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// eraseLine goes to the beginning of a terminal's line, and clears it.
	eraseLine = "\r\x1b[K"
	// gatherFor is how long changes that are alike are gathered into one line.
	gatherFor = 2 * time.Second
	// maxGathered is how many hosts a line names.
	maxGathered = 10
)

// screen is where a watch writes: changes, notes about the watch itself, and on a
// terminal a last line that is overwritten and shows that the watch is alive.
type screen struct {
	out, notes io.Writer
	// print writes a change. If gathered is true, changes of one kind share a line.
	print    func(Transition) error
	gathered bool
	// selected is set if hosts were selected by their labels.
	selected bool
	colours  bool
	// width is how many characters a line of the terminal has; 0 for any number.
	width func() int

	mu sync.Mutex
	// signed is the present last line; empty for none.
	signed string
	// alike are the changes that wait to be written, by what they have in common.
	alike map[kind]*gathering
	err   error
}

// kind is what changes have in common that share a line.
type kind struct {
	event, from, to string
	why             v1alpha1.HostStatusReason
	reportingFrom   v1alpha1.HostReporting
	reportingTo     v1alpha1.HostReporting
}

// gathering is changes of one kind. The first was written as it came.
type gathering struct {
	begun   time.Time
	waiting []Transition
}

// change writes a change. On a terminal the first of a kind is written at once, and what
// is like it and comes soon after follows in one line.
func (s *screen) change(t Transition, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gathered {
		s.erase()
		return s.print(t)
	}
	s.flush(now)
	// The changes of one host stay in order.
	for k, g := range s.alike {
		if slices.ContainsFunc(g.waiting, func(w Transition) bool { return w.Host == t.Host }) {
			s.write(g)
			delete(s.alike, k)
		}
	}
	k := kind{t.Event, t.From, t.To, t.Why, t.ReportingFrom, t.ReportingTo}
	if g := s.alike[k]; g != nil {
		g.waiting = append(g.waiting, t)
		return s.err
	}
	if s.alike == nil {
		s.alike = map[kind]*gathering{}
	}
	s.alike[k] = &gathering{begun: now}
	s.erase()
	if err := s.print(t); err != nil && s.err == nil {
		s.err = err
	}
	return s.err
}

// tick writes what has waited long enough, and then the last line.
func (s *screen) tick(sign string, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush(now)
	// What does not fit goes on in the next line, where it would not be erased. The last column
	// is left free, since some terminals begin the next line once it is taken.
	if width := s.width(); width > 1 {
		sign = kubectlplugin.End([]string{sign}, width-1)[0]
	}
	if s.gathered && sign != s.signed && sign != "" && s.err == nil {
		s.signed = sign
		_, s.err = io.WriteString(s.out, eraseLine+sign)
	}
	return s.err
}

// end writes what waits, and erases the last line.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush(time.Time{})
	s.erase()
}

// note writes a line about the watch itself.
func (s *screen) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush(time.Time{})
	s.erase()
	_, _ = fmt.Fprintf(s.notes, format+"\n", args...)
}

func (s *screen) erase() {
	if s.signed != "" {
		s.signed = ""
		_, _ = io.WriteString(s.out, eraseLine)
	}
}

// flush writes what has waited since before now-gatherFor; all of it if now is zero.
func (s *screen) flush(now time.Time) {
	for k, g := range s.alike {
		if !now.IsZero() && now.Sub(g.begun) < gatherFor {
			continue
		}
		if len(g.waiting) == 0 {
			delete(s.alike, k)
			continue
		}
		s.write(g)
		g.begun = now
	}
}

// write writes the changes of a gathering as one line.
func (s *screen) write(g *gathering) {
	if len(g.waiting) == 0 || s.err != nil {
		return
	}
	s.erase()
	if len(g.waiting) == 1 {
		s.err = s.print(g.waiting[0])
	} else {
		_, s.err = fmt.Fprintln(s.out, showGathered(g.waiting, s.selected, s.colours))
	}
	g.waiting = nil
}

// showGathered writes changes that are alike as a line, with the time of the first.
func showGathered(changes []Transition, selected, colours bool) string {
	var names []string
	first := changes[0]
	for _, t := range changes {
		names = append(names, t.Host)
		if t.Time.Before(first.Time) {
			first.Time = t.Time
		}
	}
	slices.SortFunc(names, kubectlplugin.CompareNames)
	first.Host = fmt.Sprintf("%d more", len(names))
	line := showTransition(first, selected, colours)
	rest := ""
	if len(names) > maxGathered {
		rest = fmt.Sprintf(" and %d more", len(names)-maxGathered)
		names = names[:maxGathered]
	}
	return line + ": " + kubectlplugin.Clean(strings.Join(names, ", ")) + rest
}
