// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/chaos/judge"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// replica is one of two replicas of the owners' view, which reaches the API server through
// a proxy of its own.
type replica struct {
	name    string
	port    string
	process *controlplane.Process
	proxy   *proxy
	// client is how owners reach it, without kube-apiserver, which would choose a replica.
	client *http.Client
}

// seenServer is what owners look at of a server, or of the error that ends a watch. There are
// many of them, on a machine that has other things to do.
type seenServer struct {
	Metadata struct{ Namespace, Name, ResourceVersion string }
	Status   struct {
		TaskState                string
		HostStatus               *v1alpha1.HostStatus
		HostStatusTransitionTime *metav1.Time
	}
	Code int
}

// seenEvent is one of a watch, and seenList a list.
type seenEvent struct {
	Type   watch.EventType
	Object seenServer
}

type seenList struct {
	Metadata struct{ ResourceVersion string }
	Items    []seenServer
}

// errExpired is the answer to a resourceVersion that is too old.
var errExpired = errors.New("the resourceVersion is too old")

// get asks the replica for servers, and hands the body of the answer to read.
func (r *replica) get(ctx context.Context, query string, read func(*json.Decoder) error) error {
	url := "https://127.0.0.1:" + r.port + "/apis/tenant.hoststatus.dev/v1alpha1/servers?" + query
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
		return read(json.NewDecoder(response.Body))
	case http.StatusGone:
		return errExpired
	default:
		return fmt.Errorf("%s answers %s", r.name, response.Status)
	}
}

// owner is a client of the view, which may see everything. It lists once, and then watches,
// from where it was whenever a watch ends.
type owner struct {
	name     string
	replicas []*replica
	// moves says that it goes to the other replica now and then, and takes with it the
	// resourceVersion that it was given.
	moves bool

	mu sync.Mutex
	// at is the replica that it is at, and leave ends its watch there.
	at    int
	leave context.CancelFunc
	// held says that it moves only when it is told to.
	held bool
	// relist says that it lists before it watches again.
	relist bool
	shown  map[types.NamespacedName]shown
	// newest is the latest hostStatusTransitionTime of each server that it was shown since it
	// came to the replica.
	newest   map[types.NamespacedName]time.Time
	findings []judge.Finding
}

// shown is what an owner was shown last of a server.
type shown struct{ taskState, hostStatus string }

// startOwners starts the replicas, and owners of whom one stays at each of them, and two move.
func (w *world) startOwners(ctx context.Context) error {
	binary := filepath.Join(w.fleet.Dir, "bin", "tenant-apiserver")
	for i := range 2 {
		r, err := w.startReplica(fmt.Sprintf("owners-view-%d", i), binary)
		if err != nil {
			return err
		}
		w.replicas = append(w.replicas, r)
	}
	for i, r := range w.replicas {
		if err := r.ready(ctx); err != nil {
			return err
		}
		w.owners = append(w.owners,
			&owner{name: "the owner at " + r.name, replicas: w.replicas, at: i},
			&owner{name: fmt.Sprintf("the owner %d who moves", i), replicas: w.replicas, at: i, moves: true})
	}
	for _, o := range w.owners {
		go o.run(ctx)
	}
	return nil
}

func (w *world) startReplica(name, binary string) (*replica, error) {
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		return nil, err
	}
	r := &replica{name: name, port: ports[0]}
	if r.proxy, err = startProxy(w.fleet.Cluster); err != nil {
		return nil, err
	}
	if err := r.start(w, binary, ""); err != nil {
		return nil, err
	}
	// As kube-apiserver does, which vouches for the user.
	config := &rest.Config{
		TLSClientConfig: rest.TLSClientConfig{
			Insecure: true, // What is tested is not who answers.
			CertFile: filepath.Join(w.fleet.Cluster.Dir, "front-proxy-client.crt"),
			KeyFile:  filepath.Join(w.fleet.Cluster.Dir, "front-proxy-client.key"),
		},
		WrapTransport: func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(request *http.Request) (*http.Response, error) {
				request = request.Clone(request.Context())
				request.Header.Set("X-Remote-User", "owner-of-all")
				request.Header.Set("X-Remote-Group", "system:masters")
				return next.RoundTrip(request)
			})
		},
	}
	if r.client, err = rest.HTTPClientFor(config); err != nil {
		return nil, err
	}
	return r, nil
}

// start starts binary as the replica. suffix tells its logs apart.
func (r *replica) start(w *world, binary, suffix string) error {
	config, err := w.fleet.Cluster.ConfigFor(fleet.TenantAPIUser, fleet.TenantAPIGroups...)
	if err != nil {
		return err
	}
	r.process, err = w.newProcess(r.name+suffix, binary, r.proxy.via(config),
		"--lease-namespaces="+strings.Join(w.namespaces(), ","), "--bind-address=127.0.0.1", "--secure-port="+r.port, "--shutdown-delay=0s")
	if err != nil {
		return err
	}
	return r.process.Start()
}

func (r *replica) ready(ctx context.Context) error {
	return expect.Poll(ctx, recoveryLimit, func() error {
		return r.get(ctx, "limit=1", func(*json.Decoder) error { return nil })
	})
}

