// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// addresses is how line shows the networks of runningOn.
const addresses = "default=10.0.0.4,fd00::4"

func TestAVirtualMachineInstanceIsAServer(t *testing.T) {
	newHost(t, "life-1")
	namespace := newNamespace(t, "life")
	step := func(what, want string) {
		t.Helper()
		begin := time.Now()
		expect.Eventually(t, patience, shows(namespace, "web-1", want))
		t.Logf("%s after %v", what, time.Since(begin).Round(time.Millisecond))
	}
	v := newVMI(t, namespace, "web-1", `{}`, map[string]string{"app": "web", "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "x", "kubevirt.io/vm": "web-1"})
	step("created", "|BUILD|NOSTATE|scheduling||")
	merge(t, namespace, "web-1", `{"status":{"phase":"Scheduled","nodeName":"life-1"}}`)
	step("scheduled", "life-1|BUILD|NOSTATE|spawning||UP")
	merge(t, namespace, "web-1", `{"status":`+runningOn("life-1")+`}`)
	step("running", "life-1|ACTIVE|RUNNING||"+addresses+"|UP")
	merge(t, namespace, "web-1", `{"status":{"conditions":[{"type":"Paused","status":"True","reason":"PausedByUser"}]}}`)
	step("paused", "life-1|PAUSED|PAUSED||"+addresses+"|UP")
	merge(t, namespace, "web-1", `{"status":{"conditions":[]}}`)
	step("unpaused", "life-1|ACTIVE|RUNNING||"+addresses+"|UP")
	merge(t, namespace, "web-1", `{"status":{"phase":"Unknown","nodeName":"life-1"}}`)
	settled(t)
	step("unknown", "life-1|ACTIVE|RUNNING||"+addresses+"|UP")
	merge(t, namespace, "web-1", `{"status":{"phase":"Succeeded","interfaces":null}}`)
	step("shut down", "life-1|SHUTOFF|SHUTDOWN|||UP")

	server, err := get(namespace, "web-1")
	expect.NoError(t, err)
	if want := "kubevirt://life/web-1"; server.Spec.ProviderID != want {
		t.Errorf("the provider id is %q, not %q", server.Spec.ProviderID, want)
	}
	owner := server.OwnerReferences[0]
	if len(server.OwnerReferences) != 1 || owner.UID != v.GetUID() || owner.BlockOwnerDeletion != nil {
		t.Errorf("owners: %+v", server.OwnerReferences)
	}
	deleteVMI(t, namespace, "web-1")
	expect.Eventually(t, patience, gone(namespace, "web-1"))
}

func TestTheCommandsOfThePageGiveWhatItShows(t *testing.T) {
	newHost(t, "node-1")
	namespace := newNamespace(t, "shop")
	newVMI(t, namespace, "web-1", runningOn("node-1"), nil)
	expect.Eventually(t, patience, shows(namespace, "web-1", "node-1|ACTIVE|RUNNING||"+addresses+"|UP"))
	steps, err := system.RunPage(t.Context(), "docs/operate/kubevirt.md")
	expect.NoError(t, err)
	for _, step := range steps {
		if step.Want != step.Got {
			t.Errorf("$ %s\nthe page shows\n%s\nand it prints\n%s", step.Command, step.Want, step.Got)
		}
	}
	if len(steps) != 2 {
		t.Errorf("%d commands were run", len(steps))
	}
}

func hasLabels(namespace, name string, want map[string]string) func() error {
	return func() error {
		server, err := get(namespace, name)
		if err == nil && !maps.Equal(server.Labels, want) {
			err = fmt.Errorf("labels %v, not %v", server.Labels, want)
		}
		return err
	}
}

func TestLabelsThatOwnersSeeAreCopied(t *testing.T) {
	namespace := newNamespace(t, "labels")
	newVMI(t, namespace, "web-1", runningOn("elsewhere"), map[string]string{
		"app": "web", "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "x", "kubevirt.io/nodeName": "elsewhere",
	})
	expect.Eventually(t, patience, hasLabels(namespace, "web-1", map[string]string{"app": "web", "app.kubernetes.io/name": "web"}))
	// What a person adds stays, what they change does not.
	kubectl(t, "label", "--namespace="+namespace, "servers.compute.hoststatus.dev", "web-1", "mine=yes", "app=db", "--overwrite")
	expect.Eventually(t, patience, hasLabels(namespace, "web-1", map[string]string{"app": "web", "app.kubernetes.io/name": "web", "mine": "yes"}))
	merge(t, namespace, "web-1", `{"metadata":{"labels":{"app":null,"tier":"gold","kubevirt.io/nodeName":"node-2"}}}`)
	expect.Eventually(t, patience, hasLabels(namespace, "web-1", map[string]string{"tier": "gold", "app.kubernetes.io/name": "web", "mine": "yes"}))
	merge(t, namespace, "web-1", `{"metadata":{"labels":null}}`)
	expect.Eventually(t, patience, hasLabels(namespace, "web-1", map[string]string{"mine": "yes"}))
}

// history is what a Server has shown since it was begun, each value once.
type history struct {
	stop  func()
	done  chan struct{}
	lines []string
}

// record notes each version of a Server from now on.
func record(t *testing.T, namespace, name string) *history {
	t.Helper()
	config, err := system.Cluster.AdminConfig()
	expect.NoError(t, err)
	c, err := fleet.NewClient(config)
	expect.NoError(t, err)
	watcher, err := c.Watch(t.Context(), &v1alpha1.ServerList{}, client.InNamespace(namespace))
	expect.NoError(t, err)
	h := &history{stop: watcher.Stop, done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for event := range watcher.ResultChan() {
			server, ok := event.Object.(*v1alpha1.Server)
			if !ok || server.Name != name {
				continue
			}
			shown := string(event.Type) + " " + line(server)
			if n := len(h.lines); n == 0 || h.lines[n-1] != shown {
				h.lines = append(h.lines, shown)
			}
		}
	}()
	t.Cleanup(watcher.Stop)
	return h
}

// end returns what was noted.
func (h *history) end() []string {
	h.stop()
	<-h.done
	return h.lines
}

func TestAMigrationIsFollowedWithoutAFalseValue(t *testing.T) {
	newHost(t, "from")
	newHost(t, "to")
	namespace := newNamespace(t, "migration")
	newVMI(t, namespace, "web-1", runningOn("from"), nil)
	expect.Eventually(t, patience, shows(namespace, "web-1", "from|ACTIVE|RUNNING||"+addresses+"|UP"))
	h := record(t, namespace, "web-1")
	expect.Eventually(t, patience, shows(namespace, "web-1", "from|ACTIVE|RUNNING||"+addresses+"|UP"))

	merge(t, namespace, "web-1", `{"status":{"evacuationNodeName":"from"}}`)
	expect.Eventually(t, patience, shows(namespace, "web-1", "from|ACTIVE|RUNNING|eviction-requested|"+addresses+"|UP"))
	merge(t, namespace, "web-1", `{"status":{"migrationState":{"migrationUid":"m-1","sourceNode":"from","targetNode":"to"}}}`)
	merge(t, namespace, "web-1", `{"status":{"migrationState":{"startTimestamp":"2026-03-01T12:00:00Z"}}}`)
	expect.Eventually(t, patience, shows(namespace, "web-1", "from|MIGRATING|RUNNING|migrating|"+addresses+"|UP"))
	// KubeVirt's target writes this at once.
	merge(t, namespace, "web-1", `{"metadata":{"labels":{"kubevirt.io/nodeName":"to"}},
		"status":{"nodeName":"to","evacuationNodeName":null,"migrationState":{"endTimestamp":"2026-03-01T12:00:09Z","completed":true}}}`)
	expect.Eventually(t, patience, shows(namespace, "web-1", "to|ACTIVE|RUNNING||"+addresses+"|UP"))
	settled(t)

	got := h.end()
	want := []string{
		"MODIFIED from|ACTIVE|RUNNING|eviction-requested|" + addresses + "|UP",
		"MODIFIED from|MIGRATING|RUNNING|migrating|" + addresses + "|UP",
		"MODIFIED to|MIGRATING|RUNNING|migrating|" + addresses + "|UP",
		"MODIFIED to|ACTIVE|RUNNING||" + addresses + "|UP",
	}
	if len(got) > 0 && strings.HasPrefix(got[0], "ADDED ") {
		got = got[1:]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the Server has shown (-want +got):\n%s", diff)
	}
	server, err := get(namespace, "web-1")
	expect.NoError(t, err)
	merge(t, namespace, "web-1", `{"status":{"migrationState":{"endTimestamp":null,"completed":false}}}`)
	expect.Eventually(t, patience, shows(namespace, "web-1", "to|MIGRATING|RUNNING|migrating|"+addresses+"|UP"))
	merge(t, namespace, "web-1", `{"status":{"migrationState":{"endTimestamp":"2026-03-01T12:01:09Z","completed":true,"failed":true}}}`)
	expect.Eventually(t, patience, shows(namespace, "web-1", "to|ACTIVE|RUNNING||"+addresses+"|UP"))
	after, err := get(namespace, "web-1")
	expect.NoError(t, err)
	if !server.Status.HostStatusTransitionTime.Equal(after.Status.HostStatusTransitionTime) {
		t.Error("a move from an UP host to an UP host is a change of host status")
	}
}

func TestAnotherOneOfTheNameHasAServerOfItsOwn(t *testing.T) {
	namespace := newNamespace(t, "recreated")
	for range 5 {
		old := newVMI(t, namespace, "web-1", runningOn("elsewhere"), nil)
		expect.Eventually(t, patience, belongs(namespace, "web-1", old.GetUID()))
		before, err := get(namespace, "web-1")
		expect.NoError(t, err)
		deleteVMI(t, namespace, "web-1")
		recreated := newVMI(t, namespace, "web-1", `{"phase":"Pending"}`, nil)
		expect.Eventually(t, patience, belongs(namespace, "web-1", recreated.GetUID()))
		expect.Eventually(t, patience, shows(namespace, "web-1", "|BUILD|NOSTATE|scheduling||"))
		after, err := get(namespace, "web-1")
		expect.NoError(t, err)
		if before.UID == after.UID {
			t.Error("the new machine has the Server of the old one")
		}
		deleteVMI(t, namespace, "web-1")
		expect.Eventually(t, patience, gone(namespace, "web-1"))
	}
}

// belongs checks which VirtualMachineInstance a Server is of.
func belongs(namespace, name string, uid types.UID) func() error {
	return func() error {
		server, err := get(namespace, name)
		if err == nil && (len(server.OwnerReferences) != 1 || server.OwnerReferences[0].UID != uid) {
			err = fmt.Errorf("owners of %s: %+v, not %s", name, server.OwnerReferences, uid)
		}
		return err
	}
}

func TestWhatHappensWhileNoManagerRunsIsMadeUpFor(t *testing.T) {
	namespace := newNamespace(t, "away")
	for _, name := range []string{"deleted", "recreated", "moved"} {
		newVMI(t, namespace, name, runningOn("one"), map[string]string{"tier": "a"})
		expect.Eventually(t, patience, shows(namespace, name, "one|ACTIVE|RUNNING||"+addresses+"|"))
	}
	var uid types.UID
	restart(t, func() {
		deleteVMI(t, namespace, "deleted")
		deleteVMI(t, namespace, "recreated")
		uid = newVMI(t, namespace, "recreated", runningOn("two"), nil).GetUID()
		merge(t, namespace, "moved", `{"metadata":{"labels":{"tier":null,"app":"x"}},"status":{"nodeName":"two"}}`)
		newVMI(t, namespace, "new", runningOn("one"), nil)
	})
	expect.Eventually(t, patience, gone(namespace, "deleted"))
	expect.Eventually(t, patience, belongs(namespace, "recreated", uid))
	expect.Eventually(t, patience, shows(namespace, "recreated", "two|ACTIVE|RUNNING||"+addresses+"|"))
	expect.Eventually(t, patience, shows(namespace, "moved", "two|ACTIVE|RUNNING||"+addresses+"|"))
	expect.Eventually(t, patience, hasLabels(namespace, "moved", map[string]string{"app": "x"}))
	expect.Eventually(t, patience, shows(namespace, "new", "one|ACTIVE|RUNNING||"+addresses+"|"))
}

func TestOnALostNodeOwnersSeeUNKNOWNWhileKubeVirtStillSaysRunning(t *testing.T) {
	silence := newHost(t, "lost-1")
	namespace := newNamespace(t, "lost")
	newVMI(t, namespace, "web-1", runningOn("lost-1"), nil)
	expect.Eventually(t, patience, shows(namespace, "web-1", "lost-1|ACTIVE|RUNNING||"+addresses+"|UP"))
	expect.NoError(t, system.StartTenantAPI(t.Context()))
	expect.NoError(t, system.WaitForTenantAPI(t.Context()))
	ownersSee := func(want string) func() error {
		return func() error {
			out, err := system.Kubectl(context.Background(), "get", "servers.tenant.hoststatus.dev", "--namespace="+namespace, "--no-headers").CombinedOutput()
			// The last column is the age.
			if row := strings.Fields(string(out)); err == nil && strings.Join(row[:max(0, len(row)-1)], " ") != want {
				err = fmt.Errorf("owners see %q, not %q", row, want)
			}
			return err
		}
	}
	const row = "web-1 ACTIVE RUNNING default=10.0.0.4, fd00::4"
	expect.Eventually(t, patience, ownersSee(row+" UP"))
	silence()
	expect.Eventually(t, patience, ownersSee(row+" UNKNOWN"))
	// KubeVirt gives up on the machine only minutes later.
	merge(t, namespace, "web-1", `{"status":{"phase":"Failed","reason":"NodeUnresponsive"}}`)
	expect.Eventually(t, patience, shows(namespace, "web-1", "lost-1|ERROR|CRASHED||"+addresses+"|UNKNOWN"))
}

func TestAPersonsServerIsNeverTouched(t *testing.T) {
	namespace := newNamespace(t, "person")
	mine := func(name string) *v1alpha1.Server {
		return &v1alpha1.Server{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"tier": "mine"}},
			Spec:       v1alpha1.ServerSpec{Host: "mine", ProviderID: "mine://1"},
		}
	}
	expect.NoError(t, system.Client.Create(t.Context(), mine("web-1")))
	// Owned for the sake of garbage collection, and not controlled.
	v := newVMI(t, namespace, "web-2", runningOn("elsewhere"), map[string]string{"mirrored": "no"})
	owned := mine("web-2")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: "web-2", UID: v.GetUID()}}
	expect.NoError(t, system.Client.Create(t.Context(), owned))
	expect.Eventually(t, patience, shows(namespace, "web-1", "mine|||||"))
	expect.Eventually(t, patience, shows(namespace, "web-2", "mine|||||"))
	before := map[string]*v1alpha1.Server{}
	for _, name := range []string{"web-1", "web-2"} {
		var err error
		before[name], err = get(namespace, name)
		expect.NoError(t, err)
	}
	newVMI(t, namespace, "web-1", runningOn("elsewhere"), map[string]string{"app": "web"})
	merge(t, namespace, "web-2", `{"metadata":{"labels":null}}`)
	expect.Eventually(t, patience, func() error {
		for _, name := range []string{"web-1", "web-2"} {
			if n := logged(t, "name="+name+" ", "namespace="+namespace+" ", "has not created, so it is left alone"); n != 1 {
				return fmt.Errorf("%d lines tell that %s is left alone", n, name)
			}
		}
		return nil
	})
	settled(t)
	for name, was := range before {
		after, err := get(namespace, name)
		expect.NoError(t, err)
		if was.ResourceVersion != after.ResourceVersion {
			t.Errorf("%s was written to:\n%+v\n%+v", name, was, after)
		}
	}
	// When the person deletes theirs, the mirror makes its own.
	expect.NoError(t, system.Client.Delete(t.Context(), before["web-1"]))
	expect.Eventually(t, patience, shows(namespace, "web-1", "elsewhere|ACTIVE|RUNNING||"+addresses+"|"))
	// And when they change what the mirror has written, it is written again.
	kubectl(t, "patch", "--namespace="+namespace, "servers.compute.hoststatus.dev", "web-1", "--type=merge", `--patch={"spec":{"host":"mine"}}`)
	expect.Eventually(t, patience, shows(namespace, "web-1", "elsewhere|ACTIVE|RUNNING||"+addresses+"|"))
	kubectl(t, "delete", "--namespace="+namespace, "servers.compute.hoststatus.dev", "web-1")
	expect.Eventually(t, patience, shows(namespace, "web-1", "elsewhere|ACTIVE|RUNNING||"+addresses+"|"))
}

