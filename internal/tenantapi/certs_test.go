// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	testingclock "k8s.io/utils/clock/testing"
)

type countingListener struct{ n int }

func (l *countingListener) Enqueue() { l.n++ }

func TestReplicasShareOneCertificateAndRenewItInTime(t *testing.T) {
	clock := testingclock.NewFakeClock(instant)
	client := fake.NewClientset()
	apiService := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": apiServiceName()}, "spec": map[string]any{},
	}}
	objects := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{apiServices: "APIServiceList"}, apiService)
	replica := func() *servingCert {
		return &servingCert{client: client, dynamic: objects, namespace: "system", names: []string{"tenant.system.svc", "localhost"}, clock: clock, log: logr.Discard()}
	}
	bundle := func() []byte {
		t.Helper()
		service, err := objects.Resource(apiServices).Get(t.Context(), apiServiceName(), metav1.GetOptions{})
		check(t, err)
		encoded, _, err := unstructured.NestedString(service.Object, "spec", "caBundle")
		check(t, err)
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		check(t, err)
		return decoded
	}
	first, second := replica(), replica()
	listener := &countingListener{}
	second.AddListener(listener)
	check(t, first.ensure(t.Context()))
	check(t, second.ensure(t.Context()))
	cert, _ := first.CurrentCertKeyContent()
	if other, _ := second.CurrentCertKeyContent(); !bytes.Equal(cert, other) {
		t.Error("two replicas have two certificates")
	}
	ca := bundle()
	secret, err := client.CoreV1().Secrets("system").Get(t.Context(), certSecret, metav1.GetOptions{})
	check(t, err)
	if !bytes.Equal(ca, secret.Data[caCertKey]) {
		t.Error("the APIService trusts another authority")
	}
	leaf, _, err := parsePair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	check(t, err)
	for _, name := range []string{"tenant.system.svc", "localhost"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}

	clock.Step(certLifetime / 3)
	check(t, second.ensure(t.Context()))
	if now, _ := second.CurrentCertKeyContent(); !bytes.Equal(now, cert) {
		t.Error("a certificate with two thirds of its life left was replaced")
	}
	clock.Step(certLifetime / 2)
	check(t, second.ensure(t.Context()))
	check(t, first.ensure(t.Context()))
	renewed, _ := first.CurrentCertKeyContent()
	if other, _ := second.CurrentCertKeyContent(); bytes.Equal(renewed, cert) || !bytes.Equal(renewed, other) {
		t.Error("the certificate was not renewed for both")
	}
	if !bytes.Equal(bundle(), ca) {
		t.Error("the authority changed with the certificate")
	}
	if listener.n != 2 {
		t.Errorf("the server was told of %d certificates, want 2", listener.n)
	}
	clock.Step(caLifetime * 7 / 10)
	check(t, first.ensure(t.Context()))
	if bytes.Equal(bundle(), ca) {
		t.Error("an authority that ends soon was not replaced")
	}
}

func TestTheKeyOfTheHostIDsIsMadeOnceAndKept(t *testing.T) {
	client := fake.NewClientset()
	first, err := ensureHostIDKey(t.Context(), client, "system")
	check(t, err)
	second, err := ensureHostIDKey(t.Context(), client, "system")
	check(t, err)
	if !bytes.Equal(first, second) || len(first) != hostIDKeyBytes {
		t.Errorf("keys of %d and %d bytes", len(first), len(second))
	}
	other, err := ensureHostIDKey(t.Context(), fake.NewClientset(), "system")
	check(t, err)
	if bytes.Equal(first, other) {
		t.Error("two clusters have the same key")
	}
	short := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: hostIDSecret}, Data: map[string][]byte{hostIDKeyName: []byte("short")}})
	if _, err := ensureHostIDKey(t.Context(), short, "system"); err == nil {
		t.Error("a short key is accepted")
	}
}
