// SPDX-License-Identifier: Apache-2.0

// Package chaos runs the real processes, breaks what they depend on, and lets an
// observer that knows the truth judge what they said meanwhile.
package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/test/chaos/judge"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

var (
	duration = flag.Duration("chaos.for", 0, "For how long faults are injected: each once, then mixes of them. 0 is the short form.")
	seed     = flag.Uint64("chaos.seed", 1, "Seed of everything that is random.")
	only     = flag.String("chaos.only", "", "Regular expression: inject only the faults whose names match.")
	hosts    = flag.Int("chaos.hosts", 60, "How many hosts there are, beside four whose agents are processes of their own.")
)

// testWorld is what all tests share that need a control plane, and nil with -short.
var testWorld *world

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if testing.Short() {
		fmt.Println("-short leaves out what needs a control plane")
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "hoststatus-chaos-")
	code := 0
	if err == nil {
		defer func() {
			if code == 0 {
				_ = os.RemoveAll(dir)
				return
			}
			fmt.Println("What the processes logged is kept in", dir)
		}()
		// In the short form other suites need the processors that two replicas of the owners'
		// view and their clients take.
		testWorld, err = newWorld(context.Background(), dir, size{hosts: *hosts, serversPerHost: 5, owners: *duration > 0})
	}
	if err != nil {
		fmt.Println(err)
		code = 1
		return code
	}
	code = m.Run()
	testWorld.close()
	code = max(code, fleet.ReportCrashes(os.Stdout, dir))
	return code
}

// sharedWorld returns what all tests share that need a control plane.
func sharedWorld(t *testing.T) *world {
	t.Helper()
	if testWorld == nil {
		t.Skip("-short leaves out what needs a control plane")
	}
	return testWorld
}

const (
	// recoveryLimit is how long after the end of a fault something may be wrong.
	recoveryLimit = 90 * time.Second
	// fanOut is the part of a bare client's rate, before and after, that is asked of
	// the manager. The machine drifts by a quarter and more meanwhile; what the part
	// really is test/bench measures, interleaved.
	fanOut = 0.5
	// unexplained is how much blind time there may be that no fault explains.
	unexplained = 5 * time.Second
)

// result is what came of one run.
type result struct {
	name     string
	findings []judge.Finding
	// rate is how many statuses of Servers a bare client wrote in a second, before
	// and after: the lower figure.
	rate float64
	// died is how many hosts were silent for longer than their D.
	died int
	// wrong is how many objects were still wrong when waiting ended.
	wrong    int
	recovery time.Duration
	blind    time.Duration
	// bare is how long a bare client's verdict took at worst.
	bare time.Duration
}

// inject runs faults at once, each a little later than the one before, and judges
// what was said from their beginning until all was well again.
func inject(ctx context.Context, w *world, name string, r *rand.Rand, together ...fault) (result, error) {
	out := result{name: name}
	var err error
	if out.rate, err = w.measure(ctx); err != nil {
		return out, err
	}
	var latency time.Duration
	w.stormRate.Store(0)
	begin := time.Now()
	victims := w.some(r, 100)[:2]
	victims[0].die()
	ended := make(chan error)
	for i, f := range together {
		latency += f.latency
		own, later := rand.New(rand.NewPCG(r.Uint64(), r.Uint64())), time.Duration(i)*between(r, 0, 3*time.Second)
		go func() {
			if err := letPass(ctx, later); err != nil {
				ended <- err
				return
			}
			ended <- f.run(ctx, w, own)
		}()
	}
	during := time.AfterFunc(between(r, 0, 5*time.Second), victims[1].die)
	var failed error
	for range together {
		if err := <-ended; err != nil {
			failed = fmt.Errorf("injecting %s: %w", name, err)
		}
	}
	if during.Stop() {
		victims[1].die()
	}
	if failed != nil {
		return out, failed
	}
	over := time.Now()
	wait := func(what string) error {
		err := w.settle(ctx, recoveryLimit)
		if u, ok := errors.AsType[*unsettled](err); ok {
			out.wrong += max(u.n, 1)
			fmt.Printf("    %s, after %v: %v\n", what, recoveryLimit, u)
			return nil
		}
		return err
	}
	if err := wait("still wrong"); err != nil {
		return out, err
	}
	out.recovery = time.Since(over)
	if err := w.heal(ctx); err != nil {
		return out, err
	}
	if err := wait("still wrong after all hosts came back"); err != nil {
		return out, err
	}
	end := time.Now()
	// The machine is not equally fast all the time.
	after, err := w.measure(ctx)
	out.rate = min(out.rate, after)
	if storm := w.stormRate.Load(); storm > 0 {
		out.rate = min(out.rate, float64(storm))
	}
	w.judge(&out, begin, over, end, latency)
	if err == nil {
		out.bare, err = w.seen.slowestBare(begin, end)
	}
	return out, err
}

