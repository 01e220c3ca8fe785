// SPDX-License-Identifier: Apache-2.0

package reports

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(offset time.Duration) metav1.Time { return metav1.NewTime(now.Add(offset)) }

func entry(namespace, name string, state v1alpha1.ServerState, networks ...agentv1alpha1.ReportedNetwork) agentv1alpha1.ReportedServer {
	return agentv1alpha1.ReportedServer{Namespace: namespace, Name: name, State: string(state), Networks: networks}
}

func reportOf(host string, servers ...agentv1alpha1.ReportedServer) *agentv1alpha1.HostReport {
	return &agentv1alpha1.HostReport{
		ObjectMeta: metav1.ObjectMeta{Name: host, CreationTimestamp: at(0)},
		Spec:       agentv1alpha1.HostReportSpec{Servers: servers},
	}
}

func kept(t *testing.T, report *agentv1alpha1.HostReport) *agentv1alpha1.HostReport {
	t.Helper()
	obj, err := Keep(report)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*agentv1alpha1.HostReport)
}

func TestWhatIsKeptOfAReportIsInOrderAndAsServersAcceptIt(t *testing.T) {
	network := func(name string, addresses ...string) agentv1alpha1.ReportedNetwork {
		return agentv1alpha1.ReportedNetwork{Name: name, Addresses: addresses}
	}
	report := reportOf("host-a",
		entry("b", "a", "shutoff"), entry("a", "b", "ACTIVE", network("x", "10.0.0.4/24", "dhcp"), network("x", "10.0.0.5"), network("")),
		entry("a", "b", "ERROR"), entry("a", "a", "a state of tomorrow"))
	report.Labels = map[string]string{"large": "text"}
	report.UID, report.ResourceVersion = "uid", "7"
	want := reportOf("host-a",
		entry("a", "a", ""), entry("a", "b", "ACTIVE", network("x", "10.0.0.4", "10.0.0.5"), network("unnamed")), entry("b", "a", "SHUTOFF"))
	want.UID, want.ResourceVersion = "uid", "7"
	if diff := cmp.Diff(want, kept(t, report)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, kept(t, kept(t, report))); diff != "" {
		t.Errorf("kept twice (-want +got):\n%s", diff)
	}
}

func TestAReportIsAsOldAsItsLastWrite(t *testing.T) {
	report := reportOf("host-a")
	for _, offset := range []time.Duration{time.Minute, time.Hour, time.Second} {
		report.ManagedFields = append(report.ManagedFields, metav1.ManagedFieldsEntry{Time: ptr.To(at(offset))})
	}
	report.ManagedFields = append(report.ManagedFields, metav1.ManagedFieldsEntry{})
	if got := kept(t, report).CreationTimestamp; !got.Equal(ptr.To(at(time.Hour))) {
		t.Errorf("it is of %s", got)
	}
}

func TestAnEntryIsFoundByNamespaceAndName(t *testing.T) {
	report := kept(t, reportOf("host-a", entry("a-b", "c", "ACTIVE"), entry("a", "b-c", "ERROR"), entry("a", "c", "PAUSED")))
	for key, want := range map[types.NamespacedName]string{
		{Namespace: "a-b", Name: "c"}: "ACTIVE",
		{Namespace: "a", Name: "b-c"}: "ERROR",
		{Namespace: "a", Name: "c"}:   "PAUSED",
		{Namespace: "a", Name: "b"}:   "",
		{Namespace: "z", Name: "z"}:   "",
	} {
		if got, found := entryFor(report, key); got.State != want || found != (want != "") {
			t.Errorf("%s: %q, %t", key, got.State, found)
		}
	}
	if _, found := entryFor(nil, types.NamespacedName{}); found {
		t.Error("found in no report")
	}
}

func TestCountsAreWrittenWhenTheyChangeOrSomethingWasNew(t *testing.T) {
	counts := func(offset time.Duration, servers, notHere int32) *v1alpha1.ReportCounts {
		return &v1alpha1.ReportCounts{Time: ptr.To(at(offset)), Servers: &servers, NotHere: &notHere}
	}
	two := reportOf("host-a", entry("a", "a", ""), entry("a", "b", ""))
	for name, c := range map[string]struct {
		stored  *v1alpha1.ReportCounts
		report  *agentv1alpha1.HostReport
		notHere int
		news    bool
		want    *v1alpha1.ReportCounts
		changed bool
	}{
		"no report and no counts":           {},
		"the report is gone":                {stored: counts(0, 2, 0), changed: true},
		"the first report":                  {report: two, notHere: 1, want: counts(0, 2, 1), changed: true},
		"an empty report":                   {report: reportOf("host-a"), want: counts(0, 0, 0), changed: true},
		"the same":                          {stored: counts(0, 2, 1), report: two, notHere: 1, want: counts(0, 2, 1)},
		"a later report of the same":        {stored: counts(-time.Hour, 2, 1), report: two, notHere: 1, want: counts(-time.Hour, 2, 1)},
		"a later report with something new": {stored: counts(-time.Hour, 2, 1), report: two, notHere: 1, news: true, want: counts(0, 2, 1), changed: true},
		"something new of the same report":  {stored: counts(0, 2, 1), report: two, notHere: 1, news: true, want: counts(0, 2, 1)},
		"a server has come":                 {stored: counts(-time.Hour, 2, 1), report: two, want: counts(0, 2, 0), changed: true},
		"counts that somebody broke":        {stored: &v1alpha1.ReportCounts{}, report: two, want: counts(0, 2, 0), changed: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, changed := countsOf(c.stored, c.report, c.notHere, c.news)
			if diff := cmp.Diff(c.want, got); diff != "" || changed != c.changed {
				t.Errorf("changed %t (-want +got):\n%s", changed, diff)
			}
		})
	}
}
