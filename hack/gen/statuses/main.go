// SPDX-License-Identifier: Apache-2.0

// Command statuses writes what follows from the table of host statuses outside of Go:
// the health checks for Argo CD and Flux, the configuration of kube-state-metrics, and
// the colours for hack/gen/dashboard, a module that does not know this one.
package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/template"

	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// madeBy begins what is made of a template.
const madeBy = "# Made by make generate: from the template in hack/gen/statuses, and from the table of host\n# statuses in internal/hoststatus.\n#\n"

//go:embed templates
var templates embed.FS

// made are the files that are made of a template with the same name, and where they are.
var made = map[string]string{
	"argocd-cm.yaml":          "config/gitops",
	"flux-kustomization.yaml": "config/gitops",
	"kube-state-metrics.yaml": "config/prometheus",
}

// coloursFile is what hack/gen/dashboard reads.
const coloursFile = "hack/gen/dashboard/statuses.json"

// colour is how a dashboard shows a host status.
type colour struct {
	Label  string `json:"label"`
	Colour string `json:"colour"`
	// Derived says that it is one of the values that a host has in its status.
	Derived bool `json:"derived"`
}

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run writes the files below root.
func run(root string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for path, content := range files {
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(path)), content, 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}

// generate returns the files by their path.
func generate() (map[string][]byte, error) {
	files := map[string][]byte{}
	parsed, err := template.New("").Funcs(template.FuncMap{
		"derived": func() []hoststatus.Row { return slices.DeleteFunc(slices.Collect(hoststatus.Rows()), notDerived) },
		"failed":  func() []hoststatus.Row { return derived(hoststatus.HealthBad) },
		"current": func() []hoststatus.Row { return derived(hoststatus.HealthGood, hoststatus.HealthPaused) },
	}).ParseFS(templates, "templates/*")
	if err != nil {
		return nil, fmt.Errorf("reading the templates: %w", err)
	}
	for name, directory := range made {
		out := bytes.NewBufferString(madeBy)
		if err := parsed.ExecuteTemplate(out, name, nil); err != nil {
			return nil, fmt.Errorf("making %s: %w", name, err)
		}
		files[directory+"/"+name] = out.Bytes()
	}
	var colours []colour
	for row := range hoststatus.Rows() {
		colours = append(colours, colour{row.Label(), row.Dashboard, row.Derived()})
	}
	content, err := json.MarshalIndent(colours, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the colours: %w", err)
	}
	files[coloursFile] = append(content, '\n')
	return files, nil
}

// derived returns the statuses that a host has in its status and that mean one of healths.
func derived(healths ...hoststatus.Health) (rows []hoststatus.Row) {
	for row := range hoststatus.Rows() {
		if row.Derived() && slices.Contains(healths, row.Health) {
			rows = append(rows, row)
		}
	}
	return rows
}

func notDerived(row hoststatus.Row) bool { return !row.Derived() }
