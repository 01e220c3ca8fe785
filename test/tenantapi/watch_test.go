// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

func TestAGrantAndItsRevocationReachARunningWatchWithin10Seconds(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusDown))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	rv := p.list(t, namespace, "").ResourceVersion
	w := p.watch(t, namespace, "resourceVersion="+rv, "")
	table := p.watch(t, namespace, "resourceVersion="+rv, acceptTable)

	unbind := bind(t, p, statusViewer, namespace)
	e := w.next(t, limit)
	if s := e.server(t); e.Type != "MODIFIED" || s.Status.HostStatus == nil || *s.Status.HostStatus != computev1alpha1.HostStatusDown {
		t.Errorf("the grant delivers %s %s", e.Type, e.Object)
	}
	checkColumns(t, table.next(t, limit), true)

	selecting := p.watch(t, namespace, "fieldSelector=status.hostStatus%3DDOWN&resourceVersion="+rv, "")
	unbind()
	e = w.next(t, limit)
	if e.Type != "MODIFIED" {
		t.Errorf("the revocation delivers %s", e.Type)
	}
	checkFields(t, "web", string(e.Object), false)
	checkColumns(t, table.next(t, limit), false)
	e = selecting.next(t, limit)
	if status := statusOf(t, e); e.Type != "ERROR" || status.Code != http.StatusGone {
		t.Errorf("a watch that selects by what was revoked gets %s %s", e.Type, e.Object)
	}
}

func statusOf(t testing.TB, e event) *metav1.Status {
	t.Helper()
	s := &metav1.Status{}
	expect.NoError(t, json.Unmarshal(e.Object, s))
	return s
}

func checkColumns(t *testing.T, e event, want bool) {
	t.Helper()
	table := &metav1.Table{}
	expect.NoError(t, json.Unmarshal(e.Object, table))
	got := false
	for _, c := range table.ColumnDefinitions {
		got = got || c.Name == "Host Status"
	}
	if len(table.ColumnDefinitions) == 0 || got != want || len(table.Rows[0].Cells) != len(table.ColumnDefinitions) {
		t.Errorf("the table has the column: %t, want %t, in %s", got, want, e.Object)
	}
}

func TestKubectlGetWatchShowsTheColumnWhenItIsGranted(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusDown))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	path := filepath.Join(env.dir, p.name+".kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(path, p.config))
	cmd := env.kubectl(t.Context(), "get", "servers", "-n", namespace, "-w")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+path, "HOME="+env.dir)
	out, err := cmd.StdoutPipe()
	expect.NoError(t, err)
	expect.NoError(t, cmd.Start())
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	check := func(what string, good func(string) bool) {
		t.Helper()
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("kubectl ended before %s", what)
				}
				if good(line) {
					return
				}
			case <-time.After(limit):
				t.Fatalf("no line with %s", what)
			}
		}
	}
	check("the server", func(l string) bool { return strings.HasPrefix(l, "web") && !strings.Contains(l, "DOWN") })
	unbind := bind(t, p, statusViewer, namespace)
	check("the column", func(l string) bool { return strings.Contains(l, "HOST STATUS") })
	check("the host status", func(l string) bool { return strings.HasPrefix(l, "web") && strings.Contains(l, "DOWN") })
	unbind()
	check("a table without the column", func(l string) bool {
		return strings.HasPrefix(l, "NAME") && !strings.Contains(l, "HOST STATUS")
	})
	expect.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

func TestAGrantByNameBehavesAsInKubernetes(t *testing.T) {
	namespace := newNamespace(t)
	for _, name := range []string{"mine", "other"} {
		putServer(t, namespace, name, "host-1", withHostStatus(computev1alpha1.HostStatusUnknown))
	}
	for subresource, want := range map[string]bool{"servers/status": true, "servers/unknownstatus": true} {
		t.Run(subresource, func(t *testing.T) {
			p := newPerson(t)
			bind(t, p, viewer, namespace)
			role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: namespace}, Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{v1alpha1.SchemeGroupVersion.Group}, Resources: []string{subresource}, ResourceNames: []string{"mine"}, Verbs: []string{"get"},
			}}}
			expect.NoError(t, env.admin.Create(t.Context(), role))
			expect.NoError(t, env.admin.Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: namespace},
				RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: p.name},
				Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: p.name}}}))
			expect.Eventually(t, limit, func() error {
				if got := p.server(t, namespace, "mine").Status.HostStatus != nil; got != want {
					return fmt.Errorf("a get of the server shows host status: %t", got)
				}
				return nil
			})
			if p.server(t, namespace, "other").Status.HostStatus != nil {
				t.Error("a get of another server shows its host status")
			}
			for _, s := range p.list(t, namespace, "").Items {
				if s.Status.HostStatus != nil {
					t.Errorf("a list shows the host status of %s", s.Name)
				}
			}
			for _, s := range p.list(t, namespace, "fieldSelector=metadata.name%3Dmine").Items {
				if s.Status.HostStatus == nil {
					t.Error("a list of one name, which is authorized as that name, shows no host status")
				}
			}
		})
	}
}

