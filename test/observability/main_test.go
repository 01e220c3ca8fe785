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

	"hoststatus.dev/hoststatus/internal/devcluster"
	"hoststatus.dev/hoststatus/internal/devfleet"
)

// root is that of the repository, and binaries the folder with prometheus and promtool.
var root, binaries string

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if root, err = devcluster.RepositoryRoot(); err != nil {
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until check finds nothing to complain of.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	if err := poll(t.Context(), limit, check); err != nil {
		t.Fatalf("after %v: %v", limit, err)
	}
}

func poll(ctx context.Context, limit time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
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
func startFleet(t *testing.T) (fleet *devfleet.Fleet, standbyMetrics string) {
	t.Helper()
	dir := t.TempDir()
	fleet, err := devfleet.Start(t.Context(), devfleet.Options{
		Dir: filepath.Join(dir, "fleet"), LeaseDuration: 4 * time.Second, RenewInterval: time.Second, Log: os.Stdout,
	})
	must(t, err)
	t.Cleanup(func() {
		fleet.Stop()
		if devfleet.ReportCrashes(os.Stdout, fleet.Dir) != 0 {
			t.Error("a process has crashed")
		}
	})
	standby, standbyMetrics, err := fleet.StartManager("standby")
	must(t, err)
	t.Cleanup(standby.Stop)
	return fleet, standbyMetrics
}

// applyManifests applies config/prometheus as a cluster with the Prometheus operator
// takes it: with the operator's own CRDs, made from its types.
func applyManifests(t *testing.T, fleet *devfleet.Fleet) {
	t.Helper()
	files, err := devcluster.MonitoringCRDs(t.Context(), t.TempDir())
	must(t, err)
	crds := []string{"apply", "--server-side"}
	for _, file := range files {
		crds = append(crds, "-f", file)
	}
	if out, err := fleet.Kubectl(t.Context(), crds...).CombinedOutput(); err != nil {
		t.Fatalf("applying the CRDs of the Prometheus operator: %v\n%s", err, out)
	}
	// A new CRD takes a moment to be served.
	eventually(t, 20*time.Second, func() error {
		out, err := fleet.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "-k", filepath.Join(root, "config", "prometheus")).CombinedOutput()
		if err != nil {
			return errors.New(string(out))
		}
		return nil
	})
}
