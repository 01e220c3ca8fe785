// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"embed"
	"fmt"
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

func (p *plugin) newPage() *cobra.Command {
	var selector string
	cmd := page.NewCommand(p.Plugin, page.Verb{
		Objects: "hosts",
		Short:   "Serve a page on this machine that shows all hosts as they are",
		About: `Serve a page on this machine that shows all hosts as they are: a tile for each, in groups
by the label rack or the beginning of the name, and the changes of the last hour. The page
follows changes as they happen, and shows when it cannot. Enter on a tile shows what
'kubectl hosts show' prints.`,
		Example: `  kubectl hosts page
  kubectl hosts page --open -l zone=west
  kubectl hosts page --port 8080`,
		Assets:   pageAssets,
		Resource: v1alpha1.SchemeGroupVersion.WithResource("computeservices"),
		Begin: func(ctx context.Context) (*client.ListOptions, map[string]page.Answer, error) {
			return p.beginPage(ctx, selector)
		},
	})
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "Only hosts with these labels, for example rack=r12.")
	return cmd
}

func (p *plugin) beginPage(ctx context.Context, selector string) (*client.ListOptions, map[string]page.Answer, error) {
	parsed, err := parseSelector(selector, nil)
	if err != nil {
		return nil, nil, err
	}
	c, err := p.connect()
	if err != nil {
		return nil, nil, err
	}
	selected := &client.ListOptions{LabelSelector: parsed}
	services, err := c.all(ctx, nil, selected)
	if err != nil {
		return nil, nil, err
	}
	pulse := &pagePulse{cluster: c, services: services}
	return selected, map[string]page.Answer{
		"show":    p.pageShow,
		"manager": pulse.answer,
		"changes": func(ctx context.Context, _ url.Values) (any, error) { return c.hostChanges(ctx, *p.Config.Namespace) },
	}, nil
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
