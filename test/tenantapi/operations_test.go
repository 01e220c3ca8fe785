// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

func TestThePlainWordServersMeansTheOwnersView(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", secretHost)
	admin := administrator(t)
	if out := admin.mustKubectl(t, "get", "servers", "-n", namespace, "-o", "name"); out != "server.tenant.hoststatus.dev/web\n" {
		t.Errorf("servers are %s", out)
	}
	if out := admin.mustKubectl(t, "get", "servers.compute", "-n", namespace, "-o", "name"); out != "server.compute.hoststatus.dev/web\n" {
		t.Errorf("servers.compute are %s", out)
	}
}

func TestKubectlExplainsTheFields(t *testing.T) {
	// kube-apiserver fetches the OpenAPI of an aggregated API every minute at worst.
	expect.Eventually(t, 2*time.Minute, func() error {
		if out, err := administrator(t).kubectl(t, "explain", "servers.status.hostID"); err != nil || !strings.Contains(out, "FIELD: hostID") {
			return fmt.Errorf("kubectl explain says %s", out)
		}
		return nil
	})
}

func TestTheBuiltInRoleViewReadsServersWithoutHostStatus(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", secretHost, withHostStatus(computev1alpha1.HostStatusUp))
	p := newPerson(t)
	bind(t, p, "view", namespace)
	if s := p.server(t, namespace, "web"); s.Status.HostStatus != nil {
		t.Error("view sees host status")
	}
	for _, role := range []string{viewer, statusViewer, unknownViewer} {
		r := &rbacv1.ClusterRole{}
		expect.NoError(t, env.admin.Get(t.Context(), client.ObjectKey{Name: role}, r))
		for _, rule := range r.Rules {
			if len(rule.APIGroups) != 1 || rule.APIGroups[0] != "tenant.hoststatus.dev" {
				t.Errorf("%s gives rights in %v", role, rule.APIGroups)
			}
		}
	}
	if out, err := p.kubectl(t, "get", "servers.compute", "-n", namespace); err == nil {
		t.Errorf("an owner reads the custom resources: %s", out)
	}
}

func TestADeletionIsShownAndTheGarbageCollectorCompletesIt(t *testing.T) {
	namespace := newNamespace(t)
	p := newPerson(t)
	bind(t, p, viewer, namespace)

	held := putServer(t, namespace, "held", secretHost, func(s *computev1alpha1.Server) { s.Finalizers = []string{"hidden.example.com/vm"} })
	w := p.watch(t, namespace, "resourceVersion="+p.list(t, namespace, "").ResourceVersion, "")
	expect.NoError(t, env.admin.Delete(t.Context(), held))
	e := w.next(t, limit)
	if s := e.server(t); e.Type != "MODIFIED" || s.DeletionTimestamp == nil || len(s.Finalizers) > 0 {
		t.Errorf("the deletion delivers %s %s", e.Type, e.Object)
	}
	if s := p.server(t, namespace, "held"); s.DeletionTimestamp == nil || s.DeletionGracePeriodSeconds == nil || len(s.Finalizers) > 0 {
		t.Errorf("a server that is being deleted is %v", s.ObjectMeta)
	}
	expect.NoError(t, env.admin.Get(t.Context(), client.ObjectKeyFromObject(held), held))
	held.Finalizers = nil
	expect.NoError(t, env.admin.Update(t.Context(), held))

	owner := putServer(t, namespace, "owner", secretHost)
	dependent := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "dependent", Namespace: namespace, OwnerReferences: []metav1.OwnerReference{{
		APIVersion: "tenant.hoststatus.dev/v1alpha1", Kind: "Server", Name: owner.Name, UID: owner.UID, BlockOwnerDeletion: ptr.To(true),
	}}}}
	expect.NoError(t, env.admin.Create(t.Context(), dependent))
	expect.NoError(t, env.admin.Delete(t.Context(), owner, client.PropagationPolicy(metav1.DeletePropagationForeground)))
	for _, object := range []client.Object{dependent, owner} {
		// The garbage collector looks for new kinds every 30 s.
		expect.Eventually(t, 2*time.Minute, func() error {
			if err := env.admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s is still there, with finalizers %v: %w", object.GetName(), object.GetFinalizers(), err)
			}
			return nil
		})
	}
}

