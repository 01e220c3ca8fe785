// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/internal/kubectlservers"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// Fonts, and so the widths of words, differ between machines. What is compared is where the
// parts of a page are, within place of the picture's size; the colour of each status where it
// is, within shade of 255; and the picture as a whole, at cells × cells, within blur of 255 on
// average.
const (
	place = 0.08
	shade = 12
	cells = 24
	blur  = 10
)

// parts are where things are on a page, and tiles what has the colour of a status.
const parts = `(() => {
	const box = (e) => { const {left, top, width, height} = e.getBoundingClientRect(); return [left, top, width, height].map(Math.round); };
	const out = {parts: {}, tiles: {}};
	for (const selector of PARTS) {
		document.querySelectorAll(selector).forEach((e, i) => { if (e.getClientRects().length > 0) { out.parts[selector + ' ' + i] = box(e); } });
	}
	for (const e of document.querySelectorAll('.tile, [data-server] .chip b')) {
		const [left, top, width, height] = box(e);
		if (top + height < innerHeight && left + width < innerWidth) {
			out.tiles[e.dataset.host ?? e.closest('[data-server]').dataset.server] = {box: [left, top, width, height], letter: e.textContent[0]};
		}
	}
	return out;
})()`

// layout is where things are, and how those look that show a status.
type layout struct {
	Width, Height int
	Parts         map[string][4]float64 `json:"parts"`
	Tiles         map[string]*tile      `json:"tiles"`
}

type tile struct {
	Box    [4]float64 `json:"box"`
	Letter string     `json:"letter"`
	// Colour is that of its corner, where no letter is.
	Colour [3]int `json:"colour"`
}

func TestThePagesLookAsTheyDid(t *testing.T) {
	f := fleet(t)
	pages := map[string]struct{ address, parts string }{
		"hosts":   {servedBy(t, kubectlhosts.Run, f.URL, "page"), `['header', '#strip', '#changes', '.group', '#state']`},
		"servers": {servedBy(t, kubectlservers.Run, f.URL, "page", "-A"), `['header', '#servers', 'tbody', '#lacks', '.window', '.now', '#state']`},
	}
	for name, page := range pages {
		for _, size := range []struct{ width, height int64 }{{1280, 640}, {480, 800}} {
			t.Run(fmt.Sprintf("%s %d", name, size.width), func(t *testing.T) {
				tb := newTab(t, size.width, size.height)
				tb.open(page.address)
				if name == "servers" {
					tb.becomes("clear about what is not granted", `!document.getElementById('lacks').hidden`)
				}
				evaluate[bool](tb, `new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(true))))`)
				shot, err := chromedp.Run(tb.Context, chromedp.CaptureScreenshot())
				expect.NoError(t, err)
				picture, err := png.Decode(bytes.NewReader(shot))
				expect.NoError(t, err)
				got := evaluate[layout](tb, "(() => { const PARTS = "+page.parts+"; return "+parts+"; })()")
				got.Width, got.Height = picture.Bounds().Dx(), picture.Bounds().Dy()
				for _, tile := range got.Tiles {
					tile.Colour = colourAt(picture, int(tile.Box[0])+3, int(tile.Box[1]+tile.Box[3])-4)
				}
				reference := filepath.Join("testdata", fmt.Sprintf("%s-%d", name, size.width))
				if *update {
					expect.NoError(t, os.MkdirAll("testdata", 0o755))
					expect.NoError(t, os.WriteFile(reference+".png", shot, 0o644))
					encoded, err := json.MarshalIndent(got, "", " ")
					expect.NoError(t, err)
					expect.NoError(t, os.WriteFile(reference+".json", append(encoded, '\n'), 0o644))
					return
				}
				compare(t, reference, got, picture)
			})
		}
	}
}

func compare(t *testing.T, reference string, got layout, picture image.Image) {
	t.Helper()
	var want layout
	content, err := os.ReadFile(reference + ".json")
	expect.NoError(t, err)
	expect.NoError(t, json.Unmarshal(content, &want))
	if want.Width != got.Width || want.Height != got.Height {
		t.Fatalf("the picture is %d × %d, want %d × %d", got.Width, got.Height, want.Width, want.Height)
	}
	near := func(what string, a, b [4]float64) {
		t.Helper()
		for i, size := range []int{got.Width, got.Height, got.Width, got.Height} {
			if math.Abs(a[i]-b[i]) > place*float64(size) {
				t.Errorf("%s is at %v, want %v", what, a, b)
				return
			}
		}
	}
	for name, box := range want.Parts {
		other, ok := got.Parts[name]
		if !ok {
			t.Errorf("%s is not there", name)
			continue
		}
		near(name, other, box)
	}
	for name, tile := range want.Tiles {
		other, ok := got.Tiles[name]
		if !ok {
			t.Errorf("%s is not in sight", name)
			continue
		}
		near(name, other.Box, tile.Box)
		if other.Letter != tile.Letter {
			t.Errorf("%s has the letter %s, want %s", name, other.Letter, tile.Letter)
		}
		for i := range tile.Colour {
			if math.Abs(float64(other.Colour[i]-tile.Colour[i])) > shade {
				t.Errorf("%s has the colour %v, want %v", name, other.Colour, tile.Colour)
				break
			}
		}
	}
	file, err := os.Open(reference + ".png")
	expect.NoError(t, err)
	defer func() { _ = file.Close() }()
	kept, err := png.Decode(file)
	expect.NoError(t, err)
	a, b := shrunk(picture), shrunk(kept)
	difference := 0.0
	for i := range a {
		difference += math.Abs(a[i]-b[i]) / float64(len(a))
	}
	if difference > blur {
		t.Errorf("the picture differs by %.1f of 255 on average", difference)
	}
}

// colourAt is a colour of a picture.
func colourAt(picture image.Image, x, y int) [3]int {
	r, g, b, _ := picture.At(x, y).RGBA()
	return [3]int{int(r >> 8), int(g >> 8), int(b >> 8)}
}

// shrunk is the brightness of a picture at cells × cells.
func shrunk(picture image.Image) []float64 {
	size := picture.Bounds()
	sums, counts := make([]float64, cells*cells), make([]float64, cells*cells)
	// Every third pixel of every third row says as much.
	for y := 0; y < size.Dy(); y += 3 {
		for x := 0; x < size.Dx(); x += 3 {
			c := colourAt(picture, x, y)
			i := y*cells/size.Dy()*cells + x*cells/size.Dx()
			sums[i] += float64(c[0]+c[1]+c[2]) / 3
			counts[i]++
		}
	}
	for i := range sums {
		sums[i] /= counts[i]
	}
	return sums
}
