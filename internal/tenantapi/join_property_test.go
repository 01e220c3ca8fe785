// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// Two replicas, whose two watches bring what they bring in any order that Kubernetes
// allows; a manager that copies when it gets to it; clients that list, watch, drop and go
// on at the other replica. Whatever happens, in the end each client has the truth, on one
// replica nothing that it sees goes back, and it never sees what no source had.
func TestEveryClientOfEitherReplicaEndsWithTheTruth(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		check(t, checks.Value.Set("500"))
	}
	for _, marked := range []bool{true, false} {
		name := "each state of a host is another, and servers stay where they are"
		if !marked {
			name = "hosts become what they were, and servers move"
		}
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				var ended any // rapid ends a run by a panic, which has to be in its own goroutine.
				synctest.Test(t, func(*testing.T) {
					defer func() { ended = recover() }()
					w := newJoinWorld(r, marked)
					defer w.close()
					r.Repeat(w.actions())
					w.settle()
				})
				if ended != nil {
					panic(ended)
				}
			})
		})
	}
}

const joinNamespace = "ns"

var (
	joinServers = []string{"web", "db", "mq"}
	joinHosts   = []string{"host-a", "host-b"}
	joinGrants  = []grant{grantFull, grantUnknown, grantNone}
)

// joinWorld is an API server, a manager, two replicas and the clients.
type joinWorld struct {
	*rapid.T
	// marked says that each state of a host differs from all before, so that the order in
	// which a client sees them can be judged.
	marked bool
	// clock is the manager's.
	clock   time.Time
	version uint64
	servers map[string]*computev1alpha1.Server
	hosts   map[string]*computev1alpha1.ComputeService
	marks   int
	// answers is what has become of each server's answer, where the controller knows it.
	answers  map[string]computev1alpha1.AnswerState
	replicas [2]*replica
	clients  []*joinClient
	// sources are the host fields that each server, and each host, has ever had.
	sources map[string][]computev1alpha1.HostFields
	log     []string
}

// replica is one process. It has yet to be brought what is in its queues.
type replica struct {
	*storage
	serverNews, hostNews []joinEvent
}

type joinEvent struct {
	object runtime.Object
	gone   bool
	// bookmark is one if it is not 0.
	bookmark uint64
}

// joinClient is a program like kubectl or an informer.
type joinClient struct {
	name    string
	grant   grant
	replica int
	// at is the resourceVersion from which it goes on, "" if it has to list.
	at    string
	watch watch.Interface
	stop  context.CancelFunc
	seen  map[string]v1alpha1.Server
	// newest is the newest of each server that this replica has shown it.
	newest map[string]joinPlace
}

// joinPlace is how new something is: the count in the server's task state, and the mark
// of its host.
type joinPlace struct{ base, host int }

func newJoinWorld(r *rapid.T, marked bool) *joinWorld {
	w := &joinWorld{
		T: r, marked: marked, clock: instant, version: 100, servers: map[string]*computev1alpha1.Server{}, hosts: map[string]*computev1alpha1.ComputeService{},
		sources: map[string][]computev1alpha1.HostFields{}, answers: map[string]computev1alpha1.AnswerState{},
	}
	for _, name := range joinHosts {
		w.hosts[name] = &computev1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 1}}
		w.deriveHost(name)
	}
	for i, name := range joinServers {
		w.servers[name] = w.newServer(name, joinHosts[i%len(joinHosts)])
		w.copy(name)
	}
	for i := range w.replicas {
		up, err := newUpstream(&rest.Config{Host: "http://kube-apiserver", QPS: -1, Transport: w}, logr.Discard())
		w.must(err)
		s := &storage{
			upstream: up, feed: newFeed(testProjector(), clock.RealClock{}, logr.Discard()), grants: newGrants(joinAuthorizer{}, clock.RealClock{}),
			canaries: newCanaries(nil, clock.RealClock{}), tokens: newTokens(testProjector().hostIDKey), limits: newLimits(100, nil), shared: newSharing(clock.RealClock{}),
			clock: clock.RealClock{}, log: logr.Discard(), tableConvertor: tableConvertor{clock.RealClock{}},
		}
		s.feed.maxRead = 2 // Fewer than there are servers on a host.
		w.replicas[i] = &replica{storage: s}
		w.relistServers(i)
		w.relistHosts(i)
	}
	for i, g := range joinGrants {
		w.clients = append(w.clients, &joinClient{name: fmt.Sprintf("client-%d", i), grant: g, replica: i % 2, seen: map[string]v1alpha1.Server{}, newest: map[string]joinPlace{}})
	}
	return w
}

