// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/internal/agent/lease"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// host is a host that can fall silent and come back.
type host struct {
	name      string
	namespace string
	duration  time.Duration
	// servers is how many Servers run on it.
	servers int
	power   power

	mu    sync.Mutex
	alive bool
}

// power is what keeps a host's heartbeats coming.
type power interface {
	on() error
	off()
}

func (h *host) live() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.alive {
		return nil
	}
	h.alive = true
	return h.power.on()
}

func (h *host) die() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.alive {
		h.alive = false
		h.power.off()
	}
}

func (h *host) lives() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.alive
}

// process is the agent as a process of its own.
type process struct{ *controlplane.Process }

func (p process) on() error { return p.Start() }
func (p process) off()      { p.Kill() }

// renewer is the agent's heartbeat in this process, many of which fit in one.
type renewer struct {
	heartbeat lease.Heartbeat
	clock     *wrongClock
	cancel    func()
	done      chan struct{}
}

func newRenewer(config *rest.Config, namespace, name string, duration, interval time.Duration, seen *observer) (*renewer, error) {
	// As the agent does: a connection of its own, dropped when it does not answer.
	config = rest.CopyConfig(config)
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: 10 * time.Second}).DialContext)
	config.Dial = dialer.DialContext
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	c := &wrongClock{}
	return &renewer{
		clock: c,
		heartbeat: lease.Heartbeat{
			Leases: &witness{client.CoordinationV1().Leases(namespace), namespace, seen},
			Name:   name, Duration: duration, Interval: interval,
			Clock: c, Logger: logr.Discard(), OnConnectionFailure: dialer.CloseAll,
		},
	}, nil
}

func (r *renewer) on() error {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	beat := r.heartbeat // A process that starts anew remembers nothing.
	go func() {
		defer close(r.done)
		beat.Run(ctx)
	}()
	return nil
}

func (r *renewer) off() {
	r.cancel()
	<-r.done
}

// wrongClock is a clock that is off by as much as it is set to.
type wrongClock struct {
	clock.RealClock
	by atomic.Int64
}

func (c *wrongClock) Now() time.Time { return time.Now().Add(time.Duration(c.by.Load())) }

// Since is what a monotonic clock says. Steps are of whole hours here, and nothing
// that is measured takes half of one.
func (c *wrongClock) Since(t time.Time) time.Duration {
	d := c.Now().Sub(t)
	return d - d.Round(time.Hour)
}

// witness tells the observer when renewals are sent and confirmed.
type witness struct {
	coordinationclient.LeaseInterface
	namespace string
	seen      *observer
}

// Create is how a first renewal comes.
func (w *witness) Create(ctx context.Context, l *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	w.seen.sent(w.namespace, l, time.Now())
	out, err := w.LeaseInterface.Create(ctx, l, o)
	if err == nil {
		w.seen.arrived(w.namespace, l, time.Now())
	}
	return out, err
}

// Update is how all others come.
func (w *witness) Update(ctx context.Context, l *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	w.seen.sent(w.namespace, l, time.Now())
	out, err := w.LeaseInterface.Update(ctx, l, o)
	if err == nil {
		w.seen.arrived(w.namespace, l, time.Now())
	}
	return out, err
}
