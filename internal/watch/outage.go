// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// patience is how long something may fail before that is worth a line: an API
	// server that restarts is none.
	patience = 5 * time.Second
	// longestPause between lines. Only errors that differ each time get that far.
	longestPause = 10 * time.Minute
)

// outage logs errors that repeat, once for each text.
type outage struct {
	// values are keys and values for the log: of what it is.
	values []any

	mu sync.Mutex
	// since is when it began; zero while there is none.
	since time.Time
	said  map[string]bool
	// next is when there may be another line, and pause what follows it.
	next  time.Time
	pause time.Duration
}

// failed takes that err came instead of what was asked for.
func (t *outage) failed(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		t.since, t.said, t.next, t.pause = now, map[string]bool{}, now.Add(patience), patience
	}
	if now.Before(t.next) || t.said[err.Error()] {
		return
	}
	t.said[err.Error()] = true
	t.next, t.pause = now.Add(t.pause), min(2*t.pause, longestPause)
	klog.FromContext(ctx).Error(err, "Reading from the API server failed; retrying", append(t.values, "for", now.Sub(t.since).Round(time.Second).String())...)
}

// works takes that what was asked for came.
func (t *outage) works(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.said) > 0 {
		klog.FromContext(ctx).Info("Reading from the API server works again", append(t.values, "after", time.Since(t.since).Round(time.Second).String())...)
	}
	t.since, t.said = time.Time{}, nil
}

// lasts says whether something fails.
func (t *outage) lasts() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.since.IsZero()
}
