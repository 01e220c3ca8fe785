// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"embed"
	"io/fs"
	"net/url"
	"strings"

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

type pageOptions struct {
	page.Options
	selection
}

func (p *plugin) newPage() *cobra.Command {
	o := &pageOptions{}
	cmd := &cobra.Command{
		Use:   "page",
		Short: "Serve a page on this machine that shows your servers as they are",
		Long: `Serve a page on this machine that shows your servers as they are: the status of each one's
host and since when, its history and its maintenance window on a time line, and which of
your servers share a host. The page follows changes as they happen, and shows when it
cannot. Enter on a server shows what 'kubectl servers show' prints.

The page is on 127.0.0.1 until Ctrl-C, at an address that is new each time; standard output
has it, and nothing else. It reads with your rights, and cannot write. What is not granted
to you is named as such. Everything in the page comes with the plugin, so that it needs no
other network than the one to the API server.`,
		Example: `  kubectl servers page
  kubectl servers page --open -A -l app=web
  kubectl servers page --port 8080`,
		Args: kubectlplugin.Args(cobra.NoArgs, "page takes no names of servers; type a name into the page, or use --selector"),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.page(cmd.Context(), o) },
	}
	o.AddFlags(cmd)
	o.addFlags(cmd)
	return cmd
}

func (p *plugin) page(ctx context.Context, o *pageOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	selected, err := o.parse()
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
	namespace := p.namespaceOf(&o.selection)
	// A failure at the start is an error; later failures are shown on the page.
	first := &tenantv1alpha1.ServerList{}
	if err := c.List(ctx, first, selected, client.InNamespace(namespace), client.Limit(1)); err != nil {
		return c.explain(err, "list", servers, namespace)
	}
	assets, err := fs.Sub(pageAssets, "page")
	if err != nil {
		return err
	}
	read := page.Read{Group: tenantv1alpha1.SchemeGroupVersion.Group, Version: tenantv1alpha1.SchemeGroupVersion.Version, Resource: servers, Namespace: namespace}
	query := url.Values{}
	for name, selector := range map[string]string{"labelSelector": selected.LabelSelector.String(), "fieldSelector": selected.FieldSelector.String()} {
		if selector != "" {
			query.Set(name, selector)
		}
	}
	selector := strings.TrimSpace(selected.LabelSelector.String() + " " + selected.FieldSelector.String())
	return page.Serve(ctx, p.Plugin, config, page.Site{
		Assets: assets,
		Start:  map[string]any{"cluster": where, "path": read.Path(), "query": query.Encode(), "namespace": namespace, "selector": selector},
		Reads:  []page.Read{read},
		Answers: map[string]page.Answer{
			"show":  func(ctx context.Context, query url.Values) (any, error) { return p.pageShow(ctx, c, query) },
			"grant": func(ctx context.Context, query url.Values) (any, error) { return c.pageGrant(ctx, query), nil },
		},
	}, &o.Options)
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
