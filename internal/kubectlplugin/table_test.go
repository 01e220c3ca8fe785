// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTablesAlignWhatIsColoured(t *testing.T) {
	var out strings.Builder
	rows := [][]Cell{{{"ü", "32"}, Plain("1"), Plain("")}, {Plain("long"), Plain("2"), Plain("note")}}
	aligned := &Table{Indent: " ", Header: []string{"A", "B", "C"}, Rows: rows, Colours: true}
	aligned.Write(&out, true)
	want := " A      B   C\n \x1b[32mü\x1b[0m      1\n long   2   note\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