func (w *joinWorld) close() {
	for _, c := range w.clients {
		w.drop(c)
	}
	synctest.Wait()
	if w.Failed() {
		w.Logf("what happened:\n%s", strings.Join(w.log, "\n"))
	}
}

func (w *joinWorld) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%4d ", w.version)+fmt.Sprintf(format, args...))
}

func (w *joinWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *joinWorld) actions() map[string]func(*rapid.T) {
	of := func(names []string) string { return rapid.SampledFrom(names).Draw(w.T, "name") }
	anyReplica := func() int { return rapid.IntRange(0, 1).Draw(w.T, "replica") }
	anyClient := func() *joinClient { return w.clients[rapid.IntRange(0, len(w.clients)-1).Draw(w.T, "client")] }
	actions := map[string]func(*rapid.T){
		"a host changes":                func(*rapid.T) { w.changeHost(of(joinHosts)) },
		"a host has another label":      func(*rapid.T) { w.labelHost(of(joinHosts)) },
		"a host changes and has copies": func(*rapid.T) { h := of(joinHosts); w.changeHost(h); w.copy(of(joinServers)) },
		"a copy":                        func(*rapid.T) { w.copy(of(joinServers)) },
		"an owner answers": func(*rapid.T) {
			name := of(joinServers)
			w.answers[name] = rapid.SampledFrom([]computev1alpha1.AnswerState{"Ready", "NotBefore", "None", "Stale"}).Draw(w.T, "answer")
			w.note("the answer for %s is %s", name, w.answers[name])
			w.copy(name)
		},
		"an agent reports":              func(*rapid.T) { w.report(of(joinServers)) },
		"a replica hears of servers":    func(*rapid.T) { w.hear(anyReplica(), true, false) },
		"a replica hears of hosts":      func(*rapid.T) { w.hear(anyReplica(), false, true) },
		"a replica hears all":           func(*rapid.T) { i := anyReplica(); w.hearAll(i) },
		"a replica lists servers anew":  func(*rapid.T) { w.relistServers(anyReplica()) },
		"a replica lists hosts anew":    func(*rapid.T) { w.relistHosts(anyReplica()) },
		"a bookmark":                    func(*rapid.T) { w.bookmark(anyReplica()) },
		"a client lists":                func(*rapid.T) { w.list(anyClient()) },
		"a client lists from the cache": func(*rapid.T) { w.listFromCache(anyClient()) },
		"a client watches":              func(*rapid.T) { w.watch(anyClient()) },
		"a client drops its watch":      func(*rapid.T) { w.drop(anyClient()) },
		"a connection breaks":           func(*rapid.T) { w.breakOff(anyClient(), rapid.IntRange(0, 3).Draw(w.T, "received")) },
		"a client goes to the other replica": func(*rapid.T) {
			c := anyClient()
			w.drop(c)
			c.replica, c.newest = 1-c.replica, map[string]joinPlace{}
			w.note("%s goes to replica %d", c.name, c.replica)
			w.watch(c)
		},
		"a while passes": func(*rapid.T) { w.clock = w.clock.Add(time.Second) },
		"": func(*rapid.T) {
			synctest.Wait()
			for _, c := range w.clients {
				w.receive(c)
			}
		},
	}
	if !w.marked {
		actions["a server moves"] = func(*rapid.T) { w.move(of(joinServers), of(joinHosts)) }
		actions["a server is made anew"] = func(*rapid.T) { w.remake(of(joinServers)) }
		actions["a host is made anew"] = func(*rapid.T) { w.remakeHost(of(joinHosts)) }
	}
	return actions
}

