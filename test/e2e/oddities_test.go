// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// renewBy writes a Lease as it is told to, and makes it if there is none.
func renewBy(t *testing.T, name string, modify func(*coordinationv1.LeaseSpec)) {
	t.Helper()
	lease, err := leases().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
		modify(&lease.Spec)
		_, err = leases().Create(t.Context(), lease, metav1.CreateOptions{})
	} else {
		modify(&lease.Spec)
		_, err = leases().Update(t.Context(), lease, metav1.UpdateOptions{})
	}
	expect.NoError(t, err)
}

func renewedAt(at time.Time) func(*coordinationv1.LeaseSpec) {
	return func(s *coordinationv1.LeaseSpec) { s.RenewTime = &metav1.MicroTime{Time: at} }
}

func TestWhateverStandsInALeaseHasADefinedOutcome(t *testing.T) {
	t.Parallel()
	const duration = 3 * time.Second
	old := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for name, test := range map[string]struct {
		second func(*coordinationv1.LeaseSpec)
		want   v1alpha1.HostStatus
	}{
		"a-later":     {renewedAt(old.Add(time.Second)), v1alpha1.HostStatusUp},
		"a-backwards": {renewedAt(old.Add(-time.Hour)), v1alpha1.HostStatusUp},
		"a-9999":      {renewedAt(far), v1alpha1.HostStatusUp},
		"an-equal":    {renewedAt(old), v1alpha1.HostStatusUnknown},
		"an-empty":    {func(s *coordinationv1.LeaseSpec) { s.RenewTime = nil }, v1alpha1.HostStatusUnknown},
		"a-holder":    {func(s *coordinationv1.LeaseSpec) { s.HolderIdentity = ptr.To("else") }, v1alpha1.HostStatusUnknown},
		"a-huge-own":  {func(s *coordinationv1.LeaseSpec) { s.LeaseDurationSeconds = ptr.To[int32](1<<31 - 1) }, v1alpha1.HostStatusUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			renewBy(t, name, renewedAt(old))
			newService(t, name, withDuration(duration))
			expect.Eventually(t, patience, hostIs(name, v1alpha1.HostStatusUp))
			expect.Eventually(t, patience, hostIs(name, v1alpha1.HostStatusUnknown))
			renewBy(t, name, test.second)
			if test.want == v1alpha1.HostStatusUp {
				expect.Eventually(t, patience, hostIs(name, test.want))
				return
			}
			// What is no renewal changes nothing. A renewal of another host that comes
			// after it shows that it was seen.
			renewBy(t, "oddities-marker", renewedAt(time.Now()))
			newService(t, "oddities-marker")
			expect.Eventually(t, patience, hostIs("oddities-marker", v1alpha1.HostStatusUp))
			expect.NoError(t, hostIs(name, test.want)())
		})
	}
}

func TestALeaseThatIsDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	const duration = 4 * time.Second
	renewBy(t, "remade", renewedAt(time.Now()))
	newService(t, "remade", withDuration(duration))
	expect.Eventually(t, patience, hostIs("remade", v1alpha1.HostStatusUp))
	services := newRecord(t, &v1alpha1.ComputeServiceList{})
	begin := time.Now()
	expect.NoError(t, leases().Delete(t.Context(), "remade", metav1.DeleteOptions{}))
	var unknown time.Time
	expect.Eventually(t, 2*duration, func() error {
		var seen bool
		if unknown, seen = services.first("remade", v1alpha1.HostStatusUnknown); !seen {
			return errors.New("it is not UNKNOWN")
		}
		return nil
	})
	if after := unknown.Sub(begin); after < duration-2*time.Second {
		t.Errorf("the deletion was taken for silence: UNKNOWN after %v", after)
	}
	renewBy(t, "remade", renewedAt(time.Now()))
	expect.Eventually(t, patience, hostIs("remade", v1alpha1.HostStatusUp))
}

func TestTwoComputeServicesOnOneLeaseAreJudgedEachByItsOwnDuration(t *testing.T) {
	t.Parallel()
	shared := func(s *v1alpha1.ComputeService) { s.Spec.LeaseRef = &v1alpha1.LeaseReference{Name: "shared"} }
	renewBy(t, "shared", renewedAt(time.Now()))
	newService(t, "shared-short", shared, withDuration(3*time.Second))
	newService(t, "shared-long", shared, withDuration(time.Hour))
	for _, name := range []string{"shared-short", "shared-long"} {
		expect.Eventually(t, patience, hostIs(name, v1alpha1.HostStatusUp))
	}
	expect.Eventually(t, patience, hostIs("shared-short", v1alpha1.HostStatusUnknown))
	expect.NoError(t, hostIs("shared-long", v1alpha1.HostStatusUp)())
	renewBy(t, "shared", renewedAt(time.Now()))
	expect.Eventually(t, patience, hostIs("shared-short", v1alpha1.HostStatusUp))
	expect.NoError(t, leases().Delete(t.Context(), "shared", metav1.DeleteOptions{}))
}

