// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	testingclock "k8s.io/utils/clock/testing"
)

var instant = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

const (
	secretName = "the-tls"
	targetName = "the-target"
	dnsName    = "server.system.svc"
)

// world is a cluster of fakes, in which replicas of one server run.
type world struct {
	*testing.T
	clock   *testingclock.FakeClock
	client  *fake.Clientset
	objects *dynamicfake.FakeDynamicClient
	target  Target
}

func newWorld(t *testing.T, targets ...*unstructured.Unstructured) *world {
	t.Helper()
	target := APIService(targetName)
	w := &world{T: t, clock: testingclock.NewFakeClock(instant), client: fake.NewClientset(), target: target}
	w.objects = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{target.resource: "APIServiceList"})
	for _, obj := range targets {
		w.create(obj)
	}
	return w
}

func apiService() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: object{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": object{"name": targetName}, "spec": object{},
	}}
}

func (w *world) create(obj *unstructured.Unstructured) {
	w.Helper()
	_, err := w.objects.Resource(w.target.resource).Create(w.Context(), obj, metav1.CreateOptions{})
	w.check(err)
}

func (w *world) replica() *Cert {
	return New(Options{
		Client: w.client, Dynamic: w.objects, Namespace: "system", Secret: secretName,
		Names: []string{dnsName, "localhost"}, Target: w.target, Clock: w.clock, Logger: logr.Discard(),
	})
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// bundle returns what the target trusts.
func (w *world) bundle() []byte {
	w.Helper()
	obj, err := w.objects.Resource(w.target.resource).Get(w.Context(), targetName, metav1.GetOptions{})
	w.check(err)
	encoded, _, err := unstructured.NestedString(obj.Object, "spec", "caBundle")
	w.check(err)
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	w.check(err)
	return decoded
}

// trusted checks that the API server accepts what the replica serves.
func (w *world) trusted(replica *Cert) {
	w.Helper()
	serving, err := replica.GetCertificate(nil)
	w.check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.bundle())
	for _, name := range []string{dnsName, "localhost"} {
		if _, err := serving.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: w.clock.Now()}); err != nil {
			w.Errorf("the target does not trust the certificate: %v", err)
		}
	}
}

// wipe takes the authority out of the target.
func (w *world) wipe() {
	w.Helper()
	_, err := w.objects.Resource(w.target.resource).Patch(w.Context(), targetName, types.MergePatchType,
		[]byte(`{"spec":{"caBundle":null}}`), metav1.PatchOptions{})
	w.check(err)
}

func TestReplicasShareOneCertificateAndRenewItInTime(t *testing.T) {
	w := newWorld(t, apiService())
	first, second := w.replica(), w.replica()
	notified := 0
	second.OnChange(func() { notified++ })
	if _, err := first.GetCertificate(nil); err == nil {
		t.Error("there is a certificate before one was made")
	}
	w.check(first.Ensure(t.Context()))
	w.check(second.Ensure(t.Context()))
	cert, _ := first.Current()
	if other, _ := second.Current(); !bytes.Equal(cert, other) {
		t.Error("two replicas have two certificates")
	}
	w.trusted(first)
	ca := w.bundle()
	secret, err := w.client.CoreV1().Secrets("system").Get(t.Context(), secretName, metav1.GetOptions{})
	w.check(err)
	if !bytes.Equal(ca, secret.Data[caCertKey]) {
		t.Error("the target trusts another authority")
	}

	w.clock.Step(certLifetime / 3)
	w.check(second.Ensure(t.Context()))
	if now, _ := second.Current(); !bytes.Equal(now, cert) {
		t.Error("a certificate with two thirds of its life left was replaced")
	}
	w.clock.Step(certLifetime / 2)
	w.check(second.Ensure(t.Context()))
	w.check(first.Ensure(t.Context()))
	renewed, _ := first.Current()
	if other, _ := second.Current(); bytes.Equal(renewed, cert) || !bytes.Equal(renewed, other) {
		t.Error("the certificate was not renewed for both")
	}
	if !bytes.Equal(w.bundle(), ca) {
		t.Error("the authority changed with the certificate")
	}
	if notified != 2 {
		t.Errorf("the server was notified of %d certificates, want 2", notified)
	}
}

