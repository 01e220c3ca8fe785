// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/racedetector"
	"hoststatus.dev/hoststatus/internal/serving"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/webhook"
)

// child is set in the process that serves and whose memory is measured.
const child = "HOSTSTATUS_TEST_SERVES"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		if err := serveWebhook(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// noMonitor knows no Leases.
type noMonitor struct{}

func (noMonitor) Synced() bool { return false }

func (noMonitor) Verdict(string, types.UID) (heartbeat.Verdict, bool) {
	return heartbeat.Verdict{}, false
}

func (noMonitor) Renewals(types.NamespacedName) (interval, holds time.Duration) { return 0, 0 }

// serveWebhook serves what the manager serves, until its input ends.
func serveWebhook() error {
	ctrl.SetLogger(logr.Discard())
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	paths := http.NewServeMux()
	webhook.Register(ctrlwebhook.NewServer(ctrlwebhook.Options{WebhookMux: paths}), webhook.Options{
		ServersOn: func(string) (int, error) { return 0, nil }, Monitor: noMonitor{}, Scheme: scheme,
		LeaseNamespaces: []string{v1alpha1.DefaultLeaseNamespace},
	})
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return serving.NewServer(serving.Options{
		Address: os.Getenv(child), Handler: paths, Clock: clock.RealClock{}, Logger: logr.Discard(),
		TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key}, nil
		}},
	}).Run(ctx)
}

// process is one that serves the webhook.
type process struct {
	pid     int
	address string
}