func TestOnlyWhatIsSelectedIsTakenUpAndWhatIsTakenUpStays(t *testing.T) {
	namespace := newNamespace(t, "selected")
	newVMI(t, namespace, "never", runningOn("one"), map[string]string{"mirrored": "no"})
	newVMI(t, namespace, "later", runningOn("one"), map[string]string{"mirrored": "no"})
	newVMI(t, namespace, "before", runningOn("one"), nil)
	expect.Eventually(t, patience, shows(namespace, "before", "one|ACTIVE|RUNNING||"+addresses+"|"))
	merge(t, namespace, "later", `{"metadata":{"labels":{"mirrored":"yes"}}}`)
	expect.Eventually(t, patience, shows(namespace, "later", "one|ACTIVE|RUNNING||"+addresses+"|"))
	merge(t, namespace, "before", `{"metadata":{"labels":{"mirrored":"no"}},"status":{"nodeName":"two"}}`)
	expect.Eventually(t, patience, shows(namespace, "before", "two|ACTIVE|RUNNING||"+addresses+"|"))
	settled(t)
	expect.NoError(t, gone(namespace, "never")())
}

func TestANamespaceThatEndsIsNoError(t *testing.T) {
	const vmis = 50
	namespace := newNamespace(t, "ending")
	for i := range vmis {
		newVMI(t, namespace, fmt.Sprintf("web-%d", i), runningOn("one"), nil)
	}
	expect.Eventually(t, patience, mirrored(namespace, vmis, func(*v1alpha1.Server) bool { return true }))
	// One stays behind until KubeVirt has cleaned up, and its Server may not be made again.
	merge(t, namespace, "web-0", `{"metadata":{"finalizers":["kubevirt.io/foregroundDeleteVirtualMachine"]}}`)
	errorsBefore := len(loggedErrors(t))
	expect.NoError(t, kube.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}))
	expect.Eventually(t, patience, func() error {
		for i := range vmis {
			if err := gone(namespace, fmt.Sprintf("web-%d", i))(); err != nil && i != 0 {
				return err
			}
		}
		return nil
	})
	settled(t)
	merge(t, namespace, "web-0", `{"metadata":{"finalizers":null}}`)
	expect.Eventually(t, patience, func() error {
		_, err := kube.CoreV1().Namespaces().Get(context.Background(), namespace, metav1.GetOptions{})
		if err == nil {
			return errors.New("the namespace is still there")
		}
		return client.IgnoreNotFound(err)
	})
	settled(t)
	if lines := loggedErrors(t)[errorsBefore:]; len(lines) > 0 {
		t.Errorf("%d errors are logged, the first is %s", len(lines), lines[0])
	}
}

