// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/vmimirror"
	"hoststatus.dev/hoststatus/internal/notify"
	"hoststatus.dev/hoststatus/test/framework/docs"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// additions are the parts that 0.1 does not have: nova-api, the notifier with a sink of each
// kind, and the mirrors of Nodes and of VirtualMachineInstances.
type additions struct {
	*fleet.Fleet
	kube     kubernetes.Interface
	nova     string
	notifier *fleet.Notifier
	config   string
	bus      bus
	pager    pager
	// answered is what nova-api answered, by server.
	answered map[string]string
}

// tenant is where the VirtualMachineInstances are.
const tenant = "team-a"

// nodes are the Nodes. On each runs a VirtualMachineInstance of the same name.
var nodes = []struct {
	name string
	want v1alpha1.HostStatus
	// silent is set if its kubelet has stopped.
	silent bool
	change func(*corev1.Node)
}{
	{nodeByHand, v1alpha1.HostStatusUp, false, nil},
	{nodeGone, v1alpha1.HostStatusUp, false, nil},
	{nodeUp, v1alpha1.HostStatusUp, false, nil},
	{"node-silent", v1alpha1.HostStatusUnknown, true, nil},
	{nodeCordoned, v1alpha1.HostStatusMaintenance, false, func(n *corev1.Node) { n.Spec.Unschedulable = true }},
	{nodeMoved, v1alpha1.HostStatusMaintenance, false, func(n *corev1.Node) { n.Spec.Unschedulable = true }},
	{"node-off", v1alpha1.HostStatusDown, true, func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}}
	}},
	{nodePlanned, v1alpha1.HostStatusNeedsMaintenance, false, func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMaintenancePlanned, Status: corev1.ConditionTrue, Reason: "NewDisks"}}
	}},
}

const (
	nodeUp       = "node-up"
	nodeCordoned = "node-cordoned"
	// nodePlanned has a window without a time, which 0.1 does not know.
	nodePlanned = "node-planned"
	// nodeByHand and its machine have a ComputeService and a Server already, made by a person.
	nodeByHand = "node-by-hand"
	// While 0.1 runs, nodeGone is deleted with its machine, and that of nodeMoved moves to nodeUp.
	nodeGone  = "node-gone"
	nodeMoved = "node-moved"
)

// kubeletLease is for how long a kubelet's heartbeat holds: observe outlasts it.
const kubeletLease = int32(6)

// newAdditions makes Nodes, machines and sinks. They are there all the time, also while 0.1
// runs.
func newAdditions(t *testing.T, f *fleet.Fleet) *additions {
	t.Helper()
	config, err := f.Cluster.AdminConfig()
	expect.NoError(t, err)
	kube, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	a := &additions{Fleet: f, kube: kube, config: filepath.Join(f.Dir, "notifier.yaml"), bus: bus{last: map[string]event{}}, pager: pager{active: map[string]notify.Alert{}}}
	events, alerts := httptest.NewServer(&a.bus), httptest.NewServer(&a.pager)
	t.Cleanup(events.Close)
	t.Cleanup(alerts.Close)
	expect.NoError(t, os.WriteFile(a.config, fmt.Appendf(nil, `namespaces: ["*"]
sinks:
- {name: bus, cloudEvents: {url: %q}}
- {name: pager, alertmanager: {url: %q, resendSeconds: 5}}
routes:
- {name: everything, sink: bus}
- {name: page, sink: pager}
`, events.URL, alerts.URL), 0o600))

	out, err := f.Kubectl(t.Context(), "apply", "--server-side", "--filename="+sources(t, "test", "vmimirror", "testdata", "virtualmachineinstances.yaml")).CombinedOutput()
	if err != nil {
		t.Fatalf("installing KubeVirt's CustomResourceDefinition: %v\n%s", err, out)
	}
	var renewed []string
	for _, n := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
		if n.change != nil {
			n.change(node)
		}
		_, err := kube.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
		expect.NoError(t, err)
		seconds := kubeletLease
		if n.silent {
			seconds = 3 // Nobody has to wait for longer than that.
		}
		_, err = kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(t.Context(), &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: n.name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &n.name, LeaseDurationSeconds: &seconds, RenewTime: &metav1.MicroTime{Time: time.Now()}},
		}, metav1.CreateOptions{})
		expect.NoError(t, err)
		if !n.silent {
			renewed = append(renewed, n.name)
		}
		// The CustomResourceDefinition may be established before it is served.
		expect.Eventually(t, patience, func() error { return f.Client.Create(t.Context(), machine(n.name)) })
	}
	var kubelets sync.WaitGroup
	kubelets.Go(func() {
		wait.UntilWithContext(t.Context(), func(ctx context.Context) {
			for _, node := range renewed {
				patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
				_, _ = kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
			}
		}, time.Second)
	})
	t.Cleanup(kubelets.Wait)

	expect.NoError(t, f.Client.Create(t.Context(), &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{Name: nodeByHand},
		Spec:       v1alpha1.ComputeServiceSpec{LeaseRef: &v1alpha1.LeaseReference{Namespace: corev1.NamespaceNodeLease, Name: nodeByHand}},
	}))
	expect.NoError(t, f.Client.Create(t.Context(), &v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: nodeByHand}, Spec: v1alpha1.ServerSpec{Host: nodeByHand},
	}))
	expect.NoError(t, f.WaitFor(t.Context(), patience, fleet.All(v1alpha1.HostStatusUp, nodeByHand)))
	return a
}