func start(t *testing.T) *process {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	expect.NoError(t, err)
	address := free.Addr().String()
	expect.NoError(t, free.Close())
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), child+"="+address)
	command.Stderr = os.Stderr
	_, err = command.StdinPipe()
	expect.NoError(t, err)
	expect.NoError(t, command.Start())
	t.Cleanup(func() { _ = command.Wait() })
	p := &process{pid: command.Process.Pid, address: address}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := p.dial("127.0.0.1")
		if err == nil {
			_ = conn.Close()
			return p
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// dial connects from an address of this machine: each is a caller of its own.
func (p *process) dial(from string) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := tls.DialWithDialer(dialer, "tcp", p.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// memory returns what the process holds (VmRSS), or held at most (VmHWM), in MiB.
func (p *process) memory(t *testing.T, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
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

// review is an AdmissionReview of a new ComputeService.
func review(object string) []byte {
	return []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE",` +
		`"kind":{"group":"compute.hoststatus.dev","version":"v1alpha1","kind":"ComputeService"},"resource":{"group":"compute.hoststatus.dev","version":"v1alpha1","resource":"computeservices"},` +
		`"object":{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"ComputeService",` + object + `}}}`)
}

// post is what is sent to post a body, or its beginning.
func post(length int, body []byte) []byte {
	return append(fmt.Appendf(nil, "POST /warn-computeservices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", length), body...)
}

// ask posts a body from an address, and returns the answer.
func (p *process) ask(from string, body []byte) (status, answer string, err error) {
	conn, err := p.dial(from)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = conn.Write(post(len(body), body)) }()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return response.Status, string(content), err
}

// Anyone who can reach the port can send anything: that takes little memory, and
// kube-apiserver, which waits for 2 s, is still answered.
func TestNobodyWhoReachesTheWebhookExhaustsIt(t *testing.T) {
	if racedetector.On {
		t.Skip("with the race detector memory is not what it is otherwise; the suite runs this without it, too")
	}
	p := start(t)
	victim := review(`"metadata":{"name":"a"},"spec":{"leaseRef":{"namespace":"nowhere"}}`)
	// warned asks n times, and returns how long the answers took.
	warned := func(t *testing.T, n int) (times []time.Duration) {
		t.Helper()
		for range n {
			begin := time.Now()
			status, answer, err := p.ask("127.0.0.1", victim)
			took := time.Since(begin)
			if err != nil || !strings.Contains(answer, "does not read Leases in namespace nowhere") {
				t.Logf("after %v: %s %s (%v)", took, status, answer, err)
				continue
			}
			times = append(times, took)
		}
		slices.Sort(times)
		return times
	}
	alone := warned(t, 20)
	if len(alone) < 20 {
		t.Fatalf("%d of 20 were answered without an attack", len(alone))
	}
	before := p.memory(t, "VmRSS")
	const most = 160 // A third of the limit in the manifests.

	yaml := []byte("a:\n" + strings.Repeat("- a\n", 7<<18))
	large := func(of string) []byte { return bytes.Repeat([]byte(of), (4<<20-1000)/len(of)) }
	full := review(`"metadata":{"name":"a","annotations":{"a":"` + string(large("x")) + `"}}`)
	many := func(n int) []byte {
		return review(`"metadata":{"name":"a"},"status":{"conditions":[` + strings.Repeat("{},", n) + `{}]}`)
	}
	held := post(4<<20, append([]byte("{"), bytes.Repeat([]byte(" "), 64<<10)...))
	// hold opens n connections from several addresses, sends the same on each, and waits
	// until each is closed.
	hold := func(n, addresses int, sent []byte) func(*sync.WaitGroup) {
		return func(attackers *sync.WaitGroup) {
			for i := range n {
				attackers.Go(func() {
					conn, err := p.dial(fmt.Sprintf("127.0.0.%d", 2+i%addresses))
					if err != nil {
						return
					}
					defer func() { _ = conn.Close() }()
					_, _ = conn.Write(sent)
					begin := time.Now()
					_, _ = io.Copy(io.Discard, conn)
					if held := time.Since(begin); held > 30*time.Second {
						t.Errorf("what does not come was waited for %v", held)
					}
				})
			}
		}
	}
	// send posts a body n times, from several addresses.
	send := func(n, addresses int, body []byte, want string) func(*sync.WaitGroup) {
		return func(attackers *sync.WaitGroup) {
			for i := range n {
				attackers.Go(func() {
					// ask fails if the answer comes too late, or while more is being sent.
					if status, _, err := p.ask(fmt.Sprintf("127.0.0.%d", 2+i%addresses), body); err == nil && !strings.HasPrefix(status, want) && !strings.HasPrefix(status, "429") && !strings.HasPrefix(status, "408") {
						t.Errorf("is answered %s", status)
					}
				})
			}
		}
	}
	for name, attack := range map[string]func(*sync.WaitGroup){
		"YAML of 7 MiB":                         send(6, 1, yaml, "413"),
		"YAML that is small enough":             send(60, 4, yaml[:3<<20], "400"),
		"as much as there may be":               send(60, 4, full, "200"),
		"JSON that decoding would blow up":      send(60, 4, many(1<<20), "413"),
		"as many values as there may be":        send(200, 4, many(9_900), "200"),
		"60 bodies that never end":              hold(60, 1, held),
		"more connections than there can be":    hold(700, 3, held[:200]),
		"more connections, with all that is so": hold(700, 3, held),
	} {
		t.Run(name, func(t *testing.T) {
			expect.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)) // It resets VmHWM.
			var attackers sync.WaitGroup
			attack(&attackers)
			during := warned(t, 20)
			attackers.Wait()
			peak := p.memory(t, "VmHWM")
			if len(during) < 18 { // A busy machine may take too long once or twice.
				t.Fatalf("%d of 20 were answered", len(during))
			}
			t.Logf("%d MiB before, %d at most; answers take %v alone and %v beside it (median), %v and %v at most",
				before, peak, alone[10], during[len(during)/2], alone[19], during[len(during)-1])
			if peak > before+most {
				t.Errorf("%d MiB are held, and %d before", peak, before)
			}
			if median := during[len(during)/2]; median > 2*time.Second {
				t.Errorf("half of the answers took %v and more", median)
			}
		})
	}
}
