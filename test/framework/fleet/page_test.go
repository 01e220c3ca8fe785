// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// pages returns the contents of the pages of the documentation, by their paths.
func pages(t *testing.T) map[string]string {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"docs", "charts"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if filepath.Ext(path) == ".md" {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]string{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = string(content)
	}
	if len(out) < 20 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}

var blocks = regexp.MustCompile("(?s)```.*?```")

// A command that no test would find is in no page: those that are run are in blocks of
// kind console, the others in blocks of kind sh.
func TestThePagesHaveNoCommandOutsideOfABlock(t *testing.T) {
	indented := regexp.MustCompile(`(?m)^ {4,}(\$ )?(kubectl|helm|make|go) .*`)
	for path, content := range pages(t) {
		if line := indented.FindString(blocks.ReplaceAllString(content, "")); line != "" {
			t.Errorf("%s: %s", path, line)
		}
	}
}

// A page that was moved or a heading that was reworded leaves no link behind that leads
// nowhere.
func TestTheLinksBetweenPagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	all := pages(t)
	for path, content := range all {
		for _, match := range link.FindAllStringSubmatch(blocks.ReplaceAllString(content, ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(match[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), filepath.FromSlash(file))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", path, match[1])
				continue
			}
			if anchor != "" && !anchors(all[target])[anchor] {
				t.Errorf("%s links to %s, which has no such heading", path, match[1])
			}
		}
	}
}

var (
	heading    = regexp.MustCompile(`(?m)^#{1,6} +(.+)$`)
	linked     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	noAnchor   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	fromSpaces = strings.NewReplacer(" ", "-")
)

// anchors returns the fragments by which the headings of a page are reached, as code
// hosts make them.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(blocks.ReplaceAllString(page, ""), -1) {
		text := linked.ReplaceAllString(match[1], "$1")
		out[fromSpaces.Replace(noAnchor.ReplaceAllString(strings.ToLower(text), ""))] = true
	}
	return out
}
