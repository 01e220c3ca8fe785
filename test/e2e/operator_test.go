// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// soon is how long all servers of a host may take to show what an operator says.
const soon = time.Second

func TestWhatAnOperatorSaysReachesAllServersOfAHostWithinASecond(t *testing.T) {
	const servers = 100
	one := newService(t, "busy-1")
	newService(t, "busy-2")
	newHost(t, "busy-1", time.Minute, 10*time.Second, 0)
	newHost(t, "busy-2", time.Minute, 10*time.Second, 0)
	// A watch, since lists in a loop would keep the API server from the writes.
	seen := newRecord(t, &v1alpha1.ServerList{})
	names := make([]string, servers)
	for i := range names {
		names[i] = fmt.Sprintf("on-busy-%03d", i)
		newServer(t, "team-b", names[i], "busy-1")
	}
	all := func(want v1alpha1.HostStatus) func() error {
		return func() error {
			for _, name := range names {
				if got := seen.latest(name); got != string(want) {
					return fmt.Errorf("server %s has host status %s, not %s", name, got, want)
				}
			}
			return nil
		}
	}
	expect.Eventually(t, patience, all(v1alpha1.HostStatusUp))
	for _, step := range []struct {
		patch string
		want  v1alpha1.HostStatus
	}{
		{`{"spec":{"forcedDown":true}}`, v1alpha1.HostStatusDown},
		{`{"spec":{"disabled":true}}`, v1alpha1.HostStatusDown},
		{`{"spec":{"forcedDown":null}}`, v1alpha1.HostStatusMaintenance},
		{`{"spec":{"disabled":false}}`, v1alpha1.HostStatusUp},
	} {
		// A machine that is busy with other things is slow for anybody who writes, now more
		// and now less.
		before := writeEach(t, names)
		begin := time.Now()
		patch(t, one, step.patch)
		expect.Eventually(t, patience, all(step.want))
		took := time.Since(begin)
		bare := max(before, writeEach(t, names))
		t.Logf("%s: all %d servers are %s after %v; a bare loop took %v", step.patch, servers, step.want, took.Round(time.Millisecond), bare.Round(time.Millisecond))
		if took > max(soon, 3*bare) {
			t.Errorf("%s: all servers are %s after %v, which is more than %v and three times a bare loop's %v", step.patch, step.want, took, soon, bare)
		}
	}
}

// writeEach writes the status of each server in team-b, as many at once as the
// manager does, and returns how long that took.
func writeEach(t *testing.T, names []string) time.Duration {
	t.Helper()
	begin := time.Now()
	parallel(t, names, 16, func(name string) {
		server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-b", Name: name}}
		body := fmt.Sprintf(`{"status":{"taskState":"written-%d"}}`, begin.UnixNano())
		if err := system.Client.Status().Patch(t.Context(), server, client.RawPatch(types.MergePatchType, []byte(body))); err != nil {
			t.Error(err)
		}
	})
	return time.Since(begin)
}

func TestAMoveFromAnUpHostToAnUpHostKeepsSinceWhen(t *testing.T) {
	down := newService(t, "move-3", func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = ptr.To(true) })
	for _, name := range []string{"move-1", "move-2"} {
		newService(t, name)
		newHost(t, name, time.Minute, 10*time.Second, 0)
	}
	server := newServer(t, "team-a", "mover", "move-1")
	expect.Eventually(t, patience, serverIs("team-a", "mover", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
	since := func() time.Time {
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(server), server))
		return server.Status.HostStatusTransitionTime.Time
	}
	before := since()
	expect.Eventually(t, patience, func() error { // Times are in whole seconds.
		if time.Since(before) < 2*time.Second {
			return errors.New("too soon to tell")
		}
		return nil
	})
	moved := func() error {
		if err := system.Client.Get(t.Context(), client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		if server.Status.ObservedGeneration != server.Generation {
			return fmt.Errorf("generation %d, observed %d", server.Generation, server.Status.ObservedGeneration)
		}
		return nil
	}
	patch(t, server, `{"spec":{"host":"move-2"}}`)
	expect.Eventually(t, patience, moved)
	if after := since(); !after.Equal(before) {
		t.Errorf("the move changed hostStatusTransitionTime from %v to %v", before, after)
	}
	patch(t, server, `{"spec":{"host":"`+down.Name+`"}}`)
	expect.Eventually(t, patience, serverIs("team-a", "mover", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown))
	if after := since(); !after.After(before) {
		t.Errorf("the move to a host that is down kept hostStatusTransitionTime %v", before)
	}
	patch(t, server, `{"spec":{"host":""}}`)
	expect.Eventually(t, patience, serverIs("team-a", "mover", v1alpha1.HostStatusNone, v1alpha1.ReasonNoHost))
	if server.Status.HostReporting != "" {
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(server), server))
		if server.Status.HostReporting != "" {
			t.Errorf("a server on no host has hostReporting %s", server.Status.HostReporting)
		}
	}
}

