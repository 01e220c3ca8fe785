// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"

	"hoststatus.dev/hoststatus/internal/printable"
)

// maxDriverError is how many characters of an error go on the Lease.
const maxDriverError = 256

// health holds what is wrong with the driver, or with its reports.
type health struct {
	mu  sync.Mutex
	err string
}

// set records an error, or that all is well if err is nil.
func (h *health) set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = ""
	if err != nil {
		h.err = printable.CleanUpTo(maxDriverError, err.Error())
	}
}

// error returns the error, or "".
func (h *health) error() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}
