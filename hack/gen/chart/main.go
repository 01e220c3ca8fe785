// SPDX-License-Identifier: Apache-2.0

// Command chart writes what of charts/hoststatus is generated: the templates of what
// config/ has already, the dashboard, the schema of the notifier's configuration, and the
// table of values in its README.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"hoststatus.dev/hoststatus/internal/notify"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// template is a template of the chart that is made from config/. The file templatesFile
// has all of them, and says what the fields mean.
type template struct {
	Name  string   `yaml:"name"`
	Files []string `yaml:"files"`
	When  string   `yaml:"when"`
	Begin string   `yaml:"begin"`
	End   string   `yaml:"end"`
	Edits []edit   `yaml:"edits"`
}

type edit struct {
	Old   string `yaml:"old"`
	New   string `yaml:"new"`
	Times int    `yaml:"times"`
}

const templatesFile = "from-config.yaml"

func readTemplates(chart string) ([]template, error) {
	file, err := os.Open(filepath.Join(chart, templatesFile))
	if err != nil {
		return nil, fmt.Errorf("reading which templates there are: %w", err)
	}
	defer func() { _ = file.Close() }()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	var templates []template
	if err := decoder.Decode(&templates); err != nil {
		return nil, fmt.Errorf("%s: %w", templatesFile, err)
	}
	return templates, nil
}

const generated = "{{- /* Generated from config/ by hack/generate.sh: change it there. */ -}}\n"

func run() error {
	const chart = "charts/hoststatus"
	folder, files := filepath.Join(chart, "templates", "generated"), filepath.Join(chart, "generated")
	for _, dir := range []string{folder, files} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing what was generated before: %w", err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
	}
	templates, err := readTemplates(chart)
	if err != nil {
		return err
	}
	for _, t := range templates {
		content, err := t.render("config")
		if err != nil {
			return fmt.Errorf("%s: %s: %w", templatesFile, t.Name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, t.Name+".yaml"), []byte(content), 0o644); err != nil {
			return fmt.Errorf("writing template %s: %w", t.Name, err)
		}
	}
	const board = "dashboard.json"
	content, err := os.ReadFile(filepath.Join("config", "prometheus", board))
	if err != nil {
		return fmt.Errorf("reading the dashboard: %w", err)
	}
	if err := os.WriteFile(filepath.Join(files, board), content, 0o644); err != nil {
		return fmt.Errorf("writing the dashboard: %w", err)
	}
	if err := writeSchema(chart); err != nil {
		return fmt.Errorf("values.schema.json: %w", err)
	}
	return writeREADME(chart)
}

// writeSchema puts the schema of the notifier's configuration among the definitions of the
// schema of values. Helm follows no reference to another file.
func writeSchema(chart string) error {
	schema := notify.Schema()
	schema["$comment"] = "Generated from internal/notify by hack/generate.sh: change it there."
	definition, err := json.MarshalIndent(schema, "    ", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(chart, "values.schema.json")
	values, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const begin, end = "\n    \"notifierConfig\": {", "\n    }"
	before, rest, found := strings.Cut(string(values), begin)
	_, after, found2 := strings.Cut(rest, end)
	if !found || !found2 {
		return errors.New("it has no definition notifierConfig to replace")
	}
	return os.WriteFile(path, []byte(before+strings.TrimSuffix(begin, "{")+string(definition)+after), 0o644)
}

func (t template) render(config string) (string, error) {
	var parts []string
	for _, name := range t.Files {
		content, err := os.ReadFile(filepath.Join(config, name))
		if err != nil {
			return "", err
		}
		parts = append(parts, strings.TrimPrefix(string(content), "---\n"))
	}
	text := strings.Join(parts, "---\n")
	// Alerts have templates of their own, which helm is not to fill in.
	text = strings.ReplaceAll(text, "{{", `{{ "{{" }}`)
	text = strings.ReplaceAll(text, "hoststatus-system", "{{ .Release.Namespace }}")
	for _, e := range t.Edits {
		if n := strings.Count(text, e.Old); n != e.Times {
			return "", fmt.Errorf("has %d times, not %d times:\n%s", n, e.Times, e.Old)
		}
		text = strings.ReplaceAll(text, e.Old, e.New)
	}
	text = t.Begin + text + t.End
	if t.When != "" {
		text = "{{- if " + t.When + " }}\n" + text + "{{- end }}\n"
	}
	return generated + text, nil
}

const beginValues, endValues = "<!-- values: generated from values.yaml by hack/generate.sh -->\n", "<!-- end of values -->\n"

// writeREADME puts the values and their descriptions into the chart's README.
func writeREADME(chart string) error {
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return fmt.Errorf("values.yaml: %w", err)
	}
	var table strings.Builder
	table.WriteString("| value | default | what it does |\n|---|---|---|\n")
	if err := describe(&table, "", document.Content[0]); err != nil {
		return err
	}
	path := filepath.Join(chart, "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(readme), beginValues)
	_, after, found2 := strings.Cut(rest, endValues)
	if !found || !found2 {
		return fmt.Errorf("README.md has no place for the values: the lines %q and %q", beginValues, endValues)
	}
	return os.WriteFile(path, []byte(before+beginValues+table.String()+endValues+after), 0o644)
}

// describe writes a row for each value that has a description, in the comment that
// begins with "--". Every value must have one, itself or what it is in.
func describe(table *strings.Builder, prefix string, mapping *yaml.Node) error {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		_, description, described := strings.Cut(key.HeadComment, "# -- ")
		if !described {
			if value.Kind != yaml.MappingNode || len(value.Content) == 0 {
				return fmt.Errorf("values.yaml: %s has no description; write one above it, in a comment that begins with # --", name)
			}
			if err := describe(table, name+".", value); err != nil {
				return err
			}
			continue
		}
		var decoded any
		if err := value.Decode(&decoded); err != nil {
			return fmt.Errorf("values.yaml: %s: %w", name, err)
		}
		encoded, err := json.Marshal(decoded)
		if err != nil {
			return fmt.Errorf("values.yaml: %s: %w", name, err)
		}
		description = strings.ReplaceAll(description, "\n# ", " ")
		fmt.Fprintf(table, "| `%s` | `%s` | %s |\n", name, encoded, strings.ReplaceAll(description, "|", `\|`))
	}
	return nil
}
