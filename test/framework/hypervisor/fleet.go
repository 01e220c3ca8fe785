// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// Fleet is the sample fleet with real domains in place of the fake driver's files: one Host
// for each host, and on it a domain for each Server, called like it.
type Fleet struct {
	*fleet.Fleet
	Hosts map[string]*Host
}

// StartFleet starts it, in a folder with a short path, and waits until each Server is UP and
// ACTIVE. It needs Sandbox.
func StartFleet(ctx context.Context, dir string, options fleet.Options) (_ *Fleet, err error) {
	f := &Fleet{Hosts: map[string]*Host{}}
	defer func() {
		if err != nil {
			f.Stop()
		}
	}()
	for _, name := range fleet.Hosts {
		if f.Hosts[name], err = Start(dir); err != nil {
			return nil, fmt.Errorf("starting the libvirtd of %s: %w", name, err)
		}
	}
	options.Driver = func(host string) []string {
		return []string{"--driver=libvirt", "--libvirt-socket=" + f.Hosts[host].Socket()}
	}
	options.Dir = filepath.Join(dir, "fleet")
	if f.Fleet, err = fleet.Start(ctx, options); err != nil {
		return nil, err
	}
	var servers v1alpha1.ServerList
	if err := f.Client.List(ctx, &servers); err != nil {
		return nil, err
	}
	for i, s := range servers.Items {
		guest := Guest{Name: s.Name, Metadata: Metadata(s.Namespace, s.Name, "blue-net", fmt.Sprintf("10.0.0.%d", 11+i))}
		if err := f.Hosts[s.Spec.Host].DefineAndStart(guest); err != nil {
			return nil, err
		}
	}
	return f, f.WaitFor(ctx, patience, func(servers []v1alpha1.Server) error {
		return errors.Join(is("ACTIVE")(servers), fleet.All(v1alpha1.HostStatusUp)(servers))
	})
}

// Stop ends all hosts and the fleet.
func (f *Fleet) Stop() {
	if f.Fleet != nil {
		f.Fleet.Stop()
	}
	for _, h := range f.Hosts {
		if h != nil {
			h.Stop()
		}
	}
}

// is checks the state of all servers, or of those with these names.
func is(want v1alpha1.ServerState, names ...string) func([]v1alpha1.Server) error {
	return func(servers []v1alpha1.Server) error {
		for _, s := range servers {
			if (len(names) == 0 || slices.Contains(names, s.Name)) && s.Status.State != want {
				return fmt.Errorf("server %s is %q, not %s", s.Name, s.Status.State, want)
			}
		}
		return nil
	}
}

// soon is how long a server may take to show what has happened to its domain. On a machine
// that does nothing else it is less than a second.
const soon = 10 * time.Second

// Story goes through what happens to domains and hosts, and prints after each step what the
// owner sees. It fails at the first step that is not as expected.
func (f *Fleet) Story(ctx context.Context, out io.Writer) error {
	const owner = "get servers -n team-a --as=ana"
	virsh := func(host string, args ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			fleet.Print(ctx, "%s$ virsh %s %s", host, args[0], args[1])
			_, err := f.Hosts[host].Virsh(args...)
			return err
		}
	}
	silent := fleet.All(v1alpha1.HostStatusUnknown, "compute-2")
	return f.Tell(ctx, out, []fleet.Scene{
		{
			Title: "Every host has a libvirtd, and every server is a domain on it. This is what ana of team-a sees.",
			Check: is("ACTIVE"), Limit: soon, Show: owner,
		}, {
			Title: "The QEMU of web-1 is killed (SIGKILL), as the kernel does when memory runs out.",
			Do: func(ctx context.Context) error {
				fleet.Print(ctx, "compute-1$ kill -9 %d", f.Hosts["compute-1"].QEMU("web-1"))
				return f.Hosts["compute-1"].KillQEMU("web-1")
			},
			Check: is("SHUTOFF", "web-1"), Limit: soon, Show: owner,
		}, {
			Title: "It is started again.",
			Do:    virsh("compute-1", "start", "web-1"),
			Check: is("ACTIVE", "web-1"), Limit: soon, Show: owner,
		}, {
			Title: "db-1 is paused.",
			Do:    virsh("compute-1", "suspend", "db-1"),
			Check: is("PAUSED", "db-1"), Limit: soon, Show: owner,
		}, {
			Title: "web-2 is saved to disk.",
			Do:    virsh("compute-2", "managedsave", "web-2"),
			Check: is("SUSPENDED", "web-2"), Limit: soon, Show: owner,
		}, {
			Title: "web-3 is migrated live from compute-3 to compute-1. Whoever migrates it tells the API where it is now; the host that it has left reports it no more.",
			Do: func(ctx context.Context) error {
				fleet.Print(ctx, "compute-3$ virsh migrate --live web-3 qemu+ssh://compute-1/system")
				if err := f.Hosts["compute-3"].Migrate("web-3", f.Hosts["compute-1"]); err != nil {
					return err
				}
				return f.KubectlPrinted("patch servers.compute web-3 -n team-a --type merge", "-p", `{"spec":{"host":"compute-1"}}`)(ctx)
			},
			Check: func(servers []v1alpha1.Server) error {
				return errors.Join(is("ACTIVE", "web-3")(servers), moved(servers))
			}, Limit: soon, Show: owner,
		}, {
			Title: "On its new host web-3 is paused: that host reports it now.",
			Do:    virsh("compute-1", "suspend", "web-3"),
			Check: is("PAUSED", "web-3"), Limit: soon, Show: owner,
		}, {
			Title: "The agent of compute-2 is killed. Nobody knows whether the host runs: web-2 keeps its last state, and its host status tells how far to trust that.",
			Do: func(context.Context) error {
				f.Agents["compute-2"].Kill()
				return nil
			},
			Check: silent, Limit: f.LeaseDuration + soon, Show: owner,
		}, {
			Title: "Meanwhile web-2 is started, which nobody hears.",
			Do:    virsh("compute-2", "start", "web-2"),
			Check: func(servers []v1alpha1.Server) error {
				return errors.Join(is("SUSPENDED", "web-2")(servers), silent(servers))
			}, Limit: soon, Show: owner,
		}, {
			Title: "The agent is back: UP with its first heartbeat, and what was missed is reported.",
			Do:    func(context.Context) error { return f.StartAgent("compute-2") },
			Check: func(servers []v1alpha1.Server) error {
				return errors.Join(is("ACTIVE", "web-2")(servers), fleet.All(v1alpha1.HostStatusUp)(servers))
			}, Limit: soon, Show: owner,
		},
	})
}

// moved checks that web-3 is on its second host.
func moved(servers []v1alpha1.Server) error {
	for _, s := range servers {
		if s.Name == "web-3" && (s.Spec.Host != "compute-1" || !ptr.Equal(s.Status.HostStatus, ptr.To(v1alpha1.HostStatusUp))) {
			return fmt.Errorf("web-3 is on %q, which is %s", s.Spec.Host, fleet.Show(s.Status.HostStatus))
		}
	}
	return nil
}
