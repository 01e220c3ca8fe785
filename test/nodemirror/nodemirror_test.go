// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	cordonReason = "the Node is cordoned"
	taint        = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
	taintReason  = "the Node has the taint " + taint
)

func TestANodeIsAHost(t *testing.T) {
	const name = "life"
	silence := newKubelet(t, name)
	newNode(t, name)
	newServer(t, "on-life", name)
	step := func(what string, want v1alpha1.HostStatus, says func() error) {
		t.Helper()
		begin := time.Now()
		expect.Eventually(t, patience, says)
		expect.Eventually(t, patience, is(name, want))
		t.Logf("%s: %s after %v", what, want, time.Since(begin).Round(time.Millisecond))
	}
	nothing := says(name, "", "", "", "")
	step("its kubelet renews its Lease", v1alpha1.HostStatusUp, nothing)
	kubectl(t, "cordon", name)
	step("cordoned", v1alpha1.HostStatusMaintenance, says(name, "true", cordonReason, "", ""))
	kubectl(t, "uncordon", name)
	step("uncordoned", v1alpha1.HostStatusUp, nothing)
	silence()
	step("silent", v1alpha1.HostStatusUnknown, nothing)
	kubectl(t, "taint", "nodes", name, taint)
	step("out of service", v1alpha1.HostStatusDown, says(name, "", "", "true", taintReason))
	kubectl(t, "cordon", name)
	step("cordoned, too", v1alpha1.HostStatusDown, says(name, "true", cordonReason, "true", taintReason))
	kubectl(t, "taint", "nodes", name, taint+"-")
	step("in service again", v1alpha1.HostStatusMaintenance, says(name, "true", cordonReason, "", ""))
	kubectl(t, "uncordon", name)
	step("uncordoned", v1alpha1.HostStatusUnknown, nothing)
	newKubelet(t, name)
	step("back", v1alpha1.HostStatusUp, nothing)

	before, err := get(name)
	expect.NoError(t, err)
	deleteNode(t, name)
	expect.Eventually(t, patience, gone(name, before))
	expect.Eventually(t, patience, serverHas("on-life", v1alpha1.ReasonHostNotFound))
	expect.Eventually(t, patience, func() error { // The log's line follows the deletion.
		if n := logged(t, "Deleted the ComputeService of a Node", "name="+name+" ", "serversThatNameIt=1"); n != 1 {
			return fmt.Errorf("%d lines tell of the deletion and of the Server", n)
		}
		return nil
	})
	newNode(t, name)
	expect.Eventually(t, patience, serverHas("on-life", v1alpha1.ReasonReporting))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
}

func TestAMaintenanceThatAnAdministratorDeclaresIsMirrored(t *testing.T) {
	const name = "declared"
	newKubelet(t, name)
	newNode(t, name)
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
	declare := func(status string) {
		kubectl(t, "patch", "node", name, "--subresource=status", "--type=strategic",
			`--patch={"status":{"conditions":[{"type":"MaintenanceInProgress","status":"`+status+`","reason":"Firmware","message":"until noon"}]}}`)
	}
	declare("True")
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusMaintenance))
	expect.Eventually(t, patience, says(name, "true", "the Node has the condition MaintenanceInProgress: Firmware: until noon", "", ""))
	declare("False")
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
	expect.Eventually(t, patience, says(name, "", "", "", ""))
}

// serverHas checks the reason of the host status of a Server.
func serverHas(name string, want v1alpha1.HostStatusReason) func() error {
	return func() error {
		server := &v1alpha1.Server{}
		err := system.Client.Get(context.Background(), client.ObjectKey{Namespace: "team-a", Name: name}, server)
		if err == nil && server.Status.HostStatusReason != want {
			err = fmt.Errorf("server %s has reason %s, not %s", name, server.Status.HostStatusReason, want)
		}
		return err
	}
}

func TestTheCommandsOfThePageGiveWhatItShows(t *testing.T) {
	newKubelet(t, "node-1")
	newNode(t, "node-1")
	expect.Eventually(t, patience, is("node-1", v1alpha1.HostStatusUp))
	steps, err := system.RunPage(t.Context(), "docs/operate/nodes-as-hosts.md")
	expect.NoError(t, err)
	for _, step := range steps {
		if step.Want != step.Got {
			t.Errorf("$ %s\nthe page shows\n%s\nand it prints\n%s", step.Command, step.Want, step.Got)
		}
	}
	if len(steps) != 14 {
		t.Errorf("%d commands were run", len(steps))
	}
}

