// SPDX-License-Identifier: Apache-2.0

// Package manager wires the controllers, the monitor of heartbeats and the
// probes into one process.
package manager

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Options are the flags of the manager.
type Options struct {
	// LeaseNamespaces are the namespaces whose Leases are heartbeats.
	LeaseNamespaces []string
	// DefaultLeaseDuration is D where neither ComputeService nor Lease gives one.
	DefaultLeaseDuration time.Duration
	// LeaderElectionNamespace is where the managers elect their leader.
	LeaderElectionNamespace string
	// MetricsBindAddress is where /metrics is served; "0" for nowhere.
	MetricsBindAddress string
	// MetricsSecure serves /metrics by TLS, and only to who may get it.
	MetricsSecure bool
	// HealthProbeBindAddress is where /healthz and /readyz are; "0" for nowhere.
	HealthProbeBindAddress string
	// WebhookBindAddress is where the admission webhook is served; "0" for nowhere.
	WebhookBindAddress string
	// WebhookCertDir holds tls.crt and tls.key of the webhook. Empty means that the
	// manager makes its own certificate, shares it with its replicas, and tells the
	// API server.
	WebhookCertDir string
	// Namespace is the manager's own: where the Secret and the Service of its webhook
	// are.
	Namespace string
}

const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
)

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{
		LeaseNamespaces: []string{v1alpha1.DefaultLeaseNamespace},
		// Nova's service_down_time.
		DefaultLeaseDuration:    time.Minute,
		LeaderElectionNamespace: v1alpha1.DefaultLeaseNamespace,
		MetricsBindAddress:      ":8443",
		MetricsSecure:           true,
		HealthProbeBindAddress:  ":8081",
		WebhookBindAddress:      ":9443",
		Namespace:               "hoststatus-system",
	}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.LeaseNamespaces, "lease-namespaces", o.LeaseNamespaces, "Namespaces whose Leases are heartbeats. Add kube-node-lease to take kubelets for reporters. The manager writes a canary Lease in each.")
	fs.DurationVar(&o.DefaultLeaseDuration, "default-lease-duration", o.DefaultLeaseDuration, "For how long a heartbeat holds where neither the ComputeService nor the Lease says so, in whole seconds from 3s to 1h.")
	fs.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", o.LeaderElectionNamespace, "Namespace of the Lease by which managers elect their leader.")
	fs.StringVar(&o.MetricsBindAddress, "metrics-bind-address", o.MetricsBindAddress, "Address on which /metrics is served; 0 serves it nowhere.")
	fs.BoolVar(&o.MetricsSecure, "metrics-secure", o.MetricsSecure, "Serve /metrics by TLS and only to users who may get the URL /metrics.")
	fs.StringVar(&o.HealthProbeBindAddress, "health-probe-bind-address", o.HealthProbeBindAddress, "Address on which /healthz and /readyz are served; 0 serves them nowhere.")
	fs.StringVar(&o.WebhookBindAddress, "webhook-bind-address", o.WebhookBindAddress, "Address on which the admission webhook is served, by TLS; 0 serves it nowhere.")
	fs.StringVar(&o.WebhookCertDir, "webhook-cert-dir", o.WebhookCertDir, "Folder with "+certFile+" and "+keyFile+" of the webhook, for example of cert-manager. They are read again when they change, and the caBundle is left to whoever provides them. By default the manager makes its own certificate and fills in the caBundle.")
	fs.StringVar(&o.Namespace, "namespace", o.Namespace, "Namespace of the manager: where the Secret and the Service of its webhook are.")
}

// Validate returns everything that is wrong with the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	flag := func(name string) *field.Path { return field.NewPath("--" + name) }
	if len(o.LeaseNamespaces) == 0 {
		errs = append(errs, field.Required(flag("lease-namespaces"), "name at least one namespace whose Leases are heartbeats"))
	}
	known := sets.New[string]()
	for i, namespace := range o.LeaseNamespaces {
		for _, message := range validation.IsDNS1123Label(namespace) {
			errs = append(errs, field.Invalid(flag("lease-namespaces").Index(i), namespace, message))
		}
		if known.Has(namespace) {
			errs = append(errs, field.Duplicate(flag("lease-namespaces").Index(i), namespace))
		}
		known.Insert(namespace)
	}
	if d := o.DefaultLeaseDuration; d < v1alpha1.MinLeaseDurationSeconds*time.Second || d > v1alpha1.MaxLeaseDurationSeconds*time.Second || d%time.Second != 0 {
		errs = append(errs, field.Invalid(flag("default-lease-duration"), d.String(), "must be whole seconds from 3s to 1h"))
	}
	for _, message := range validation.IsDNS1123Label(o.LeaderElectionNamespace) {
		errs = append(errs, field.Invalid(flag("leader-election-namespace"), o.LeaderElectionNamespace, message))
	}
	for name, address := range map[string]string{"metrics-bind-address": o.MetricsBindAddress, "health-probe-bind-address": o.HealthProbeBindAddress} {
		if err := validateAddress(address, 0); err != nil {
			errs = append(errs, field.Invalid(flag(name), address, err.Error()))
		}
	}
	return append(errs, o.validateWebhook(flag)...)
}

func (o *Options) validateWebhook(flag func(string) *field.Path) field.ErrorList {
	var errs field.ErrorList
	// The Service has to know the port, so it cannot be left to the system.
	if err := validateAddress(o.WebhookBindAddress, 1); err != nil {
		errs = append(errs, field.Invalid(flag("webhook-bind-address"), o.WebhookBindAddress, err.Error()))
	}
	for _, message := range validation.IsDNS1123Label(o.Namespace) {
		errs = append(errs, field.Invalid(flag("namespace"), o.Namespace, message))
	}
	if o.WebhookCertDir == "" {
		return errs
	}
	if o.WebhookBindAddress == "0" {
		errs = append(errs, field.Invalid(flag("webhook-cert-dir"), o.WebhookCertDir, "is for a webhook that --webhook-bind-address=0 does not serve; leave one of them out"))
	}
	for _, name := range []string{certFile, keyFile} {
		if _, err := os.Stat(filepath.Join(o.WebhookCertDir, name)); err != nil {
			errs = append(errs, field.Invalid(flag("webhook-cert-dir"), o.WebhookCertDir, "must hold "+name+": "+err.Error()))
		}
	}
	return errs
}

func validateAddress(address string, minPort uint64) error {
	if address == "0" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("must be host:port, :port or 0: %w", err)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number < minPort {
		return fmt.Errorf("must end with a port from %d to 65535, not %q", minPort, port)
	}
	return nil
}
