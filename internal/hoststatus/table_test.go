// SPDX-License-Identifier: Apache-2.0

package hoststatus

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// schema is the part of a CRD's schema that defines a field.
type schema struct {
	Description string            `json:"description"`
	Properties  map[string]schema `json:"properties"`
	Enum        []string          `json:"enum"`
}

// hostStatusOf returns the schema of status.hostStatus of a kind.
func hostStatusOf(t *testing.T, kind string) schema {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "compute.hoststatus.dev_"+kind+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema schema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(content, &crd); err != nil {
		t.Fatal(err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties["hostStatus"]
}

// oneLine undoes the breaks of lines.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestTheTableHasTheValuesOfTheSchemaAndExplainsThemAlike(t *testing.T) {
	var want []string
	for row := range Rows() {
		if row.Status != nil {
			want = append(want, string(*row.Status))
		}
	}
	slices.Sort(want)
	for _, kind := range []string{"computeservices", "servers"} {
		field := hostStatusOf(t, kind)
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(field.Enum))); diff != "" {
			t.Errorf("values of %s (-table +schema; the marker Enum is in api/v1alpha1/hoststatus_types.go):\n%s", kind, diff)
		}
		explained := map[string]string{}
		for paragraph := range strings.SplitSeq(field.Description, "\n\n") {
			if value, text, ok := strings.Cut(paragraph, ": "); ok && (value == `""` || strings.ToUpper(value) == value) {
				explained[value] = oneLine(text)
			}
		}
		wantText := map[string]string{}
		for row := range Rows() {
			switch {
			case row.Derived():
				wantText[row.Label()] = row.Explanation()
			case row.Status != nil && kind == "servers":
				wantText[`""`] = row.Explanation()
			}
		}
		if diff := cmp.Diff(wantText, explained); diff != "" {
			t.Errorf("what kubectl explain shows for the values of %s (-table +comment of the field in api/v1alpha1):\n%s", kind, diff)
		}
	}
}

func TestTheConstantsAreTheValuesOfTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "api", "v1alpha1", "hoststatus_types.go"), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "HostStatus" {
			literal, ok := spec.Values[0].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s is not a literal", spec.Names[0])
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			comments[value] = oneLine(spec.Doc.Text())
		}
		return true
	})
	for row := range Rows() {
		if row.Status == nil {
			continue
		}
		comment, ok := comments[string(*row.Status)]
		if !ok {
			t.Errorf("api/v1alpha1 has no constant for %q", *row.Status)
		} else if !strings.Contains(comment, row.Meaning) {
			t.Errorf("the comment on the constant for %q does not contain %q: %s", *row.Status, row.Meaning, comment)
		}
		delete(comments, string(*row.Status))
	}
	for value := range comments {
		t.Errorf("%q is not in the table", value)
	}
}

func TestEachRowIsComplete(t *testing.T) {
	labels := map[string]bool{}
	for row := range Rows() {
		label := row.Label()
		if labels[label] {
			t.Errorf("%s is there twice", label)
		}
		labels[label] = true
		if row.Dashboard == "" || row.Health == "" || row.Meaning == "" {
			t.Errorf("%s has no colour in dashboards, no health or no meaning: %+v", label, row)
		}
		if row.Derived() && row.Terminal == "" {
			t.Errorf("%s has no colour in a terminal", label)
		}
		if row.Derived() && strings.Contains(row.Advice, "do not fail over") == row.FailOver {
			t.Errorf("%s: failing over is safe: %t, but owners read: %s", label, row.FailOver, row.Advice)
		}
		if found, ok := RowOf(row.Status); !ok || found.Label() != label {
			t.Errorf("looking up %s finds %+v, %t", label, found, ok)
		}
	}
	if !labels[LabelNotDerived] {
		t.Error("an absent host status is not in the table")
	}
}

func TestOnlyDownAllowsFailingOver(t *testing.T) {
	for row := range Rows() {
		if down := row.Label() == string(v1alpha1.HostStatusDown); row.FailOver != down {
			t.Errorf("failing over is safe on %s: %t", row.Label(), row.FailOver)
		}
	}
}

