// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// leadingTracker is one of a manager that leads.
func leadingTracker() *tracker {
	elected := make(chan struct{})
	close(elected)
	return newTracker(clocktesting.NewFakePassiveClock(now), elected)
}

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "one", Name: name}}
}

// samples are count and sum of a histogram.
type samples struct {
	Count uint64
	Sum   float64
}

func samplesOf(t *testing.T, histogram *prometheus.HistogramVec) samples {
	t.Helper()
	var metric dto.Metric
	if err := histogram.WithLabelValues().(prometheus.Metric).Write(&metric); err != nil {
		t.Fatal(err)
	}
	return samples{metric.Histogram.GetSampleCount(), metric.Histogram.GetSampleSum()}
}

// gaugesOf returns what a scrape finds, in the order of sending.
func gaugesOf(t *testing.T, s *tracker) []float64 {
	t.Helper()
	sent := make(chan prometheus.Metric, 10)
	s.collect(sent)
	close(sent)
	var values []float64
	for m := range sent {
		var metric dto.Metric
		if err := m.Write(&metric); err != nil {
			t.Fatal(err)
		}
		values = append(values, metric.Gauge.GetValue())
	}
	return values
}

func TestPropagationIsMeasuredToEachServerAndToTheLast(t *testing.T) {
	clk := clocktesting.NewFakePassiveClock(now)
	s := leadingTracker()
	s.clock = clk
	one, all := samplesOf(t, toServer), samplesOf(t, toAllServers)
	answer := func(result reconcile.Result, err error) reconcile.Reconciler {
		return s.measure(reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) { return result, err }))
	}
	reconciled := func(r reconcile.Reconciler, name string) { _, _ = r.Reconcile(t.Context(), request(name)) }
	want := func(what string, servers, hosts samples, pending, oldest float64) {
		t.Helper()
		servers.Count, servers.Sum = servers.Count+one.Count, servers.Sum+one.Sum
		hosts.Count, hosts.Sum = hosts.Count+all.Count, hosts.Sum+all.Sum
		if diff := cmp.Diff([]samples{servers, hosts}, []samples{samplesOf(t, toServer), samplesOf(t, toAllServers)}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff([]float64{pending, oldest}, gaugesOf(t, s)); diff != "" {
			t.Errorf("%s, at a scrape (-want +got):\n%s", what, diff)
		}
	}
	step := func(d time.Duration) { clk.SetTime(clk.Now().Add(d)) }

	want("at first", samples{}, samples{}, 0, 0)
	s.begin("host-a", request("x"))
	s.begin("host-a", request("y"))
	step(time.Second)
	want("a second later", samples{}, samples{}, 2, 1)
	reconciled(answer(reconcile.Result{}, nil), "x")
	want("one server shows it", samples{1, 1}, samples{}, 1, 1)
	reconciled(answer(reconcile.Result{}, nil), "x")
	reconciled(answer(reconcile.Result{}, nil), "stranger")
	want("a server that waits for nothing is not counted", samples{1, 1}, samples{}, 1, 1)
	step(time.Second)
	reconciled(answer(reconcile.Result{}, errors.New("no")), "y")
	reconciled(answer(reconcile.Result{RequeueAfter: 1}, nil), "y")
	s.begin("host-a", request("y"))
	want("one that has to try again still waits, since the first change", samples{1, 1}, samples{}, 1, 2)
	step(time.Second)
	reconciled(answer(reconcile.Result{}, nil), "y")
	want("the last one shows it", samples{2, 4}, samples{1, 3}, 0, 0)

	s.begin("host-a", request("x"))
	step(time.Second)
	s.begin("host-b", request("x"))
	want("a server that moves meanwhile waits for its new host", samples{2, 4}, samples{1, 3}, 1, 1)
	reconciled(answer(reconcile.Result{}, nil), "x")
	want("and has waited since the first change", samples{3, 5}, samples{2, 4}, 0, 0)
}

func TestAStandbyMeasuresNothing(t *testing.T) {
	s := newTracker(clocktesting.NewFakePassiveClock(now), make(chan struct{}))
	s.begin("host-a", request("x"))
	if got := gaugesOf(t, s); len(got) > 0 || len(s.waiting) > 0 {
		t.Errorf("sent %v, waits for %v", got, s.waiting)
	}
}
