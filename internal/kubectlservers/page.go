// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"embed"
	"net/url"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
	"hoststatus.dev/hoststatus/internal/kubectlplugin/page"
)

//go:embed page
var pageAssets embed.FS

// pageWidth is how many characters a line of the page's panel has room for.
const pageWidth = 110

func (p *plugin) newPage() *cobra.Command {
	chosen := &selection{}
	cmd := page.NewCommand(p.Plugin, page.Verb{
		Objects: servers,
		Short:   "Serve a page on this machine that shows your servers as they are",
		About: `Serve a page on this machine that shows your servers as they are: the status of each one's
host and since when, its history and its maintenance window on a time line, and which of
your servers share a host. The page follows changes as they happen, and shows when it
cannot. Enter on a server shows what 'kubectl servers show' prints. What is not granted to
you is named as such.`,
		Example: `  kubectl servers page
  kubectl servers page --open -A -l app=web
  kubectl servers page --port 8080`,
		Assets:   pageAssets,
		Resource: tenantv1alpha1.SchemeGroupVersion.WithResource(servers),
		Begin: func(ctx context.Context) (*client.ListOptions, map[string]page.Answer, error) {
			return p.beginPage(ctx, chosen)
		},
	})
	chosen.addFlags(cmd)
	return cmd
}

func (p *plugin) beginPage(ctx context.Context, chosen *selection) (*client.ListOptions, map[string]page.Answer, error) {
	selected, err := chosen.parse()
	if err != nil {
		return nil, nil, err
	}
	c, err := p.connect()
	if err != nil {
		return nil, nil, err
	}
	selected.Namespace = p.namespaceOf(chosen)
	if err := c.List(ctx, &tenantv1alpha1.ServerList{}, selected, client.Limit(1)); err != nil {
		return nil, nil, c.explain(err, "list", servers, selected.Namespace)
	}
	return selected, map[string]page.Answer{
		"show":  func(ctx context.Context, query url.Values) (any, error) { return p.pageShow(ctx, c, query) },
		"grant": func(ctx context.Context, query url.Values) (any, error) { return c.pageGrant(ctx, query), nil },
	}, nil
}

// pageShow is what show prints about a server.
func (p *plugin) pageShow(ctx context.Context, c *cluster, query url.Values) (any, error) {
	key := client.ObjectKey{Namespace: query.Get("namespace"), Name: query.Get("server")}
	if key.Namespace == "" || key.Name == "" {
		return nil, kubectlplugin.UsageError("the parameters namespace and server name a server")
	}
	report, now, err := c.report(ctx, key, " -n "+key.Namespace)
	if err != nil {
		return nil, err
	}
	return kubectlplugin.CleanLines(report.render(now, pageWidth, false)), nil
}

// pageGrant is how much of host status the caller may see in a namespace.
type pageGrant struct {
	Grant Grant `json:"grant"`
	// Lacks is why no host status is shown, where none is.
	Lacks string `json:"lacks"`
}

func (c *cluster) pageGrant(ctx context.Context, query url.Values) pageGrant {
	namespace := query.Get("namespace")
	s := sight{namespace: namespace, grant: c.grant(ctx, client.ObjectKey{Namespace: namespace})}
	if s.shown() {
		return pageGrant{Grant: s.grant}
	}
	return pageGrant{s.grant, capital(s.lacks()) + "."}
}