// What the pages for owners and administrators say about the plain word while nobody
// serves the view.
func TestWhatThePlainWordServersMeansWhileTheViewIsAway(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", secretHost)
	owner, admin := newPerson(t), administrator(t)
	bind(t, owner, viewer, namespace)
	ask := func(p *person, word string) string {
		out, _ := p.kubectl(t, "get", word, "-n", namespace, "--cache-dir="+filepath.Join(env.dir, "cache-"+p.name))
		return out
	}
	const plain, sure = "servers", "servers.tenant.hoststatus.dev"
	check := func(when string, p *person, word, want string) {
		t.Helper()
		if got := ask(p, word); !strings.Contains(got, want) {
			t.Errorf("%s: %s are for %s\n%swant %q", when, word, p.name, got, want)
		}
	}
	env.balancer.use()
	env.balancer.drop()
	back := func() {
		env.balancer.use(env.replicas[0])
		env.balancer.drop()
		waitReady(t, env.replicas[0])
	}
	t.Cleanup(back)
	expect.NoError(t, env.kubectl(t.Context(), "wait", "--for=condition=Available=false", "--timeout=60s", "apiservice/v1alpha1.tenant.hoststatus.dev").Run())
	const custom = "servers.compute.hoststatus.dev is forbidden"
	// The API server's own list of what there is follows the condition after a moment.
	expect.Eventually(t, patience, func() error {
		expect.NoError(t, os.RemoveAll(filepath.Join(env.dir, "cache-"+owner.name)))
		if out := ask(owner, plain); !strings.Contains(out, custom) {
			return fmt.Errorf("the plain word is answered %s", out)
		}
		return nil
	})
	check("while it is away", admin, plain, secretHost)
	for _, p := range []*person{owner, admin} {
		out := ask(p, sure)
		if strings.Contains(out, secretHost) || strings.Contains(out, "compute.hoststatus.dev") || !strings.Contains(strings.ToLower(out), "error") {
			t.Errorf("while it is away %s are for %s\n%s", sure, p.name, out)
		}
		t.Logf("while it is away %s are for %s\n%s", sure, p.name, out)
	}
	back()
	// kubectl goes on with what it has remembered, and forgets it when it is asked to.
	check("with the memory of then", owner, plain, custom)
	check("with the memory of then", owner, sure, "web")
	check("with the memory of then", admin, plain, secretHost)
	for _, p := range []*person{owner, admin} {
		p.mustKubectl(t, "api-resources", "--api-group=tenant.hoststatus.dev", "--cache-dir="+filepath.Join(env.dir, "cache-"+p.name))
		check("after the cure", p, plain, "xnet=10.0.0.4")
	}
}

func TestADeadAPIServiceHoldsNamespacesUntilItIsUnregistered(t *testing.T) {
	dead, free := newNamespace(t), newNamespace(t)
	remove := func(name string) {
		expect.NoError(t, env.admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	find := func(name string) *corev1.Namespace {
		object := &corev1.Namespace{}
		if err := env.admin.Get(t.Context(), client.ObjectKey{Name: name}, object); err != nil {
			return nil
		}
		return object
	}
	env.balancer.use()
	env.balancer.drop()
	t.Cleanup(func() {
		env.balancer.use(env.replicas[0])
		ctx := context.WithoutCancel(t.Context())
		if err := env.apply(ctx, filepath.Join(env.dir, "tenant-apiserver-manifests")); err != nil {
			t.Error(err)
		}
		restart(t, env.replicas[0]) // It fills in the new APIService's caBundle.
	})
	expect.NoError(t, env.kubectl(t.Context(), "wait", "--for=condition=Available=false", "--timeout=60s", "apiservice/v1alpha1.tenant.hoststatus.dev").Run())
	remove(dead)
	expect.Eventually(t, patience, func() error {
		if object := find(dead); object != nil {
			for _, c := range object.Status.Conditions {
				if c.Type == corev1.NamespaceDeletionDiscoveryFailure && c.Status == corev1.ConditionTrue && strings.Contains(c.Message, "tenant.hoststatus.dev") {
					return nil
				}
			}
			return fmt.Errorf("conditions %v", object.Status.Conditions)
		}
		return fmt.Errorf("the namespace is gone")
	})
	expect.NoError(t, env.kubectl(t.Context(), "delete", "apiservice", "v1alpha1.tenant.hoststatus.dev").Run())
	remove(free)
	for _, namespace := range []string{dead, free} {
		expect.Eventually(t, 90*time.Second, func() error {
			if find(namespace) != nil {
				return fmt.Errorf("namespace %s is still there", namespace)
			}
			return nil
		})
	}
}

func TestAServerIsNotReadyBeforeItKnowsTheFrontProxy(t *testing.T) {
	name := fmt.Sprintf("apiserver-%d", env.users.Add(1))
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}
	give := func(kind, role, namespace string) {
		t.Helper()
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}
		meta := metav1.ObjectMeta{GenerateName: name + "-", Namespace: namespace}
		var object client.Object = &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
		if namespace == "" {
			object = &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
		}
		expect.NoError(t, env.admin.Create(t.Context(), object))
	}
	give("ClusterRole", "hoststatus-tenant-apiserver", "")
	give("Role", "hoststatus-tenant-apiserver", "hoststatus-system")
	give("Role", "hoststatus-tenant-apiserver", "hoststatus-leases")

	config, err := env.cluster.ConfigFor(name)
	expect.NoError(t, err)
	kubeconfig := filepath.Join(env.dir, name+".kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, config))
	ports, err := controlplane.FreePorts(1)
	expect.NoError(t, err)
	process := controlplane.NewProcess(name, filepath.Join(env.dir, "tenant-apiserver"), filepath.Join(env.dir, name+".log"), os.Environ(),
		"--kubeconfig="+kubeconfig, "--bind-address=127.0.0.1", "--secure-port="+ports[0], "--shutdown-delay=0s")
	expect.NoError(t, process.Start())
	t.Cleanup(process.Stop)

	admin, err := env.cluster.AdminConfig()
	expect.NoError(t, err)
	pair, err := tls.X509KeyPair(admin.CertData, admin.KeyData)
	expect.NoError(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}                                   // loopback, in a test
	with := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}} // loopback, in a test
	defer transport.CloseIdleConnections()
	defer with.CloseIdleConnections()
	probe := func(rt http.RoundTripper, path string) (int, string, error) {
		response, err := (&http.Client{Transport: rt, Timeout: 10 * time.Second}).Get("https://127.0.0.1:" + ports[0] + path)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, string(body), err
	}
	// All but the front proxy's authority is there: that alone keeps it from being ready.
	expect.Eventually(t, patience, func() error {
		code, body, err := probe(transport, "/readyz?verbose")
		if err != nil || code == http.StatusOK || !strings.Contains(body, "[-]front-proxy-ca failed") || !strings.Contains(body, "[+]servers ok") {
			return fmt.Errorf("readyz: %d %s %w", code, body, err)
		}
		return nil
	})
	// It may not ask who may do what either, so it refuses everybody.
	if code, body, err := probe(with, pathOf("default")); err != nil || code == http.StatusOK {
		t.Errorf("a server that can ask nobody answers %d %s %v", code, body, err)
	}
	give("ClusterRole", "system:auth-delegator", "")
	give("Role", "extension-apiserver-authentication-reader", "kube-system")
	expect.Eventually(t, patience, func() error {
		code, body, err := probe(transport, "/readyz?verbose")
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("readyz: %d %s %w", code, body, err)
		}
		return nil
	})
}

