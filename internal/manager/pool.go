// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"encoding/binary"
	"hash/maphash"
	"runtime"
	"sync"
	"weak"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// pool lets the cache keep values once that many objects have in common: the servers of a
// host have lived through the same, and have the same maintenance window. It keeps nothing
// alive by itself. What it has returned must not be changed, like all that is in the cache.
type pool[T any] struct {
	seed maphash.Seed
	same func(a, b *T) bool

	mu    sync.Mutex
	known map[uint64]weak.Pointer[T]
}

func newPool[T any](same func(a, b *T) bool) *pool[T] {
	return &pool[T]{seed: maphash.MakeSeed(), same: same, known: map[uint64]weak.Pointer[T]{}}
}

// share returns a value that is the same as value and that others may have, too. key is made
// of what the value consists of.
func (p *pool[T]) share(value *T, key []byte) *T {
	hash := maphash.Bytes(p.seed, key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.known[hash].Value(); known != nil {
		if p.same(known, value) {
			return known
		}
		return value // Two values with one hash: the later one is kept for itself.
	}
	p.known[hash] = weak.Make(value)
	runtime.AddCleanup(value, p.forget, hash)
	return value
}

// forget is called some time after nobody has a value any more. Another may have come in its
// place.
func (p *pool[T]) forget(hash uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[hash].Value() == nil {
		delete(p.known, hash)
	}
}

func (p *pool[T]) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.known)
}

// history is a history in one piece of memory.
type history struct {
	length  int
	changes [v1alpha1.MaxHostHistory]v1alpha1.HostStatusChange
	times   [v1alpha1.MaxHostHistory]metav1.Time
}

var (
	histories = newPool(func(a, b *history) bool {
		return hoststatus.SameFields(v1alpha1.HostFields{HostHistory: a.changes[:a.length]}, v1alpha1.HostFields{HostHistory: b.changes[:b.length]})
	})
	windows = newPool(func(a, b *v1alpha1.AnnouncedWindow) bool {
		return hoststatus.SameFields(v1alpha1.HostFields{MaintenanceWindow: a}, v1alpha1.HostFields{MaintenanceWindow: b})
	})
)

// sharedHistory returns a history that is the same as changes. One that is longer than the
// schema allows is not shared.
func sharedHistory(changes []v1alpha1.HostStatusChange) []v1alpha1.HostStatusChange {
	if len(changes) == 0 || len(changes) > v1alpha1.MaxHostHistory {
		return changes
	}
	h := &history{length: len(changes)}
	var key []byte
	for i, change := range changes {
		if change.HostStatus != nil {
			change.HostStatus = sharedStatus(*change.HostStatus)
			key = append(append(key, *change.HostStatus...), 0)
		}
		change.Reason = shared(change.Reason)
		key = append(append(key, change.Reason...), 0)
		if change.Since != nil {
			h.times[i] = *change.Since
			change.Since = &h.times[i]
			key = binary.BigEndian.AppendUint64(key, uint64(change.Since.Unix()))
		}
		h.changes[i] = change
	}
	h = histories.share(h, key)
	return h.changes[:h.length:h.length]
}

// sharedWindow returns a window that is the same as w, which may be nil.
func sharedWindow(w *v1alpha1.AnnouncedWindow) *v1alpha1.AnnouncedWindow {
	if w == nil {
		return nil
	}
	w.Category, w.Impact, w.Answer = shared(w.Category), shared(w.Impact), shared(w.Answer)
	var key []byte
	for _, t := range []*metav1.Time{w.StartTime, w.OpensAt, w.LatestStartTime, w.EndTime} {
		if t != nil {
			key = binary.BigEndian.AppendUint64(key, uint64(t.Unix()))
		}
		key = append(key, 0)
	}
	for _, s := range []string{string(w.Category), string(w.Impact), string(w.Answer)} {
		key = append(append(key, s...), 0)
	}
	return windows.share(w, key)
}
