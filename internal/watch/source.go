// SPDX-License-Identifier: Apache-2.0

// Package watch keeps lists and watches going across interruptions.
//
// A reflector of client-go waits longer after each failure, up to a minute, and
// lists everything again after a stream that broke. That spares an API server that
// thousands of clients watch. A few managers can afford to be back at once, and must
// be: what they do not see they cannot report.
//
// The first half of this goes once shared informers take a backoff of their own, which is
// proposed in github.com/kubernetes/kubernetes/pull/137572 (for issue 136943): a reflector
// takes one already, which Backoff is for. What stays is what begins a watch again with all
// objects below an informer.
package watch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// backoff is the wait between tries, while nothing answers.
var backoff = wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 5, Cap: 500 * time.Millisecond}

// Backoff returns how long a reflector should wait between its lists, so that it does not
// wait longer than its Source does.
func Backoff() *wait.Backoff {
	b := backoff
	return &b
}

const (
	// silence is how long a watch may bring nothing before it is reopened. kube-apiserver
	// sends a bookmark about once a minute, even while nothing changes, and would end a
	// stalled watch only after five to ten minutes. If the reopened watch brings nothing
	// for as long again, its version is ahead of the API server, as after a restore of
	// etcd: a new watch begins with all objects.
	silence = 90 * time.Second
	// openLimit is how long a watch may take to open. kube-apiserver's priority and
	// fairness queues a request for 15 s at most.
	openLimit = 20 * time.Second
	// listLimit is how long a list may take, which kube-apiserver itself ends after 60 s.
	listLimit = 70 * time.Second
)

// Source is where a reflector or an informer gets its objects from.
type Source struct {
	inner    cache.ListerWatcherWithContext
	into     Cache
	silence  time.Duration
	listing  outage
	watching outage

	mu   sync.Mutex
	open map[*stream]struct{}
	// renewal is closed when the cache is renewed, nil if nobody waits for that.
	renewal chan struct{}
	// listed is the last list that was asked for because of it.
	listed *listed
}

// New returns a source that gets them from inner. It logs what keeps failing, to the
// logger in the context of a list or watch.
func New(inner cache.ListerWatcher) *Source {
	return &Source{
		inner:    cache.ToListerWatcherWithContext(inner),
		silence:  silence,
		listing:  outage{values: []any{"verb", "list"}},
		watching: outage{values: []any{"verb", "watch"}},
		open:     map[*stream]struct{}{},
	}
}

// Of names the kind of the objects, for the log. It returns s.
func (s *Source) Of(kind string) *Source {
	s.listing.values = []any{"kind", kind, "verb", "list"}
	s.watching.values = []any{"kind", kind, "verb", "watch"}
	return s
}

// ListWatch returns s in the form that reflectors and informers take.
func (s *Source) ListWatch() *cache.ListWatch {
	return &cache.ListWatch{ListWithContextFunc: s.list, WatchFuncWithContext: s.watch}
}

// Reopen ends the watches below, which are opened again from where they were. It is for
// watches that are open and deliver nothing. One that is still showing all objects, and
// has brought some since the last call, would only have to start over: it is left alone.
func (s *Source) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.open {
		if w.begins && w.heard.Swap(false) {
			continue
		}
		w.inner.Stop()
	}
}

func (s *Source) list(ctx context.Context, options metav1.ListOptions) (out runtime.Object, err error) {
	renewal := s.pending()
	if renewal != nil {
		// The current state, not the one that the cache last saw.
		options.ResourceVersion, options.ResourceVersionMatch = "", ""
	}
	err = try(ctx, &s.listing, func() error {
		ctx, cancel := context.WithTimeout(ctx, listLimit)
		defer cancel()
		out, err = s.inner.ListWithContext(ctx, options)
		return err
	})
	if err == nil {
		s.listing.succeeded(ctx)
		s.noteList(renewal, out, options.Continue == "")
	}
	return out, err
}

func (s *Source) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	s.settleList(ctx)
	ctx, cancel := context.WithCancel(ctx)
	w := &stream{source: s, options: options, cancel: cancel, events: make(chan watch.Event)}
	if err := w.reopen(ctx); err != nil {
		cancel()
		return nil, err
	}
	go w.run(ctx)
	return w, nil
}

