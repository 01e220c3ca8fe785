// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// logBook keeps what is logged, and passes each line on as it comes.
type logBook struct {
	logr.Logger
	// came has each line, for tests that wait for one.
	came chan string

	mu    sync.Mutex
	lines []string
}

func newLogBook() *logBook {
	l := &logBook{came: make(chan string, 1000)}
	l.Logger = funcr.New(func(_, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, args)
		l.came <- args
	}, funcr.Options{})
	return l
}

// want checks that there is one line for each of these words, in this order.
func (l *logBook) want(t *testing.T, words ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.EqualFunc(l.lines, words, strings.Contains) {
		t.Errorf("logged\n%s\nwant one line for each of %q", strings.Join(l.lines, "\n"), words)
	}
}
