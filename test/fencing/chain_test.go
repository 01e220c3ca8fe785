// SPDX-License-Identifier: Apache-2.0

package fencing

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// fencer may set flags of hosts, and nothing more.
var fencer = []string{"hoststatus-fleet-operator"}

// sighting is when a watch was sent something.
type sighting struct {
	status string
	at     time.Time
}

// flagged follows a host, with all rights: whether it is forced down.
func flagged(t *testing.T, host string) <-chan sighting {
	t.Helper()
	c, ok := system.Client.(client.WithWatch)
	if !ok {
		t.Fatalf("%T does not watch", system.Client)
	}
	w, err := c.Watch(t.Context(), &v1alpha1.ComputeServiceList{}, client.MatchingFields{"metadata.name": host})
	expect.NoError(t, err)
	t.Cleanup(w.Stop)
	seen := make(chan sighting, 1000)
	go func() {
		for e := range w.ResultChan() {
			if s, ok := e.Object.(*v1alpha1.ComputeService); ok {
				seen <- sighting{fmt.Sprint(ptr.Deref(s.Spec.ForcedDown, false)), time.Now()}
			}
		}
	}()
	return seen
}

// informed follows a server with the rights of its owner: what he is shown of its host.
func informed(t *testing.T, owner, namespace, server string) <-chan sighting {
	t.Helper()
	kube := administrator(t)
	for _, role := range []string{"hoststatus-server-viewer", "hoststatus-host-status-viewer"} {
		binding, err := kube.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: owner + "-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: owner}},
		}, metav1.CreateOptions{})
		expect.NoError(t, err)
		t.Cleanup(func() {
			if err := kube.RbacV1().RoleBindings(namespace).Delete(context.Background(), binding.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	config, err := system.Cluster.ConfigFor(owner)
	expect.NoError(t, err)
	c, err := fleet.NewClient(config)
	expect.NoError(t, err)
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(tenantv1alpha1.SchemeGroupVersion.WithKind("ServerList"))
	expect.Eventually(t, patience, func() error { // Until the bindings are in force, and the view knows.
		if err := c.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, s := range list.Items {
			if _, found, _ := unstructured.NestedString(s.Object, "status", "hostStatus"); !found {
				return fmt.Errorf("%s is not shown the host status of %s", owner, s.GetName())
			}
		}
		return nil
	})
	w, err := c.Watch(t.Context(), list, client.InNamespace(namespace), client.MatchingFields{"metadata.name": server})
	expect.NoError(t, err)
	t.Cleanup(w.Stop)
	seen := make(chan sighting, 1000)
	go func() {
		for e := range w.ResultChan() {
			if s, ok := e.Object.(*unstructured.Unstructured); ok {
				status, _, _ := unstructured.NestedString(s.Object, "status", "hostStatus")
				seen <- sighting{status, time.Now()}
			}
		}
	}()
	return seen
}

// first waits until a watch is sent something, and returns when it was.
func first(t *testing.T, seen <-chan sighting, want string) time.Time {
	t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case s := <-seen:
			if s.status == want {
				return s.at
			}
		case <-deadline:
			t.Fatalf("no %s within %s", want, patience)
		}
	}
}

// powerOn starts a host that was fenced, and takes the flag back.
func powerOn(t *testing.T, b *bmc) {
	t.Helper()
	expect.NoError(t, system.StartAgent(b.host))
	b.powered(t)
	patch(t, b.host, `{"spec":{"forcedDown":null,"forcedDownReason":null}}`)
	expect.Eventually(t, patience, hostIs(b.host, v1alpha1.HostStatusUp))
}

// Doctor asks for less than a second from the flag until its consumer is informed.
const doctor = time.Second

