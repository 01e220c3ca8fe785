// SPDX-License-Identifier: Apache-2.0

package printable

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"sigs.k8s.io/yaml"
)

func TestCleanReplacesWhatDoesNotStandForItself(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"plain text":                      {"PSU 2 failed, see #4711", "PSU 2 failed, see #4711"},
		"other scripts":                   {"Wartung für 東京, ремонт, صيانة", "Wartung für 東京, ремонт, صيانة"},
		"nothing":                         {"", ""},
		"what Persian and emoji need":     {"می\u200cخواهم 👩\u200d🔧", "می\u200cخواهم 👩\u200d🔧"},
		"an Arabic number sign":           {"\u0600١", "\u0600١"},
		"a bell and an escape":            {"a\x07b\x1b[31m", "a�b�[31m"},
		"tab and line feed":               {"a\tb\nc\r", "a�b�c�"},
		"DEL and C1":                      {"a\x7fb\u009bc\u0085", "a�b�c�"},
		"bidirectional marks":             {"a\u061cb\u200ec\u200fd", "a�b�c�d"},
		"bidirectional embeddings":        {"\u202a\u202b\u202c\u202d\u202e", "�����"},
		"bidirectional isolates":          {"\u2066\u2067\u2068\u2069", "����"},
		"line and paragraph separators":   {"a\u2028b\u2029c", "a�b�c"},
		"zero width space, word joiner":   {"a\u200bb\u2060c\ufeffd", "a�b�c�d"},
		"tags":                            {"a\U000e0041b", "a�b"},
		"what is reserved among these":    {"a\u2065b\U000e0002c", "a�b�c"},
		"what is no character":            {"a\ufffeb\U0001fffe\U0010ffff", "a�b��"},
		"a broken encoding":               {"a\xffb", "a�b"},
		"a broken encoding and a control": {"a\xffb\x00", "a�b�"},
		"a replacement already":           {"a�b", "a�b"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Clean(c.text); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// What is clean can be printed as YAML whatever it was, which kubectl does by reading
// the JSON of an answer as YAML.
func TestWhatIsCleanCanBeReadAsYAML(t *testing.T) {
	for r := range rune(unicode.MaxRune + 1) {
		clean := Clean("a" + string(r) + "b")
		if strings.ContainsFunc(clean, unicode.IsControl) {
			t.Errorf("%U is left", r)
		}
		if strings.ContainsAny(clean, `"\`) {
			continue
		}
		if r > 0x2fff && r < 0xd7ff || r > 0x1ffff && r&0xff < 0xf0 {
			continue // A sample of the rest does.
		}
		if _, err := yaml.JSONToYAML([]byte(`{"k":"` + clean + `"}`)); err != nil {
			t.Errorf("%U: %v", r, err)
		}
	}
}

// What is clean is accepted by the schemas of our custom resources, which refuse a whole object
// for one character that they do not want: then a host's state would stay what it was.
func TestWhatIsCleanIsAcceptedByTheSchemas(t *testing.T) {
	files, err := filepath.Glob("../../config/crd/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]bool{}
	for _, file := range files {
		schema, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range regexp.MustCompile(`!self\.matches\(r'+(\[[^\]]+\])`).FindAllSubmatch(schema, -1) {
			refused[string(rule[1])] = true
		}
	}
	if len(refused) == 0 {
		t.Fatal("no schema refuses any character")
	}
	for class := range refused {
		pattern := regexp.MustCompile(class)
		for r := range rune(unicode.MaxRune + 1) {
			if pattern.MatchString(Clean(string(r))) {
				t.Errorf("%U is left, and refused", r)
			}
		}
	}
}
