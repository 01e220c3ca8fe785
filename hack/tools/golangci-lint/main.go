// SPDX-License-Identifier: Apache-2.0

// Command golangci-lint is golangci-lint with kube-api-linter compiled in, which
// is how that linter is meant to be used.
package main

import (
	"fmt"
	"os"

	"github.com/golangci/golangci-lint/v2/pkg/commands"
	"github.com/golangci/golangci-lint/v2/pkg/exitcodes"
	_ "sigs.k8s.io/kube-api-linter"
)

func main() {
	if err := commands.Execute(commands.BuildInfo{GoVersion: "unknown", Version: "v2", Commit: "unknown", Date: "unknown"}); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(exitcodes.Failure)
	}
}
