// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

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

// Output has the flags by which kubectl's own commands choose how objects are printed.
type Output struct {
	*genericclioptions.PrintFlags
	// texts are the formats that the verb prints itself, beside its default.
	texts []string
}

// NewOutput is for a verb that prints these texts itself, beside its default.
func NewOutput(texts ...string) *Output {
	return &Output{PrintFlags: genericclioptions.NewPrintFlags(""), texts: texts}
}

// AddTo adds the flags. usage is the beginning of the help of --output.
func (o *Output) AddTo(cmd *cobra.Command, usage string, completions ...string) {
	o.AddFlags(cmd)
	cmd.Flag("output").Usage = usage + " " + strings.Join(o.formats(), ", ") + "."
	Complete(cmd, "output", completions...)
}

func (o *Output) formats() []string { return append(slices.Clone(o.texts), o.AllowedFormats()...) }

// Format is what --output names. --template alone means go-template, as in kubectl.
func (o *Output) Format() string {
	if t := o.TemplatePrinterFlags; t != nil && *t.TemplateArgument != "" {
		return cmp.Or(*o.OutputFormat, "go-template")
	}
	return *o.OutputFormat
}

// IsText is true if the verb prints its own text, for people.
func (o *Output) IsText() bool { return o.Format() == "" || slices.Contains(o.texts, o.Format()) }

// Printer returns kubectl's printer for the format, or nil if the verb prints its own text.
func (o *Output) Printer() (printers.ResourcePrinter, error) {
	if o.IsText() {
		return nil, nil
	}
	printer, err := o.ToPrinter()
	if genericclioptions.IsNoCompatiblePrinterError(err) {
		return nil, UsageError("--output: %q is not supported; use one of %s", o.Format(), strings.Join(o.formats(), ", "))
	}
	if err != nil {
		return nil, UsageError("--output: %w", err)
	}
	return &safePrinter{printer, o.Format()}, nil
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
	return Safely(w, p.format, func(w io.Writer) error { return p.ResourcePrinter.PrintObj(obj, w) })
}
