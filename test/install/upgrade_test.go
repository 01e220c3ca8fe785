// SPDX-License-Identifier: Apache-2.0

package install

import (
	gocmp "cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// previousRelease is the commit of the release that people upgrade from: 0.1.0. With
// each release it becomes that one's.
const previousRelease = "75e3c857abd064322e8767a717438e46f733a36d"

// previous unpacks the sources of previousRelease, and builds them into a folder of the
// repository that is kept: Go does not link again what is up to date there.
func previous(t *testing.T) (tree, bin string) {
	t.Helper()
	root, err := root()
	expect.NoError(t, err)
	if out, err := exec.Command("git", "-C", root, "cat-file", "-e", previousRelease+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: how to upgrade from the previous release. Its commit %s is not in this clone; get it by: git fetch --unshallow\n%s", previousRelease, out)
	}
	tree, bin = filepath.Join(scratch, "previous"), filepath.Join(root, "bin", "previous-"+previousRelease)
	expect.NoError(t, os.MkdirAll(tree, 0o755))
	archive := filepath.Join(scratch, "previous.tar")
	for _, cmd := range []*exec.Cmd{
		exec.Command("git", "-C", root, "archive", "--output="+archive, previousRelease),
		exec.Command("tar", "-xf", archive, "-C", tree),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("unpacking the previous release: %v\n%s", err, out)
		}
	}
	// As hack/build-static.sh does, so that what did not change is not compiled twice.
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s", "-o", bin+"/", "./cmd/...")
	build.Dir = tree
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the previous release: %v\n%s", err, out)
	}
	return tree, bin
}

// upgradable runs the binaries that a link leads to. They can be replaced by those of
// another release.
type upgradable struct {
	link string
	// tree holds the manifests that are installed first.
	tree string

	webhookPort, tenantAPIPort string
	// standby is the manager beside the fleet's own.
	standby *controlplane.Process
}

// Install implements fleet.Installation.
func (u *upgradable) Install(ctx context.Context, f *fleet.Fleet, webhookPort, tenantAPIPort string) error {
	u.webhookPort, u.tenantAPIPort = webhookPort, tenantAPIPort
	return u.apply(ctx, f, u.tree)
}

// apply applies the manifests of a release. The CRDs come first in them.
func (u *upgradable) apply(ctx context.Context, f *fleet.Fleet, tree string) error {
	defaults := filepath.Join(f.Dir, "default")
	if err := fleet.DefaultManifests(tree, defaults, u.webhookPort); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(tree, "config", "crd"), defaults, filepath.Join(tree, "config", "node-leases")} {
		if err := f.Apply(ctx, dir); err != nil {
			return err
		}
	}
	return f.RegisterTenantAPI(ctx, tree, u.tenantAPIPort)
}

// Process implements fleet.Installation.
func (u *upgradable) Process(f *fleet.Fleet, c fleet.Command) (*controlplane.Process, error) {
	return f.NewProcess(filepath.Join(u.link, c.Binary), c)
}

// use lets what is started from now on be of bin.
func (u *upgradable) use(bin string) error {
	if err := os.Symlink(bin, u.link+".new"); err != nil {
		return err
	}
	return os.Rename(u.link+".new", u.link)
}

// replace replaces all processes by those of bin, one after the other, as a rolling
// update does: a new manager stands by when the present one ends.
func (u *upgradable) replace(t *testing.T, f *fleet.Fleet, bin string) {
	t.Helper()
	expect.NoError(t, u.use(bin))
	standby, _, err := f.StartManager("manager-" + filepath.Base(bin))
	expect.NoError(t, err)
	f.Manager.Stop()
	if u.standby != nil {
		u.standby.Stop()
	}
	u.standby = standby
	f.TenantAPI.Stop()
	expect.NoError(t, f.TenantAPI.Start())
	for _, host := range fleet.Hosts {
		f.Agents[host].Stop()
		expect.NoError(t, f.StartAgent(host))
	}
	expect.NoError(t, f.WaitForTenantAPI(t.Context()))
	expect.Eventually(t, patience, func() error {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", f.Manager.Pid()))
		if err == nil && filepath.Dir(program) != bin {
			err = fmt.Errorf("the manager is %s", program)
		}
		return err
	})
}

