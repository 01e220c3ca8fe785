// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

const (
	webhookName   = "hoststatus-webhook"
	webhookSecret = "hoststatus-webhook-tls" // a name
)

// person is a client that notes what it is warned of.
type person struct {
	client.Client
	mu       sync.Mutex
	warnings []string
}

func newPerson(t *testing.T) *person {
	t.Helper()
	config, err := system.Cluster.AdminConfig()
	expect.NoError(t, err)
	p := &person{}
	config.WarningHandlerWithContext = p
	p.Client, err = fleet.NewClient(config)
	expect.NoError(t, err)
	return p
}

var _ rest.WarningHandlerWithContext = &person{}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (p *person) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warnings = append(p.warnings, text)
}

// told returns what the person was warned of since the last time.
func (p *person) told() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	told := strings.Join(p.warnings, "\n")
	p.warnings = nil
	return told
}

// warned checks that the person was just warned of what, and of nothing else; or of
// nothing at all.
func (p *person) warned(t *testing.T, of string) {
	t.Helper()
	told := p.told()
	if of == "" && told != "" || !strings.Contains(told, of) || strings.Contains(told, "\n") {
		t.Errorf("warned of %q, want %q", told, of)
	}
}

func (p *person) patch(t *testing.T, obj client.Object, body string, options ...client.PatchOption) {
	t.Helper()
	expect.NoError(t, p.Patch(t.Context(), obj, client.RawPatch(types.MergePatchType, []byte(body)), options...))
}

func hostNamed(name string) *v1alpha1.ComputeService {
	return &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func serverOn(name, host string) *v1alpha1.Server {
	return &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name}, Spec: v1alpha1.ServerSpec{Host: host}}
}

// webhookAnswers waits until kube-apiserver reaches the webhook.
func webhookAnswers(t *testing.T) {
	t.Helper()
	p := newPerson(t)
	expect.Eventually(t, time.Minute, func() error {
		if err := p.Create(t.Context(), serverOn("unknown-host", "nowhere"), client.DryRunAll); err != nil {
			return err
		}
		if p.told() == "" {
			return errors.New("the webhook does not answer")
		}
		return nil
	})
}

func TestWhoForcesDownAHostThatReportsIsWarned(t *testing.T) {
	p := newPerson(t)
	service := newService(t, "warned-forced", withDuration(6*time.Second))
	p.patch(t, service, `{"spec":{"forcedDown":true}}`)
	p.warned(t, "") // It has not reported yet.
	p.patch(t, service, `{"spec":{"forcedDown":null}}`)
	p.warned(t, "")

	reporter := newHost(t, "warned-forced", 6*time.Second, time.Second, 0)
	expect.Eventually(t, patience, hostIs("warned-forced", v1alpha1.HostStatusUp))
	p.patch(t, service, `{"spec":{"forcedDown":true,"forcedDownReason":"a drill"}}`, client.DryRunAll)
	p.warned(t, "spec.forcedDown: the host still reports (renewed ")
	p.patch(t, service, `{"spec":{"forcedDown":true}}`)
	p.warned(t, "spec.forcedDown: the host still reports (renewed ")
	// kube-apiserver begins a patch with what its watch cache has, and passes on the warnings of
	// an attempt that it has to repeat.
	expect.Eventually(t, patience, hostIs("warned-forced", v1alpha1.HostStatusDown))
	p.patch(t, service, `{"spec":{"forcedDown":true,"forcedDownReason":"a drill"},"metadata":{"labels":{"a":"b"}}}`)
	p.warned(t, "") // That is no news.
	p.patch(t, service, `{"spec":{"forcedDown":false}}`)
	p.warned(t, "") // It reports, so it is UP.

	reporter.stop()
	expect.Eventually(t, patience, hostIs("warned-forced", v1alpha1.HostStatusUnknown))
	p.patch(t, service, `{"spec":{"forcedDown":true}}`)
	p.warned(t, "") // It is silent, as it should be.
	p.patch(t, service, `{"spec":{"forcedDown":null}}`)
	p.warned(t, "spec.forcedDown: cleared, but the host is silent (renewed ")
	expect.Eventually(t, patience, hostIs("warned-forced", v1alpha1.HostStatusUnknown))
}

