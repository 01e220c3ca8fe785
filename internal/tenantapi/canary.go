// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/watch"
)

// canaries report whether host status is kept up to date: the manager renews a Lease in
// each lease namespace while it judges heartbeats, and declares in it for how long that
// holds. As everywhere, a renewal counts from its arrival here, not from the time in it,
// except for one that was there first: only that time shows its age.
type canaries struct {
	clock clock.PassiveClock

	mu   sync.Mutex
	seen map[string]*sighting
}

// sighting is the last that was seen of one canary.
type sighting struct {
	synced  bool
	exists  bool
	renewed metav1.MicroTime
	at      time.Time
	holds   time.Duration
}

func newCanaries(namespaces []string, c clock.PassiveClock) *canaries {
	all := &canaries{clock: c, seen: map[string]*sighting{}}
	for _, namespace := range namespaces {
		all.seen[namespace] = &sighting{}
	}
	return all
}

// watch follows the canaries until ctx ends.
func (c *canaries) watch(ctx context.Context, client kubernetes.Interface, log logr.Logger) {
	var watching sync.WaitGroup
	defer watching.Wait()
	for namespace := range c.seen {
		reflector := cache.NewReflectorWithOptions(
			cache.NewListWatchFromClient(client.CoordinationV1().RESTClient(), "leases", namespace,
				fields.OneTermEqualSelector(fieldName, computev1alpha1.CanaryLeaseName)),
			&coordinationv1.Lease{}, canaryStore{c, namespace},
			cache.ReflectorOptions{
				Logger:  &log,
				Name:    "canary",
				Backoff: watch.Backoff(),
			})
		watching.Go(func() { reflector.RunWithContext(klog.NewContext(ctx, withoutRepetition(log, clock.RealClock{}))) })
	}
}

// hasSynced reports whether every canary has been looked for.
func (c *canaries) hasSynced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seen {
		if !s.synced {
			return false
		}
	}
	return true
}

// stale returns a warning for callers that are shown host status, or "" if it is up to
// date.
func (c *canaries) stale() string {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := time.Duration(0)
	for _, s := range c.seen {
		if !s.exists || s.at.IsZero() {
			return "host status is not being kept up to date: the hoststatus manager has not reported yet"
		}
		if silent := now.Sub(s.at); silent > s.holds {
			oldest = max(oldest, silent)
		}
	}
	if oldest == 0 {
		return ""
	}
	return fmt.Sprintf("host status may be out of date: the hoststatus manager has not reported for %s", oldest.Round(time.Second))
}

func (c *canaries) see(namespace string, lease *coordinationv1.Lease) {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[namespace]
	s.synced = true
	if lease == nil {
		s.exists = false
		return
	}
	var renewed metav1.MicroTime
	if lease.Spec.RenewTime != nil {
		renewed = *lease.Spec.RenewTime
	}
	switch {
	case !s.exists && renewed.Time.Before(now):
		// However long ago that was, there may have been no renewal since.
		s.at = renewed.Time
	case !s.exists, !renewed.Equal(&s.renewed):
		s.at = now
	}
	s.exists, s.renewed = true, renewed
	s.holds = 0
	if seconds := lease.Spec.LeaseDurationSeconds; seconds != nil {
		s.holds = time.Duration(*seconds) * time.Second
	}
}

// canaryStore takes what the watch of one canary brings.
type canaryStore struct {
	*canaries
	namespace string
}

// Add implements cache.ReflectorStore.
func (s canaryStore) Add(obj any) error { return s.take(obj) }

// Update implements cache.ReflectorStore.
func (s canaryStore) Update(obj any) error { return s.take(obj) }

// Delete implements cache.ReflectorStore.
func (s canaryStore) Delete(any) error { s.see(s.namespace, nil); return nil }

// Resync implements cache.ReflectorStore.
func (s canaryStore) Resync() error { return nil }

// Replace implements cache.ReflectorStore.
func (s canaryStore) Replace(objects []any, _ string) error {
	if len(objects) == 0 {
		s.see(s.namespace, nil)
		return nil
	}
	return s.take(objects[0])
}

func (s canaryStore) take(obj any) error {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return fmt.Errorf("the watch of the canary brought a %T", obj)
	}
	s.see(s.namespace, lease)
	return nil
}