func TestANodeThatIsCordonedFromTheStartIsAHostInMaintenance(t *testing.T) {
	newNode(t, "born-cordoned", func(n *corev1.Node) {
		n.Spec.Unschedulable = true
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoSchedule}}
	})
	expect.Eventually(t, patience, says("born-cordoned", "true", cordonReason, "true", "the Node has the taint node.kubernetes.io/out-of-service:NoSchedule"))
}

// patch merges body into a ComputeService, as a person does.
func patch(t *testing.T, name, body string) {
	t.Helper()
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
	expect.NoError(t, system.Client.Patch(t.Context(), service, client.RawPatch(types.MergePatchType, []byte(body)), client.FieldOwner("a-person")))
}

// stays checks that what holds now holds after the mirror has had every chance, and
// that it has not even tried.
func stays(t *testing.T, name string, check func() error) {
	t.Helper()
	expect.Eventually(t, patience, check)
	settled(t)
	before, err := get(name)
	expect.NoError(t, err)
	settled(t)
	after, err := get(name)
	expect.NoError(t, err)
	if before.Generation != after.Generation {
		t.Errorf("%s is still written to:\n%v\n%v", name, before.Spec, after.Spec)
	}
	expect.NoError(t, check())
}

func TestAPersonsFlagIsNeverFought(t *testing.T) {
	const name = "human"
	newNode(t, name)
	expect.Eventually(t, patience, exists(name))

	// What a person has set stays, whatever the Node says.
	patch(t, name, `{"spec":{"disabled":true,"disabledReason":"mine","forcedDown":true}}`)
	kubectl(t, "cordon", name)
	kubectl(t, "taint", "nodes", name, taint)
	stays(t, name, says(name, "true", "mine", "true", ""))
	kubectl(t, "uncordon", name)
	kubectl(t, "taint", "nodes", name, taint+"-")
	stays(t, name, says(name, "true", "mine", "true", ""))

	// What is given back the mirror takes again.
	kubectl(t, "cordon", name)
	patch(t, name, `{"spec":{"disabled":null,"disabledReason":null,"forcedDown":null}}`)
	stays(t, name, says(name, "true", cordonReason, "", ""))

	// What the mirror has set a person may take over: false is a word, too.
	patch(t, name, `{"spec":{"disabled":false}}`)
	stays(t, name, says(name, "false", "", "", ""))
	kubectl(t, "uncordon", name)
	stays(t, name, says(name, "false", "", "", ""))
	patch(t, name, `{"spec":{"disabled":null}}`)
	stays(t, name, says(name, "", "", "", ""))

	// A reason of a person's own under the mirror's flag goes with nobody's leave but theirs.
	kubectl(t, "cordon", name)
	expect.Eventually(t, patience, says(name, "true", cordonReason, "", ""))
	patch(t, name, `{"spec":{"disabledReason":"new memory"}}`)
	stays(t, name, says(name, "true", "new memory", "", ""))
	kubectl(t, "uncordon", name)
	stays(t, name, says(name, "", "new memory", "", ""))
	patch(t, name, `{"spec":{"disabledReason":null}}`)

	// So does where the host reports.
	patch(t, name, `{"spec":{"leaseRef":{"namespace":"hoststatus-leases"}}}`)
	stays(t, name, leaseIs(name, "hoststatus-leases", name))
	patch(t, name, `{"spec":{"leaseRef":null}}`)
	stays(t, name, leaseIs(name, "kube-node-lease", name))
}

func leaseIs(name, namespace, lease string) func() error {
	return func() error {
		service, err := get(name)
		if err == nil && service.Spec.LeaseRef == nil {
			return fmt.Errorf("%s has no leaseRef", name)
		}
		if want := (v1alpha1.LeaseReference{Namespace: namespace, Name: lease}); err == nil && *service.Spec.LeaseRef != want {
			err = fmt.Errorf("%s reports by %v, not %v", name, *service.Spec.LeaseRef, want)
		}
		return err
	}
}