// try repeats do until the API server answers, or ctx ends. It records failures in
// outage.
func try(ctx context.Context, outage *outage, do func() error) error {
	delay := backoff
	for {
		err := do()
		outage.failed(ctx, err)
		if err == nil || isAnswer(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay.Step()):
		}
	}
}

// isAnswer reports whether err is a final answer of the API server, which it would repeat,
// so that the caller has to ask differently. Forbidden and not found are not: the API
// server also answers them for a moment after its start, until it has read the roles and
// the CustomResourceDefinitions. A resource version that it does not know yet is final:
// after a restore of etcd from a backup it may never come.
func isAnswer(err error) bool {
	if apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		return true
	}
	if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsTooManyRequests(err) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError
}

// stream is a watch that goes on when the one below it ends.
type stream struct {
	source  *Source
	options metav1.ListOptions
	cancel  context.CancelFunc
	events  chan watch.Event

	// inner is the watch below, continues whether another follows when it ends, and
	// begins whether it still has to show all objects. The source's lock guards them.
	inner             watch.Interface
	continues, begins bool
	// heard: the watch below has brought something since heard was last cleared.
	heard atomic.Bool
	// unheard is how long watches have been open since the last event, including the
	// pauses between them, but not the time to open them.
	unheard time.Duration
	// present are the keys shown by a watch that begins again with all objects; nil if
	// none does.
	present map[string]struct{}
	// refused is since when the API server has answered such a watch only with errors.
	refused time.Time
	last    sent
	// renewal is the source's, as it was before the watch below was requested.
	renewal chan struct{}
}

// ResultChan implements watch.Interface.
func (w *stream) ResultChan() <-chan watch.Event { return w.events }

// Stop implements watch.Interface.
func (w *stream) Stop() { w.cancel() }

// run passes events on until ctx ends or the API server gives a final answer.
func (w *stream) run(ctx context.Context) {
	defer close(w.events)
	defer w.cancel()
	delay := backoff
	for {
		opened := time.Now()
		more := w.forward(ctx)
		w.close()
		if !more || !w.resumable() && w.present == nil {
			return
		}
		if w.due() {
			w.begin()
		} else if w.lost() {
			klog.FromContext(ctx).Info("A watch delivers nothing from its resourceVersion; starting it again with all objects", w.source.watching.values...)
			if w.source.into == nil {
				status := apierrors.NewResourceExpired("the API server delivers nothing from this version").Status()
				w.send(ctx, watch.Event{Type: watch.Error, Object: &status})
				return
			}
			w.begin()
		}
		if !w.refused.IsZero() && time.Since(w.refused) > beginLimit {
			status := apierrors.NewResourceExpired("the API server does not show all objects on a watch").Status()
			w.send(ctx, watch.Event{Type: watch.Error, Object: &status})
			return
		}
		if time.Since(opened) > time.Second {
			delay = backoff
		}
		pause := delay.Step()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			w.unheard += pause
		}
		err := w.reopen(ctx)
		if err != nil && w.restarts(err) {
			err = w.reopen(ctx)
		}
		if err != nil {
			status := apierrors.NewInternalError(err).Status()
			var answer apierrors.APIStatus
			if errors.As(err, &answer) {
				status = answer.Status()
			}
			w.send(ctx, watch.Event{Type: watch.Error, Object: &status})
			return
		}
	}
}

