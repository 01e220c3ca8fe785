// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// A command that no test would find is in no page: those that are run are in blocks of
// kind console, the others in blocks of kind sh.
func TestThePagesHaveNoCommandOutsideOfABlock(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal(err, len(pages))
	}
	indented := regexp.MustCompile(`(?m)^ {4,}(\$ )?(kubectl|helm|make|go) .*`)
	blocks := regexp.MustCompile("(?s)```.*?```")
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if line := indented.Find(blocks.ReplaceAll(content, nil)); line != nil {
			t.Errorf("%s: %s", filepath.Base(page), line)
		}
	}
}
