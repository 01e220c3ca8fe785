// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// churn is how long Nodes and windows change at random. Ten minutes are for a release.
var churn = flag.Duration("churn", 3*time.Second, "how long Nodes and windows change at random")

// shows checks the maintenance conditions of a Node: "Type/Reason: Message", joined.
func shows(name, want string) func() error {
	return func() error {
		node, err := kube.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var got []string
		for _, c := range node.Status.Conditions {
			if (c.Type == corev1.NodeMaintenancePlanned || c.Type == corev1.NodeMaintenanceInProgress) && c.Status == corev1.ConditionTrue {
				got = append(got, fmt.Sprintf("%s/%s: %s", c.Type, c.Reason, c.Message))
			}
		}
		if all := strings.Join(got, "; "); all != want {
			return fmt.Errorf("%s shows %q, not %q", name, all, want)
		}
		return nil
	}
}

// declare sets a condition of a Node as an administrator does; "" removes it.
func declare(ctx context.Context, name, condition, status string) error {
	body := `{"status":{"conditions":[{"type":"` + condition + `","status":"` + status + `","reason":"Firmware","message":"until noon"}]}}`
	if status == "" {
		body = `{"status":{"conditions":[{"type":"` + condition + `","$patch":"delete"}]}}`
	}
	_, err := kube.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, "status")
	return err
}

// hasWindow checks the window of a ComputeService: its reason, and whether it has a time;
// "-" is none.
func hasWindow(name, want string) func() error {
	return func() error {
		service, err := get(name)
		if err != nil {
			return err
		}
		got := "-"
		if w := service.Spec.MaintenanceWindow; w != nil {
			got = ""
			if w.Reason != nil {
				got = *w.Reason
			}
			if !w.StartTime.IsZero() {
				got += " (with a time)"
			}
		}
		if got != want {
			return fmt.Errorf("the window of %s is %q, not %q", name, got, want)
		}
		return nil
	}
}

func window(start time.Time) string {
	return fmt.Sprintf(`{"spec":{"maintenanceWindow":{"startTime":%q,"reason":"new disks"}}}`, start.UTC().Format(time.RFC3339))
}

const noWindow = `{"spec":{"maintenanceWindow":null}}`

func TestTheNodeShowsTheWindowOfItsHost(t *testing.T) {
	const name = "announcing"
	newKubelet(t, name)
	newNode(t, name)
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))

	later := time.Now().Add(time.Hour).Truncate(time.Second)
	patch(t, name, window(later))
	expect.Eventually(t, patience, shows(name, "MaintenancePlanned/WindowAnnounced: new disks. Opens at "+later.UTC().Format(time.RFC3339)))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusNeedsMaintenance))
	// Nothing of it comes back.
	settled(t)
	expect.NoError(t, hasWindow(name, "new disks (with a time)")())
	expect.NoError(t, says(name, "", "", "", "")())

	patch(t, name, `{"spec":{"maintenanceWindow":{"category":"Hardware","impact":"Reboot"}}}`)
	expect.Eventually(t, patience, shows(name, "MaintenancePlanned/WindowAnnounced: new disks. Category Hardware, impact Reboot. Opens at "+later.UTC().Format(time.RFC3339)))
	patch(t, name, `{"spec":{"maintenanceWindow":{"category":null,"impact":null}}}`)
	expect.Eventually(t, patience, shows(name, "MaintenancePlanned/WindowAnnounced: new disks. Opens at "+later.UTC().Format(time.RFC3339)))

	patch(t, name, window(time.Now().Add(-time.Minute)))
	expect.Eventually(t, patience, shows(name, "MaintenanceInProgress/WindowOpen: new disks. Stays open until spec.maintenanceWindow is removed"))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusMaintenance))
	settled(t)
	expect.NoError(t, says(name, "", "", "", "")())

	// What happens while no manager runs is made up for, and a restart alone writes nothing.
	restart(t, func() { patch(t, name, noWindow) })
	expect.Eventually(t, patience, shows(name, ""))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
	patch(t, name, window(later))
	expect.Eventually(t, patience, shows(name, "MaintenancePlanned/WindowAnnounced: new disks. Opens at "+later.UTC().Format(time.RFC3339)))
	before := conditionsWritten(t)
	restart(t, func() {})
	settled(t)
	if n := conditionsWritten(t) - before; n != 0 {
		t.Errorf("%v writes of conditions for a restart", n)
	}
	patch(t, name, noWindow)
	expect.Eventually(t, patience, shows(name, ""))
}

func TestAMaintenanceThatAnAdministratorPlansIsAWindowWithoutATime(t *testing.T) {
	const name = "planned"
	const reason = "the Node has the condition MaintenancePlanned: Firmware: until noon"
	const theirs = "MaintenancePlanned/Firmware: until noon"
	newKubelet(t, name)
	newNode(t, name)
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
	expect.NoError(t, declare(t.Context(), name, "MaintenancePlanned", "True"))
	expect.Eventually(t, patience, hasWindow(name, reason))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusNeedsMaintenance))
	settled(t)
	expect.NoError(t, shows(name, theirs)())

	// Somebody adds a time, which comes, and takes it away again.
	patch(t, name, fmt.Sprintf(`{"spec":{"maintenanceWindow":{"startTime":%q}}}`, time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)))
	expect.Eventually(t, patience, shows(name, theirs+"; MaintenanceInProgress/WindowOpen: "+reason+". Stays open until spec.maintenanceWindow is removed"))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusMaintenance))
	settled(t)
	expect.NoError(t, says(name, "", "", "", "")())
	patch(t, name, `{"spec":{"maintenanceWindow":{"startTime":null}}}`)
	expect.Eventually(t, patience, shows(name, theirs))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusNeedsMaintenance))

	expect.NoError(t, declare(t.Context(), name, "MaintenancePlanned", "False"))
	expect.Eventually(t, patience, hasWindow(name, "-"))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
}

