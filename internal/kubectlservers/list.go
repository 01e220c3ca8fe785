// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// selection is which servers a verb is about.
type selection struct {
	allNamespaces   bool
	selector, field string
}

func (s *selection) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&s.allNamespaces, "all-namespaces", "A", false, "The servers of all namespaces, in place of those of --namespace.")
	cmd.Flags().StringVarP(&s.selector, "selector", "l", "", "Only servers with these labels, for example app=web.")
	cmd.Flags().StringVar(&s.field, "field-selector", "", "Only servers with these fields, for example "+tenantv1alpha1.HostStatusField+"=DOWN.")
}

// selects is true if servers are selected by what can change.
func (s *selection) selects() bool { return s.selector != "" || s.field != "" }

// parse returns the selectors as options of a list.
func (s *selection) parse() (*client.ListOptions, error) {
	byLabel, err := labels.Parse(s.selector)
	if err != nil {
		return nil, kubectlplugin.UsageError("--selector: %q is not a label selector (%w); write it as app=web", s.selector, err)
	}
	byField, err := fields.ParseSelector(s.field)
	if err != nil {
		return nil, kubectlplugin.UsageError("--field-selector: %q is not a field selector (%w); write it as %s=DOWN", s.field, err, tenantv1alpha1.HostStatusField)
	}
	return &client.ListOptions{LabelSelector: byLabel, FieldSelector: byField}, nil
}

// namespaceOf is the namespace of a selection; empty for all.
func (p *plugin) namespaceOf(s *selection) string {
	if s.allNamespaces {
		return ""
	}
	return p.namespace()
}

type listOptions struct {
	selection
	noHeaders bool
	output    *kubectlplugin.Output
}

func (p *plugin) newList() *cobra.Command {
	o := &listOptions{output: kubectlplugin.NewOutput("wide")}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List your servers, and the status of their hosts",
		Long: `List your servers, in the columns of Nova. There is a column HOST STATUS if it is granted
to you; an empty cell in it is not yours to see, and - means that there is no value. On a
terminal, long names and networks are shortened to fit, and the ID is left out where there
is no room for it; in a pipe nothing is shortened.`,
		Example: `  kubectl servers list
  kubectl servers list -A -l app=web -o wide
  kubectl servers list --field-selector status.hostStatus=DOWN`,
		Args: kubectlplugin.Args(cobra.NoArgs, "list takes no names; 'kubectl servers show NAME' shows one server"),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.list(cmd.Context(), o) },
	}
	o.addFlags(cmd)
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Print neither column headers nor the summary.")
	o.output.AddTo(cmd, "Output format, a table by default:", "wide", "json", "yaml", "name")
	return cmd
}

func (p *plugin) list(ctx context.Context, o *listOptions) error {
	options, err := o.parse()
	if err != nil {
		return err
	}
	printer, err := o.output.Printer()
	if err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	namespace := p.namespaceOf(&o.selection)
	if printer != nil {
		found, err := c.all(ctx, namespace, options)
		if err != nil {
			return err
		}
		return p.printObjects(found, o.output.Format(), printer)
	}
	rows, err := c.table(ctx, namespace, options)
	if err != nil {
		return err
	}
	p.printTable(rows, namespace, o)
	return nil
}

// printObjects prints servers in a format for scripts.
func (p *plugin) printObjects(found []tenantv1alpha1.Server, format string, printer printers.ResourcePrinter) error {
	// The printer of names takes no list.
	if format == "name" {
		for i := range found {
			if err := printer.PrintObj(&found[i], p.Out); err != nil {
				return err
			}
		}
		return nil
	}
	list := &tenantv1alpha1.ServerList{Items: found}
	if found == nil {
		list.Items = []tenantv1alpha1.Server{}
	}
	list.SetGroupVersionKind(tenantv1alpha1.SchemeGroupVersion.WithKind("ServerList"))
	return printer.PrintObj(list, p.Out)
}

func (p *plugin) printTable(rows *serverRows, namespace string, o *listOptions) {
	if len(rows.rows) == 0 {
		_, _ = fmt.Fprintf(p.ErrOut, "No servers found %s.\n", inNamespace(namespace))
		return
	}
	wide := o.output.Format() == "wide"
	t := p.serverTable(rows, namespace == "", wide, true)
	if t.Width > 0 && t.Narrowest() > t.Width && !wide {
		t = p.serverTable(rows, namespace == "", wide, false)
	}
	t.Write(p.Out, !o.noHeaders)
	if !o.noHeaders {
		_, _ = fmt.Fprintf(p.ErrOut, "%s.%s%s\n", kubectlplugin.Counted(len(rows.rows), "server"), rows.notShown(namespace), rows.next())
	}
}

// serverRows are servers as the owners' view prints them. It shows a column of the host only
// to those to whom it is granted.
type serverRows struct {
	// columns are the names of the view's columns, in its order.
	columns []string
	rows    []serverRow
}

type serverRow struct {
	namespace string
	cells     []string
}

// The columns of the view that the plugin names.
const (
	columnName       = "Name"
	columnHostStatus = "Host Status"
)

// novas are the columns of Nova's table, and more those of -o wide.
var (
	novas = []string{"ID", columnName, "Status", "Task State", "Power State", "Networks", columnHostStatus}
	more  = []string{"Since", "Reason", "Reporting", "Window", "Host ID", "Age"}
)

// has is true if the view shows a column.
func (r *serverRows) has(column string) bool { return slices.Contains(r.columns, column) }

