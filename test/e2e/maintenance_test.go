// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// owner is a user of team-a with these ClusterRoles.
func owner(t *testing.T, name string, roles ...string) client.Client {
	t.Helper()
	for _, role := range roles {
		binding, err := kube.RbacV1().RoleBindings("team-a").Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}},
		}, metav1.CreateOptions{})
		expect.NoError(t, err)
		t.Cleanup(func() {
			_ = kube.RbacV1().RoleBindings("team-a").Delete(context.Background(), binding.Name, metav1.DeleteOptions{})
		})
	}
	config, err := system.Cluster.ConfigFor(name)
	expect.NoError(t, err)
	c, err := fleet.NewClient(config)
	expect.NoError(t, err)
	return c
}

// answer writes an owner's answer for a server.
func answer(t *testing.T, owner client.Client, server string, spec ownerv1alpha1.MaintenanceAnswerSpec) {
	t.Helper()
	a := &ownerv1alpha1.MaintenanceAnswer{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: server}, Spec: spec}
	t.Cleanup(func() { _ = system.Client.Delete(context.Background(), a) })
	expect.Eventually(t, patience, func() error { // Until the binding is in force.
		err := owner.Create(t.Context(), a)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		if err := owner.Get(t.Context(), client.ObjectKeyFromObject(a), a); err != nil {
			return err
		}
		a.Spec = spec
		return owner.Update(t.Context(), a)
	})
}

// seen is what a user is shown of a server.
func seen(t *testing.T, user, server string) (status map[string]any, version string) {
	t.Helper()
	out, err := kubectl(t, "get", "servers.tenant.hoststatus.dev", "-n", "team-a", server, "-o", "json", "--as="+user)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var object struct {
		Metadata metav1.ObjectMeta
		Status   map[string]any
	}
	expect.NoError(t, json.Unmarshal([]byte(out), &object))
	return object.Status, object.Metadata.ResourceVersion
}

