// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/chaos/judge"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// observer records from outside what happened and what was said of it. It
// reaches the API server directly, save for one eye on the canaries, which looks
// through the proxy as the managers do.
type observer struct {
	mu sync.Mutex
	// renewals are those that were sent or seen, by Lease and renewTime.
	renewals map[types.NamespacedName]*renewals
	// echoes are when the eye saw a new canary on its watch, and glimpses when it
	// saw one in any way, by namespace.
	echoes, glimpses map[string]*sightings
	// takeovers are when which manager wrote its first canary.
	takeovers []takeover
	holder    string
	services  map[string][]judge.Status
	deletions map[string][]time.Time
	servers   map[types.NamespacedName]*serverRecord
	byHost    map[string][]types.NamespacedName
	// bare are a bare client's verdicts, and bareError is why it gave up last.
	bare      []judge.Span
	busy      []judge.Load
	bareError error
}

type renewals struct {
	byTime map[int64]int
	list   []judge.Renewal
}

// sightings are when new canaries were seen.
type sightings struct {
	last int64
	at   []time.Time
}

func (s *sightings) see(l *coordinationv1.Lease) (isNew bool) {
	if l.Spec.RenewTime == nil || s.last == l.Spec.RenewTime.UnixMicro() {
		return false
	}
	s.last = l.Spec.RenewTime.UnixMicro()
	s.at = append(s.at, time.Now())
	return true
}

type takeover struct {
	at     time.Time
	holder string
}

type serverRecord struct {
	host     string
	statuses []judge.Status
}

func newObserver() *observer {
	return &observer{
		renewals: map[types.NamespacedName]*renewals{},
		echoes:   map[string]*sightings{},
		glimpses: map[string]*sightings{},
		services: map[string][]judge.Status{}, deletions: map[string][]time.Time{},
		servers: map[types.NamespacedName]*serverRecord{},
		byHost:  map[string][]types.NamespacedName{},
	}
}

// sent takes a renewal on its way.
func (o *observer) sent(namespace string, l *coordinationv1.Lease, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.renewal(namespace, l, now, time.Time{})
}

// arrived takes a renewal that is in etcd.
func (o *observer) arrived(namespace string, l *coordinationv1.Lease, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.renewal(namespace, l, now, now)
}

func (o *observer) renewal(namespace string, l *coordinationv1.Lease, sent, confirmed time.Time) {
	if l.Spec.RenewTime == nil {
		return
	}
	key := types.NamespacedName{Namespace: namespace, Name: l.Name}
	r := o.renewals[key]
	if r == nil {
		r = &renewals{byTime: map[int64]int{}}
		o.renewals[key] = r
	}
	at := l.Spec.RenewTime.UnixMicro()
	i, ok := r.byTime[at]
	if !ok {
		i = len(r.list)
		r.byTime[at] = i
		r.list = append(r.list, judge.Renewal{Sent: sent})
	}
	if r.list[i].Confirmed.IsZero() {
		r.list[i].Confirmed = confirmed
	}
}

// lease takes a Lease that the direct watch shows. The agents that are processes
// run on this machine's clock, so what they write is when they sent it.
func (o *observer) lease(l *coordinationv1.Lease) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch l.Name {
	case v1alpha1.LeaderLeaseName:
	case v1alpha1.CanaryLeaseName:
		if holder := ptr.Deref(l.Spec.HolderIdentity, ""); holder != o.holder && l.Namespace == v1alpha1.DefaultLeaseNamespace {
			o.holder = holder
			o.takeovers = append(o.takeovers, takeover{now, holder})
		}
	default:
		if l.Spec.RenewTime != nil {
			o.renewal(l.Namespace, l, l.Spec.RenewTime.Time, now)
		}
	}
}

// see takes a canary that the eye shows: on its watch, or otherwise.
func (o *observer) see(l *coordinationv1.Lease, onWatch bool) (isNew bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.glimpses[l.Namespace].see(l)
	return onWatch && o.echoes[l.Namespace].see(l)
}

