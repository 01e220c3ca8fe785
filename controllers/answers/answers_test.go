// SPDX-License-Identifier: Apache-2.0

package answers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// world is the two informers, as far as they are used.
type world struct {
	*Answers
	answers *fakeInformer
	servers fakeServers
	events  []string
}

type fakeCache struct {
	cache.Cache // nil: only GetInformer is expected.
	informer    *fakeInformer
}

func (c fakeCache) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return c.informer, nil
}

type fakeInformer struct {
	toolscache.SharedIndexInformer // nil: nothing else is expected.
	store                          toolscache.Store
	handler                        toolscache.ResourceEventHandler
	synced                         atomic.Bool
}

func newFakeInformer() *fakeInformer {
	return &fakeInformer{store: toolscache.NewStore(toolscache.MetaNamespaceKeyFunc)}
}

func (i *fakeInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handler = h
	return i, nil
}
func (i *fakeInformer) HasSynced() bool            { return i.synced.Load() }
func (i *fakeInformer) GetStore() toolscache.Store { return i.store }

type fakeServers struct{ *fakeInformer }

func (s fakeServers) OnHost(host string) (servers []*v1alpha1.Server, err error) {
	if host == "broken" {
		return nil, errors.New("no index")
	}
	for _, obj := range s.store.List() {
		if server := obj.(*v1alpha1.Server); server.Spec.Host == host {
			servers = append(servers, server)
		}
	}
	return servers, nil
}

func (s fakeServers) Get(key string) (*v1alpha1.Server, error) {
	obj, _, err := s.store.GetByKey(key)
	server, _ := obj.(*v1alpha1.Server)
	return server, err
}

// newWorld runs Answers, of which nothing is known yet.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{answers: newFakeInformer(), servers: fakeServers{newFakeInformer()}}
	w.Answers = New(fakeCache{informer: w.answers}, w.servers)
	w.Listen(w.listeners(""))
	go func() {
		if err := w.Start(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	synctest.Wait()
	return w
}

func (w *world) listeners(prefix string) Listeners {
	return Listeners{
		Server: func(s types.NamespacedName) { w.events = append(w.events, prefix+"server "+s.String()) },
		Host:   func(host string) { w.events = append(w.events, prefix+"host "+host) },
		Known:  func() { w.events = append(w.events, prefix+"known") },
	}
}

// list ends the first lists, in a process that leads.
func (w *world) list() {
	w.MarkFresh()
	w.answers.synced.Store(true)
	w.servers.synced.Store(true)
	time.Sleep(time.Second)
	synctest.Wait()
}

func (w *world) want(t *testing.T, events ...string) {
	t.Helper()
	if diff := cmp.Diff(events, w.events); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.events = nil
}

var start = ptr.To(metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)))

func answerFor(name string, word ownerv1alpha1.Answer) *ownerv1alpha1.MaintenanceAnswer {
	a := &ownerv1alpha1.MaintenanceAnswer{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name}}
	a.Spec.Answer, a.Spec.WindowStartTime = word, start
	return a
}

func serverOn(host, name string, uid types.UID) *v1alpha1.Server {
	s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name, UID: uid}}
	s.Spec.Host = host
	return s
}

func (w *world) add(t *testing.T, objects ...any) {
	t.Helper()
	for _, obj := range objects {
		store := w.answers.store
		if _, ok := obj.(*v1alpha1.Server); ok {
			store = w.servers.store
		}
		if err := store.Add(obj); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnswersAreKnownOnceBothKindsHaveBeenListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(t, serverOn("host-a", "web", "1"), answerFor("web", ownerv1alpha1.AnswerReady))
		window := &v1alpha1.MaintenanceWindow{StartTime: start}
		unknown := func() {
			t.Helper()
			if _, known := w.Count("host-a", window); known {
				t.Error("counts are known")
			}
			if _, known := w.Get(types.NamespacedName{Namespace: "team-a", Name: "web"}); known {
				t.Error("an answer is known")
			}
		}
		unknown()
		w.answers.synced.Store(true) // And the servers are not.
		time.Sleep(time.Minute)
		unknown()
		w.servers.synced.Store(true) // And the process does not lead.
		time.Sleep(time.Minute)
		unknown()
		w.want(t)
		w.list()
		w.want(t, "known")
		w.Listen(w.listeners("late: "))
		w.want(t, "late: known")
		got, known := w.Count("host-a", window)
		if diff := cmp.Diff(hoststatus.Answers{Servers: 1, Ready: 1}, got); !known || diff != "" {
			t.Errorf("known %t (-want +got):\n%s", known, diff)
		}
		if answer, known := w.Get(types.NamespacedName{Namespace: "team-a", Name: "db"}); answer != nil || !known {
			t.Errorf("answer %v, known %t", answer, known)
		}
		if _, known := w.Count("broken", window); known {
			t.Error("counts are known although the servers cannot be found")
		}
	})
}

