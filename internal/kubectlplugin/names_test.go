// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNamesAreOrderedAsPeopleCount(t *testing.T) {
	want := []string{"a", "a1", "a2", "a10", "a10b", "b", "compute-01", "compute-1", "compute-2.x", "compute-10"}
	for range 20 {
		got := slices.Clone(want)
		slices.Reverse(got)
		slices.SortFunc(got, CompareNames)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	for _, a := range want {
		for _, b := range want {
			if x, y := CompareNames(a, b), CompareNames(b, a); x != -y || x == 0 && a != b {
				t.Errorf("%s and %s compare as %d and %d", a, b, x, y)
			}
		}
	}
}

func TestSimilarNames(t *testing.T) {
	names := []string{"compute-1", "compute-2", "compute-10", "storage-1.example.com"}
	for typed, want := range map[string][]string{
		"compute-1":             {"compute-1", "compute-10", "compute-2"},
		"compue-2":              {"compute-2", "compute-1"},
		"storage-1":             {"storage-1.example.com"},
		"compute-2.example.com": {"compute-2", "compute-1", "compute-10"},
		"COMPUTE-10":            {"compute-10", "compute-1", "compute-2"},
		"storage-2.example.com": {"storage-1.example.com"},
		"nova":                  nil,
	} {
		if diff := cmp.Diff(want, Similar(typed, names)); diff != "" {
			t.Errorf("like %s (-want +got):\n%s", typed, diff)
		}
	}
}
