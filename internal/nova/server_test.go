// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// What is installed names the API server and its authority, and no credentials.
func TestTheInstalledKubeconfigHasNoCredentials(t *testing.T) {
	file, err := os.Open(filepath.Join("..", "..", "config", "nova-api", "access.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	decoder := yaml.NewYAMLOrJSONDecoder(file, 4096)
	var kubeconfig string
	for kubeconfig == "" {
		var object corev1.ConfigMap
		if err := decoder.Decode(&object); err != nil {
			t.Fatal("there is no ConfigMap with a kubeconfig: ", err)
		}
		kubeconfig = object.Data["config"]
	}
	dir := t.TempDir()
	certificate, _ := certificateOf(t)
	for name, content := range map[string]string{"config": kubeconfig, "ca.crt": certificate} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "config"))
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://kubernetes.default.svc" || config.CAFile != filepath.Join(dir, "ca.crt") || config.BearerToken+config.BearerTokenFile+config.CertFile+config.Username != "" {
		t.Errorf("read as %+v", config)
	}
	if _, err := newKube(config); err != nil {
		t.Error(err)
	}
}

// certificateOf returns a certificate for example.com and its key, in PEM: those of httptest.
func certificateOf(t *testing.T) (certificate, key string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	encoded, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

// freeAddresses are addresses of localhost on which nothing listens.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses
}

func TestTheServerServesItsThreeAddressesUntilItIsStopped(t *testing.T) {
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case r.URL.Path == "/readyz":
			w.WriteHeader(http.StatusForbidden) // It answers: that is all that matters.
		case secret == "nobody":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":%t}}`, secret == "scraper")
		}
	}))
	defer apiServer.Close()
	dir := t.TempDir()
	certificate, key := certificateOf(t)
	for name, content := range map[string]string{certFile: certificate, keyFile: key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addresses := freeAddresses(t, 3)
	options := NewOptions()
	options.CertDir, options.ShutdownDelay = dir, 0
	options.BindAddress, options.MetricsBindAddress, options.HealthProbeBindAddress = addresses[0], addresses[1], addresses[2]
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, &rest.Config{Host: apiServer.URL}, options, logr.Discard()) }()

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, DisableKeepAlives: true}}
	ask := func(url, secret string) (int, string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if secret != "" {
				request.Header.Set("Authorization", "Bearer "+secret)
			}
			answer, err := client.Do(request)
			if err != nil {
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond) // It does not listen yet.
				continue
			}
			body, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			return answer.StatusCode, string(body)
		}
	}
	if code, body := ask("https://"+addresses[0]+"/", ""); code != http.StatusOK || !strings.Contains(body, `"https://`+addresses[0]+`/v2.1/"`) {
		t.Errorf("clients: %d %s", code, body)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 404} {
		if code, body := ask("http://"+addresses[2]+path, ""); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for secret, want := range map[string]int{"": 401, "nobody": 401, "somebody": 403, "scraper": 200} {
		code, body := ask("https://"+addresses[1]+"/metrics", secret)
		if code != want || (code == http.StatusOK) != strings.Contains(body, `hoststatus_nova_requests_total{code="200",microversion="none",route="versions"}`) {
			t.Errorf("/metrics for %q: %d", secret, code)
		}
	}
	apiServer.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if code, _ := ask("http://"+addresses[2]+"/readyz", ""); code == http.StatusServiceUnavailable {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is ready without an API server")
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Anybody may ask whether it is ready, and hang up: the answer is remembered for a moment, also for the kubelet.
func TestWhoHangsUpOnAProbeDoesNotMakeItUnready(t *testing.T) {
	c := newCluster(t)
	s := &servers{face: c.face(logr.Discard(), nil)}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	for _, ctx := range []context.Context{gone, t.Context()} {
		w := httptest.NewRecorder()
		s.ready(w, httptest.NewRequest(http.MethodGet, "/readyz", nil).WithContext(ctx))
		if w.Code != http.StatusOK {
			t.Errorf("it answers %d: %s", w.Code, w.Body)
		}
	}
}