// What happens in etcd.

func (w *joinWorld) next() string {
	w.version++
	return strconv.FormatUint(w.version, 10)
}

func (w *joinWorld) putServer(s *computev1alpha1.Server) {
	s.ResourceVersion = w.next()
	w.servers[s.Name] = s
	w.sources[s.Name] = append(w.sources[s.Name], s.Status.HostFields)
	w.happened(joinEvent{object: s})
}

func (w *joinWorld) putHost(s *computev1alpha1.ComputeService) {
	s.ResourceVersion = w.next()
	w.hosts[s.Name] = s
	if fields, ok := hoststatus.ForServer(s.Name, s); ok {
		w.sources[s.Name] = append(w.sources[s.Name], fields)
	}
	w.happened(joinEvent{object: s})
}

// happened is what the replicas have yet to hear of.
func (w *joinWorld) happened(e joinEvent) {
	for _, r := range w.replicas {
		switch _, ofServers := e.object.(*computev1alpha1.Server); {
		case r == nil: // It has yet to start.
		case ofServers:
			r.serverNews = append(r.serverNews, e)
		default:
			r.hostNews = append(r.hostNews, e)
		}
	}
}

func (w *joinWorld) newServer(name, host string) *computev1alpha1.Server {
	s := &computev1alpha1.Server{ObjectMeta: metav1.ObjectMeta{
		Namespace: joinNamespace, Name: name, UID: types.UID(fmt.Sprintf("%s-%d", name, w.version)), Generation: 1, ResourceVersion: w.next(),
	}}
	s.Spec.Host, s.Status.TaskState = host, "0"
	return s
}

// changeHost writes the spec of a host, and then its status.
func (w *joinWorld) changeHost(name string) {
	if w.hosts[name] == nil {
		return
	}
	s := w.hosts[name].DeepCopy()
	s.Generation++
	w.putHost(s)
	w.deriveHost(name)
}

// labelHost changes what servers do not show.
func (w *joinWorld) labelHost(name string) {
	if w.hosts[name] == nil {
		return
	}
	s := w.hosts[name].DeepCopy()
	s.Labels = map[string]string{"row": strconv.FormatUint(w.version, 10)}
	w.putHost(s)
	w.note("%s has another label: %s", name, s.ResourceVersion)
}

func (w *joinWorld) deriveHost(name string) {
	s := w.hosts[name].DeepCopy()
	status := rapid.SampledFrom([]computev1alpha1.HostStatus{computev1alpha1.HostStatusUp, computev1alpha1.HostStatusDown, computev1alpha1.HostStatusUnknown}).Draw(w.T, "status")
	if s.Status.HostStatusTransitionTime == nil || !hoststatus.SameStatus(s.Status.HostStatus, &status) {
		s.Status.HostStatusTransitionTime = ptr.To(metav1.NewTime(w.clock))
	}
	s.Status.HostStatus, s.Status.HostStatusReason, s.Status.ObservedGeneration = &status, computev1alpha1.ReasonReporting, s.Generation
	if w.marked {
		w.marks++
		s.Spec.MaintenanceWindow = &computev1alpha1.MaintenanceWindow{StartTime: ptr.To(metav1.Unix(int64(w.marks), 0))}
		s.Status.Conditions = []metav1.Condition{{Type: computev1alpha1.ConditionWindowOpen, Reason: string(computev1alpha1.ReasonWindowAnnounced)}}
	}
	w.putHost(s)
	w.note("%s is %s since %s, mark %d: %s", name, status, s.Status.HostStatusTransitionTime.Format(time.TimeOnly), w.marks, s.ResourceVersion)
}