// forget lets the next glimpse of a canary count as one of a new one.
func (o *observer) forget(namespace string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.glimpses[namespace].last = 0
}

func (o *observer) service(s *v1alpha1.ComputeService) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.services[s.Name] = appendStatus(o.services[s.Name], s.Generation, s.Status.HostStatus, s.Status.HostStatusTransitionTime)
}

func (o *observer) server(s *v1alpha1.Server) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := client.ObjectKeyFromObject(s)
	r := o.servers[key]
	if r == nil {
		r = &serverRecord{host: s.Spec.Host}
		o.servers[key] = r
		o.byHost[s.Spec.Host] = append(o.byHost[s.Spec.Host], key)
	}
	r.statuses = appendStatus(r.statuses, s.Generation, s.Status.HostStatus, s.Status.HostStatusTransitionTime)
}

func appendStatus(list []judge.Status, generation int64, value *v1alpha1.HostStatus, since *metav1.Time) []judge.Status {
	s := judge.Status{Value: strings.Trim(fleet.Show(value), `"`), At: time.Now(), Generation: generation}
	if since != nil {
		s.Since = since.Time
	}
	if n := len(list); n > 0 && list[n-1].Value == s.Value && list[n-1].Since.Equal(s.Since) {
		list[n-1].Generation = generation
		return list
	} else if n == 0 && value == nil {
		return list
	}
	return append(list, s)
}

// run observes until ctx ends. direct and proxied reach the API server.
func (o *observer) run(ctx context.Context, direct, proxied *rest.Config, namespaces []string, limit time.Duration) error {
	kube, err := kubernetes.NewForConfig(direct)
	if err != nil {
		return err
	}
	eye, err := kubernetes.NewForConfig(proxied)
	if err != nil {
		return err
	}
	c, err := fleet.NewClient(direct)
	if err != nil {
		return err
	}
	for _, namespace := range namespaces {
		follow(ctx, "Leases in "+namespace, &coordinationv1.Lease{}, &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return kube.CoordinationV1().Leases(namespace).List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				return kube.CoordinationV1().Leases(namespace).Watch(ctx, options)
			},
		}, o.lease)
		o.echoes[namespace], o.glimpses[namespace] = &sightings{}, &sightings{}
		go o.look(ctx, eye, namespace, limit)
		go o.glance(ctx, eye, namespace)
	}
	follow(ctx, "ComputeServices", &v1alpha1.ComputeService{}, listWatch(c, &v1alpha1.ComputeServiceList{}), o.service)
	follow(ctx, "Servers", &v1alpha1.Server{}, listWatch(c, &v1alpha1.ServerList{}), o.server)
	go o.compare(ctx, kube, c)
	return nil
}

// look is the eye: it opens a new watch as soon as the present one is of no use.
func (o *observer) look(ctx context.Context, eye kubernetes.Interface, namespace string, limit time.Duration) {
	for ctx.Err() == nil {
		once, cancel := context.WithCancel(ctx)
		stream, err := eye.CoordinationV1().Leases(namespace).Watch(once, metav1.SingleObject(metav1.ObjectMeta{Name: v1alpha1.CanaryLeaseName}))
		if err != nil {
			cancel()
			time.Sleep(50 * time.Millisecond)
			continue
		}
		timer := time.NewTimer(limit)
		for open := true; open; {
			select {
			case event, ok := <-stream.ResultChan():
				if l, isLease := event.Object.(*coordinationv1.Lease); ok && isLease {
					if o.see(l, true) {
						timer.Reset(limit)
					}
				} else {
					open = false
				}
			case <-timer.C:
				open = false
			}
		}
		stream.Stop()
		cancel()
	}
}

