// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// schemaFile is the schema of the data of events, which users get.
const schemaFile = "../../docs/use/notifier-event.schema.json"

// full are host fields of which each is set.
func full(status v1alpha1.HostStatus) *v1alpha1.HostFields {
	at := ptr.To(metav1.NewTime(start))
	return &v1alpha1.HostFields{
		HostStatus: &status, HostStatusReason: v1alpha1.ReasonWindowAnnounced, HostStatusTransitionTime: at, HostReporting: v1alpha1.HostReportingTrue,
		MaintenanceWindow: &v1alpha1.AnnouncedWindow{
			StartTime: at, OpensAt: at, LatestStartTime: at, EndTime: at, Category: "Hardware", Impact: "Reboot", Answer: v1alpha1.AnswerStateReady,
		},
		HostHistory: []v1alpha1.HostStatusChange{{HostStatus: &status, Reason: v1alpha1.ReasonWindowAnnounced, Since: at}, {}},
	}
}

func TestEvents(t *testing.T) {
	server := func(first bool) *state {
		return &state{route: plainRoute, namespace: "team-a", server: "web-1", uid: "u-1", version: "7", newest: "7", sequence: "7", hostID: "h1", host: full("NEEDS_MAINTENANCE"), first: first, at: start}
	}
	before := &state{route: plainRoute, namespace: "team-a", server: "web-1", uid: "u-1", version: "5", newest: "5", sequence: "5", host: full("UP")}
	gone := func(e end) *state {
		return &state{route: plainRoute, namespace: "team-a", server: "web-1", uid: "u-1", version: "7", newest: "7", sequence: "7", hostID: "h1", end: e, at: start}
	}
	group := &state{route: plainRoute, namespace: "team-a", hostID: "h1", version: "9", newest: "9", sequence: "9", host: full("DOWN"), servers: []string{"web-1", "web-2"}, count: 2, at: start}
	for name, c := range map[string]struct {
		telling           telling
		subject, id       string
		cause             Cause
		hasBefore, hasNow bool
	}{
		"a change":     {telling{before, server(false)}, "team-a/web-1", "u-1.7", CauseChanged, true, true},
		"a new server": {telling{nil, server(false)}, "team-a/web-1", "u-1.7", CauseChanged, false, true},
		"found so":     {telling{nil, server(true)}, "team-a/web-1", "u-1.7", CauseSnapshot, false, true},
		"deleted":      {telling{before, gone(endDeleted)}, "team-a/web-1", "u-1.7.Deleted", CauseDeleted, true, false},
		"no longer UNKNOWN, for whoever sees no more": {telling{before, gone(endNoLongerUnknown)}, "team-a/web-1", "u-1.7.NoLongerUnknown", CauseNoLongerUnknown, true, false},
		"the servers of a host":                       {telling{nil, group}, "team-a/hosts/h1", "h1.9", CauseChanged, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := c.telling.event(defaultSource)
			if err != nil {
				t.Fatal(err)
			}
			if e.Type() != EventType || e.Source() != "/hoststatus/notifier/r" || e.Subject() != c.subject || e.ID() != c.id || !e.Time().Equal(start) || e.Extensions()[extensionCause] != string(c.cause) ||
				e.Extensions()[extensionSequence] != "0000000000000000000"+c.telling.now.version {
				t.Errorf("%v", e)
			}
			var data EventData
			if err := json.Unmarshal(e.Data(), &data); err != nil {
				t.Fatal(err)
			}
			if data.Cause != c.cause || (data.Before != nil) != c.hasBefore || (data.After != nil) != c.hasNow {
				t.Errorf("%s", e.Data())
			}
			if c.hasNow {
				if diff := cmp.Diff(c.telling.now.host, data.After); diff != "" {
					t.Errorf("after (-want +got):\n%s", diff)
				}
			}
			for _, problem := range schemaProblems(t, e.Data()) {
				t.Error(problem)
			}
		})
	}
}