// copy does what the server's controller does.
func (w *joinWorld) copy(name string) bool {
	server := w.servers[name]
	if server == nil {
		return false
	}
	server = server.DeepCopy()
	host := w.hosts[server.Spec.Host]
	want, ok := hoststatus.ForServer(server.Spec.Host, host)
	if !ok {
		return false
	}
	version := ""
	if host != nil {
		version = host.ResourceVersion
	}
	moved := server.Status.ObservedGeneration != server.Generation
	if want.MaintenanceWindow != nil {
		want.MaintenanceWindow.Answer = w.answers[name]
	}
	fields := hoststatus.Take(server.Status.HostFields, want, moved, w.clock)
	if !moved && hoststatus.SameFields(fields, server.Status.HostFields) && (version == "") == (server.Status.HostVersion == "") {
		return false
	}
	if len(fields.HostHistory) == 0 {
		fields = hoststatus.Remember(fields)
	}
	server.Status.HostFields, server.Status.ObservedGeneration, server.Status.HostVersion = fields, server.Generation, version
	w.putServer(server)
	w.note("%s is %s since %s, copied from %s: %s", name, *fields.HostStatus, fields.HostStatusTransitionTime.Format(time.TimeOnly), version, server.ResourceVersion)
	return true
}

func (w *joinWorld) report(name string) {
	if w.servers[name] == nil {
		return
	}
	server := w.servers[name].DeepCopy()
	n, err := strconv.Atoi(server.Status.TaskState)
	w.must(err)
	server.Status.TaskState = strconv.Itoa(n + 1)
	w.putServer(server)
	w.note("%s reports %d: %s", name, n+1, server.ResourceVersion)
}

func (w *joinWorld) move(name, host string) {
	if w.servers[name] == nil {
		return
	}
	server := w.servers[name].DeepCopy()
	server.Spec.Host, server.Generation = host, server.Generation+1
	w.putServer(server)
	w.note("%s moves to %s: %s", name, host, server.ResourceVersion)
}

func (w *joinWorld) remake(name string) {
	if old := w.servers[name]; old != nil {
		old = old.DeepCopy()
		old.ResourceVersion = w.next()
		delete(w.servers, name)
		w.happened(joinEvent{object: old, gone: true})
		w.note("%s is deleted: %s", name, old.ResourceVersion)
		return
	}
	s := w.newServer(name, joinHosts[0])
	w.putServer(s)
	w.note("%s is made on %s: %s", name, s.Spec.Host, s.ResourceVersion)
}

func (w *joinWorld) remakeHost(name string) {
	if old := w.hosts[name]; old != nil {
		old = old.DeepCopy()
		old.ResourceVersion = w.next()
		delete(w.hosts, name)
		w.happened(joinEvent{object: old, gone: true})
		w.note("%s is deleted: %s", name, old.ResourceVersion)
		return
	}
	w.hosts[name] = &computev1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name + w.next()), Generation: 1}}
	w.deriveHost(name)
}

// What a replica hears of it.

// hear brings replica i what is next.
func (w *joinWorld) hear(i int, servers, hosts bool) bool {
	r, heard := w.replicas[i], false
	deliver := func(queue *[]joinEvent, store interface {
		Update(any) error
		Delete(any) error
		Bookmark(string) error
	}) {
		if len(*queue) == 0 {
			return
		}
		e := (*queue)[0]
		*queue, heard = (*queue)[1:], true
		switch {
		case e.bookmark != 0:
			w.must(store.Bookmark(strconv.FormatUint(e.bookmark, 10)))
		case e.gone:
			w.must(store.Delete(e.object))
		default:
			w.must(store.Update(e.object))
		}
	}
	if servers {
		deliver(&r.serverNews, r.feed)
	}
	if hosts {
		deliver(&r.hostNews, hostStore{r.feed})
	}
	if heard {
		w.note("replica %d has heard (servers %t, hosts %t) up to %d", i, servers, hosts, r.feed.version())
	}
	return heard
}

