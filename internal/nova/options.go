// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/internal/cli"
)

const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
)

// Options are the flags of the server.
type Options struct {
	// BindAddress is where it serves, host:port.
	BindAddress string
	// MetricsBindAddress is where /metrics is served, HealthProbeBindAddress where /healthz
	// and /readyz are; "0" means nowhere.
	MetricsBindAddress, HealthProbeBindAddress string
	// PublicURL is how clients reach it, which links name. Empty means the Host header of each
	// request.
	PublicURL string
	// CertDir holds tls.crt and tls.key. It is required unless PlainHTTP is set.
	CertDir string
	// PlainHTTP is set if a proxy before it ends TLS.
	PlainHTTP bool
	// ProjectOfServiceAccount lets requests that name no project be for the namespace that the
	// token of a service account names.
	ProjectOfServiceAccount bool
	// MaxBodyBytes is how long a body may be.
	MaxBodyBytes int
	// MaxRequests is how many requests are worked on at once, MaxRequestsPerToken how many of
	// one token, and MaxWaitingPerToken how many of one token wait for their turn.
	MaxRequests, MaxRequestsPerToken, MaxWaitingPerToken int
	// MaxConnections is how many connections there are at once.
	MaxConnections int
	// RequestTimeout is how long a request may take, with the wait for its turn.
	RequestTimeout time.Duration
	// ShutdownDelay is how long it still serves once it is to stop.
	ShutdownDelay time.Duration
	// TLS has the versions and ciphers of TLS that it serves with.
	TLS cli.TLSOptions
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{
		BindAddress:             ":8774",
		MetricsBindAddress:      ":8443",
		HealthProbeBindAddress:  ":8081",
		ProjectOfServiceAccount: true,
		// The same as the compute API's own.
		MaxBodyBytes: 114688,
		// A page of a thousand servers takes about five MB while it is made.
		MaxRequests:         32,
		MaxRequestsPerToken: 8,
		MaxWaitingPerToken:  64,
		MaxConnections:      512,
		RequestTimeout:      30 * time.Second,
		// Proxies send no requests any more after that.
		ShutdownDelay: 5 * time.Second,
	}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.BindAddress, "bind-address", o.BindAddress, "Address on which clients are served.")
	fs.StringVar(&o.MetricsBindAddress, "metrics-bind-address", o.MetricsBindAddress, "Address on which /metrics is served, with the certificate of --cert-dir; 0 turns this off. Whoever reads it needs a token with the right to get /metrics.")
	fs.StringVar(&o.HealthProbeBindAddress, "health-probe-bind-address", o.HealthProbeBindAddress, "Address on which /healthz and /readyz are served; 0 turns this off.")
	fs.StringVar(&o.PublicURL, "public-url", o.PublicURL, "URL by which clients reach the server, for example https://nova.example.com, for the links in answers and the catalog. By default what the Host header of each request names.")
	fs.StringVar(&o.CertDir, "cert-dir", o.CertDir, "Folder with "+certFile+" and "+keyFile+", for example of cert-manager. They are read again when they change.")
	fs.BoolVar(&o.PlainHTTP, "plain-http", o.PlainHTTP, "Serve without TLS, where a proxy before the server ends it. Tokens then cross the network between the two unencrypted.")
	fs.BoolVar(&o.ProjectOfServiceAccount, "project-of-service-account", o.ProjectOfServiceAccount, "If a request names no project, it is for the namespace of the service account whose token it brings. RBAC decides what it may see there.")
	fs.IntVar(&o.MaxBodyBytes, "max-body-bytes", o.MaxBodyBytes, "How long the body of a request may be, in bytes, 1024 to 1048576.")
	fs.IntVar(&o.MaxRequests, "max-requests", o.MaxRequests, "How many requests are worked on at once, 1 to 1024. Each takes about 5 MB.")
	fs.IntVar(&o.MaxRequestsPerToken, "max-requests-per-token", o.MaxRequestsPerToken, "How many of them are of one token, at most --max-requests.")
	fs.IntVar(&o.MaxWaitingPerToken, "max-waiting-per-token", o.MaxWaitingPerToken, "How many requests of one token wait for their turn, 0 to 4096; more are refused with 429.")
	fs.IntVar(&o.MaxConnections, "max-connections", o.MaxConnections, "How many connections there are at once, 1 to 65536. When all are taken, an address with many gives way to one with few.")
	fs.DurationVar(&o.RequestTimeout, "request-timeout", o.RequestTimeout, "How long a request may take, with the wait for its turn, 1s to 10m.")
	o.TLS.AddFlags(fs, "the server")
	fs.DurationVar(&o.ShutdownDelay, "shutdown-delay", o.ShutdownDelay, "How long requests are still served after SIGTERM, at most 1m.")
}

