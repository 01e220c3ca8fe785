// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"testing"
)

// entries are servers of three creation times, in an order of no meaning.
func entries(n int) []entry {
	var out []entry
	for i := range n {
		s := testServer(fmt.Sprintf("vm-%03d", i))
		s.Metadata.UID = fmt.Sprintf("%08d-0000-4000-8000-000000000000", (i*7919)%n)
		s.Metadata.Created = fmt.Sprintf("2026-10-0%dT12:00:00Z", 1+i%3)
		s.Status.PowerState = []string{"RUNNING", "SHUTDOWN", ""}[i%3]
		out = append(out, entry{s, placement{true, fmt.Sprintf("compute-%d", i%5)}})
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestPagesHaveEveryServerOnceInOrder(t *testing.T) {
	for _, query := range []string{"", "sort_key=uuid&sort_dir=desc", "sort_key=host&sort_key=display_name&sort_dir=asc&sort_dir=desc", "sort_key=power_state&sort_dir=asc"} {
		for _, limit := range []int{1, 7, 50, 1000} {
			t.Run(fmt.Sprintf("%s by %d", query, limit), func(t *testing.T) {
				values, err := url.ParseQuery(query)
				if err != nil {
					t.Fatal(err)
				}
				q, err := parseListQuery(values, 16)
				if err != nil {
					t.Fatal(err)
				}
				all := entries(100)
				var got []entry
				var after *entry
				for {
					p := &pager{order: q.order, limit: limit, after: after}
					for _, e := range all {
						p.offer(e)
						if len(p.kept) > limit {
							t.Fatalf("%d servers are kept for a page of %d", len(p.kept), limit)
						}
					}
					page := p.page()
					got = append(got, page...)
					if len(page) < limit {
						break
					}
					after = &page[len(page)-1]
				}
				want := slices.Clone(all)
				slices.SortFunc(want, func(a, b entry) int { return compare(q.order, a, b) })
				same := slices.EqualFunc(got, want, func(a, b entry) bool { return a.server == b.server })
				if !same {
					t.Errorf("%d servers in another order than all of them sorted", len(got))
				}
			})
		}
	}
}

func TestAPageOfNothingIsEmpty(t *testing.T) {
	p := &pager{order: []sortKey{{name: sortUID}}}
	for _, e := range entries(3) {
		p.offer(e)
	}
	if len(p.page()) != 0 {
		t.Error("a page of 0 servers has some")
	}
}

func TestTheLinkOfTheNextPageRepeatsTheQuery(t *testing.T) {
	for query, want := range map[string]string{
		"":                                   "marker=M",
		"limit=1&host=a&all_tenants=1&name=": "all_tenants=1&host=a&limit=1&name=&marker=M",
		"limit=2&limit=3":                    "limit=3&marker=M",
		"marker=before&limit=2":              "limit=2&marker=M",
		"status=A&status=B":                  "status=A&status=B&marker=M",
		"sort_key=b&sort_key=a&sort_dir=asc": "sort_dir=asc&sort_key=b&sort_key=a&marker=M",
		"name=a%26b%3D%0d%0a":                "name=a%26b%3D%0D%0A&marker=M",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := nextQuery(values, "M"); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}