func (w *joinWorld) hearAll(i int) {
	for w.hear(i, true, false) || w.hear(i, false, true) {
	}
}

func (w *joinWorld) bookmark(i int) {
	r := w.replicas[i]
	r.serverNews = append(r.serverNews, joinEvent{bookmark: w.version})
}

func (w *joinWorld) relistServers(i int) {
	r := w.replicas[i]
	r.serverNews = nil
	var all []any
	for _, s := range w.servers {
		all = append(all, s)
	}
	w.must(r.feed.Replace(all, strconv.FormatUint(w.version, 10)))
	w.note("replica %d lists servers", i)
}

func (w *joinWorld) relistHosts(i int) {
	r := w.replicas[i]
	r.hostNews = nil
	var all []any
	for _, s := range w.hosts {
		all = append(all, s)
	}
	w.must(hostStore{r.feed}.Replace(all, strconv.FormatUint(w.version, 10)))
	w.note("replica %d lists hosts", i)
}

// RoundTrip implements http.RoundTripper: it is the API server, as the replicas' lists see it.
func (w *joinWorld) RoundTrip(r *http.Request) (*http.Response, error) {
	var answer any
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(w.version, 10)}
	names := slices.Sorted(maps.Keys(w.servers))
	if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList") {
		list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"}, ListMeta: meta}
		for _, name := range names {
			list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: w.servers[name].ObjectMeta})
		}
		answer = list
	} else {
		list := &computev1alpha1.ServerList{TypeMeta: metav1.TypeMeta{APIVersion: computev1alpha1.SchemeGroupVersion.String(), Kind: "ServerList"}, ListMeta: meta}
		for _, name := range names {
			list.Items = append(list.Items, *w.servers[name])
		}
		answer = list
	}
	body, err := json.Marshal(answer)
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": []string{runtime.ContentTypeJSON}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, err
}

// What a client does.

func (w *joinWorld) as(c *joinClient) (context.Context, context.CancelFunc) {
	u := &user.DefaultInfo{Name: strconv.Itoa(int(c.grant))}
	return context.WithCancel(request.WithUser(request.WithNamespace(context.Background(), joinNamespace), u))
}

// joinAuthorizer knows the grants of clients by their names.
type joinAuthorizer struct{ authorizer.Authorizer }

func (joinAuthorizer) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if want := map[string]grant{"status": grantFull, "unknownstatus": grantUnknown}[a.GetSubresource()]; a.GetUser().GetName() == strconv.Itoa(int(want)) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (w *joinWorld) list(c *joinClient)          { w.listAs(c, "") }
func (w *joinWorld) listFromCache(c *joinClient) { w.listAs(c, "0") }

func (w *joinWorld) listAs(c *joinClient, resourceVersion string) {
	w.drop(c)
	ctx, cancel := w.as(c)
	defer cancel()
	object, err := w.replicas[c.replica].List(ctx, &metainternalversion.ListOptions{ResourceVersion: resourceVersion})
	w.must(err)
	list := object.(*viewList)
	w.note("%s lists %q from replica %d as of %s", c.name, resourceVersion, c.replica, list.ResourceVersion)
	clear(c.seen)
	c.at = list.ResourceVersion
	if resourceVersion == "0" {
		clear(c.newest) // Kubernetes allows that to be old.
	}
	for i := range list.Items {
		w.see(c, &list.Items[i].Server)
	}
}

// watch goes on where c was.
func (w *joinWorld) watch(c *joinClient) {
	if c.watch != nil {
		return
	}
	if c.at == "" {
		w.list(c)
	}
	ctx, cancel := w.as(c)
	watching, err := w.replicas[c.replica].Watch(ctx, &metainternalversion.ListOptions{ResourceVersion: c.at, AllowWatchBookmarks: true})
	if apierrors.IsResourceExpired(err) {
		cancel()
		w.list(c)
		return
	}
	w.must(err)
	c.watch, c.stop = watching, cancel
	w.note("%s watches replica %d from %s", c.name, c.replica, c.at)
}