func TestWhoNamesALeaseThatNobodyReadsIsWarned(t *testing.T) {
	p := newPerson(t)
	service := hostNamed("warned-lease")
	service.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: "nowhere"}
	expect.NoError(t, p.Create(t.Context(), service, client.DryRunAll))
	p.warned(t, "the manager does not read Leases in namespace nowhere")
	service = newService(t, "warned-lease")
	p.patch(t, service, `{"spec":{"leaseRef":{"namespace":"kube-node-lease"}}}`)
	p.warned(t, "")
	p.patch(t, service, `{"spec":{"leaseRef":{"namespace":"nowhere"}}}`)
	p.warned(t, "use one that is there: hoststatus-leases, kube-node-lease")
	p.patch(t, service, `{"spec":{"disabled":true}}`)
	p.warned(t, "")
	p.patch(t, service, `{"spec":{"leaseRef":null}}`)
	p.warned(t, "")
}

func TestWhoNamesAnUnknownHostIsWarned(t *testing.T) {
	p := newPerson(t)
	server := newServer(t, "team-a", "warned-server", "compute-1")
	p.patch(t, server, `{"spec":{"host":"compute-l"}}`)
	p.warned(t, `spec.host: there is no ComputeService "compute-l"`)
	p.patch(t, server, `{"spec":{"providerID":"some:///thing"},"metadata":{"labels":{"a":"b"}}}`)
	p.warned(t, "")
	p.patch(t, server, `{"spec":{"host":"compute-2"}}`)
	p.warned(t, "")
	p.patch(t, server, `{"spec":{"host":null}}`)
	p.warned(t, "")
	expect.NoError(t, p.Create(t.Context(), serverOn("warned-new", "compute-l"), client.DryRunAll))
	p.warned(t, `"compute-l"`)
	// A host and its servers, applied at once, as fast as it goes.
	for i := range 20 {
		name := fmt.Sprintf("warned-at-once-%d", i)
		newService(t, name)
		expect.NoError(t, p.Create(t.Context(), serverOn(name, name), client.DryRunAll))
		p.warned(t, "")
	}
	out, err := kubectl(t, "patch", "servers.compute", "-n", "team-a", "warned-server", "--type=merge", `--patch={"spec":{"host":"compute-9"}}`)
	if err != nil || !strings.HasPrefix(out, `Warning: spec.host: there is no ComputeService "compute-9"`) {
		t.Errorf("kubectl prints %s (%v)", out, err)
	}
}

// named waits until the manager counts the servers of a host: its cache is what the
// webhook looks at.
func named(t *testing.T, p *person, host *v1alpha1.ComputeService, count string) {
	t.Helper()
	expect.Eventually(t, patience, func() error {
		err := p.Delete(t.Context(), host, client.DryRunAll)
		told := p.told()
		if err != nil {
			told = err.Error()
		}
		if count == "" && told == "" || count != "" && strings.Contains(told, count+" still name") {
			return nil
		}
		return fmt.Errorf("deleting %s says %q, want %q", host.Name, told, count)
	})
}

