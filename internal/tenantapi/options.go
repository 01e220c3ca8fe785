// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericoptions "k8s.io/apiserver/pkg/server/options"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/cli"
)

const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
)

// Options are the flags of the server.
type Options struct {
	// BindAddress and SecurePort are where it serves.
	BindAddress net.IP
	SecurePort  int
	// Namespace is its own: where its Secrets and its Service are.
	Namespace string
	// ServiceName is the Service that the APIService names.
	ServiceName string
	// CertDir holds tls.crt and tls.key. Empty means that the server makes its own
	// certificate, shares it with its replicas, and publishes its authority in the
	// APIService.
	CertDir string
	// LeaseNamespaces are those of the manager, in which it writes canaries.
	LeaseNamespaces []string
	// VisibleLabelPrefixes are prefixes of labels that owners see, besides those
	// without a prefix and app.kubernetes.io/.
	VisibleLabelPrefixes []string
	// ShutdownDelay is how long it still serves once it is to stop.
	ShutdownDelay time.Duration
	// TLS has the versions and ciphers of TLS that it serves with.
	TLS cli.TLSOptions
	// Audit is what is written to an audit log.
	Audit *genericoptions.AuditOptions
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{
		BindAddress:     net.IPv4zero,
		SecurePort:      8443,
		Namespace:       "hoststatus-system",
		ServiceName:     "hoststatus-tenant-apiserver",
		LeaseNamespaces: []string{v1alpha1.DefaultLeaseNamespace},
		// Proxies send no requests any more after that.
		ShutdownDelay: 5 * time.Second,
		Audit:         genericoptions.NewAuditOptions(),
	}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.addServingFlags(fs)
	o.addViewFlags(fs)
	o.Audit.AddFlags(fs)
}

func (o *Options) addServingFlags(fs *pflag.FlagSet) {
	fs.IPVar(&o.BindAddress, "bind-address", o.BindAddress, "Address to serve on.")
	fs.IntVar(&o.SecurePort, "secure-port", o.SecurePort, "HTTPS port.")
	fs.StringVar(&o.Namespace, "namespace", o.Namespace, "Namespace of the server: where its Secrets and its Service are.")
	fs.StringVar(&o.ServiceName, "service-name", o.ServiceName, "Name of the Service by which the API server reaches it.")
	fs.StringVar(&o.CertDir, "cert-dir", o.CertDir, "Folder with "+certFile+" and "+keyFile+", for example of cert-manager. They are read again when they change, and the APIService's caBundle is left to whoever provides them. By default the server makes its own certificate and fills in the caBundle.")
	o.TLS.AddFlags(fs, "the server")
	fs.DurationVar(&o.ShutdownDelay, "shutdown-delay", o.ShutdownDelay, "How long requests are still served after SIGTERM, at most 1m.")
}

func (o *Options) addViewFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.LeaseNamespaces, "lease-namespaces", o.LeaseNamespaces, "The manager's --lease-namespaces. Answers with host status carry a warning when the canary in one of them is overdue.")
	fs.StringSliceVar(&o.VisibleLabelPrefixes, "visible-label-prefixes", o.VisibleLabelPrefixes, "Prefixes, such as example.com, of labels that owners see, in addition to labels without a prefix and those of app.kubernetes.io. Of these, app.kubernetes.io/instance, by which Argo CD tracks objects, is shown only if app.kubernetes.io is named here.")
}

// Validate returns everything that is wrong with the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, o.validateServing()...)
	errs = append(errs, o.validateView()...)
	for _, err := range o.Audit.Validate() {
		errs = append(errs, field.Invalid(cli.Flag("audit-*"), field.OmitValueType{}, err.Error()))
	}
	return errs
}

func (o *Options) validateServing() field.ErrorList {
	var errs field.ErrorList
	if o.BindAddress == nil {
		errs = append(errs, field.Required(cli.Flag("bind-address"), "give an IP address; 0.0.0.0 is all of IPv4"))
	}
	errs = append(errs, cli.ValidatePort(cli.Flag("secure-port"), o.SecurePort)...)
	errs = append(errs, cli.ValidateNamespace(cli.Flag("namespace"), o.Namespace)...)
	errs = append(errs, cli.ValidateServiceName(cli.Flag("service-name"), o.ServiceName)...)
	if o.CertDir != "" {
		for _, name := range []string{certFile, keyFile} {
			if _, err := os.Stat(filepath.Join(o.CertDir, name)); err != nil {
				errs = append(errs, field.Invalid(cli.Flag("cert-dir"), o.CertDir, "must hold "+name+": "+err.Error()))
			}
		}
	}
	errs = append(errs, cli.ValidateShutdownDelay(cli.Flag("shutdown-delay"), o.ShutdownDelay)...)
	return append(errs, o.TLS.Validate()...)
}

func (o *Options) validateView() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, cli.ValidateNamespaces(cli.Flag("lease-namespaces"), o.LeaseNamespaces, "name the namespaces that the manager's --lease-namespaces names")...)
	for i, prefix := range o.VisibleLabelPrefixes {
		for _, message := range validation.IsDNS1123Subdomain(prefix) {
			errs = append(errs, field.Invalid(cli.Flag("visible-label-prefixes").Index(i), prefix, message+"; leave out the slash"))
		}
	}
	return errs
}
