// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// ReconnectBackoff is between attempts to reconnect.
var ReconnectBackoff = wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 5 * time.Second}

// Connection reports when the connection to the API server is lost, and when it is back,
// by the watch and by the reads beside it: a watch may hang for long without an error.
type Connection struct {
	Note    func(format string, args ...any)
	Explain func(error) error
	// Refused is called if the first watch is forbidden. A later one is tried again: while the
	// API server starts, it knows no roles.
	Refused func(error)

	mu                   sync.Mutex
	watchLost, readsLost bool
	// watched is true once a watch was opened.
	watched bool
}

// ListWatch is the source of a reflector that lists and watches by these functions.
func (c *Connection) ListWatch(list func(context.Context, metav1.ListOptions) (runtime.Object, error), open func(context.Context, metav1.ListOptions) (watch.Interface, error)) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			found, err := list(ctx, options)
			if err != nil { // Without one, the watch that follows shows whether there is a connection.
				c.heard(err)
			}
			return found, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			stream, err := open(ctx, options)
			if err != nil {
				if apierrors.IsForbidden(err) && !c.watched {
					c.Refused(c.Explain(err))
				} else {
					c.heard(err)
				}
				return nil, err
			}
			c.watched = true
			return c.follow(stream), nil
		},
	}
}

// heard gets the result of a request of the watch.
func (c *Connection) heard(err error) { c.update(&c.watchLost, err) }

// Read gets the result of a read beside it.
func (c *Connection) Read(err error) { c.update(&c.readsLost, err) }

func (c *Connection) update(lost *bool, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.watchLost || c.readsLost
	*lost = err != nil
	switch is := c.watchLost || c.readsLost; {
	case is && !was:
		c.Note("Connection lost, trying again: %v", c.Explain(err))
	case was && !is:
		c.Note("Connected again.")
	}
}

// Lost is true while there is no connection.
func (c *Connection) Lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watchLost || c.readsLost
}

// aliveAfter is how long a watch has to last before its connection counts as good. A
// connection that is cut at once looks like a watch without events.
const aliveAfter = time.Second

// follow passes the events of a watch on, and notices whether it lasts.
func (c *Connection) follow(stream watch.Interface) watch.Interface {
	events := make(chan watch.Event)
	proxy := watch.NewProxyWatcher(events)
	go func() {
		defer close(events)
		defer stream.Stop()
		timer := time.NewTimer(aliveAfter)
		defer timer.Stop()
		alive := false
		for {
			select {
			case event, ok := <-stream.ResultChan():
				if !ok && !alive {
					c.heard(errors.New("the connection was closed at once"))
				}
				if !ok {
					return
				}
				alive = true
				c.heard(nil)
				select {
				case events <- event:
				case <-proxy.StopChan():
					return
				}
			case <-timer.C:
				alive = true
				c.heard(nil)
			case <-proxy.StopChan():
				return
			}
		}
	}()
	return proxy
}
