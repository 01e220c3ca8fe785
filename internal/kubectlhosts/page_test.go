// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// history is a server's record: statuses with how many minutes ago they began, the newest
// first.
func history(entries ...any) (out []v1alpha1.HostStatusChange) {
	for i := 0; i < len(entries); i += 2 {
		status, _ := entries[i].(v1alpha1.HostStatus)
		ago, _ := entries[i+1].(int)
		change := v1alpha1.HostStatusChange{Since: &metav1.Time{Time: now.Add(-time.Duration(ago) * time.Minute)}}
		if status != "" {
			change.HostStatus = &status
		}
		out = append(out, change)
	}
	return out
}

func TestWhatServersHaveOnRecordOfTheirHost(t *testing.T) {
	const none, up, unknown, down = v1alpha1.HostStatus(""), v1alpha1.HostStatusUp, v1alpha1.HostStatusUnknown, v1alpha1.HostStatusDown
	for name, c := range map[string]struct {
		histories [][]v1alpha1.HostStatusChange
		want      []string
	}{
		"nothing":                                  {nil, nil},
		"one server":                               {[][]v1alpha1.HostStatusChange{history(down, 5, unknown, 10, up, 90)}, []string{"5 UNKNOWN DOWN", "10 UP UNKNOWN"}},
		"several that agree are one":               {[][]v1alpha1.HostStatusChange{history(down, 5, up, 90), history(down, 5, up, 90)}, []string{"5 UP DOWN"}},
		"what is older than an hour":               {[][]v1alpha1.HostStatusChange{history(up, 60, unknown, 61)}, nil},
		"where a record begins there is no change": {[][]v1alpha1.HostStatusChange{history(up, 5)}, nil},
		"a status that was not derived":            {[][]v1alpha1.HostStatusChange{history(up, 5, none, 6, up, 90)}, []string{"5 none UP", "6 UP none"}},
		"a server that came from another host":     {[][]v1alpha1.HostStatusChange{history(up, 5, unknown, 10, up, 90), history(up, 120)}, nil},
		"one that is newer than a change":          {[][]v1alpha1.HostStatusChange{history(down, 5, up, 90), history(down, 3)}, []string{"5 UP DOWN"}},
		"one without a time":                       {[][]v1alpha1.HostStatusChange{{{HostStatus: ptr.To(up)}}, history(down, 5, up, 90)}, []string{"5 UP DOWN"}},
	} {
		word := func(s *v1alpha1.HostStatus) string { return string(ptr.Deref(s, "none")) }
		var got []string
		for _, change := range changesOnRecord("compute-1", c.histories, now.Add(-time.Hour)) {
			got = append(got, fmt.Sprintf("%.0f %s %s", now.Sub(change.Time).Minutes(), word(change.From), word(change.To)))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// recording answers lists of servers, in pages of one server each, without an end.
func recording(forbids bool) *api {
	a := newAPI()
	n := 0
	a.other = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != serversPath {
			return false
		}
		if forbids {
			answer(w, http.StatusForbidden, metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
				Message: `servers is forbidden: User "eda" cannot list resource "servers" in API group "compute.hoststatus.dev"`,
			})
			return true
		}
		list := v1alpha1.ServerList{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "ServerList"}, ListMeta: metav1.ListMeta{Continue: "more"}}
		for range maxServersRead / 4 {
			server := v1alpha1.Server{Spec: v1alpha1.ServerSpec{Host: fmt.Sprintf("compute-%d", n)}}
			server.Status.HostHistory = history(v1alpha1.HostStatusDown, 5, v1alpha1.HostStatusUp, 90)
			list.Items = append(list.Items, server)
			n++
		}
		answer(w, http.StatusOK, list)
		return true
	}
	return a
}

func TestReadingWhatServersRecordHasABoundAndNamesTheRight(t *testing.T) {
	for forbids, want := range map[bool]struct {
		changes int
		note    string
	}{
		false: {maxHostChanges, "those on record with the first 20000 servers are shown"},
		true:  {0, "only the last one of each host is shown: you lack the right to list servers.compute.hoststatus.dev"},
	} {
		c, stop := recording(forbids).connected(t)
		got, err := c.hostChanges(t.Context(), "")
		stop()
		if err != nil || len(got.Changes) != want.changes || !strings.Contains(got.Note, want.note) {
			t.Errorf("forbidden %t: %d changes, %v, %q", forbids, len(got.Changes), err, got.Note)
		}
		if encoded, _ := json.Marshal(got); strings.Contains(string(encoded), `"changes":null`) {
			t.Error("no changes are null")
		}
	}
}

func TestAPageIsNotServedOfWhatIsWrongOrCannotBeRead(t *testing.T) {
	refusing := newAPI()
	refusing.other = func(w http.ResponseWriter, _ *http.Request) bool {
		answer(w, http.StatusForbidden, metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
			Message: `computeservices is forbidden: User "nils" cannot list resource "computeservices" in API group "compute.hoststatus.dev"`,
		})
		return true
	}
	for name, c := range map[string]struct {
		api  *api
		args []string
		code int
		says string
	}{
		"a name":          {newAPI(), []string{"page", "compute-1"}, ExitUsage, "page takes no names of hosts; type a name into the page"},
		"a port":          {newAPI(), []string{"page", "--port=70000"}, ExitUsage, "--port: 70000 is not a port; use 1 to 65535, or 0 for any free one"},
		"a selector":      {newAPI(), []string{"page", "-l", "a=b=c"}, ExitUsage, "--selector: "},
		"a missing right": {refusing, []string{"page"}, ExitError, "you lack the right to list computeservices.compute.hoststatus.dev; ask for the ClusterRole hoststatus-fleet-viewer"},
	} {
		out, complaints, code := c.api.run(t, 0, c.args...)
		if code != c.code || !strings.Contains(complaints, c.says) || out != "" {
			t.Errorf("%s: it ends with %d, prints %q, and says %s", name, code, out, complaints)
		}
	}
}
