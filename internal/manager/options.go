// SPDX-License-Identifier: Apache-2.0

// Package manager wires the controllers, the monitor of heartbeats and the
// probes into one process.
package manager

import (
	"fmt"
	"net"
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
	// PprofBindAddress is where profiles are served, to anybody; "0" for nowhere.
	PprofBindAddress string
}

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
		PprofBindAddress:        "0",
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
	fs.StringVar(&o.PprofBindAddress, "pprof-bind-address", o.PprofBindAddress, "Address on which profiles are served under /debug/pprof/, without authentication: give a loopback address; 0 serves them nowhere.")
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
	addresses := map[string]string{
		"metrics-bind-address":      o.MetricsBindAddress,
		"health-probe-bind-address": o.HealthProbeBindAddress,
		"pprof-bind-address":        o.PprofBindAddress,
	}
	for name, address := range addresses {
		if err := validateAddress(address); err != nil {
			errs = append(errs, field.Invalid(flag(name), address, err.Error()))
		}
	}
	return errs
}

func validateAddress(address string) error {
	if address == "0" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("must be host:port, :port or 0: %w", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("must end with a port from 0 to 65535, not %q", port)
	}
	return nil
}
