// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
)

// logStderr logs each line that a library writes directly to os.Stderr, so that a JSON log
// holds nothing else: k8s.io/apiserver writes the errors of its HTTP/2 server there. What
// the runtime prints about a panic or a data race bypasses it. restore logs what is left,
// and restores os.Stderr.
func logStderr(log logr.Logger) (restore func(), err error) {
	original := os.Stderr
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe for what libraries write to standard error: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewReader(read)
		for {
			line, err := lines.ReadString('\n')
			if line = strings.TrimSpace(line); line != "" {
				log.Info("A library wrote to standard error", "line", line)
			}
			if err != nil {
				return
			}
		}
	}()
	os.Stderr = write
	return func() {
		os.Stderr = original
		_ = write.Close()
		<-done
		_ = read.Close()
	}, nil
}
