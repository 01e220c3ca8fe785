// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/v1alpha1"
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
	health := &driverHealth{}
	heartbeat.DriverError = health.error
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
	client, drop, err := reportsClient(config)
	if err != nil {
		return err
	}
	driver := &FakeDriver{Path: options.FakeDriverFile, Logger: log.WithName("driver"), OnHealth: health.set}
	for ctx.Err() == nil {
		// A driver that fails is no reason to fall silent.
		reporter := NewReporter(driver, client, log.WithName("reporter"))
		reporter.onConnectionFailure = drop
		if err := reporter.Run(ctx); err != nil {
			health.set(err)
			log.Error(err, "Driver failed; restarting it", "driver", options.Driver, "in", driverRestartDelay.String())
		}
		select {
		case <-ctx.Done():
		case <-time.After(driverRestartDelay):
		}
	}
	return nil
}

// withOwnConnections returns config with separate connections, and a function that drops
// them when they do not answer: otherwise a dead one would be used until TCP gives up.
func withOwnConnections(config *rest.Config) (own *rest.Config, drop func(), err error) {
	if config.Dial != nil {
		return nil, nil, errors.New("the client configuration has its own dialer")
	}
	own = rest.CopyConfig(config)
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext)
	own.Dial = dialer.DialContext
	return own, dialer.CloseAll, nil
}

// newHeartbeat gives the heartbeat its own connections.
func newHeartbeat(config *rest.Config, options *Options, log logr.Logger) (*Heartbeat, error) {
	config, drop, err := withOwnConnections(config)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // It makes one request at a time.
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the client for heartbeats: %w", err)
	}
	return &Heartbeat{
		Leases:              client.CoordinationV1().Leases(options.LeaseNamespace),
		Name:                options.HostName,
		Duration:            options.LeaseDuration,
		Interval:            options.RenewInterval,
		Clock:               clock.RealClock{},
		Logger:              log.WithName("heartbeat"),
		OnConnectionFailure: drop,
	}, nil
}

// reportsClient is the client for reports, on its own connections.
func reportsClient(config *rest.Config) (client rest.Interface, drop func(), err error) {
	config, drop, err = withOwnConnections(config)
	if err != nil {
		return nil, nil, err
	}
	client, err = serversClient(config)
	return client, drop, err
}

// serversClient speaks the group of Servers without discovery, which an agent
// has no other use for.
func serversClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the kinds: %w", err)
	}
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	// Reports go one at a time. By default the client would limit them to five a second,
	// and delay news.
	config.QPS, config.Burst = 50, 100
	config.GroupVersion = &v1alpha1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making the client for reports: %w", err)
	}
	return client, nil
}