func (w *joinWorld) drop(c *joinClient) {
	if c.watch == nil {
		return
	}
	c.stop()
	c.watch.Stop()
	synctest.Wait()
	w.receive(c)
	c.watch = nil
}

// breakOff ends the watch of c, which has received the first few events of what was sent.
func (w *joinWorld) breakOff(c *joinClient, received int) {
	if c.watch == nil {
		return
	}
	synctest.Wait()
	w.receiveUpTo(c, received)
	w.note("the connection of %s breaks", c.name)
	c.stop()
	if c.watch != nil {
		c.watch.Stop()
		c.watch = nil
	}
	synctest.Wait()
}

// receive takes what has been sent to c.
func (w *joinWorld) receive(c *joinClient) { w.receiveUpTo(c, math.MaxInt) }

func (w *joinWorld) receiveUpTo(c *joinClient, most int) {
	for range most {
		if c.watch == nil {
			return
		}
		var e watch.Event
		var ok bool
		select {
		case e, ok = <-c.watch.ResultChan():
		default:
			return
		}
		if !ok {
			c.watch = nil
			return
		}
		if e.Type == watch.Error {
			w.note("%s has to list again", c.name)
			c.at, c.watch = "", nil
			return
		}
		v := viewIn(e.Object)
		c.at = v.ResourceVersion
		switch e.Type {
		case watch.Deleted:
			w.note("%s sees %s go", c.name, v.Name)
			delete(c.seen, v.Name)
			delete(c.newest, v.Name)
		case watch.Added, watch.Modified:
			before, known := c.seen[v.Name]
			if known && w.marked && c.grant == grantNone && sameView(before, v.Server) {
				w.Errorf("%s, who may not see host status, hears of %s, which shows nothing new", c.name, v.Name)
			}
			w.see(c, &v.Server)
		}
	}
}

func sameView(a, b v1alpha1.Server) bool {
	a.ResourceVersion, b.ResourceVersion = "", ""
	return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b)
}

// see judges what c is shown of a server.
func (w *joinWorld) see(c *joinClient, s *v1alpha1.Server) {
	w.note("%s sees %s@%s %s: %s", c.name, s.Name, s.ResourceVersion, s.Status.TaskState, shownFields(s.Status.HostFields))
	c.seen[s.Name] = *s
	base, err := strconv.Atoi(s.Status.TaskState)
	w.must(err)
	place := joinPlace{base: base}
	if s.Status.HostStatus != nil {
		w.judgeSource(c, s)
		if window := s.Status.MaintenanceWindow; window != nil {
			place.host = int(window.StartTime.Unix())
		}
	}
	before := c.newest[s.Name]
	// With a weaker grant, versions hide which changes there were, so that a client whose
	// replica was behind can be shown one again.
	if w.marked && c.grant == grantFull && (place.base < before.base || place.host != 0 && place.host < before.host) {
		w.Errorf("%s sees %s go back from %+v to %+v on replica %d", c.name, s.Name, before, place, c.replica)
	}
	place.host = max(place.host, before.host) // Hidden for a while, with the weaker grant.
	c.newest[s.Name] = place
}

// judgeSource checks that some source had these fields. The history and the answer are the
// server's own: the view makes the one of what it shows, and keeps the other or shows none.
func (w *joinWorld) judgeSource(c *joinClient, s *v1alpha1.Server) {
	var had, since bool
	shown := w.judgeOwn(c, s)
	for name, sources := range w.sources {
		if name != s.Name && !slices.Contains(joinHosts, name) {
			continue
		}
		for _, source := range sources {
			since = since || s.Status.HostStatusTransitionTime.Equal(source.HostStatusTransitionTime)
			source.HostStatusTransitionTime = s.Status.HostStatusTransitionTime
			had = had || hoststatus.SameFields(hostsOwn(source), shown)
		}
	}
	if !had || !since {
		w.Errorf("%s sees %s %s, which nobody ever said (fields %t, time %t)", c.name, s.Name, shownFields(s.Status.HostFields), had, since)
	}
}

