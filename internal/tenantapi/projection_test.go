// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

var instant = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testProjector() *projector {
	return &projector{hostIDKey: []byte(strings.Repeat("k", hostIDKeyBytes)), labelPrefixes: sets.New("example.com")}
}

// fullWindow has a value in each of its fields.
func fullWindow() *computev1alpha1.AnnouncedWindow {
	at := func(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(instant.Add(d))) }
	return &computev1alpha1.AnnouncedWindow{
		StartTime: at(0), OpensAt: at(time.Hour), LatestStartTime: at(2 * time.Hour), EndTime: at(3 * time.Hour),
		Category: computev1alpha1.CategoryHardware, Impact: computev1alpha1.ImpactReboot, Answer: computev1alpha1.AnswerStateNotBefore,
	}
}

func fullHistory() []computev1alpha1.HostStatusChange {
	return []computev1alpha1.HostStatusChange{
		{HostStatus: ptr.To(computev1alpha1.HostStatusNeedsMaintenance), Reason: computev1alpha1.ReasonWindowAnnounced, Since: ptr.To(metav1.NewTime(instant))},
		{HostStatus: ptr.To(computev1alpha1.HostStatusUp), Reason: computev1alpha1.ReasonReporting, Since: ptr.To(metav1.NewTime(instant.Add(-time.Hour)))},
	}
}

// fullServer has a value in each field that the custom resource's types have.
func fullServer() *computev1alpha1.Server {
	return &computev1alpha1.Server{
		TypeMeta: metav1.TypeMeta{Kind: "Server", APIVersion: "compute.hoststatus.dev/v1alpha1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", GenerateName: "secret-", Namespace: "team-a", UID: "uid-1", ResourceVersion: "42",
			Generation: 7, CreationTimestamp: metav1.NewTime(instant), DeletionTimestamp: ptr.To(metav1.NewTime(instant)),
			DeletionGracePeriodSeconds: ptr.To[int64](30),
			Labels: map[string]string{
				"app": "web", "app.kubernetes.io/name": "web", "example.com/team": "a",
				"topology.kubernetes.io/zone": "secret", "secret.example.com/rack": "secret", "app.kubernetes.io.evil/x": "secret",
				"app.kubernetes.io/instance": "secret", "argocd.argoproj.io/instance": "secret",
			},
			Annotations:     map[string]string{"last-applied": "secret"},
			OwnerReferences: []metav1.OwnerReference{{Name: "secret"}},
			Finalizers:      []string{"secret", "foregroundDeletion"},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "secret"}},
		},
		Spec: computev1alpha1.ServerSpec{Host: "secret", ProviderID: "secret"},
		Status: computev1alpha1.ServerStatus{
			State: "ACTIVE", TaskState: "image_snapshot", PowerState: "RUNNING",
			Networks: []computev1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}},
			HostFields: computev1alpha1.HostFields{
				HostStatus:               ptr.To(computev1alpha1.HostStatusNeedsMaintenance),
				HostStatusReason:         computev1alpha1.ReasonWindowAnnounced,
				HostStatusTransitionTime: ptr.To(metav1.NewTime(instant)),
				HostReporting:            computev1alpha1.HostReportingTrue,
				MaintenanceWindow:        fullWindow(),
				HostHistory:              fullHistory(),
			},
			ObservedGeneration: 7, HostVersion: "4711",
		},
	}
}

func mustRecord(t testing.TB, s *computev1alpha1.Server) *record {
	t.Helper()
	r, err := testProjector().record(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheProjectionShowsWhatTheGrantAllowsAndNothingElse(t *testing.T) {
	base := v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "team-a", UID: "uid-1", ResourceVersion: "42", CreationTimestamp: metav1.NewTime(instant),
			Labels:            map[string]string{"app": "web", "app.kubernetes.io/name": "web", "example.com/team": "a"},
			DeletionTimestamp: ptr.To(metav1.NewTime(instant)), DeletionGracePeriodSeconds: ptr.To[int64](30),
			Finalizers: []string{"foregroundDeletion"},
		},
		Status: v1alpha1.ServerStatus{
			State: "ACTIVE", TaskState: "image_snapshot", PowerState: "RUNNING",
			Networks: []computev1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}},
			HostID:   hostID(testProjector().hostIDKey, "team-a", "secret"),
		},
	}
	shown := *base.DeepCopy()
	shown.Status.HostStatus = ptr.To(computev1alpha1.HostStatusNeedsMaintenance)
	shown.Status.HostStatusReason = computev1alpha1.ReasonWindowAnnounced
	shown.Status.HostStatusTransitionTime = ptr.To(metav1.NewTime(instant))
	shown.Status.HostReporting = computev1alpha1.HostReportingTrue
	shown.Status.MaintenanceWindow, shown.Status.HostHistory = fullWindow(), fullHistory()
	r := mustRecord(t, fullServer())
	for g, want := range map[grant]v1alpha1.Server{grantNone: base, grantUnknown: base, grantFull: shown} {
		if diff := cmp.Diff(want, r.project(g, r.rv)); diff != "" {
			t.Errorf("grant %d (-want +got):\n%s", g, diff)
		}
	}
}