// machine is the VirtualMachineInstance that runs on the node of its name, as KubeVirt has it.
func machine(name string) *unstructured.Unstructured {
	v := &unstructured.Unstructured{Object: map[string]any{
		"spec":   map[string]any{"domain": map[string]any{"devices": map[string]any{}}},
		"status": map[string]any{"phase": "Running", "nodeName": name},
	}}
	v.SetGroupVersionKind(vmimirror.GroupVersion.WithKind(vmimirror.Kind))
	v.SetNamespace(tenant)
	v.SetName(name)
	return v
}

// mirroring makes a folder with the programs of bin, of which the manager mirrors, and returns
// it: a process keeps its arguments, so it gets the flags from what the link leads to.
func mirroring(t *testing.T, bin string) string {
	t.Helper()
	dir := filepath.Join(scratch, "mirroring")
	expect.NoError(t, os.MkdirAll(dir, 0o755))
	programs, err := os.ReadDir(bin)
	expect.NoError(t, err)
	for _, p := range programs {
		name := p.Name()
		if name == "manager" {
			name = "manager-itself"
			script := "#!/bin/sh\nexec " + filepath.Join(dir, name) + ` "$@" --mirror-nodes --mirror-virtualmachineinstances` + "\n"
			expect.NoError(t, os.WriteFile(filepath.Join(dir, "manager"), []byte(script), 0o755))
		}
		expect.NoError(t, os.Link(filepath.Join(bin, p.Name()), filepath.Join(dir, name)))
	}
	return dir
}

// add installs the parts and starts nova-api and the notifier, at once with all that a release
// changes: the owners' view is of 0.1 yet. changed are servers of which nova-api answers
// otherwise than before.
func (a *additions) add(t *testing.T, changed ...string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(a.Dir)
	expect.NoError(t, err)
	dir = filepath.Join(dir, "additions")
	expect.NoError(t, os.MkdirAll(dir, 0o755))
	overlay := "resources:\n"
	for _, part := range []string{"node-mirror", "vmi-mirror", "nova-api", "notifier"} {
		path, err := filepath.Rel(dir, sources(t, "config", part)) // kustomize wants a relative one.
		expect.NoError(t, err)
		overlay += "- " + path + "\n"
	}
	expect.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o644))
	expect.NoError(t, a.Apply(t.Context(), dir))
	a.bus.begin()
	if a.notifier == nil {
		a.nova, err = a.StartNovaAPI(t.Context())
		expect.NoError(t, err)
		a.notifier, err = a.StartNotifier(t.Context(), "notifier", fleet.Account{Namespace: namespace, Name: "hoststatus-notifier"}, a.config)
		expect.NoError(t, err)
	} else {
		expect.NoError(t, a.NovaAPI.Start())
		expect.NoError(t, a.notifier.Start())
	}
	expect.Eventually(t, patience, a.notifier.Ready)
	a.novaAnswers(t, changed...)
}