func TestAnAuthorityThatEndsSoonIsReplacedAndStaysTrustedForWhoStillUsesIt(t *testing.T) {
	w := newWorld(t, apiService())
	first, second := w.replica(), w.replica()
	w.check(first.Ensure(t.Context()))
	before := w.bundle()
	// A certificate from shortly before the authority's last third.
	w.clock.Step(caLifetime*2/3 - 2*time.Hour)
	w.check(first.Ensure(t.Context()))
	w.check(second.Ensure(t.Context()))
	w.clock.Step(3 * time.Hour)
	w.check(first.Ensure(t.Context()))
	if got := w.bundle(); bytes.HasPrefix(got, before) || !bytes.Contains(got, before) {
		t.Error("the bundle is not the new authority, then the old one")
	}
	w.trusted(first)
	w.trusted(second)
	w.check(second.Ensure(t.Context()))
	if one, _ := first.Current(); !bytes.Equal(one, second.cert) {
		t.Error("the other replica keeps its certificate")
	}
	// Once more, long after the first authority has ended.
	w.clock.Step(caLifetime * 2 / 3)
	w.check(first.Ensure(t.Context()))
	if got := bytes.Count(w.bundle(), []byte("BEGIN CERTIFICATE")); got != 2 {
		t.Errorf("the bundle has %d authorities, want the last two", got)
	}
	w.trusted(first)
}

func TestWhatIsNoCertificateForTheseNamesIsReplaced(t *testing.T) {
	for name, spoil := range map[string]func(*world, map[string][]byte){
		"an expired certificate": func(w *world, data map[string][]byte) {
			ca, signer, err := parsePair(data[caCertKey], data[caKeyKey])
			w.check(err)
			data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey], err = makeCert(
				&x509.Certificate{NotAfter: instant.Add(-time.Minute), DNSNames: []string{dnsName, "localhost"}}, ca, signer, instant.Add(-time.Hour))
			w.check(err)
		},
		"a certificate for another name": func(w *world, data map[string][]byte) {
			ca, signer, err := parsePair(data[caCertKey], data[caKeyKey])
			w.check(err)
			data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey], err = makeCert(
				&x509.Certificate{NotAfter: instant.Add(certLifetime), DNSNames: []string{"else"}}, ca, signer, instant)
			w.check(err)
		},
		"another authority": func(w *world, data map[string][]byte) {
			var err error
			data[caCertKey], data[caKeyKey], err = makeCert(&x509.Certificate{NotAfter: instant.Add(caLifetime), IsCA: true, BasicConstraintsValid: true}, nil, nil, instant)
			w.check(err)
		},
		"nonsense":  func(_ *world, data map[string][]byte) { data[corev1.TLSCertKey] = []byte("nonsense") },
		"no key":    func(_ *world, data map[string][]byte) { delete(data, corev1.TLSPrivateKeyKey) },
		"no CA key": func(_ *world, data map[string][]byte) { delete(data, caKeyKey) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, apiService())
			replica := w.replica()
			w.check(replica.Ensure(t.Context()))
			secrets := w.client.CoreV1().Secrets("system")
			secret, err := secrets.Get(t.Context(), secretName, metav1.GetOptions{})
			w.check(err)
			spoil(w, secret.Data)
			_, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
			w.check(err)
			before, _ := replica.Current()
			w.check(replica.Ensure(t.Context()))
			if after, _ := replica.Current(); bytes.Equal(before, after) {
				t.Error("the certificate was not replaced")
			}
			w.trusted(replica)
		})
	}
}

// Nobody can tell the server's clients of a certificate that they do not trust yet.
func TestACertificateIsNotUsedBeforeItIsTrusted(t *testing.T) {
	w := newWorld(t, apiService())
	refuse := true
	w.objects.PrependReactor("patch", "apiservices", func(clienttesting.Action) (bool, runtime.Object, error) {
		if refuse {
			return true, nil, errors.New("not now")
		}
		return false, nil, nil
	})
	replica := w.replica()
	if err := replica.Ensure(t.Context()); err == nil {
		t.Error("the failure is not reported")
	}
	if cert, _ := replica.Current(); cert != nil {
		t.Error("the certificate is used although nobody trusts it")
	}
	refuse = false
	w.check(replica.Ensure(t.Context()))
	w.trusted(replica)
}

