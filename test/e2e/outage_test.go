// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// Nobody sees anything while the API server or etcd is away: hosts cannot report,
// and the manager loses its leadership. Afterwards the hosts that live have never
// been anything but UP, and the one that died meanwhile is found.
func TestAnOutageOfTheControlPlaneMakesNoLivingHostUnknownAndHidesNoDeadOne(t *testing.T) {
	const duration, interval, outage = 6 * time.Second, 1500 * time.Millisecond, 12 * time.Second
	pause := func(p interface{ Signal(syscall.Signal) error }) func(*testing.T) {
		return func(t *testing.T) {
			expect.NoError(t, p.Signal(syscall.SIGSTOP))
			time.Sleep(outage)
			expect.NoError(t, p.Signal(syscall.SIGCONT))
		}
	}
	for name, fault := range map[string]func(*testing.T){
		"the API server is paused": pause(system.Cluster.APIServer),
		"etcd is paused":           pause(system.Cluster.Etcd),
		"the API server is killed and started again": func(t *testing.T) {
			system.Cluster.APIServer.Kill()
			time.Sleep(outage / 2)
			expect.NoError(t, system.Cluster.APIServer.Start())
		},
	} {
		t.Run(name, func(t *testing.T) {
			names := make([]string, 10)
			hosts := make([]*host, len(names))
			for i := range names {
				names[i] = fmt.Sprintf("outage-%d", i)
				newService(t, names[i])
				hosts[i] = newHost(t, names[i], duration, interval, 0)
			}
			for _, name := range names {
				expect.Eventually(t, patience, hostIs(name, v1alpha1.HostStatusUp))
			}
			before := transitions(t)
			hosts[0].stop()
			fault(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			expect.NoError(t, system.Cluster.WaitReady(ctx))

			// The manager has to come back, and D and a half to pass in its sight.
			expect.Eventually(t, time.Minute, hostIs(names[0], v1alpha1.HostStatusUnknown))
			for name, since := range transitions(t) {
				if name != names[0] && !since.Equal(before[name]) {
					t.Errorf("%s has changed its host status at %v", name, since)
				}
			}
			expect.Eventually(t, patience, fleetLeads)
		})
	}
}

// transitions returns since when each host has its status.
func transitions(t *testing.T) map[string]time.Time {
	t.Helper()
	var services v1alpha1.ComputeServiceList
	expect.Eventually(t, patience, func() error {
		return system.Client.List(t.Context(), &services, &client.ListOptions{})
	})
	since := map[string]time.Time{}
	for _, s := range services.Items {
		if at := s.Status.HostStatusTransitionTime; at != nil {
			since[s.Name] = at.Time
		}
	}
	return since
}
