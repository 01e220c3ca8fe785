// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// kept is a server as the cache has it, with a history whose first change is at a time, and a
// window with an answer.
func kept(t *testing.T, at int64, answer v1alpha1.AnswerState) *v1alpha1.Server {
	t.Helper()
	s := &v1alpha1.Server{}
	for i := range int64(v1alpha1.MaxHostHistory) {
		s.Status.HostHistory = append(s.Status.HostHistory, v1alpha1.HostStatusChange{HostStatus: ptr.To(v1alpha1.HostStatusUp), Reason: v1alpha1.ReasonReporting, Since: ptr.To(metav1.Unix(at-i, 0))})
	}
	s.Status.MaintenanceWindow = &v1alpha1.AnnouncedWindow{StartTime: ptr.To(metav1.Unix(at, 0)), Answer: answer}
	want := s.DeepCopy()
	out, err := stripServer(s)
	expect.NoError(t, err)
	s = out.(*v1alpha1.Server)
	if diff := cmp.Diff(want.Status, s.Status); diff != "" {
		t.Errorf("what the cache keeps (-want +got):\n%s", diff)
	}
	return s
}

func TestServersThatHaveLivedThroughTheSameShareIt(t *testing.T) {
	one, two := kept(t, 1000, v1alpha1.AnswerStateReady), kept(t, 1000, v1alpha1.AnswerStateReady)
	if &one.Status.HostHistory[0] != &two.Status.HostHistory[0] || one.Status.MaintenanceWindow != two.Status.MaintenanceWindow {
		t.Error("two servers have each its own history, or window")
	}
	earlier, silent := kept(t, 999, v1alpha1.AnswerStateReady), kept(t, 1000, v1alpha1.AnswerStateNone)
	if &one.Status.HostHistory[0] == &earlier.Status.HostHistory[0] || one.Status.MaintenanceWindow == silent.Status.MaintenanceWindow {
		t.Error("servers share what differs")
	}
	if h := kept(t, 1000, "").Status.HostHistory[:3:3]; len(sharedHistory(h)) != cap(sharedHistory(h)) {
		t.Error("who appends to one history may change another")
	}
}

func TestWhatNoServerHasAnyMoreIsForgotten(t *testing.T) {
	p := newPool(func(a, b *[4]string) bool { return *a == *b })
	var held []*[4]string
	for i := range 100 {
		text := fmt.Sprint(i)
		held = append(held, p.share(&[4]string{text}, []byte(text)))
	}
	if again := p.share(&[4]string{"7"}, []byte("7")); again != held[7] || p.len() != 100 {
		t.Errorf("%d values are known", p.len())
	}
	seven := held[7]
	clear(held)
	expect.Eventually(t, time.Minute, func() error {
		runtime.GC()
		if n := p.len(); n != 1 {
			return fmt.Errorf("%d values are known", n)
		}
		return nil
	})
	if again := p.share(&[4]string{"7"}, []byte("7")); again != seven {
		t.Error("what is held was forgotten")
	}
	runtime.KeepAlive(seven)
}

func TestTwoValuesWithOneHashAreNotTakenForEachOther(t *testing.T) {
	p := newPool(func(a, b *[4]string) bool { return *a == *b })
	a, b := p.share(&[4]string{"a"}, []byte("x")), p.share(&[4]string{"b"}, []byte("x"))
	if a[0] != "a" || b[0] != "b" {
		t.Errorf("they are %v and %v", a, b)
	}
	runtime.KeepAlive(a)
}