// Validate returns everything that is wrong with the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	if o.BindAddress == "0" {
		errs = append(errs, field.Invalid(cli.Flag("bind-address"), o.BindAddress, "must be host:port or :port"))
	}
	errs = append(errs, cli.ValidateAddress(cli.Flag("bind-address"), o.BindAddress)...)
	errs = append(errs, cli.ValidateAddress(cli.Flag("metrics-bind-address"), o.MetricsBindAddress)...)
	errs = append(errs, cli.ValidateAddress(cli.Flag("health-probe-bind-address"), o.HealthProbeBindAddress)...)
	errs = append(errs, o.validatePublicURL()...)
	errs = append(errs, o.validateCertificate()...)
	for _, limit := range []struct {
		flag                 string
		value, least, atMost int
	}{
		{"max-body-bytes", o.MaxBodyBytes, 1 << 10, 1 << 20},
		{"max-requests", o.MaxRequests, 1, 1 << 10},
		{"max-requests-per-token", o.MaxRequestsPerToken, 1, max(o.MaxRequests, 1)},
		{"max-waiting-per-token", o.MaxWaitingPerToken, 0, 1 << 12},
		{"max-connections", o.MaxConnections, 1, 1 << 16},
	} {
		if limit.value < limit.least || limit.value > limit.atMost {
			errs = append(errs, field.Invalid(cli.Flag(limit.flag), limit.value, between(limit.least, limit.atMost)))
		}
	}
	if o.RequestTimeout < time.Second || o.RequestTimeout > 10*time.Minute {
		errs = append(errs, field.Invalid(cli.Flag("request-timeout"), o.RequestTimeout.String(), "must be from 1s to 10m"))
	}
	errs = append(errs, cli.ValidateShutdownDelay(cli.Flag("shutdown-delay"), o.ShutdownDelay)...)
	return append(errs, o.TLS.Validate()...)
}

func (o *Options) validatePublicURL() field.ErrorList {
	if o.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(o.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return field.ErrorList{field.Invalid(cli.Flag("public-url"), o.PublicURL, "must be http:// or https:// and a host, with a port if it is not the usual one, and nothing after that")}
	}
	return nil
}

func (o *Options) validateCertificate() field.ErrorList {
	var errs field.ErrorList
	switch {
	case o.PlainHTTP && o.CertDir != "":
		return append(errs, field.Invalid(cli.Flag("plain-http"), true, "excludes --cert-dir; leave one of them out"))
	case o.PlainHTTP:
		return nil
	case o.CertDir == "":
		return append(errs, field.Required(cli.Flag("cert-dir"), "name the folder with "+certFile+" and "+keyFile+", or set --plain-http if a proxy before the server ends TLS"))
	}
	for _, name := range []string{certFile, keyFile} {
		if _, err := os.Stat(filepath.Join(o.CertDir, name)); err != nil {
			errs = append(errs, field.Invalid(cli.Flag("cert-dir"), o.CertDir, "must hold "+name+": "+err.Error()))
		}
	}
	return errs
}

func between(least, most int) string {
	return "must be from " + strconv.Itoa(least) + " to " + strconv.Itoa(most)
}
