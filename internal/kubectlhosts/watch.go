// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

type watchOptions struct {
	selector string
	output   string
}

func (p *plugin) newWatch() *cobra.Command {
	o := &watchOptions{}
	cmd := &cobra.Command{
		Use:   "watch [HOST...]",
		Short: "Print changes of hosts as they happen",
		Long: `Print a line for each change of a host's status, of its reason, or of whether it
reports: the time, the host, the old and the new status, and the reason. Watch runs
until Ctrl-C. After a lost connection it prints what has changed meanwhile, with the
time of each change. It warns when no manager is at work, because no status changes
then, and reports when one is at work again.

On a terminal, similar changes within two seconds share a line, and the last line shows
whether watch is connected and a manager is at work. In a pipe each change has its own
line.`,
		Example: `  kubectl hosts watch
  kubectl hosts watch -l rack=r12 -o json | jq 'select(.to == "UNKNOWN")'`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeHosts(0, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.watch(cmd.Context(), args, o)
		},
	}
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "Only hosts with these labels, for example rack=r12.")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "Output format: text by default, or json, one object a line.")
	kubectlplugin.Complete(cmd, "output", "json")
	return cmd
}

// Transition is one change of a host, as watch prints it.
type Transition struct {
	Time time.Time `json:"time"`
	Host string    `json:"host"`
	// Event is Changed, Added or Deleted.
	Event string                    `json:"event"`
	From  string                    `json:"from"`
	To    string                    `json:"to"`
	Why   v1alpha1.HostStatusReason `json:"reason,omitempty"`
	// ReportingFrom and ReportingTo are equal if that has not changed.
	ReportingFrom v1alpha1.HostReporting `json:"reportingFrom,omitempty"`
	ReportingTo   v1alpha1.HostReporting `json:"reportingTo,omitempty"`
}

func (p *plugin) watch(ctx context.Context, names []string, o *watchOptions) error {
	if o.output != "" && o.output != "json" {
		return kubectlplugin.UsageError("--output: %q is not supported; use json, or leave it out", o.output)
	}
	selector, err := parseSelector(o.selector, names)
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	// A failure at the start is an error; later failures are retried.
	services, err := c.all(ctx, names, client.MatchingLabelsSelector{Selector: selector})
	if err != nil {
		return err
	}
	if len(services) == 0 {
		_, _ = fmt.Fprintln(p.ErrOut, "Watching; there are no hosts yet.")
	} else {
		_, _ = fmt.Fprintf(p.ErrOut, "Watching %s.\n", summary(services))
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	interactive := p.OutTerminal && o.output == "" && p.Getenv("TERM") != "dumb"
	screen := &screen{
		out: p.Out, notes: p.ErrOut, gathered: interactive, selected: o.selector != "", colours: p.Colours(), width: p.LineWidth,
		print: func(t Transition) error { return p.printTransition(t, o) },
	}
	defer screen.end()
	var mu sync.Mutex
	var broken error // for example a closed pipe
	end := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if broken == nil {
			broken = err
			stop()
		}
	}
	printed := func(err error) {
		if err != nil {
			end(fmt.Errorf("printing a change: %w", err))
		}
	}
	pulse := newPulse(c, canaryNamespaces(services), len(services) > 0, screen)
	changes := newTransitions(services, names, screen.selected, c.now, func(t Transition) {
		pulse.changed()
		printed(screen.change(t, time.Now()))
	})
	connection := &kubectlplugin.Connection{
		Note: screen.note, Explain: func(err error) error { return c.explain(err, "watch", "computeservices", "") }, Refused: end,
	}
	pulse.connection = connection
	var beating sync.WaitGroup
	defer beating.Wait()
	defer stop()
	beating.Go(func() { pulse.run(ctx, printed) })
	source := connection.ListWatch(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := &v1alpha1.ComputeServiceList{}
		return list, c.List(ctx, list, &client.ListOptions{Raw: &options, LabelSelector: selector})
	}, func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		return c.Watch(ctx, &v1alpha1.ComputeServiceList{}, &client.ListOptions{Raw: &options, LabelSelector: selector})
	})
	silent := logr.Discard()
	cache.NewReflectorWithOptions(source, &v1alpha1.ComputeService{}, changes, cache.ReflectorOptions{
		Name: "hosts", Logger: &silent, Backoff: &kubectlplugin.ReconnectBackoff,
	}).RunWithContext(logr.NewContext(ctx, silent))
	changes.mu.Lock()
	defer changes.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	return broken
}

func (p *plugin) printTransition(t Transition, o *watchOptions) error {
	if o.output == "json" {
		// kubectl's printer of JSON writes an object over several lines.
		return kubectlplugin.Safely(p.Out, o.output, func(w io.Writer) error { return json.NewEncoder(w).Encode(t) })
	}
	_, err := fmt.Fprintln(p.Out, showTransition(t, o.selector != "", p.Colours()))
	return err
}

