// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/internal/kubectlservers"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// fleet is a fake with a host of each kind, in two racks and without one, and owners' servers.
func fleet(t *testing.T) *fake {
	t.Helper()
	f := newFake(t)
	add := func(name, rack string, status *v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, ago time.Duration) {
		h := fakeHost(name, status, reason, ago)
		if rack != "" {
			h.Labels = map[string]string{"rack": rack}
		}
		if reason == v1alpha1.ReasonForcedDown {
			h.Spec.ForcedDown, h.Spec.ForcedDownReason = ptr.To(true), ptr.To("fenced by ipmi")
		}
		if reason == v1alpha1.ReasonDisabled {
			h.Spec.Disabled, h.Spec.DisabledReason = ptr.To(true), ptr.To("new memory")
		}
		f.hosts = append(f.hosts, h)
	}
	up, needs := ptr.To(v1alpha1.HostStatusUp), ptr.To(v1alpha1.HostStatusNeedsMaintenance)
	for i := range 12 {
		add(fmt.Sprintf("compute-%d", i+1), "r12", up, v1alpha1.ReasonReporting, 26*time.Hour)
		add(fmt.Sprintf("compute-%d", i+21), "r13", up, v1alpha1.ReasonReporting, 26*time.Hour)
	}
	set := func(i int, status *v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, ago time.Duration) {
		name, rack := f.hosts[i].Name, f.hosts[i].Labels["rack"]
		add(name, rack, status, reason, ago)
		f.hosts[i], f.hosts = f.hosts[len(f.hosts)-1], f.hosts[:len(f.hosts)-1]
	}
	set(2, ptr.To(v1alpha1.HostStatusDown), v1alpha1.ReasonForcedDown, 4*time.Minute)
	set(4, ptr.To(v1alpha1.HostStatusUnknown), v1alpha1.ReasonLeaseExpired, 7*time.Minute)
	set(6, ptr.To(v1alpha1.HostStatusUnknown), v1alpha1.ReasonLeaseExpired, 7*time.Minute)
	set(9, ptr.To(v1alpha1.HostStatusMaintenance), v1alpha1.ReasonDisabled, 40*time.Minute)
	set(11, needs, v1alpha1.ReasonWindowAnnounced, 22*time.Minute)
	add("gpu-1", "", up, v1alpha1.ReasonReporting, 51*time.Minute)
	add("gpu-2", "", nil, v1alpha1.ReasonWaitingForHeartbeat, 8*time.Second)

	past := func(status *v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, ago time.Duration) v1alpha1.HostStatusChange {
		return v1alpha1.HostStatusChange{HostStatus: status, Reason: reason, Since: at(-ago)}
	}
	own := func(name, hostID, namespace string, changes ...v1alpha1.HostStatusChange) *tenantv1alpha1.Server {
		s := tenantv1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: "1"}}
		s.Status.State, s.Status.PowerState, s.Status.HostID = "ACTIVE", "RUNNING", hostID
		if len(changes) > 0 {
			s.Status.HostStatus, s.Status.HostStatusReason = changes[0].HostStatus, changes[0].Reason
			s.Status.HostStatusTransitionTime, s.Status.HostHistory = changes[0].Since, changes
			s.Status.HostReporting = v1alpha1.HostReportingTrue
		}
		f.owned = append(f.owned, s)
		return &f.owned[len(f.owned)-1]
	}
	upSince := past(up, v1alpha1.ReasonReporting, 26*time.Hour)
	for _, name := range []string{"db-1", "db-2"} {
		own(name, "a", "team-a", past(ptr.To(v1alpha1.HostStatusDown), v1alpha1.ReasonForcedDown, 2*time.Hour), past(ptr.To(v1alpha1.HostStatusUnknown), v1alpha1.ReasonLeaseExpired, 4*time.Hour), upSince)
	}
	for i := range 3 {
		s := own(fmt.Sprintf("web-%d", i+1), "b", "team-a", past(needs, v1alpha1.ReasonWindowAnnounced, 6*time.Hour), upSince)
		s.Status.MaintenanceWindow = &v1alpha1.AnnouncedWindow{StartTime: at(5 * time.Hour), EndTime: at(11 * time.Hour), Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot, Answer: v1alpha1.AnswerStateNone}
	}
	own("queue-1", "c", "team-a", upSince)
	own("new-1", "", "team-a", past(ptr.To(v1alpha1.HostStatusNone), v1alpha1.ReasonNoHost, 3*time.Minute))
	own("api-1", "d", "team-b")
	own("api-2", "d", "team-b")
	return f
}

