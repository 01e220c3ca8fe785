// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestASourceHasMetricsWhileSomethingProvidesThem(t *testing.T) {
	source := newSet("test").Source()
	desc := source.Metric(KindGauge, Metric{Name: "hoststatus_things", Help: "Things."})
	registry := prometheus.NewRegistry()
	registry.MustRegister(source)
	want := func(what string, want ...float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		for _, family := range families {
			for _, m := range family.Metric {
				got = append(got, m.Gauge.GetValue())
			}
		}
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	provide := func(value float64) (stop func()) {
		return source.Provide(func(out chan<- prometheus.Metric) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
		})
	}
	want("at first")
	stopFirst := provide(1)
	want("provided", 1)
	stopSecond := provide(2)
	want("provided again", 2)
	stopFirst()
	want("the first one ends late", 2)
	stopSecond()
	want("all have ended")
}
