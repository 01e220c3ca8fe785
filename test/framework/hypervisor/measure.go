// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// Measure pauses and resumes a domain that runs, n times in all, and returns how long its
// Server took each time to show that, counted from before virsh was started.
func (f *Fleet) Measure(ctx context.Context, n int) (took []time.Duration, err error) {
	const host, namespace, name = "compute-2", "team-b", "api-2"
	config, err := f.Cluster.AdminConfig()
	if err != nil {
		return nil, err
	}
	watcher, err := fleet.NewClient(config)
	if err != nil {
		return nil, err
	}
	stream, err := watcher.Watch(ctx, &v1alpha1.ServerList{}, client.InNamespace(namespace), client.MatchingFields{"metadata.name": name})
	if err != nil {
		return nil, err
	}
	defer stream.Stop()
	for i := range n {
		command, want := "suspend", v1alpha1.ServerState("PAUSED")
		if i%2 == 1 {
			command, want = "resume", "ACTIVE"
		}
		begin := time.Now()
		if _, err := f.Hosts[host].Virsh(command, name); err != nil {
			return nil, err
		}
		overdue := time.NewTimer(patience)
		for shown := false; !shown; {
			select {
			case event, ok := <-stream.ResultChan():
				if !ok {
					return nil, errors.New("the watch has ended")
				}
				server, ok := event.Object.(*v1alpha1.Server)
				shown = ok && server.Status.State == want
			case <-overdue.C:
				return nil, fmt.Errorf("%s is not %s after %s", name, want, patience)
			}
		}
		overdue.Stop()
		took = append(took, time.Since(begin))
	}
	return took, nil
}

// Quantile returns the value that a part q of all does not exceed, in whole milliseconds.
func Quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)].Round(time.Millisecond)
}