// A host whose newest server has left is known by an older one.
func TestTheEventsOfAHostHaveGrowingSequencesAndDifferentIDs(t *testing.T) {
	q := newQueue(ledger[telling](newEventLedger()), testingclock.NewFakeClock(start))
	r, err := newRoute(&RouteConfig{Name: "r", GroupByHost: true}, q)
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine([]*route{r})
	gone := func(name string) { e.gone(types.NamespacedName{Namespace: "team-a", Name: name}, start) }
	var got []string
	for _, do := range []func(){
		func() { e.see(sightingOf(row("a", "5", v1alpha1.HostStatusUp)), start, false) },
		func() {
			for name, version := range map[string]string{"b": "30", "c": "30"} {
				e.see(sightingOf(row(name, version, v1alpha1.HostStatusDown)), start, false)
			}
		},
		func() { gone("b"); gone("c") },
		func() { gone("a") },
	} {
		do()
		items := q.take(9, func() {})
		for _, i := range items {
			event, err := i.payload.event(defaultSource)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s of %s, id %s", event.Extensions()[extensionCause], event.Extensions()[extensionSequence], event.ID()))
		}
		q.done(items, delivered, 0)
	}
	want := []string{
		"Changed of 00000000000000000005, id h1.5", "Changed of 00000000000000000030, id h1.30",
		"Changed of 00000000000000000030, id h1.30.5", "Deleted of 00000000000000000030, id h1.30.5.Deleted",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// schemaProblems are where data is not as the schema says.
func schemaProblems(t *testing.T, data []byte) []error {
	t.Helper()
	content, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	schema := &spec.Schema{}
	if err := json.Unmarshal(content, schema); err != nil {
		t.Fatal(err)
	}
	// The validator follows no references.
	for _, name := range []string{"before", "after"} {
		schema.Properties[name] = schema.Definitions["hostFields"]
	}
	var value any
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&value); err != nil {
		t.Fatal(err)
	}
	return validate.NewSchemaValidator(schema, nil, "data", strfmt.Default).Validate(value).Errors
}

// A host field that is added to the API has to be added to the schema of events.
func TestTheSchemaHasTheHostFieldsOfTheAPI(t *testing.T) {
	type node struct {
		Enum       []string
		Properties map[string]node
		Items      *node
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct{ OpenAPIV3Schema node }
			}
		}
	}
	content, err := os.ReadFile("../../config/crd/compute.hoststatus.dev_servers.yaml")
	if err == nil {
		err = yaml.Unmarshal(content, &crd)
	}
	if err != nil {
		t.Fatal(err)
	}
	var schema struct{ Definitions map[string]node }
	if content, err = os.ReadFile(schemaFile); err == nil {
		err = json.Unmarshal(content, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	api, ours := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"], schema.Definitions["hostFields"]
	fields := reflect.TypeFor[v1alpha1.HostFields]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		byValue := cmpopts.SortSlices(func(a, b string) bool { return a < b })
		if diff := cmp.Diff(api.Properties[name], ours.Properties[name], byValue, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s in the API (-) and in the schema (+):\n%s", name, diff)
		}
	}
	if n := fields.NumField(); len(ours.Properties) != n {
		t.Errorf("the schema has %d fields, not %d", len(ours.Properties), n)
	}
}

func TestTheSchemaRefusesWhatItDoesNotDescribe(t *testing.T) {
	for _, data := range []string{
		`{"cause":"Changed"}`, `{"cause":"Other","namespace":"a"}`, `{"cause":"Changed","namespace":"a","after":{"hostName":"compute-1"}}`, `{"cause":"Changed","namespace":"a","after":{"hostStatus":"up"}}`,
	} {
		if len(schemaProblems(t, []byte(data))) == 0 {
			t.Errorf("it accepts %s", data)
		}
	}
}

func TestTheSameStateHasTheSameID(t *testing.T) {
	changed := &state{route: plainRoute, namespace: "a", server: "s", uid: "u", version: "7", newest: "7", sequence: "7", host: full("UP"), at: start}
	found := *changed
	found.first, found.at = true, start.Add(time.Hour)
	one, err := telling{nil, changed}.event(defaultSource)
	if err != nil {
		t.Fatal(err)
	}
	other, err := telling{nil, &found}.event(defaultSource)
	if err != nil || one.ID() != other.ID() || one.Source() != other.Source() {
		t.Errorf("%s and %s, %v", one.ID(), other.ID(), err)
	}
}