func TestWhoDeletesAComputeServiceThatServersNameIsWarnedAndAProtectedOneStays(t *testing.T) {
	p := newPerson(t)
	const protect = `{"metadata":{"annotations":{"compute.hoststatus.dev/deletion-protection":"true"}}}`
	service := newService(t, "warned-delete")
	expect.NoError(t, p.Delete(t.Context(), service, client.DryRunAll))
	p.warned(t, "")
	one, two := newServer(t, "team-a", "warned-1", "warned-delete"), newServer(t, "team-b", "warned-2", "warned-delete")
	named(t, p, service, "2 Servers")

	p.patch(t, service, `{"metadata":{"annotations":{"compute.hoststatus.dev/deletion-protection":"yes"}}}`)
	p.warned(t, `"yes" does not protect from deletion`)
	p.patch(t, service, protect)
	p.warned(t, "")
	named(t, p, service, "2 Servers")
	out, err := kubectl(t, "delete", "computeservice", "warned-delete")
	for _, part := range []string{
		`Error from server (Forbidden): admission webhook "deletion-protection.compute.hoststatus.dev" denied the request: `,
		"2 Servers still name", "spec.host=warned-delete), or remove the annotation",
	} {
		if err == nil || !strings.Contains(out, part) {
			t.Errorf("kubectl prints %s (%v), want %s", out, err, part)
		}
	}
	// A protected object can be written, forced down and cleared like any other.
	p.patch(t, service, `{"spec":{"forcedDown":true}}`)
	p.patch(t, service, `{"spec":{"forcedDown":null}}`)
	p.warned(t, "")
	// Empty, it may go; and with the annotation taken away, too.
	p.patch(t, one, `{"spec":{"host":null}}`)
	named(t, p, service, "1 Server")
	expect.NoError(t, p.Delete(t.Context(), two))
	named(t, p, service, "")
	expect.NoError(t, p.Delete(t.Context(), service))
	p.warned(t, "")

	second := newService(t, "warned-delete")
	p.patch(t, one, `{"spec":{"host":"warned-delete"}}`)
	p.patch(t, second, protect)
	named(t, p, second, "1 Server")
	p.patch(t, second, `{"metadata":{"annotations":null}}`)
	named(t, p, second, "1 Server")
	expect.NoError(t, p.Delete(t.Context(), second))
	p.warned(t, "1 Server still names this ComputeService")
}

// A webhook that is away must not be in the way: what it would only warn of passes,
// a protected deletion does not, and the statuses go on being written by the next
// leader, whose webhook nobody reaches.
func TestWithoutTheWebhookOnlyProtectedDeletionsStop(t *testing.T) {
	p := newPerson(t)
	service, other := newService(t, "without", protected), newService(t, "without-other")
	server := newServer(t, "team-a", "without", "without-other")
	newServer(t, "team-a", "without-2", "without")
	startStandby(t)
	// The fleet starts a manager that ends anew, but not one that is paused.
	for name, s := range map[string]struct{ stop, start func(*testing.T) }{
		"nobody listens": {
			func(t *testing.T) { pointWebhookTo(t, "1") },
			func(t *testing.T) { pointWebhookTo(t, "") },
		},
		"the manager is paused": {
			func(t *testing.T) { expect.NoError(t, system.Manager.Signal(syscall.SIGSTOP)) },
			func(t *testing.T) { expect.NoError(t, system.Manager.Signal(syscall.SIGCONT)) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.stop(t)
			started := false
			start := func() {
				if !started {
					started = true
					s.start(t)
				}
			}
			t.Cleanup(start)
			expect.Eventually(t, patience, func() error { // A change takes a moment to arrive.
				if err := p.Create(t.Context(), serverOn("without-new", "nowhere"), client.DryRunAll); err != nil {
					return err
				}
				if told := p.told(); told != "" {
					return errors.New("still warned of " + told)
				}
				return nil
			})
			p.patch(t, server, `{"spec":{"host":"nowhere"}}`)
			p.patch(t, server, `{"spec":{"host":"without-other"}}`)
			p.patch(t, service, `{"spec":{"forcedDown":true}}`)
			expect.Eventually(t, patience, serverIs("team-a", "without-2", v1alpha1.HostStatusDown, v1alpha1.ReasonForcedDown))
			p.patch(t, service, `{"spec":{"forcedDown":null}}`)
			expect.NoError(t, p.Delete(t.Context(), other, client.DryRunAll))
			expect.NoError(t, p.Status().Patch(t.Context(), server, client.RawPatch(types.MergePatchType, []byte(`{"status":{"powerState":"RUNNING"}}`))))
			p.warned(t, "")
			if err := p.Delete(t.Context(), service, client.DryRunAll); !apierrors.IsInternalError(err) ||
				!strings.Contains(err.Error(), `failed calling webhook "deletion-protection.compute.hoststatus.dev"`) {
				t.Errorf("deleting a protected one: %v", err)
			}
			start()
			webhookAnswers(t)
		})
	}
}

func protected(s *v1alpha1.ComputeService) {
	s.Annotations = map[string]string{v1alpha1.AnnotationDeletionProtection: "true"}
}

