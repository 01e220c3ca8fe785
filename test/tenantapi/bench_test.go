// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/devfleet"
)

const benchServers = 1000 // as many as a large tenant has

// fleet makes a tenant with many servers, in parallel.
func fleet(b testing.TB, namespace string, n int) []*computev1alpha1.Server {
	b.Helper()
	servers := make([]*computev1alpha1.Server, n)
	var making sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range n {
		slots <- struct{}{}
		making.Go(func() {
			defer func() { <-slots }()
			servers[i] = putServer(b, namespace, fmt.Sprintf("server-%04d", i), fmt.Sprintf("host-%d", i%20), withHostStatus(computev1alpha1.HostStatusUp))
		})
	}
	making.Wait()
	return servers
}

// direct takes the test's balancer, whose copying costs a tenth of a get, out of the
// way for a benchmark.
func direct(b *testing.B) {
	b.Helper()
	register := func(ctx context.Context, port string) {
		manifests := filepath.Join(env.dir, "manifests-"+port)
		must(b, devfleet.TenantAPIManifests(env.root, manifests, port))
		must(b, env.apply(ctx, manifests))
	}
	_, port, err := net.SplitHostPort(env.replicas[0].address)
	must(b, err)
	register(b.Context(), port)
	env.balancer.drop()
	b.Cleanup(func() { register(context.WithoutCancel(b.Context()), env.balancer.port()) })
	waitReady(b, env.replicas[0])
}

// contender is one way to ask for the same, measured in turn with the others.
type contender struct {
	name string
	ask  func(i int) answer
	took []time.Duration
}

func race(b *testing.B, contenders []*contender) {
	for _, c := range contenders { // Connections and caches are warm.
		for i := range 5 {
			c.ask(i)
		}
	}
	i := 0
	for b.Loop() {
		i++
		for n := range contenders {
			c := contenders[(i+n)%len(contenders)] // Nobody always goes first.
			begin := time.Now()
			a := c.ask(i)
			c.took = append(c.took, time.Since(begin))
			if a.code != http.StatusOK {
				b.Fatalf("%s: %d %s", c.name, a.code, a.body)
			}
		}
	}
	reference := median(contenders[0].took)
	for _, c := range contenders {
		m := median(c.took)
		b.ReportMetric(float64(m.Microseconds())/1000, c.name+"-ms")
		if c != contenders[0] {
			b.ReportMetric(float64(m)/float64(reference), c.name+"-ratio")
		}
	}
	b.ReportMetric(0, "ns/op")
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func computePath(namespace string) string {
	return "/apis/compute.hoststatus.dev/v1alpha1/namespaces/" + namespace + "/servers"
}

func BenchmarkListOf1000ServersAgainstTheCustomResource(b *testing.B) {
	direct(b)
	namespace := newNamespace(b)
	fleet(b, namespace, benchServers)
	admin, granted, ungranted := administrator(b), newPerson(b), newPerson(b)
	bind(b, granted, viewer, namespace)
	bind(b, granted, statusViewer, namespace)
	bind(b, ungranted, viewer, namespace)
	race(b, []*contender{
		{name: "customresource", ask: func(int) answer { return admin.get(b, computePath(namespace), "") }},
		{name: "granted", ask: func(int) answer { return granted.get(b, pathOf(namespace), "") }},
		{name: "ungranted", ask: func(int) answer { return ungranted.get(b, pathOf(namespace), "") }},
		{name: "cached", ask: func(int) answer { return granted.get(b, pathOf(namespace)+"?resourceVersion=0", "") }},
	})
}

func BenchmarkGetAgainstTheCustomResource(b *testing.B) {
	direct(b)
	namespace := newNamespace(b)
	fleet(b, namespace, benchServers)
	admin, granted, ungranted := administrator(b), newPerson(b), newPerson(b)
	bind(b, granted, viewer, namespace)
	bind(b, granted, statusViewer, namespace)
	bind(b, ungranted, viewer, namespace)
	name := func(i int) string { return fmt.Sprintf("server-%04d", i%benchServers) }
	race(b, []*contender{
		{name: "customresource", ask: func(i int) answer { return admin.get(b, computePath(namespace)+"/"+name(i), "") }},
		{name: "granted", ask: func(i int) answer { return granted.get(b, pathOf(namespace, name(i)), "") }},
		{name: "ungranted", ask: func(i int) answer { return ungranted.get(b, pathOf(namespace, name(i)), "") }},
		{name: "granted-same", ask: func(int) answer { return granted.get(b, pathOf(namespace, name(0)), "") }},
	})
}

// BenchmarkWatch200 measures from the first of 100 changes until each of 200
// watchers has the last of them.
func BenchmarkWatch200WatchersWhile100ServersChange(b *testing.B) {
	const watchers, changed = 200, 100
	direct(b)
	namespace := newNamespace(b)
	servers := fleet(b, namespace, changed)
	p := newPerson(b)
	bind(b, p, viewer, namespace)
	bind(b, p, statusViewer, namespace)
	rv := p.list(b, namespace, "").ResourceVersion
	streams := make([]*stream, watchers)
	for i := range streams {
		streams[i] = p.watch(b, namespace, "resourceVersion="+rv, "")
	}
	var took, writing []time.Duration
	status := computev1alpha1.HostStatusUp
	for b.Loop() {
		if status = computev1alpha1.HostStatusDown; len(took)%2 == 1 {
			status = computev1alpha1.HostStatusUp
		}
		begin := time.Now()
		var writers sync.WaitGroup
		slots := make(chan struct{}, 8)
		for _, s := range servers {
			slots <- struct{}{}
			writers.Go(func() {
				defer func() { <-slots }()
				setHostFields(s, status)
				if err := env.admin.Status().Update(b.Context(), s); err != nil {
					b.Error(err)
				}
			})
		}
		writers.Wait()
		written := time.Now()
		for _, s := range streams {
			for range changed {
				s.next(b, 30*time.Second)
			}
		}
		took, writing = append(took, time.Since(written)), append(writing, written.Sub(begin))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median(writing).Milliseconds()), "writing-ms")
	b.ReportMetric(float64(median(took).Milliseconds()), "last-event-ms")
	b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "worst-last-event-ms")
}