func TestOwnersAreInformedOnceTheBMCSaysThatTheHostIsOff(t *testing.T) {
	const host, rounds = "compute-1", 4
	b := startBMC(t, host)
	flag, owner := flagged(t, host), informed(t, "ana", "team-a", "web-1")
	var bare, chain []time.Duration
	for range rounds {
		// In turn, so that both meet with what else this machine does.
		asked := time.Now()
		patch(t, host, `{"spec":{"forcedDown":true,"forcedDownReason":"a bare patch"}}`)
		set, shown := first(t, flag, "true"), first(t, owner, "DOWN")
		bare = append(bare, shown.Sub(asked))
		t.Logf("a bare patch: the flag is seen after %s, DOWN by the owner after %s", round(set.Sub(asked)), round(shown.Sub(asked)))
		patch(t, host, `{"spec":{"forcedDown":null,"forcedDownReason":null}}`)
		expect.Eventually(t, patience, hostIs(host, v1alpha1.HostStatusUp))
		first(t, flag, "false")
		first(t, owner, "UP")

		agent := system.Agents[host]
		asked = time.Now()
		out, err := script(t, "fencer", fencer, "fence-host", host).CombinedOutput()
		ended := time.Now()
		if err != nil {
			t.Fatalf("fence-host: %v\n%s", err, out)
		}
		set, shown = first(t, flag, "true"), first(t, owner, "DOWN")
		select {
		case <-agent.Done():
		default:
			t.Errorf("the host is said to be DOWN and runs:\n%s", out)
		}
		if got := b.says(t); got != "Status: OFF" {
			t.Errorf("the BMC says %q", got)
		}
		chain = append(chain, shown.Sub(set))
		t.Logf("the chain: fence-host has ended after %s; from the flag until the owner sees DOWN %s", round(ended.Sub(asked)), round(shown.Sub(set)))
		powerOn(t, b)
		first(t, flag, "false")
		first(t, owner, "UP")
	}
	slices.Sort(bare)
	slices.Sort(chain)
	t.Logf("from the flag until the owner is informed: by the chain %v, at most %s; from the request of a bare patch %v. Doctor asks for %s", chain, round(chain[rounds-1]), bare, doctor)
	// The flag is the same, however it was set: the least of several, since what else runs on
	// this machine only adds.
	if chain[0] > 3*bare[rounds/2] {
		t.Errorf("from the flag until the owner is informed it takes %s at least, and a bare patch takes %s from its request", chain[0], bare[rounds/2])
	}
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func TestNothingIsRecordedUnlessTheBMCSaysThatTheHostIsOff(t *testing.T) {
	const host = "compute-1"
	refuses := func(why, says string) {
		t.Helper()
		out, err := script(t, "fencer", fencer, "fence-host", host).CombinedOutput()
		var s v1alpha1.ComputeService
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Name: host}, &s))
		if err == nil || !strings.Contains(string(out), says) || s.Spec.ForcedDown != nil {
			t.Errorf("%s: fence-host ends with %v, and the flag is %v\n%s", why, err, s.Spec.ForcedDown, out)
		}
	}
	refuses("nobody has described its BMC", bmcFolder()+"/"+host)
	saveOptions(t, host, freeUDPPort(t), "")
	refuses("nobody answers", "")
	startBMC(t, host).stick(t)
	refuses("the power stays on", "OFF")
	expect.NoError(t, hostIs(host, v1alpha1.HostStatusUp)())
	select {
	case <-system.Agents[host].Done():
		t.Error("the host is off")
	default:
	}
}