// configuration returns how kube-apiserver calls the webhook.
func configuration(t *testing.T) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	got, err := kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), webhookName, metav1.GetOptions{})
	expect.NoError(t, err)
	return got
}

// pointWebhookTo lets kube-apiserver look for the webhook on a port; empty means the
// fleet's own.
func pointWebhookTo(t *testing.T, port string) {
	t.Helper()
	if port == "" {
		port = system.WebhookPort
	}
	rewrite(t, func(w *admissionregistrationv1.ValidatingWebhook) {
		expect.NoError(t, json.Unmarshal([]byte(port), &w.ClientConfig.Service.Port))
	})
}

func rewrite(t *testing.T, modify func(*admissionregistrationv1.ValidatingWebhook)) {
	t.Helper()
	c := configuration(t)
	for i := range c.Webhooks {
		modify(&c.Webhooks[i])
	}
	_, err := kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(context.WithoutCancel(t.Context()), c, metav1.UpdateOptions{})
	expect.NoError(t, err)
}

func TestTheAuthorityIsInjectedAgainWhereItWasLost(t *testing.T) {
	webhookAnswers(t)
	before := configuration(t)
	for name, lose := range map[string]func(*testing.T){
		"taken out": func(t *testing.T) {
			rewrite(t, func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.CABundle = nil })
		},
		"another one": func(t *testing.T) {
			another, err := os.ReadFile(filepath.Join(system.Cluster.Dir, "server-ca.crt"))
			expect.NoError(t, err)
			rewrite(t, func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.CABundle = another })
		},
		"deleted and applied again": func(t *testing.T) {
			expect.NoError(t, kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), webhookName, metav1.DeleteOptions{}))
			if out, err := kubectl(t, "apply", "--server-side", "-k", filepath.Join(system.Dir, "default")); err != nil {
				t.Fatal(out)
			}
		},
		"applied again": func(t *testing.T) {
			if out, err := kubectl(t, "apply", "--server-side", "-k", filepath.Join(system.Dir, "default")); err != nil {
				t.Fatal(out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			lose(t)
			lost := time.Now()
			expect.Eventually(t, patience, func() error {
				for i, w := range configuration(t).Webhooks {
					if string(w.ClientConfig.CABundle) != string(before.Webhooks[i].ClientConfig.CABundle) {
						return fmt.Errorf("%s does not trust our authority", w.Name)
					}
				}
				return nil
			})
			t.Logf("there again after %v (losing it took %v)", time.Since(lost).Round(time.Millisecond), lost.Sub(begin).Round(time.Millisecond))
			webhookAnswers(t)
		})
	}
}

func TestTheAuthorityOfTheTenantAPIIsInjectedAgainToo(t *testing.T) {
	const service = "apiservice/v1alpha1.tenant.hoststatus.dev"
	bundle := func() string {
		out, err := system.Kubectl(t.Context(), "get", service, "-o", "jsonpath={.spec.caBundle}").Output()
		expect.NoError(t, err)
		return string(out)
	}
	before := bundle()
	if out, err := kubectl(t, "patch", service, "--type=json", `--patch=[{"op":"remove","path":"/spec/caBundle"}]`); err != nil {
		t.Fatal(out)
	}
	expect.Eventually(t, patience, func() error {
		if bundle() != before {
			return errors.New("the APIService does not trust the tenant API")
		}
		return nil
	})
	out, err := kubectl(t, "wait", "--for=condition=Available", "--timeout=30s", service)
	if err != nil {
		t.Error(out)
	}
}

