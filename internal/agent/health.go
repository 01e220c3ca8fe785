// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/printable"
)

// maxDriverError is how many characters of a driver's error go on the Lease.
const maxDriverError = 256

// driverHealth holds the driver's current error.
type driverHealth struct {
	mu  sync.Mutex
	err string
}

// set records that the driver fails, or works if err is nil.
func (d *driverHealth) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = ""
	if err != nil {
		d.err = printable.Clean(err.Error())
		if runes := []rune(d.err); len(runes) > maxDriverError {
			d.err = string(runes[:maxDriverError-1]) + "…"
		}
	}
}

// error returns the driver's error, or "".
func (d *driverHealth) error() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// annotateDriverError puts the driver's error on a Lease, or removes it if err is "".
func annotateDriverError(lease *coordinationv1.Lease, err string) {
	switch {
	case err == "":
		delete(lease.Annotations, v1alpha1.AnnotationDriverError)
	case lease.Annotations == nil:
		lease.Annotations = map[string]string{v1alpha1.AnnotationDriverError: err}
	default:
		lease.Annotations[v1alpha1.AnnotationDriverError] = err
	}
}
