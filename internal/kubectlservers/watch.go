// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

type watchOptions struct {
	selection
	output string
}

func (p *plugin) newWatch() *cobra.Command {
	o := &watchOptions{}
	cmd := &cobra.Command{
		Use:   "watch [NAME...]",
		Short: "Print changes of servers and their hosts as they happen",
		Long: `Print a line for each change of a server, of the status of its host, of the maintenance
window and of what has become of your answer. Watch runs until Ctrl-C. After a lost
connection it prints what has changed meanwhile. Only changes that you may see are printed.`,
		Example: `  kubectl servers watch
  kubectl servers watch web-1 -o json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeServers(0, nil),
		RunE:              func(cmd *cobra.Command, args []string) error { return p.watch(cmd.Context(), args, o) },
	}
	o.addFlags(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "Output format: text by default, or json, one object a line.")
	kubectlplugin.Complete(cmd, "output", "json")
	return cmd
}

func (o *watchOptions) validate(names []string) (*client.ListOptions, error) {
	switch {
	case o.output != "" && o.output != "json":
		return nil, kubectlplugin.UsageError("--output: %q is not supported; use json, or leave it out", o.output)
	case len(names) > 0 && o.allNamespaces:
		return nil, kubectlplugin.UsageError("--all-namespaces: it cannot be combined with names of servers; use --namespace")
	case len(names) > 0 && o.selects():
		return nil, kubectlplugin.UsageError("--selector, --field-selector: they cannot be combined with names of servers; use one or the other")
	default:
		return o.parse()
	}
}

func (p *plugin) watch(ctx context.Context, names []string, o *watchOptions) error {
	selected, err := o.validate(names)
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	namespace := p.namespaceOf(&o.selection)
	// A failure at the start is an error; later failures are retried.
	found, err := c.all(ctx, namespace, selected)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !hasServer(found, name) {
			return kubectlplugin.WithCode(c.noSuchServer(ctx, client.ObjectKey{Namespace: namespace, Name: name}), ExitNotFound)
		}
	}
	_, _ = fmt.Fprintf(p.ErrOut, "Watching %s %s.\n", kubectlplugin.Counted(watched(names, found), "server"), inNamespace(namespace))

	ctx, stop := context.WithCancel(ctx)
	defer stop()
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
	changes := newChanges(found, names, o.selects(), c.now, func(change Change) {
		if err := p.printChange(change, o); err != nil {
			end(fmt.Errorf("printing a change: %w", err))
		}
	})
	connection := &kubectlplugin.Connection{
		Note:    func(format string, args ...any) { _, _ = fmt.Fprintf(p.ErrOut, format+"\n", args...) },
		Explain: func(err error) error { return c.explain(err, "watch", servers, namespace) },
		Refused: end,
	}
	options := func(raw *metav1.ListOptions) *client.ListOptions {
		return &client.ListOptions{Raw: raw, Namespace: namespace, LabelSelector: selected.LabelSelector, FieldSelector: selected.FieldSelector}
	}
	source := connection.ListWatch(func(ctx context.Context, raw metav1.ListOptions) (runtime.Object, error) {
		list := &tenantv1alpha1.ServerList{}
		return list, c.List(ctx, list, options(&raw))
	}, func(ctx context.Context, raw metav1.ListOptions) (watch.Interface, error) {
		return c.Watch(ctx, &tenantv1alpha1.ServerList{}, options(&raw))
	})
	silent := logr.Discard()
	cache.NewReflectorWithOptions(source, &tenantv1alpha1.Server{}, changes, cache.ReflectorOptions{
		Name: servers, Logger: &silent, Backoff: &kubectlplugin.ReconnectBackoff,
	}).RunWithContext(logr.NewContext(ctx, silent))
	mu.Lock()
	defer mu.Unlock()
	return broken
}

func hasServer(found []tenantv1alpha1.Server, name string) bool {
	for i := range found {
		if found[i].Name == name {
			return true
		}
	}
	return false
}

// watched is how many servers are watched.
func watched(names []string, found []tenantv1alpha1.Server) int {
	if len(names) > 0 {
		return len(kubectlplugin.Unique(names))
	}
	return len(found)
}

func (p *plugin) printChange(change Change, o *watchOptions) error {
	if o.output == "json" {
		// kubectl's printer of JSON writes an object over several lines.
		return kubectlplugin.Safely(p.Out, o.output, func(w io.Writer) error { return json.NewEncoder(w).Encode(change) })
	}
	_, err := fmt.Fprintln(p.Out, change.line(o.allNamespaces, o.selects(), p.Colours()))
	return err
}
