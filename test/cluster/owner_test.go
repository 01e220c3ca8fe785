// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	team = "team-a"
	// readEvery is the pause between two reads of an owner, and readLimit how long one may
	// take: a person waits no longer.
	readEvery = 200 * time.Millisecond
	readLimit = 10 * time.Second
)

// owner reads the servers of a namespace again and again, as an owner's script would.
type owner struct {
	client rest.Interface
	stop   context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	reads
}

// reads is what came of them.
type reads struct {
	all, failed int
	// longest is the longest time that passed between two answers.
	longest time.Duration
	lastErr error
	answer  time.Time
}

// newOwner begins to read with the rights of config, until t ends.
func newOwner(t *testing.T, config *rest.Config) *owner {
	t.Helper()
	config.Timeout = readLimit
	kube, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	o := &owner{client: kube.Discovery().RESTClient(), stop: stop, done: make(chan struct{})}
	o.reset()
	go o.run(ctx)
	t.Cleanup(func() { stop(); <-o.done })
	return o
}

func (o *owner) run(ctx context.Context) {
	defer close(o.done)
	ticker := time.NewTicker(readEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := o.client.Get().AbsPath("/apis/tenant.hoststatus.dev/v1alpha1/namespaces", team, "servers").Do(ctx).Error()
		if ctx.Err() != nil {
			return
		}
		o.note(err)
	}
}

func (o *owner) note(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all++
	now := time.Now()
	if err != nil {
		o.failed++
		o.lastErr = fmt.Errorf("%s: %w", now.Format(time.TimeOnly), err)
		return
	}
	o.longest, o.answer = max(o.longest, now.Sub(o.answer)), now
}

// reset forgets what was read until now.
func (o *owner) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads = reads{answer: time.Now()}
}

// since returns what came of the reads since reset.
func (o *owner) since() reads {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.reads
	r.longest = max(r.longest, time.Since(r.answer))
	return r
}

func (r reads) String() string {
	s := fmt.Sprintf("an owner read %d times, %d failed, %.1f s at most without an answer", r.all, r.failed, r.longest.Seconds())
	if r.lastErr != nil {
		s += fmt.Sprintf("; the last failure at %v", r.lastErr)
	}
	return s
}

// granted makes an owner of a namespace who may see host status, and returns its name.
func (w *world) granted(t *testing.T) *rest.Config {
	t.Helper()
	w.kubectl(t, "create", "namespace", team)
	w.kubectl(t, "create", "serviceaccount", "owner", "-n", team)
	for _, role := range []string{"view", "hoststatus-host-status-viewer"} {
		w.kubectl(t, "create", "rolebinding", role, "-n", team, "--clusterrole="+role, "--serviceaccount="+team+":owner")
	}
	return w.as(t, "owner", "-n", team, "--duration=2h")
}

// hostStatus is what an owner sees of a server.
func (o *owner) hostStatus(name string) (string, error) {
	var server struct {
		metav1.TypeMeta
		Status struct{ HostStatus string }
	}
	raw, err := o.client.Get().AbsPath("/apis/tenant.hoststatus.dev/v1alpha1/namespaces", team, "servers", name).Do(context.Background()).Raw()
	if err != nil {
		return "", err
	}
	if err := unmarshal(raw, &server); err != nil {
		return "", err
	}
	return server.Status.HostStatus, nil
}

func (o *owner) sees(name, want string) func() error {
	return func() error {
		got, err := o.hostStatus(name)
		if err == nil && got != want {
			err = fmt.Errorf("the owner of %s sees host status %q, not %s", name, got, want)
		}
		return err
	}
}
