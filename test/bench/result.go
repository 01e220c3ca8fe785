// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is what a scenario has measured.
type result struct {
	Scenario string  `json:"scenario"`
	Title    string  `json:"title"`
	Date     string  `json:"date,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`
	Machine  machine `json:"machine,omitzero"`
	Fsync    bool    `json:"fsync"`
	// Synthetic says that there was no control plane.
	Synthetic bool  `json:"synthetic,omitempty"`
	Sizes     []int `json:"sizes,omitempty"`
	Repeats   int   `json:"repeats,omitempty"`
	// DidNotRun says why there are no figures.
	DidNotRun string    `json:"didNotRun,omitempty"`
	Figures   []figure  `json:"figures,omitempty"`
	Pictures  []picture `json:"pictures,omitempty"`
	Notes     []string  `json:"notes,omitempty"`
}

// figure is one number beside its reference.
type figure struct {
	Size  string  `json:"size"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Reference is what was measured beside it; absent if nothing can stand there.
	Reference     *float64 `json:"reference,omitempty"`
	ReferenceName string   `json:"referenceName,omitempty"`
	// Target is what the figure, or its ratio to the reference, should be.
	Target string `json:"target,omitempty"`
	Met    *bool  `json:"met,omitempty"`
}

func (f figure) ratio() float64 {
	if f.Reference == nil || *f.Reference == 0 {
		return math.NaN()
	}
	return f.Value / *f.Reference
}

// picture is a diagram of lines.
type picture struct {
	File   string   `json:"file"`
	Title  string   `json:"title"`
	XLabel string   `json:"xLabel"`
	YLabel string   `json:"yLabel"`
	LogX   bool     `json:"logX,omitempty"`
	LogY   bool     `json:"logY,omitempty"`
	Series []series `json:"series,omitempty"`
}

type series struct {
	Name string    `json:"name"`
	X    []float64 `json:"x"`
	Y    []float64 `json:"y"`
}

func (s *series) add(x, y float64) { s.X, s.Y = append(s.X, x), append(s.Y, y) }

func newResult(s scenario, o options) *result {
	return &result{Scenario: s.name, Title: s.title, Date: time.Now().UTC().Format("2006-01-02 15:04"), Machine: thisMachine(), Fsync: o.fsync}
}

// bound is how a target is met: at most, or at least, of the figure itself or of
// its ratio.
type bound struct {
	limit   float64
	ratio   bool
	atLeast bool
}

func atMost(limit float64) *bound       { return &bound{limit: limit} }
func ratioAtMost(limit float64) *bound  { return &bound{limit: limit, ratio: true} }
func ratioAtLeast(limit float64) *bound { return &bound{limit: limit, ratio: true, atLeast: true} }

func (b *bound) judge(f *figure) {
	value, text := f.Value, fmt.Sprintf("%s %s", number(b.limit), f.Unit)
	if b.ratio {
		value, text = f.ratio(), number(b.limit)+" ×"
	}
	sign, met := "≤ ", value <= b.limit
	if b.atLeast {
		sign, met = "≥ ", value >= b.limit
	}
	if f.Target != "" {
		f.Target += ", "
		met = met && *f.Met
	}
	f.Target += sign + strings.TrimSpace(text)
	f.Met = &met
}

// add records a figure.
func (r *result) add(size, name string, value float64, unit string, bounds ...*bound) {
	f := figure{Size: size, Name: name, Value: value, Unit: unit}
	for _, b := range bounds {
		b.judge(&f)
	}
	r.Figures = append(r.Figures, f)
}

// addBeside records a figure and the reference beside it.
func (r *result) addBeside(size, name string, value float64, unit, referenceName string, reference float64, bounds ...*bound) {
	f := figure{Size: size, Name: name, Value: value, Unit: unit, Reference: &reference, ReferenceName: referenceName}
	for _, b := range bounds {
		b.judge(&f)
	}
	r.Figures = append(r.Figures, f)
}

func (r *result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *result) picture(p picture) { r.Pictures = append(r.Pictures, p) }

// rows are the figures as texts.
func (r *result) rows() [][]string {
	rows := [][]string{{"size", "figure", "measured", "beside", "ratio", "target", ""}}
	for _, f := range r.Figures {
		row := []string{f.Size, f.Name, strings.TrimSpace(number(f.Value) + " " + f.Unit), "", "", f.Target, ""}
		if f.Reference != nil {
			row[3] = fmt.Sprintf("%s %s (%s)", number(*f.Reference), f.Unit, f.ReferenceName)
			if ratio := f.ratio(); !math.IsNaN(ratio) {
				row[4] = fmt.Sprintf("%.2f ×", ratio)
			}
		}
		if f.Met != nil {
			row[6] = map[bool]string{true: "met", false: "NOT MET"}[*f.Met]
		}
		rows = append(rows, row)
	}
	return rows
}

func (r *result) conditions() string {
	api := "fsync on"
	switch {
	case r.Synthetic:
		api = "synthetic API"
	case !r.Fsync:
		api = "fsync off"
	}
	return fmt.Sprintf("%s UTC, %s, %s, sizes %v, %d repeats, took %.0f s", r.Date, r.Machine, api, r.Sizes, r.Repeats, r.Seconds)
}

// print writes the result for a terminal.
func (r *result) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "\n%s: %s\n", r.Scenario, r.Title)
	if r.DidNotRun != "" {
		_, _ = fmt.Fprintf(w, "  DID NOT RUN: %s\n", r.DidNotRun)
		return
	}
	_, _ = fmt.Fprintf(w, "  %s\n", r.conditions())
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range r.rows() {
		_, _ = fmt.Fprintf(table, "  %s\n", strings.Join(row, "\t"))
	}
	_ = table.Flush()
	for _, n := range r.Notes {
		_, _ = fmt.Fprintf(w, "  Note: %s\n", n)
	}
}

// markdown writes the result for a page that has the pictures in a folder beside it.
func (r *result) markdown(w io.Writer, pictures string) {
	_, _ = fmt.Fprintf(w, "### %s\n\n", r.Title)
	if r.DidNotRun != "" {
		_, _ = fmt.Fprintf(w, "Did not run: %s\n\n", r.DidNotRun)
		return
	}
	for i, row := range r.rows() {
		_, _ = fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			_, _ = fmt.Fprintf(w, "%s|\n", strings.Repeat("|---", len(row)))
		}
	}
	_, _ = fmt.Fprintf(w, "\n_%s._\n", r.conditions())
	for _, n := range r.Notes {
		_, _ = fmt.Fprintf(w, "\n%s\n", n)
	}
	for _, p := range r.Pictures {
		_, _ = fmt.Fprintf(w, "\n![%s](%s/%s.svg)\n", p.File, pictures, p.File)
	}
	_, _ = fmt.Fprintln(w)
}

// load reads the result of a scenario from dir; it is nil if there is none.
func load(dir, name string) (*result, error) {
	content, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading results: %w", err)
	}
	r := &result{}
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("reading the results of %s: %w", name, err)
	}
	return r, nil
}

// addTo puts what was measured behind an earlier result of other sizes.
func (r *result) addTo(earlier *result) {
	r.Seconds += earlier.Seconds
	r.Sizes = append(earlier.Sizes, r.Sizes...)
	r.Figures = append(earlier.Figures, r.Figures...)
	for i := range r.Pictures {
		for _, p := range earlier.Pictures {
			if p.File == r.Pictures[i].File {
				r.Pictures[i].Series = joined(p.Series, r.Pictures[i].Series)
			}
		}
	}
}

// joined continues each line with the one of the same name.
func joined(earlier, later []series) []series {
	for _, s := range later {
		i := slices.IndexFunc(earlier, func(e series) bool { return e.Name == s.Name })
		if i < 0 {
			earlier = append(earlier, s)
			continue
		}
		earlier[i].X, earlier[i].Y = append(earlier[i].X, s.X...), append(earlier[i].Y, s.Y...)
	}
	return earlier
}

func (r *result) file() string {
	if r.Fsync {
		return r.Scenario
	}
	return r.Scenario + noFsync
}

// noFsync ends the names of results without it.
const noFsync = "-no-fsync"

// raw ends the names of results with the points of their pictures, from which hack/plot
// draws. They are not kept in git: the pages need the figures and the pictures only.
const raw = ".raw"

// save writes the result as JSON into dir, once for the page and once with all points.
func (r *result) save(dir string, add bool) error {
	if add && r.DidNotRun == "" {
		earlier, err := load(dir, r.file()+raw)
		if err != nil {
			return err
		}
		if earlier == nil {
			// A clone has the figures of earlier sizes, but not the points of their pictures.
			if kept, err := load(dir, r.file()); err != nil {
				return err
			} else if kept != nil {
				return fmt.Errorf("-add: %s has no %s.json to add to: measure all sizes in one run, without -add", dir, r.file()+raw)
			}
		}
		if earlier != nil && earlier.DidNotRun == "" {
			r.addTo(earlier)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder of the results: %w", err)
	}
	if err := r.write(filepath.Join(dir, r.file()+raw+".json")); err != nil {
		return err
	}
	short := *r
	short.Pictures = slices.Clone(r.Pictures)
	for i := range short.Pictures {
		short.Pictures[i].Series = nil
	}
	return short.write(filepath.Join(dir, r.file()+".json"))
}

func (r *result) write(path string) error {
	content, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := os.WriteFile(path, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

// writePage brings the section Figures of a page up to date.
func writePage(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("-page: %w", err)
	}
	updated, err := withFigures(string(content), strings.TrimSuffix(path, ".md"))
	if err != nil {
		return fmt.Errorf("-page: %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(updated), 0o644); err != nil {
		return fmt.Errorf("-page: %w", err)
	}
	return nil
}

// withFigures returns the page with what the folder dir has of each scenario in its
// section Figures.
func withFigures(page, dir string) (string, error) {
	const section = "\n## Figures\n"
	before, rest, found := strings.Cut(page, section)
	_, after, ends := strings.Cut(rest, "\n## ")
	if !found || !ends {
		return "", errors.New("it has no section Figures with another behind it")
	}
	var figures strings.Builder
	for _, s := range scenarios {
		found := false
		for _, suffix := range []string{"", noFsync} {
			r, err := load(dir, s.name+suffix)
			if err != nil {
				return "", err
			}
			if r != nil {
				r.markdown(&figures, filepath.Base(dir))
				found = true
			}
		}
		if !found {
			(&result{Title: s.title, DidNotRun: "there is no result"}).markdown(&figures, "")
		}
	}
	return before + section + "\n" + strings.TrimSuffix(figures.String(), "\n") + "\n## " + after, nil
}

// number writes three digits that matter.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 100 || v == math.Trunc(v):
		return thousands(int64(math.Round(v)))
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func count(n int, what string) string { return thousands(int64(n)) + " " + what }

// samples are durations of the same thing.
type samples []time.Duration

// quantile returns the value that a share q of the samples does not exceed.
func (s samples) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (s samples) median() time.Duration { return s.quantile(0.5) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// distribution is the series of the share of samples up to each value.
func (s samples) distribution(name string) series {
	out := series{Name: name}
	sorted := slices.Sorted(slices.Values(s))
	step := max(1, len(sorted)/200)
	for i := 0; i < len(sorted); i += step {
		out.add(ms(sorted[i]), 100*float64(i+1)/float64(len(sorted)))
	}
	return out
}
