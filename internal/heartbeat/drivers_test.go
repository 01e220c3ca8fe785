// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestHostsWhoseDriverFailsAreCountedUntilItWorks(t *testing.T) {
	lease := func(name, driverError string) *coordinationv1.Lease {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if driverError != "" {
			l.Annotations = map[string]string{v1alpha1.AnnotationDriverError: driverError}
		}
		return l
	}
	failing := drivers{}
	for i, step := range []struct {
		lease *coordinationv1.Lease
		want  int
	}{
		{lease("a", ""), 0},
		{lease("a", "no file"), 1},
		{lease("a", "no folder"), 1},
		{lease("b", "no file"), 2},
		{lease("a", ""), 1},
		{lease("a", ""), 1},
		{lease("b", ""), 0},
	} {
		if failing.note(step.lease); len(failing) != step.want {
			t.Errorf("%d after step %d, want %d", len(failing), i, step.want)
		}
	}
}