// remove ends the two and removes the parts by the commands of the page.
func (a *additions) remove(t *testing.T) {
	t.Helper()
	a.notifier.Stop()
	a.NovaAPI.Stop()
	commands, err := docs.Kubectl("upgrade.md", "$ kubectl delete -k hoststatus/config/notifier")
	expect.NoError(t, err)
	beside := t.TempDir() // The page has a checkout of the repository beside it.
	expect.NoError(t, os.Symlink(sources(t), filepath.Join(beside, "hoststatus")))
	shell := exec.CommandContext(t.Context(), "bash", "-ec", commands)
	shell.Dir = beside
	shell.Env = []string{"KUBECONFIG=" + a.AdminKubeconfig, "HOME=" + beside, "PATH=" + filepath.Dir(a.Cluster.KubectlPath()) + ":" + os.Getenv("PATH")}
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

// areGone checks that nothing of the parts is left, and that nobody answers clients of Nova.
func (a *additions) areGone(t *testing.T) {
	t.Helper()
	if response, err := http.Get(a.nova); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			_ = response.Body.Close()
		}
		t.Errorf("asking nova-api: %v", err)
	}
	const kinds = "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,poddisruptionbudgets,networkpolicies,clusterroles,clusterrolebindings"
	out, err := a.Kubectl(t.Context(), "get", "--output=name", "--namespace="+namespace, kinds).CombinedOutput()
	expect.NoError(t, err)
	for _, name := range strings.Fields(string(out)) {
		for _, part := range []string{"hoststatus-nova-api", "hoststatus-notifier", "hoststatus-node-mirror", "hoststatus-vmi-mirror"} {
			if strings.Contains(name, part) {
				t.Errorf("%s is left", name)
			}
		}
	}
}

// mirrored are the names that snapshot has for what the mirrors keep.
func mirrored() (names []string) {
	for _, n := range nodes {
		if n.name != nodeByHand {
			names = append(names, "ComputeService "+n.name, "Server "+tenant+"/"+n.name)
		}
	}
	return names
}

// settled waits until what is mirrored is as it should be, but for the Node that is gone.
func (a *additions) settled(t *testing.T, gone bool) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		for _, n := range nodes {
			service, server := &v1alpha1.ComputeService{}, &v1alpha1.Server{}
			err := a.Client.Get(t.Context(), client.ObjectKey{Name: n.name}, service)
			if gone && n.name == nodeGone {
				if err == nil {
					err = errors.New("it is still there")
				}
				if client.IgnoreNotFound(err) != nil {
					return fmt.Errorf("the ComputeService of %s: %w", n.name, err)
				}
				continue
			}
			if err := errors.Join(err, a.Client.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: n.name}, server)); err != nil {
				return err
			}
			host, want := n.name, n.want
			if gone && n.name == nodeMoved {
				host, want = nodeUp, v1alpha1.HostStatusUp
			}
			if got := service.Status.HostStatus; got == nil || *got != n.want {
				return fmt.Errorf("%s has host status %s, not %s", n.name, fleet.Show(got), n.want)
			}
			if got := server.Status.HostStatus; server.Spec.Host != host || got == nil || *got != want {
				return fmt.Errorf("the machine %s is on %s with host status %s, not on %s with %s", n.name, server.Spec.Host, fleet.Show(got), host, want)
			}
		}
		return nil
	})
}

// giveTime gives the window that has none a time, as the page tells before the way back.
func (a *additions) giveTime(t *testing.T) {
	t.Helper()
	start := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: nodePlanned}}
	expect.NoError(t, a.Client.Patch(t.Context(), service, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"maintenanceWindow":{"startTime":%q}}}`, start))))
	expect.Eventually(t, patience, func() error {
		server := &v1alpha1.Server{}
		err := a.Client.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: nodePlanned}, server)
		if err == nil && server.Status.MaintenanceWindow.StartTime == nil {
			err = errors.New("the window has no time yet")
		}
		return err
	})
}

// meanwhile lets hosts and machines change while 0.1 runs.
func (a *additions) meanwhile(t *testing.T) {
	t.Helper()
	for host, change := range map[string]struct {
		forcedDown string
		want       v1alpha1.HostStatus
	}{
		"compute-4": {"true", v1alpha1.HostStatusDown},
		repaired:    {"null", v1alpha1.HostStatusUp},
	} {
		service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: host}}
		expect.NoError(t, a.Client.Patch(t.Context(), service, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"forcedDown":%s}}`, change.forcedDown))))
		expect.NoError(t, a.WaitFor(t.Context(), patience, fleet.All(change.want, host)))
	}
	start := time.Now().Add(3 * time.Hour).Truncate(time.Second).UTC()
	service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: windowMoved}}
	expect.NoError(t, a.Client.Patch(t.Context(), service, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"maintenanceWindow":{"startTime":%q,"endTime":%q}}}`,
		start.Format(time.RFC3339), start.Add(time.Hour).Format(time.RFC3339)))))
	expect.Eventually(t, patience, func() error {
		server := &v1alpha1.Server{}
		err := a.Client.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: windowMoved}, server)
		if err == nil && !server.Status.MaintenanceWindow.StartTime.Time.Equal(start) {
			err = fmt.Errorf("the window is %+v", server.Status.MaintenanceWindow)
		}
		return err
	})
	expect.NoError(t, a.Client.Patch(t.Context(), machine(nodeMoved), client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"status":{"nodeName":%q}}`, nodeUp))))
	expect.NoError(t, a.kube.CoreV1().Nodes().Delete(t.Context(), nodeGone, metav1.DeleteOptions{}))
	expect.NoError(t, a.Client.Delete(t.Context(), machine(nodeGone), client.PropagationPolicy(metav1.DeletePropagationBackground)))
	expect.Eventually(t, patience, func() error {
		err := a.Client.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: nodeGone}, &v1alpha1.Server{})
		if err == nil {
			err = errors.New("the Server of a machine that is gone is still there")
		}
		return client.IgnoreNotFound(err)
	})
}