func TestAThousandNamespacesWithAGrantInHalfOfThem(t *testing.T) {
	const namespaces = 1000
	// Two users of one group: when the second asks, nothing is remembered.
	group := fmt.Sprintf("group-%d", env.users.Add(1))
	p, fresh := newPerson(t, group), newPerson(t, group)
	bind(t, p, viewer, "")
	bind(t, fresh, viewer, "")
	granted := map[string]bool{}
	var mu sync.Mutex
	var making sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range namespaces {
		slots <- struct{}{}
		making.Go(func() {
			defer func() { <-slots }()
			namespace := newNamespace(t)
			putServer(t, namespace, "web", "host", withHostStatus(computev1alpha1.HostStatusUp))
			if i%2 == 0 {
				expect.NoError(t, env.admin.Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: namespace},
					RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: statusViewer},
					Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: group}}}))
			}
			mu.Lock()
			defer mu.Unlock()
			granted[namespace] = i%2 == 0
		})
	}
	making.Wait()
	check := func(p *person) error {
		seen := 0
		for _, s := range p.list(t, "", "").Items {
			want, mine := granted[s.Namespace]
			if !mine {
				continue
			}
			seen++
			if got := s.Status.HostStatus != nil; got != want {
				return fmt.Errorf("a server in %s shows its host status: %t, want %t", s.Namespace, got, want)
			}
		}
		if seen != namespaces {
			return fmt.Errorf("%d servers, want %d", seen, namespaces)
		}
		return nil
	}
	expect.Eventually(t, limit, func() error { return check(p) }) // kube-apiserver learns of role bindings by a watch.
	begin := time.Now()
	expect.NoError(t, check(fresh))
	took, bare := time.Since(begin), reviews(t, p.name, slices.Collect(maps.Keys(granted)))
	t.Logf("a list that asks for %d grants took %s; a bare client's reviews of them took %s", namespaces, took, bare)
	// A client-side limit of 200/s would take 7 s. The list asks more than the reviews: for
	// the half without a grant a second time, and for the servers.
	if took > max(4*time.Second, 6*bare) {
		t.Errorf("a list that asks for %d grants took %s, and a bare client's reviews %s", namespaces, took, bare)
	}
}

// reviews asks kube-apiserver for the grants of a user in namespaces, several at a time, and
// returns how long that took.
func reviews(t *testing.T, user string, namespaces []string) time.Duration {
	t.Helper()
	begin := time.Now()
	var asking sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, namespace := range namespaces {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: "get", Group: v1alpha1.SchemeGroupVersion.Group, Resource: "servers", Subresource: "status",
			}}}
			if err := env.admin.Create(t.Context(), review); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	return time.Since(begin)
}

// Both informers go through the same at the same time, because each waits long.
func TestAnInformerFollowsThroughRestartsAndBrokenConnections(t *testing.T) {
	namespace := newNamespace(t)
	s := putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	bind(t, p, statusViewer, namespace)
	c, err := dynamic.NewForConfig(p.config)
	expect.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stores := map[string]cache.Store{}
	for name, watchList := range map[string]bool{"with WatchList": true, "with list and watch": false} {
		t.Run(name, func(t *testing.T) { // What it sets is read when the informer starts.
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, watchList)
			factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(c, 0, namespace, nil)
			informer := factory.ForResource(v1alpha1.SchemeGroupVersion.WithResource("servers")).Informer()
			factory.Start(ctx.Done())
			if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
				t.Fatal("the informer does not sync")
			}
			stores[name] = informer.GetStore()
		})
	}
	both := func(check func(cache.Store) error) func() error {
		return func() error {
			var errs []error
			for name, store := range stores {
				if err := check(store); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
				}
			}
			return errors.Join(errs...)
		}
	}
	have := func(want string) func() error {
		return both(func(store cache.Store) error {
			object, ok, err := store.GetByKey(namespace + "/web")
			if err != nil || !ok {
				return fmt.Errorf("the store has the server: %t, %w", ok, err)
			}
			if got, _, _ := unstructured.NestedString(object.(*unstructured.Unstructured).Object, "status", "hostStatus"); got != want {
				return fmt.Errorf("host status %q, want %q", got, want)
			}
			return nil
		})
	}
	expect.Eventually(t, limit, have("UP"))
	set := func(status computev1alpha1.HostStatus) {
		update(t, s, func(s *computev1alpha1.Server) { setHostFields(s, status) })
	}
	set(computev1alpha1.HostStatusDown)
	expect.Eventually(t, limit, have("DOWN"))
	env.balancer.drop()
	set(computev1alpha1.HostStatusMaintenance)
	// A client-go reflector waits for up to 30 s between attempts.
	expect.Eventually(t, 2*time.Minute, have("MAINTENANCE"))
	// A new process has no history, so the informers' place is gone: 410.
	restart(t, env.replicas[0])
	set(computev1alpha1.HostStatusUnknown)
	expect.Eventually(t, 2*time.Minute, have("UNKNOWN"))
	expect.NoError(t, env.admin.Delete(t.Context(), s))
	expect.Eventually(t, limit, both(func(store cache.Store) error {
		if n := len(store.ListKeys()); n != 0 {
			return fmt.Errorf("%d servers in the store", n)
		}
		return nil
	}))
}