func (r *replica) stop() {
	r.process.Stop()
	r.proxy.stop()
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// run lets the owner look until ctx ends.
func (o *owner) run(ctx context.Context) {
	const pause = 50 * time.Millisecond
	resourceVersion, was := "", -1
	for ctx.Err() == nil {
		o.mu.Lock()
		at := o.at
		if at != was {
			o.newest, was = map[types.NamespacedName]time.Time{}, at
		}
		if o.relist {
			resourceVersion, o.relist = "", false
		}
		here, leave := context.WithCancel(ctx)
		o.leave = leave
		o.mu.Unlock()
		resourceVersion = o.follow(here, o.replicas[at], resourceVersion)
		leave()
		_ = letPass(ctx, pause)
	}
}

// follow looks from a resourceVersion on, "" for none, and returns that from which to go on.
func (o *owner) follow(ctx context.Context, r *replica, resourceVersion string) string {
	if resourceVersion == "" {
		var list seenList
		if err := r.get(ctx, "", func(d *json.Decoder) error { return d.Decode(&list) }); err != nil {
			return ""
		}
		o.replace(list.Items)
		resourceVersion = list.Metadata.ResourceVersion
	}
	if o.moves {
		wander := time.AfterFunc(4*time.Second+rand.N(6*time.Second), o.wander)
		defer wander.Stop()
	}
	err := r.get(ctx, "watch=true&allowWatchBookmarks=true&resourceVersion="+resourceVersion, func(events *json.Decoder) error {
		for {
			var e seenEvent
			if err := events.Decode(&e); err != nil {
				return err
			}
			switch e.Type {
			case watch.Error:
				if e.Object.Code == http.StatusGone {
					return errExpired
				}
				return fmt.Errorf("the watch ended with code %d", e.Object.Code)
			case watch.Bookmark:
			default:
				o.take(&e.Object, e.Type == watch.Deleted)
			}
			resourceVersion = e.Object.Metadata.ResourceVersion
		}
	})
	if errors.Is(err, errExpired) {
		return ""
	}
	return resourceVersion
}

func (o *owner) replace(servers []seenServer) {
	o.mu.Lock()
	o.shown = map[types.NamespacedName]shown{}
	o.mu.Unlock()
	for i := range servers {
		o.take(&servers[i], false)
	}
}

// take takes what the owner is shown of a server. A host status that is older than what it
// was shown before, at the same replica, is a finding.
func (o *owner) take(server *seenServer, gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := types.NamespacedName{Namespace: server.Metadata.Namespace, Name: server.Metadata.Name}
	if gone {
		delete(o.shown, key)
		return
	}
	if o.shown == nil {
		return // It is about to list.
	}
	o.shown[key] = shown{taskState: server.Status.TaskState, hostStatus: strings.Trim(fleet.Show(server.Status.HostStatus), `"`)}
	since := server.Status.HostStatusTransitionTime
	switch newest := o.newest[key]; {
	case since == nil:
	case since.Time.Before(newest):
		o.findings = append(o.findings, judge.Finding{Kind: judge.FalseState, At: time.Now(), What: fmt.Sprintf(
			"%s was shown %s as %s since %s, after something that holds since %s", o.name, key, o.shown[key].hostStatus, since.UTC().Format(time.TimeOnly), newest.UTC().Format(time.TimeOnly))})
	default:
		o.newest[key] = since.Time
	}
}

// wander takes the owner to the other replica, unless it is held.
func (o *owner) wander() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.held {
		o.moveLocked()
	}
}

// move takes the owner to the other replica.
func (o *owner) move() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.moveLocked()
}

func (o *owner) moveLocked() {
	o.at = (o.at + 1) % len(o.replicas)
	if o.leave != nil {
		o.leave()
	}
}

// startOver lets the owner forget what it was shown, and list.
func (o *owner) startOver() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.relist, o.shown, o.newest = true, nil, map[types.NamespacedName]time.Time{}
	if o.leave != nil {
		o.leave()
	}
}

// hold lets the owners who move do so only when they are told to, and takes them to one
// replica. release undoes that.
func (w *world) hold(at *replica) (release func()) {
	set := func(held bool) {
		for _, o := range w.owners {
			o.mu.Lock()
			o.held = held
			if held && o.moves && o.replicas[o.at] != at {
				o.moveLocked()
			}
			o.mu.Unlock()
		}
	}
	set(true)
	return func() { set(false) }
}

// wrongForOwners returns what owners are shown that is not so, and of how many servers. want
// has the host status of each host.
func (w *world) wrongForOwners(servers []v1alpha1.Server, want map[string]string) (n int, example string) {
	for _, o := range w.owners {
		o.mu.Lock()
		for i := range servers {
			s := &servers[i]
			if want[s.Spec.Host] == "" {
				continue
			}
			right := shown{taskState: s.Status.TaskState, hostStatus: want[s.Spec.Host]}
			if got, ok := o.shown[client.ObjectKeyFromObject(s)]; !ok || got != right {
				n++
				example = fmt.Sprintf("%s is shown %s/%s as %+v, and it is %+v", o.name, s.Namespace, s.Name, got, right)
			}
		}
		o.mu.Unlock()
	}
	return n, example
}

