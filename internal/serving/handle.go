// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"hoststatus.dev/hoststatus/internal/fairqueue"
)

const contentType = "application/json"

// refusal is the answer to a request that does not reach its handler.
type refusal struct {
	code           int
	reason, advice string
}

func (r *refusal) Error() string { return r.advice }

// handle reads a request within bounds, before anything decodes it.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	if s.stopping.Load() {
		// The caller's next request goes to another replica.
		w.Header().Set("Connection", "close")
	}
	if err := s.review(w, r); err != nil {
		no := &refusal{http.StatusServiceUnavailable, reasonBusy, err.Error()}
		errors.As(err, &no)
		refused.WithLabelValues(no.reason).Inc()
		// Nobody reads the rest of the body.
		w.Header().Set("Connection", "close")
		http.Error(w, no.advice, no.code)
	}
}

func (s *Server) review(w http.ResponseWriter, r *http.Request) error {
	if err := s.acceptable(r); err != nil {
		return err
	}
	from := callerOf(r.RemoteAddr)
	body, held, err := s.read(w, r, from)
	if err != nil {
		return err
	}
	defer held.Release()
	n, object := values(body)
	if !object {
		return &refusal{http.StatusBadRequest, reasonKind, "the body must be an AdmissionReview in JSON"}
	}
	if n > maxValues {
		return &refusal{http.StatusRequestEntityTooLarge, reasonSize, fmt.Sprintf("the body must have at most %d values", maxValues)}
	}
	work := s.work
	if len(body) > smallBody {
		work = s.heavy
	}
	working, err := acquire(r, work, from)
	if err != nil {
		return err
	}
	defer working.Release()
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.Handler.ServeHTTP(w, r)
	return nil
}

// acceptable checks what is known before the body is read.
func (s *Server) acceptable(r *http.Request) error {
	if _, pattern := s.Handler.Handler(r); pattern == "" {
		return &refusal{http.StatusNotFound, reasonKind, "no webhook is served at this path"}
	}
	if r.Method != http.MethodPost {
		return &refusal{http.StatusMethodNotAllowed, reasonKind, "use POST"}
	}
	if got := r.Header.Get("Content-Type"); got != contentType {
		return &refusal{http.StatusUnsupportedMediaType, reasonKind, "the Content-Type must be " + contentType}
	}
	if r.ContentLength > maxBody {
		return tooLarge()
	}
	return nil
}

func tooLarge() error {
	return &refusal{http.StatusRequestEntityTooLarge, reasonSize, fmt.Sprintf("the body must have at most %d bytes", maxBody)}
}

// read returns the body, and the seat of a large one. Memory is used only for what has
// arrived; beyond the size of a small body that takes a seat, for a short time.
func (s *Server) read(w http.ResponseWriter, r *http.Request, from caller) (content []byte, held *seat, err error) {
	body := http.MaxBytesReader(w, r.Body, maxBody)
	var buffer bytes.Buffer
	_, err = io.CopyN(&buffer, body, smallBody)
	if err == nil && r.ContentLength == smallBody {
		err = io.EOF
	}
	deadline := http.NewResponseController(w)
	switch {
	case errors.Is(err, io.EOF): // It needs no seat.
	case err != nil:
		return nil, nil, unread(err)
	default:
		if held, err = acquire(r, s.large, from); err != nil {
			return nil, nil, err
		}
		if r.ContentLength > 0 {
			buffer.Grow(int(r.ContentLength) - smallBody + bytes.MinRead)
		}
		if err = deadline.SetReadDeadline(time.Now().Add(largeTimeout)); err == nil {
			_, err = buffer.ReadFrom(body)
		}
		if err != nil {
			held.Release()
			return nil, nil, unread(err)
		}
	}
	// Otherwise the request would be cancelled at that deadline, as if its client had gone.
	if err := deadline.SetReadDeadline(time.Time{}); err != nil {
		held.Release()
		return nil, nil, unread(err)
	}
	return buffer.Bytes(), held, nil
}

// unread returns the refusal of a body that could not be read.
func unread(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return tooLarge()
	}
	return &refusal{http.StatusRequestTimeout, reasonTime, "the body has not arrived in time"}
}

// The bounds of what else is served to anyone: each request of /metrics may ask
// kube-apiserver who sends it.
const metricsSeats, metricsPerCaller, metricsWaiting = 8, 4, 32

// WithFairQueue lets handler answer a few requests at a time, and fewer of one address.
func WithFairQueue(handler http.Handler) http.Handler {
	q := newQueue(metricsSeats, metricsPerCaller, metricsWaiting)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		held, err := q.Acquire(r.Context(), callerOf(r.RemoteAddr))
		if err != nil {
			http.Error(w, busy, http.StatusTooManyRequests)
			return
		}
		defer held.Release()
		handler.ServeHTTP(w, r)
	})
}

const busy = "more is being asked than can be answered at once; try again"

type (
	queue = fairqueue.Queue[caller]
	seat  = fairqueue.Seat[caller]
)

func newQueue(seats, perCaller, waiting int) *queue {
	return fairqueue.New[caller](fairqueue.Limits{Seats: seats, SeatsPerCaller: perCaller, WaitingPerCaller: waiting, MaxWait: waitTimeout})
}

// acquire waits for a seat while somebody may be waiting for the answer.
func acquire(r *http.Request, q *queue, from caller) (*seat, error) {
	held, err := q.Acquire(r.Context(), from)
	if err != nil {
		return nil, &refusal{http.StatusTooManyRequests, reasonBusy, busy}
	}
	return held, nil
}
