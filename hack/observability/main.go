// SPDX-License-Identifier: Apache-2.0

// Command observability writes what follows from the metrics and the alerts: the
// reference page, the PrometheusRule and the dashboard.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "hoststatus.dev/hoststatus/internal/manager"   // for its metrics
	_ "hoststatus.dev/hoststatus/internal/tenantapi" // for its metrics
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run writes the files below root.
func run(root string) error {
	alerts, err := readAlerts(filepath.Join(root, "config", "prometheus", "alerts.yaml"))
	if err != nil {
		return err
	}
	rule, err := prometheusRule(alerts)
	if err != nil {
		return err
	}
	board, err := dashboard().json()
	if err != nil {
		return err
	}
	for path, content := range map[string][]byte{
		"docs/metrics.md":                       reference(alerts),
		"config/prometheus/prometheusrule.yaml": rule,
		"config/prometheus/dashboard.json":      board,
	} {
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(path)), content, 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}