func TestWhatAChangeOfAnswersOrServersConcerns(t *testing.T) {
	web, db := serverOn("host-a", "web", "1"), serverOn("", "db", "2")
	for name, c := range map[string]struct {
		happens func(*world)
		want    []string
	}{
		"an answer":                           {func(w *world) { w.answers.handler.OnAdd(answerFor("web", "Ready"), false) }, []string{"server team-a/web", "host host-a"}},
		"another answer":                      {func(w *world) { w.answers.handler.OnUpdate(answerFor("web", "Ready"), answerFor("web", "NotBefore")) }, []string{"server team-a/web", "host host-a"}},
		"an answer that is gone":              {func(w *world) { w.answers.handler.OnDelete(answerFor("web", "Ready")) }, []string{"server team-a/web", "host host-a"}},
		"one that went unseen":                {func(w *world) { w.answers.handler.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "team-a/web"}) }, []string{"server team-a/web", "host host-a"}},
		"an answer for a server on no host":   {func(w *world) { w.answers.handler.OnAdd(answerFor("db", "Ready"), false) }, []string{"server team-a/db"}},
		"an answer for no server":             {func(w *world) { w.answers.handler.OnAdd(answerFor("none", "Ready"), false) }, []string{"server team-a/none"}},
		"a server that is made":               {func(w *world) { w.servers.handler.OnAdd(web, false) }, []string{"host host-a"}},
		"a server that was there":             {func(w *world) { w.servers.handler.OnAdd(web, true) }, nil},
		"a server on no host":                 {func(w *world) { w.servers.handler.OnAdd(db, false) }, nil},
		"a server that moves":                 {func(w *world) { w.servers.handler.OnUpdate(web, serverOn("host-b", "web", "1")) }, []string{"host host-a", "host host-b"}},
		"a server that is placed":             {func(w *world) { w.servers.handler.OnUpdate(db, serverOn("host-b", "db", "2")) }, []string{"host host-b"}},
		"a server that is made anew, unseen":  {func(w *world) { w.servers.handler.OnUpdate(web, serverOn("host-a", "web", "3")) }, []string{"host host-a", "host host-a"}},
		"a server of which something is new":  {func(w *world) { w.servers.handler.OnUpdate(web, serverOn("host-a", "web", "1")) }, nil},
		"a server that is deleted":            {func(w *world) { w.servers.handler.OnDelete(web) }, []string{"host host-a"}},
		"one whose deletion was not seen":     {func(w *world) { w.servers.handler.OnDelete(toolscache.DeletedFinalStateUnknown{Obj: web}) }, []string{"host host-a"}},
		"something else that was never asked": {func(w *world) { w.servers.handler.OnDelete(42) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.add(t, web, db)
				w.list()
				w.want(t, "known")
				c.happens(w)
				w.want(t, c.want...)
			})
		})
	}
}

func TestAListenerIsCalledForWhatConcernsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(t, serverOn("host-a", "web", "1"))
		w.list()
		only := w.listeners("servers only: ")
		only.Host = nil
		w.Listen(only)
		only = w.listeners("hosts only: ")
		only.Server = nil
		w.Listen(only)
		w.events = nil
		w.answers.handler.OnAdd(answerFor("web", "Ready"), false)
		slices.Sort(w.events)
		w.want(t, "host host-a", "hosts only: host host-a", "server team-a/web", "servers only: server team-a/web")
	})
}

// What an answer costs grows with the servers on its host, and with nothing else.
func TestCountingLooksAtTheServersOfOneHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 300 {
			w.add(t, serverOn(fmt.Sprintf("host-%d", i%3), fmt.Sprintf("vm-%d", i), "1"), answerFor(fmt.Sprintf("vm-%d", i), "Ready"))
		}
		w.list()
		got, _ := w.Count("host-1", &v1alpha1.MaintenanceWindow{StartTime: start})
		if diff := cmp.Diff(hoststatus.Answers{Servers: 100, Ready: 100}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestTheCacheKeepsWhatIsDecidedBy(t *testing.T) {
	answer := answerFor("web", "Ready")
	answer.UID, answer.ResourceVersion = "uid", "7"
	want := answer.DeepCopy()
	answer.Labels, answer.Annotations = map[string]string{"a": "b"}, map[string]string{"last-applied": "{}"}
	answer.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	got, err := Keep(answer)
	if diff := cmp.Diff(any(want), got); err != nil || diff != "" {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	if other, err := Keep(42); other != 42 || err != nil {
		t.Errorf("something else becomes %v, error %v", other, err)
	}
}