func TestAFieldThatAToolAppliesTooIsNoDispute(t *testing.T) {
	const name = "shared"
	newNode(t, name)
	expect.Eventually(t, patience, exists(name))
	kubectl(t, "taint", "nodes", name, taint)
	expect.Eventually(t, patience, says(name, "", "", "true", taintReason))
	// The same values, so that both own them.
	manifest := fmt.Sprintf(`{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"ComputeService","metadata":{"name":%q},
		"spec":{"forcedDown":true,"forcedDownReason":%q}}`, name, taintReason)
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
	expect.NoError(t, system.Client.Patch(t.Context(), service, client.RawPatch(types.ApplyPatchType, []byte(manifest)), client.FieldOwner("a-tool")))
	// Another reason of the mirror's is then in dispute, and not insisted on.
	kubectl(t, "taint", "nodes", name, "--overwrite", "node.kubernetes.io/out-of-service=other:NoExecute")
	stays(t, name, says(name, "", "", "true", taintReason))
	kubectl(t, "taint", "nodes", name, "node.kubernetes.io/out-of-service-")
	stays(t, name, says(name, "", "", "true", taintReason))
}

func TestAPersonsComputeServiceIsLeftAlone(t *testing.T) {
	const name = "persons"
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ComputeServiceSpec{LeaseDurationSeconds: 30}}
	expect.NoError(t, system.Client.Create(t.Context(), service))
	newNode(t, name, func(n *corev1.Node) { n.Spec.Unschedulable = true })
	untouched := func() error {
		now, err := get(name)
		if err == nil && (now.Generation != service.Generation || len(now.Labels)+len(now.Annotations) > 0) {
			err = fmt.Errorf("%s was written to: %v", name, now)
		}
		return err
	}
	stays(t, name, untouched)
	kubectl(t, "uncordon", name)
	stays(t, name, untouched)
	if n := logged(t, "name="+name+" ", "left alone"); n != 1 {
		t.Errorf("%d lines say that it is left alone", n)
	}
	deleteNode(t, name)
	stays(t, name, untouched)
	newNode(t, name, func(n *corev1.Node) { n.Spec.Unschedulable = true })
	stays(t, name, untouched)

	// Handed over, and taken back.
	kubectl(t, "label", "csvc", name, "app.kubernetes.io/managed-by=hoststatus-node-mirror")
	expect.Eventually(t, patience, says(name, "true", cordonReason, "", ""))
	expect.NoError(t, leaseIs(name, "kube-node-lease", name)())
	kubectl(t, "label", "csvc", name, "app.kubernetes.io/managed-by-")
	kubectl(t, "uncordon", name)
	stays(t, name, says(name, "true", cordonReason, "", ""))
	deleteNode(t, name)
	stays(t, name, exists(name))
}

func TestACopiedLabelAloneDeletesNothing(t *testing.T) {
	const name = "copied"
	expect.NoError(t, system.Client.Create(t.Context(), &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "hoststatus-node-mirror"},
	}}))
	stays(t, name, exists(name))
	restart(t, func() {})
	stays(t, name, exists(name))
	expect.NoError(t, system.Client.Delete(t.Context(), &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}))
}

func TestAProtectedComputeServiceOutlivesItsNodeUntilItIsNotNeeded(t *testing.T) {
	const name = "protected"
	newNode(t, name)
	expect.Eventually(t, patience, exists(name))
	newServer(t, "on-protected", name)
	kubectl(t, "annotate", "csvc", name, v1alpha1.AnnotationDeletionProtection+"=true")
	before, err := get(name)
	expect.NoError(t, err)
	deleteNode(t, name)
	refused := func() error {
		if n := logged(t, "name="+name+" ", "is protected", "1 Server still names this ComputeService"); n != 1 {
			return fmt.Errorf("%d lines say that the deletion was refused", n)
		}
		return nil
	}
	expect.Eventually(t, patience, refused)
	patch(t, name, `{"metadata":{"annotations":{"note":"wakes the mirror"}}}`)
	stays(t, name, exists(name))
	expect.NoError(t, refused())
	kubectl(t, "annotate", "csvc", name, v1alpha1.AnnotationDeletionProtection+"-")
	expect.Eventually(t, patience, gone(name, before))
}