func TestOwnersPutMaintenanceOffOrBringItForward(t *testing.T) {
	const host = "answered"
	newHost(t, host, time.Minute, 10*time.Second, 0)
	service := newService(t, host)
	first, second := newServer(t, "team-a", "answered-1", host), newServer(t, "team-a", "answered-2", host)
	expect.Eventually(t, patience, hostIs(host, v1alpha1.HostStatusUp))
	ungranted := owner(t, "ungranted", "hoststatus-server-viewer", "hoststatus-maintenance-answerer")
	owner(t, "granted", "hoststatus-server-viewer", "hoststatus-host-status-viewer")

	at := func(d time.Duration) *metav1.Time {
		return ptr.To(metav1.NewTime(time.Now().Add(d).Truncate(time.Second)))
	}
	start, later, latest, end := at(time.Hour), at(2*time.Hour), at(3*time.Hour), at(4*time.Hour)
	window := fmt.Sprintf(`"startTime":%q,"latestStartTime":%q,"endTime":%q,"openWhenReady":true,"category":"Hardware","impact":"Reboot","reason":"rack r12"`,
		start.UTC().Format(time.RFC3339), latest.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	counted := func(opens *metav1.Time, ready, putOff int32) func() error {
		return func() error {
			expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(service), service))
			want := &v1alpha1.MaintenanceStatus{StartTime: start, OpensAt: opens, Servers: ptr.To[int32](2), Ready: &ready, PutOff: &putOff}
			if diff := cmp.Diff(want, service.Status.Maintenance); diff != "" {
				return fmt.Errorf("status.maintenance (-want +got):\n%s", diff)
			}
			return nil
		}
	}
	shows := func(server *v1alpha1.Server, opens *metav1.Time, state v1alpha1.AnswerState) func() error {
		return func() error {
			expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(server), server))
			want := &v1alpha1.AnnouncedWindow{StartTime: start, OpensAt: opens, LatestStartTime: latest, EndTime: end, Category: "Hardware", Impact: "Reboot", Answer: state}
			if diff := cmp.Diff(want, server.Status.MaintenanceWindow); diff != "" {
				return fmt.Errorf("%s (-want +got):\n%s", server.Name, diff)
			}
			return nil
		}
	}

	patch(t, service, `{"spec":{"maintenanceWindow":{`+window+`}}}`)
	expect.Eventually(t, patience, counted(start, 0, 0))
	expect.Eventually(t, patience, shows(first, start, v1alpha1.AnswerStateNone))
	expect.Eventually(t, patience, func() error {
		if status, _ := seen(t, "granted", "answered-1"); status["maintenanceWindow"] == nil || status["hostHistory"] == nil {
			return fmt.Errorf("the owner is not shown it: %v", status)
		}
		return nil
	})
	before, version := seen(t, "ungranted", "answered-1")

	answer(t, ungranted, "answered-1", ownerv1alpha1.MaintenanceAnswerSpec{Answer: "NotBefore", NotBefore: later, WindowStartTime: start, ServerUID: string(first.UID)})
	answer(t, ungranted, "no-such-server", ownerv1alpha1.MaintenanceAnswerSpec{Answer: "Ready", WindowStartTime: later})
	expect.Eventually(t, patience, counted(later, 0, 1))
	expect.Eventually(t, patience, shows(first, later, v1alpha1.AnswerStateNotBefore))
	expect.Eventually(t, patience, shows(second, later, v1alpha1.AnswerStateNone))
	expect.Eventually(t, patience, func() error {
		status, _ := seen(t, "granted", "answered-1")
		if text := fmt.Sprint(status["maintenanceWindow"]); !strings.Contains(text, "answer:NotBefore") || strings.Contains(text, "r12") {
			return errors.New("the owner is shown " + text)
		}
		return nil
	})
	after, unchanged := seen(t, "ungranted", "answered-1")
	if diff := cmp.Diff(before, after); diff != "" || version != unchanged || after["hostStatus"] != nil || after["hostHistory"] != nil {
		t.Errorf("whoever may only answer learns of it (version %s, then %s; -before +after):\n%s", version, unchanged, diff)
	}

	// What the former manager knew holds, and nothing is written again.
	written := service.ResourceVersion
	system.Manager.Stop()
	answer(t, ungranted, "answered-2", ownerv1alpha1.MaintenanceAnswerSpec{Answer: "Ready", WindowStartTime: later})
	expect.Eventually(t, patience, shows(second, later, v1alpha1.AnswerStateStale))
	expect.NoError(t, counted(later, 0, 1)())
	if service.ResourceVersion != written {
		t.Errorf("another manager has written the host, version %s after %s", service.ResourceVersion, written)
	}

	for _, server := range []string{"answered-1", "answered-2"} {
		answer(t, ungranted, server, ownerv1alpha1.MaintenanceAnswerSpec{Answer: "Ready", WindowStartTime: start})
	}
	expect.Eventually(t, patience, hostIs(host, v1alpha1.HostStatusMaintenance))
	expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(service), service))
	if m := service.Status.Maintenance; m.OpensAt.After(time.Now()) || *m.Ready != 2 {
		t.Errorf("opened with %+v", m)
	}
	record := service.Status.Maintenance
	answer(t, ungranted, "answered-1", ownerv1alpha1.MaintenanceAnswerSpec{Answer: "NotBefore", NotBefore: latest, WindowStartTime: start})
	patch(t, service, `{"spec":{"maintenanceWindow":{"reason":"rack r13"}}}`)
	expect.Eventually(t, patience, func() error {
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(first), first))
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(service), service))
		if first.Status.MaintenanceWindow.Answer != v1alpha1.AnswerStateNotBefore || service.Status.ObservedGeneration != service.Generation {
			return errors.New("it has not arrived")
		}
		return nil
	})
	expect.NoError(t, hostIs(host, v1alpha1.HostStatusMaintenance)())
	if diff := cmp.Diff(record, service.Status.Maintenance); diff != "" {
		t.Errorf("an answer changes what has opened (-before +after):\n%s", diff)
	}
	var history []v1alpha1.HostStatus
	for _, change := range first.Status.HostHistory {
		history = append(history, ptr.Deref(change.HostStatus, "absent"))
	}
	if diff := cmp.Diff([]v1alpha1.HostStatus{"MAINTENANCE", "NEEDS_MAINTENANCE", "UP"}, history[:min(3, len(history))]); diff != "" {
		t.Errorf("the history (-want +got):\n%s", diff)
	}
}
