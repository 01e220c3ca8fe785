// SPDX-License-Identifier: Apache-2.0

// Package logbook keeps what is logged, for tests of what is logged.
package logbook

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

// Book is a logger that keeps its lines, and passes each on as it comes.
type Book struct {
	logr.Logger
	// Came has each line, for tests that wait for one.
	Came chan string

	mu    sync.Mutex
	lines []string
}

// New returns an empty Book.
func New() *Book {
	b := &Book{Came: make(chan string, 1000)}
	b.Logger = funcr.New(func(_, args string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.lines = append(b.lines, args)
		b.Came <- args
	}, funcr.Options{})
	return b
}

// Want checks that there is one line for each of these words, in this order.
func (b *Book) Want(t *testing.T, words ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.EqualFunc(b.lines, words, strings.Contains) {
		t.Errorf("logged\n%s\nwant one line for each of %q", strings.Join(b.lines, "\n"), words)
	}
}
