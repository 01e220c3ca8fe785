// SPDX-License-Identifier: Apache-2.0

// Command observability writes what follows from the metrics and the alerts: the
// reference page and the PrometheusRule. The dashboard is hack/gen/dashboard's; that it asks
// for metrics that exist is tested here, where they are known.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "hoststatus.dev/hoststatus/internal/manager"   // for its metrics
	_ "hoststatus.dev/hoststatus/internal/notify"    // for its metrics
	_ "hoststatus.dev/hoststatus/internal/nova"      // for its metrics
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
	for path, content := range map[string][]byte{
		"docs/operate/metrics.md":               reference(alerts),
		"config/prometheus/prometheusrule.yaml": rule,
	} {
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(path)), content, 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}