func TestAProtectedComputeServiceSaysNothingOfAMachineThatWasReplaced(t *testing.T) {
	const name = "protected-replaced"
	newNode(t, name)
	expect.Eventually(t, patience, exists(name))
	newServer(t, "on-"+name, name)
	kubectl(t, "annotate", "csvc", name, v1alpha1.AnnotationDeletionProtection+"=true")
	kubectl(t, "taint", "nodes", name, taint)
	expect.Eventually(t, patience, says(name, "", "", "true", taintReason))
	before, err := get(name)
	expect.NoError(t, err)
	deleteNode(t, name)
	newNode(t, name)
	expect.Eventually(t, patience, says(name, "", "", "", ""))
	kubectl(t, "cordon", name)
	expect.Eventually(t, patience, says(name, "true", cordonReason, "", ""))
	after, err := get(name)
	expect.NoError(t, err)
	if before.UID != after.UID {
		t.Error("it was deleted although it is protected")
	}
	kubectl(t, "annotate", "csvc", name, v1alpha1.AnnotationDeletionProtection+"-")
	expect.Eventually(t, patience, func() error {
		now, err := get(name)
		if err == nil && now.UID == before.UID {
			return errors.New("it is still that of the old machine")
		}
		return err
	})
	expect.Eventually(t, patience, says(name, "true", cordonReason, "", ""))
}

// Some platforms have a label that says whether a node is well, and select by it.
func TestANodeThatIsNotSelectedAnyMoreStaysMirroredUntilItIsGone(t *testing.T) {
	const name = "deselected"
	newNode(t, name+"-never", func(n *corev1.Node) { n.Labels = nil })
	newNode(t, name)
	kubectl(t, "taint", "nodes", name, taint)
	expect.Eventually(t, patience, says(name, "", "", "true", taintReason))
	before, err := get(name)
	expect.NoError(t, err)
	kubectl(t, "label", "node", name, selectedBy+"=false", "--overwrite")
	stays(t, name, says(name, "", "", "true", taintReason))
	expect.NoError(t, is(name, v1alpha1.HostStatusDown)())
	if n := logged(t, "name="+name+" ", "no longer selected"); n != 1 {
		t.Errorf("%d lines report that it is no longer selected", n)
	}
	kubectl(t, "cordon", name)
	kubectl(t, "taint", "nodes", name, taint+"-")
	stays(t, name, says(name, "true", cordonReason, "", ""))
	restart(t, func() { kubectl(t, "uncordon", name) })
	expect.Eventually(t, patience, says(name, "", "", "", ""))
	after, err := get(name)
	expect.NoError(t, err)
	if before.UID != after.UID {
		t.Error("it is another ComputeService")
	}
	deleteNode(t, name)
	expect.Eventually(t, patience, gone(name, after))
	newNode(t, name, func(n *corev1.Node) { n.Labels = map[string]string{selectedBy: "false"} })
	settled(t)
	for _, name := range []string{name, name + "-never"} {
		if err := exists(name)(); client.IgnoreNotFound(err) != nil || err == nil {
			t.Errorf("a Node that was never selected, %s: %v", name, err)
		}
	}
}

// A machine that was replaced may still run: until Kubernetes' garbage collector comes,
// its kubelet renews the Lease of the name that the new one has, and makes it again.
func TestTheKubeletOfAnotherNodeOfTheNameIsNoSignOfLife(t *testing.T) {
	const name = "reborn"
	old := newNode(t, name)
	silence := newKubeletOf(t, old)
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
	before, err := get(name)
	expect.NoError(t, err)
	deleteNode(t, name)
	expect.Eventually(t, patience, gone(name, before))
	node := newNode(t, name)
	expect.Eventually(t, patience, func() error {
		service, err := get(name)
		if err != nil {
			return err
		}
		status := service.Status.HostStatus
		if status != nil && *status == v1alpha1.HostStatusUp {
			t.Fatalf("the new machine is UP by the heartbeats of the old one")
		}
		return is(name, v1alpha1.HostStatusUnknown)()
	})
	settled(t)
	expect.NoError(t, is(name, v1alpha1.HostStatusUnknown)())
	silence()
	newKubeletOf(t, node)
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
}

func TestWhatHappensToNodesWhileNoManagerRunsIsMadeUpFor(t *testing.T) {
	old := map[string]*v1alpha1.ComputeService{}
	for _, name := range []string{"away-deleted", "away-renewed", "away-cordoned"} {
		newNode(t, name)
		expect.Eventually(t, patience, exists(name))
		patch(t, name, `{"spec":{"maintenanceWindow":{"startTime":"2020-01-01T00:00:00Z"}}}`)
		var err error
		old[name], err = get(name)
		expect.NoError(t, err)
	}
	restart(t, func() {
		deleteNode(t, "away-deleted")
		deleteNode(t, "away-renewed")
		newNode(t, "away-renewed")
		newNode(t, "away-new")
		kubectl(t, "cordon", "away-cordoned")
	})
	expect.Eventually(t, patience, gone("away-deleted", old["away-deleted"]))
	expect.Eventually(t, patience, gone("away-renewed", old["away-renewed"]))
	expect.Eventually(t, patience, exists("away-renewed"))
	expect.Eventually(t, patience, exists("away-new"))
	expect.Eventually(t, patience, says("away-cordoned", "true", cordonReason, "", ""))
	renewed, err := get("away-renewed")
	expect.NoError(t, err)
	if renewed.Spec.MaintenanceWindow != nil {
		t.Error("a machine that was set up anew inherits what was said of the old one")
	}
}

