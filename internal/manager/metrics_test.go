// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// listing is a cache that has been filled, or not yet.
type listing struct {
	toolscache.SharedIndexInformer // nil: only what is below is expected.
	synced                         bool
	store                          toolscache.Store
}

func (l *listing) HasSynced() bool            { return l.synced }
func (l *listing) GetStore() toolscache.Store { return l.store }

func newListing(t *testing.T, objects ...any) *listing {
	t.Helper()
	l := &listing{synced: true, store: toolscache.NewStore(toolscache.MetaNamespaceKeyFunc)}
	for _, obj := range objects {
		if err := l.store.Add(obj); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// scraped returns the series of f that are not zero, and how many there are.
func scraped(t *testing.T, f *fleetState) (values map[string]float64, series int) {
	t.Helper()
	registry := prometheus.NewRegistry()
	source := collectorFunc(f.collect)
	registry.MustRegister(source)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]float64{}
	for _, family := range families {
		for _, m := range family.Metric {
			series++
			name := family.GetName()
			for _, label := range m.Label {
				name += " " + label.GetValue()
			}
			if value := m.Gauge.GetValue(); value != 0 {
				values[name] = value
			}
		}
	}
	return values, series
}

type collectorFunc func(chan<- prometheus.Metric)

func (collectorFunc) Describe(chan<- *prometheus.Desc)       {}
func (c collectorFunc) Collect(out chan<- prometheus.Metric) { c(out) }

func TestTheFleetIsCountedAtTheScrape(t *testing.T) {
	host := func(name string, status *v1alpha1.HostStatus, reporting metav1.ConditionStatus) *v1alpha1.ComputeService {
		s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.Status.HostStatus = status
		if reporting != "" {
			s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReporting, Status: reporting}}
		}
		return s
	}
	server := func(name string, status *v1alpha1.HostStatus) *v1alpha1.Server {
		s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name}}
		s.Status.HostStatus = status
		return s
	}
	up, maintenance := ptr.To(v1alpha1.HostStatusUp), ptr.To(v1alpha1.HostStatusMaintenance)
	f := &fleetState{
		leads: func() bool { return true },
		hosts: newListing(t, host("a", up, metav1.ConditionTrue), host("b", up, metav1.ConditionTrue),
			host("dies-in-maintenance", maintenance, metav1.ConditionFalse), host("new", nil, "")),
		servers: newListing(t, server("a", up), server("nowhere", ptr.To(v1alpha1.HostStatusNone)), server("new", nil)),
	}
	values, series := scraped(t, f)
	if diff := cmp.Diff(map[string]float64{
		"hoststatus_leading":                 1,
		"hoststatus_hosts UP":                2,
		"hoststatus_hosts MAINTENANCE":       1,
		"hoststatus_hosts NOT_DERIVED":       1,
		"hoststatus_hosts_reporting True":    2,
		"hoststatus_hosts_reporting False":   1,
		"hoststatus_hosts_reporting Unknown": 1,
		"hoststatus_servers UP":              1,
		"hoststatus_servers NO_HOST":         1,
		"hoststatus_servers NOT_DERIVED":     1,
	}, values); diff != "" {
		t.Errorf("series that are not zero (-want +got):\n%s", diff)
	}
	if want := 1 + len(hoststatus.HostLabels()) + 3 + 2 + 3 + len(hoststatus.ServerLabels()); series != want {
		t.Errorf("%d series, want %d: each status, whether a host has it or not", series, want)
	}
}

func TestWindowsAndAnswersAreCountedAtTheScrape(t *testing.T) {
	start := ptr.To(metav1.Unix(1000, 0))
	host := func(name, phase string, status metav1.ConditionStatus, counts ...int32) *v1alpha1.ComputeService {
		s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: start}
		s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionWindowOpen, Status: status, Reason: phase}}
		if len(counts) > 0 {
			s.Status.Maintenance = &v1alpha1.MaintenanceStatus{StartTime: start, Servers: &counts[0], Ready: &counts[1], PutOff: &counts[2]}
		}
		return s
	}
	moved := host("moved", string(v1alpha1.ReasonWindowAnnounced), metav1.ConditionFalse, 4, 4, 0)
	moved.Status.Maintenance.StartTime = ptr.To(metav1.Unix(2000, 0)) // Of the window before.
	f := &fleetState{
		leads: func() bool { return false },
		hosts: newListing(t,
			host("a", string(v1alpha1.ReasonWindowAnnounced), metav1.ConditionFalse, 5, 2, 1),
			host("b", string(v1alpha1.ReasonWindowAnnounced), metav1.ConditionFalse, 3, 3, 0),
			host("not-counted", string(v1alpha1.ReasonWindowAnnounced), metav1.ConditionFalse), moved,
			host("open", string(v1alpha1.ReasonWindowOpen), metav1.ConditionTrue, 7, 7, 0),
			host("over", v1alpha1.WindowOpenReasonClosed, metav1.ConditionFalse),
			&v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "none"}}),
		servers: &listing{},
	}
	values, _ := scraped(t, f)
	if diff := cmp.Diff(map[string]float64{
		"hoststatus_hosts NOT_DERIVED":             7,
		"hoststatus_hosts_reporting Unknown":       7,
		"hoststatus_maintenance_windows announced": 4,
		"hoststatus_maintenance_windows open":      1,
		"hoststatus_maintenance_servers ready":     5,
		"hoststatus_maintenance_servers put_off":   1,
		"hoststatus_maintenance_servers none":      2,
	}, values); diff != "" {
		t.Errorf("series that are not zero (-want +got):\n%s", diff)
	}
}

func TestWhatHasNotBeenListedIsNotSaidToBeNone(t *testing.T) {
	f := &fleetState{leads: func() bool { return false }, hosts: &listing{}, servers: &listing{}}
	if values, series := scraped(t, f); series != 1 || len(values) != 0 {
		t.Errorf("%d series, %v; want hoststatus_leading alone, and 0", series, values)
	}
}
