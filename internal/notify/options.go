// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/internal/cli"
)

const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
)

// Options are the flags of the notifier. What it tells whom is in its configuration file.
type Options struct {
	// ConfigFile is the configuration.
	ConfigFile string
	// MetricsBindAddress is where /metrics is served, HealthProbeBindAddress where /healthz
	// and /readyz are; "0" means nowhere.
	MetricsBindAddress, HealthProbeBindAddress string
	// CertDir holds tls.crt and tls.key for /metrics; if it is empty, a certificate is made
	// that nobody has signed.
	CertDir string
	// TLS has the versions and ciphers of TLS that /metrics is served with.
	TLS cli.TLSOptions
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{MetricsBindAddress: ":8443", HealthProbeBindAddress: ":8081"}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.ConfigFile, "config", o.ConfigFile, "Configuration file: the namespaces that are watched, the sinks, and what each is sent. When it changes, the notifier ends, so that it is started again with the new one.")
	fs.StringVar(&o.MetricsBindAddress, "metrics-bind-address", o.MetricsBindAddress, "Address on which /metrics is served, by TLS; 0 turns this off. Whoever reads it needs a token with the right to get /metrics.")
	fs.StringVar(&o.HealthProbeBindAddress, "health-probe-bind-address", o.HealthProbeBindAddress, "Address on which /healthz and /readyz are served; 0 turns this off.")
	fs.StringVar(&o.CertDir, "cert-dir", o.CertDir, "Folder with "+certFile+" and "+keyFile+" for /metrics, for example of cert-manager. They are read again when they change. By default a self-signed certificate is made at the start.")
	o.TLS.AddFlags(fs, "/metrics")
}

// Validate returns everything that is wrong with the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	if o.ConfigFile == "" {
		errs = append(errs, field.Required(cli.Flag("config"), "name the configuration file; docs/use/notifier.md describes it"))
	}
	errs = append(errs, cli.ValidateAddress(cli.Flag("metrics-bind-address"), o.MetricsBindAddress)...)
	errs = append(errs, cli.ValidateAddress(cli.Flag("health-probe-bind-address"), o.HealthProbeBindAddress)...)
	if o.CertDir != "" {
		for _, name := range []string{certFile, keyFile} {
			if _, err := os.Stat(filepath.Join(o.CertDir, name)); err != nil {
				errs = append(errs, field.Invalid(cli.Flag("cert-dir"), o.CertDir, "must hold "+name+": "+err.Error()))
			}
		}
	}
	return append(errs, o.TLS.Validate()...)
}
