// SPDX-License-Identifier: Apache-2.0

package serving

import "hoststatus.dev/hoststatus/internal/telemetry"

// The reasons for which a request does not reach its handler.
const (
	reasonConnections = "connections"
	reasonKind        = "kind"
	reasonSize        = "size"
	reasonTime        = "time"
	reasonBusy        = "busy"
)

var refused = telemetry.Manager.Counter(telemetry.Metric{
	Name: "hoststatus_webhook_refused_total", Replicas: telemetry.EachItsOwn,
	Help: "Requests to the webhook that were refused before they were looked at. kube-apiserver sends none of these; other clients that can reach the port may.",
	Labels: []telemetry.Label{{Name: "reason", Values: "`connections` (too many of one caller), `kind` (no AdmissionReview in JSON), `size` (body too large), " +
		"`time` (body too slow), `busy` (too many of one caller, or of all)"}},
})

func init() {
	for _, reason := range []string{reasonConnections, reasonKind, reasonSize, reasonTime, reasonBusy} {
		refused.WithLabelValues(reason) // It exists from the start.
	}
}