func TestNoRuleOfTheWebhookCanBeBetweenSomebodyAndAStatus(t *testing.T) {
	for _, w := range configuration(t).Webhooks {
		refuses := w.Name == "deletion-protection.compute.hoststatus.dev"
		if (*w.FailurePolicy == admissionregistrationv1.Fail) != refuses {
			t.Errorf("%s has failurePolicy %s", w.Name, *w.FailurePolicy)
		}
		if *w.TimeoutSeconds > 2 || *w.SideEffects != admissionregistrationv1.SideEffectClassNone {
			t.Errorf("%s has a timeout of %d s and side effects %s", w.Name, *w.TimeoutSeconds, *w.SideEffects)
		}
		for _, rule := range w.Rules {
			if refuses && !slices.Equal(rule.Operations, []admissionregistrationv1.OperationType{admissionregistrationv1.Delete}) {
				t.Errorf("%s is asked about %v", w.Name, rule.Operations)
			}
			for _, resource := range rule.Resources {
				if resource != "computeservices" && resource != "servers" {
					t.Errorf("%s is asked about %s", w.Name, resource)
				}
			}
		}
	}
}

func TestACertificateThatIsSpoiledIsMadeAnew(t *testing.T) {
	webhookAnswers(t)
	secrets := kube.CoreV1().Secrets("hoststatus-system")
	serial := func() string {
		connection, err := tls.Dial("tcp", "127.0.0.1:"+system.WebhookPort, &tls.Config{InsecureSkipVerify: true}) // to look at it
		expect.NoError(t, err)
		defer func() { _ = connection.Close() }()
		return connection.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	for name, spoil := range map[string]func(*testing.T){
		"deleted": func(t *testing.T) {
			expect.NoError(t, secrets.Delete(t.Context(), webhookSecret, metav1.DeleteOptions{}))
		},
		"emptied": func(t *testing.T) {
			_, err := secrets.Patch(t.Context(), webhookSecret, types.MergePatchType, []byte(`{"data":{"tls.crt":"","tls.key":"","ca.key":null}}`), metav1.PatchOptions{})
			expect.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := serial()
			spoil(t)
			// The loss of the authority lets the manager look at once; it would within a
			// minute anyway.
			rewrite(t, func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.CABundle = nil })
			expect.Eventually(t, patience, func() error {
				if serial() == before {
					return errors.New("the old certificate is served")
				}
				return nil
			})
			webhookAnswers(t)
		})
	}
}