func TestAWatchFromBeforeTheHistoryIsGone(t *testing.T) {
	namespace := newNamespace(t)
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	if a := p.get(t, pathOf(namespace)+"?watch=true&resourceVersion=1", ""); a.code != http.StatusGone {
		t.Errorf("answered %d: %s", a.code, a.body)
	}
}

func TestListsComeInChunksAndAWatchListEndsWithItsBookmark(t *testing.T) {
	namespace := newNamespace(t)
	for i := range 7 {
		putServer(t, namespace, fmt.Sprintf("web-%d", i), "host-1", func(s *computev1alpha1.Server) {
			if i%2 == 0 {
				s.Labels["app"] = "db"
			}
		})
	}
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	if out := p.mustKubectl(t, "get", "servers", "-n", namespace, "--chunk-size=2", "-o", "name"); strings.Count(out, "server.tenant.hoststatus.dev/web-") != 7 {
		t.Errorf("chunks of 2 make %s", out)
	}
	first := p.list(t, namespace, "limit=3")
	if len(first.Items) != 3 || first.Continue == "" || first.RemainingItemCount == nil || *first.RemainingItemCount != 4 {
		t.Errorf("the first chunk has %d servers, continue %q", len(first.Items), first.Continue)
	}
	if out := p.mustKubectl(t, "get", "servers", "-n", namespace, "-l", "app=db", "-o", "name"); strings.Count(out, "web-") != 4 {
		t.Errorf("a label selects %s", out)
	}
	w := p.watch(t, namespace, "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", "")
	for range 7 {
		if e := w.next(t, limit); e.Type != "ADDED" {
			t.Errorf("event %s, want ADDED", e.Type)
		}
	}
	e := w.next(t, limit)
	s := e.server(t)
	if e.Type != "BOOKMARK" || s.Annotations[metav1.InitialEventsAnnotationKey] != "true" || s.ResourceVersion == "" {
		t.Errorf("the list ends with %s %s", e.Type, e.Object)
	}
}

func TestAChunkIsAsOldAsItsListEvenAfterARestart(t *testing.T) {
	namespace := newNamespace(t)
	var servers []*computev1alpha1.Server
	for i := range 4 {
		servers = append(servers, putServer(t, namespace, fmt.Sprintf("web-%d", i), "host-1"))
	}
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	first := p.list(t, namespace, "limit=2")
	before := servers[3].ResourceVersion
	update(t, servers[3], func(s *computev1alpha1.Server) { s.Status.State = "SHUTOFF" })
	expect.NoError(t, env.admin.Delete(t.Context(), servers[2]))
	// A process that was not there then has none of these versions.
	restart(t, env.replicas[0])
	rest := p.list(t, namespace, "limit=2&continue="+first.Continue)
	if len(rest.Items) != 2 || rest.Items[1].Status.State != "ACTIVE" || rest.Items[1].ResourceVersion != before || rest.ResourceVersion != first.ResourceVersion {
		t.Errorf("the chunk is not as of its list %s: %+v", first.ResourceVersion, rest)
	}
}