// ownersFindings are those since begin.
func (w *world) ownersFindings(begin time.Time) (findings []judge.Finding) {
	for _, o := range w.owners {
		o.mu.Lock()
		for _, f := range o.findings {
			if !f.At.Before(begin) {
				findings = append(findings, f)
			}
		}
		o.mu.Unlock()
	}
	return findings
}

// The watches of a replica of the owners' view, as the proxy takes them.
const (
	watchOfServers = "/compute.hoststatus.dev/v1alpha1/servers"
	watchOfHosts   = "/compute.hoststatus.dev/v1alpha1/computeservices"
)

// splitViews lets the replicas of the owners' view know different things: while one of the
// watches of one of them is stalled, a server changes, then a host, and the leader is killed
// between the write of the host and most of the copies, of which nobody is told. Meanwhile
// owners move from that replica to the other, and some of them come back.
func splitViews(stalled ...string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, r *rand.Rand) error {
		for _, i := range r.Perm(len(stalled)) {
			if err := w.splitOnce(ctx, r, stalled[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

func (w *world) splitOnce(ctx context.Context, r *rand.Rand, stalled string) error {
	behind := w.replicas[r.IntN(len(w.replicas))]
	defer w.hold(behind)()
	leader, err := w.leader(ctx)
	if err != nil {
		return err
	}
	if err := letPass(ctx, between(r, 300*time.Millisecond, time.Second)); err != nil { // They arrive.
		return err
	}
	defer behind.proxy.stall(stalled)()
	if err := w.touch(ctx, bigHost, 200, 205); err != nil {
		return err
	}
	before := w.seen.changes(bigHost)
	if err := w.set(ctx, bigHost, fmt.Sprintf(`{"spec":{"forcedDown":%t}}`, w.seen.last(bigHost) != "DOWN")); err != nil {
		return err
	}
	if err := expect.Poll(ctx, recoveryLimit, func() error {
		if w.seen.changes(bigHost) == before {
			return fmt.Errorf("the host status of %s does not follow forcedDown", bigHost)
		}
		return nil
	}); err != nil {
		return err
	}
	leader.process.Kill()
	if err := w.touch(ctx, bigHost, 205, 210); err != nil {
		return err
	}
	if err := letPass(ctx, between(r, 300*time.Millisecond, time.Second)); err != nil { // They hear of it.
		return err
	}
	var returning []*owner
	for _, o := range w.owners {
		if o.moves {
			o.move()
			returning = append(returning, o)
		}
	}
	if err := letPass(ctx, between(r, time.Second, 3*time.Second)); err != nil {
		return err
	}
	returning[r.IntN(len(returning))].move()
	_, err = w.leader(ctx)
	return err
}

// touch changes the task state of the servers from, up to to, of a host.
func (w *world) touch(ctx context.Context, host string, from, to int) error {
	var servers []*v1alpha1.Server
	for i := from; i < to; i++ {
		servers = append(servers, &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("%s-%03d", host, i)}})
	}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"status":{"taskState":"touched-%d"}}`, w.measured.Add(1)))
	return inParallel(servers, func(s *v1alpha1.Server) error {
		return retried(ctx, func(ctx context.Context) error { return w.fleet.Client.Status().Patch(ctx, s, patch) })
	})
}

// The owners notice a view without one of the rules of the join.
func TestABrokenOwnersViewIsNoticed(t *testing.T) {
	if *duration == 0 {
		t.Skip("part of the long form only: in the short one, the unit tests find the same mutants")
	}
	w, ctx := sharedWorld(t), t.Context()
	replace := func(suffix, binary string) {
		t.Helper()
		for _, r := range w.replicas {
			r.process.Stop()
			expect.NoError(t, r.start(w, binary, suffix))
		}
		for _, r := range w.replicas {
			expect.NoError(t, r.ready(ctx))
		}
		for _, o := range w.owners {
			o.startOver()
		}
		expect.NoError(t, w.settle(ctx, recoveryLimit))
	}
	defer replace("", filepath.Join(w.fleet.Dir, "bin", "tenant-apiserver"))
	for _, m := range joinMutants {
		if m.stalled == "" {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			binary, err := m.buildCommand(ctx, "./cmd/tenant-apiserver", w.fleet.Dir)
			expect.NoError(t, err)
			replace("-"+m.name, binary)
			out, err := inject(ctx, w, m.name, rand.New(rand.NewPCG(*seed, 2)), fault{run: splitViews(m.stalled, m.stalled)})
			expect.NoError(t, err)
			t.Logf("noticed: %d wrong, findings %v", out.wrong, out.findings)
			// Of this run alone: a finding of an earlier one is not this mutant's.
			noticed := slices.ContainsFunc(out.findings, func(f judge.Finding) bool { return f.Kind == judge.FalseState })
			if out.wrong == 0 && !noticed {
				t.Errorf("a view without the rule %q was not noticed", m.rule)
			}
		})
	}
}