func TestAComputeServiceMadeAgainUnderTheSameNameIsANewOne(t *testing.T) {
	newServer(t, "team-a", "on-again", "again")
	first := newService(t, "again", func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = ptr.To(true) })
	expect.Eventually(t, patience, serverIs("team-a", "on-again", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown))
	expect.NoError(t, system.Client.Delete(t.Context(), first))
	newService(t, "again")
	expect.Eventually(t, patience, func() error {
		var server v1alpha1.Server
		expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKey{Namespace: "team-a", Name: "on-again"}, &server))
		if server.Status.HostStatusReason != v1alpha1.ReasonWaitingForHeartbeat {
			return fmt.Errorf("reason is %s", server.Status.HostStatusReason)
		}
		return nil
	})
}

func TestNamesMayBeAsLongAsTheyCanBe(t *testing.T) {
	name := strings.Repeat(strings.Repeat("a", 62)+".", 4)[:251] + "aa"
	if len(name) != 253 {
		t.Fatal(len(name))
	}
	newHost(t, name, time.Minute, 10*time.Second, 0)
	newService(t, name)
	newServer(t, "team-a", name, name)
	expect.Eventually(t, patience, serverIs("team-a", name, v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
}

// None of the above keeps the others from being judged.
func TestNonsenseStopsNobodyElse(t *testing.T) {
	for i := range 20 {
		name := fmt.Sprintf("nonsense-%02d", i)
		newService(t, name, func(s *v1alpha1.ComputeService) {
			s.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: "nowhere", Name: name}
			s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: ptr.To(metav1.NewTime(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)))}
		})
		newServer(t, "team-a", name, name)
	}
	newHost(t, "sensible", time.Minute, 10*time.Second, 0)
	newService(t, "sensible")
	newServer(t, "team-a", "on-sensible", "sensible")
	expect.Eventually(t, patience, serverIs("team-a", "on-sensible", v1alpha1.HostStatusUp, v1alpha1.ReasonReporting))
	expect.Eventually(t, patience, func() error {
		var servers v1alpha1.ServerList
		if err := system.Client.List(t.Context(), &servers, client.InNamespace("team-a")); err != nil {
			return err
		}
		for _, s := range servers.Items {
			if strings.HasPrefix(s.Name, "nonsense-") && s.Status.HostStatusReason != v1alpha1.ReasonLeaseNotReadable {
				return errors.New(s.Name + " has reason " + string(s.Status.HostStatusReason))
			}
		}
		return nil
	})
}

// The end of a window can be taken away, which the owners of the servers hear too. What
// a release that did not tell them has left behind is put right as soon as the manager
// looks at the Server.
func TestAWindowThatLosesItsEndLosesItForTheServersToo(t *testing.T) {
	newHost(t, "endless", time.Minute, 10*time.Second, 0)
	start := metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
	end := metav1.NewTime(start.Add(time.Hour))
	service := newService(t, "endless", func(s *v1alpha1.ComputeService) {
		s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: &start, EndTime: &end}
	})
	server := newServer(t, "team-a", "on-endless", "endless")
	windowIs := func(want *metav1.Time) func() error {
		return func() error {
			expect.NoError(t, system.Client.Get(t.Context(), client.ObjectKeyFromObject(server), server))
			if got := server.Status.MaintenanceWindow; got == nil || !got.StartTime.Equal(&start) || !got.EndTime.Equal(want) {
				return fmt.Errorf("the server has the window %v, whose end should be %v", got, want)
			}
			return nil
		}
	}
	expect.Eventually(t, patience, windowIs(&end))
	patch(t, service, `{"spec":{"maintenanceWindow":{"endTime":null}}}`)
	expect.Eventually(t, patience, windowIs(nil))
	expect.NoError(t, system.Client.Status().Patch(t.Context(), server.DeepCopy(), client.RawPatch(types.MergePatchType,
		[]byte(fmt.Sprintf(`{"status":{"maintenanceWindow":{"endTime":%q}}}`, end.UTC().Format(time.RFC3339))))))
	expect.Eventually(t, patience, windowIs(nil))
	view, err := kubectl(t, "get", "servers.tenant.hoststatus.dev", "-n", "team-a", "on-endless", "-o", "jsonpath={.status.maintenanceWindow}")
	if err != nil || strings.Contains(view, "endTime") {
		t.Errorf("error %v; the view has the window %s", err, view)
	}
}
