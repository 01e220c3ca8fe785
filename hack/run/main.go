// SPDX-License-Identifier: Apache-2.0

// Command run starts a local control plane with hoststatus and a sample fleet on
// it, and stays until it is stopped. With --story it walks through every host status,
// and exits.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/test/framework/fleet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir := pflag.String("dir", ".run", "Folder for everything that this writes. What is in it is removed.")
	leaseDuration := pflag.Duration("lease-duration", 15*time.Second, "For how long a heartbeat holds.")
	story := pflag.Bool("story", false, "Walk through the story of host status, and end.")
	pflag.Parse()
	// What the clients of this process would log is in what it prints.
	ctrl.SetLogger(logr.Discard())

	absolute, err := filepath.Abs(*dir)
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	bin, err := filepath.Abs("bin") // Where make puts kubectl.
	if err != nil {
		return fmt.Errorf("finding bin/: %w", err)
	}
	begin := time.Now()
	fleet, err := fleet.Start(ctx, fleet.Options{
		Dir:           absolute,
		LeaseDuration: *leaseDuration,
		RenewInterval: *leaseDuration / 4,
		Log:           os.Stderr,
	})
	if ctx.Err() != nil && err != nil {
		fmt.Fprintln(os.Stderr, "Stopped before everything ran.")
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(os.Stderr, "- Stopping everything")
		fleet.Stop()
	}()
	if *story {
		if err := fleet.Story(ctx, os.Stdout); err != nil {
			return err
		}
		novaURL, err := fleet.StartNovaAPI(ctx)
		if err != nil {
			return err
		}
		if err := fleet.ClientsStory(ctx, os.Stdout, novaURL); err != nil {
			return err
		}
		fmt.Printf("\nEvery step was as it should be, in %s.\n", time.Since(begin).Round(time.Second))
		return nil
	}
	novaURL, err := fleet.StartNovaAPI(ctx)
	if err != nil {
		return err
	}
	ready := filepath.Join(absolute, "ready")
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		return fmt.Errorf("saying that all is ready: %w", err)
	}
	defer func() { _ = os.Remove(ready) }()
	fmt.Printf(`
hoststatus runs: 4 hosts, 10 servers in 2 namespaces. In another terminal, type

  export KUBECONFIG=%[1]s/admin.kubeconfig PATH=%[2]s:%[1]s/bin:$PATH
  kubectl get servers.compute -A
  kubectl hosts list
  kubectl hosts page   # in your browser, until Ctrl-C
  kubectl get servers -n team-a --as=ana   # as an owner sees them; or --as=abe, --as=ada
  kubectl hosts force-down compute-2 --reason "fenced by ipmi"

Let a host hang, ask why its servers are UNKNOWN after %[3]s, and let it go on:

  kill -STOP %[4]d   # the agent of compute-1
  kubectl hosts watch   # until Ctrl-C
  kubectl hosts show compute-1
  kill -CONT %[4]d

OpenStack's clients work, too: ana is shown host status, ada is not, and abe only while it is UNKNOWN.

  openstack --os-auth-type admin_token --os-endpoint %[6]s/v2.1/team-a --os-token $(cat %[1]s/tokens/ana) --os-compute-api-version 2.72 server list --long

%[5]s
To change the state of a VM, edit %[1]s/fake-driver/compute-1.yaml. Logs are in %[1]s.
Ctrl-C here stops everything.
`, absolute, bin, *leaseDuration, fleet.Agents["compute-1"].Pid(), agents(fleet), novaURL)
	<-ctx.Done()
	fmt.Println()
	return nil
}

// agents lists which process is the agent of which host.
func agents(f *fleet.Fleet) string {
	var out strings.Builder
	out.WriteString("The agents:\n\n")
	for _, host := range fleet.Hosts {
		fmt.Fprintf(&out, "  %s  pid %d\n", host, f.Agents[host].Pid())
	}
	return out.String()
}
