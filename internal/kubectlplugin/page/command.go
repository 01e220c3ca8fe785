// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// Verb is what the verbs page of the plugins differ in.
type Verb struct {
	// Objects are what the page shows, as people say: hosts.
	Objects string
	// Short, About and Example are for the help. About is what the page shows.
	Short, About, Example string
	// Assets have the page in their folder page.
	Assets fs.FS
	// Resource is what the page lists and watches.
	Resource schema.GroupVersionResource
	// Begin reads from the API server, so that a failure at the start is an error; later ones
	// are shown on the page. It returns which objects the page lists, and the plugin's answers.
	Begin func(context.Context) (*client.ListOptions, map[string]Answer, error)
}

// NewCommand makes the verb page of a plugin.
func NewCommand(p *kubectlplugin.Plugin, v Verb) *cobra.Command {
	o := &Options{}
	cmd := &cobra.Command{
		Use:   "page",
		Short: v.Short,
		Long: v.About + `

The page is on 127.0.0.1 until Ctrl-C, at an address that is new each time; standard output
has it, and nothing else. It reads with your rights, and cannot write. Everything in it
comes with the plugin, so that it needs no other network than the one to the API server.`,
		Example: v.Example,
		Args:    kubectlplugin.Args(cobra.NoArgs, "page takes no names of "+v.Objects+"; type a name into the page, or use --selector"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return v.run(cmd.Context(), p, o) },
	}
	o.AddFlags(cmd)
	return cmd
}

func (v *Verb) run(ctx context.Context, p *kubectlplugin.Plugin, o *Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	selected, answers, err := v.Begin(ctx)
	if err != nil {
		return err
	}
	config, where, err := p.RESTConfig()
	if err != nil {
		return err
	}
	assets, err := fs.Sub(v.Assets, "page")
	if err != nil {
		return fmt.Errorf("the page's files: %w", err)
	}
	read := Read{v.Resource.Group, v.Resource.Version, v.Resource.Resource, selected.Namespace}
	query, selectors := url.Values{}, selected.AsListOptions()
	for name, selector := range map[string]string{"labelSelector": selectors.LabelSelector, "fieldSelector": selectors.FieldSelector} {
		if selector != "" {
			query.Set(name, selector)
		}
	}
	return Serve(ctx, p, config, Site{
		Assets: assets,
		Start: map[string]any{
			"cluster": where, "path": read.Path(), "query": query.Encode(), "namespace": selected.Namespace,
			"selector": strings.TrimSpace(selectors.LabelSelector + " " + selectors.FieldSelector),
		},
		Reads:   []Read{read},
		Answers: answers,
	}, o)
}
