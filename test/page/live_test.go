// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	// valid is how long the heartbeats of a host are valid that is killed, and validLong those
	// of one that lives.
	valid     = v1alpha1.MinLeaseDurationSeconds * time.Second
	validLong = v1alpha1.MaxLeaseDurationSeconds * time.Second
	// maxAfterWrite is how many times longer than a bare watch a page may take from a write of
	// an operator until a tile has changed.
	maxAfterWrite = 6
)

// agent makes a host with an agent, whose heartbeats are valid for so long.
func agent(t *testing.T, host string, valid time.Duration) *controlplane.Process {
	t.Helper()
	env.Create(t, &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}})
	p, err := env.StartAgent(host, valid)
	expect.NoError(t, err)
	t.Cleanup(p.Stop)
	becomes(t, host, v1alpha1.HostStatusUp)
	return p
}

// becomes waits for a host status.
func becomes(t *testing.T, name string, want v1alpha1.HostStatus) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		service := &v1alpha1.ComputeService{}
		if err := env.Admin.Get(t.Context(), client.ObjectKey{Name: name}, service); err != nil {
			return err
		}
		if got := ptr.Deref(service.Status.HostStatus, "none"); got != want {
			return fmt.Errorf("%s is %s", name, got)
		}
		return nil
	})
}

// patch changes the spec of a host.
func patch(t *testing.T, name string, how func(*v1alpha1.ComputeServiceSpec)) {
	t.Helper()
	service := &v1alpha1.ComputeService{}
	expect.NoError(t, env.Admin.Get(t.Context(), client.ObjectKey{Name: name}, service))
	before := service.DeepCopy()
	how(&service.Spec)
	expect.NoError(t, env.Admin.Patch(t.Context(), service, client.MergeFrom(before)))
}

// watched watches a host as any client does. The function waits for an event with a status,
// and returns when it came.
func watched(t *testing.T, name string) func(v1alpha1.HostStatus) time.Time {
	t.Helper()
	config, err := env.Cluster.AdminConfig()
	expect.NoError(t, err)
	bare, err := client.NewWithWatch(config, client.Options{Scheme: env.Admin.Scheme()})
	expect.NoError(t, err)
	stream, err := bare.Watch(t.Context(), &v1alpha1.ComputeServiceList{}, client.MatchingFields{"metadata.name": name})
	expect.NoError(t, err)
	t.Cleanup(stream.Stop)
	type seen struct {
		status v1alpha1.HostStatus
		at     time.Time
	}
	events := make(chan seen, 100)
	go func() {
		defer close(events)
		for event := range stream.ResultChan() {
			if s, ok := event.Object.(*v1alpha1.ComputeService); ok {
				events <- seen{ptr.Deref(s.Status.HostStatus, ""), time.Now()}
			}
		}
	}()
	return func(want v1alpha1.HostStatus) time.Time {
		t.Helper()
		for event := range events {
			if event.status == want {
				return event.at
			}
		}
		t.Fatalf("the watch of %s ended before it was %s", name, want)
		return time.Time{}
	}
}