func TestAnswersWithHostStatusWarnWhenTheManagerIsGone(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", "host-1", withHostStatus(computev1alpha1.HostStatusUnknown))
	granted, ungranted := newPerson(t), newPerson(t)
	bind(t, granted, viewer, namespace)
	bind(t, granted, statusViewer, namespace)
	bind(t, ungranted, viewer, namespace)

	manager := startManager(t)
	t.Cleanup(func() { expect.NoError(t, env.renewCanary(context.WithoutCancel(t.Context()))) })
	lease := &coordinationv1.Lease{}
	key := client.ObjectKey{Namespace: computev1alpha1.DefaultLeaseNamespace, Name: computev1alpha1.CanaryLeaseName}
	expect.Eventually(t, patience, func() error {
		expect.NoError(t, env.admin.Get(t.Context(), key, lease))
		if *lease.Spec.HolderIdentity == "test" {
			return fmt.Errorf("the manager has written no canary")
		}
		return nil
	})
	holds := time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
	paths := []string{pathOf(namespace), pathOf(namespace, "web"), pathOf(namespace, "web", "status"), pathOf(namespace) + "?resourceVersion=0"}
	for _, path := range paths {
		if a := granted.get(t, path, ""); a.code != http.StatusOK || len(a.warnings) > 0 {
			t.Errorf("with the manager running %s is answered %d with %v", path, a.code, a.warnings)
		}
	}
	killed := time.Now()
	manager.Kill()
	for _, path := range paths {
		expect.Eventually(t, holds+time.Second, func() error {
			if a := granted.get(t, path, ""); len(a.warnings) != 1 || !strings.Contains(a.warnings[0], "host status may be out of date") {
				return fmt.Errorf("%s is answered with the warnings %v", path, a.warnings)
			}
			return nil
		})
	}
	t.Logf("the canary holds for %s; all answers warned %s after the manager was killed", holds, time.Since(killed))
	if a := ungranted.get(t, pathOf(namespace), ""); len(a.warnings) > 0 {
		t.Errorf("an answer without host status warns: %v", a.warnings)
	}
	if out := granted.mustKubectl(t, "get", "servers", "-n", namespace); !strings.Contains(out, "Warning: host status may be out of date") {
		t.Errorf("kubectl prints %s", out)
	}
}

func startManager(t *testing.T) *controlplane.Process {
	t.Helper()
	config, err := env.cluster.ConfigFor("system:serviceaccount:hoststatus-system:hoststatus-manager", "system:serviceaccounts", "system:serviceaccounts:hoststatus-system")
	expect.NoError(t, err)
	kubeconfig := filepath.Join(env.dir, "manager.kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, config))
	manager := controlplane.NewProcess("manager", filepath.Join(env.dir, "manager"), filepath.Join(env.dir, "manager.log"), os.Environ(),
		"--kubeconfig="+kubeconfig, "--metrics-bind-address=0", "--health-probe-bind-address=0", "--webhook-bind-address=0")
	expect.NoError(t, manager.Start())
	t.Cleanup(manager.Stop)
	return manager
}
