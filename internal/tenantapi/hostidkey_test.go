// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

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
