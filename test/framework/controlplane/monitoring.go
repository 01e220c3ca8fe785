// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// MonitoringCRDs makes the CRDs ServiceMonitor and PrometheusRule from the types of the
// Prometheus operator that hack/deps/prometheus-operator pins, in dir, and returns their
// files. Tests check against them what is shipped for the operator.
func MonitoringCRDs(ctx context.Context, dir string) ([]string, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return nil, err
	}
	generator := filepath.Join(dir, "controller-gen")
	build := exec.CommandContext(ctx, "go", "build", "-modfile=hack/tools/go.mod", "-o", generator, "sigs.k8s.io/controller-tools/cmd/controller-gen")
	build.Dir = root
	build.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	generate := exec.CommandContext(ctx, generator, "crd:crdVersions=v1,maxDescLen=0",
		"paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1", "output:crd:artifacts:config="+filepath.Join(dir, "crds"))
	generate.Dir = filepath.Join(root, "hack", "deps", "prometheus-operator")
	for _, cmd := range []*exec.Cmd{build, generate} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("making the CRDs of the Prometheus operator: %s: %w\n%s", cmd, err, out)
		}
	}
	var files []string
	for _, name := range []string{"servicemonitors", "prometheusrules"} {
		files = append(files, filepath.Join(dir, "crds", "monitoring.coreos.com_"+name+".yaml"))
	}
	return files, nil
}