// forward passes on what the watch below brings, and reports whether another one may
// follow it.
func (w *stream) forward(ctx context.Context) (more bool) {
	if w.due() {
		return true
	}
	outage := &w.source.watching
	var lasts <-chan time.Time
	if outage.lasts() {
		// A watch that was opened may still bring nothing. If it stays open, there is
		// nothing to bring.
		timer := time.NewTimer(patience)
		defer timer.Stop()
		lasts = timer.C
	}
	heard, timer := time.Now(), time.NewTimer(w.source.silence)
	defer timer.Stop()
	defer func() { w.unheard += time.Since(heard) }()
	quiet := timer.C
	if !w.options.AllowWatchBookmarks {
		quiet = nil
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-lasts:
			outage.succeeded(ctx)
		case <-quiet:
			left := w.source.silence - time.Since(heard)
			if left <= 0 {
				klog.FromContext(ctx).Info("A watch delivers nothing, not even bookmarks; reopening it", outage.values...)
				return true
			}
			timer.Reset(left)
		case event, ok := <-w.inner.ResultChan():
			if !ok {
				return true
			}
			if event.Type == watch.Error {
				err := apierrors.FromObject(event.Object)
				outage.failed(ctx, err)
				if w.present != nil && w.refused.IsZero() {
					w.refused = time.Now()
				}
				if w.present != nil || !isAnswer(err) || w.restarts(err) {
					return true // The stream broke, or can begin again.
				}
				w.send(ctx, event)
				return false
			}
			heard, w.unheard = time.Now(), 0
			w.heard.Store(true)
			if w.present != nil {
				w.refused = time.Time{}
				if !w.replay(event) {
					continue
				}
			}
			if w.present != nil && isWhole(event) {
				if !w.deleteAbsent(ctx) {
					status := apierrors.NewResourceExpired("the cache does not store what it is sent").Status()
					w.send(ctx, watch.Event{Type: watch.Error, Object: &status})
					return false
				}
				w.present = nil
				w.source.renewed(w.renewal)
			}
			// Before sending, since the receiver may change the object.
			w.note(event)
			w.remember(event)
			if w.resumable() && outage.lasts() {
				outage.succeeded(ctx)
			}
			if !w.send(ctx, event) {
				return false
			}
			if isWhole(event) && w.due() {
				return true
			}
		}
	}
}

// note remembers where the next watch has to begin.
func (w *stream) note(event watch.Event) {
	object, err := meta.Accessor(event.Object)
	if err != nil {
		return
	}
	if initial := ptr.Deref(w.options.SendInitialEvents, false); initial {
		if !isWhole(event) {
			return // Until all objects have been shown, only a new beginning helps.
		}
		w.options.SendInitialEvents, w.options.ResourceVersionMatch = nil, ""
		w.source.mu.Lock()
		w.begins = false
		w.source.mu.Unlock()
	}
	w.options.ResourceVersion = object.GetResourceVersion()
}

// isWhole reports whether event marks the end of the initial objects.
func isWhole(event watch.Event) bool {
	if event.Type != watch.Bookmark {
		return false
	}
	object, err := meta.Accessor(event.Object)
	return err == nil && object.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
}

// lost reports whether the watch continues from a version from which nothing comes.
func (w *stream) lost() bool {
	return w.options.AllowWatchBookmarks && w.resumable() && w.unheard >= 2*w.source.silence
}

func (w *stream) resumable() bool {
	return !ptr.Deref(w.options.SendInitialEvents, false) && w.options.ResourceVersion != "" && w.options.ResourceVersion != "0"
}

func (w *stream) send(ctx context.Context, event watch.Event) bool {
	select {
	case w.events <- event:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *stream) reopen(ctx context.Context) error {
	clear(w.present)
	w.heard.Store(false)
	w.source.mu.Lock()
	w.renewal = w.source.renewal
	w.source.mu.Unlock()
	var inner watch.Interface
	err := try(ctx, &w.source.watching, func() (err error) {
		inner, err = w.source.openWatch(ctx, w.options)
		return err
	})
	if err != nil {
		return err
	}
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	w.inner = inner
	w.continues, w.begins = w.resumable() || w.present != nil, !w.resumable()
	w.source.open[w] = struct{}{}
	return nil
}

// openWatch opens a watch whose request ends when it is stopped.
func (s *Source) openWatch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(openLimit, cancel)
	inner, err := s.inner.WatchWithContext(ctx, options)
	if !timer.Stop() {
		if err == nil {
			inner.Stop()
		}
		err = fmt.Errorf("the API server has not opened a watch within %s", openLimit)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &request{inner, cancel}, nil
}

type request struct {
	watch.Interface
	cancel context.CancelFunc
}

// Stop implements watch.Interface.
func (r *request) Stop() {
	r.Interface.Stop()
	r.cancel()
}

func (w *stream) close() {
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	delete(w.source.open, w)
	w.inner.Stop()
}