// keepServers lets every server be on the same host after the test as before.
func keepServers(t *testing.T) {
	t.Helper()
	var before v1alpha1.ServerList
	expect.NoError(t, system.Client.List(t.Context(), &before))
	t.Cleanup(func() {
		for i := range before.Items {
			s := &before.Items[i]
			back := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"host":"`+s.Spec.Host+`"}}`))
			if err := system.Client.Patch(context.Background(), s, back); err != nil {
				t.Error(err)
			}
		}
	})
}

// What is on the page is what happens.
func TestTheCommandsOfThePageFenceAndEvacuate(t *testing.T) {
	const host = "compute-2"
	keepServers(t)
	b := startBMC(t, host)
	t.Cleanup(func() { powerOn(t, b) })
	steps, err := system.RunPage(t.Context(), "docs/operate/"+page)
	expect.NoError(t, err)
	me, err := user.Current()
	expect.NoError(t, err)
	for _, step := range steps {
		got := strings.ReplaceAll(step.Got, "for "+me.Username, "for oncall")
		if diff := cmp.Diff(step.Want, got); diff != "" {
			t.Errorf("$ %s (-the page +really):\n%s", step.Command, diff)
		}
	}
	if len(steps) != 5 {
		t.Errorf("%d commands were run", len(steps))
	}
	want := "team-a/web-2 on compute-3, DOWN\nteam-b/api-2 on compute-3, DOWN\nteam-b/queue-1 on compute-3, DOWN\n"
	if diff := cmp.Diff(want, started(t)); diff != "" {
		t.Errorf("what was started (-want +got):\n%s", diff)
	}
}

func TestNoServerIsStartedElsewhereBeforeItsHostIsDown(t *testing.T) {
	const host, target = "compute-4", "compute-3"
	keepServers(t)
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "server-mover"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.SchemeGroupVersion.Group}, Resources: []string{"servers"}, Verbs: []string{"patch"}}},
	}
	kube := administrator(t)
	_, err := kube.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	expect.NoError(t, err)
	t.Cleanup(func() {
		expect.NoError(t, kube.RbacV1().ClusterRoles().Delete(context.Background(), role.Name, metav1.DeleteOptions{}))
	})
	evacuation := script(t, "mover", []string{"hoststatus-fleet-viewer", role.Name}, "evacuate-host", host, target)
	var printed strings.Builder
	evacuation.Stdout, evacuation.Stderr = &printed, &printed
	expect.NoError(t, evacuation.Start())
	ended := make(chan error, 1)
	go func() { ended <- evacuation.Wait() }()
	expect.Eventually(t, patience, func() error { return runs(evacuation.Process.Pid, "kubectl", "wait") })
	// Maintenance is no reason to start anything twice.
	patch(t, host, `{"spec":{"disabled":true}}`)
	expect.Eventually(t, patience, hostIs(host, v1alpha1.HostStatusMaintenance))
	if got := started(t); got != "" {
		t.Errorf("started:\n%s", got)
	}
	// While the first server is started, somebody clears the flag.
	hook := "rm " + hookFile() + "\nexport KUBECONFIG=" + system.AdminKubeconfig + "\nkubectl patch computeservice " + host + ` --type=merge -p '{"spec":{"forcedDown":null}}'
kubectl wait computeservice/` + host + ` --for=jsonpath='{.status.hostStatus}'=UP --timeout=60s` + "\n"
	expect.NoError(t, os.WriteFile(hookFile(), []byte(hook), 0o600))
	t.Cleanup(func() {
		patch(t, host, `{"spec":{"forcedDown":null,"forcedDownReason":null}}`)
		expect.Eventually(t, patience, hostIs(host, v1alpha1.HostStatusUp))
	})
	patch(t, host, `{"spec":{"disabled":null,"forcedDown":true,"forcedDownReason":"fenced by hand"}}`)
	expect.Eventually(t, patience, func() error {
		var moved v1alpha1.Server
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "db-2"}, &moved))
		if moved.Spec.Host != target {
			return fmt.Errorf("db-2 is on %s", moved.Spec.Host)
		}
		return runs(evacuation.Process.Pid, "kubectl", "wait")
	})
	expect.NoError(t, hostIs(host, v1alpha1.HostStatusUp)())
	if got, want := started(t), "team-a/db-2 on compute-3, DOWN\n"; got != want {
		t.Errorf("started:\n%swant\n%s", got, want)
	}
	patch(t, host, `{"spec":{"forcedDown":true}}`)
	select {
	case err := <-ended:
		if err != nil || !strings.HasSuffix(printed.String(), host+" is drained\n") {
			t.Errorf("it ends with %v:\n%s", err, printed.String())
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if got, want := started(t), "team-b/build-2 on compute-3, DOWN\n"; got != want {
		t.Errorf("started:\n%swant\n%s", got, want)
	}
	var left v1alpha1.ServerList
	expect.NoError(t, system.Client.List(t.Context(), &left, client.MatchingFields{"spec.host": host}))
	if len(left.Items) > 0 {
		t.Errorf("%d servers are left", len(left.Items))
	}
}

// runs checks that a process has a child with these words in its command line.
func runs(parent int, words ...string) error {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, p := range processes {
		status, _ := os.ReadFile(filepath.Join(p, "status")) // It may have ended.
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", parent)) &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(string(line), w) }) {
			return nil
		}
	}
	return fmt.Errorf("process %d has no child that runs %s", parent, strings.Join(words, " "))
}
