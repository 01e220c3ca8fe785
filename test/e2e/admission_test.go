// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// someone is a user with his clients.
type someone struct {
	leases  func(namespace string) leaseWriter
	servers client.Client
}

type leaseWriter interface {
	Create(context.Context, *coordinationv1.Lease, metav1.CreateOptions) (*coordinationv1.Lease, error)
	Update(context.Context, *coordinationv1.Lease, metav1.UpdateOptions) (*coordinationv1.Lease, error)
	Delete(context.Context, string, metav1.DeleteOptions) error
	Get(context.Context, string, metav1.GetOptions) (*coordinationv1.Lease, error)
}

func newSomeone(t *testing.T, config *rest.Config) someone {
	t.Helper()
	clients, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	servers, err := fleet.NewClient(config)
	expect.NoError(t, err)
	return someone{servers: servers, leases: func(namespace string) leaseWriter { return clients.CoordinationV1().Leases(namespace) }}
}

// hostByCertificate is the agent of a host, known by its certificate.
func hostByCertificate(t *testing.T, name string) someone {
	t.Helper()
	config, err := system.Cluster.ConfigFor("system:hoststatus:host:"+name, "system:hoststatus:hosts")
	expect.NoError(t, err)
	return newSomeone(t, config)
}

// hostByPod is the agent of a host, known by the token of a pod that is bound to
// the node of that name. It may report on servers, as one with a driver may.
func hostByPod(t *testing.T, name string) someone {
	t.Helper()
	const namespace, account = "hoststatus-system", "hoststatus-agent"
	_, err := kube.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "agents-with-a-driver"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "hoststatus-agent"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	pod, err := kube.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "agent-"},
		Spec: corev1.PodSpec{
			NodeName: name, ServiceAccountName: account,
			// As the namespace's pod security standard asks.
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "agent", Image: "agent", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		},
	}, metav1.CreateOptions{})
	expect.NoError(t, err)
	t.Cleanup(func() {
		err := kube.CoreV1().Pods(namespace).Delete(context.Background(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		if err != nil {
			t.Error(err)
		}
	})
	token, err := kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
		}},
	}, metav1.CreateOptions{})
	expect.NoError(t, err)
	config := system.Cluster.ConfigWithToken(token.Status.Token)
	expect.NoError(t, system.Cluster.WaitForRights(t.Context(), config, namespace, "hoststatus-agent"))
	return newSomeone(t, config)
}

// unforeseen is a writer that nobody thought of: he has every right that an agent
// has, and more, but he is no host.
func unforeseen(t *testing.T) someone {
	t.Helper()
	const name = "unforeseen"
	_, err := kube.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"*"}},
			{APIGroups: []string{"compute.hoststatus.dev"}, Resources: []string{"servers/status", "servers"}, Verbs: []string{"*"}},
			{APIGroups: []string{"agent.hoststatus.dev"}, Resources: []string{"hostreports"}, Verbs: []string{"*"}},
		},
	}, metav1.CreateOptions{})
	expect.NoError(t, err)
	_, err = kube.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}},
	}, metav1.CreateOptions{})
	expect.NoError(t, err)
	t.Cleanup(func() {
		ctx := context.Background()
		_ = kube.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{})
		_ = kube.RbacV1().ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{})
	})
	config, err := system.Cluster.ConfigFor(name)
	expect.NoError(t, err)
	expect.NoError(t, system.Cluster.WaitForRights(t.Context(), config, "", name))
	return newSomeone(t, config)
}

// admitted waits until the policies bite: a new one takes seconds.
func admitted(t *testing.T) {
	t.Helper()
	stranger := hostByCertificate(t, "stranger")
	expect.Eventually(t, patience, func() error {
		_, err := stranger.leases(v1alpha1.DefaultLeaseNamespace).Create(t.Context(), lease("not-a-stranger"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("the policy on Leases does not bite yet: %v", err) //nolint:errorlint // nil too
		}
		err = stranger.servers.Create(t.Context(), hostReport("not-a-stranger"), client.DryRunAll)
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("the policy on HostReports does not bite yet: %v", err) //nolint:errorlint // nil too
		}
		return nil
	})
}

func lease(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, RenewTime: ptr.To(metav1.NowMicro())},
	}
}

func hostReport(host string, servers ...agentv1alpha1.ReportedServer) *agentv1alpha1.HostReport {
	return &agentv1alpha1.HostReport{ObjectMeta: metav1.ObjectMeta{Name: host}, Spec: agentv1alpha1.HostReportSpec{Servers: servers}}
}

// report writes the status of a Server, as agents of 0.1 did.
func (s someone) report(namespace, name, patch string) error {
	server := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	return s.servers.Status().Patch(context.Background(), server, client.RawPatch(types.MergePatchType, []byte(patch)))
}

