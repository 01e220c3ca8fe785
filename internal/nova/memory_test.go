// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"
)

// Each page of an answer looks at all servers, and holds those of the page alone.
func TestAListOfTenThousandServersHoldsNoMoreThanAPage(t *testing.T) {
	const all, each = 10_000, 1000
	text := strings.Repeat("x", 1500)
	live := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc) // It is far from the largest.
	}
	var before, most atomic.Int64
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
		tenant := strings.HasPrefix(r.URL.Path, "/apis/tenant.")
		if tenant {
			most.Store(max(most.Load(), live()))
		}
		next := ""
		if from+each < all {
			next = strconv.Itoa(from + each)
		}
		_, _ = fmt.Fprintf(w, `{"metadata":{"continue":%q},"items":[`, next)
		for n := from; n < from+each; n++ {
			if n > from {
				_, _ = w.Write([]byte(","))
			}
			if tenant {
				_, _ = fmt.Fprintf(w, `{"metadata":{"namespace":"a","name":"vm-%05d","uid":%q,"creationTimestamp":"2026-10-01T12:00:00Z","labels":{"text":"%s%05d"}}}`, n, uid((n*7919)%all), text, n)
			} else {
				_, _ = fmt.Fprintf(w, `{"metadata":{"namespace":"a","name":"vm-%05d","uid":%q},"spec":{"host":"compute-1"}}`, n, uid((n*7919)%all))
			}
		}
		_, _ = w.Write([]byte(`]}`))
	}))
	defer apiServer.Close()
	options := NewOptions()
	options.PlainHTTP = true
	k, err := newKube(&rest.Config{Host: apiServer.URL})
	if err != nil {
		t.Fatal(err)
	}
	f := newFace(options, k, testingclock.NewFakePassiveClock(instant), logr.Discard())
	before.Store(live())
	code, body, _ := get(f, adminToken, "/v2.1/servers/detail?all_tenants=1&limit=500")
	if s := parse(t, body); code != http.StatusOK || len(s.Servers) != 500 || s.Servers[0].ID != uid(0) || s.Servers[499].ID != uid(499) || *s.Servers[0].Host != "compute-1" {
		t.Fatalf("%d, %d servers", code, len(s.Servers))
	}
	// All of them would be 20 MB.
	if grown := (most.Load() - before.Load()) >> 20; grown > 6 {
		t.Errorf("while the list was read, %d MB more were in use", grown)
	} else {
		t.Logf("while the list was read, %d MB more were in use", grown)
	}
}
