// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// drivers are the Leases whose agent says that its driver fails. It is no verdict: the
// host reports, and only what is known of its servers grows old. There is no line in the
// log, since a host could write one with each renewal.
type drivers map[string]struct{}

// note takes what a Lease says now.
func (d drivers) note(lease *coordinationv1.Lease) {
	if lease.Annotations[v1alpha1.AnnotationDriverError] != "" {
		d[lease.Name] = struct{}{}
	} else if len(d) > 0 {
		delete(d, lease.Name)
	}
}