func TestAHostThatIsKilledTurnsItsTile(t *testing.T) {
	needsControlPlane(t)
	killed := agent(t, "killed-1", valid)
	agent(t, "killed-2", validLong)
	address, interrupt := served(t, env.As(t, "vera", "", "hoststatus-fleet-viewer"), "hosts", "page")
	tb := newTab(t, 1000, 700)
	tb.open(address)
	tb.becomes("showing both hosts UP", `['killed-1', 'killed-2'].every((host) => document.querySelector('[data-host="' + host + '"] b').textContent === 'U')`)
	bare := watched(t, "killed-1")
	evaluate[bool](tb, "(window.seen = "+painted("killed-1", "?")+", true)")
	killed.Kill()
	on := evaluate[float64](tb, "window.seen")
	t.Logf("the tile is on the screen %s after the event of a bare watch", millis(on-milliseconds(bare(v1alpha1.HostStatusUnknown))).Round(100*time.Microsecond))

	unknown, _ := hoststatus.RowOf(ptr.To(v1alpha1.HostStatusUnknown))
	if got := evaluate[string](tb, `'#' + getComputedStyle(document.querySelector('[data-host="killed-1"]')).backgroundColor.match(/\d+/g).map((part) => Number(part).toString(16).padStart(2, '0')).join('')`); got != unknown.Tile {
		t.Errorf("the tile is %s, want %s", got, unknown.Tile)
	}

	// What its servers have on record of a host is on the strip.
	expect.NoError(t, client.IgnoreAlreadyExists(env.Admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "killed"}})))
	server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "killed", Name: "web-1"}, Spec: v1alpha1.ServerSpec{Host: "killed-2"}}
	env.Create(t, server)
	expect.Eventually(t, patience, func() error {
		if err := env.Admin.Get(t.Context(), client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		if server.Status.HostStatus == nil {
			return errors.New("it has no host status yet")
		}
		return nil
	})
	// What a person writes into an object is text, in the real world too.
	patch(t, "killed-2", func(spec *v1alpha1.ComputeServiceSpec) {
		spec.Disabled, spec.DisabledReason = ptr.To(true), ptr.To(`<img src=x onerror="window.hacked=1">`)
	})
	tb.becomes("showing maintenance", `document.querySelector('[data-host="killed-2"] b').textContent === 'M'`)
	tb.do(chromedp.Click(chromedp.CSS(`[data-host="killed-2"]`)))
	tb.becomes("showing why", `document.getElementById('details-text').textContent.includes('<img src=x onerror=') && document.querySelector('img') === null`)
	tb.press(kb.Escape)
	tb.becomes("clear about what the host was before", `await fetch('changes').then((r) => r.json()).then(({changes}) => changes.some((c) => c.host === 'killed-2' && c.from === 'UP' && c.to === 'MAINTENANCE'))`)
	if state := evaluate[string](tb, `document.getElementById('warnings').textContent`); state != "" {
		t.Errorf("with a manager at work the page warns: %s", state)
	}
	// The viewer may read, and the page has nothing that it could be read with elsewhere.
	if found := evaluate[bool](tb, `fetch('start.json').then((r) => r.text()).then((text) => /BEGIN|[Tt]oken|password/.test(text + document.documentElement.outerHTML))`); found {
		t.Error("the page has a credential")
	}

	tb.tolerates = []string{"ERR_"}
	complaints := interrupt()
	tb.becomes("not live", `document.getElementById('state').textContent.startsWith('Not live since ')`)
	if strings.Contains(complaints, "error") {
		t.Errorf("it complains: %s", complaints)
	}
}

func TestATileChangesSoonAfterAnyWatchHasAWrite(t *testing.T) {
	needsControlPlane(t)
	agent(t, "written-1", validLong)
	address, _ := served(t, env.Kubeconfig, "hosts", "page")
	tb := newTab(t, 1000, 700)
	tb.open(address)
	bare := watched(t, "written-1")
	var took, bareTook []time.Duration
	for i := range 10 {
		status, letter := v1alpha1.HostStatusDown, "D"
		if i%2 == 1 {
			status, letter = v1alpha1.HostStatusUp, "U"
		}
		evaluate[bool](tb, "(window.seen = "+painted("written-1", letter)+", true)")
		begin := time.Now()
		patch(t, "written-1", func(spec *v1alpha1.ComputeServiceSpec) { spec.ForcedDown = ptr.To(i%2 == 0) })
		bareTook = append(bareTook, bare(status).Sub(begin))
		took = append(took, millis(evaluate[float64](tb, "window.seen")-milliseconds(begin)))
	}
	typical, bareTypical := median(took), median(bareTook)
	t.Logf("after a write a tile is on the screen within %s, and a bare watch has it within %s", typical.Round(100*time.Microsecond), bareTypical.Round(100*time.Microsecond))
	if typical > maxAfterWrite*bareTypical {
		t.Errorf("a tile changes %s after a write, want %d times what a bare watch takes, %s, at most", typical, maxAfterWrite, bareTypical)
	}
}

