// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"hoststatus.dev/hoststatus/internal/version"
)

func init() {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "hoststatus", Name: "build_info",
		Help:        "1, with the version of hoststatus and of the Go that built it.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go_version": runtime.Version()},
	})
	info.Set(1)
	metrics.Registry.MustRegister(info)
}
