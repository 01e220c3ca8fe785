// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Answers are judged by the UID, and a history of eight must not cost eight times its words.
func TestTheCacheKeepsTheUIDOfAServerAndSharesTheWordsOfItsHistory(t *testing.T) {
	server := func() *v1alpha1.Server {
		s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "web", UID: "uid", Labels: map[string]string{"a": "b"}}}
		s.Status.HostHistory = []v1alpha1.HostStatusChange{
			{HostStatus: ptr.To(v1alpha1.HostStatusDown), Reason: v1alpha1.ReasonForcedDown, Since: ptr.To(metav1.Unix(2, 0))},
			{HostStatus: ptr.To(v1alpha1.HostStatus("LATER")), Since: ptr.To(metav1.Unix(1, 0))},
			{Since: ptr.To(metav1.Unix(0, 0))},
		}
		return s
	}
	var kept [2]*v1alpha1.Server
	for i := range kept {
		out, err := stripServer(server())
		if err != nil {
			t.Fatal(err)
		}
		kept[i] = out.(*v1alpha1.Server)
	}
	if kept[0].UID != "uid" || kept[0].Labels != nil {
		t.Errorf("kept %+v", kept[0].ObjectMeta)
	}
	if diff := cmp.Diff(server().Status.HostHistory, kept[0].Status.HostHistory); diff != "" {
		t.Errorf("the history (-want +got):\n%s", diff)
	}
	if kept[0].Status.HostHistory[0].HostStatus != kept[1].Status.HostHistory[0].HostStatus {
		t.Error("two servers have each its own DOWN")
	}
}
