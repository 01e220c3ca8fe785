// SPDX-License-Identifier: Apache-2.0

// Package agent is what runs on each host: it renews the host's Lease, and keeps the
// host's record of the servers on it, its HostReport. Here is how they are put together.
package agent

import (
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver/libvirt"
	"hoststatus.dev/hoststatus/internal/cli"
)

// The drivers that --driver names.
const (
	DriverNone    = "none"
	DriverFake    = "fake"
	DriverLibvirt = "libvirt"
)

// Options are the flags of the agent.
type Options struct {
	// HostName is the name of the ComputeService and of its Lease.
	HostName string
	// LeaseNamespace is where the Lease is.
	LeaseNamespace string
	// LeaseDuration is how long one renewal is valid.
	LeaseDuration time.Duration
	// RenewInterval is the time between two renewals.
	RenewInterval time.Duration
	// Driver knows the servers on this host.
	Driver string
	// FakeDriverFile is what the fake driver reads.
	FakeDriverFile string
	// Libvirt are the flags of the libvirt driver.
	Libvirt libvirt.Options
}

// NewOptions returns the defaults: Nova's, where it has one. A service of Nova
// reports every 10 s (report_interval) and is down after 60 s (service_down_time).
func NewOptions() *Options {
	host, _ := os.Hostname() // Validate asks for --host-name if there is none.
	return &Options{
		HostName:       strings.ToLower(host),
		LeaseNamespace: v1alpha1.DefaultLeaseNamespace,
		LeaseDuration:  time.Minute,
		RenewInterval:  10 * time.Second,
		Driver:         DriverNone,
		Libvirt:        libvirt.NewOptions(),
	}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.HostName, "host-name", o.HostName, "Name of this host: that of its ComputeService and of its Lease. By default the host name of the system.")
	fs.StringVar(&o.LeaseNamespace, "lease-namespace", o.LeaseNamespace, "Namespace of the Lease that this host renews.")
	fs.DurationVar(&o.LeaseDuration, "lease-duration", o.LeaseDuration, "How long one renewal is valid, in whole seconds from 3s to 1h. A ComputeService with spec.leaseDurationSeconds overrides it.")
	fs.DurationVar(&o.RenewInterval, "renew-interval", o.RenewInterval, "Time between two renewals, at most a third of --lease-duration.")
	fs.StringVar(&o.Driver, "driver", o.Driver, "Driver that knows the servers on this host: none (heartbeats only), fake (a file) or libvirt.")
	fs.StringVar(&o.FakeDriverFile, "fake-driver-file", o.FakeDriverFile, "YAML file from which --driver=fake reads the servers on this host; it is read again whenever it changes.")
	o.Libvirt.AddFlags(fs)
}

// Validate returns everything that is wrong with the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, cli.ValidateObjectName(cli.Flag("host-name"), o.HostName)...)
	if o.HostName == v1alpha1.CanaryLeaseName || o.HostName == v1alpha1.LeaderLeaseName {
		errs = append(errs, field.Invalid(cli.Flag("host-name"), o.HostName, "is the name of one of the manager's own Leases; choose another"))
	}
	errs = append(errs, cli.ValidateNamespace(cli.Flag("lease-namespace"), o.LeaseNamespace)...)
	errs = append(errs, cli.ValidateLeaseDuration(cli.Flag("lease-duration"), o.LeaseDuration)...)
	if o.RenewInterval <= 0 || o.RenewInterval > o.LeaseDuration/3 {
		errs = append(errs, field.Invalid(cli.Flag("renew-interval"), o.RenewInterval.String(), "must be more than 0 and at most a third of --lease-duration ("+(o.LeaseDuration/3).String()+"), so that a renewal or two may fail"))
	}
	if o.Driver != DriverFake && o.FakeDriverFile != "" {
		errs = append(errs, field.Forbidden(cli.Flag("fake-driver-file"), "needs --driver=fake"))
	}
	switch o.Driver {
	case DriverNone:
	case DriverLibvirt:
		errs = append(errs, o.Libvirt.Validate()...)
	case DriverFake:
		if o.FakeDriverFile == "" {
			errs = append(errs, field.Required(cli.Flag("fake-driver-file"), "--driver=fake needs a file to read"))
		}
	default:
		errs = append(errs, field.NotSupported(cli.Flag("driver"), o.Driver, []string{DriverNone, DriverFake, DriverLibvirt}))
	}
	return errs
}