func TestAnAgentWritesForItsOwnHostAndNothingElse(t *testing.T) {
	admitted(t)
	for kind, host := range map[string]func(*testing.T, string) someone{"certificate": hostByCertificate, "pod": hostByPod} {
		t.Run("known by its "+kind, func(t *testing.T) {
			const own, other = "agent-a", "agent-b"
			newService(t, own)
			newService(t, other)
			newServer(t, "team-a", "on-own", own)
			newServer(t, "team-a", "on-other", other)
			newServer(t, "team-a", "on-none", "")
			_, err := leases().Create(t.Context(), lease(other), metav1.CreateOptions{})
			expect.NoError(t, err)
			agent := host(t, own)
			there := agent.leases(v1alpha1.DefaultLeaseNamespace)

			made, err := there.Create(t.Context(), lease(own), metav1.CreateOptions{})
			expect.NoError(t, err)
			made.Spec.RenewTime = ptr.To(metav1.NowMicro())
			_, err = there.Update(t.Context(), made, metav1.UpdateOptions{})
			expect.NoError(t, err)
			expect.NoError(t, system.Client.Create(t.Context(), hostReport(other)))
			for _, name := range []string{own, other} {
				t.Cleanup(func() { _ = system.Client.Delete(context.Background(), hostReport(name)) })
			}
			report := hostReport(own)
			expect.NoError(t, agent.servers.Create(t.Context(), report))
			report.Spec.Servers = []agentv1alpha1.ReportedServer{{Namespace: "team-a", Name: "on-own", State: "ACTIVE"}}
			expect.NoError(t, agent.servers.Update(t.Context(), report))
			expect.NoError(t, agent.servers.Delete(t.Context(), hostReport(own)))
			report.ResourceVersion = ""
			expect.NoError(t, agent.servers.Create(t.Context(), report))

			forbidden := func(what string, err error) {
				t.Helper()
				if !apierrors.IsForbidden(err) {
					t.Errorf("%s: %v, want it forbidden", what, err)
				}
			}
			create := func(l *coordinationv1.Lease, dryRun ...string) error {
				_, err := there.Create(t.Context(), l, metav1.CreateOptions{DryRun: dryRun})
				return err
			}
			// The API server looks for a conflict before it asks the policies, and the
			// manager writes its own Leases several times in a second.
			touch := func(name string) error {
				return retry.RetryOnConflict(retry.DefaultRetry, func() error {
					l, err := leases().Get(t.Context(), name, metav1.GetOptions{})
					expect.NoError(t, err)
					l.Spec.RenewTime = ptr.To(metav1.NowMicro())
					_, err = there.Update(t.Context(), l, metav1.UpdateOptions{})
					return err
				})
			}
			forbidden("renewing another host's Lease", touch(other))
			forbidden("creating another host's Lease", create(lease("agent-c")))
			forbidden("creating another host's Lease by dry-run", create(lease("agent-c"), metav1.DryRunAll))
			generated := lease("")
			generated.GenerateName = own
			forbidden("creating a Lease by generateName", create(generated))
			forbidden("touching the canary", touch(v1alpha1.CanaryLeaseName))
			forbidden("touching the leader's Lease", touch(v1alpha1.LeaderLeaseName))
			forbidden("deleting its own Lease", there.Delete(t.Context(), own, metav1.DeleteOptions{}))
			forbidden("deleting another host's Lease", there.Delete(t.Context(), other, metav1.DeleteOptions{}))
			_, err = agent.leases("default").Create(t.Context(), lease(own), metav1.CreateOptions{})
			forbidden("creating a Lease elsewhere", err)

			others := hostReport(other)
			expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(others), others))
			forbidden("updating another host's report", agent.servers.Update(t.Context(), others))
			forbidden("deleting another host's report", agent.servers.Delete(t.Context(), hostReport(other)))
			forbidden("creating the report of a host that has none", agent.servers.Create(t.Context(), hostReport("agent-c")))
			generatedReport := hostReport("")
			generatedReport.GenerateName = own
			forbidden("creating a report by generateName", agent.servers.Create(t.Context(), generatedReport))
			owned := hostReport(own, report.Spec.Servers...)
			owned.ResourceVersion = report.ResourceVersion
			owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "team-a", UID: "none"}}
			forbidden("giving its report an owner", agent.servers.Update(t.Context(), owned))
			owned.OwnerReferences, owned.Finalizers = nil, []string{"example.com/kept"}
			forbidden("giving its report a finalizer", agent.servers.Update(t.Context(), owned))
			forbidden("patching its report", agent.servers.Patch(t.Context(), hostReport(own), client.RawPatch(types.MergePatchType, []byte(`{"spec":{}}`))))
			forbidden("reading its report", agent.servers.Get(t.Context(), client.ObjectKey{Name: own}, hostReport(own)))
			forbidden("listing reports", agent.servers.List(t.Context(), &agentv1alpha1.HostReportList{}))
			forbidden("deleting all reports", agent.servers.DeleteAllOf(t.Context(), hostReport("")))

			var server v1alpha1.Server
			server.Namespace, server.Name = "team-a", "on-own"
			forbidden("reporting on its own server as agents of 0.1 did", agent.report("team-a", "on-own", `{"status":{"powerState":"RUNNING"}}`))
			forbidden("writing a server", agent.servers.Patch(t.Context(), &server, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"host":""}}`))))
			forbidden("reading a server", agent.servers.Get(t.Context(), client.ObjectKeyFromObject(&server), &server))
			forbidden("listing servers", agent.servers.List(t.Context(), &v1alpha1.ServerList{}))
			forbidden("listing hosts", agent.servers.List(t.Context(), &v1alpha1.ComputeServiceList{}))
		})
	}
}

func TestAWriterThatNobodyThoughtOfIsRefused(t *testing.T) {
	admitted(t)
	newServer(t, "team-a", "unforeseen", "")
	writer := unforeseen(t)
	there := writer.leases(v1alpha1.DefaultLeaseNamespace)
	var err error
	expect.Eventually(t, patience, func() error { // Until his role has arrived.
		_, getErr := there.Get(t.Context(), "compute-1", metav1.GetOptions{})
		return getErr
	})
	const who = "manage computeservices.compute.hoststatus.dev"
	if _, err = there.Create(t.Context(), lease("unforeseen"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), who) {
		t.Errorf("creating a Lease: %v", err)
	}
	if err = there.Delete(t.Context(), "compute-1", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), who) {
		t.Errorf("deleting a Lease: %v", err)
	}
	if err = writer.servers.Create(t.Context(), hostReport("unforeseen")); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), who) {
		t.Errorf("creating a HostReport: %v", err)
	}
	if err = writer.servers.Delete(t.Context(), hostReport("compute-1")); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), who) {
		t.Errorf("deleting a HostReport: %v", err)
	}
	if err = writer.report("team-a", "unforeseen", `{"status":{"hostStatus":"UP"}}`); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), who) {
		t.Errorf("writing a server's host status: %v", err)
	}
}

// While agents of 0.1 are let go on, they may do what they could in 0.1.
func TestAgentsOf01MayReportWhereTheyAreLetGoOn(t *testing.T) {
	admitted(t)
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	apply := func(files ...string) {
		t.Helper()
		args := []string{"apply", "--server-side", "--force-conflicts"}
		for _, file := range files {
			args = append(args, "-f", filepath.Join(root, "config", file))
		}
		if out, err := kubectl(t, args...); err != nil {
			t.Fatal(out)
		}
	}
	const own, other = "agent-a", "agent-b"
	newService(t, own)
	newServer(t, "team-a", "on-own", own)
	newServer(t, "team-a", "on-other", other)
	newServer(t, "team-a", "on-none", "")
	t.Cleanup(func() {
		for _, args := range [][]string{
			{"apply", "--server-side", "--force-conflicts", "-f", filepath.Join(root, "config", "admission", "reports.yaml")},
			{"delete", "-f", filepath.Join(root, "config", "agents-before-0.2", "rbac.yaml")},
		} {
			if out, err := system.Kubectl(context.Background(), args...).CombinedOutput(); err != nil {
				t.Errorf("%s", out)
			}
		}
	})
	agent := hostByCertificate(t, own)
	apply("agents-before-0.2/policy.yaml", "agents-before-0.2/rbac.yaml")
	expect.Eventually(t, patience, func() error {
		return agent.report("team-a", "on-own", `{"status":{"state":"ACTIVE","taskState":"rebooting","powerState":"RUNNING","networks":[{"name":"a"}]}}`)
	})
	forbidden := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
	forbidden("reporting on another host's server", agent.report("team-a", "on-other", `{"status":{"powerState":"RUNNING"}}`))
	forbidden("reporting on a server on no host", agent.report("team-a", "on-none", `{"status":{"powerState":"RUNNING"}}`))
	// Every field of the status that is not an agent's, whichever there will be.
	for field, value := range ownedByTheManager(t) {
		forbidden("writing status."+field, agent.report("team-a", "on-own", fmt.Sprintf(`{"status":{%q:%s}}`, field, value)))
	}
}

// reportedByAgents are the fields of a Server's status that are an agent's.
var reportedByAgents = []string{"state", "taskState", "powerState", "networks"}

// ownedByTheManager returns the other fields, each with a value that the schema
// accepts and that no server has by itself.
func ownedByTheManager(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[v1alpha1.ServerStatus]()) {
		if field.Anonymous {
			continue // Its own fields come by themselves.
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if slices.Contains(reportedByAgents, name) {
			continue
		}
		value, err := json.Marshal(anotherValue(t, name))
		expect.NoError(t, err)
		values[name] = string(value)
	}
	return values
}

func anotherValue(t *testing.T, field string) any {
	t.Helper()
	switch field {
	case "hostStatus":
		return v1alpha1.HostStatusDown
	case "hostStatusReason":
		return v1alpha1.ReasonForcedDown
	case "hostStatusTransitionTime":
		return "2001-01-01T00:00:00Z"
	case "hostReporting":
		return v1alpha1.HostReportingFalse
	case "maintenanceWindow":
		return map[string]string{"startTime": "2001-01-01T00:00:00Z"}
	case "hostHistory":
		return []map[string]string{{"hostStatus": "DOWN", "since": "2001-01-01T00:00:00Z"}}
	case "observedGeneration":
		return 1_000_000
	case "hostVersion":
		return "1000000"
	default:
		t.Fatalf("status.%s is new: give it a value here, and a line in config/agents-before-0.2/policy.yaml unless agents report it", field)
		return nil
	}
}