// judge adds to out what was wrong from begin to end. The fault was over at over.
func (w *world) judge(out *result, begin, over, end time.Time, latency time.Duration) {
	var changes []change
	for _, namespace := range w.namespaces() {
		sight := w.sight(namespace, end, latency)
		var idle time.Duration
		for _, b := range sight.Blind {
			if b.To.Before(begin) {
				continue
			}
			out.blind = max(out.blind, b.To.Sub(b.From))
			// A leader that lost its leadership within the fault takes over after it.
			if b.From.After(over.Add(15 * time.Second)) {
				idle += sight.Unexplained(b)
			}
		}
		if idle > unexplained {
			out.findings = append(out.findings, judge.Finding{Kind: judge.Late, At: end, What: fmt.Sprintf("%s was blind for %v without a cause", namespace, idle)})
		}
		for _, h := range w.hosts {
			if h.namespace != namespace {
				continue
			}
			record := w.seen.record(h)
			out.findings = append(out.findings, judge.Judge(record, sight, begin, end)...)
			for key, statuses := range w.seen.serversOn(h) {
				out.findings = append(out.findings, judge.OfServer(key.String(), statuses, record, sight, begin, end)...)
			}
			for _, s := range record.Statuses {
				if !s.At.Before(begin) {
					changes = append(changes, change{h, s})
					if s.Value == judge.Unknown {
						out.died++
					}
				}
			}
		}
	}
	out.findings = append(out.findings, w.ownersFindings(begin)...)
	out.findings = append(out.findings, w.judgeServers(changes, w.sight(w.namespaces()[0], end, latency), out.rate, end)...)
}

// change is a new status of a host's ComputeService.
type change struct {
	host   *host
	status judge.Status
}

// judgeServers checks that the servers followed every change that lasted.
func (w *world) judgeServers(changes []change, sight judge.Sight, rate float64, end time.Time) (findings []judge.Finding) {
	slices.SortFunc(changes, func(a, b change) int { return a.status.At.Compare(b.status.At) })
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	if sight.Latency > 0 {
		rate = min(rate, 16/sight.Latency.Seconds())
	}
	var writes []judge.Change
	for _, c := range changes {
		writes = append(writes, judge.Change{At: c.status.At, Writes: len(w.seen.byHost[c.host.name])})
	}
	for i, c := range changes {
		due := judge.LastWrite(writes, i, rate*fanOut, sight.Blind)
		lasts := !due.After(end) && !slices.ContainsFunc(changes[i+1:], func(other change) bool {
			return other.host == c.host && !other.status.At.After(due)
		})
		if !lasts {
			continue
		}
		for _, key := range w.seen.byHost[c.host.name] {
			server := judge.Host{Statuses: w.seen.servers[key].statuses}
			if value := server.At(due); value != c.status.Value {
				followed, at := "never so in this record", time.Time{}
				for _, s := range server.Statuses {
					if s.At.After(due) && s.Value == c.status.Value {
						followed, at = fmt.Sprintf("so after %v", s.At.Sub(c.status.At)), s.At
						break
					}
				}
				findings = append(findings, judge.Finding{Kind: sight.OfLateServer(c.status.At, due, at), At: due, What: fmt.Sprintf(
					"%s is %q at %s, %v after its host became %s, and %s", key, value, due.Format(time.TimeOnly), due.Sub(c.status.At), c.status.Value, followed)})
			}
		}
	}
	return findings
}

func TestNoFaultMakesHostStatusUntrue(t *testing.T) {
	w := sharedWorld(t)
	var results []result
	defer func() { printTable(os.Stdout, results) }()
	r := rand.New(rand.NewPCG(*seed, 0))
	fmt.Printf("%d hosts, seed %d\n", len(w.hosts), *seed)
	inject := func(name string, together ...fault) {
		begin := time.Now()
		out, err := inject(t.Context(), w, name, r, together...)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("  %3.0f s, bare client: %4.0f writes/s, a verdict %4d ms at worst, %d findings: %s\n",
			time.Since(begin).Seconds(), out.rate, out.bare.Milliseconds(), len(out.findings), names(together))
		report(t, names(together), out)
		results = append(results, out)
	}
	wanted := regexp.MustCompile(*only)
	begin := time.Now()
	for _, f := range faults {
		if wanted.MatchString(f.name) && (*duration > 0 || !f.owners && (f.short || *only != "")) {
			inject(f.name, f)
		}
	}
	for *duration > time.Since(begin) {
		inject("mixes of two or three", mix(r, wanted)...)
	}
}

