// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

func parseSelectors(t *testing.T, l, f string) selectors {
	t.Helper()
	labelSelector, err := labels.Parse(l)
	check(t, err)
	fieldSelector, err := fields.ParseSelector(f)
	check(t, err)
	return newSelectors(&metainternalversion.ListOptions{LabelSelector: labelSelector, FieldSelector: fieldSelector})
}

func TestSelectorsSeeWhatTheCallerSees(t *testing.T) {
	s := fullServer() // named team-a/web, on a host that needs maintenance
	unknown := fullServer()
	unknown.Status.HostStatus = ptr.To(computev1alpha1.HostStatusUnknown)
	for _, c := range []struct {
		name, labels, fields string
		server               *computev1alpha1.Server
		grant                grant
		want                 bool
	}{
		{"nothing selects everything", "", "", s, grantNone, true},
		{"a visible label", "app=web", "", s, grantNone, true},
		{"another value of it", "app=db", "", s, grantNone, false},
		{"a hidden label with its value", "secret.example.com/rack=secret", "", s, grantFull, false},
		{"a hidden label that must exist", "secret.example.com/rack", "", s, grantFull, false},
		{"a hidden label that must not exist", "!secret.example.com/rack", "", s, grantFull, true},
		{"a hidden label that must differ", "secret.example.com/rack!=secret", "", s, grantFull, true},
		{"the name", "", "metadata.name=web", s, grantNone, true},
		{"another name", "", "metadata.name=db", s, grantNone, false},
		{"not this name", "", "metadata.name!=web", s, grantNone, false},
		{"the namespace", "", "metadata.namespace=team-a", s, grantNone, true},
		{"the uid", "", "metadata.uid=" + string(s.UID), s, grantNone, true},
		{"another uid", "", "metadata.uid=other", s, grantNone, false},
		{"not this uid", "", "metadata.uid!=" + string(s.UID), s, grantNone, false},
		{"not another uid", "", "metadata.uid!=other", s, grantNone, true},
		{"the uid and another host status, with the grant", "", "metadata.uid=" + string(s.UID) + ",status.hostStatus=DOWN", s, grantFull, false},
		{"host status with the grant", "", "status.hostStatus=NEEDS_MAINTENANCE", s, grantFull, true},
		{"another host status", "", "status.hostStatus=DOWN", s, grantFull, false},
		{"what an unknown-only caller does not see", "", "status.hostStatus=NEEDS_MAINTENANCE", s, grantUnknown, false},
		{"that it is not UNKNOWN", "", "status.hostStatus!=UNKNOWN", s, grantUnknown, true},
		{"UNKNOWN, unknown only", "", "status.hostStatus=UNKNOWN", unknown, grantUnknown, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			selected := parseSelectors(t, c.labels, c.fields)
			r := mustRecord(t, c.server)
			if got := selected.matches(r, c.grant); got != c.want {
				t.Errorf("matches: %t, want %t", got, c.want)
			}
			l, f, none := selected.upstream(testProjector())
			upstream := !none && l.Matches(labels.Set(c.server.Labels)) &&
				f.Matches(fields.Set{fieldName: c.server.Name, fieldNamespace: c.server.Namespace})
			if c.want && !upstream {
				t.Errorf("%q and %q, which are asked upstream, lose the server", l, f)
			}
		})
	}
}

func TestAHiddenFieldIsRefusedWithOneAnswer(t *testing.T) {
	var answers []string
	for _, f := range []string{"status.hostStatus=DOWN", "status.hostStatus!=UP", "status.hostStatus=,metadata.name=web"} {
		selected := parseSelectors(t, "", f)
		err := selected.admit(grantNone)
		if !apierrors.IsForbidden(err) {
			t.Fatalf("%s: %v", f, err)
		}
		answers = append(answers, err.Error())
		for _, g := range []grant{grantUnknown, grantFull} {
			if err := selected.admit(g); err != nil {
				t.Errorf("%s with grant %d: %v", f, g, err)
			}
		}
	}
	if answers[0] != answers[1] || answers[0] != answers[2] {
		t.Errorf("answers differ: %q", answers)
	}
	if err := parseSelectors(t, "", "metadata.name=web").admit(grantNone); err != nil {
		t.Error(err)
	}
}
