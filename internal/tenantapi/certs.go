// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

const (
	// certSecret holds the serving certificate that the replicas share.
	certSecret = "hoststatus-tenant-apiserver-tls" //nolint:gosec // a name
	caCertKey  = "ca.crt"
	caKeyKey   = "ca.key"

	// A certificate is made anew when a third of its life is left. It is looked after
	// every certCheckInterval: an APIService that was made anew, without a caBundle,
	// serves again after that.
	caLifetime        = 10 * 365 * 24 * time.Hour
	certLifetime      = 365 * 24 * time.Hour
	certCheckInterval = time.Minute
)

var apiServices = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}

// apiServiceName is that of the only APIService that this server may change.
func apiServiceName() string {
	return v1alpha1.SchemeGroupVersion.Version + "." + v1alpha1.SchemeGroupVersion.Group
}

// servingCert is the certificate that the server makes for itself. The replicas
// share it in a Secret, and the authority that signed it is in their APIService.
type servingCert struct {
	client    kubernetes.Interface
	dynamic   dynamic.Interface
	namespace string
	names     []string
	clock     clock.WithTicker
	log       logr.Logger

	mu        sync.Mutex
	cert, key []byte
	listeners []dynamiccertificates.Listener
}

var _ dynamiccertificates.CertKeyContentProvider = &servingCert{}

// Name implements dynamiccertificates.CertKeyContentProvider.
func (c *servingCert) Name() string { return "secret " + c.namespace + "/" + certSecret }

// CurrentCertKeyContent implements dynamiccertificates.CertKeyContentProvider.
func (c *servingCert) CurrentCertKeyContent() (cert, key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert, c.key
}

// AddListener implements dynamiccertificates.Notifier.
func (c *servingCert) AddListener(l dynamiccertificates.Listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, l)
}

// run looks after the certificate until ctx ends.
func (c *servingCert) run(ctx context.Context) {
	ticker := c.clock.NewTicker(certCheckInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			if err := c.ensure(ctx); err != nil {
				c.log.Error(err, "Serving certificate cannot be looked after; trying again", "in", certCheckInterval.String())
			}
		}
	}
}

// ensure makes the certificate if there is none, or if it ends soon, and sees to it
// that the API server trusts it.
func (c *servingCert) ensure(ctx context.Context) error {
	data, err := c.shared(ctx)
	if err != nil {
		return err
	}
	// First the trust, then the use.
	if err := c.inject(ctx, data[caCertKey]); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Equal(c.cert, data[corev1.TLSCertKey]) {
		return nil
	}
	c.cert, c.key = data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey]
	for _, l := range c.listeners {
		l.Enqueue()
	}
	return nil
}

// shared returns the data of the Secret, which it makes or renews where needed.
func (c *servingCert) shared(ctx context.Context) (map[string][]byte, error) {
	secrets := c.client.CoreV1().Secrets(c.namespace)
	for {
		secret, err := secrets.Get(ctx, certSecret, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading the Secret of the serving certificate: %w", err)
		}
		now := c.clock.Now()
		if err == nil && c.good(secret.Data, now) {
			return secret.Data, nil
		}
		missing := apierrors.IsNotFound(err)
		if missing {
			secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: certSecret, Namespace: c.namespace}, Type: corev1.SecretTypeTLS}
		}
		if secret.Data, err = c.renew(secret.Data, now); err != nil {
			return nil, err
		}
		if missing {
			_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
		} else {
			_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
		}
		switch {
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
			// Another replica was first: its certificate is everybody's.
		case err != nil:
			return nil, fmt.Errorf("writing the Secret of the serving certificate: %w", err)
		default:
			c.log.Info("Made a serving certificate", "names", c.names)
			return secret.Data, nil
		}
	}
}

// good says whether the certificate in data can be served for a while.
func (c *servingCert) good(data map[string][]byte, now time.Time) bool {
	ca, _, err := parsePair(data[caCertKey], data[caKeyKey])
	if err != nil || !fresh(ca, now) {
		return false
	}
	cert, _, err := parsePair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil || !fresh(cert, now) || cert.CheckSignatureFrom(ca) != nil {
		return false
	}
	return !slices.ContainsFunc(c.names, func(name string) bool { return cert.VerifyHostname(name) != nil })
}

// renew returns data with a new certificate, of the same authority if that is good
// for longer: then no replica is distrusted meanwhile.
func (c *servingCert) renew(data map[string][]byte, now time.Time) (map[string][]byte, error) {
	caCert, caKey := data[caCertKey], data[caKeyKey]
	ca, signer, err := parsePair(caCert, caKey)
	if err != nil || !fresh(ca, now) {
		if caCert, caKey, err = makeCert(&x509.Certificate{
			Subject:               pkix.Name{CommonName: "hoststatus-tenant-apiserver-ca"},
			NotAfter:              now.Add(caLifetime),
			IsCA:                  true,
			BasicConstraintsValid: true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}, nil, nil, now); err != nil {
			return nil, err
		}
		if ca, signer, err = parsePair(caCert, caKey); err != nil {
			return nil, err
		}
	}
	cert, key, err := makeCert(&x509.Certificate{
		Subject:     pkix.Name{CommonName: c.names[0]},
		NotAfter:    now.Add(certLifetime),
		DNSNames:    c.names,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, signer, now)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{caCertKey: caCert, caKeyKey: caKey, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}, nil
}

// inject puts the authority into the APIService, if it is not there.
func (c *servingCert) inject(ctx context.Context, ca []byte) error {
	services := c.dynamic.Resource(apiServices)
	service, err := services.Get(ctx, apiServiceName(), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading APIService %s: %w", apiServiceName(), err)
	}
	want := base64.StdEncoding.EncodeToString(ca)
	if have, _, _ := unstructured.NestedString(service.Object, "spec", "caBundle"); have == want {
		return nil
	}
	patch := fmt.Sprintf(`{"spec":{"caBundle":%q}}`, want)
	if _, err := services.Patch(ctx, apiServiceName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "hoststatus-tenant-apiserver"}); err != nil {
		return fmt.Errorf("writing the caBundle of APIService %s: %w", apiServiceName(), err)
	}
	return nil
}

func fresh(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return now.After(cert.NotBefore) && now.Before(cert.NotAfter.Add(-life/3))
}

func parsePair(cert, key []byte) (*x509.Certificate, crypto.Signer, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, fmt.Errorf("reading a certificate: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("reading a certificate: its key cannot sign")
	}
	return pair.Leaf, signer, nil
}

// makeCert makes a key and signs its certificate, by itself if there is no parent.
func makeCert(template, parent *x509.Certificate, signer crypto.Signer, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, fmt.Errorf("making a serial number: %w", err)
	}
	// Clocks of one cluster may differ a little.
	template.NotBefore = now.Add(-time.Hour)
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a certificate: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}