func TestRanks(t *testing.T) {
	up, down, unknown := ptr.To(v1alpha1.HostStatusUp), ptr.To(v1alpha1.HostStatusDown), ptr.To(v1alpha1.HostStatusUnknown)
	maintenance := ptr.To(v1alpha1.HostStatusMaintenance)
	later := ptr.To(v1alpha1.HostStatus("OF_A_LATER_RELEASE"))
	for _, status := range everyStatus {
		name := Label(status)
		if better := Worse(up, status); better != (name != "UP") {
			t.Errorf("%s is worse than UP: %t", name, better)
		}
		if Worse(down, status) {
			t.Errorf("%s is worse than DOWN", name)
		}
		if !Worse(status, later) {
			t.Errorf("a value that is not in the table is no worse than %s", name)
		}
		if Worse(later, status) || Worse(status, status) {
			t.Errorf("%s is worse than itself, or than a value that is not in the table", name)
		}
	}
	for name, c := range map[string]struct{ from, to *v1alpha1.HostStatus }{
		"silence is worse than maintenance":               {maintenance, unknown},
		"nothing known is worse than maintenance":         {maintenance, nil},
		"silence is worse than nothing known":             {nil, unknown},
		"to be on no host is worse than an UP host":       {up, ptr.To(v1alpha1.HostStatusNone)},
		"maintenance is worse than that it is announced":  {ptr.To(v1alpha1.HostStatusNeedsMaintenance), maintenance},
		"a value that is not in the table is the worst":   {down, later},
		"announced maintenance is worse than no host":     {ptr.To(v1alpha1.HostStatusNone), ptr.To(v1alpha1.HostStatusNeedsMaintenance)},
		"off is worse than silent, which may still serve": {unknown, down},
	} {
		if !Worse(c.from, c.to) || Worse(c.to, c.from) {
			t.Errorf("not so: %s", name)
		}
	}
	if row, ok := RowOf(later); ok {
		t.Errorf("a value that is not in the table has the row %+v", row)
	}
}

func TestLabels(t *testing.T) {
	hosts, servers, derived := HostLabels(), ServerLabels(), DerivedLabels()
	if slices.Contains(hosts, LabelNone) || !slices.Contains(hosts, LabelNotDerived) {
		t.Errorf("of hosts: %q", hosts)
	}
	if len(servers) != len(everyStatus) || !slices.Contains(servers, LabelNone) {
		t.Errorf("of servers: %q", servers)
	}
	if slices.Contains(derived, LabelNone) || slices.Contains(derived, LabelNotDerived) || len(derived) != len(servers)-2 {
		t.Errorf("derived: %q", derived)
	}
}

// luminance is how bright a colour is, from 0 to 1, as WCAG 2.2 defines it.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	rgb, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil || len(colour) != len("#rrggbb") {
		t.Fatalf("%q is not a colour; write it as #rrggbb", colour)
	}
	out := 0.0
	for i, share := range []float64{0.0722, 0.7152, 0.2126} {
		part := float64(rgb>>(8*i)&0xff) / 255
		if part > 0.04045 {
			part = math.Pow((part+0.055)/1.055, 2.4)
		} else {
			part /= 12.92
		}
		out += share * part
	}
	return out
}

func TestATileIsReadAndToldFromTheOthers(t *testing.T) {
	letters, tiles := map[string]string{}, map[string]string{}
	for row := range Rows() {
		if utf8.RuneCountInString(row.Letter) != 1 || letters[row.Letter] != "" {
			t.Errorf("the letter of %q is %q, which %q has already or is not one letter", row.Label(), row.Letter, letters[row.Letter])
		}
		if tiles[row.Tile] != "" {
			t.Errorf("the tile of %q has the colour of %q", row.Label(), tiles[row.Tile])
		}
		letters[row.Letter], tiles[row.Tile] = row.Label()+" ", row.Label()+" "
		l := luminance(t, row.Tile)
		black, white := (l+0.05)/0.05, 1.05/(l+0.05)
		if got := map[string]float64{"#000000": black, "#ffffff": white}[row.Ink()]; got < 4.5 || got < min(black, white) {
			t.Errorf("the letter of %q has a contrast of %.1f", row.Label(), got)
		}
	}
}