func TestTheWayToAReleaseAndBackLosesNothingAndSaysNothingFalse(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what needs a control plane")
	}
	tree, before := previous(t)
	built, err := binaries()
	expect.NoError(t, err)
	after := mirroring(t, built)
	here, err := root()
	expect.NoError(t, err)
	u := &upgradable{link: filepath.Join(scratch, "current"), tree: tree}
	expect.NoError(t, u.use(before))
	f, err := fleet.Start(t.Context(), fleet.Options{
		Dir: filepath.Join(scratch, "upgrade"), LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: t.Output(), Installation: u,
	})
	expect.NoError(t, err)
	t.Cleanup(f.Stop)
	t.Cleanup(func() {
		if u.standby != nil {
			u.standby.Stop()
		}
	})
	createEveryStatus(t, f)
	added := newAdditions(t, f)
	t.Cleanup(func() {
		if added.notifier != nil {
			added.notifier.Stop()
		}
	})
	had := snapshot(t, f)
	answered := map[string]v1alpha1.AnswerState{}
	led := watchLeaders(t, f)

	for _, step := range []struct {
		name, tree, bin string
		// made is what there is only after the step, and next is called after it. What that
		// changes is no fault of the next step.
		made []string
		next func(t *testing.T)
		// changed are servers of which nova-api answers otherwise than before, and resolved
		// alerts that do not hold any more.
		changed, resolved []string
	}{
		{name: "the upgrade", tree: here, bin: after, made: mirrored(), next: added.giveTime},
		// The manifests, and so the CRDs, stay those of the newer release.
		{name: "the way back", bin: before, next: added.meanwhile},
		{name: "the upgrade once more", bin: after, made: []string{"Server " + tenant + "/" + nodeMoved},
			changed: []string{"db-2", repaired, nodeMoved, nodeGone}, resolved: []string{tenant + "/" + nodeMoved + " MAINTENANCE", tenant + "/" + repaired + " DOWN"}},
	} {
		t.Run(step.name, func(t *testing.T) {
			said := newRecord(t, f, had)
			if step.tree != "" {
				expect.NoError(t, u.apply(t.Context(), f, step.tree))
			}
			if step.bin == after {
				expect.NoError(t, u.use(after))
				added.add(t, step.changed...)
			} else {
				added.remove(t)
			}
			u.replace(t, f, step.bin)
			if step.bin == after {
				// An owner who asks for a later time puts off no window of 0.1, which has no
				// latestStartTime, and closes none.
				answerTo(t, f, answered, windowAnnounced, windowOpen)
				if answered[windowMoved] == "" {
					answerTo(t, f, answered, windowMoved)
				}
				added.settled(t, step.next == nil)
			}
			observe(t, f)
			said.rests(t, f.LeaseDuration)
			has := snapshot(t, f)
			if step.bin == after {
				added.sentTheTruth(t, had, step.resolved...)
				added.novaAnswers(t, step.changed...)
			} else {
				added.areGone(t)
			}
			for _, name := range step.made {
				had[name] = has[name]
			}
			if diff := cmp.Diff(had, has); diff != "" {
				t.Errorf("%s has changed (-before +after):\n%s", step.name, diff)
			}
			led.check(t, step.name)
			windowsAreAsAnnounced(t, f, answered)
			if changes := said.changes(); len(changes) > 0 {
				t.Errorf("during %s statuses were\n%s", step.name, strings.Join(changes, "\n"))
			}
			said.stop()
			if step.next != nil {
				step.next(t)
				had = snapshot(t, f)
			}
			if step.bin == before {
				answered[windowMoved] = v1alpha1.AnswerStateStale // It was to the former window.
				// These follow once there is a mirror again.
				delete(had, "ComputeService "+nodeGone)
				delete(had, "Server "+tenant+"/"+nodeMoved)
			}
		})
	}

	t.Run("afterwards verdicts are given as ever", func(t *testing.T) {
		for _, down := range []bool{true, false} {
			want := v1alpha1.HostStatusUp
			if down {
				want = v1alpha1.HostStatusDown
			}
			service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "compute-2"}}
			expect.NoError(t, f.Client.Patch(t.Context(), service, client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"forcedDown":%v}}`, down))))
			expect.NoError(t, f.WaitFor(t.Context(), 10*time.Second, fleet.All(want, "compute-2")))
		}
	})
	t.Run("afterwards windows open and close as ever", func(t *testing.T) {
		for host, change := range map[string]struct {
			spec string
			want v1alpha1.HostStatus
		}{
			windowAnnounced: {fmt.Sprintf(`{"startTime":%q}`, time.Now().UTC().Format(time.RFC3339)), v1alpha1.HostStatusMaintenance},
			windowOpen:      {"null", v1alpha1.HostStatusUp},
		} {
			service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}}
			expect.NoError(t, f.Client.Patch(t.Context(), service, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"maintenanceWindow":`+change.spec+`}}`))))
			expect.NoError(t, f.WaitFor(t.Context(), patience, fleet.All(change.want, host)))
		}
	})
	if code := fleet.ReportCrashes(t.Output(), f.Dir); code != 0 {
		t.Error("a process has crashed")
	}
}

