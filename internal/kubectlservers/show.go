// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

func (p *plugin) newShow() *cobra.Command {
	o := kubectlplugin.NewOutput()
	// A report is not an object of the API: it has JSON, and neither a kind nor a name.
	o.NamePrintFlags, o.TemplatePrinterFlags = nil, nil
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show what the host's status means for a server, its maintenance, and its neighbours",
		Long: `Show what the status of the host means for a server: since when it holds, whether the
server may be started elsewhere, the maintenance window and what you have answered to it,
the changes of the host status, and your servers on the same host.`,
		Example: `  kubectl servers show web-1
  kubectl servers show web-1 -n team-a -o json`,
		Args:              kubectlplugin.Args(cobra.ExactArgs(1), "show takes exactly one server: kubectl servers show NAME"),
		ValidArgsFunction: p.completeServers(1, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.show(cmd, args[0], o)
		},
	}
	o.AddTo(cmd, "Output format, text by default:", "json", "yaml")
	cmd.Flag("show-managed-fields").Hidden = true
	return cmd
}

func (p *plugin) show(cmd *cobra.Command, name string, o *kubectlplugin.Output) error {
	printer, err := o.Printer()
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	report, now, err := c.report(cmd.Context(), client.ObjectKey{Namespace: p.namespace(), Name: name}, p.namespaceFlag())
	if err != nil {
		return err
	}
	if printer == nil {
		_, err := io.WriteString(p.Out, report.render(now, p.LineWidth(), p.Colours()))
		return err
	}
	encoded, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	return printer.PrintObj(&runtime.Unknown{Raw: encoded}, p.Out)
}

// report reads all that show prints about a server. namespaceFlag is what a command that is
// suggested needs behind it; the report is of the time that is returned.
func (c *cluster) report(ctx context.Context, key client.ObjectKey, namespaceFlag string) (*Report, time.Time, error) {
	e := evidence{namespaceFlag: namespaceFlag}
	var err error
	if e.server, err = c.get(ctx, key); err != nil {
		return nil, time.Time{}, err
	}
	e.grant = c.grant(ctx, key)
	e.answer, e.answerErr = c.answer(ctx, key)
	e.others, e.othersErr = c.all(ctx, key.Namespace)
	now := c.now()
	return newReport(e, now), now, nil
}
