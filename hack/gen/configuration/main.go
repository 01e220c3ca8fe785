// SPDX-License-Identifier: Apache-2.0

// Command configuration writes the page that describes every flag of every binary.
package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hoststatus.dev/hoststatus/internal/agent"
	"hoststatus.dev/hoststatus/internal/cli"
	"hoststatus.dev/hoststatus/internal/kubectlhosts"
	"hoststatus.dev/hoststatus/internal/kubectlservers"
	"hoststatus.dev/hoststatus/internal/manager"
	"hoststatus.dev/hoststatus/internal/notify"
	"hoststatus.dev/hoststatus/internal/nova"
	"hoststatus.dev/hoststatus/internal/tenantapi"
)

func main() {
	if err := os.WriteFile("docs/operate/configuration.md", page(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

const intro = `<!-- Made from the code by make generate. -->
# Configuration

The binaries are configured by flags. Each binary checks its flags when it starts and names the one that is wrong. A flag of type *strings* takes
several values separated by commas, or can be given several times. A duration is written as 90s, 1m30s or 1h.

The Helm chart sets the flags from its values, which are listed in [the chart's README](../../charts/hoststatus/README.md#values);
` + "`manager.extraArgs`, `tenantAPI.extraArgs`, `novaAPI.extraArgs`, `notifier.extraArgs` and `agent.extraArgs`" + ` add flags that have no value of their own.
`

const auditIntro = `
### Its audit log

These flags are the same as for every Kubernetes API server. Nothing is logged without ` + "`--audit-policy-file`" + `, and ` +
	"`--audit-log-path` or `--audit-webhook-config-file`" + `.

`

// page has a part for each binary, in which the flags stand as --help lists them.
func page() []byte {
	var out bytes.Buffer
	out.WriteString(intro)
	onHost := agent.NewOptions()
	// The default is a name of the machine, here of the one that generates.
	onHost.HostName = ""
	for _, binary := range []struct {
		name    string
		options cli.Options
	}{
		{"manager", manager.NewOptions()},
		{"tenant-apiserver", tenantapi.NewOptions()},
		{"nova-api", nova.NewOptions()},
		{"notifier", notify.NewOptions()},
		{"agent", onHost},
	} {
		_, _ = fmt.Fprintf(&out, "\n## %s\n\n", binary.name)
		own, audit := &table{}, &table{}
		cli.FlagSet(binary.name, binary.options).VisitAll(func(f *pflag.Flag) {
			if strings.HasPrefix(f.Name, "audit-") {
				audit.add(f, "")
			} else {
				own.add(f, "")
			}
		})
		own.write(&out)
		if len(audit.rows) > 0 {
			out.WriteString(auditIntro)
			audit.write(&out)
		}
	}
	writePlugin(&out, kubectlhosts.Command(), "[kubectl-hosts.md](kubectl-hosts.md)")
	writePlugin(&out, kubectlservers.Command(), "[kubectl-servers.md](../use/kubectl-servers.md)")
	writeConnection(&out, kubectlhosts.Command())
	return out.Bytes()
}

// writePlugin writes the part about a plugin, whose verbs are described on a page. Many
// verbs have the same flags: they stand there once, with the verbs.
func writePlugin(out *bytes.Buffer, root *cobra.Command, page string) {
	_, _ = fmt.Fprintf(out, "\n## %s\n\n%s describes the verbs.\n\n", root.Name(), page)
	verbs := &table{verbs: true}
	for _, verb := range root.Commands() {
		if !verb.Hidden {
			verb.NonInheritedFlags().VisitAll(func(f *pflag.Flag) { verbs.add(f, verb.Name()) })
		}
	}
	root.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { verbs.add(f, "none") })
	slices.SortStableFunc(verbs.rows, func(a, b *row) int { return strings.Compare(a.name, b.name) })
	verbs.write(out)
}

// writeConnection writes the flags of all verbs, which every plugin has alike.
func writeConnection(out *bytes.Buffer, root *cobra.Command) {
	out.WriteString("\n## Flags of all verbs of the plugins\n\n")
	all := &table{}
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { all.add(f, "") })
	all.write(out)
}

// table describes flags, of verbs or of a whole binary.
type table struct {
	verbs bool
	rows  []*row
}

type row struct {
	name, flag, what string
	verbs            []string
}

// add adds a flag, or its verb to where the same flag stands already.
func (t *table) add(f *pflag.Flag, verb string) {
	if f.Hidden || f.Deprecated != "" {
		return
	}
	flag := "`--" + f.Name + "`"
	if f.Shorthand != "" {
		flag = "`-" + f.Shorthand + "`, " + flag
	}
	kind, usage := pflag.UnquoteUsage(f)
	if kind == "" {
		kind = f.Value.Type()
	}
	what := kind + " | " + code(defaultOf(f)) + " | " + cell(usage)
	for _, r := range t.rows {
		if r.flag == flag && r.what == what {
			r.verbs = append(r.verbs, verb)
			return
		}
	}
	t.rows = append(t.rows, &row{name: f.Name, flag: flag, what: what, verbs: []string{verb}})
}

func (t *table) write(out *bytes.Buffer) {
	if !t.verbs {
		out.WriteString("| flag | type | default | what it does |\n|---|---|---|---|\n")
	} else {
		out.WriteString("| flag | verbs | type | default | what it does |\n|---|---|---|---|---|\n")
	}
	for _, r := range t.rows {
		verbs := ""
		if t.verbs {
			verbs = strings.Join(r.verbs, ", ") + " | "
		}
		_, _ = fmt.Fprintf(out, "| %s | %s%s |\n", r.flag, verbs, r.what)
	}
}

// defaultOf returns what the flag would be given to say the same.
func defaultOf(f *pflag.Flag) string {
	if _, list := f.Value.(pflag.SliceValue); list {
		return strings.Trim(f.DefValue, "[]")
	}
	return f.DefValue
}

func code(value string) string {
	if value == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(value, "|", `\|`) + "`"
}

// cell keeps a text from ending its cell, and from being taken for HTML.
func cell(text string) string {
	return strings.NewReplacer("\n", " ", "|", `\|`, "<", `\<`).Replace(strings.TrimSpace(text))
}