// Hosts whose windows were announced under the former release.
const (
	windowAnnounced  = "needs-maintenance"
	windowOpen       = "window-open"
	windowWithoutEnd = "window-without-end"
	// windowMoved is put off by the operator while the former release runs.
	windowMoved = "window-moved"
)

// repaired is a host that is DOWN, and up again while the former release runs.
const repaired = "repaired"

// answerTo lets the owners of the servers on hosts ask for a later time, and returns once
// that was taken in.
func answerTo(t *testing.T, f *fleet.Fleet, answered map[string]v1alpha1.AnswerState, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		service := &v1alpha1.ComputeService{}
		expect.NoError(t, f.Client.Get(t.Context(), client.ObjectKey{Name: host}, service))
		start := service.Spec.MaintenanceWindow.StartTime
		answer := &ownerv1alpha1.MaintenanceAnswer{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: host}}
		answer.Spec = ownerv1alpha1.MaintenanceAnswerSpec{Answer: ownerv1alpha1.AnswerNotBefore, WindowStartTime: start, NotBefore: ptr.To(metav1.NewTime(start.Add(90 * time.Minute)))}
		expect.NoError(t, client.IgnoreAlreadyExists(f.Client.Create(t.Context(), answer)))
		answered[host] = v1alpha1.AnswerState(answer.Spec.Answer)
		expect.Eventually(t, patience, func() error {
			server := &v1alpha1.Server{}
			expect.NoError(t, f.Client.Get(t.Context(), client.ObjectKeyFromObject(answer), server))
			if w := server.Status.MaintenanceWindow; w == nil || w.Answer != v1alpha1.AnswerStateNotBefore {
				return fmt.Errorf("the window of %s is %+v", host, w)
			}
			return nil
		})
	}
}

// windowsAreAsAnnounced checks what 0.2 adds to a window of 0.1, which then stays behind:
// when it opens, and what became of an answer; and that the history of a server knows of
// nothing but the present.
func windowsAreAsAnnounced(t *testing.T, f *fleet.Fleet, answered map[string]v1alpha1.AnswerState) {
	t.Helper()
	for _, host := range []string{windowAnnounced, windowMoved, windowOpen, windowWithoutEnd} {
		service, server := &v1alpha1.ComputeService{}, &v1alpha1.Server{}
		expect.NoError(t, f.Client.Get(t.Context(), client.ObjectKey{Name: host}, service))
		expect.NoError(t, f.Client.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: host}, server))
		start := service.Spec.MaintenanceWindow.StartTime
		if m := service.Status.Maintenance; m != nil && !m.OpensAt.Equal(start) {
			t.Errorf("%s opens at %s, and was announced for %s", host, m.OpensAt, start)
		}
		w := server.Status.MaintenanceWindow
		if w == nil || !w.StartTime.Equal(start) || w.OpensAt != nil && !w.OpensAt.Equal(start) {
			t.Errorf("the server on %s shows the window %+v, which was announced for %s", host, w, start)
		} else if w.Answer != "" && w.Answer != gocmp.Or(answered[host], v1alpha1.AnswerStateNone) {
			t.Errorf("the answer for the server on %s is %s", host, w.Answer)
		}
		if h := server.Status.HostHistory; len(h) > 1 || len(h) == 1 && !h[0].Since.Equal(server.Status.HostStatusTransitionTime) {
			t.Errorf("the server on %s has lived through %+v", host, h)
		}
	}
}

