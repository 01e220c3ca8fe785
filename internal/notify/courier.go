// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// courier brings one sink what its queue has. Several work at once, each with other subjects.
type courier[P any] struct {
	name            string
	batch, parallel int
	send            func(context.Context, []item[P]) error
	// prepare learns what the sink was told before, nil if the sink cannot say.
	prepare func(context.Context) error
	// resend is how often everything that selected accepts is sent again, 0 for never.
	resend   time.Duration
	selected func(slotKey, *state) bool

	log   logr.Logger
	clock clock.WithTicker
	wake  chan struct{}

	// mu protects the queue, and what follows.
	mu    *sync.Mutex
	queue *queue[P]
	// failingSince is set while the sink fails.
	failingSince time.Time
}

func newCourier[P any](name string, l ledger[P], mu *sync.Mutex, c clock.WithTicker, log logr.Logger) *courier[P] {
	return &courier[P]{
		name: name, batch: 1, parallel: 1, log: log.WithValues("sink", name), clock: c, wake: make(chan struct{}, 1), mu: mu, queue: newQueue(l, c),
	}
}

// sink is the name of the sink.
func (c *courier[P]) sink() string { return c.name }

// want implements outbox; mu is held.
func (c *courier[P]) want(key slotKey, s *state) {
	c.queue.want(key, s)
	wake(c.wake)
}

// hide implements outbox; mu is held.
func (c *courier[P]) hide(key slotKey) { c.queue.hide(key) }

// hideEnded hides what is gone and not told yet, of a namespace or, with "", of all; mu is held.
func (c *courier[P]) hideEnded(namespace string) { c.queue.hideEnded(namespace) }

// ended calls each with the namespaces of what is gone and not told yet; mu is held.
func (c *courier[P]) ended(each func(namespace string)) { c.queue.ended(each) }

// forget implements outbox; mu is held.
func (c *courier[P]) forget(key slotKey) { c.queue.forget(key) }

// told calls each for the subjects of which the sink knows something; mu is held.
func (c *courier[P]) told(each func(slotKey, *state)) { c.queue.ledger.known(each) }

// wasUnknown reports whether the sink was told that a subject is UNKNOWN; mu is held.
func (c *courier[P]) wasUnknown(key slotKey) bool { return c.queue.ledger.wasUnknown(key) }

// run works until ctx ends.
func (c *courier[P]) run(ctx context.Context) {
	if c.prepare != nil && !c.prepared(ctx) {
		return
	}
	var working sync.WaitGroup
	if c.resend > 0 {
		working.Go(func() { c.repeat(ctx) })
	}
	for range c.parallel {
		working.Go(func() { c.work(ctx) })
	}
	working.Wait()
}

// prepared repeats prepare until it works, and reports whether it did before ctx ended. A sink
// that does not let it is not asked again.
func (c *courier[P]) prepared(ctx context.Context) bool {
	for attempt := 0; ; attempt++ {
		err := c.prepare(ctx)
		var answer *answerError
		if errors.As(err, &answer) && answer.code >= 400 && answer.code < 500 && answer.code != http.StatusRequestTimeout && answer.code != http.StatusTooManyRequests {
			c.log.Info("The sink does not say what it was told before; what has ended meanwhile it gives up by itself", "answer", answer.code)
			return true
		}
		if err == nil {
			return true
		}
		c.mu.Lock()
		c.failing(err)
		length := c.queue.pause(attempt)
		c.mu.Unlock()
		if !pause(ctx, c.clock, length) {
			return false
		}
	}
}

// repeat sends again what goes on.
func (c *courier[P]) repeat(ctx context.Context) {
	ticker := c.clock.NewTicker(c.resend)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		c.mu.Lock()
		c.queue.repeat(c.selected)
		c.mu.Unlock()
		wake(c.wake)
	}
}

// work sends what there is.
func (c *courier[P]) work(ctx context.Context) {
	for ctx.Err() == nil {
		sending, recall := context.WithCancel(ctx)
		c.mu.Lock()
		items := c.queue.take(c.batch, recall)
		next, more := c.queue.next()
		now := c.clock.Now()
		c.mu.Unlock()
		if len(items) > 0 {
			if more && !next.After(now) {
				wake(c.wake) // There is something for another one.
			}
			err := c.send(sending, items)
			c.finish(items, err, sending.Err() != nil)
		}
		recall()
		if len(items) > 0 {
			continue
		}
		await(ctx, c.clock, c.wake, next.Sub(now), more)
	}
}

// finish takes in what became of a request.
func (c *courier[P]) finish(items []item[P], err error, stopped bool) {
	what, retryAfter := outcomeOf(err)
	if err != nil && stopped {
		what = recalled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.done(items, what, retryAfter)
	switch what {
	case delivered:
		now := c.clock.Now()
		for _, i := range items {
			if i.fresh {
				deliverySeconds.WithLabelValues(c.name).Observe(max(0, now.Sub(i.want.at).Seconds()))
			}
		}
		deliveries.WithLabelValues(c.name, resultDelivered).Add(float64(len(items)))
		if !c.failingSince.IsZero() && c.queue.failed == 0 {
			c.log.Info("The sink works again", "after", now.Sub(c.failingSince).Round(time.Millisecond).String())
			c.failingSince = time.Time{}
		}
	case failed:
		deliveries.WithLabelValues(c.name, resultFailed).Add(float64(len(items)))
		c.failing(err)
	case refused:
		deliveries.WithLabelValues(c.name, resultRefused).Add(float64(len(items)))
		c.failing(err)
	}
}

// failing logs that the sink begins to fail; mu is held.
func (c *courier[P]) failing(err error) {
	if c.failingSince.IsZero() && !errors.Is(err, context.Canceled) {
		c.failingSince = c.clock.Now()
		c.log.Error(err, "The sink fails; of each server the newest state is kept for it")
	}
}

// usage is what metrics show; mu is held.
func (c *courier[P]) usage() (u sinkUsage) {
	n, oldest := c.queue.length()
	u = sinkUsage{name: c.name, waiting: n, failing: !c.failingSince.IsZero()}
	if !oldest.IsZero() {
		u.oldest = max(0, c.clock.Since(oldest))
	}
	return u
}

// sinkUsage is what metrics show of a sink.
type sinkUsage struct {
	name    string
	waiting int
	oldest  time.Duration
	failing bool
}