const focused = "document.activeElement?.id"

func TestHostsAreFoundAndShownByTheKeyboard(t *testing.T) {
	f := fleet(t)
	address := servedBy(t, kubectlhosts.Run, f.URL, "page")
	tb := newTab(t, 1000, 700)
	tb.open(address)
	tb.press("/")
	tb.becomes("ready to filter", focused+" === 'filter'")
	tb.press("r", "1", "2", " ", "d", "o", "w", "n")
	tb.becomes("filtered", `document.getElementById('found').textContent === '1 of 26 hosts match'`)
	tb.press(kb.Enter)
	tb.becomes("at the first host", focused+` === 'tiles' && document.querySelector('[aria-selected=true]').dataset.host === 'compute-2'`)
	tb.press(kb.Enter)
	tb.becomes("showing the host", focused+` === 'details-text' && document.getElementById('details-text').textContent.includes('The host was forced down ("fenced by ipmi")')`)
	tb.press(kb.Escape)
	tb.becomes("back at the tile", focused+` === 'tiles' && document.getElementById('details').hidden`)
	tb.press(kb.Escape)
	tb.becomes("without a filter", `document.getElementById('filter').value === '' && document.querySelectorAll('.tile:not([hidden])').length === 26`)
	at := func() string {
		return evaluate[string](tb, `document.querySelector('[aria-selected=true]').dataset.host`)
	}
	for _, step := range []struct{ key, at string }{
		{kb.Home, "gpu-1"}, {kb.ArrowRight, "gpu-2"}, {kb.ArrowDown, "compute-2"}, {kb.ArrowLeft, "compute-1"}, {kb.ArrowDown, "compute-7"}, {kb.ArrowUp, "compute-1"}, {kb.End, "compute-32"}, {kb.ArrowRight, "compute-32"},
	} {
		tb.press(step.key)
		if got := at(); got != step.at {
			t.Errorf("after %q it is at %s, want %s", step.key, got, step.at)
		}
	}
	tb.press("t")
	tb.becomes("a table", `document.querySelectorAll('#table tbody tr').length === 26 && document.getElementById('tiles').hidden`)
	if first := evaluate[string](tb, `[...document.querySelectorAll('#table tbody tr:first-child > *')].map((cell) => cell.textContent).join(' | ')`); first != "compute-2 | DDOWN | ForcedDown | False | 4m | rack r12 | fenced by ipmi" {
		t.Errorf("the table begins with %q", first)
	}
	tb.do(chromedp.Click(chromedp.CSS("#as-table")))
	tb.do(chromedp.Click(chromedp.CSS(`#counts button[data-status=UNKNOWN]`)))
	tb.becomes("filtered by a status", `document.getElementById('found').textContent === '2 of 26 hosts match' && document.querySelector('#counts [aria-pressed=true]').dataset.status === 'UNKNOWN'`)
}

func TestAHostOutOfSightIsReached(t *testing.T) {
	f := fleet(t)
	for i := range 2000 {
		h := fakeHost(fmt.Sprintf("node-%d", i+1), ptr.To(v1alpha1.HostStatusUp), v1alpha1.ReasonReporting, 26*time.Hour)
		h.Labels = map[string]string{"rack": fmt.Sprintf("q%d", i/100)}
		f.hosts = append(f.hosts, h)
	}
	address := servedBy(t, kubectlhosts.Run, f.URL, "page")
	tb := newTab(t, 1000, 700)
	tb.open(address)
	// Who clicks has seen it.
	evaluate[bool](tb, `new Promise((done) => { document.querySelector('[data-host="compute-2"]').scrollIntoView({block: 'center'}); requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true)))); })`)
	tb.do(chromedp.Click(chromedp.CSS(`[data-host="compute-2"]`)))
	tb.becomes("showing the host that was clicked", `document.getElementById('details-title').textContent === 'compute-2' && document.getElementById('details-text').textContent.includes('Forced down:')`)
	tb.press(kb.Escape)
	inSight := `(({top, bottom}) => top >= document.querySelector('header').offsetHeight && bottom <= innerHeight)(document.querySelector('[aria-selected=true]').getBoundingClientRect())`
	for _, key := range []string{kb.Home, kb.End, kb.ArrowUp, kb.Home, kb.ArrowDown} {
		tb.press(key)
		tb.becomes("at a tile in sight", inSight)
	}
	tb.do(chromedp.Evaluate[chromedp.Void](`scrollTo(0, 0)`))
	before := evaluate[float64](tb, `document.documentElement.scrollHeight`)
	evaluate[bool](tb, `new Promise((done) => { scrollTo(0, 1e6); requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true)))); })`)
	if after := evaluate[float64](tb, `document.documentElement.scrollHeight`); math.Abs(after-before) > 2 {
		t.Errorf("the page is %.0f high, and %.0f once it is laid out", before, after)
	}
}

