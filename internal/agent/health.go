// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/printable"
)

// maxDriverError is how much of a driver's error is said on the Lease.
const maxDriverError = 256

// driverHealth is how the driver is.
type driverHealth struct {
	mu  sync.Mutex
	err string
}

// set takes that the driver fails, or works if err is nil.
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

// error returns what is wrong, or "".
func (d *driverHealth) error() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// annotateDriverError says on a Lease what is wrong with the driver, and nothing if err
// is "".
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
