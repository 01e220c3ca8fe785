// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"strings"
	"testing"
)

// page is a list of a thousand servers, as kube-apiserver sends it.
func page(b *testing.B) string {
	b.Helper()
	item, err := json.Marshal(testServer("web-1"))
	if err != nil {
		b.Fatal(err)
	}
	return `{"kind":"ServerList","metadata":{},"items":[` + strings.Repeat(string(item)+",", maxPage-1) + string(item) + `]}`
}

func BenchmarkReadingAPageOfServers(b *testing.B) {
	content := page(b)
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeList(strings.NewReader(content), func(*server) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWritingAPageOfServers(b *testing.B) {
	s := testServer("web-1")
	b.ReportAllocs()
	for b.Loop() {
		e := &encoder{}
		for range maxPage {
			s.detail(e, "", maxVersion, placement{true, "compute-1"}, testLinks, false)
		}
		b.SetBytes(int64(len(e.b)))
	}
}