func TestServersAreFoundAndShownByTheKeyboard(t *testing.T) {
	f := fleet(t)
	address := servedBy(t, kubectlservers.Run, f.URL, "page", "-A")
	tb := newTab(t, 1000, 700)
	tb.open(address)
	rows := evaluate[[]string](tb, `[...document.querySelectorAll('tbody tr')].map((row) => row.querySelector('th').textContent)`)
	if got, want := strings.Join(rows, ", "), "2 servers on one hostteam-a/db-1, team-a/db-2, 3 servers on one hostteam-a/web-1, team-a/web-2, team-a/web-3, team-a/new-1, team-a/queue-1, 2 servers on one hostteam-b/api-1, team-b/api-2"; got != want {
		t.Errorf("the rows are %s, want %s", got, want)
	}
	tb.becomes("clear about what is not granted", `document.getElementById('lacks').textContent === 'You lack the right to get servers.tenant.hoststatus.dev/status in namespace team-b; ask for the ClusterRole hoststatus-host-status-viewer.'`)
	if got := evaluate[string](tb, `[...document.querySelector('[data-server="team-b/api-2"]').cells].map((cell) => cell.textContent).join(' | ')`); got != "team-b/api-2 | not shown |  | ACTIVE | RUNNING | " {
		t.Errorf("the row of a server whose host status is not granted is %q", got)
	}
	label := evaluate[string](tb, `document.querySelector('[data-server="team-a/web-1"] .line').getAttribute('aria-label')`)
	for _, want := range []string{"UP (Reporting) from ", "; NEEDS_MAINTENANCE (WindowAnnounced) from ", "; maintenance from ", "Hardware, impact Reboot, your answer: None"} {
		if !strings.Contains(label, want) {
			t.Errorf("the time line is described as %q, without %q", label, want)
		}
	}
	tb.press("/", "w", "e", "b", kb.Enter)
	tb.becomes("at the first row", `document.activeElement.dataset.server === 'team-a/web-1' && document.getElementById('found').textContent === '3 of 9 servers match'`)
	tb.press(kb.ArrowDown, kb.Enter)
	tb.becomes("showing the server", focused+` === 'details-text' && document.getElementById('details-text').textContent.includes('Same host:     web-1, web-3')`)
	tb.press(kb.Escape)
	tb.becomes("back at the row", `document.activeElement.dataset.server === 'team-a/web-2'`)
	tb.press(kb.Escape)
	tb.becomes("without a filter", `document.querySelectorAll('tr[data-server]').length === 9`)
}

func TestThePageIsLiveOrSaysThatItIsNot(t *testing.T) {
	f := fleet(t)
	address := servedBy(t, kubectlhosts.Run, f.URL, "page")
	tb := newTab(t, 1000, 700)
	tb.tolerates = []string{"503", "ERR_INCOMPLETE_CHUNKED_ENCODING"}
	tb.open(address)
	state := "document.getElementById('state').textContent"
	letter := func(host string) string {
		return `document.querySelector('[data-host="` + host + `"] b').textContent`
	}
	f.cutWatches(true)
	tb.becomes("not live", state+`.startsWith('Not live since ') && `+state+`.endsWith('trying again: the API server is being replaced')`)
	f.change("compute-1", func(h *v1alpha1.ComputeService) {
		h.Status.HostStatus = ptr.To(v1alpha1.HostStatusDown)
		h.Status.HostStatusTransitionTime = at(0)
	})
	f.set(func() { f.refused = false })
	tb.becomes("live again, with what it missed", state+` === 'Live' && `+letter("compute-1")+` === 'D'`)
	tb.becomes("clear about it to a screen reader", `document.getElementById('announcer').textContent.includes('compute-1 is DOWN.')`)
	tb.becomes("clear about the change", `document.getElementById('changes').firstChild.innerText.replaceAll('\n', ' ').includes('compute-1')`)

	lists := f.listed()
	f.set(func() { f.forgets, f.hosts = true, f.hosts[1:] })
	f.cutWatches(false)
	tb.becomes("anew", `document.querySelectorAll('.tile').length === 25 && `+state+` === 'Live'`)
	if now := f.listed(); now != lists+1 {
		t.Errorf("after 410 it has listed %d times", now-lists)
	}

	f.set(func() { f.renewed = ptr.To(time.Now().Add(-time.Hour)) })
	tb.becomes("clear that nobody keeps it up to date", `document.getElementById('warnings').textContent.startsWith('no hoststatus manager has been at work since ')`)
	f.set(func() { f.renewed = nil })
	tb.becomes("without a warning", `document.getElementById('warnings').hidden`)

	// The watch is open, and nothing comes.
	tb.tolerates = append(tb.tolerates, "502")
	f.set(func() { f.hangs = true })
	tb.becomes("not live without an answer", state+`.startsWith('Not live since ') && `+state+`.includes('no answer from the cluster at ')`)
	f.set(func() { f.hangs = false })
	tb.becomes("live again", state+` === 'Live'`)
}

