// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	d        = time.Minute
	interval = 10 * time.Second
)

var leases = coordinationv1.Resource("leases")

// beating is a Heartbeat and the API server that it talks to.
type beating struct {
	*testing.T
	*Heartbeat
	client  *fake.Clientset
	clock   *clocktesting.FakeClock
	log     *logbook.Book
	dropped atomic.Int32
	// answers has errors with which requests are answered, the first one first;
	// when it is empty all goes well.
	answers []error
	stop    context.CancelFunc
}

// newBeating has the Lease of host-a as it is, or none.
func newBeating(t *testing.T, lease ...runtime.Object) *beating {
	t.Helper()
	b := &beating{T: t, client: fake.NewSimpleClientset(lease...), clock: clocktesting.NewFakeClock(now), log: logbook.New()}
	b.Heartbeat = &Heartbeat{
		Leases: b.client.CoordinationV1().Leases("leases"), Name: "host-a", Duration: d, Interval: interval,
		Clock: b.clock, Logger: b.log.Logger, OnConnectionFailure: func() { b.dropped.Add(1) },
	}
	b.client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		if len(b.answers) == 0 {
			return false, nil, nil
		}
		err := b.answers[0]
		b.answers = b.answers[1:]
		return err != nil, nil, err
	})
	return b
}

// leaseOf is the Lease of host-a that holder renewed at this time.
func leaseOf(holder string, renewed time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "leases", Name: "host-a", Labels: map[string]string{"a": "b"}},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &holder, LeaseDurationSeconds: ptr.To(int32(7)),
			AcquireTime: &metav1.MicroTime{Time: now.Add(-time.Hour)}, RenewTime: &metav1.MicroTime{Time: renewed},
		},
	}
}

// run lets the heartbeat run until the test, or a call of stop, ends it. It must
// be called in a bubble of synctest.
func (b *beating) run() {
	var ctx context.Context
	ctx, b.stop = context.WithCancel(b.Context())
	go b.Heartbeat.Run(ctx)
	synctest.Wait()
}

// step lets time pass for the heartbeat.
func (b *beating) step(by time.Duration) {
	b.clock.Step(by)
	synctest.Wait()
}

// requests returns the verbs of the requests since the last call.
func (b *beating) requests() string {
	var verbs []string
	for _, a := range b.client.Actions() {
		verbs = append(verbs, a.GetVerb())
	}
	b.client.ClearActions()
	return strings.Join(verbs, " ")
}

func (b *beating) want(requests string) {
	b.Helper()
	if got := b.requests(); got != requests {
		b.Errorf("requests %q, want %q", got, requests)
	}
}

