// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantilesAreValuesThatWereMeasured(t *testing.T) {
	var s samples
	for i := 100; i > 0; i-- {
		s = append(s, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if got := (samples)(nil).median(); got != 0 {
		t.Errorf("the median of nothing is %d", got)
	}
}

func TestALimitThatIsPassedOrWasNotMeasuredIsAComplaint(t *testing.T) {
	r := &result{}
	r.addBeside("10 hosts", "good", 3, "ms", "bare", 2)
	r.addBeside("10 hosts", "bad", 5, "ms", "bare", 2)
	r.addBeside("10 hosts", "nothing beside it", 5, "ms", "bare", 0)
	r.add("10 hosts", "count", 1, "")
	for name, c := range map[string]struct {
		limit limit
		want  string
	}{
		"a ratio within its limit":        {limit{"10 hosts", "good", true, 2}, ""},
		"a ratio above its limit":         {limit{"10 hosts", "bad", true, 2}, "10 hosts, bad: 2.50 × bare, the limit is 2"},
		"a ratio to nothing":              {limit{"10 hosts", "nothing beside it", true, 2}, "NaN"},
		"a count above its limit":         {limit{"10 hosts", "count", false, 0}, "10 hosts, count: 1 , the limit is 0"},
		"what was not measured is no yes": {limit{"10 hosts", "missing", false, 1}, "10 hosts, missing: it was not measured"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := r.exceeded([]limit{c.limit}); err != nil {
				got = err.Error()
			}
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTargetsAreJudged(t *testing.T) {
	r := &result{}
	r.addBeside("", "", 3, "ms", "bare", 2, ratioAtMost(1.5), atMost(2))
	r.addBeside("", "", 900, "/s", "bare", 1000, ratioAtLeast(0.85))
	var got []string
	for _, row := range r.rows()[1:] {
		got = append(got, strings.Join(row[2:], "|"))
	}
	want := []string{
		"3 ms|2 ms (bare)|1.50 ×|≤ 1.50 ×, ≤ 2 ms|NOT MET",
		"900 /s|1,000 /s (bare)|0.90 ×|≥ 0.85 ×|met",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSizesMeasuredOneByOneAreOneResult(t *testing.T) {
	dir := t.TempDir()
	part := func(n int) *result {
		r := &result{Scenario: "s", Fsync: true, Sizes: []int{n}}
		r.add(count(n, "hosts"), "lag", float64(n), "ms")
		r.picture(picture{File: "p", Series: []series{{Name: "line", X: []float64{float64(n)}, Y: []float64{1}}}})
		return r
	}
	for _, n := range []int{1, 2} {
		if err := part(n).save(dir, true); err != nil {
			t.Fatal(err)
		}
	}
	got, err := load(dir, "s"+raw)
	if err != nil {
		t.Fatal(err)
	}
	want := &result{
		Scenario: "s", Fsync: true, Sizes: []int{1, 2}, Figures: append(part(1).Figures, part(2).Figures...),
		Pictures: []picture{{File: "p", Series: []series{{Name: "line", X: []float64{1, 2}, Y: []float64{1, 1}}}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What is kept in git is what the page is made from.
	got, err = load(dir, "s")
	if err != nil {
		t.Fatal(err)
	}
	want.Pictures[0].Series = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("for the page (-want +got):\n%s", diff)
	}
	if err := os.Remove(filepath.Join(dir, "s"+raw+".json")); err != nil {
		t.Fatal(err)
	}
	if err := part(3).save(dir, true); err == nil {
		t.Error("sizes were added to pictures without points")
	}
}

func TestThePageShowsWhatWasMeasured(t *testing.T) {
	const dir = "../../docs/design/performance"
	page, err := os.ReadFile(dir + ".md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := withFigures(string(page), dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("bin/bench -page docs/design/performance.md changes it (-want +got):\n%s", diff)
	}
}
