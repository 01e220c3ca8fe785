// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// A reflector lists before each try to watch. As long as only lists succeed, there is no
// connection, and that is reported once.
func TestALostWatchIsReportedOnceHoweverOftenListsSucceed(t *testing.T) {
	var mu sync.Mutex
	var notes []string
	noted := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return notes
	}
	c := &Connection{
		Note: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			notes = append(notes, fmt.Sprintf(format, args...))
		},
		Explain: func(err error) error { return err },
		Refused: func(err error) { t.Errorf("it ends: %v", err) },
	}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "servers"}, "", errors.New("no role yet"))
	var answers error
	stream := watch.NewFake()
	source := c.ListWatch(func(context.Context, metav1.ListOptions) (runtime.Object, error) {
		return &v1alpha1.ServerList{}, nil
	}, func(context.Context, metav1.ListOptions) (watch.Interface, error) {
		return stream, answers
	})
	try := func() watch.Interface {
		t.Helper()
		_, err := source.ListWithContext(t.Context(), metav1.ListOptions{})
		expect.NoError(t, err)
		open, err := source.WatchWithContext(t.Context(), metav1.ListOptions{})
		if !errors.Is(err, answers) {
			t.Fatalf("opening a watch fails with %v, want %v", err, answers)
		}
		return open
	}
	first := try()
	go stream.Add(&v1alpha1.Server{})
	<-first.ResultChan()
	first.Stop()

	answers = forbidden
	for range 3 {
		try()
	}
	if got := noted(); len(got) != 1 {
		t.Errorf("it reports %q", got)
	}
	answers, stream = nil, watch.NewFake()
	defer try().Stop()
	go stream.Add(&v1alpha1.Server{})
	expect.Eventually(t, 10*time.Second, func() error {
		if got := noted(); len(got) != 2 {
			return fmt.Errorf("it reports %q", got)
		}
		return nil
	})
}
