// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestWhoDoesNotLeadAnyMoreWritesNoCanary(t *testing.T) {
	client, leads := fake.NewClientset(), false
	m := NewMonitor(Options{
		Leases: client.CoordinationV1(), Namespaces: []string{space}, Clock: clock.RealClock{},
		Leads: func() bool { return leads },
	})
	for _, leads = range []bool{false, true} {
		m.writeCanary(t.Context(), canaryWrite{namespace: space, token: 1})
		_, err := client.CoordinationV1().Leases(space).Get(t.Context(), v1alpha1.CanaryLeaseName, metav1.GetOptions{})
		if written := err == nil; written != leads {
			t.Errorf("leads is %v, and a canary was written is %v", leads, written)
		}
	}
}
