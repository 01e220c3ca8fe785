// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// repetitionInterval is how often an error that stays the same is logged.
const repetitionInterval = 5 * time.Minute

// withoutRepetition returns a logger that logs an error which is the same as the last one
// only every repetitionInterval. A reflector tries twice a second, so that it works soon
// after what it lacks is there, and logs each time.
func withoutRepetition(log logr.Logger, c clock.PassiveClock) logr.Logger {
	if log.GetSink() == nil {
		return log
	}
	return log.WithSink(&unrepeating{LogSink: log.GetSink(), last: &lastError{clock: c}})
}

type lastError struct {
	clock clock.PassiveClock

	mu   sync.Mutex
	text string
	at   time.Time
}

// again reports whether text was logged a moment ago.
func (l *lastError) again(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text == l.text && l.clock.Since(l.at) < repetitionInterval {
		return true
	}
	l.text, l.at = text, l.clock.Now()
	return false
}

type unrepeating struct {
	logr.LogSink
	last *lastError
}

// Error implements logr.LogSink.
func (u *unrepeating) Error(err error, message string, keysAndValues ...any) {
	text := message
	if err != nil {
		text += ": " + err.Error()
	}
	if !u.last.again(text) {
		u.LogSink.Error(err, message, keysAndValues...)
	}
}

// WithValues implements logr.LogSink.
func (u *unrepeating) WithValues(keysAndValues ...any) logr.LogSink {
	return &unrepeating{LogSink: u.LogSink.WithValues(keysAndValues...), last: u.last}
}

// WithName implements logr.LogSink.
func (u *unrepeating) WithName(name string) logr.LogSink {
	return &unrepeating{LogSink: u.LogSink.WithName(name), last: u.last}
}

// WithCallDepth implements logr.CallDepthLogSink.
func (u *unrepeating) WithCallDepth(depth int) logr.LogSink {
	if sink, ok := u.LogSink.(logr.CallDepthLogSink); ok {
		return &unrepeating{LogSink: sink.WithCallDepth(depth), last: u.last}
	}
	return u
}
