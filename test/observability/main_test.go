// SPDX-License-Identifier: Apache-2.0

// Package observability shows that the metrics, the alerts and the dashboard serve: a
// real Prometheus scrapes the real binaries, with the rights that are shipped, and its
// alerts follow what happens to real hosts.
package observability

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// patience is how long something may take that is not timed.
const patience = time.Minute

// root is that of the repository, and binaries the folder with prometheus and promtool.
var root, binaries string

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if root, err = controlplane.RepositoryRoot(); err != nil {
		fmt.Println(err)
		return 1
	}
	ensure := exec.CommandContext(context.Background(), filepath.Join(root, "hack", "ensure-prometheus.sh"))
	var complaint bytes.Buffer
	ensure.Stderr = &complaint
	out, err := ensure.Output()
	if err != nil {
		fmt.Printf("SKIPPED: neither the alerts nor the dashboard are tested, because Prometheus cannot be had: %v\n%s", err, complaint.Bytes())
		if os.Getenv("CI") == "true" {
			fmt.Println("CI does not accept that.")
			return 1
		}
		return 0
	}
	binaries = strings.TrimSpace(string(out))
	return m.Run()
}

// promtool runs promtool in config/prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "promtool"), args...)
	cmd.Dir = filepath.Join(root, "config", "prometheus")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestEachAlertFiresWhenItShouldAndNotOtherwise(t *testing.T) {
	promtool(t, "check", "rules", "alerts.yaml")
	promtool(t, "test", "rules", "alerts_test.yaml")
}

// startFleet starts the sample fleet with a standby beside its manager.
func startFleet(t *testing.T) (system *fleet.Fleet, standbyMetrics string) {
	t.Helper()
	dir := t.TempDir()
	system, err := fleet.Start(t.Context(), fleet.Options{
		Dir: filepath.Join(dir, "fleet"), LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: os.Stdout,
	})
	expect.NoError(t, err)
	t.Cleanup(func() {
		system.Stop()
		if fleet.ReportCrashes(os.Stdout, system.Dir) != 0 {
			t.Error("a process has crashed")
		}
	})
	standby, standbyMetrics, err := system.StartManager("standby")
	expect.NoError(t, err)
	t.Cleanup(standby.Stop)
	return system, standbyMetrics
}

// applyManifests applies config/prometheus as a cluster with the Prometheus operator
// takes it: with the operator's own CRDs, made from its types.
func applyManifests(t *testing.T, system *fleet.Fleet) {
	t.Helper()
	files, err := controlplane.MonitoringCRDs(t.Context(), t.TempDir())
	expect.NoError(t, err)
	crds := []string{"apply", "--server-side"}
	for _, file := range files {
		crds = append(crds, "-f", file)
	}
	if out, err := system.Kubectl(t.Context(), crds...).CombinedOutput(); err != nil {
		t.Fatalf("applying the CRDs of the Prometheus operator: %v\n%s", err, out)
	}
	// A new CRD takes a moment to be served.
	expect.Eventually(t, patience, func() error {
		out, err := system.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "-k", filepath.Join(root, "config", "prometheus")).CombinedOutput()
		if err != nil {
			return errors.New(string(out))
		}
		return nil
	})
}