// servers are all Servers, by namespace/name.
func (a *additions) servers(t *testing.T) map[string]*v1alpha1.Server {
	t.Helper()
	var list v1alpha1.ServerList
	expect.NoError(t, a.Client.List(t.Context(), &list))
	all := map[string]*v1alpha1.Server{}
	for i := range list.Items {
		all[list.Items[i].Namespace+"/"+list.Items[i].Name] = &list.Items[i]
	}
	return all
}

// novaAnswers asks nova-api for the servers of tenant, and checks that the answer is the truth,
// and the same as before for those that are not among changed.
func (a *additions) novaAnswers(t *testing.T, changed ...string) {
	t.Helper()
	token, err := os.ReadFile(a.TokenFile("ana"))
	expect.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.nova+"/v2.1/"+tenant+"/servers/detail", nil)
	expect.NoError(t, err)
	request.Header.Set("X-Auth-Token", string(token))
	request.Header.Set("OpenStack-API-Version", "compute 2.72")
	var answer struct {
		Servers []struct {
			ID, Name, HostID, Updated string
			HostStatus                string `json:"host_status"`
		}
	}
	expect.Eventually(t, patience, func() error {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			content, _ := io.ReadAll(response.Body)
			return fmt.Errorf("nova-api answers %s: %s", response.Status, content)
		}
		return json.NewDecoder(response.Body).Decode(&answer)
	})
	got, want := map[string]string{}, map[string]string{}
	for _, s := range answer.Servers {
		got[s.Name] = fmt.Sprint(s.ID, " ", s.HostStatus, " ", s.Updated, " ", s.HostID)
		want[s.Name] = "no server"
	}
	for name, s := range a.servers(t) {
		if project, name, _ := strings.Cut(name, "/"); project == tenant {
			var since string
			if s.Status.HostStatusTransitionTime != nil {
				since = s.Status.HostStatusTransitionTime.UTC().Format(time.RFC3339)
			}
			hostID := got[name][strings.LastIndexByte(got[name], ' ')+1:] // Of a secret key.
			want[name] = fmt.Sprint(s.UID, " ", ptr.Deref(s.Status.HostStatus, ""), " ", since, " ", hostID)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what nova-api answers (-the truth +answer):\n%s", diff)
	}
	for name, before := range a.answered {
		if !slices.Contains(changed, name) && got[name] != before {
			t.Errorf("nova-api answered of %s %q before, and now %q", name, before, got[name])
		}
	}
	a.answered = got
}

// event is what the notifier has sent of a server.
type event struct {
	Subject string
	Data    notify.EventData
}

// bus is a receiver of CloudEvents that remembers them.
type bus struct {
	mu     sync.Mutex
	events []event
	last   map[string]event
}

// ServeHTTP implements http.Handler.
func (b *bus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events, b.last[e.Subject] = append(b.events, e), e
}

// begin forgets all events.
func (b *bus) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = nil
	clear(b.last)
}

// pager is an Alertmanager that remembers alerts, and which of them were resolved.
type pager struct {
	mu       sync.Mutex
	active   map[string]notify.Alert
	resolved []string
}

// ServeHTTP implements http.Handler.
func (p *pager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodGet {
		all := []notify.Alert{}
		for _, alert := range p.active {
			all = append(all, alert)
		}
		_ = json.NewEncoder(w).Encode(all)
		return
	}
	var alerts []notify.Alert
	if err := json.NewDecoder(r.Body).Decode(&alerts); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, alert := range alerts {
		key := fmt.Sprint(alert.Labels)
		if alert.EndsAt.After(time.Now()) {
			p.active[key] = alert
		} else if _, there := p.active[key]; there {
			delete(p.active, key)
			p.resolved = append(p.resolved, alert.Labels["namespace"]+"/"+alert.Labels["server"]+" "+alert.Labels["host_status"])
		}
	}
}

