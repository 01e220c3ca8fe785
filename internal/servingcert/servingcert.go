// SPDX-License-Identifier: Apache-2.0

// Package servingcert makes the certificate by which the API server trusts one of our
// servers, so that no other component is needed for it. Replicas share it in a Secret.
// It is renewed in time, and the authority that signed it is kept in the object that
// registers the server with the API server.
package servingcert

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
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	caCertKey = "ca.crt"
	caKeyKey  = "ca.key"

	// A certificate is renewed when a third of its life is left. It is checked every
	// checkInterval, and whenever the target has lost the authority.
	caLifetime    = 10 * 365 * 24 * time.Hour
	certLifetime  = 365 * 24 * time.Hour
	checkInterval = time.Minute
	// retryInterval is how soon to check again after a failure, and the least time
	// between two checks: somebody else may keep writing another authority into the target.
	retryInterval = time.Second
)

// Options are what a Cert needs. All fields are required.
type Options struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	// Namespace and Secret are where the replicas share the certificate.
	Namespace, Secret string
	// Names are the DNS names of the server.
	Names []string
	// Target registers the server with the API server.
	Target Target
	Clock  clock.WithTicker
	Logger logr.Logger
}

// Cert is a certificate that the replicas of a server make for themselves.
type Cert struct {
	Options
	// lost receives a value when the target no longer trusts the authority.
	lost chan struct{}

	mu        sync.Mutex
	bundle    []byte
	cert, key []byte
	serving   *tls.Certificate
	listeners []func()
}

// New returns a Cert that has no certificate until Ensure or Run has made one.
func New(options Options) *Cert {
	return &Cert{Options: options, lost: make(chan struct{}, 1)}
}

// Name is where the certificate comes from, for logs.
func (c *Cert) Name() string { return "secret " + c.Namespace + "/" + c.Secret }

// Current returns the certificate and its key, in PEM; nil if there is none yet.
func (c *Cert) Current() (cert, key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert, c.key
}

// GetCertificate returns the certificate for a handshake. It is for tls.Config.
func (c *Cert) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving == nil {
		return nil, errors.New("the serving certificate has not been made yet")
	}
	return c.serving, nil
}

// OnChange calls changed whenever the certificate has changed. It must return at once
// and not call back.
func (c *Cert) OnChange(changed func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, changed)
}

// Run keeps the certificate up to date until ctx ends. Failures are retried.
func (c *Cert) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { c.Target.watch(ctx, c.Dynamic, c.compare) })
	timer := c.Clock.NewTimer(checkInterval)
	defer timer.Stop()
	complaint := ""
	for {
		next := checkInterval
		if err := c.Ensure(ctx); err != nil && ctx.Err() == nil {
			next = retryInterval
			if err.Error() != complaint {
				c.Logger.Error(err, "Keeping the serving certificate up to date failed; retrying", "every", retryInterval.String())
			}
			complaint = err.Error()
		} else {
			complaint = ""
		}
		if !c.sleep(ctx, timer, min(next, retryInterval), nil) || !c.sleep(ctx, timer, next-retryInterval, c.lost) {
			return
		}
	}
}

// sleep waits for d or until it is woken, and reports whether to go on.
func (c *Cert) sleep(ctx context.Context, timer clock.Timer, d time.Duration, wake <-chan struct{}) bool {
	timer.Stop()
	timer.Reset(d)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
	case <-wake:
	}
	return true
}

// compare wakes Run if the target, as it is now, does not trust the authority.
func (c *Cert) compare(target object) {
	c.mu.Lock()
	bundle := c.bundle
	c.mu.Unlock()
	if bundle != nil && c.Target.patch(target, bundle) != nil {
		select {
		case c.lost <- struct{}{}:
		default:
		}
	}
}

// Ensure makes the certificate if there is none, or if it expires soon, and makes sure
// that the API server trusts it.
func (c *Cert) Ensure(ctx context.Context) error {
	data, err := c.shared(ctx)
	if err != nil {
		return err
	}
	serving, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("reading the serving certificate: %w", err)
	}
	// It must be trusted before it is used.
	if err := c.Target.inject(ctx, c.Dynamic, data[caCertKey]); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bundle = data[caCertKey]
	if bytes.Equal(c.cert, data[corev1.TLSCertKey]) {
		return nil
	}
	c.cert, c.key, c.serving = data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey], &serving
	for _, changed := range c.listeners {
		changed()
	}
	return nil
}

// shared returns the data of the Secret, which it creates or renews where needed.
func (c *Cert) shared(ctx context.Context) (map[string][]byte, error) {
	secrets := c.Client.CoreV1().Secrets(c.Namespace)
	for {
		secret, err := secrets.Get(ctx, c.Secret, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading the Secret of the serving certificate: %w", err)
		}
		now := c.Clock.Now()
		if err == nil && c.good(secret.Data, now) {
			return secret.Data, nil
		}
		missing := apierrors.IsNotFound(err)
		if missing {
			secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: c.Secret, Namespace: c.Namespace}, Type: corev1.SecretTypeTLS}
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
			// Another replica was first: all use its certificate.
		case err != nil:
			return nil, fmt.Errorf("writing the Secret of the serving certificate: %w", err)
		default:
			c.Logger.Info("Created a serving certificate", "names", c.Names)
			return secret.Data, nil
		}
	}
}

// good reports whether the certificate in data can be served for a while.
func (c *Cert) good(data map[string][]byte, now time.Time) bool {
	ca, _, err := parsePair(data[caCertKey], data[caKeyKey])
	if err != nil || !fresh(ca, now) {
		return false
	}
	cert, _, err := parsePair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil || !fresh(cert, now) || cert.CheckSignatureFrom(ca) != nil {
		return false
	}
	return !slices.ContainsFunc(c.Names, func(name string) bool { return cert.VerifyHostname(name) != nil })
}

// renew returns data with a new certificate, of the same authority if that is still
// fresh. Otherwise the old authority stays trusted until it expires, so that no replica
// is distrusted meanwhile.
func (c *Cert) renew(data map[string][]byte, now time.Time) (map[string][]byte, error) {
	caCert, caKey := data[caCertKey], data[caKeyKey]
	ca, signer, err := parsePair(caCert, caKey)
	if err != nil || !fresh(ca, now) {
		before := ca
		if caCert, caKey, err = makeCert(&x509.Certificate{
			Subject:               pkix.Name{CommonName: c.Secret + "-ca"},
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
		if before != nil && now.Before(before.NotAfter) {
			caCert = append(caCert, encodeCert(before.Raw)...)
		}
	}
	cert, key, err := makeCert(&x509.Certificate{
		Subject:     pkix.Name{CommonName: c.Names[0]},
		NotAfter:    now.Add(certLifetime),
		DNSNames:    c.Names,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, signer, now)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{caCertKey: caCert, caKeyKey: caKey, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}, nil
}

func fresh(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return now.After(cert.NotBefore) && now.Before(cert.NotAfter.Add(-life/3))
}

// parsePair reads a key and the certificate of it, which is the first in cert.
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
	// Clocks in a cluster may differ a little.
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
	return encodeCert(der), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
