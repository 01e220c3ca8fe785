// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

const roleInformer = "lease-informer"

// playRole is this program as a process beside the manager.
func playRole(ctx context.Context, role string, args []string) error {
	if role != roleInformer || len(args) != 1 {
		return fmt.Errorf("-role: there is no %q with %d arguments", role, len(args))
	}
	config, err := clientcmd.BuildConfigFromFlags("", args[0])
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.QPS = -1
	return informLeases(ctx, config)
}

// informLeases is the reference for what a renewal costs: a shared informer of the
// Leases, by protobuf as the manager has them, that nobody listens to.
func informLeases(ctx context.Context, config *rest.Config) error {
	c, err := protobufClient(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithNamespace(v1alpha1.DefaultLeaseNamespace))
	factory.Coordination().V1().Leases().Informer()
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown()
	return nil
}

// startInformer starts the bare informer of Leases in a process of its own, so that
// its CPU time can be told apart. It ends with the trial.
func (t *trial) startInformer(dir string, config *rest.Config) (*controlplane.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the benchmark's own program: %w", err)
	}
	kubeconfig := filepath.Join(dir, roleInformer+".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		return nil, err
	}
	p := controlplane.NewProcess(roleInformer, self, filepath.Join(dir, roleInformer+".log"), os.Environ(), "-role="+roleInformer, kubeconfig)
	if err := p.Start(); err != nil {
		return nil, err
	}
	t.later(p.Stop)
	return p, nil
}
