// SPDX-License-Identifier: Apache-2.0

// Command plot draws the pictures whose points test/bench has put into the files
// *.raw.json of a folder, as SVG files beside them.
package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// result is the part of a result of test/bench that is drawn.
type result struct {
	Fsync    bool `json:"fsync"`
	Pictures []struct {
		File, Title, XLabel, YLabel string
		LogX, LogY                  bool
		Series                      []struct {
			Name string
			X, Y []float64
		}
	} `json:"pictures"`
}

// palette is told apart by people who see colours differently (Okabe and Ito).
var palette = []color.RGBA{
	{0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff},
	{0xcc, 0x79, 0xa7, 0xff}, {0xe6, 0x9f, 0x00, 0xff}, {0x56, 0xb4, 0xe9, 0xff},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "plot: give one folder with results of test/bench")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.raw.json"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s has no *.raw.json to draw from: run make bench", dir)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r result
		if err := json.Unmarshal(content, &r); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		for i := range r.Pictures {
			if err := r.draw(i, dir); err != nil {
				return fmt.Errorf("drawing %s of %s: %w", r.Pictures[i].File, file, err)
			}
		}
	}
	return nil
}

func (r *result) draw(i int, dir string) error {
	picture := r.Pictures[i]
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = picture.Title, picture.XLabel, picture.YLabel
	p.Title.Padding = vg.Points(6)
	p.BackgroundColor = color.White
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	ticks := map[float64]bool{}
	for n, s := range picture.Series {
		points := make(plotter.XYs, len(s.X))
		for k := range s.X {
			points[k] = plotter.XY{X: s.X[k], Y: s.Y[k]}
			ticks[s.X[k]] = true
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, line.Width = palette[n%len(palette)], vg.Points(1.5)
		if n >= len(palette) {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(2)}
		}
		marks.Color, marks.Shape, marks.Radius = line.Color, draw.CircleGlyph{}, vg.Points(2.5)
		p.Add(line)
		p.Legend.Add(s.Name, line)
		if len(points) <= 20 {
			p.Add(marks)
		}
	}
	if picture.LogX {
		p.X.Scale = plot.LogScale{}
		p.X.Tick.Marker = sizes(ticks)
	}
	if picture.LogY {
		p.Y.Scale = plot.LogScale{}
		p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	} else {
		// Room for the legend, and nothing looks steep that is flat.
		p.Y.Min = math.Min(p.Y.Min, 0)
		p.Y.Max *= 1.35
	}
	name := picture.File
	if !r.Fsync {
		name += "-no-fsync"
	}
	return p.Save(7*vg.Inch, 4*vg.Inch, filepath.Join(dir, name+".svg"))
}

// sizes marks an axis at exactly the sizes that were measured.
type sizes map[float64]bool

// Ticks implements plot.Ticker.
func (s sizes) Ticks(_, _ float64) []plot.Tick {
	var out []plot.Tick
	for _, v := range slices.Sorted(maps.Keys(s)) {
		out = append(out, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
	}
	return out
}
