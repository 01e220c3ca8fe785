// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/internal/racedetector"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// connectToWebhook opens a connection to the fleet's webhook, from an address of this machine.
func connectToWebhook(t *testing.T, from string) (net.Conn, error) {
	t.Helper()
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}},
		Config:    &tls.Config{InsecureSkipVerify: true}, // an attacker does not care
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", "127.0.0.1:"+system.WebhookPort)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// postToWebhook posts a body to the fleet's webhook, and returns how it is answered.
func postToWebhook(t *testing.T, contentType string, body []byte) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // an attacker does not care
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://127.0.0.1:"+system.WebhookPort+"/warn-computeservices", bytes.NewReader(body))
	expect.NoError(t, err)
	request.Header.Set("Content-Type", contentType)
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "without an answer" // The connection is closed on who goes on sending.
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.Status
}

// memory returns what a process holds (VmRSS), or held at most (VmHWM), in MiB.
func memory(t *testing.T, pid int, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	expect.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			expect.NoError(t, err)
			return kib >> 10
		}
	}
	t.Fatalf("there is no %s", field)
	return 0
}

// warnings asks the webhook by kube-apiserver, n times, and returns how long it took at
// most to be warned.
func warnings(t *testing.T, p *person, n int) (longest time.Duration) {
	t.Helper()
	for range n {
		begin := time.Now()
		expect.NoError(t, p.Create(t.Context(), serverOn("flooded", "nowhere"), client.DryRunAll))
		longest = max(longest, time.Since(begin))
		p.warned(t, `there is no ComputeService "nowhere"`)
	}
	return longest
}

// Whoever can reach the port can send whatever he likes: it takes little of the manager,
// and nothing of those for whom the webhook is there.
func TestNobodyWhoReachesTheWebhookExhaustsIt(t *testing.T) {
	webhookAnswers(t)
	p := newPerson(t)
	pid := system.Manager.Pid()
	alone := warnings(t, p, 20)
	before := memory(t, pid, "VmRSS")
	const mostMiB = 96

	list := []byte("a:\n" + strings.Repeat("- a\n", 7<<18))
	conditions := []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE","object":{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"ComputeService","status":{"conditions":[` +
		strings.Repeat("{},", 1<<20) + `{}]}}}}`)
	held := "POST /warn-computeservices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n{" + strings.Repeat(" ", 60<<10)
	for _, attack := range []struct {
		name  string
		begin func(t *testing.T, attackers *sync.WaitGroup)
	}{
		{"large bodies of YAML", func(t *testing.T, attackers *sync.WaitGroup) {
			for i := range 6 {
				attackers.Go(func() {
					kind := []string{"application/json", "application/yaml"}[i%2]
					t.Logf("%d bytes of YAML as %s are answered %s", len(list), kind, postToWebhook(t, kind, list))
				})
			}
		}},
		{"bodies that decoding would blow up", func(t *testing.T, attackers *sync.WaitGroup) {
			for range 6 {
				attackers.Go(func() {
					t.Logf("%d bytes of JSON are answered %s", len(conditions), postToWebhook(t, "application/json", conditions))
				})
			}
		}},
		{"bodies that never end", func(t *testing.T, attackers *sync.WaitGroup) {
			for range 60 {
				attackers.Go(func() {
					conn, err := connectToWebhook(t, "127.0.0.1")
					expect.NoError(t, err)
					_, err = io.WriteString(conn, held)
					expect.NoError(t, err)
					begin := time.Now()
					_, err = io.Copy(io.Discard, conn) // Until it is closed.
					if held := time.Since(begin); held > 20*time.Second || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("a body that never ends was waited for %v", held)
					}
				})
			}
		}},
		{"more connections than there can be", func(t *testing.T, attackers *sync.WaitGroup) {
			// A few at a time, each of which goes on to hold those that it has: this machine, which
			// is the attacker's as well, would have no time for anybody else during 600 handshakes.
			for range 6 {
				attackers.Go(func() {
					for range 100 {
						if conn, err := connectToWebhook(t, "127.0.0.2"); err == nil {
							_, _ = io.WriteString(conn, held[:200])
						}
					}
				})
			}
		}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			expect.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)) // The highest mark begins anew.
			var attackers sync.WaitGroup
			attack.begin(t, &attackers)
			during := warnings(t, p, 20)
			attackers.Wait()
			after := warnings(t, p, 5)
			most := memory(t, pid, "VmHWM")
			t.Logf("the manager: %d MiB before, %d at most; a warning takes %v at most alone, %v during the attack, %v after it", before, most, alone, during, after)
			if most > before+mostMiB && !racedetector.On {
				t.Errorf("the manager holds up to %d MiB, and %d before", most, before)
			}
		})
	}
	if got := system.Manager.Pid(); got != pid {
		t.Errorf("the manager was started again")
	}
}

// During a rollout writes still come by the Service to the one that ends: it answers
// them for a while. Its leadership does not wait for that.
func TestAManagerThatIsToldToStopGoesOnServingTheWebhookButDoesNotLead(t *testing.T) {
	webhookAnswers(t)
	p := newPerson(t)
	service := newService(t, "leaving", protected)
	newServer(t, "team-a", "leaving", "leaving")
	named(t, p, service, "1 Server")

	ports, err := controlplane.FreePorts(2)
	expect.NoError(t, err)
	leaving, _, err := system.StartManager("leaving", "--shutdown-delay=10s", "--webhook-bind-address=127.0.0.1:"+ports[0], "--health-probe-bind-address=127.0.0.1:"+ports[1])
	expect.NoError(t, err)
	t.Cleanup(leaving.Kill)
	ready := func() bool {
		code, err := readiness("127.0.0.1:" + ports[1])
		return err == nil && code == http.StatusOK
	}
	expect.Eventually(t, patience, func() error {
		if !ready() {
			return errors.New("it is not ready")
		}
		return nil
	})
	other := func(than string) (is string) {
		t.Helper()
		expect.Eventually(t, patience, func() error {
			if is = leader(t); is == "" || is == than {
				return fmt.Errorf("%q leads", is)
			}
			return nil
		})
		return is
	}
	was := leader(t)
	expect.NoError(t, system.Manager.Signal(syscall.SIGSTOP))
	goOn := sync.OnceFunc(func() { expect.NoError(t, system.Manager.Signal(syscall.SIGCONT)) })
	defer goOn()
	first := other(was)
	goOn() // It ends, is started again, and stands by.
	pointWebhookTo(t, ports[0])
	defer pointWebhookTo(t, "")
	webhookAnswers(t)

	told := time.Now()
	expect.NoError(t, leaving.Signal(syscall.SIGTERM))
	other(first)
	t.Logf("another leads after %v", time.Since(told))
	for asked := 0; asked < 20 || time.Since(told) < 5*time.Second; asked++ {
		expect.NoError(t, p.Create(t.Context(), serverOn("leaving-new", "nowhere"), client.DryRunAll))
		p.warned(t, `there is no ComputeService "nowhere"`)
		if err := p.Delete(t.Context(), service, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "1 Server still name") {
			t.Fatalf("%v after SIGTERM, deleting what is protected: %v", time.Since(told), err)
		}
	}
	select {
	case <-leaving.Done():
		t.Error("it has ended already")
	default:
	}
	if ready() {
		t.Error("it is still ready")
	}
	pointWebhookTo(t, "")
	select {
	case <-leaving.Done():
		if err := leaving.Err(); err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
	webhookAnswers(t)
	expect.Eventually(t, patience, fleetLeads) // As other tests expect.
}
