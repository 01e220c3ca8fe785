// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// patience is how long something may fail before that is worth a log line: a restart of
	// the API server is not.
	patience = 5 * time.Second
	// longestPause between lines. Only errors that differ each time get that far.
	longestPause = 10 * time.Minute
)

// outage logs errors that repeat, once for each text.
type outage struct {
	// values are keys and values for the log, which name what fails.
	values []any

	mu sync.Mutex
	// since is when it began; zero while there is none.
	since time.Time
	// logged are the texts that were logged since then.
	logged map[string]bool
	// next is when the next line is allowed, and pause the time between that and the next.
	next  time.Time
	pause time.Duration
}

// failed records that a request got err.
func (t *outage) failed(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		t.since, t.logged, t.next, t.pause = now, map[string]bool{}, now.Add(patience), patience
	}
	if now.Before(t.next) || t.logged[err.Error()] {
		return
	}
	t.logged[err.Error()] = true
	t.next, t.pause = now.Add(t.pause), min(2*t.pause, longestPause)
	klog.FromContext(ctx).Error(err, "Reading from the API server failed; retrying", append(t.values, "for", now.Sub(t.since).Round(time.Second).String())...)
}

// succeeded records that a request succeeded.
func (t *outage) succeeded(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.logged) > 0 {
		klog.FromContext(ctx).Info("Reading from the API server works again", append(t.values, "after", time.Since(t.since).Round(time.Second).String())...)
	}
	t.since, t.logged = time.Time{}, nil
}

// lasts reports whether the outage goes on.
func (t *outage) lasts() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.since.IsZero()
}