// sentTheTruth checks what the notifier has sent since it was started: its snapshot, and changes
// of windows alone, of the servers that are in had; and that receiver and Alertmanager have the
// truth in the end. resolved are the alerts that have come to an end.
func (a *additions) sentTheTruth(t *testing.T, had map[string]any, resolved ...string) {
	t.Helper()
	servers := a.servers(t)
	a.bus.mu.Lock()
	defer a.bus.mu.Unlock()
	causes := map[notify.Cause]int{}
	for _, e := range a.bus.events {
		causes[e.Data.Cause]++
		// No window of these may be put off.
		if after := e.Data.After; after != nil && after.MaintenanceWindow != nil && after.MaintenanceWindow.OpensAt != nil && !after.MaintenanceWindow.OpensAt.Equal(after.MaintenanceWindow.StartTime) {
			t.Errorf("of %s was sent the window %+v", e.Subject, after.MaintenanceWindow)
		}
		if _, known := had["Server "+e.Subject]; !known {
			continue // It is new, or has moved: what was sent last is what counts.
		}
		if e.Data.After == nil {
			t.Errorf("of %s was sent %s", e.Subject, e.Data.Cause)
			continue
		}
		after := *e.Data.After
		if e.Data.Cause == notify.CauseChanged && e.Data.Before != nil {
			// 0.1 does not know when a window opens, nor of answers: those may be news.
			before := *e.Data.Before
			if cmp.Equal(before.MaintenanceWindow, after.MaintenanceWindow) {
				t.Errorf("a change of %s was sent that is none: %+v", e.Subject, after)
			}
			if diff := cmp.Diff(timeless(before), timeless(after)); diff != "" {
				t.Errorf("a change of %s was sent (-before +after):\n%s", e.Subject, diff)
			}
		} else if e.Data.Cause != notify.CauseSnapshot {
			t.Errorf("of %s was sent %s: %+v", e.Subject, e.Data.Cause, after)
		}
		if diff := cmp.Diff(timeless(servers[e.Subject].Status.HostFields), timeless(after)); diff != "" {
			t.Errorf("what was sent of %s (-the truth +sent):\n%s", e.Subject, diff)
		}
	}
	t.Logf("the notifier sent of %d servers: %v", len(servers), causes)
	alerts := map[string]string{}
	for name, s := range servers {
		want, sent := s.Status.HostFields, v1alpha1.HostFields{}
		if after := a.bus.last[name].Data.After; after != nil {
			sent = *after
		}
		if len(want.HostHistory) == 0 || *want.HostHistory[0].HostStatus != *want.HostStatus || !want.HostHistory[0].Since.Equal(want.HostStatusTransitionTime) {
			t.Errorf("%s is %s since %s, and its history begins with %+v", name, fleet.Show(want.HostStatus), want.HostStatusTransitionTime, want.HostHistory)
		}
		want.HostHistory, sent.HostHistory = nil, nil // A history that begins is not sent.
		if diff := cmp.Diff(want, sent); diff != "" {
			t.Errorf("what was sent last of %s (-the truth +sent):\n%s", name, diff)
		}
		if *want.HostStatus != v1alpha1.HostStatusUp && *want.HostStatus != v1alpha1.HostStatusNone {
			alerts[name] = fmt.Sprint(*want.HostStatus, " since ", want.HostStatusTransitionTime.UTC().Format(time.RFC3339))
		}
	}
	a.pager.mu.Lock()
	defer a.pager.mu.Unlock()
	got := map[string]string{}
	for _, alert := range a.pager.active {
		name := alert.Labels["namespace"] + "/" + alert.Labels["server"]
		got[name] += alert.Labels["host_status"] + " since " + alert.StartsAt.UTC().Format(time.RFC3339)
	}
	if diff := cmp.Diff(alerts, got); diff != "" {
		t.Errorf("the alerts (-the truth +Alertmanager):\n%s", diff)
	}
	slices.Sort(a.pager.resolved)
	if diff := cmp.Diff(resolved, a.pager.resolved); diff != "" {
		t.Errorf("alerts that were resolved (-want +got):\n%s", diff)
	}
}

// timeless are host fields without those that 0.1 does not have.
func timeless(h v1alpha1.HostFields) v1alpha1.HostFields {
	h.HostHistory, h.MaintenanceWindow = nil, nil
	return h
}