func TestKubectlWaitsForAHostStatusAndSaysWhatAUserMayDo(t *testing.T) {
	namespace := newNamespace(t)
	s := putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	expect.NoError(t, p.may(t, namespace, "status", false))
	expect.NoError(t, p.may(t, namespace, "", true))
	bind(t, p, statusViewer, namespace)
	expect.NoError(t, p.may(t, namespace, "status", true))
	// The verdict before may hold for 2 s more.
	expect.Eventually(t, limit, func() error {
		if p.server(t, namespace, "web").Status.HostStatus == nil {
			return fmt.Errorf("no host status")
		}
		return nil
	})
	done := make(chan error, 1)
	go func() {
		out, err := p.kubectl(t, "wait", "server/web", "-n", namespace, "--for=jsonpath={.status.hostStatus}=DOWN", "--timeout=20s")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	update(t, s, func(s *computev1alpha1.Server) { setHostFields(s, computev1alpha1.HostStatusDown) })
	expect.NoError(t, <-done)
}

func TestTwoReplicasAnswerAlikeAndAWatchOnOneFollowsAListOnTheOther(t *testing.T) {
	second, err := env.newReplica("tenant-apiserver-1")
	expect.NoError(t, err)
	t.Cleanup(func() {
		env.balancer.use(env.replicas[0])
		second.Stop()
		env.balancer.drop()
		waitReady(t, env.replicas[0])
	})
	env.balancer.use(second)
	env.balancer.drop()
	waitReady(t, second)

	namespace := newNamespace(t)
	s := putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	bind(t, p, statusViewer, namespace)
	on := func(r *replica) {
		env.balancer.use(r)
		env.balancer.drop()
		expect.Eventually(t, limit, func() error {
			if a, err := p.try(t.Context(), pathOf(namespace, "web"), ""); err != nil || a.code != http.StatusOK {
				return fmt.Errorf("%d %w", a.code, err)
			}
			return nil
		})
	}
	for round := range 5 {
		on(second)
		list := p.list(t, namespace, "")
		if round%2 == 0 {
			update(t, s, func(s *computev1alpha1.Server) { setHostFields(s, computev1alpha1.HostStatusDown) })
		} else {
			update(t, s, func(s *computev1alpha1.Server) { setHostFields(s, computev1alpha1.HostStatusUp) })
		}
		on(env.replicas[0])
		w := p.watch(t, namespace, "resourceVersion="+list.ResourceVersion, "")
		e := w.next(t, limit)
		if e.Type != "MODIFIED" || e.server(t).ResourceVersion != s.ResourceVersion {
			t.Errorf("round %d: the watch begins with %s %s", round, e.Type, e.Object)
		}
		w.cancel()
		here := string(p.get(t, pathOf(namespace, "web"), "").body)
		on(second)
		if there := string(p.get(t, pathOf(namespace, "web"), "").body); here != there {
			t.Errorf("the replicas answer\n%s\n%s", here, there)
		}
	}
}

func TestAGetAndAListAfterAWriteSeeTheWrite(t *testing.T) {
	namespace := newNamespace(t)
	s := putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusUp))
	p := administrator(t)
	for i := range 20 {
		update(t, s, func(s *computev1alpha1.Server) { s.Status.TaskState = fmt.Sprintf("task-%d", i) })
		list := p.list(t, namespace, "")
		if got := list.Items[0]; got.ResourceVersion != s.ResourceVersion || got.Status.TaskState != s.Status.TaskState {
			t.Errorf("a list after write %d has %s", i, got.Status.TaskState)
		}
		if got := p.server(t, namespace, "web"); got.ResourceVersion != s.ResourceVersion {
			t.Errorf("a get after write %d has %s", i, got.Status.TaskState)
		}
	}
}

func TestANamespaceWithServersCanBeDeleted(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", "host-1")
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	expect.NoError(t, env.admin.Delete(t.Context(), object))
	expect.Eventually(t, patience, func() error {
		if err := env.admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err == nil {
			return fmt.Errorf("the namespace is still there: %v", object.Status.Conditions)
		}
		return nil
	})
}

// A watch that is closed leaves nothing behind in the server.
func TestClosedWatchesKeepNoGoroutine(t *testing.T) {
	const watches, atOnce, slack = 500, 50, 50
	namespace := newNamespace(t)
	putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, viewer, namespace)
	bind(t, p, statusViewer, namespace)
	admin, err := env.cluster.AdminConfig()
	expect.NoError(t, err)
	goroutines := func() int {
		code, metrics := askReplica(t, admin, "/metrics")
		for line := range strings.Lines(metrics) {
			if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
				n, err := strconv.Atoi(strings.TrimSpace(value))
				expect.NoError(t, err)
				return n
			}
		}
		t.Fatalf("/metrics is answered %d, without go_goroutines", code)
		return 0
	}
	before := goroutines()
	most := 0
	for range watches / atOnce {
		open := make([]*stream, atOnce)
		for i := range open {
			open[i] = p.watch(t, namespace, "", "")
		}
		for _, w := range open {
			w.next(t, 10*time.Second)
		}
		most = max(most, goroutines())
		for _, w := range open {
			w.cancel()
		}
	}
	after := 0
	expect.Eventually(t, patience, func() error {
		if after = goroutines(); after > before+slack {
			return fmt.Errorf("%d goroutines, before %d watches came and went %d", after, watches, before)
		}
		return nil
	})
	if most < before+atOnce {
		t.Errorf("%d goroutines with %d watches open, %d before: the count tells nothing", most, atOnce, before)
	}
	t.Logf("%d goroutines before, %d at most, %d after", before, most, after)
}
