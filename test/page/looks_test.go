// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
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

// It comes first, because it writes what the next one compares with.
func TestThePagesOfARealClusterLookAsTheyDid(t *testing.T) {
	needsControlPlane(t)
	f := fleet(t)
	realHosts(t, f.hosts)
	hosts, _ := served(t, env.As(t, "lou", "", "hoststatus-fleet-viewer"), "hosts", "page")
	look(t, "hosts", hosts, *update)
	realServers(t, f.owned)
	env.As(t, "mia", "team-a", "hoststatus-host-status-viewer")
	servers, _ := served(t, env.As(t, "mia", "", "hoststatus-server-viewer"), "servers", "page", "-A")
	look(t, "servers", servers, *update)
}

func TestThePagesOfAMadeUpClusterLookTheSame(t *testing.T) {
	f := fleet(t)
	look(t, "hosts", servedBy(t, kubectlhosts.Run, f.URL, "page"), false)
	look(t, "servers", servedBy(t, kubectlservers.Run, f.URL, "page", "-A"), false)
}

// realHosts makes hosts and their heartbeats, and waits until a manager gives each the status
// that it is to have. Since when it has it is written afterwards: nobody waits for a day.
func realHosts(t *testing.T, hosts []v1alpha1.ComputeService) {
	t.Helper()
	for _, want := range hosts {
		host := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: want.Name, Labels: want.Labels}, Spec: want.Spec}
		host.Spec.LeaseDurationSeconds = v1alpha1.MaxLeaseDurationSeconds
		switch want.Status.HostStatusReason {
		case v1alpha1.ReasonLeaseExpired:
			host.Spec.LeaseDurationSeconds = v1alpha1.MinLeaseDurationSeconds
		case v1alpha1.ReasonWindowAnnounced:
			if host.Spec.MaintenanceWindow == nil {
				host.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: at(5 * time.Hour)}
			}
		}
		env.Create(t, host)
		if want.Status.HostStatusReason != v1alpha1.ReasonWaitingForHeartbeat {
			env.Create(t, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: want.Name},
				Spec:       coordinationv1.LeaseSpec{HolderIdentity: &want.Name, RenewTime: ptr.To(metav1.NowMicro()), LeaseDurationSeconds: &host.Spec.LeaseDurationSeconds},
			})
		}
	}
	for _, want := range hosts {
		backdate(t, &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: want.Name}}, func(host *v1alpha1.ComputeService) error {
			if host.Status.HostStatusReason != want.Status.HostStatusReason || !hoststatus.SameStatus(host.Status.HostStatus, want.Status.HostStatus) {
				return fmt.Errorf("%s is %s", host.Name, host.Status.HostStatusReason)
			}
			host.Status.HostStatusTransitionTime = want.Status.HostStatusTransitionTime
			return nil
		})
	}
}

// realServers makes servers, as their owners are to see them, and a host for each of their host
// ids.
func realServers(t *testing.T, servers []tenantv1alpha1.Server) {
	t.Helper()
	hosts := map[string]v1alpha1.ComputeService{}
	for _, want := range servers {
		host := fakeHost("of-"+want.Status.HostID, want.Status.HostStatus, want.Status.HostStatusReason, 0)
		host.Status.HostStatusTransitionTime = want.Status.HostStatusTransitionTime
		if host.Status.HostStatus == nil { // not granted
			host = fakeHost(host.Name, ptr.To(v1alpha1.HostStatusUp), v1alpha1.ReasonReporting, time.Hour)
		}
		if host.Status.HostStatusReason == v1alpha1.ReasonForcedDown {
			host.Spec.ForcedDown = ptr.To(true)
		}
		if window := want.Status.MaintenanceWindow; window != nil {
			host.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: window.StartTime, EndTime: window.EndTime, Category: window.Category, Impact: window.Impact}
		}
		if want.Status.HostID != "" {
			hosts[host.Name] = host
		}
	}
	realHosts(t, slices.Collect(maps.Values(hosts)))
	for _, want := range servers {
		expect.NoError(t, client.IgnoreAlreadyExists(env.Admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: want.Namespace}})))
		server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: want.Namespace, Name: want.Name}}
		if want.Status.HostID != "" {
			server.Spec.Host = "of-" + want.Status.HostID
		}
		env.Create(t, server)
		backdate(t, server, func(server *v1alpha1.Server) error {
			shown := want.Status.HostStatus != nil
			if server.Status.HostStatus == nil || shown && server.Status.HostStatusReason != want.Status.HostStatusReason {
				return fmt.Errorf("%s is %s", server.Name, server.Status.HostStatusReason)
			}
			server.Status.State, server.Status.PowerState = want.Status.State, want.Status.PowerState
			if shown {
				server.Status.HostStatusTransitionTime, server.Status.HostHistory = want.Status.HostStatusTransitionTime, want.Status.HostHistory
			}
			return nil
		})
	}
}

// backdate waits until how has no error, and writes what it has changed in the status of an
// object.
func backdate[T client.Object](t *testing.T, object T, how func(T) error) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		if err := env.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		if err := how(object); err != nil {
			return err
		}
		return env.Admin.Status().Update(t.Context(), object)
	})
}

// look compares a page with its pictures, or writes them.
func look(t *testing.T, name, address string, writes bool) {
	t.Helper()
	selectors := map[string]string{
		"hosts":   `['header', '#strip', '#changes', '.group', '#state']`,
		"servers": `['header', '#servers', 'tbody', '#lacks', '.window', '.now', '#state']`,
	}[name]
	for _, size := range []struct{ width, height int64 }{{1280, 640}, {480, 800}} {
		t.Run(fmt.Sprintf("%s %d", name, size.width), func(t *testing.T) {
			tb := newTab(t, size.width, size.height)
			tb.open(address)
			if name == "servers" {
				tb.becomes("clear about what is not granted", `!document.getElementById('lacks').hidden`)
			}
			evaluate[bool](tb, `new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(true))))`)
			shot, err := chromedp.Run(tb.Context, chromedp.CaptureScreenshot())
			expect.NoError(t, err)
			picture, err := png.Decode(bytes.NewReader(shot))
			expect.NoError(t, err)
			got := evaluate[layout](tb, "(() => { const PARTS = "+selectors+"; return "+parts+"; })()")
			got.Width, got.Height = picture.Bounds().Dx(), picture.Bounds().Dy()
			for _, tile := range got.Tiles {
				tile.Colour = colourAt(picture, int(tile.Box[0])+3, int(tile.Box[1]+tile.Box[3])-4)
			}
			reference := filepath.Join("testdata", fmt.Sprintf("%s-%d", name, size.width))
			if writes {
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
