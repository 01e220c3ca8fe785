// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// everyStatus is one server for each thing that host status can say.
var everyStatus = func() map[string]computev1alpha1.HostStatus {
	all := map[string]computev1alpha1.HostStatus{}
	for row := range hoststatus.Rows() {
		if row.Status != nil {
			all["on-"+strings.ToLower(strings.ReplaceAll(row.Label(), "_", "-"))] = *row.Status
		}
	}
	return all
}()

// grade is what a user was given.
type grade struct {
	name  string
	roles []string
	// shows says whether the user sees that a host is as it is.
	shows func(computev1alpha1.HostStatus) bool
	// column says whether the user's tables have the column, statusGet whether the
	// user may get servers/status.
	column, statusGet bool
}

var grades = []grade{
	{"no grant", []string{viewer}, func(computev1alpha1.HostStatus) bool { return false }, false, false},
	{"unknown only", []string{viewer, unknownViewer}, func(s computev1alpha1.HostStatus) bool { return s == computev1alpha1.HostStatusUnknown }, true, false},
	{"host status", []string{viewer, statusViewer}, func(computev1alpha1.HostStatus) bool { return true }, true, true},
}

// hostFields are the names of what the policy hides, in JSON and in YAML.
var hostFields = []string{"hostStatus", "hostStatusReason", "hostStatusTransitionTime", "hostReporting", "maintenanceWindow", "hostHistory"}

func TestEachGradeSeesOfEachHostStatusWhatItWasGiven(t *testing.T) {
	namespace := newNamespace(t)
	for name, status := range everyStatus {
		host := "host-of-" + name
		if status == computev1alpha1.HostStatusNone {
			host = ""
		}
		putServer(t, namespace, name, host, withHostStatus(status))
	}
	for _, g := range grades {
		t.Run(g.name, func(t *testing.T) {
			p, everywhere := newPerson(t), newPerson(t)
			for _, role := range g.roles {
				bind(t, p, role, namespace)
				bind(t, everywhere, role, "")
			}
			checkObject := func(t *testing.T, s *v1alpha1.Server) {
				t.Helper()
				status := everyStatus[s.Name]
				if diff := gocmp.Diff(g.shows(status), s.Status.HostStatus != nil); diff != "" {
					t.Errorf("%s shows its host status (-want +got): %s", s.Name, diff)
				}
				if s.Status.HostStatus != nil && *s.Status.HostStatus != status {
					t.Errorf("%s has host status %s, want %s", s.Name, *s.Status.HostStatus, status)
				}
				raw, err := json.Marshal(s.Status)
				expect.NoError(t, err)
				checkFields(t, s.Name, string(raw), g.shows(status))
			}
			t.Run("get", func(t *testing.T) {
				for name := range everyStatus {
					checkObject(t, p.server(t, namespace, name))
				}
			})
			t.Run("list in the namespace", func(t *testing.T) {
				checkList(t, p.list(t, namespace, ""), namespace, checkObject)
			})
			t.Run("list in the namespace from the cache", func(t *testing.T) {
				expect.Eventually(t, patience, func() error {
					if n := len(p.list(t, namespace, "resourceVersion=0").Items); n != len(everyStatus) {
						return fmt.Errorf("%d servers", n)
					}
					return nil
				})
				checkList(t, p.list(t, namespace, "resourceVersion=0"), namespace, checkObject)
			})
			t.Run("list in all namespaces", func(t *testing.T) {
				if a := p.get(t, pathOf(""), ""); a.code != http.StatusForbidden {
					t.Errorf("a user of one namespace lists all of them: %d", a.code)
				}
				checkList(t, everywhere.list(t, "", ""), namespace, checkObject)
			})
			t.Run("watch", func(t *testing.T) {
				w := p.watch(t, namespace, "", "")
				for range everyStatus {
					e := w.next(t, 5*time.Second)
					if e.Type != "ADDED" {
						t.Errorf("event %s, want ADDED", e.Type)
					}
					checkObject(t, e.server(t))
				}
			})
			t.Run("get servers/status", func(t *testing.T) {
				for name := range everyStatus {
					a := p.get(t, pathOf(namespace, name, "status"), "")
					if !g.statusGet {
						if a.code != http.StatusForbidden {
							t.Errorf("get servers/status of %s is answered %d, want 403", name, a.code)
						}
						continue
					}
					checkObject(t, decode[v1alpha1.Server](t, a))
				}
			})
			t.Run("table", func(t *testing.T) {
				checkTable(t, decode[metav1.Table](t, p.get(t, pathOf(namespace), acceptTable)), g)
				one := decode[metav1.Table](t, p.get(t, pathOf(namespace, "on-unknown"), acceptTable))
				checkTable(t, one, g)
				empty := decode[metav1.Table](t, p.get(t, pathOf(namespace)+"?labelSelector=no%3Dsuch", acceptTable))
				checkTable(t, empty, g)
			})
			t.Run("kubectl -o yaml, -o wide and describe", func(t *testing.T) {
				for name, status := range everyStatus {
					checkFields(t, name, p.mustKubectl(t, "get", "server", name, "-n", namespace, "-o", "yaml"), g.shows(status))
				}
				wide := p.mustKubectl(t, "get", "servers", "-n", namespace, "-o", "wide")
				if got := strings.Contains(wide, "HOST STATUS"); got != g.column {
					t.Errorf("-o wide has the column: %t, want %t\n%s", got, g.column, wide)
				}
				described := p.mustKubectl(t, "describe", "server", "on-unknown", "-n", namespace)
				if got := strings.Contains(described, "Host Status:"); got != g.shows(computev1alpha1.HostStatusUnknown) {
					t.Errorf("describe shows host status: %t\n%s", got, described)
				}
				described = p.mustKubectl(t, "describe", "server", "on-down", "-n", namespace)
				if got := strings.Contains(described, "Host Status:"); got != g.shows(computev1alpha1.HostStatusDown) {
					t.Errorf("describe shows host status: %t\n%s", got, described)
				}
			})
		})
	}
}