func (b *beating) mustRenew() {
	b.Helper()
	if err := b.renew(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func (b *beating) read() *coordinationv1.Lease {
	b.Helper()
	lease, err := b.client.Tracker().Get(coordinationv1.SchemeGroupVersion.WithResource("leases"), "leases", "host-a")
	if err != nil {
		b.Fatal(err)
	}
	return lease.(*coordinationv1.Lease)
}

func conflict() error { return apierrors.NewConflict(leases, "host-a", errors.New("changed")) }

func TestHeartbeatCreatesAMissingLease(t *testing.T) {
	b := newBeating(t)
	b.mustRenew()
	b.want("get create")
	want := coordinationv1.LeaseSpec{
		HolderIdentity: ptr.To("host-a"), LeaseDurationSeconds: ptr.To(int32(60)),
		AcquireTime: &metav1.MicroTime{Time: now}, RenewTime: &metav1.MicroTime{Time: now},
	}
	if diff := cmp.Diff(want, b.read().Spec); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHeartbeatUpdatesWhatItWroteLastWithoutAGet(t *testing.T) {
	b := newBeating(t)
	b.mustRenew()
	b.requests()
	for range 3 {
		b.clock.Step(interval)
		b.mustRenew()
		b.want("update")
		if got := b.read().Spec.RenewTime.Time; !got.Equal(b.clock.Now()) {
			t.Errorf("renewTime %s, want %s", got, b.clock.Now())
		}
	}
	if got := b.read().Spec.AcquireTime.Time; !got.Equal(now) {
		t.Errorf("acquired again at %s", got)
	}
}

func TestHeartbeatTakesALeaseThatIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		holder   string
		acquired time.Time
	}{
		"another holder is taken over":        {"somebody", now},
		"after a restart it is still our own": {"host-a", now.Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBeating(t, leaseOf(c.holder, now.Add(-time.Minute)))
			b.mustRenew()
			b.want("get update")
			want := leaseOf("host-a", now)
			want.Spec.AcquireTime, want.Spec.LeaseDurationSeconds = &metav1.MicroTime{Time: c.acquired}, ptr.To(int32(60))
			if diff := cmp.Diff(want, b.read()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHeartbeatReadsTheLeaseAgainWhenItIsNotWhatWasWritten(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*beating)
		want    string
	}{
		"somebody else has written it": {func(b *beating) { b.answers = []error{conflict()} }, "update get update"},
		"somebody has deleted it": {func(b *beating) {
			if err := b.client.Tracker().Delete(coordinationv1.SchemeGroupVersion.WithResource("leases"), "leases", "host-a"); err != nil {
				b.Fatal(err)
			}
		}, "update get create"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBeating(t)
			b.mustRenew()
			b.requests()
			c.happens(b)
			b.clock.Step(interval)
			b.mustRenew()
			b.want(c.want)
			// A microsecond later, as it was stamped for the second time.
			if got, want := b.read().Spec.RenewTime.Time, b.clock.Now().Add(time.Microsecond); !got.Equal(want) {
				t.Errorf("renewTime %s, want %s", got, want)
			}
		})
	}
	t.Run("it is not known what came of a request without an answer", func(t *testing.T) {
		b := newBeating(t)
		b.mustRenew()
		b.answers = []error{io.ErrUnexpectedEOF}
		if err := b.renew(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		b.requests()
		b.mustRenew()
		b.want("get update")
	})
}

// What a create that failed gives back is no Lease to start from.
func TestHeartbeatReadsAgainAfterACreateThatFailed(t *testing.T) {
	b := newBeating(t)
	b.answers = []error{nil, apierrors.NewAlreadyExists(leases, "host-a")}
	if err := b.renew(t.Context()); !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	b.requests()
	if err := b.renew(t.Context()); err != nil {
		t.Error(err)
	}
	b.want("get create")
}

func TestHeartbeatNeverWritesAnEqualRenewTime(t *testing.T) {
	steps := []time.Duration{0, 0, 1, time.Microsecond, -time.Microsecond, -time.Second, -time.Second, 2 * time.Second, -d, 0, -d, d, -2 * d, 2 * d, -100 * d, 0, 0}
	b := newBeating(t)
	b.mustRenew()
	last := b.read().Spec.RenewTime.Time
	for i, by := range steps {
		b.clock.SetTime(b.clock.Now().Add(by))
		b.mustRenew()
		renewed := b.read().Spec.RenewTime.Time
		if renewed.Truncate(time.Microsecond).Equal(last.Truncate(time.Microsecond)) {
			t.Errorf("step %d by %s: renewTime is still %s", i, by, last)
		}
		if off := renewed.Sub(b.clock.Now()).Abs(); off > d {
			t.Errorf("step %d by %s: renewTime is %s from the clock", i, by, off)
		}
		last = renewed
	}
	t.Run("nor one that somebody else wrote", func(t *testing.T) {
		b := newBeating(t, leaseOf("somebody", now))
		b.mustRenew()
		if got := b.read().Spec.RenewTime.Time; got.Equal(now) {
			t.Error("renewTime has not changed")
		}
	})
}

func TestHeartbeatRenewsEveryIntervalOrALittleSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBeating(t)
		b.run()
		b.want("get create")
		for range 5 {
			b.step(interval*9/10 - 1)
			b.want("")
			b.step(interval/10 + 1)
			b.want("update")
		}
		b.log.Want(t)
	})
}

func TestHeartbeatRetriesWithinATenthOfTheDurationAndLogsTheEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBeating(t)
		b.run()
		away := apierrors.NewInternalError(errors.New("etcd is away"))
		for range 2 {
			b.requests()
			b.answers = []error{away, away, away}
			b.step(interval)
			b.want("update")
			for range 2 {
				b.step(d/10*9/10 - 1)
				b.want("")
				b.step(d/10/10 + 1)
				b.want("get")
			}
			b.step(d / 10)
			b.want("get update")
		}
		b.log.Want(t, "Heartbeat failed", "works again", "Heartbeat failed", "works again")
	})
}