func TestANodeWhoseNameNoHostMayHaveIsSaidOnce(t *testing.T) {
	const name = "hoststatus-canary"
	newNode(t, name)
	kubectl(t, "cordon", name)
	settled(t)
	if n := logged(t, "name="+name+" ", "cannot have a ComputeService", "a ComputeService has the name of its host"); n != 1 {
		t.Errorf("%d lines say that it cannot be a host", n)
	}
}

// What `nodeMirror.enabled=false` does, and config/node-leases in place of
// config/node-mirror: the rights to read kubelets' Leases stay.
func TestSwitchedOffTheMirrorLeavesEveryStatus(t *testing.T) {
	const up, cordoned, judged = "left-up", "left-cordoned", "judged-by-the-next-manager"
	newKubelet(t, up)
	newNode(t, up)
	newNode(t, cordoned)
	expect.Eventually(t, patience, is(up, v1alpha1.HostStatusUp))
	kubectl(t, "cordon", cordoned)
	expect.Eventually(t, patience, is(cordoned, v1alpha1.HostStatusMaintenance))

	system.Manager.Stop()
	kubectl(t, "delete", "clusterrolebinding", "hoststatus-node-mirror")
	with := system.ManagerArgs
	system.ManagerArgs = slices.DeleteFunc(slices.Clone(with), func(arg string) bool {
		return strings.HasPrefix(arg, "--mirror-nodes") || arg == "--write-node-conditions"
	})
	off, _, err := system.StartManager("manager-without-mirror")
	expect.NoError(t, err)
	t.Cleanup(func() {
		off.Stop()
		system.ManagerArgs = with
		expect.NoError(t, giveRights(context.Background()))
		expect.NoError(t, system.Manager.Start())
	})

	// It judges by kubelets' Leases, and has had the time to find that of left-up silent.
	silent := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: judged}, Spec: v1alpha1.ComputeServiceSpec{
		LeaseRef: &v1alpha1.LeaseReference{Namespace: corev1.NamespaceNodeLease}, LeaseDurationSeconds: 6,
	}}
	expect.NoError(t, system.Client.Create(t.Context(), silent))
	t.Cleanup(func() { expect.NoError(t, system.Client.Delete(context.Background(), silent)) })
	expect.Eventually(t, patience, func() error {
		service, err := get(judged)
		if err == nil && service.Status.HostStatusReason != v1alpha1.ReasonNeverReported {
			err = fmt.Errorf("%s has reason %q", judged, service.Status.HostStatusReason)
		}
		return err
	})
	expect.NoError(t, is(up, v1alpha1.HostStatusUp)())
	expect.NoError(t, is(cordoned, v1alpha1.HostStatusMaintenance)())
}

func TestWithoutTheRightsOnlyTheMirrorWaits(t *testing.T) {
	restart(t, func() { kubectl(t, "delete", "clusterrolebinding", "hoststatus-node-mirror") })
	t.Cleanup(func() { expect.NoError(t, giveRights(context.Background())) })
	newNode(t, "without-rights")
	const name = "needs-no-mirror"
	other := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ComputeServiceSpec{Disabled: ptr.To(true)}}
	expect.NoError(t, system.Client.Create(t.Context(), other))
	t.Cleanup(func() { expect.NoError(t, system.Client.Delete(context.Background(), other)) })
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusMaintenance))
	if err := exists("without-rights")(); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("a Node is mirrored without rights: %v", err)
	}
	expect.NoError(t, giveRights(t.Context()))
	expect.Eventually(t, patience, exists("without-rights"))
}

// written counts the requests by which specs of ComputeServices were written so far,
// by anybody and to any effect.
func written(t *testing.T) (n float64) {
	t.Helper()
	return requests(t, func(line string) bool {
		if !strings.Contains(line, `resource="computeservices"`) || !strings.Contains(line, `subresource=""`) {
			return false
		}
		for _, verb := range []string{"POST", "PUT", "PATCH", "APPLY", "DELETE"} {
			if strings.Contains(line, `verb="`+verb+`"`) {
				return true
			}
		}
		return false
	})
}