func TestTheHostFieldsAreShownOrHiddenTogetherForEachStatus(t *testing.T) {
	for row := range hoststatus.Rows() {
		status := row.Status
		unknown := status != nil && *status == computev1alpha1.HostStatusUnknown
		for g, want := range map[grant]bool{grantNone: false, grantUnknown: unknown, grantFull: true} {
			s := fullServer()
			s.Status.HostStatus, s.Status.HostHistory[0].HostStatus = status, status
			got := mustRecord(t, s).project(g, 1).Status
			visible := []bool{got.HostStatusReason != "", got.HostStatusTransitionTime != nil, got.HostReporting != "", got.MaintenanceWindow != nil, got.HostHistory != nil}
			for _, v := range visible {
				if v != want {
					t.Errorf("host status %v, grant %d: shown %v, want all %t", status, g, visible, want)
				}
			}
			if (got.HostStatus != nil) != (want && status != nil) {
				t.Errorf("host status %v, grant %d: shown %v", status, g, got.HostStatus)
			}
		}
	}
}

// TestEveryFieldOfTheCustomResourceIsDecidedOn fails when the custom resource gets a
// field for which it is not decided whether owners see it.
func TestEveryFieldOfTheCustomResourceIsDecidedOn(t *testing.T) {
	always := sets.New("status.state", "status.taskState", "status.powerState", "status.networks")
	granted := sets.New("status.hostStatus", "status.hostStatusReason", "status.hostStatusTransitionTime", "status.hostReporting", "status.maintenanceWindow", "status.hostHistory")
	never := sets.New("spec.host", "spec.providerID", "status.hostVersion", "status.observedGeneration")

	content, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "compute.hoststatus.dev_servers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema struct {
						Properties map[string]struct {
							Properties map[string]any `json:"properties"`
						} `json:"properties"`
					} `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(content, &crd); err != nil {
		t.Fatal(err)
	}
	schema := sets.New[string]()
	for _, part := range []string{"spec", "status"} {
		for field := range crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties[part].Properties {
			schema.Insert(part + "." + field)
		}
	}
	if diff := cmp.Diff(sets.List(always.Union(granted).Union(never)), sets.List(schema)); diff != "" {
		t.Errorf("fields decided on, and the schema's (-decided +schema):\n%s", diff)
	}
	raw := func(g grant) string {
		out, err := json.Marshal(mustRecord(t, fullServer()).project(g, 1))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for g, want := range map[grant]sets.Set[string]{grantNone: always, grantFull: always.Union(granted)} {
		for field := range schema {
			name := field[strings.Index(field, ".")+1:]
			if got := strings.Contains(raw(g), fmt.Sprintf("%q:", name)); got != want.Has(field) {
				t.Errorf("grant %d shows %s: %t", g, field, got)
			}
		}
		if strings.Contains(raw(g), "secret") {
			t.Errorf("grant %d shows a secret: %s", g, raw(g))
		}
	}
}

func TestAServerWithoutAHostHasNoHostID(t *testing.T) {
	s := fullServer()
	s.Spec.Host = ""
	if got := mustRecord(t, s).project(grantFull, 1).Status.HostID; got != "" {
		t.Errorf("host id %q", got)
	}
}

func TestTheLabelByWhichArgoCDTracksObjectsIsShownWhenItIsAskedFor(t *testing.T) {
	p := testProjector()
	for _, label := range []string{"app.kubernetes.io/instance", "argocd.argoproj.io/instance"} {
		if p.visibleLabel(label) {
			t.Errorf("%s is shown", label)
		}
		prefix, _, _ := strings.Cut(label, "/")
		if p.labelPrefixes.Insert(prefix); !p.visibleLabel(label) {
			t.Errorf("%s is not shown with --visible-label-prefixes=%s", label, prefix)
		}
	}
}

func TestHostIDsAreEqualOnlyForOneNamespaceAndHost(t *testing.T) {
	key := []byte(strings.Repeat("k", hostIDKeyBytes))
	same := hostID(key, "ns", "host")
	if same != hostID(key, "ns", "host") {
		t.Error("the id is not stable")
	}
	for _, other := range []string{
		hostID(key, "other", "host"), hostID(key, "ns", "other"), hostID([]byte(strings.Repeat("x", hostIDKeyBytes)), "ns", "host"),
		hostID(key, "nsh", "ost"), hostID(key, "n", "shost"),
	} {
		if other == same {
			t.Errorf("another namespace, host or key has the same id %s", same)
		}
	}
}

func TestOnlyVisibleChangesMakeABaseDiffer(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*computev1alpha1.Server)
		base   bool
		host   bool
	}{
		"a hidden label":            {func(s *computev1alpha1.Server) { s.Labels["secret.example.com/rack"] = "x" }, true, true},
		"an annotation":             {func(s *computev1alpha1.Server) { s.Annotations["a"] = "x" }, true, true},
		"the generation":            {func(s *computev1alpha1.Server) { s.Generation++; s.Status.ObservedGeneration++ }, true, true},
		"a hidden finalizer":        {func(s *computev1alpha1.Server) { s.Finalizers = s.Finalizers[1:] }, true, true},
		"that it is being deleted":  {func(s *computev1alpha1.Server) { s.DeletionTimestamp = nil }, false, true},
		"how long its end may take": {func(s *computev1alpha1.Server) { s.DeletionGracePeriodSeconds = nil }, false, true},
		"that its dependents go":    {func(s *computev1alpha1.Server) { s.Finalizers = s.Finalizers[:1] }, false, true},
		"a visible label":           {func(s *computev1alpha1.Server) { s.Labels["app"] = "x" }, false, true},
		"the power state":           {func(s *computev1alpha1.Server) { s.Status.PowerState = "PAUSED" }, false, true},
		"the host":                  {func(s *computev1alpha1.Server) { s.Spec.Host = "x" }, false, true},
		"the host status":           {func(s *computev1alpha1.Server) { s.Status.HostStatus = nil }, true, false},
		"the reason":                {func(s *computev1alpha1.Server) { s.Status.HostStatusReason = "x" }, true, false},
		"whether the host reports":  {func(s *computev1alpha1.Server) { s.Status.HostReporting = "x" }, true, false},
		"the window":                {func(s *computev1alpha1.Server) { s.Status.MaintenanceWindow = nil }, true, false},
		"when the window opens":     {func(s *computev1alpha1.Server) { s.Status.MaintenanceWindow.OpensAt = nil }, true, false},
		"what has become of an answer": {func(s *computev1alpha1.Server) {
			s.Status.MaintenanceWindow.Answer = computev1alpha1.AnswerStateReady
		}, true, false},
		"the history":                 {func(s *computev1alpha1.Server) { s.Status.HostHistory = s.Status.HostHistory[:1] }, true, false},
		"the time of the last change": {func(s *computev1alpha1.Server) { s.Status.HostStatusTransitionTime = nil }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := fullServer()
			c.change(s)
			s.ResourceVersion = "43"
			a, b := mustRecord(t, fullServer()), mustRecord(t, s)
			if got := sameBase(a, b); got != c.base {
				t.Errorf("same base: %t, want %t", got, c.base)
			}
			if got := hoststatus.SameFields(a.host, b.host); got != c.host {
				t.Errorf("same host fields: %t, want %t", got, c.host)
			}
			// The comparison agrees with what a caller would see.
			if got := cmp.Equal(a.project(grantNone, 1), b.project(grantNone, 1)); got != c.base {
				t.Errorf("an ungranted caller sees no difference: %t", got)
			}
			if got := cmp.Equal(a.project(grantFull, 1), b.project(grantFull, 1)); got != (c.base && c.host) {
				t.Errorf("a granted caller sees no difference: %t", got)
			}
		})
	}
}

func TestAHostVersionThatIsNoneIsAsIfItWereAbsent(t *testing.T) {
	for _, version := range []string{"", "99999999999999999999", "-1", "abc"} {
		s := fullServer()
		s.Status.HostVersion = version
		if got := mustRecord(t, s).stored.Version; got != 0 {
			t.Errorf("%q is read as %d", version, got)
		}
	}
}

// Whoever may see host status only while it is UNKNOWN learns nothing else from the history.
func TestOfTheHistoryAWeakerGrantShowsThePresentValueOnly(t *testing.T) {
	unknown := computev1alpha1.HostStatusChange{HostStatus: ptr.To(computev1alpha1.HostStatusUnknown), Reason: computev1alpha1.ReasonLeaseExpired, Since: ptr.To(metav1.NewTime(instant))}
	for name, c := range map[string]struct {
		history, want []computev1alpha1.HostStatusChange
	}{
		"none":                               {nil, nil},
		"an outage":                          {append([]computev1alpha1.HostStatusChange{unknown}, fullHistory()...), []computev1alpha1.HostStatusChange{unknown}},
		"one that somebody else has written": {fullHistory(), nil},
	} {
		s := fullServer()
		s.Status.HostStatus, s.Status.HostHistory = ptr.To(computev1alpha1.HostStatusUnknown), c.history
		r := mustRecord(t, s)
		if diff := cmp.Diff(c.want, r.project(grantUnknown, r.rv).Status.HostHistory, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(c.history, r.project(grantFull, r.rv).Status.HostHistory); diff != "" {
			t.Errorf("%s, with the full grant (-want +got):\n%s", name, diff)
		}
	}
}
