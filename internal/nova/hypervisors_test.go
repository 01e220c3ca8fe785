// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr"
)

// fleetFace is a face of a cluster with so many hosts, host-0000 and on.
func fleetFace(t *testing.T, hosts int) *face {
	t.Helper()
	c := newCluster(t)
	c.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/computeservices") {
			http.NotFound(w, r)
			return
		}
		from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
		to, next := min(from+1000, hosts), ""
		if to < hosts {
			next = strconv.Itoa(to)
		}
		var items []string
		for n := from; n < to; n++ {
			if selector := r.URL.Query().Get("fieldSelector"); selector != "" && selector != fmt.Sprintf("metadata.name=host-%04d", n) {
				continue
			}
			items = append(items, fmt.Sprintf(`{"metadata":{"name":"host-%04d","uid":%q}}`, n, uid(n)))
		}
		_, _ = fmt.Fprintf(w, `{"kind":"ComputeServiceList","metadata":{"continue":%q},"items":[%s]}`, next, strings.Join(items, ","))
	})
	return c.face(logr.Discard(), nil)
}

type hypervisors struct {
	Hypervisors []struct{}
	Links       []struct{ Href string } `json:"hypervisors_links"`
}

// Each host of a large fleet is in the answer, or there is a link to where it is: a fence agent
// that does not find its host fences nothing.
func TestEachHypervisorIsShownOrBehindALink(t *testing.T) {
	const hosts = 1001
	f := fleetFace(t, hosts)
	for request, want := range map[string]struct {
		shown int
		next  string
	}{
		"2.1 ?":                                  {hosts, ""},
		"2.1 /host/search":                       {hosts, ""},
		"2.32 /detail":                           {hosts, ""},
		"2.53 ?hypervisor_hostname_pattern=host": {hosts, ""},
		"2.33 ?":                                 {1000, "marker=" + uid(999)},
		"2.53 ?":                                 {1000, "marker=" + uid(999)},
		"2.53 ?marker=" + uid(999):               {1, ""},
		"2.53 ?limit=2&marker=" + strings.ToUpper(uid(4)):                 {2, "limit=2&marker=" + uid(6)},
		"2.52 ?limit=2&marker=" + strconv.FormatInt(numberOf(uid(4)), 10): {2, "limit=2&marker=" + uid(6)},
	} {
		version, path, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(http.MethodGet, "http://nova.example.com:8774/v2.1/os-hypervisors"+path, nil)
		r.Header.Set(headerToken, adminToken)
		r.Header.Set(headerVersion, "compute "+version)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		var got hypervisors
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Errorf("%s: %d %.200s: %v", request, w.Code, w.Body, err)
			continue
		}
		next := ""
		if len(got.Links) > 0 {
			_, next, _ = strings.Cut(got.Links[0].Href, "?")
		}
		if len(got.Hypervisors) != want.shown || next != want.next {
			t.Errorf("%s: %d hypervisors, and on at %q; want %d and %q", request, len(got.Hypervisors), next, want.shown, want.next)
		}
	}
}

func TestOfAFilterOfServicesThatIsGivenTwiceTheLastCounts(t *testing.T) {
	f := fleetFace(t, 3)
	for query, want := range map[string]string{
		"host=host-0001&host=host-0002":              "host-0002",
		"host=host-0001&host=":                       "",
		"binary=nova-scheduler&binary=nova-compute":  "host-0000 host-0001 host-0002",
		"binary=nova-compute&binary=nova-scheduler":  "",
		"host=host-0001&binary=nova-compute&zone=no": "host-0001",
	} {
		code, body, _ := get(f, adminToken, "/v2.1/os-services?"+query)
		var answer struct {
			Services []struct{ Host string }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %s: %v", query, code, body, err)
		}
		var got []string
		for _, s := range answer.Services {
			got = append(got, s.Host)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", query, got, want)
		}
	}
}
