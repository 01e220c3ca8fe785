// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// The story that `make demo` tells holds: all five values, none, and every
// transition between them. And each process needs no right but the shipped ones for
// its part in it.
func TestTheStoryOfTheDemoHolds(t *testing.T) {
	if err := system.Story(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
	checkRights(t)
}

// A tenant can read the Events of its namespace, so none may tell of a host.
func TestNoEventTellsOfAHost(t *testing.T) {
	newServer(t, "team-a", "eventful", "compute-1")
	expect.Eventually(t, patience, serverIs("team-a", "eventful", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
	events, err := kube.CoreV1().Events(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	expect.NoError(t, err)
	for _, event := range events.Items {
		if strings.HasPrefix(event.InvolvedObject.APIVersion, v1alpha1.SchemeGroupVersion.Group) || strings.Contains(event.String(), "compute-") {
			t.Errorf("in namespace %s: %s", event.Namespace, event.Message)
		}
	}
}