func TestWithoutTheRightsOnlyTheMirrorWaits(t *testing.T) {
	namespace := newNamespace(t, "rights")
	before := logged(t, "has no right to list them")
	restart(t, func() { kubectl(t, "delete", "clusterrolebinding", "hoststatus-vmi-mirror") })
	t.Cleanup(func() { expect.NoError(t, giveRights(context.Background(), "vmi-mirror")) })
	newVMI(t, namespace, "web-1", runningOn("one"), nil)
	expect.Eventually(t, patience, func() error {
		if n := logged(t, "has no right to list them", "config/vmi-mirror") - before; n != 1 {
			return fmt.Errorf("%d lines tell what is missing", n)
		}
		return nil
	})
	expect.NoError(t, gone(namespace, "web-1")())
	expect.NoError(t, giveRights(t.Context(), "vmi-mirror"))
	expect.Eventually(t, patience, shows(namespace, "web-1", "one|ACTIVE|RUNNING||"+addresses+"|"))
}

// mirrored checks that a namespace has that many Servers of which check holds.
func mirrored(namespace string, want int, check func(*v1alpha1.Server) bool) func() error {
	return func() error {
		var list v1alpha1.ServerList
		if err := system.Client.List(context.Background(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		n := 0
		for i := range list.Items {
			if check(&list.Items[i]) {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d of %d", n, want)
		}
		return nil
	}
}

var (
	hosts    = flag.Int("hosts", 20, "number of Nodes of the test of a fleet")
	machines = flag.Int("machines", 200, "number of VirtualMachineInstances of the test of a fleet")
)

func TestAFleet(t *testing.T) {
	namespace := newNamespace(t, "fleet")
	hostOf := func(i int) string { return fmt.Sprintf("fleet-%04d", i%*hosts) }
	nameOf := func(i int) string { return fmt.Sprintf("web-%05d", i) }
	parallel := func(n int, do func(i int) error) {
		t.Helper()
		failed := make([]error, n)
		workqueue.ParallelizeUntil(t.Context(), 16, n, func(i int) { failed[i] = do(i) })
		expect.NoError(t, errors.Join(failed...))
	}
	patchAll := func(n int, body string) {
		t.Helper()
		parallel(n, func(i int) error {
			return system.Client.Patch(t.Context(), vmi(namespace, nameOf(i), `{}`), client.RawPatch(types.MergePatchType, []byte(body)))
		})
	}
	// All Nodes are cordoned, and their Leases hold for longer than this takes, so that
	// nothing changes about them.
	parallel(*hosts, func(i int) error {
		node, err := kube.CoreV1().Nodes().Create(t.Context(), cordonedNode(hostOf(i)), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		return createLease(t.Context(), node, v1alpha1.MaxLeaseDurationSeconds)
	})
	t.Cleanup(func() {
		for i := range *hosts {
			if err := client.IgnoreNotFound(kube.CoreV1().Nodes().Delete(context.Background(), hostOf(i), metav1.DeleteOptions{})); err != nil {
				t.Error(err)
			}
		}
	})
	parallel(*hosts, func(i int) error {
		return expect.Poll(t.Context(), patience, func() error {
			if err := renewLease(t.Context(), hostOf(i)); err != nil {
				return err
			}
			service := &v1alpha1.ComputeService{}
			err := system.Client.Get(t.Context(), client.ObjectKey{Name: hostOf(i)}, service)
			if err == nil && !meta.IsStatusConditionTrue(service.Status.Conditions, v1alpha1.ConditionReporting) {
				err = fmt.Errorf("%s does not report", hostOf(i))
			}
			return err
		})
	})
	settled(t)
	limit := patience + time.Duration(*machines)*60*time.Millisecond
	errorsBefore := len(loggedErrors(t))

	before, begin := written(t), time.Now()
	parallel(*machines, func(i int) error {
		v := vmi(namespace, nameOf(i), runningOn(hostOf(i)))
		v.SetLabels(map[string]string{"app": "web", "kubevirt.io/nodeName": hostOf(i)})
		return system.Client.Create(t.Context(), v)
	})
	created := time.Now()
	expect.Eventually(t, limit, mirrored(namespace, *machines, func(s *v1alpha1.Server) bool {
		return s.Status.State == "ACTIVE" && s.Status.HostStatus != nil && *s.Status.HostStatus == v1alpha1.HostStatusMaintenance
	}))
	settled(t)
	n := written(t) - before
	t.Logf("%d machines on %d hosts: %v to create them, %v more for their Servers, %v writes", *machines, *hosts,
		created.Sub(begin).Round(time.Millisecond), time.Since(created).Round(time.Millisecond), n)
	// The Server, what is reported of it and its host status. Two of them come at the same
	// time, so that one of these is refused at first.
	if of := float64(*machines + settlers); n < 3*of || n > 4.5*of {
		t.Errorf("%v writes for %v machines", n, of)
	}

	// What KubeVirt writes otherwise wakes nobody, and a restart writes nothing.
	before = written(t)
	cpu := cpuOf(t, system.Manager.Pid())
	patchAll(*machines, `{"metadata":{"annotations":{"kubevirt.io/latest-observed-api-version":"v2"}},"status":{"memory":{"guestCurrent":"1Gi"}}}`)
	settled(t)
	t.Logf("%v CPU for each of %d writes of KubeVirt's own", ((cpuOf(t, system.Manager.Pid()) - cpu) / time.Duration(*machines)).Round(time.Microsecond), *machines)
	restart(t, func() {})
	settled(t)
	// The new ones of settled take 2 to 5 each, and more where several are refused at first.
	least, most := float64(2*2*settlers), float64(2*5*settlers+*machines/10)
	if n := written(t) - before; n < least || n > most {
		t.Errorf("%v writes for writes of KubeVirt's own of %d machines and a restart; want %v to %v for %d new ones", n, *machines, least, most, 2*settlers)
	}

	// Each event costs one write.
	before, begin = written(t), time.Now()
	cpu = cpuOf(t, system.Manager.Pid())
	patchAll(*machines, `{"status":{"conditions":[{"type":"Paused","status":"True"}]}}`)
	patched := time.Now()
	expect.Eventually(t, limit, mirrored(namespace, *machines, func(s *v1alpha1.Server) bool { return s.Status.State == "PAUSED" }))
	n = written(t) - before
	t.Logf("all paused: %v for KubeVirt's writes, %v more for the Servers, %v writes and %v CPU each", patched.Sub(begin).Round(time.Millisecond),
		time.Since(patched).Round(time.Millisecond), n/float64(*machines), ((cpuOf(t, system.Manager.Pid()) - cpu) / time.Duration(*machines)).Round(time.Microsecond))
	if n > 1.1*float64(*machines) {
		t.Errorf("%v writes for %d machines", n, *machines)
	}

	// All gone at once: the garbage collector's work, and none of the mirror's.
	begin = time.Now()
	cpu = cpuOf(t, system.Manager.Pid())
	expect.NoError(t, system.Client.DeleteAllOf(t.Context(), vmi(namespace, "", `{}`), client.InNamespace(namespace)))
	deleted := time.Now()
	expect.Eventually(t, limit, mirrored(namespace, 0, func(*v1alpha1.Server) bool { return true }))
	t.Logf("all deleted: %v for the machines, %v more for their Servers, %v CPU each", deleted.Sub(begin).Round(time.Millisecond),
		time.Since(deleted).Round(time.Millisecond), ((cpuOf(t, system.Manager.Pid()) - cpu) / time.Duration(*machines)).Round(time.Microsecond))
	settled(t)
	if lines := loggedErrors(t)[errorsBefore:]; len(lines) > 0 {
		t.Errorf("%d errors are logged, the first is %s", len(lines), lines[0])
	}
}