func TestTwoReplicasThatWriteAtOnceAgree(t *testing.T) {
	w := newWorld(t, apiService())
	first, second := w.replica(), w.replica()
	theirs, err := second.renew(nil, instant)
	w.check(err)
	raced := false
	w.client.PrependReactor("create", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		if raced {
			return false, nil, nil
		}
		raced = true
		// Between the read and the write of the first.
		w.check(w.client.Tracker().Add(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: secretName}, Data: theirs}))
		return false, nil, nil
	})
	w.check(first.Ensure(t.Context()))
	w.check(second.Ensure(t.Context()))
	if one, _ := first.Current(); !bytes.Equal(one, theirs[corev1.TLSCertKey]) || !bytes.Equal(one, second.cert) {
		t.Error("two replicas have two certificates")
	}
	w.trusted(first)
}

// running starts the replica's Run, which ends with the test.
func (w *world) running(replica *Cert) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		replica.Run(ctx)
	}()
	w.Cleanup(func() { cancel(); <-done })
}

// eventually steps the clock by less than checkInterval until check is satisfied.
func (w *world) eventually(what string, check func() bool) {
	w.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for stepped := time.Duration(0); !check(); stepped += retryInterval / 2 {
		if time.Now().After(deadline) {
			w.Fatalf("not yet: %s", what)
		}
		if stepped < checkInterval/2 {
			w.clock.Step(retryInterval / 2)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestATargetThatLosesTheAuthorityOrIsMadeLaterGetsItByAnEvent(t *testing.T) {
	w := newWorld(t)
	replica := w.replica()
	w.running(replica)
	w.eventually("a certificate without a target", func() bool { cert, _ := replica.Current(); return cert != nil })
	w.create(apiService())
	w.eventually("the authority in a new target", func() bool { return len(w.bundle()) > 0 })
	w.trusted(replica)
	w.wipe()
	w.eventually("the authority in a target that lost it", func() bool { return len(w.bundle()) > 0 })
	w.trusted(replica)
}

func TestRunTriesAgainUntilTheAPIServerIsBack(t *testing.T) {
	w := newWorld(t, apiService())
	failures := 3
	w.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		failures--
		if failures >= 0 {
			return true, nil, errors.New("away")
		}
		return false, nil, nil
	})
	replica := w.replica()
	w.running(replica)
	w.eventually("a certificate", func() bool { _, err := replica.GetCertificate(&tls.ClientHelloInfo{}); return err == nil })
	w.trusted(replica)
}

func TestEveryEntryOfAWebhookConfigurationGetsTheAuthority(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("ca"))
	entry := func(name string, config object) any { return object{"name": name, "clientConfig": config} }
	configuration := object{"webhooks": []any{
		entry("has-it", object{"caBundle": encoded}), entry("has-none", object{}), entry("has-another", object{"caBundle": "eA=="}),
	}}
	target := ValidatingWebhookConfiguration("name")
	got := target.patch(configuration, []byte("ca"))
	want := []any{entry("has-none", object{"caBundle": encoded}), entry("has-another", object{"caBundle": encoded})}
	if changes, ok := got["webhooks"].([]any); !ok || len(changes) != len(want) {
		t.Fatalf("patch is %v", got)
	} else {
		for i := range want {
			if changes[i].(object)["name"] != want[i].(object)["name"] {
				t.Errorf("entry %d is %v, want %v", i, changes[i], want[i])
			}
		}
	}
	for name, good := range map[string]object{
		"all have it":    {"webhooks": []any{entry("has-it", object{"caBundle": encoded})}},
		"no entries":     {},
		"entries of nil": {"webhooks": nil},
	} {
		if patch := target.patch(good, []byte("ca")); patch != nil {
			t.Errorf("%s: patch is %v, want none", name, patch)
		}
	}
}
