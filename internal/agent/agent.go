// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/internal/agent/apiserver"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/agent/driver/fake"
	"hoststatus.dev/hoststatus/internal/agent/driver/libvirt"
	"hoststatus.dev/hoststatus/internal/agent/lease"
	"hoststatus.dev/hoststatus/internal/agent/report"
)

// driverRestartDelay is how long a failed driver stays stopped: the cause may end
// unnoticed, and then its reports should arrive within five seconds.
const driverRestartDelay = 3 * time.Second

// Run is the agent: it renews the host's Lease and reports on its servers until
// ctx ends. A failure of one does not affect the other.
func Run(ctx context.Context, config *rest.Config, options *Options, log logr.Logger) error {
	if errs := options.Validate(); len(errs) > 0 {
		return errs.ToAggregate()
	}
	heartbeat, err := newHeartbeat(config, options, log)
	if err != nil {
		return err
	}
	var drives, reports health
	heartbeat.DriverError = func() string { return cmp.Or(drives.error(), reports.error()) }
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log.Info("Starting", "host", options.HostName, "leaseNamespace", options.LeaseNamespace,
		"leaseDuration", options.LeaseDuration.String(), "renewInterval", options.RenewInterval.String(), "driver", options.Driver)
	running.Go(func() { heartbeat.Run(ctx) })
	if options.Driver == DriverNone {
		<-ctx.Done()
		return nil
	}
	reporter, err := newReporter(config, options, log)
	if err != nil {
		return err
	}
	reporter.OnHealth = reports.set
	running.Go(func() { reporter.Run(ctx) })
	drive(ctx, newDriver(options, drives.set, log.WithName("driver")), reporter.Know, drives.set, log.WithValues("driver", options.Driver))
	return nil
}

// drive runs a driver until ctx ends, and starts it again when it fails: that is no reason
// to fall silent.
func drive(ctx context.Context, from driver.Driver, report func([]driver.VM), onHealth func(error), log logr.Logger) {
	for ctx.Err() == nil {
		if err := from.Run(ctx, report); err != nil {
			onHealth(err)
			log.Error(err, "Driver failed; restarting it", "in", driverRestartDelay.String())
		}
		select {
		case <-ctx.Done():
		case <-time.After(driverRestartDelay):
		}
	}
}

// newDriver returns the driver that the options name.
func newDriver(options *Options, onHealth func(error), log logr.Logger) driver.Driver {
	if options.Driver == DriverLibvirt {
		return &libvirt.Driver{Options: options.Libvirt, Logger: log, OnHealth: onHealth}
	}
	return &fake.Driver{Path: options.FakeDriverFile, Logger: log, OnHealth: onHealth}
}

// newHeartbeat gives the heartbeat its own connections.
func newHeartbeat(config *rest.Config, options *Options, log logr.Logger) (*lease.Heartbeat, error) {
	config, drop, err := apiserver.WithOwnConnections(config)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // It makes one request at a time.
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the client for heartbeats: %w", err)
	}
	return &lease.Heartbeat{
		Leases:              client.CoordinationV1().Leases(options.LeaseNamespace),
		Name:                options.HostName,
		Duration:            options.LeaseDuration,
		Interval:            options.RenewInterval,
		Clock:               clock.RealClock{},
		Logger:              log.WithName("heartbeat"),
		OnConnectionFailure: drop,
	}, nil
}

// newReporter gives the reporter its own connections.
func newReporter(config *rest.Config, options *Options, log logr.Logger) (*report.Reporter, error) {
	config, drop, err := apiserver.WithOwnConnections(config)
	if err != nil {
		return nil, err
	}
	client, err := report.NewClient(config)
	if err != nil {
		return nil, err
	}
	reporter := report.New(options.HostName, client, log.WithName("report"))
	reporter.OnConnectionFailure = drop
	return reporter, nil
}
