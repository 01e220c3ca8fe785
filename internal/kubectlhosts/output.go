// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
)

// output has the flags by which kubectl's own commands choose how objects are printed.
type output struct {
	*genericclioptions.PrintFlags
	// texts are the formats that the verb prints itself, beside its default.
	texts []string
}

func newOutput(texts ...string) *output {
	return &output{PrintFlags: genericclioptions.NewPrintFlags(""), texts: texts}
}

// addFlags adds the flags. usage is the beginning of the help of --output.
func (o *output) addFlags(cmd *cobra.Command, usage string, completions ...string) {
	o.AddFlags(cmd)
	cmd.Flag("output").Usage = usage + " " + strings.Join(o.formats(), ", ") + "."
	complete(cmd, "output", completions...)
}

func (o *output) formats() []string { return append(slices.Clone(o.texts), o.AllowedFormats()...) }

// format is what --output names. --template alone means go-template, as in kubectl.
func (o *output) format() string {
	if t := o.TemplatePrinterFlags; t != nil && *t.TemplateArgument != "" {
		return cmp.Or(*o.OutputFormat, "go-template")
	}
	return *o.OutputFormat
}

// isText is true if the verb prints its own text, for people.
func (o *output) isText() bool { return o.format() == "" || slices.Contains(o.texts, o.format()) }

// printer returns kubectl's printer for the format, or nil if the verb prints its own text.
func (o *output) printer() (printers.ResourcePrinter, error) {
	if o.isText() {
		return nil, nil
	}
	printer, err := o.ToPrinter()
	if genericclioptions.IsNoCompatiblePrinterError(err) {
		return nil, usageError("--output: %q is not supported; use one of %s", o.format(), strings.Join(o.formats(), ", "))
	}
	if err != nil {
		return nil, usageError("--output: %w", err)
	}
	return &safePrinter{printer, o.format()}, nil
}

// safePrinter prints objects without anything that drives a terminal.
type safePrinter struct {
	printers.ResourcePrinter
	format string
}

// PrintObj implements printers.ResourcePrinter.
func (p *safePrinter) PrintObj(obj runtime.Object, w io.Writer) error {
	if !isJSON(p.format) {
		safe, err := cleanObject(obj)
		if err != nil {
			return fmt.Errorf("removing control characters from %T: %w", obj, err)
		}
		obj = safe
	}
	return safely(w, p.format, func(w io.Writer) error { return p.ResourcePrinter.PrintObj(obj, w) })
}