// cell is the text of a column in a row; empty if there is none.
func (r *serverRows) cell(row serverRow, column string) string {
	if i := slices.Index(r.columns, column); i >= 0 && i < len(row.cells) {
		return row.cells[i]
	}
	return ""
}

// notShown names the right that is missing for the column HOST STATUS.
func (r *serverRows) notShown(namespace string) string {
	if r.has(columnHostStatus) {
		return ""
	}
	return " Host status is not shown: " + lacksHostStatus(namespace) + "."
}

// next is where to read on, if there is a host status that asks for it.
func (r *serverRows) next() string {
	for _, row := range r.rows {
		switch r.cell(row, columnHostStatus) {
		case "", "-", string(v1alpha1.HostStatusUp):
		default:
			return " 'kubectl servers show NAME' explains a host status."
		}
	}
	return ""
}

// serverTable is a row for each server, in Nova's columns.
func (p *plugin) serverTable(rows *serverRows, namespaces, wide, ids bool) *kubectlplugin.Table {
	t := p.NewTable()
	if namespaces {
		t.Add("NAMESPACE")
	}
	var columns []string
	for _, column := range novas {
		if column == columnHostStatus && !rows.has(column) || column == "ID" && !ids {
			continue
		}
		columns = append(columns, column)
	}
	if wide {
		columns = append(columns, slices.DeleteFunc(slices.Clone(more), func(c string) bool { return !rows.has(c) })...)
	}
	for _, column := range columns {
		t.Add(strings.ToUpper(column))
	}
	t.Shorten("ID", kubectlplugin.Middle)
	t.Shorten("NAME", kubectlplugin.Middle)
	t.Shorten("NETWORKS", kubectlplugin.End)
	for _, row := range rows.rows {
		var cells []kubectlplugin.Cell
		if namespaces {
			cells = append(cells, kubectlplugin.Plain(row.namespace))
		}
		for _, column := range columns {
			cells = append(cells, serverCell(column, rows.cell(row, column)))
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

// serverCell is a cell as the plugin prints it. Those of the host stay as the view has them:
// an empty one is not the caller's to see.
func serverCell(column, text string) kubectlplugin.Cell {
	status := v1alpha1.HostStatus(text)
	switch column {
	case columnHostStatus:
		if text == "" || text == "-" {
			return kubectlplugin.Plain(text)
		}
		return kubectlplugin.StatusCell(&status)
	case "Status", "Task State", "Power State", "Networks":
		return kubectlplugin.Plain(cmp.Or(text, kubectlplugin.None))
	default:
		return kubectlplugin.Plain(text)
	}
}

// table lists servers as the view prints them, which is also how it shows its grants.
func (c *cluster) table(ctx context.Context, namespace string, options *client.ListOptions) (*serverRows, error) {
	found := &serverRows{}
	next := ""
	for {
		path := []string{"apis", tenantv1alpha1.SchemeGroupVersion.Group, tenantv1alpha1.SchemeGroupVersion.Version}
		if namespace != "" {
			path = append(path, "namespaces", namespace)
		}
		request := c.raw.Get().AbsPath(append(path, servers)...).SetHeader("Accept", kubectlplugin.AsTable).
			Param("includeObject", string(metav1.IncludeMetadata)).
			Param("limit", strconv.Itoa(kubectlplugin.ListPage))
		for name, selector := range map[string]fmt.Stringer{"labelSelector": options.LabelSelector, "fieldSelector": options.FieldSelector} {
			if text := selector.String(); text != "" {
				request = request.Param(name, text)
			}
		}
		if next != "" {
			request = request.Param("continue", next)
		}
		result := request.Do(ctx)
		if err := result.Error(); err != nil {
			return nil, c.explain(err, "list", servers, namespace)
		}
		body, err := result.Raw()
		if err != nil {
			return nil, err
		}
		var page metav1.Table
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("decoding a page of servers: %w", err)
		}
		if err := found.take(&page); err != nil {
			return nil, err
		}
		if next = page.Continue; next == "" {
			found.sort()
			return found, nil
		}
	}
}

// take adds a page.
func (r *serverRows) take(page *metav1.Table) error {
	columns := make([]string, len(page.ColumnDefinitions))
	for i, definition := range page.ColumnDefinitions {
		columns[i] = definition.Name
	}
	if r.columns == nil {
		r.columns = columns
	}
	if !slices.Equal(columns, r.columns) {
		return fmt.Errorf("what you may see has changed while the servers were listed; run the command again")
	}
	if !r.has(columnName) {
		return fmt.Errorf("the API server's table of servers has no column %s", columnName)
	}
	for _, row := range page.Rows {
		var object metav1.PartialObjectMetadata
		if len(row.Object.Raw) > 0 {
			if err := json.Unmarshal(row.Object.Raw, &object); err != nil {
				return fmt.Errorf("decoding a row of servers: %w", err)
			}
		}
		cells := make([]string, len(row.Cells))
		for i, cell := range row.Cells {
			cells[i], _ = cell.(string)
		}
		r.rows = append(r.rows, serverRow{object.Namespace, cells})
	}
	return nil
}

func (r *serverRows) sort() {
	slices.SortStableFunc(r.rows, func(a, b serverRow) int {
		return cmp.Or(kubectlplugin.CompareNames(a.namespace, b.namespace), kubectlplugin.CompareNames(r.cell(a, columnName), r.cell(b, columnName)))
	})
}