// mix returns two or three faults that act on different things.
func mix(r *rand.Rand, wanted *regexp.Regexp) (out []fault) {
	used := map[string]bool{}
	for _, i := range r.Perm(len(faults)) {
		f := faults[i]
		if !f.long && !used[f.target] && wanted.MatchString(f.name) {
			used[f.target] = true
			out = append(out, f)
		}
	}
	return out[:min(len(out), 2+r.IntN(2))]
}

func names(together []fault) string {
	var out []string
	for _, f := range together {
		out = append(out, f.name)
	}
	return strings.Join(out, " + ")
}

// report fails the test for what was found.
func report(t *testing.T, name string, out result) {
	t.Helper()
	const most = 10
	n := 0
	for _, f := range out.findings {
		if f.Kind == judge.LateAsAll {
			t.Logf("%s: %s: %s", name, f.Kind, f.What)
			continue
		}
		if n++; n <= most {
			t.Errorf("%s: %s: %s", name, f.Kind, f.What)
		}
	}
	if n > most {
		t.Errorf("%s: and %d more", name, n-most)
	}
	if out.wrong > 0 {
		t.Errorf("%s: %d objects were left wrong", name, out.wrong)
	}
}

func printTable(w io.Writer, results []result) {
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	row := func(cells ...any) {
		for _, c := range cells {
			_, _ = fmt.Fprintf(table, "| %v\t", c)
		}
		_, _ = fmt.Fprintln(table, "|")
	}
	row("fault", "runs", "hosts", "died", "false UNKNOWN", "late or missed", "late as a bare client", "false state", "late servers", "wrong left", "longest blind", "longest recovery")
	row("---", "---", "---", "---", "---", "---", "---", "---", "---", "---", "---", "---")
	var order []string
	byName := map[string][]result{}
	for _, r := range results {
		if byName[r.name] == nil {
			order = append(order, r.name)
		}
		byName[r.name] = append(byName[r.name], r)
	}
	for _, name := range append(order, "all") {
		runs := byName[name]
		if name == "all" {
			runs = results
		}
		var sum result
		kinds := map[judge.Kind]int{}
		for _, r := range runs {
			for _, f := range r.findings {
				kinds[f.Kind]++
			}
			sum.died += r.died
			sum.wrong += r.wrong
			sum.blind = max(sum.blind, r.blind)
			sum.recovery = max(sum.recovery, r.recovery)
		}
		seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
		row(name, len(runs), len(testWorld.hosts), sum.died, kinds[judge.FalseUnknown], kinds[judge.Late], kinds[judge.LateAsAll], kinds[judge.FalseState],
			kinds[judge.LateServer], sum.wrong, seconds(sum.blind), seconds(sum.recovery))
	}
	_ = table.Flush()
}

// A harness that cannot fail proves nothing: it has to notice each of the mutants, of which
// the short form has two.
func TestABrokenManagerIsNoticed(t *testing.T) {
	w := sharedWorld(t)
	ctx := t.Context()
	defer func() {
		if err := w.replaceManagers(ctx, "", w.managerBinary()); err != nil {
			t.Fatal(err)
		}
	}()
	for _, m := range mutants {
		if !m.short && *duration == 0 {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			binary, err := m.buildCommand(ctx, "./cmd/manager", w.fleet.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.replaceManagers(ctx, "-"+m.name, binary); err != nil {
				t.Fatal(err)
			}
			out, err := inject(ctx, w, m.name, rand.New(rand.NewPCG(*seed, 1)), fault{run: m.fault})
			if err != nil {
				t.Fatal(err)
			}
			kinds := map[judge.Kind]int{}
			for _, f := range out.findings {
				kinds[f.Kind]++
			}
			t.Logf("noticed: %v", kinds)
			if kinds[m.want] == 0 {
				t.Errorf("a manager without the rule %q was not noticed by a %s", m.rule, m.want)
			}
		})
	}
}

// replaceManagers puts managers that run binary in the place of the managers, and waits
// until all is well. suffix tells their logs apart.
func (w *world) replaceManagers(ctx context.Context, suffix, binary string) error {
	for _, m := range w.managers {
		m.end()
	}
	w.managers = nil
	for i := range 2 {
		m, err := w.startManager(fmt.Sprintf("manager-%d%s", i, suffix), binary)
		if err != nil {
			return err
		}
		w.managers = append(w.managers, m)
	}
	if _, err := w.leader(ctx); err != nil {
		return err
	}
	return w.settle(ctx, recoveryLimit)
}
