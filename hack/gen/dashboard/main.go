// SPDX-License-Identifier: Apache-2.0

// Command dashboard writes config/prometheus/dashboard.json. Its argument is the root
// of the repository.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboard ROOT, where ROOT is the root of the repository")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	board, err := build()
	if err != nil {
		return fmt.Errorf("building the dashboard: %w", err)
	}
	content, err := json.MarshalIndent(board, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the dashboard: %w", err)
	}
	if err := os.WriteFile(filepath.Join(root, "config", "prometheus", "dashboard.json"), append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the dashboard: %w", err)
	}
	return nil
}
