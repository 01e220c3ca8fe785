// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// slowBodies holds n requests open until the test ends: each promises a body of
// 100,000 bytes and sends one. It returns once all have been sent.
func slowBodies(t *testing.T, config *rest.Config, n int, method, path, contentType string) {
	t.Helper()
	certificate, err := tls.X509KeyPair(config.CertData, config.KeyData)
	expect.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CAData)
	server, err := url.Parse(config.Host)
	expect.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	dialer := tls.Dialer{Config: &tls.Config{
		RootCAs: roots, ServerName: server.Hostname(), Certificates: []tls.Certificate{certificate},
		NextProtos: []string{"http/1.1"}, // A connection for each request.
	}}
	var sent atomic.Int64
	for range n {
		running.Go(func() {
			first := true
			for ctx.Err() == nil {
				connection, err := dialer.DialContext(ctx, "tcp", server.Host)
				if err != nil {
					continue
				}
				closed := context.AfterFunc(ctx, func() { _ = connection.Close() })
				_, err = fmt.Fprintf(connection, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: 100000\r\n\r\n{", method, path, server.Host, contentType)
				if err == nil && first {
					first = false
					sent.Add(1)
				}
				// Until it is answered, which the API server does after a minute, or at
				// once if it has enough of them.
				_, _ = io.Copy(io.Discard, connection)
				closed()
				_ = connection.Close()
			}
		})
	}
	expect.Eventually(t, time.Minute, func() error {
		if got := sent.Load(); got < int64(n) {
			return fmt.Errorf("%d of %d requests have been sent", got, n)
		}
		return nil
	})
}

// forceDownAndUp returns how long, in each of several tries, it takes from a flag until
// the host's status, and that of a server on it, are as it says.
func forceDownAndUp(t *testing.T, host *v1alpha1.ComputeService, server string, tries int) (took []time.Duration) {
	t.Helper()
	for range tries {
		for _, down := range []bool{true, false} {
			want, reason := v1alpha1.HostStatusUp, v1alpha1.ReasonReporting
			if down {
				want, reason = v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown
			}
			begun := time.Now()
			patch(t, host, fmt.Sprintf(`{"spec":{"forcedDown":%v}}`, down))
			expect.Eventually(t, time.Minute, hostIs(host.Name, want))
			expect.Eventually(t, time.Minute, serverIs("team-a", server, want, reason))
			took = append(took, time.Since(begun))
		}
	}
	return took
}

// renewals returns how long some renewals of a host of its own take, at most limit each.
func renewals(t *testing.T, name string, n int, limit time.Duration) (took []time.Duration, failed int) {
	t.Helper()
	config, err := system.HostConfig(name)
	expect.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	lease, err := leases().Get(t.Context(), name, metav1.GetOptions{})
	expect.NoError(t, err)
	for range n {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		var updated *coordinationv1.Lease
		lease.Spec.RenewTime = &metav1.MicroTime{Time: begun}
		updated, err := client.CoordinationV1().Leases(lease.Namespace).Update(ctx, lease, metav1.UpdateOptions{})
		cancel()
		took = append(took, time.Since(begun).Round(time.Millisecond))
		if err != nil {
			failed++
			continue
		}
		lease = updated
	}
	return took, failed
}

// A request holds a seat of its priority level while its body is read. One host can
// hold all seats of its level so; what the manager needs to act on a flag is elsewhere.
func TestOneHostThatHoldsItsRequestsOpenDelaysNoFlag(t *testing.T) {
	const limit = 2 * time.Second
	services := newRecord(t, &v1alpha1.ComputeServiceList{})
	host := newService(t, "attack-fenced")
	newServer(t, "team-a", "attack-fenced", host.Name)
	newHost(t, host.Name, time.Minute, 10*time.Second, 0)
	newService(t, "attack-victim")
	_, err := leases().Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "attack-victim"}}, metav1.CreateOptions{})
	expect.NoError(t, err)
	expect.Eventually(t, patience, hostIs(host.Name, v1alpha1.HostStatusUp))
	attacker, err := system.HostConfig("attack-evil")
	expect.NoError(t, err)

	for _, attack := range []struct{ name, method, path, contentType string }{
		{"renewals of its own Lease", http.MethodPut, "/apis/coordination.k8s.io/v1/namespaces/hoststatus-leases/leases/attack-evil", "application/json"},
		{"reports", http.MethodPatch, "/apis/compute.hoststatus.dev/v1alpha1/namespaces/team-a/servers/web-1/status", "application/merge-patch+json"},
	} {
		t.Run(attack.name, func(t *testing.T) {
			expect.Eventually(t, patience, fleetLeads)
			const tries = 4
			alone := forceDownAndUp(t, host, "attack-fenced", tries)
			renewalsAlone, _ := renewals(t, "attack-victim", 3, limit)
			before := leader(t)
			slowBodies(t, attacker, 300, attack.method, attack.path, attack.contentType)
			attacked := forceDownAndUp(t, host, "attack-fenced", tries)
			renewalsAttacked, failed := renewals(t, "attack-victim", 3, limit)
			t.Logf("from a flag to the status of host and server, slowest of %d: alone %v, attacked %v", 2*tries,
				slices.Max(alone).Round(time.Millisecond), slices.Max(attacked).Round(time.Millisecond))
			t.Logf("a renewal of another host: alone %v, attacked %v, of which %d were given up after %v", renewalsAlone, renewalsAttacked, failed, limit)
			if slowest := slices.Max(attacked); slowest > limit {
				t.Errorf("a flag took %v to be followed, more than %v: %v", slowest, limit, attacked)
			}
			if after := leader(t); after != before {
				t.Errorf("%s led before, %s leads now", before, after)
			}
			expect.NoError(t, fleetLeads())
		})
	}
	for _, name := range []string{"compute-1", "compute-4", host.Name} {
		for _, c := range services.of(name) {
			if c.status == string(v1alpha1.HostStatusUnknown) {
				t.Errorf("%s was UNKNOWN at %v: its heartbeats were held up, and the canary was not", name, c.at)
			}
		}
	}
}
