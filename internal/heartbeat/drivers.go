// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// drivers are the Leases whose agent reports a failing driver. It changes no verdict: the
// host reports, and only the states of its servers grow old. It is not logged, since a
// host could cause a line with each renewal.
type drivers map[string]struct{}

// note takes the current state of a Lease.
func (d drivers) note(lease *coordinationv1.Lease) {
	if lease.Annotations[v1alpha1.AnnotationDriverError] != "" {
		d[lease.Name] = struct{}{}
	} else if len(d) > 0 {
		delete(d, lease.Name)
	}
}
