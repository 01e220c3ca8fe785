// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlhosts"
)

const (
	manyHosts = 5000
	// The targets, and how many times longer it may take before the test fails: the machine
	// does other things meanwhile.
	paintTarget, updateTarget = time.Second, 100 * time.Millisecond
	slack                     = 5
)

// painted returns a promise of when, in milliseconds of the epoch, a host has a letter and
// is on the screen with it.
func painted(host, letter string) string {
	return `new Promise((done) => {
		const b = document.querySelector('[data-host="` + host + `"] b');
		const look = () => b.textContent === '` + letter + `' && requestAnimationFrame(() => setTimeout(() => done(performance.timeOrigin + performance.now())));
		if (!look()) { new MutationObserver((_, observer) => look() && observer.disconnect()).observe(b, {childList: true, characterData: true, subtree: true}); }
	})`
}

// milliseconds is a time as pages have it.
func milliseconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1000 }

func TestFiveThousandHostsStayFluid(t *testing.T) {
	f := newFake(t)
	for i := range manyHosts {
		h := fakeHost(fmt.Sprintf("compute-%d", i+1), ptr.To(v1alpha1.HostStatusUp), v1alpha1.ReasonReporting, 26*time.Hour)
		h.Labels = map[string]string{"rack": fmt.Sprintf("r%d", i/50)}
		f.hosts = append(f.hosts, h)
	}
	address := servedBy(t, kubectlhosts.Run, f.URL, "page")
	tb := newTab(t, 1280, 800)
	tb.open(address)
	tb.becomes("painted", `performance.getEntriesByName('all-painted').length > 0`)
	millis := func(script string) time.Duration {
		return time.Duration(evaluate[float64](tb, script) * float64(time.Millisecond))
	}
	first := millis(`Math.min(...performance.getEntriesByName('painted').concat(performance.getEntriesByName('all-painted')).map((mark) => mark.startTime))`)
	all := millis(`performance.getEntriesByName('all-painted')[0].startTime`)
	if n := evaluate[int](tb, `document.querySelectorAll('.tile').length`); n != manyHosts {
		t.Errorf("there are %d tiles", n)
	}

	var took []time.Duration
	for i := range 15 {
		// Some are in sight, some are not.
		host := fmt.Sprintf("compute-%d", i*333+1)
		evaluate[bool](tb, "(window.seen = "+painted(host, "D")+", true)")
		begin := time.Now()
		f.change(host, func(h *v1alpha1.ComputeService) {
			h.Status.HostStatus, h.Status.HostStatusReason, h.Status.HostStatusTransitionTime = ptr.To(v1alpha1.HostStatusDown), v1alpha1.ReasonForcedDown, at(0)
		})
		took = append(took, time.Duration((evaluate[float64](tb, "window.seen")-milliseconds(begin))*float64(time.Millisecond)))
	}
	slices.Sort(took)

	evaluate[bool](tb, "(window.seen = "+painted("compute-4999", "?")+", true)")
	begin := time.Now()
	for i := range 300 {
		f.change(fmt.Sprintf("compute-%d", 4700+i), func(h *v1alpha1.ComputeService) {
			h.Status.HostStatus, h.Status.HostStatusReason, h.Status.HostStatusTransitionTime = ptr.To(v1alpha1.HostStatusUnknown), v1alpha1.ReasonLeaseExpired, at(0)
		})
	}
	storm := time.Duration((evaluate[float64](tb, "window.seen") - milliseconds(begin)) * float64(time.Millisecond))

	filtered := millis(`new Promise((done) => {
		const begin = performance.now();
		const filter = document.getElementById('filter');
		filter.value = 'status:unknown';
		filter.dispatchEvent(new Event('input'));
		requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin))));
	})`)
	tb.becomes("filtered", `document.getElementById('found').textContent === '300 of 5000 hosts match'`)
	median, worst := took[len(took)/2], took[len(took)-1]
	t.Logf("%d hosts: first paint %s, all painted %s (target %s); an update on the screen after %s, %s at most (target %s); 300 at once after %s; a filter after %s",
		manyHosts, first.Round(time.Millisecond), all.Round(time.Millisecond), paintTarget, median.Round(100*time.Microsecond), worst.Round(100*time.Microsecond), updateTarget, storm.Round(time.Millisecond), filtered.Round(time.Millisecond))
	if all > slack*paintTarget || median > slack*updateTarget {
		t.Errorf("the first paint takes %s, an update %s", all, median)
	}
}