// leaders notes who holds the leader's Lease, in which namespace.
type leaders struct {
	mu      sync.Mutex
	holders map[string]string
	both    []string
	history []string
}

// watchLeaders watches the leader's Leases of all releases, by one watch, so that they
// come in the order in which they were written.
func watchLeaders(t *testing.T, f *fleet.Fleet) *leaders {
	t.Helper()
	config, err := f.Cluster.AdminConfig()
	expect.NoError(t, err)
	clients, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	stream, err := clients.CoordinationV1().Leases(metav1.NamespaceAll).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + v1alpha1.LeaderLeaseName})
	expect.NoError(t, err)
	l := &leaders{holders: map[string]string{}}
	var running sync.WaitGroup
	running.Go(func() {
		for event := range stream.ResultChan() {
			if lease, ok := event.Object.(*coordinationv1.Lease); ok {
				l.take(lease.Namespace, ptr.Deref(lease.Spec.HolderIdentity, ""))
			}
		}
	})
	t.Cleanup(func() {
		stream.Stop()
		running.Wait()
	})
	return l
}

func (l *leaders) take(namespace, holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holders[namespace] != holder {
		l.history = append(l.history, fmt.Sprintf("%s: %q", namespace, holder))
	}
	l.holders[namespace] = holder
	here, former := l.holders["hoststatus-system"], l.holders[v1alpha1.DefaultLeaseNamespace]
	if here != "" && former != "" && here != former {
		l.both = append(l.both, fmt.Sprintf("%q and %q", here, former))
	}
}

// check looks for two that could lead at once. All managers of these steps release what
// they hold before they end.
func (l *leaders) check(t *testing.T, step string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.both) > 0 {
		t.Errorf("during %s two managers held one Lease each: %q; who held which:\n%s", step, l.both, strings.Join(l.history, "\n"))
	}
	if former := l.holders[v1alpha1.DefaultLeaseNamespace]; former == "" {
		t.Errorf("after %s nobody holds the Lease that 0.1 knows:\n%s", step, strings.Join(l.history, "\n"))
	}
}

// createEveryStatus adds a host, and a server on it, for each status that the sample
// fleet does not have, and for windows that are open.
func createEveryStatus(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	window := func(start, end time.Duration) v1alpha1.ComputeServiceSpec {
		w := &v1alpha1.MaintenanceWindow{StartTime: ptr.To(metav1.NewTime(now.Add(start)))}
		if end != 0 {
			w.EndTime = ptr.To(metav1.NewTime(now.Add(end)))
		}
		// What needs maintenance has to report first: it shares compute-1's Lease.
		return v1alpha1.ComputeServiceSpec{MaintenanceWindow: w, LeaseRef: &v1alpha1.LeaseReference{Name: "compute-1"}}
	}
	for _, host := range []struct {
		name string
		want v1alpha1.HostStatus
		spec v1alpha1.ComputeServiceSpec
	}{
		{"down", v1alpha1.HostStatusDown, v1alpha1.ComputeServiceSpec{ForcedDown: ptr.To(true), ForcedDownReason: ptr.To("fenced")}},
		{"maintenance", v1alpha1.HostStatusMaintenance, v1alpha1.ComputeServiceSpec{Disabled: ptr.To(true), DisabledReason: ptr.To("new memory")}},
		{"unknown", v1alpha1.HostStatusUnknown, v1alpha1.ComputeServiceSpec{LeaseDurationSeconds: 3}},
		{windowAnnounced, v1alpha1.HostStatusNeedsMaintenance, window(time.Hour, 2*time.Hour)},
		{windowMoved, v1alpha1.HostStatusNeedsMaintenance, window(time.Hour, 2*time.Hour)},
		{windowOpen, v1alpha1.HostStatusMaintenance, window(-time.Hour, time.Hour)},
		{windowWithoutEnd, v1alpha1.HostStatusMaintenance, window(-time.Hour, 0)},
		{repaired, v1alpha1.HostStatusDown, v1alpha1.ComputeServiceSpec{ForcedDown: ptr.To(true), LeaseRef: &v1alpha1.LeaseReference{Name: "compute-1"}}},
	} {
		expect.NoError(t, f.Client.Create(t.Context(), &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host.name}, Spec: host.spec}))
		expect.NoError(t, f.Client.Create(t.Context(), &v1alpha1.Server{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: host.name}, Spec: v1alpha1.ServerSpec{Host: host.name},
		}))
		expect.NoError(t, f.WaitFor(t.Context(), time.Minute, fleet.All(host.want, host.name)))
	}
}