func TestHeartbeatDropsItsConnectionsAfterOneErrorOfTheTransport(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		want   int
	}{
		"a broken connection":   {io.ErrUnexpectedEOF, 1},
		"a timeout":             {fmt.Errorf("asking: %w", context.DeadlineExceeded), 1},
		"an internal error":     {apierrors.NewInternalError(errors.New("etcd is away")), 0},
		"a refusal":             {apierrors.NewForbidden(leases, "host-a", errors.New("not yours")), 0},
		"too many requests":     {apierrors.NewTooManyRequests("later", 1), 0},
		"a gateway's own words": {apierrors.NewGenericServerResponse(502, "GET", leases, "host-a", "<html>", 0, true), 0},
		"no error":              {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBeating(t)
				b.answers = []error{c.answer}
				b.run()
				if got := int(b.dropped.Load()); got != c.want {
					t.Errorf("dropped %d times, want %d", got, c.want)
				}
			})
		})
	}
}

// Another API server behind the same address may accept what one refuses.
func TestHeartbeatDropsItsConnectionsWhenItIsRefusedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBeating(t)
		refusal := apierrors.NewUnauthorized("who are you?")
		b.answers = []error{refusal, refusal}
		b.run()
		b.step(d)
		if got := b.dropped.Load(); got != 1 {
			t.Errorf("dropped %d times, want once, after the second", got)
		}
	})
}

// A handshake costs an overloaded API server more than the renewal that it is for.
func TestHeartbeatDropsItsConnectionsLessOftenWhileThatDoesNotHelp(t *testing.T) {
	for name, answer := range map[string]error{
		"no answer": fmt.Errorf("asking: %w", context.DeadlineExceeded),
		"a refusal": apierrors.NewUnauthorized("who are you?"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBeating(t)
				b.answers = slices.Repeat([]error{answer}, 64)
				b.run()
				for range 63 {
					b.step(d)
				}
				if got := b.dropped.Load(); got > 8 || got < 7 {
					t.Errorf("dropped %d times in 64 tries, want 8 times, and once less for refusals", got)
				}
				b.step(d) // It works again,
				before := b.dropped.Load()
				b.answers = []error{io.ErrUnexpectedEOF}
				b.step(d) // and the next failure is a first one.
				if got := b.dropped.Load(); got != before+1 {
					t.Errorf("dropped %d times after a new failure, want once", got-before)
				}
			})
		})
	}
}

// hanging is an API server that takes requests and does not answer.
type hanging struct {
	coordinationclient.LeaseInterface
}

func (hanging) Get(ctx context.Context, _ string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestHeartbeatGivesUpARequestThatHangs(t *testing.T) {
	for _, c := range []struct{ duration, timeout time.Duration }{{time.Minute, 15 * time.Second}, {3 * time.Second, time.Second}} {
		t.Run(fmt.Sprintf("of a lease of %s after %s", c.duration, c.timeout), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBeating(t)
				b.Leases, b.Duration = hanging{}, c.duration
				b.run()
				time.Sleep(c.timeout - time.Nanosecond) // In the bubble: it takes no time.
				synctest.Wait()
				if b.dropped.Load() != 0 {
					t.Error("gave up too soon")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if b.dropped.Load() != 1 {
					t.Error("still waits")
				}
				b.log.Want(t, "Heartbeat failed")
			})
		})
	}
}

func TestHeartbeatLeavesTheLeaseInPlaceWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBeating(t)
		b.run()
		before := b.read()
		b.stop()
		synctest.Wait()
		b.step(time.Hour)
		b.want("get create")
		if diff := cmp.Diff(before, b.read()); diff != "" {
			t.Errorf("(-before +after):\n%s", diff)
		}
		b.log.Want(t)
	})
}

func TestARenewalCarriesTheDriversErrorForAsLongAsThereIsOne(t *testing.T) {
	var driverError string
	h := &Heartbeat{Name: "host-a", Clock: clocktesting.NewFakeClock(now), DriverError: func() string { return driverError }}
	lease := &coordinationv1.Lease{}
	lease.Annotations = map[string]string{"other": "kept"}
	for _, c := range []struct {
		err  string
		want map[string]string
	}{
		{"", map[string]string{"other": "kept"}},
		{"no file", map[string]string{"other": "kept", v1alpha1.AnnotationDriverError: "no file"}},
		{"no folder", map[string]string{"other": "kept", v1alpha1.AnnotationDriverError: "no folder"}},
		{"", map[string]string{"other": "kept"}},
	} {
		driverError = c.err
		h.stamp(lease)
		if diff := cmp.Diff(c.want, lease.Annotations); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.err, diff)
		}
	}
}