// showTransition writes a change as a line. selected is set if hosts were selected by their
// labels: then one that comes or goes may only match now, or not any more.
func showTransition(t Transition, selected, colours bool) string {
	words := []string{kubectlplugin.Stamp(t.Time), kubectlplugin.Clean(t.Host)}
	status := func(s string) string {
		status := v1alpha1.HostStatus(s)
		return kubectlplugin.Paint(kubectlplugin.StatusCell(&status), colours)
	}
	switch {
	case t.Event == "Added" && selected:
		words = append(words, "added, or matches now", status(t.To))
	case t.Event == "Added":
		words = append(words, "added", status(t.To))
	case t.Event == "Deleted" && selected:
		words = append(words, "deleted, or does not match any more, was", status(t.From))
	case t.Event == "Deleted":
		words = append(words, "deleted, was", status(t.From))
	case t.From == t.To:
		words = append(words, status(t.To))
	default:
		words = append(words, status(t.From), "->", status(t.To))
	}
	if t.Why != "" && t.Event != "Deleted" {
		words = append(words, kubectlplugin.Clean(string(t.Why)))
	}
	if t.ReportingFrom != t.ReportingTo && t.Event == "Changed" {
		words = append(words, kubectlplugin.Clean(fmt.Sprintf("(reporting: %s -> %s)", cmp.Or(t.ReportingFrom, kubectlplugin.None), cmp.Or(t.ReportingTo, kubectlplugin.None))))
	}
	return strings.Join(words, "  ")
}

// summary counts hosts by their status.
func summary(services []v1alpha1.ComputeService) string {
	count := map[string]int{}
	for i := range services {
		count[statusWord(&services[i])]++
	}
	var parts []string
	add := func(status string) {
		if n := count[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kubectlplugin.Clean(status)))
			delete(count, status)
		}
	}
	// Other statuses are of a later release than this plugin.
	for _, status := range hostStatuses {
		add(status)
	}
	for _, status := range slices.Sorted(maps.Keys(count)) {
		add(status)
	}
	return fmt.Sprintf("%s: %s", kubectlplugin.Counted(len(services), "host"), strings.Join(parts, ", "))
}

// state is what watch compares of a host.
type state struct {
	uid              types.UID
	status           string
	reason           v1alpha1.HostStatusReason
	reporting        v1alpha1.HostReporting
	since, reportsAt time.Time
}

func stateOf(s *v1alpha1.ComputeService) state {
	out := state{uid: s.UID, status: string(value(s.Status.HostStatus)), reason: s.Status.HostStatusReason, since: ptrTime(s.Status.HostStatusTransitionTime)}
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReporting); c != nil {
		out.reporting, out.reportsAt = v1alpha1.HostReporting(c.Status), c.LastTransitionTime.Time
	}
	return out
}

// transitions remembers each host, so that it finds what has changed also after a time
// without a connection.
type transitions struct {
	names []string
	// selected is set if hosts were selected by their labels.
	selected bool
	now      func() time.Time
	print    func(Transition)

	mu    sync.Mutex
	known map[string]state
}

func newTransitions(services []v1alpha1.ComputeService, names []string, selected bool, now func() time.Time, print func(Transition)) *transitions {
	t := &transitions{names: names, selected: selected, now: now, print: print, known: map[string]state{}}
	for i := range services {
		t.known[services[i].Name] = stateOf(&services[i])
	}
	return t
}

// Add implements cache.ReflectorStore for a new host.
func (t *transitions) Add(obj any) error { return t.Update(obj) }

// Update is for a host that may have changed.
func (t *transitions) Update(obj any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen(obj)
}

func (t *transitions) seen(obj any) error {
	s, ok := obj.(*v1alpha1.ComputeService)
	if !ok {
		return fmt.Errorf("watching ComputeServices: unexpected %T", obj)
	}
	if len(t.names) > 0 && !slices.Contains(t.names, s.Name) {
		return nil
	}
	after := stateOf(s)
	before, known := t.known[s.Name]
	if known && before.uid != after.uid { // Deleted and made again while there was no connection.
		t.gone(s.Name)
		before, known = state{}, false
	}
	t.known[s.Name] = after
	news := Transition{
		Host: s.Name, Event: "Changed", From: before.status, To: after.status, Why: after.reason,
		ReportingFrom: before.reporting, ReportingTo: after.reporting,
	}
	switch {
	case !known && t.selected: // It may be old, and match only now.
		news.Event = "Added"
	case !known:
		news.Event, news.Time = "Added", s.CreationTimestamp.Time
	case before.status != after.status:
		news.Time = after.since
	case before.reporting != after.reporting:
		news.Time = after.reportsAt
	case before.reason != after.reason:
	default:
		return nil
	}
	t.announce(news)
	return nil
}

// announce prints a change. If its time is not known, it is now.
func (t *transitions) announce(news Transition) {
	if news.Time.IsZero() {
		news.Time = t.now()
	}
	news.Time = news.Time.UTC().Truncate(time.Second)
	t.print(news)
}

// Delete is for a host that was deleted.
func (t *transitions) Delete(obj any) error {
	s, ok := obj.(*v1alpha1.ComputeService)
	if !ok {
		return fmt.Errorf("watching ComputeServices: unexpected %T", obj)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone(s.Name)
	return nil
}

func (t *transitions) gone(name string) {
	if before, known := t.known[name]; known {
		delete(t.known, name)
		t.announce(Transition{Host: name, Event: "Deleted", From: before.status, ReportingFrom: before.reporting})
	}
}

// Replace is for all hosts, after a time in which changes may have been missed.
func (t *transitions) Replace(list []any, _ string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	there := map[string]bool{}
	objects := slices.Clone(list)
	name := func(obj any) string {
		if s, ok := obj.(*v1alpha1.ComputeService); ok {
			return s.Name
		}
		return ""
	}
	slices.SortFunc(objects, func(a, b any) int { return kubectlplugin.CompareNames(name(a), name(b)) })
	for _, obj := range objects {
		there[name(obj)] = true
		if err := t.seen(obj); err != nil {
			return err
		}
	}
	for host := range t.known {
		if !there[host] {
			t.gone(host)
		}
	}
	return nil
}

// Resync has nothing to do: every change is printed when it comes.
func (t *transitions) Resync() error { return nil }