func TestAServerBecomesRightWhateverTheOrderOfCreation(t *testing.T) {
	newHost(t, "later", time.Minute, 10*time.Second, 0)
	newServer(t, "team-a", "early", "later")
	expect.Eventually(t, patience, serverIs("team-a", "early", v1alpha1.HostStatusNone, v1alpha1.ReasonHostNotFound))
	newService(t, "later")
	expect.Eventually(t, patience, serverIs("team-a", "early", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
	newServer(t, "team-a", "late", "later")
	expect.Eventually(t, patience, serverIs("team-a", "late", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
}

func TestAHostThatNeverReportsWaitsAndIsUnknownThen(t *testing.T) {
	t.Parallel()
	newServer(t, "team-a", "on-mute", "mute")
	service := newService(t, "mute", withDuration(3*time.Second))
	expect.Eventually(t, patience, func() error {
		var server v1alpha1.Server
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "on-mute"}, &server))
		if server.Status.HostStatus != nil || server.Status.HostStatusReason != v1alpha1.ReasonWaitingForHeartbeat {
			return fmt.Errorf("host status %s (%s)", fleet.Show(server.Status.HostStatus), server.Status.HostStatusReason)
		}
		return nil
	})
	expect.Eventually(t, patience, serverIs("team-a", "on-mute", v1alpha1.HostStatusUnknown, v1alpha1.ReasonNeverReported))
	patch(t, service, `{"spec":{"leaseRef":{"namespace":"elsewhere"}}}`)
	expect.Eventually(t, patience, serverIs("team-a", "on-mute", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseNotReadable))
}

func TestAKubeletsLeaseMakesTheKubeletTheReporter(t *testing.T) {
	t.Parallel()
	newServer(t, "team-a", "on-node", "node-1")
	kubelet := newReporter(t, kube.CoordinationV1().Leases(corev1.NamespaceNodeLease), "node-1", 4*time.Second, time.Second, 0)
	newService(t, "node-1", func(s *v1alpha1.ComputeService) {
		s.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: corev1.NamespaceNodeLease}
	})
	expect.Eventually(t, patience, serverIs("team-a", "on-node", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
	kubelet.stop()
	expect.Eventually(t, patience, serverIs("team-a", "on-node", v1alpha1.HostStatusUnknown, v1alpha1.ReasonLeaseExpired))
}

func TestAStatusWrittenByHandIsPutRight(t *testing.T) {
	service := newService(t, "repaired")
	newHost(t, "repaired", time.Minute, 10*time.Second, 0)
	server := newServer(t, "team-a", "on-repaired", "repaired")
	right := serverIs("team-a", "on-repaired", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting)
	expect.Eventually(t, patience, right)
	for _, obj := range []client.Object{service, server} {
		for _, body := range []string{`{"status":null}`, `{"status":{"hostStatus":"DOWN","hostStatusReason":"ForcedDown"}}`} {
			expect.NoError(t, system.Client.Status().Patch(t.Context(), obj, client.RawPatch("application/merge-patch+json", []byte(body))))
			expect.Eventually(t, patience, hostIs("repaired", v1alpha1.HostStatusUp))
			expect.Eventually(t, patience, right)
		}
	}
}

func TestClearingAFlagAlwaysWorksAndNobodyOwnsAFieldThatNobodySet(t *testing.T) {
	newService(t, "flags", func(s *v1alpha1.ComputeService) {
		s.Spec.Disabled, s.Spec.DisabledReason = ptr.To(true), ptr.To(strings.Repeat("x", 256))
		s.Spec.ForcedDownReason = ptr.To("none")
	})
	if out, err := kubectl(t, "patch", "computeservice", "flags", "--type", "merge", "-p", `{"spec":{"disabled":false}}`); err != nil {
		t.Fatal(out)
	}

	manifest := t.TempDir() + "/manifest.yaml"
	write(t, manifest, "apiVersion: compute.hoststatus.dev/v1alpha1\nkind: ComputeService\nmetadata:\n  name: gitops\nspec:\n  leaseDurationSeconds: 60\n")
	fence := t.TempDir() + "/fence.yaml"
	write(t, fence, "apiVersion: compute.hoststatus.dev/v1alpha1\nkind: ComputeService\nmetadata:\n  name: gitops\nspec:\n  forcedDown: true\n  forcedDownReason: fenced\n")
	t.Cleanup(func() {
		_ = system.Client.Delete(context.Background(), &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "gitops"}})
	})
	for _, args := range [][]string{
		{"apply", "--server-side", "--field-manager=gitops", "-f", manifest},
		{"apply", "--server-side", "--field-manager=fencing-tool", "-f", fence},
		{"apply", "--server-side", "--field-manager=gitops", "-f", manifest},
	} {
		if out, err := kubectl(t, args...); err != nil {
			t.Fatalf("kubectl %v: %s", args, out)
		}
	}
	expect.Eventually(t, patience, hostIs("gitops", v1alpha1.HostStatusDown))
}