func TestOwnersSeeTheirServersAndWhatIsGranted(t *testing.T) {
	needsControlPlane(t)
	expect.NoError(t, client.IgnoreAlreadyExists(env.Admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "paged"}})))
	agent(t, "rack-7-host-1", validLong)
	agent(t, "rack-7-host-2", validLong)
	for name, host := range map[string]string{"web-1": "rack-7-host-1", "web-2": "rack-7-host-1", "db-1": "rack-7-host-2"} {
		env.Create(t, &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "paged", Name: name}, Spec: v1alpha1.ServerSpec{Host: host}})
	}
	ana := env.As(t, "ana", "paged", "hoststatus-server-viewer", "hoststatus-host-status-viewer")
	eve := env.As(t, "eve", "paged", "hoststatus-server-viewer")
	granted, _ := served(t, ana, "servers", "page", "-n", "paged")
	hidden, _ := served(t, eve, "servers", "page", "-n", "paged")
	tb := newTab(t, 1000, 700)
	tb.open(granted)
	letters := `[...document.querySelectorAll('[data-server]')].map((row) => row.dataset.server + ' ' + (row.querySelector('.chip b')?.textContent ?? '')).join(', ')`
	tb.becomes("showing all UP", letters+` === 'paged/db-1 U, paged/web-1 U, paged/web-2 U'`)
	tb.becomes("showing neighbours together", `[...document.querySelector('.together').rows].map((row) => row.dataset.server).join() === 'paged/web-1,paged/web-2'`)
	patch(t, "rack-7-host-1", func(spec *v1alpha1.ComputeServiceSpec) {
		spec.ForcedDown, spec.ForcedDownReason = ptr.To(true), ptr.To("fenced")
	})
	tb.becomes("showing the failure first", letters+` === 'paged/web-1 D, paged/web-2 D, paged/db-1 U'`)
	tb.press("/", "w", "e", "b", "-", "2", kb.Enter, kb.Enter)
	tb.becomes("clear about failing over", `document.getElementById('details-text').textContent.includes('Yes: the host is off, so this server may be started elsewhere.')`)

	other := newTab(t, 1000, 700)
	other.open(hidden)
	other.becomes("clear about what is not granted", `document.getElementById('lacks').textContent.includes('ask for the ClusterRole hoststatus-host-status-viewer')`)
	if got := evaluate[string](other, letters); got != "paged/db-1 , paged/web-1 , paged/web-2 " {
		t.Errorf("without the grant the page has %s", got)
	}
	for who, page := range map[string]*tab{"ana": tb, "eve": other} {
		text := evaluate[string](page, `(async () => document.documentElement.outerHTML + await (await fetch('api/' + (await (await fetch('start.json')).json()).path)).text())()`)
		if strings.Contains(text, "rack-7") || !strings.Contains(text, "web-1") {
			t.Errorf("%s's page names the host, or no server", who)
		}
		if who == "eve" && strings.Contains(text, "DOWN</") {
			t.Error("eve's page shows a host status")
		}
	}
	// What the page may not read, its owner cannot read by it either.
	tb.tolerates = []string{"403"}
	for _, path := range []string{"api/apis/compute.hoststatus.dev/v1alpha1/servers", "api/apis/tenant.hoststatus.dev/v1alpha1/servers", "api/api/v1/namespaces/paged/secrets"} {
		if code := evaluate[int](tb, `fetch('`+path+`').then((response) => response.status)`); code != 403 {
			t.Errorf("%s is answered with %d", path, code)
		}
	}
}

func TestWhoMayNotReadIsToldBeforeThereIsAPage(t *testing.T) {
	needsControlPlane(t)
	nils := env.As(t, "nils", "")
	for _, args := range [][]string{{"hosts", "page"}, {"servers", "page", "-n", "paged"}, {"servers", "page", "-A"}} {
		out, err := env.Kubectl(t.Context(), nils, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "error: you lack the right to list ") || strings.Contains(string(out), "http://127.0.0.1") {
			t.Errorf("%v ends with %v: %s", args, err, out)
		}
	}
}

// hostsToMake is how many hosts TestManyRealHosts makes.
var hostsToMake = flag.Int("hosts", 0, "make so many hosts on the real API server, and measure how fast their page is")

func TestManyRealHosts(t *testing.T) {
	needsControlPlane(t)
	if *hostsToMake == 0 {
		t.Skip("`make page-scale` makes hosts and measures")
	}
	name := func(i int) string { return fmt.Sprintf("many-%d", i+1) }
	var making errgroup.Group
	making.SetLimit(16)
	for i := range *hostsToMake {
		making.Go(func() error {
			return env.Admin.Create(t.Context(), &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name(i), Labels: map[string]string{"many": "yes", "rack": fmt.Sprintf("r%d", i/50)}}})
		})
	}
	expect.NoError(t, making.Wait())
	t.Cleanup(func() {
		expect.NoError(t, env.Admin.DeleteAllOf(context.Background(), &v1alpha1.ComputeService{}, client.MatchingLabels{"many": "yes"}))
	})
	address, _ := served(t, env.Kubeconfig, "hosts", "page", "-l", "many")
	measure(t, address, "hosts", "", *hostsToMake, name, func(i int) {
		patch(t, name(i), func(spec *v1alpha1.ComputeServiceSpec) { spec.ForcedDown = ptr.To(true) })
	})
}