func TestTheManagerMayDoNoMoreForItsWebhookThanItNeeds(t *testing.T) {
	config, err := system.Cluster.ConfigFor("system:serviceaccount:hoststatus-system:hoststatus-manager", "system:serviceaccounts", "system:serviceaccounts:hoststatus-system")
	expect.NoError(t, err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, config))
	for question, want := range map[string]string{
		"patch validatingwebhookconfigurations/hoststatus-webhook":         "yes",
		"update validatingwebhookconfigurations/hoststatus-webhook":        "no",
		"delete validatingwebhookconfigurations/hoststatus-webhook":        "no",
		"create validatingwebhookconfigurations":                           "no",
		"patch validatingwebhookconfigurations/another":                    "no",
		"list validatingwebhookconfigurations":                             "no",
		"get secrets/hoststatus-webhook-tls -n hoststatus-system":          "yes",
		"get secrets/hoststatus-tenant-apiserver-tls -n hoststatus-system": "no",
		"delete secrets/hoststatus-webhook-tls -n hoststatus-system":       "no",
		"list secrets -n hoststatus-system":                                "no",
		"get secrets/hoststatus-webhook-tls -n team-a":                     "no",
		"update computeservices/compute-1":                                 "no",
	} {
		out, _ := kubectl(t, append([]string{"--kubeconfig=" + kubeconfig, "auth", "can-i"}, strings.Fields(question)...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if got := lines[len(lines)-1]; got != want {
			t.Errorf("%s: %s, want %s", question, got, want)
		}
	}
}

// readiness returns what /readyz of a manager answers.
func readiness(address string) (int, error) {
	response, err := http.Get("http://" + address + "/readyz")
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func TestAManagerThatFindsNoAPIServerWaitsForItIsNotReadyAndEndsWhenToldTo(t *testing.T) {
	config, err := system.Cluster.AdminConfig()
	expect.NoError(t, err)
	ports, err := controlplane.FreePorts(4)
	expect.NoError(t, err)
	config = rest.CopyConfig(config)
	config.Host = "https://127.0.0.1:" + ports[3]
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	expect.NoError(t, controlplane.WriteKubeconfig(kubeconfig, config))
	p := controlplane.NewProcess("lonely", filepath.Join(system.Dir, "bin", "manager"), filepath.Join(dir, "log"), os.Environ(),
		"--kubeconfig="+kubeconfig, "--metrics-bind-address=0",
		"--health-probe-bind-address=127.0.0.1:"+ports[0], "--webhook-bind-address=127.0.0.1:"+ports[1])
	expect.NoError(t, p.Start())
	t.Cleanup(p.Kill)
	expect.Eventually(t, patience, func() error {
		_, err := readiness("127.0.0.1:" + ports[0])
		return err
	})
	select {
	case <-p.Done():
		t.Error("the manager has ended")
	case <-time.After(8 * time.Second): // Longer than it would take to give up.
	}
	if code, err := readiness("127.0.0.1:" + ports[0]); code != http.StatusInternalServerError {
		t.Errorf("readyz answers %d (%v)", code, err)
	}
	expect.NoError(t, p.Signal(syscall.SIGTERM))
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Error("the manager does not end when it is told to")
	}
}

func TestCertificatesOfSomebodyElseAreServedAndReadAgain(t *testing.T) {
	secret, err := kube.CoreV1().Secrets("hoststatus-system").Get(t.Context(), webhookSecret, metav1.GetOptions{})
	expect.NoError(t, err)
	dir := t.TempDir()
	provide := func(certFrom, keyFrom string) {
		for name, content := range map[string][]byte{"tls.crt": secret.Data[certFrom], "tls.key": secret.Data[keyFrom]} {
			expect.NoError(t, os.WriteFile(filepath.Join(dir, name+".new"), content, 0o600))
			expect.NoError(t, os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)))
		}
	}
	provide("tls.crt", "tls.key")
	ports, err := controlplane.FreePorts(2)
	expect.NoError(t, err)
	p := controlplane.NewProcess("provided", filepath.Join(system.Dir, "bin", "manager"), filepath.Join(dir, "log"), os.Environ(),
		"--kubeconfig="+filepath.Join(system.Dir, "manager.kubeconfig"), "--metrics-bind-address=0",
		"--health-probe-bind-address=127.0.0.1:"+ports[0], "--webhook-bind-address=127.0.0.1:"+ports[1], "--webhook-cert-dir="+dir)
	expect.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	name := func() string {
		connection, err := tls.Dial("tcp", "127.0.0.1:"+ports[1], &tls.Config{InsecureSkipVerify: true}) // to look at it
		if err != nil {
			return err.Error()
		}
		defer func() { _ = connection.Close() }()
		return connection.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	serves := func(want string) {
		t.Helper()
		expect.Eventually(t, patience, func() error {
			if got := name(); got != want {
				return fmt.Errorf("it serves %s, want %s", got, want)
			}
			return nil
		})
	}
	serves("hoststatus-webhook.hoststatus-system.svc")
	expect.Eventually(t, patience, func() error {
		code, err := readiness("127.0.0.1:" + ports[0])
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("readyz answers %d", code)
		}
		return err
	})
	provide("ca.crt", "ca.key")
	serves("hoststatus-webhook-tls-ca")
}

func TestWhatIsShippedForCertManagerRenders(t *testing.T) {
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	out, err := kubectl(t, "kustomize", filepath.Join(root, "config", "webhook-cert-manager"))
	expect.NoError(t, err)
	for _, part := range []string{
		"kind: Certificate\n", "kind: Issuer\n", "  secretName: hoststatus-webhook-cert\n",
		"    cert-manager.io/inject-ca-from: hoststatus-system/hoststatus-webhook\n",
		"  - hoststatus-webhook.hoststatus-system.svc\n", "kind: Service\n",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("there is no %q", part)
		}
	}
	for document := range strings.SplitSeq(out, "\n---\n") {
		if !strings.Contains(document, "kind: Role\n") && !strings.Contains(document, "kind: ClusterRole\n") {
			continue
		}
		for _, part := range []string{"- validatingwebhookconfigurations\n", "- secrets\n", "  name: hoststatus-webhook\n"} {
			if strings.Contains(document, part) {
				t.Errorf("the manager still has the rights of %q:\n%s", part, document)
			}
		}
	}
}