func checkFields(t *testing.T, name, text string, shown bool) {
	t.Helper()
	for _, field := range hostFields {
		if !shown && strings.Contains(text, field) {
			t.Errorf("%s has %s in %s", name, field, text)
		}
	}
	if shown && !strings.Contains(text, "hostStatus") {
		t.Errorf("%s has no hostStatus in %s", name, text)
	}
}

// checkList checks those servers of the list that are in namespace, and their order.
func checkList(t *testing.T, list *v1alpha1.ServerList, namespace string, check func(*testing.T, *v1alpha1.Server)) {
	t.Helper()
	var names []string
	for i := range list.Items {
		if list.Items[i].Namespace == namespace {
			names = append(names, list.Items[i].Name)
			check(t, &list.Items[i])
		}
	}
	if len(names) != len(everyStatus) || !slices.IsSorted(names) {
		t.Errorf("the list has %v", names)
	}
	if list.ResourceVersion == "" {
		t.Error("the list has no resourceVersion")
	}
}

// hostColumns are there for who has a grant.
var hostColumns = []string{"Host Status", "Since", "Reason", "Reporting", "Window"}

func checkTable(t *testing.T, table *metav1.Table, g grade) {
	t.Helper()
	var columns []string
	for _, c := range table.ColumnDefinitions {
		columns = append(columns, c.Name)
	}
	want := []string{"Name", "Status", "Task State", "Power State", "Networks", "Host Status", "Age", "Since", "Reason", "Reporting", "Window", "ID", "Host ID"}
	if !g.column {
		want = slices.DeleteFunc(want, func(c string) bool { return slices.Contains(hostColumns, c) })
	}
	if diff := gocmp.Diff(want, columns); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	for _, row := range table.Rows {
		if len(row.Cells) != len(columns) {
			t.Errorf("a row has %d cells, for %d columns", len(row.Cells), len(columns))
			continue
		}
		name := row.Cells[0].(string)
		if networks := row.Cells[4]; networks != "xnet=10.0.0.4" {
			t.Errorf("%s has networks %v", name, networks)
		}
		if !g.column {
			continue
		}
		want := ""
		if g.shows(everyStatus[name]) {
			want = cmp.Or(string(everyStatus[name]), "-")
		}
		for i, c := range columns {
			if shown := row.Cells[i] != ""; slices.Contains(hostColumns, c) && shown != g.shows(everyStatus[name]) {
				t.Errorf("%s shows its %s: %t", name, c, shown)
			}
		}
		if got := row.Cells[5]; got != want {
			t.Errorf("%s has host status %q in the table, want %q", name, got, want)
		}
	}
}

func TestAListOfAllNamespacesShowsHostStatusWhereItIsGranted(t *testing.T) {
	granted, other := newNamespace(t), newNamespace(t)
	for _, namespace := range []string{granted, other} {
		putServer(t, namespace, "web", "some-host", withHostStatus(computev1alpha1.HostStatusDown))
	}
	p := newPerson(t)
	bind(t, p, viewer, "")
	bind(t, p, statusViewer, granted)
	seen := map[string]bool{}
	for _, s := range p.list(t, "", "").Items {
		seen[s.Namespace] = s.Status.HostStatus != nil
		if shown := s.Status.HostStatus != nil; shown != (s.Namespace == granted) {
			t.Errorf("a server in %s shows its host status: %t", s.Namespace, shown)
		}
	}
	if _, ok := seen[other]; !ok || !seen[granted] {
		t.Errorf("seen %v", seen)
	}
	a := p.get(t, pathOf("")+"?fieldSelector=status.hostStatus%3DDOWN", "")
	if a.code != http.StatusForbidden {
		t.Errorf("a selector on host status in all namespaces is answered %d with a grant in one", a.code)
	}
}
