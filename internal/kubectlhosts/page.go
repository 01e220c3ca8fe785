// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
	"hoststatus.dev/hoststatus/internal/kubectlplugin/page"
)

//go:embed page
var pageAssets embed.FS

// managerFor is how long the page's tabs share one look for a manager.
const managerFor = time.Second

type pageOptions struct {
	page.Options
	selector string
}

func (p *plugin) newPage() *cobra.Command {
	o := &pageOptions{}
	cmd := &cobra.Command{
		Use:   "page",
		Short: "Serve a page on this machine that shows all hosts as they are",
		Long: `Serve a page on this machine that shows all hosts as they are: a tile for each, in groups
by the label rack or the beginning of the name, and the changes of the last hour. The page
follows changes as they happen, and shows when it cannot. Enter on a tile shows what
'kubectl hosts show' prints.

The page is on 127.0.0.1 until Ctrl-C, at an address that is new each time; standard output
has it, and nothing else. It reads with your rights, and cannot write. Everything in it
comes with the plugin, so that it needs no other network than the one to the API server.`,
		Example: `  kubectl hosts page
  kubectl hosts page --open -l zone=west
  kubectl hosts page --port 8080`,
		Args: kubectlplugin.Args(cobra.NoArgs, "page takes no names of hosts; type a name into the page, or use --selector"),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.page(cmd.Context(), o) },
	}
	o.AddFlags(cmd)
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "Only hosts with these labels, for example rack=r12.")
	return cmd
}

func (p *plugin) page(ctx context.Context, o *pageOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	selector, err := parseSelector(o.selector, nil)
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	config, where, err := p.RESTConfig()
	if err != nil {
		return err
	}
	// A failure at the start is an error; later failures are shown on the page.
	services, err := c.all(ctx, nil, client.MatchingLabelsSelector{Selector: selector})
	if err != nil {
		return err
	}
	assets, err := fs.Sub(pageAssets, "page")
	if err != nil {
		return err
	}
	read := page.Read{Group: v1alpha1.SchemeGroupVersion.Group, Version: v1alpha1.SchemeGroupVersion.Version, Resource: "computeservices"}
	query := url.Values{}
	if !selector.Empty() {
		query.Set("labelSelector", selector.String())
	}
	pulse := &pagePulse{cluster: c, services: services}
	return page.Serve(ctx, p.Plugin, config, page.Site{
		Assets: assets,
		Start:  map[string]any{"cluster": where, "path": read.Path(), "query": query.Encode(), "selector": selector.String()},
		Reads:  []page.Read{read},
		Answers: map[string]page.Answer{
			"show":    p.pageShow,
			"manager": pulse.answer,
			"changes": func(ctx context.Context, _ url.Values) (any, error) { return c.hostChanges(ctx, *p.Config.Namespace) },
		},
	}, &o.Options)
}

// pageShow is what show prints about a host, with the warnings.
func (p *plugin) pageShow(ctx context.Context, query url.Values) (any, error) {
	name := query.Get("host")
	if name == "" {
		return nil, kubectlplugin.UsageError("the parameter host names a host")
	}
	var out strings.Builder
	shown := &plugin{p.Into(&out)}
	c, err := shown.connect()
	if err != nil {
		return nil, err
	}
	report, now, err := shown.report(ctx, c, name)
	if err != nil {
		return nil, err
	}
	shown.writeReport(report, true, now)
	return kubectlplugin.CleanLines(out.String()), nil
}

// pagePulse tells the tabs of a page whether a manager is at work.
type pagePulse struct {
	cluster  *cluster
	services []v1alpha1.ComputeService

	mu   sync.Mutex
	at   time.Time
	last pageManager
}

// pageManager is whether host status is kept up to date.
type pageManager struct {
	State ManagerState `json:"state"`
	// Warnings state what is out of date.
	Warnings []string `json:"warnings"`
}

// answer looks for a manager, or returns what another tab was answered a moment ago.
func (u *pagePulse) answer(ctx context.Context, _ url.Values) (any, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); now.Sub(u.at) < managerFor {
		return u.last, nil
	}
	ctx, cancel := context.WithTimeout(ctx, pulseTimeout+u.cluster.patience)
	defer cancel()
	sign := u.cluster.lookForManager(ctx, u.services)()
	if sign.state == ManagerUnknown {
		// A watch may hang for long without an error; a read tells.
		if err := u.unanswered(ctx); err != nil {
			return nil, err
		}
	}
	u.last = pageManager{State: sign.state, Warnings: append([]string{}, sign.warnings(u.cluster.now())...)}
	u.at = time.Now()
	return u.last, nil
}

// unanswered is why the canaries cannot be read; nil if the API server has answered, be it
// with a refusal.
func (u *pagePulse) unanswered(ctx context.Context) error {
	for _, read := range u.cluster.readCanaries(ctx, canaryNamespaces(u.services)) {
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no answer from the cluster at %s within %s", u.cluster.where, pulseTimeout+u.cluster.patience)
		case read.err != nil && !refused(read.err):
			return read.err
		}
	}
	return nil
}
