// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/chaos/judge"
)

const (
	bareNamespace = "chaos-observer"
	bareName      = "bare"
	// barePause lies between two verdicts: short beside judge.Grace, so that there is
	// one for every deadline, and long beside what one takes.
	barePause = 200 * time.Millisecond
)

// createBareObjects makes what the bare client writes to.
func createBareObjects(ctx context.Context, kube kubernetes.Interface, c client.Client) error {
	meta := metav1.ObjectMeta{Namespace: bareNamespace, Name: bareName}
	if _, err := kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: bareNamespace}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the bare client's namespace: %w", err)
	}
	if _, err := kube.CoordinationV1().Leases(bareNamespace).Create(ctx, &coordinationv1.Lease{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the bare client's Lease: %w", err)
	}
	if err := c.Create(ctx, &v1alpha1.Server{ObjectMeta: meta, Spec: v1alpha1.ServerSpec{Host: "none"}}); err != nil {
		return fmt.Errorf("creating the bare client's Server: %w", err)
	}
	return nil
}

// compare makes a bare client's verdicts until ctx ends, so that the judge can tell
// what the API server and this machine take from what the managers take. It goes
// around the proxy, since what that does is known, and as administrator, before whom
// nobody is served.
func (o *observer) compare(ctx context.Context, kube kubernetes.Interface, c client.WithWatch) {
	for ctx.Err() == nil {
		err := o.giveBareVerdicts(ctx, kube, c)
		o.mu.Lock()
		o.bareError = err
		o.mu.Unlock()
		_ = letPass(ctx, barePause)
	}
}

// giveBareVerdicts ends with the first error: what it was about to measure is lost.
func (o *observer) giveBareVerdicts(ctx context.Context, kube kubernetes.Interface, c client.WithWatch) error {
	leases, err := kube.CoordinationV1().Leases(bareNamespace).Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: bareName}))
	if err != nil {
		return err
	}
	defer leases.Stop()
	servers, err := c.Watch(ctx, &v1alpha1.ServerList{}, client.InNamespace(bareNamespace), client.MatchingFields{metav1.ObjectNameField: bareName})
	if err != nil {
		return err
	}
	defer servers.Stop()
	for {
		begin := time.Now()
		mark := fmt.Sprint("bare-", begin.UnixNano())
		proof := fmt.Appendf(nil, `{"spec":{"holderIdentity":%q}}`, mark)
		if _, err := kube.CoordinationV1().Leases(bareNamespace).Patch(ctx, bareName, types.MergePatchType, proof, metav1.PatchOptions{}); err != nil {
			return err
		}
		if err := await(leases, func(l *coordinationv1.Lease) bool { return ptr.Deref(l.Spec.HolderIdentity, "") == mark }); err != nil {
			return err
		}
		server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: bareNamespace, Name: bareName}}
		verdict := fmt.Appendf(nil, `{"status":{"taskState":%q}}`, mark)
		if err := c.Status().Patch(ctx, server, client.RawPatch(types.MergePatchType, verdict)); err != nil {
			return err
		}
		if err := await(servers, func(s *v1alpha1.Server) bool { return s.Status.TaskState == mark }); err != nil {
			return err
		}
		o.mu.Lock()
		o.bare = append(o.bare, judge.Span{From: begin, To: time.Now()})
		o.busy = append(o.busy, loadNow()...)
		o.mu.Unlock()
		if err := letPass(ctx, barePause); err != nil {
			return err
		}
	}
}

// loadNow is how busy the machine is; nothing where the kernel does not tell.
func loadNow() []judge.Load {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil
	}
	// Three averages, and then ready threads/all threads.
	fields := strings.Fields(string(content))
	if len(fields) < 4 {
		return nil
	}
	ready, _, _ := strings.Cut(fields[3], "/")
	n, err := strconv.Atoi(ready)
	if err != nil {
		return nil
	}
	return []judge.Load{{At: time.Now(), PerCPU: float64(n) / float64(runtime.NumCPU())}}
}

// await waits for an event with the object that is looked for.
func await[T any](stream watch.Interface, isIt func(T) bool) error {
	for event := range stream.ResultChan() {
		if obj, ok := event.Object.(T); ok && isIt(obj) {
			return nil
		}
	}
	return errors.New("the watch has ended")
}

// loads are the samples until now.
func (o *observer) loads() []judge.Load {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.busy)
}

// bareVerdicts are those until now.
func (o *observer) bareVerdicts() []judge.Span {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.bare)
}

// slowestBare is how long the slowest of those between two moments took. That there is
// none is an error: the judge would have nothing to compare with.
func (o *observer) slowestBare(begin, end time.Time) (slowest time.Duration, err error) {
	for _, b := range o.bareVerdicts() {
		if b.To.After(begin) && b.From.Before(end) {
			slowest = max(slowest, b.To.Sub(b.From))
		}
	}
	if slowest == 0 {
		o.mu.Lock()
		defer o.mu.Unlock()
		return 0, fmt.Errorf("the bare client gave no verdict; what went wrong last: %w", o.bareError)
	}
	return slowest, nil
}
