// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

const (
	// hostIDSecret holds the key of the host ids, under hostIDKeyName.
	hostIDSecret  = "hoststatus-tenant-apiserver-hostid" // a name
	hostIDKeyName = "key"
)

// ensureHostIDKey returns the key of the host ids. The first replica that ever
// starts makes it; all others, and all later ones, use the same, so that a server's
// host id stays.
func ensureHostIDKey(ctx context.Context, client kubernetes.Interface, namespace string) ([]byte, error) {
	secrets := client.CoreV1().Secrets(namespace)
	secret, err := secrets.Get(ctx, hostIDSecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		key := make([]byte, hostIDKeyBytes)
		if _, err := rand.Read(key); err != nil {
			return nil, fmt.Errorf("making the key of the host ids: %w", err)
		}
		secret, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: hostIDSecret, Namespace: namespace},
			Data:       map[string][]byte{hostIDKeyName: key},
			// Replicas read the key at their start, so after a change they would show different
			// host ids.
			Immutable: ptr.To(true),
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			secret, err = secrets.Get(ctx, hostIDSecret, metav1.GetOptions{})
		}
		if err != nil {
			return nil, fmt.Errorf("writing the Secret of the host ids' key: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("reading the Secret of the host ids' key: %w", err)
	}
	key := secret.Data[hostIDKeyName]
	if len(key) < hostIDKeyBytes {
		return nil, fmt.Errorf("secret %s/%s: data.%s has %d bytes, and must have at least %d; delete the Secret, and a new one is made",
			namespace, hostIDSecret, hostIDKeyName, len(key), hostIDKeyBytes)
	}
	return key, nil
}
