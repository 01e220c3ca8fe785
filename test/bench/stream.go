// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"sync"
)

// stream has the frames of a watch that are not sent yet.
type stream struct {
	mu     sync.Mutex
	frames [][]byte
	wake   chan struct{}
}

func newStream() *stream { return &stream{wake: make(chan struct{}, 1)} }

func (s *stream) push(frame []byte) {
	s.mu.Lock()
	s.frames = append(s.frames, frame)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames := s.frames
	s.frames = nil
	return frames
}

// send sends frames as they come, until the client goes.
func (s *stream) send(w http.ResponseWriter, r *http.Request) {
	controller := http.NewResponseController(w)
	for {
		for _, frame := range s.take() {
			if _, err := w.Write(frame); err != nil {
				return
			}
		}
		if controller.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.wake:
		}
	}
}