func TestOwnersAreWarnedOfWhatMayBeOutOfDate(t *testing.T) {
	f := fleet(t)
	f.warning = `host status may be out of date`
	address := servedBy(t, kubectlservers.Run, f.URL, "page", "-A")
	tb := newTab(t, 1000, 700)
	tb.open(address)
	tb.becomes("showing the warning", `document.getElementById('warnings').textContent === 'host status may be out of date'`)
	f.set(func() { f.warning = "" })
	tb.becomes("without it", `document.getElementById('warnings').hidden`)
}

func TestTheBrowserIsOpenedByAFileOfTheUsers(t *testing.T) {
	f := fleet(t)
	dir := t.TempDir()
	// It stands for the browser: it keeps what it is given, and how that was protected.
	script := fmt.Sprintf("#!/bin/sh\ncp \"$1\" %[1]s/copy.html && stat -c %%a \"$1\" \"$(dirname \"$1\")\" >%[1]s/modes && echo \"$@\" >%[1]s/arguments.new && mv %[1]s/arguments.new %[1]s/arguments\n", dir)
	expect.NoError(t, os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	address := servedBy(t, kubectlhosts.Run, f.URL, "page", "--open")
	var arguments []byte
	expect.Eventually(t, patience, func() (err error) {
		arguments, err = os.ReadFile(filepath.Join(dir, "arguments"))
		return err
	})
	modes, err := os.ReadFile(filepath.Join(dir, "modes"))
	expect.NoError(t, err)
	secret := strings.Split(address, "/")[3]
	if string(modes) != "600\n700\n" || strings.Contains(string(arguments), secret) {
		t.Errorf("the modes are %q, the arguments %q", modes, arguments)
	}
	tb := newTab(t, 1000, 700)
	tb.do(chromedp.Navigate("file://" + filepath.Join(dir, "copy.html")))
	tb.becomes("the page", `document.documentElement.dataset.live === 'yes' && location.href === '`+address+`'`)
}

// hostile is what may stand in a name, a reason or a label.
const hostile = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>` + "\u202e</pre>\x1b[31m"

func TestHostileTextStaysText(t *testing.T) {
	f := fleet(t)
	f.hosts[0].Name = hostile
	f.hosts[1].Labels = map[string]string{"rack": hostile}
	f.hosts[2].Spec.ForcedDownReason = ptr.To(hostile)
	f.hosts[3].Status.HostStatus, f.hosts[3].Status.HostStatusReason = ptr.To(v1alpha1.HostStatus(hostile)), hostile
	f.owned[0].Name, f.owned[1].Status.State, f.owned[2].Status.HostStatusReason = hostile, hostile, hostile
	f.owned[3].Status.HostHistory[0].Reason, f.owned[4].Labels = hostile, map[string]string{"a": hostile}
	harmless := func(tb *tab) {
		t.Helper()
		if n := evaluate[int](tb, `document.querySelectorAll('img, script:not([src]), [onerror]').length + (window.hacked ?? 0)`); n != 0 {
			t.Errorf("%d elements were made of text", n)
		}
		if !evaluate[bool](tb, `document.body.textContent.includes('<img src=x onerror=')`) {
			t.Error("the text is not shown")
		}
	}
	hosts, servers := servedBy(t, kubectlhosts.Run, f.URL, "page"), servedBy(t, kubectlservers.Run, f.URL, "page", "-A")
	tb := newTab(t, 1000, 700)
	tb.open(hosts)
	harmless(tb)
	tb.press("t")
	tb.becomes("a table", `document.querySelectorAll('#table tbody tr').length === 26`)
	harmless(tb)
	tb.press("t", "/")
	tb.press("f", "e", "n", "c", "e", "d")
	tb.becomes("filtered", `document.querySelectorAll('.tile:not([hidden])').length < 26`)
	tb.press(kb.Escape)
	// A tile that moves while it is clicked on is missed.
	tb.becomes("without a filter", `document.getElementById('filter').value === '' && document.querySelectorAll('.tile:not([hidden])').length === 26`)
	tb.do(chromedp.Click(chromedp.CSS(`[data-host="compute-2"]`)))
	tb.becomes("showing the host", `document.getElementById('details-text').textContent.includes('Forced down:')`)
	harmless(tb)
	if text := evaluate[string](tb, `document.getElementById('details-text').textContent`); strings.ContainsAny(text, "\u202e\x1b") {
		t.Errorf("the text is %q", text)
	}
	tb = newTab(t, 1000, 700)
	tb.open(servers)
	harmless(tb)
}

func TestAScreenReaderFindsItsWay(t *testing.T) {
	f := fleet(t)
	hosts, servers := servedBy(t, kubectlhosts.Run, f.URL, "page"), servedBy(t, kubectlservers.Run, f.URL, "page", "-A")
	for address, want := range map[string]map[string]int{
		hosts:   {"listbox": 1, "option": 26, "group": 3, "searchbox": 1, "status": 1, "heading": 2, "image": 1, "log": 1},
		servers: {"grid": 1, "row": 9, "rowheader": 9, "columnheader": 6, "searchbox": 1, "status": 1, "heading": 1, "log": 1},
	} {
		tb := newTab(t, 1000, 700)
		tb.open(address)
		tree, err := chromedp.Call(tb.Context, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
		expect.NoError(t, err)
		found := map[string]int{}
		for _, node := range tree.Nodes {
			if node.Ignored || node.Role == nil {
				continue
			}
			role, name := axText(node.Role), axText(node.Name)
			found[role]++
			switch role {
			case "button", "option", "listbox", "group", "searchbox", "grid", "combobox", "img", "image", "link", "columnheader", "rowheader":
				if name == "" {
					t.Errorf("a %s has no name", role)
				}
			}
		}
		for role, n := range want {
			if found[role] < n {
				t.Errorf("there are %d of %s, want %d at least: %v", found[role], role, n, found)
			}
		}
		if lang := evaluate[string](tb, `document.documentElement.lang + document.title.length`); !strings.HasPrefix(lang, "en") || lang == "en0" {
			t.Errorf("the language and the length of the title are %s", lang)
		}
	}
}

// axText is the text of a value in the accessibility tree.
func axText(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}

// contrasts computes, in the page, the contrast of the text of some elements with what is
// behind them, as WCAG 2.2 defines it, and returns the least.
const contrasts = `(() => {
	const rgb = (text) => text.match(/[\d.]+/g).map(Number);
	const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
	const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === undefined || c[3] > 0) { return c; } } return [255, 255, 255]; };
	return Math.min(...[...document.querySelectorAll('h1, h2, p, th, td, b, span, button, footer, time, option')].filter((e) => e.textContent.trim() !== '' && !e.closest('[hidden]')).map((e) => {
		const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(behind(e))].sort((x, y) => y - x);
		return (a + 0.05) / (b + 0.05);
	}));
})()`

func TestThePagesAreReadableInTheDarkAndInTheLight(t *testing.T) {
	f := fleet(t)
	for _, address := range []string{servedBy(t, kubectlhosts.Run, f.URL, "page"), servedBy(t, kubectlservers.Run, f.URL, "page", "-A")} {
		backs := map[string]bool{}
		for _, scheme := range []string{"dark", "light"} {
			tb := newTab(t, 1000, 700)
			_, err := chromedp.Call(tb.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
			expect.NoError(t, err)
			tb.open(address)
			backs[evaluate[string](tb, `getComputedStyle(document.body).backgroundColor`)] = true
			if least := evaluate[float64](tb, contrasts); least < 4.5 {
				t.Errorf("%s: the least contrast is %.2f", scheme, least)
			}
		}
		if len(backs) != 2 {
			t.Errorf("dark and light are alike: %v", backs)
		}
	}
}
