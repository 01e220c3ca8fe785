// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestARenewalSaysThatTheDriverFailsForAsLongAsItDoes(t *testing.T) {
	health := &driverHealth{}
	h := &Heartbeat{Name: "host-a", Clock: clocktesting.NewFakeClock(now), DriverError: health.error}
	lease := &coordinationv1.Lease{}
	lease.Annotations = map[string]string{"other": "kept"}
	for _, c := range []struct {
		err  error
		want map[string]string
	}{
		{nil, map[string]string{"other": "kept"}},
		{errors.New("no\x1bfile"), map[string]string{"other": "kept", v1alpha1.AnnotationDriverError: "no�file"}},
		{errors.New("no folder"), map[string]string{"other": "kept", v1alpha1.AnnotationDriverError: "no folder"}},
		{nil, map[string]string{"other": "kept"}},
	} {
		health.set(c.err)
		h.stamp(lease)
		if diff := cmp.Diff(c.want, lease.Annotations); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.err, diff)
		}
	}
	health.set(errors.New(strings.Repeat("ü", 1_000_000)))
	if n := utf8.RuneCountInString(health.error()); n != maxDriverError {
		t.Errorf("an error of %d characters", n)
	}
}

func TestTheFakeDriverReportsAnErrorWhileItsFileCannotBeUsed(t *testing.T) {
	dr := drive(t, "servers: [")
	dr.awaitLog("keeping its last content")
	if dr.health.error() == "" {
		t.Error("no error is reported")
	}
	dr.replace(fileOf(vm("a", "RUNNING")))
	dr.await(vm("a", "RUNNING"))
	if err := dr.health.error(); err != "" {
		t.Errorf("the error is %s", err)
	}
}