// requests counts the requests so far that the API server has under lines that count.
func requests(t *testing.T, counts func(line string) bool) (n float64) {
	t.Helper()
	raw, err := kube.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	expect.NoError(t, err)
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "apiserver_request_total{") && counts(line) {
			var count float64
			_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &count)
			expect.NoError(t, err)
			n += count
		}
	}
	return n
}

func TestFiveHundredNodes(t *testing.T) {
	const nodes, cordoned = 500, 50
	settled(t)
	before := written(t)
	for i := range nodes {
		newNode(t, fmt.Sprintf("fleet-%03d", i), func(n *corev1.Node) { n.Spec.Unschedulable = i < cordoned })
	}
	all := func(check func(*v1alpha1.ComputeService) bool) func() error {
		return func() error {
			var list v1alpha1.ComputeServiceList
			if err := system.Client.List(context.Background(), &list); err != nil {
				return err
			}
			n := 0
			for i := range list.Items {
				if strings.HasPrefix(list.Items[i].Name, "fleet-") && check(&list.Items[i]) {
					n++
				}
			}
			if n != nodes {
				return fmt.Errorf("%d of %d", n, nodes)
			}
			return nil
		}
	}
	begin := time.Now()
	expect.Eventually(t, patience, all(func(s *v1alpha1.ComputeService) bool {
		return ptr.Deref(s.Spec.Disabled, false) == (s.Name < fmt.Sprintf("fleet-%03d", cordoned))
	}))
	t.Logf("mirrored %v after the last of %d Nodes was there", time.Since(begin).Round(time.Millisecond), nodes)
	// One for each Node, and one more for each that is cordoned, which is decided anew
	// where the first status of the ComputeService has come in between.
	n := written(t) - before
	t.Logf("%v writes", n)
	if n < nodes+cordoned || n > nodes+3*cordoned {
		t.Errorf("%v writes for %d Nodes, of which %d are cordoned", n, nodes, cordoned)
	}

	// Heartbeats of Nodes wake nobody, and a restart writes nothing.
	before = written(t)
	for i := range nodes {
		status := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
		_, err := kube.CoreV1().Nodes().Patch(t.Context(), fmt.Sprintf("fleet-%03d", i), types.StrategicMergePatchType, []byte(status), metav1.PatchOptions{}, "status")
		expect.NoError(t, err)
	}
	restart(t, func() {})
	// When this one is done, all others were looked at before it, but for those in the
	// hands of other workers.
	settled(t)
	if n := written(t) - before; n < 3 || n > 6 {
		t.Errorf("%v writes for heartbeats and a restart; for the 3 new Nodes it takes 3 to 6", n)
	}

	// All cordoned at once, and gone at once.
	before = written(t)
	begin = time.Now()
	for i := range nodes {
		_, err := kube.CoreV1().Nodes().Patch(t.Context(), fmt.Sprintf("fleet-%03d", i), types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
		expect.NoError(t, err)
	}
	patched := time.Now()
	expect.Eventually(t, patience, all(func(s *v1alpha1.ComputeService) bool { return ptr.Deref(s.Spec.Disabled, false) }))
	t.Logf("all cordoned: %v for the Nodes, %v more for their ComputeServices", patched.Sub(begin).Round(time.Millisecond), time.Since(patched).Round(time.Millisecond))
	if n := written(t) - before; n > 2*(nodes-cordoned) {
		t.Errorf("%v writes for %d Nodes", n, nodes-cordoned)
	}
	before = written(t)
	begin = time.Now()
	for i := range nodes {
		deleteNode(t, fmt.Sprintf("fleet-%03d", i))
	}
	deleted := time.Now()
	expect.Eventually(t, patience, func() error {
		var list v1alpha1.ComputeServiceList
		if err := system.Client.List(context.Background(), &list); err != nil {
			return err
		}
		for i := range list.Items {
			if strings.HasPrefix(list.Items[i].Name, "fleet-") {
				return fmt.Errorf("%s is still there", list.Items[i].Name)
			}
		}
		return nil
	})
	t.Logf("all deleted: %v for the Nodes, %v more for their ComputeServices", deleted.Sub(begin).Round(time.Millisecond), time.Since(deleted).Round(time.Millisecond))
	if n := written(t) - before; n > 2*nodes {
		t.Errorf("%v writes to delete %d", n, nodes)
	}
}