// hostsOwn returns host fields without those that are the server's own.
func hostsOwn(f computev1alpha1.HostFields) computev1alpha1.HostFields {
	f.HostHistory = nil
	if f.MaintenanceWindow != nil {
		f.MaintenanceWindow = f.MaintenanceWindow.DeepCopy()
		f.MaintenanceWindow.Answer = ""
	}
	return f
}

// judgeOwn checks the fields that are the server's own, and returns the others.
func (w *joinWorld) judgeOwn(c *joinClient, s *v1alpha1.Server) computev1alpha1.HostFields {
	f := s.Status.HostFields
	if n := len(f.HostHistory); n > 0 {
		if first := f.HostHistory[0]; !hoststatus.SameStatus(first.HostStatus, f.HostStatus) || !first.Since.Equal(f.HostStatusTransitionTime) {
			w.Errorf("%s sees %s %s, of which the history begins with %s since %s", c.name, s.Name, shownFields(f), *first.HostStatus, first.Since)
		}
		if n > computev1alpha1.MaxHostHistory || c.grant == grantUnknown && n > 1 {
			w.Errorf("%s sees %d changes of %s", c.name, n, s.Name)
		}
	}
	if f.MaintenanceWindow == nil || f.MaintenanceWindow.Answer == "" {
		return hostsOwn(f)
	}
	for _, source := range w.sources[s.Name] {
		if m := source.MaintenanceWindow; m != nil && m.Answer == f.MaintenanceWindow.Answer && m.StartTime.Equal(f.MaintenanceWindow.StartTime) {
			return hostsOwn(f)
		}
	}
	w.Errorf("%s sees the answer %s for %s, which it never was for that window", c.name, f.MaintenanceWindow.Answer, s.Name)
	return hostsOwn(f)
}

func shownFields(f computev1alpha1.HostFields) string {
	if f.HostStatus == nil {
		return "nothing"
	}
	out := fmt.Sprintf("%s since %s", *f.HostStatus, f.HostStatusTransitionTime.Format(time.TimeOnly))
	if f.MaintenanceWindow != nil {
		out += fmt.Sprintf(", mark %d, answer %q", f.MaintenanceWindow.StartTime.Unix(), f.MaintenanceWindow.Answer)
	}
	for _, change := range f.HostHistory {
		out += fmt.Sprintf(", %s since %s", *change.HostStatus, change.Since.Format(time.TimeOnly))
	}
	return out
}

// settle lets everything come to its end, and judges what the clients have.
func (w *joinWorld) settle() {
	w.note("the end")
	for again := true; again; {
		again = false
		for _, name := range joinServers {
			again = w.copy(name) || again
		}
	}
	w.version++
	for i := range w.replicas {
		w.hearAll(i)
		w.bookmark(i)
		w.hearAll(i)
	}
	for _, c := range w.clients {
		w.watch(c)
	}
	time.Sleep(2 * recheckInterval)
	synctest.Wait()
	for _, c := range w.clients {
		w.receive(c)
		for _, name := range joinServers {
			got, ok := c.seen[name]
			server := w.servers[name]
			if ok != (server != nil) {
				w.Errorf("%s has %s: %t, which exists: %t", c.name, name, ok, server != nil)
			}
			if !ok || server == nil {
				continue
			}
			want := computev1alpha1.HostFields{}
			if c.grant.shows(server.Status.HostStatus) {
				want = server.Status.HostFields
			}
			if c.grant == grantUnknown && len(want.HostHistory) > 1 {
				want.HostHistory = want.HostHistory[:1]
			}
			if got.Status.TaskState != server.Status.TaskState || shownFields(got.Status.HostFields) != shownFields(want) {
				w.Errorf("%s ends with %s %s: %s, want %s: %s", c.name, name, got.Status.TaskState, shownFields(got.Status.HostFields), server.Status.TaskState, shownFields(want))
			}
		}
	}
}
