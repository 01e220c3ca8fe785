// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/telemetry"
)

var (
	fleet       = telemetry.Manager.Source()
	leadingDesc = fleet.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_leading", Replicas: telemetry.EachItsOwn,
		Help: "1 while this manager leads for certain, 0 while it is a standby. One leads at a time.",
	})
	hostsDesc = fleet.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_hosts", Replicas: telemetry.EachAlike,
		Help:   "Hosts by host status, as in their ComputeServices.",
		Labels: []telemetry.Label{{Name: "host_status", Values: "`" + strings.Join(hoststatus.DerivedLabels(), "`, `") + "`, and `" + hoststatus.LabelNotDerived + "` for one whose first heartbeat may still come"}},
	})
	reportingDesc = fleet.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_hosts_reporting", Replicas: telemetry.EachAlike,
		Help:   "Hosts by whether they report, whatever their host status is.",
		Labels: []telemetry.Label{{Name: "reporting", Values: "`True`, `False`, `Unknown`"}},
	})
	windowsDesc = fleet.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_maintenance_windows", Replicas: telemetry.EachAlike,
		Help:   "Maintenance windows that are not over, by whether they are open.",
		Labels: []telemetry.Label{{Name: "phase", Values: "`announced`, `open`"}},
	})
	answersDesc = fleet.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_maintenance_servers", Replicas: telemetry.EachAlike,
		Help:   "Servers on hosts whose maintenance window is announced, by what their owners have answered to it.",
		Labels: []telemetry.Label{{Name: "answer", Values: "`ready`; `put_off`; `none`: none that counts"}},
	})
	serversDesc = fleet.Metric(telemetry.KindGauge, telemetry.Metric{
		Name: "hoststatus_servers", Replicas: telemetry.EachAlike,
		Help:   "Servers by the host status that they show.",
		Labels: []telemetry.Label{{Name: "host_status", Values: "as of `hoststatus_hosts`, and `" + hoststatus.LabelNone + "`"}},
	})
)

func init() { metrics.Registry.MustRegister(telemetry.Manager.Collectors()...) }

// fleetState reads the fleet from the caches.
type fleetState struct {
	leads          func() bool
	hosts, servers toolscache.SharedIndexInformer
}

// provideFleet lets the metrics of the fleet come from c until ctx ends.
func provideFleet(ctx context.Context, c cache.Cache, leads func() bool) error {
	f := &fleetState{leads: leads}
	for obj, informer := range map[client.Object]*toolscache.SharedIndexInformer{&v1alpha1.ComputeService{}: &f.hosts, &v1alpha1.Server{}: &f.servers} {
		found, err := c.GetInformer(ctx, obj, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("finding the cache of %T for the metrics: %w", obj, err)
		}
		var ok bool
		if *informer, ok = found.(toolscache.SharedIndexInformer); !ok {
			return fmt.Errorf("finding the cache of %T for the metrics: it is a %T", obj, found)
		}
	}
	context.AfterFunc(ctx, fleet.Provide(f.collect))
	return nil
}

// collect counts hosts and servers. Until they have been listed it reports nothing,
// rather than zero.
func (f *fleetState) collect(out chan<- prometheus.Metric) {
	leading := 0.0
	if f.leads() {
		leading = 1
	}
	out <- prometheus.MustNewConstMetric(leadingDesc, prometheus.GaugeValue, leading)
	if f.hosts.HasSynced() {
		byStatus := zeros(hoststatus.HostLabels())
		byReporting := zeros([]string{string(metav1.ConditionTrue), string(metav1.ConditionFalse), string(metav1.ConditionUnknown)})
		byPhase, byAnswer := zeros([]string{phaseAnnounced, phaseOpen}), zeros([]string{answerReady, answerPutOff, answerNone})
		for _, obj := range f.hosts.GetStore().List() {
			if service, ok := obj.(*v1alpha1.ComputeService); ok {
				byStatus[hoststatus.Label(service.Status.HostStatus)]++
				byReporting[reportingLabel(service)]++
				countWindow(service, byPhase, byAnswer)
			}
		}
		sendCounts(out, windowsDesc, byPhase)
		sendCounts(out, answersDesc, byAnswer)
		sendCounts(out, hostsDesc, byStatus)
		sendCounts(out, reportingDesc, byReporting)
	}
	if f.servers.HasSynced() {
		byStatus := zeros(hoststatus.ServerLabels())
		for _, obj := range f.servers.GetStore().List() {
			if server, ok := obj.(*v1alpha1.Server); ok {
				byStatus[hoststatus.Label(server.Status.HostStatus)]++
			}
		}
		sendCounts(out, serversDesc, byStatus)
	}
}

// The values of the labels phase and answer.
const (
	phaseAnnounced = "announced"
	phaseOpen      = "open"

	answerReady  = "ready"
	answerPutOff = "put_off"
	answerNone   = "none"
)

// countWindow counts the window of a host, if it has one that is not over; and what has been
// answered to it, which matters until it opens.
func countWindow(service *v1alpha1.ComputeService, byPhase, byAnswer map[string]int) {
	open := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionWindowOpen)
	switch {
	case open == nil || open.Reason == v1alpha1.WindowOpenReasonClosed:
		return
	case open.Status == metav1.ConditionTrue:
		byPhase[phaseOpen]++
		return
	}
	byPhase[phaseAnnounced]++
	if record := hoststatus.RecordOf(service); record != nil {
		servers, ready, putOff := int(ptr.Deref(record.Servers, 0)), int(ptr.Deref(record.Ready, 0)), int(ptr.Deref(record.PutOff, 0))
		byAnswer[answerReady] += ready
		byAnswer[answerPutOff] += putOff
		byAnswer[answerNone] += servers - ready - putOff
	}
}

func reportingLabel(service *v1alpha1.ComputeService) string {
	if c := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ConditionReporting); c != nil {
		return string(c.Status)
	}
	return string(metav1.ConditionUnknown)
}

// zeros lets every series exist from the start, so that a first host that falls
// silent is an increase.
func zeros(labels []string) map[string]int {
	counts := make(map[string]int, len(labels))
	for _, label := range labels {
		counts[label] = 0
	}
	return counts
}

func sendCounts(out chan<- prometheus.Metric, desc *prometheus.Desc, counts map[string]int) {
	for label, count := range counts {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(count), label)
	}
}
