// SPDX-License-Identifier: Apache-2.0

// Package logonce logs what holds for a while once, and not each time that it is noticed.
package logonce

import (
	"context"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Log has the current message on each key. Its zero value has none.
type Log[K comparable] struct {
	mu      sync.Mutex
	current map[K]string
}

// Info logs a message about key, with the logger of ctx, unless it is the current one; ""
// clears that.
func (l *Log[K]) Info(ctx context.Context, key K, message string) {
	l.mu.Lock()
	before := l.current[key]
	switch {
	case message == "":
		delete(l.current, key)
	case l.current == nil:
		l.current = map[K]string{key: message}
	default:
		l.current[key] = message
	}
	l.mu.Unlock()
	if message != "" && message != before {
		log.FromContext(ctx).Info(message)
	}
}
