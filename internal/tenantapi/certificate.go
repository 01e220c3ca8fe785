// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"github.com/go-logr/logr"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/servingcert"
)

// certSecret holds the serving certificate that the replicas share.
const certSecret = "hoststatus-tenant-apiserver-tls" // a name

// ownCert is the certificate that the server makes for itself, as the generic API
// server takes it.
type ownCert struct{ *servingcert.Cert }

var _ dynamiccertificates.CertKeyContentProvider = ownCert{}

// newOwnCert returns a certificate whose authority goes into the only APIService
// that this server may change.
func newOwnCert(client kubernetes.Interface, objects dynamic.Interface, options *Options, log logr.Logger) *servingcert.Cert {
	host := options.ServiceName + "." + options.Namespace + ".svc"
	return servingcert.New(servingcert.Options{
		Client: client, Dynamic: objects,
		Namespace: options.Namespace, Secret: certSecret,
		Names:  []string{host, host + ".cluster.local", "localhost"},
		Target: servingcert.APIService(v1alpha1.SchemeGroupVersion.Version + "." + v1alpha1.SchemeGroupVersion.Group),
		Clock:  clock.RealClock{}, Logger: log,
	})
}

// CurrentCertKeyContent implements dynamiccertificates.CertKeyContentProvider.
func (c ownCert) CurrentCertKeyContent() (cert, key []byte) { return c.Current() }

// AddListener implements dynamiccertificates.Notifier.
func (c ownCert) AddListener(l dynamiccertificates.Listener) { c.OnChange(l.Enqueue) }
