// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bytes"
	"io"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
)

const (
	// maxShared is how many events are kept for other watches, and maxSharedSize about how
	// many bytes a server may take so that those of it are.
	maxShared, maxSharedSize = 1 << 10, 8 << 10
	// maxEncodings is in how many ways, such as JSON or a table, an event is encoded once for
	// all. Callers can name many.
	maxEncodings = 8
	// sharedFor is how long an event is kept at most. A table tells ages, in seconds.
	sharedFor = time.Second
)

// sharing keeps what watches were sent a moment ago. Watches of one namespace are sent the
// same, at almost the same time, and where their callers may see the same it is encoded once
// for all.
type sharing struct {
	clock clock.PassiveClock

	mu    sync.Mutex
	known map[sharedKey]*sharedView
	// kept has the keys of known in the order in which they came, in a ring; next is where
	// the next goes.
	kept [maxShared]sharedKey
	next int
}

// sharedKey names all that decides what an event looks like, but for its kind and the
// encoding.
type sharedKey struct {
	record *record
	grant  grant
	rv     uint64
	column bool
}

func (k sharedKey) view() *view {
	v := viewOf(k.record, k.grant, k.rv)
	v.hostColumn = k.column
	return &v
}

func newSharing(c clock.PassiveClock) *sharing {
	return &sharing{clock: c, known: map[sharedKey]*sharedView{}}
}

// view returns the object that key names, which others may have been sent, too.
func (s *sharing) view(key sharedKey) runtime.Object {
	if key.record.size() > maxSharedSize {
		return key.view()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	shared := s.known[key]
	if shared != nil && now.Sub(shared.made) < sharedFor {
		return shared
	}
	if shared == nil {
		delete(s.known, s.kept[s.next])
		s.kept[s.next] = key
		s.next = (s.next + 1) % maxShared
	}
	shared = &sharedView{view: key.view(), made: now, encoded: map[runtime.Identifier]*encoding{}}
	s.known[key] = shared
	return shared
}

// sharedView is a view that is encoded once for each kind of event and encoding. Nothing of
// it may be changed.
type sharedView struct {
	view *view
	made time.Time

	mu      sync.Mutex
	encoded map[runtime.Identifier]*encoding
}

// encoding is what came of encoding something once.
type encoding struct {
	once  sync.Once
	bytes []byte
	err   error
}

var _ runtime.CacheableObject = &sharedView{}

// CacheEncode implements runtime.CacheableObject.
func (s *sharedView) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	e := s.encoding(id)
	if e == nil {
		return encode(s.view, w)
	}
	e.once.Do(func() {
		var b bytes.Buffer
		e.err = encode(s.view, &b)
		e.bytes = b.Bytes()
	})
	if e.err != nil {
		return e.err
	}
	_, err := w.Write(e.bytes)
	return err //nolint:wrapcheck // the encoder's caller knows what it writes to
}

// encoding returns the place of one encoding, nil if there are too many.
func (s *sharedView) encoding(id runtime.Identifier) *encoding {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.encoded[id]
	if e == nil && len(s.encoded) < maxEncodings {
		e = &encoding{}
		s.encoded[id] = e
	}
	return e
}

// GetObject implements runtime.CacheableObject.
func (s *sharedView) GetObject() runtime.Object { return s.view.DeepCopyObject() }

// GetObjectKind implements runtime.Object.
func (s *sharedView) GetObjectKind() schema.ObjectKind { return s.view.GetObjectKind() }

// DeepCopyObject implements runtime.Object.
func (s *sharedView) DeepCopyObject() runtime.Object { return s.view.DeepCopyObject() }