// glance reads the canary over and over. The first look after one that failed counts,
// although the canary is not new: a manager that lists then may not have seen it.
func (o *observer) glance(ctx context.Context, eye kubernetes.Interface, namespace string) {
	failed := false
	for ctx.Err() == nil {
		l, err := eye.CoordinationV1().Leases(namespace).Get(ctx, v1alpha1.CanaryLeaseName, metav1.GetOptions{})
		if err == nil {
			if failed {
				o.forget(namespace)
			}
			o.see(l, false)
		}
		failed = err != nil
		time.Sleep(200 * time.Millisecond)
	}
}

func listWatch(c client.WithWatch, list client.ObjectList) *cache.ListWatch {
	empty := func() client.ObjectList { return list.DeepCopyObject().(client.ObjectList) }
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			l := empty()
			err := c.List(ctx, l, &client.ListOptions{Raw: &options})
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, empty(), &client.ListOptions{Raw: &options})
		},
	}
}

// sink is a store that keeps nothing and passes everything on.
type sink[T any] struct{ take func(T) }

func (s sink[T]) Add(obj any) error { return s.Update(obj) }
func (s sink[T]) Update(obj any) error {
	t, ok := obj.(T)
	if !ok {
		return fmt.Errorf("unexpected %T", obj)
	}
	s.take(t)
	return nil
}
func (s sink[T]) Delete(any) error { return nil }
func (s sink[T]) Replace(list []any, _ string) error {
	for _, obj := range list {
		if err := s.Update(obj); err != nil {
			return err
		}
	}
	return nil
}
func (s sink[T]) Resync() error { return nil }

// follow hands every state of every object to take, in order, across outages.
func follow[T runtime.Object](ctx context.Context, name string, example T, source *cache.ListWatch, take func(T)) {
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 1.5, Steps: 4, Cap: 200 * time.Millisecond}
	r := cache.NewReflectorWithOptions(source, example, sink[T]{take}, cache.ReflectorOptions{Name: name, Backoff: &backoff})
	go r.RunWithContext(ctx)
}

// changes is how many host statuses a host has had, and last the present one.
func (o *observer) changes(host string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.services[host])
}

func (o *observer) last(host string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.services[host]); n > 0 {
		return o.services[host][n-1].Value
	}
	return judge.Absent
}

// record is what the judge needs of one host.
func (o *observer) record(h *host) judge.Host {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := judge.Host{Name: h.name, Duration: h.duration, Statuses: slices.Clone(o.services[h.name]), Deletions: slices.Clone(o.deletions[h.name])}
	if r := o.renewals[types.NamespacedName{Namespace: h.namespace, Name: h.name}]; r != nil {
		for _, renewal := range r.list {
			if !renewal.Confirmed.IsZero() { // Otherwise it has not arrived.
				out.Renewals = append(out.Renewals, renewal)
			}
		}
	}
	slices.SortFunc(out.Renewals, func(a, b judge.Renewal) int { return a.Confirmed.Compare(b.Confirmed) })
	return out
}

// deletes notes that the Lease of h is being deleted.
func (o *observer) deletes(h *host) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deletions[h.name] = append(o.deletions[h.name], time.Now())
}

// serversOn are the statuses of the servers on a host.
func (o *observer) serversOn(h *host) map[types.NamespacedName][]judge.Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[types.NamespacedName][]judge.Status{}
	for _, key := range o.byHost[h.name] {
		out[key] = slices.Clone(o.servers[key].statuses)
	}
	return out
}

// blind is when nothing was to be seen in a namespace on a watch, and when at all.
// This process shares the machine with all others and may itself look late, so what
// it takes for blind at best has to last twice as long.
func (o *observer) blind(namespace string, limit time.Duration, begin, end time.Time) (onWatch, atBest []judge.Span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return judge.BlindSpans(o.echoes[namespace].at, limit, begin, end), judge.BlindSpans(o.glimpses[namespace].at, 2*limit, begin, end)
}