// observe waits for as long as it takes until a manager that had forgotten who
// reports, or that judged too early, would have said so.
func observe(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(2 * f.LeaseDuration):
	}
}

// snapshot returns what must not change, of every host and server.
func snapshot(t *testing.T, f *fleet.Fleet) map[string]any {
	t.Helper()
	all := map[string]any{}
	var services v1alpha1.ComputeServiceList
	expect.NoError(t, f.Client.List(t.Context(), &services))
	for _, s := range services.Items {
		s.Status.Report = nil      // Of 0.2; it comes with the agents, and stays behind.
		s.Status.Maintenance = nil // Of 0.2, too: see windowsAreAsAnnounced.
		if s.Spec.MaintenanceWindow != nil {
			s.Status.LastSeenUpTime = nil // As of the last write, which adds the former.
		}
		all["ComputeService "+s.Name] = []any{s.UID, s.Generation, s.Labels, s.Annotations, s.Spec, s.Status}
	}
	var servers v1alpha1.ServerList
	expect.NoError(t, f.Client.List(t.Context(), &servers))
	for _, s := range servers.Items {
		// Of 0.2; they come with the manager, and stay behind.
		s.Status.HostVersion, s.Status.HostHistory = "", nil
		if w := s.Status.MaintenanceWindow; w != nil {
			w.OpensAt, w.Answer = nil, ""
		}
		all["Server "+s.Namespace+"/"+s.Name] = []any{s.UID, s.Generation, s.Labels, s.Annotations, s.Spec, s.Status}
	}
	return all
}

// record notes every host status that is not the one that its object had at first.
type record struct {
	streams []watch.Interface
	done    sync.WaitGroup
	// had are the objects that it is about, by name.
	had map[string]any

	mu    sync.Mutex
	first map[string]string
	noted []string
	// last is when anything was written, and of which object.
	last   time.Time
	object string
}

func newRecord(t *testing.T, f *fleet.Fleet, had map[string]any) *record {
	t.Helper()
	config, err := f.Cluster.AdminConfig()
	expect.NoError(t, err)
	watcher, err := fleet.NewClient(config)
	expect.NoError(t, err)
	r := &record{had: maps.Clone(had), first: map[string]string{}}
	for _, list := range []client.ObjectList{&v1alpha1.ComputeServiceList{}, &v1alpha1.ServerList{}} {
		// Without a resourceVersion it begins with all that there is.
		stream, err := watcher.Watch(t.Context(), list)
		expect.NoError(t, err)
		r.streams = append(r.streams, stream)
		r.done.Go(func() {
			for event := range stream.ResultChan() {
				r.take(event)
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

func (r *record) stop() {
	for _, stream := range r.streams {
		stream.Stop()
	}
	r.done.Wait()
}

func (r *record) take(event watch.Event) {
	var name, status string
	switch obj := event.Object.(type) {
	case *v1alpha1.ComputeService:
		name, status = "ComputeService "+obj.Name, fleet.Show(obj.Status.HostStatus)
	case *v1alpha1.Server:
		name, status = "Server "+obj.Namespace+"/"+obj.Name, fleet.Show(obj.Status.HostStatus)
	default:
		name, status = "the watch", fmt.Sprintf("%s %v", event.Type, event.Object)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.object = time.Now(), name
	if _, isObject := event.Object.(client.Object); isObject && r.had[name] == nil {
		return
	}
	if _, known := r.first[name]; !known && event.Type == watch.Added {
		r.first[name] = status
	}
	if r.first[name] != status || event.Type == watch.Deleted {
		r.noted = append(r.noted, fmt.Sprintf("%s: %s, was %s (%s)", name, status, r.first[name], event.Type))
	}
}

// rests waits until nothing has been written for a time.
func (r *record) rests(t *testing.T, least time.Duration) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if ago := time.Since(r.last); ago < least {
			return fmt.Errorf("%s was written %s ago", r.object, ago)
		}
		return nil
	})
}

func (r *record) changes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.noted)
}