func TestAnAdministratorsConditionIsNeverOverwritten(t *testing.T) {
	const name = "contested"
	newKubelet(t, name)
	newNode(t, name)
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusUp))
	later := time.Now().Add(time.Hour)
	patch(t, name, window(later))
	expect.Eventually(t, patience, is(name, v1alpha1.HostStatusNeedsMaintenance))
	ours := "MaintenancePlanned/WindowAnnounced: new disks. Opens at " + later.UTC().Format(time.RFC3339)
	expect.Eventually(t, patience, shows(name, ours))
	// It is theirs from now on, and no reason to change a window that is there.
	expect.NoError(t, declare(t.Context(), name, "MaintenancePlanned", "True"))
	expect.Eventually(t, patience, shows(name, "MaintenancePlanned/Firmware: until noon"))
	settled(t)
	expect.NoError(t, hasWindow(name, "new disks (with a time)")())
	expect.Eventually(t, patience, func() error {
		if logged(t, "Somebody else has", name) != 1 {
			return fmt.Errorf("it is said %d times", logged(t, "Somebody else has", name))
		}
		return nil
	})
	patch(t, name, noWindow)
	expect.Eventually(t, patience, hasWindow(name, "the Node has the condition MaintenancePlanned: Firmware: until noon"))
	expect.NoError(t, declare(t.Context(), name, "MaintenancePlanned", ""))
	expect.Eventually(t, patience, hasWindow(name, "-"))
	expect.NoError(t, shows(name, "")())
}

// conditionsWritten counts the requests by which the status of Nodes was written by
// server-side apply, which nobody else here uses for it.
func conditionsWritten(t *testing.T) float64 {
	t.Helper()
	return requests(t, func(line string) bool {
		return strings.Contains(line, `resource="nodes"`) && strings.Contains(line, `subresource="status"`) && strings.Contains(line, `verb="APPLY"`)
	})
}

// Both ways at once must not go round in circles: what one writes must not wake the other.
func TestNothingGoesRoundWhileNodesAndWindowsChange(t *testing.T) {
	const nodes = 4
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	name := func(i int) string { return fmt.Sprintf("churn-%d", i) }
	for i := range nodes {
		newKubelet(t, name(i))
		newNode(t, name(i))
	}
	for i := range nodes {
		expect.Eventually(t, patience, is(name(i), v1alpha1.HostStatusUp))
	}
	settled(t)
	before, conditionsBefore := written(t), conditionsWritten(t)
	changes := 0
	for until := time.Now().Add(*churn); time.Now().Before(until); changes++ {
		node := name(random.IntN(nodes))
		switch random.IntN(6) {
		case 0:
			patch(t, node, window(time.Now().Add(time.Hour)))
		case 1:
			patch(t, node, window(time.Now().Add(-time.Hour)))
		case 2:
			patch(t, node, noWindow)
		case 3:
			expect.NoError(t, declare(t.Context(), node, "MaintenancePlanned", []string{"True", "False", ""}[random.IntN(3)]))
		case 4:
			expect.NoError(t, declare(t.Context(), node, "MaintenanceInProgress", []string{"True", "False", ""}[random.IntN(3)]))
		case 5:
			// As kubectl cordon and uncordon do.
			body := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, random.IntN(2) == 0)
			_, err := kube.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType, body, metav1.PatchOptions{})
			expect.NoError(t, err)
		}
	}
	settled(t)
	services, conditions := written(t)-before, conditionsWritten(t)-conditionsBefore
	t.Logf("%d changes: %v writes of ComputeServices, theirs included, and %v of conditions", changes, services, conditions)
	// A change is a write of its own, and causes at most one of each. A conflict repeats one.
	if most := float64(3*changes + 20); services > most || conditions > most {
		t.Errorf("more than %v", most)
	}
	// Then it is quiet.
	before, conditionsBefore = written(t), conditionsWritten(t)
	settled(t)
	if services, conditions := written(t)-before, conditionsWritten(t)-conditionsBefore; services > 3 || conditions > 0 {
		t.Errorf("without a change %v writes of ComputeServices, of which three are of new Nodes, and %v of conditions", services, conditions)
	}
	for i := range nodes {
		for _, condition := range []string{"MaintenancePlanned", "MaintenanceInProgress"} {
			expect.NoError(t, declare(t.Context(), name(i), condition, ""))
		}
		kubectl(t, "uncordon", name(i))
		patch(t, name(i), noWindow)
	}
	for i := range nodes {
		expect.Eventually(t, patience, is(name(i), v1alpha1.HostStatusUp))
		expect.Eventually(t, patience, shows(name(i), ""))
		expect.Eventually(t, patience, hasWindow(name(i), "-"))
	}
}