func TestFieldSelectorsFilterOnTheServer(t *testing.T) {
	newService(t, "fenced", func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = ptr.To(true) })
	newServer(t, "team-a", "selected", "fenced")
	expect.Eventually(t, patience, serverIs("team-a", "selected", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown))
	for _, selector := range []string{"status.hostStatus=DOWN", "spec.host=fenced"} {
		out, err := kubectl(t, "get", "servers.compute", "-A", "--field-selector", selector, "-o", "name")
		if err != nil || strings.TrimSpace(out) != "server.compute.hoststatus.dev/selected" {
			t.Errorf("%s selects %q, %v", selector, out, err)
		}
	}
}

func TestKubectlWaitWorksAndObservedGenerationFollows(t *testing.T) {
	service := newService(t, "waited")
	server := newServer(t, "team-a", "vm1", "waited")
	newHost(t, "waited", time.Minute, 10*time.Second, 0)
	if out, err := kubectl(t, "wait", "--for=jsonpath={.status.hostStatus}=UP", "servers.compute/vm1", "-n", "team-a", "--timeout=10s"); err != nil {
		t.Fatal(out)
	}
	// Neither changes anything but the generation.
	patch(t, server, `{"spec":{"providerID":"test:///1"}}`)
	patch(t, service, `{"spec":{"disabledReason":"not disabled"}}`)
	expect.Eventually(t, patience, func() error {
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(server), server))
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(service), service))
		if server.Generation != 2 || service.Generation != 2 {
			return fmt.Errorf("generations %d and %d, want 2", server.Generation, service.Generation)
		}
		if server.Status.ObservedGeneration != 2 || service.Status.ObservedGeneration != 2 {
			return fmt.Errorf("observed generations %d and %d, want 2", server.Status.ObservedGeneration, service.Status.ObservedGeneration)
		}
		for _, c := range service.Status.Conditions {
			if c.ObservedGeneration != 2 {
				return fmt.Errorf("condition %s has observed generation %d, want 2", c.Type, c.ObservedGeneration)
			}
		}
		return nil
	})
}

func TestTheTablesHaveTheirColumns(t *testing.T) {
	for resource, want := range map[string]string{
		"servers.compute": "NAME STATUS TASK STATE POWER STATE HOST HOST STATUS AGE",
		"computeservices": "NAME DISABLED FORCED DOWN REPORTING HOST STATUS REASON SINCE",
	} {
		out, err := kubectl(t, "get", resource, "-n", "team-a")
		if err != nil {
			t.Fatal(out)
		}
		head, _, _ := strings.Cut(out, "\n")
		if got := strings.Join(strings.Fields(head), " "); got != want {
			t.Errorf("columns of %s: %s, want %s", resource, got, want)
		}
	}
	for _, field := range []string{"computeservices.spec.leaseDurationSeconds", "servers.status.hostReporting"} {
		if out, err := kubectl(t, "explain", "--api-version=compute.hoststatus.dev/v1alpha1", field); err != nil || !strings.Contains(out, "DESCRIPTION") {
			t.Errorf("kubectl explain %s: %s", field, out)
		}
	}
}

func TestTheLocalControlPlaneBehavesLikeACluster(t *testing.T) {
	out, err := kubectl(t, "version")
	if err != nil || strings.Count(out, "v1.36.3") != 2 {
		t.Errorf("kubectl version: %s", out)
	}

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "short-lived"}}
	_, err = kube.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	expect.NoError(t, err)
	newServer(t, "short-lived", "within", "")
	expect.NoError(t, kube.CoreV1().Namespaces().Delete(t.Context(), "short-lived", metav1.DeleteOptions{}))
	expect.Eventually(t, patience, func() error {
		_, err := kube.CoreV1().Namespaces().Get(t.Context(), "short-lived", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the namespace is still there: %w", err)
		}
		return nil
	})

	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "aggregated", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"example.org"}, Resources: []string{"things"}, Verbs: []string{"get"}}},
	}
	_, err = kube.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	expect.NoError(t, err)
	expect.Eventually(t, patience, func() error {
		view, err := kube.RbacV1().ClusterRoles().Get(t.Context(), "view", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, rule := range view.Rules {
			if len(rule.APIGroups) == 1 && rule.APIGroups[0] == "example.org" {
				return nil
			}
		}
		return errors.New("view does not have the rule yet")
	})
}

func TestAChangeInTheFakeDriversFileArrives(t *testing.T) {
	write(t, system.DriverFile("compute-3"), "servers:\n- namespace: team-a\n  name: web-3\n  state: PAUSED\n  taskState: powering-off\n  powerState: PAUSED\n")
	expect.Eventually(t, patience, func() error {
		var server v1alpha1.Server
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "web-3"}, &server))
		if s := server.Status; s.State != "PAUSED" || s.TaskState != "powering-off" || s.PowerState != "PAUSED" || len(s.Networks) != 0 || s.HostStatus == nil {
			return fmt.Errorf("status is %+v", s)
		}
		return nil
	})
}
