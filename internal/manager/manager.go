// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/controllers/answers"
	"hoststatus.dev/hoststatus/controllers/computeservice"
	"hoststatus.dev/hoststatus/controllers/nodemirror"
	"hoststatus.dev/hoststatus/controllers/reports"
	"hoststatus.dev/hoststatus/controllers/server"
	"hoststatus.dev/hoststatus/controllers/vmimirror"
	"hoststatus.dev/hoststatus/internal/heartbeat"
	"hoststatus.dev/hoststatus/internal/hostsfirst"
	"hoststatus.dev/hoststatus/internal/leadership"
	"hoststatus.dev/hoststatus/internal/serving"
	"hoststatus.dev/hoststatus/internal/watch"
)

// The manager's own rights. Those on Leases hold in the lease namespaces only.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=hoststatus-leases,resources=leases,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=hoststatus-leases,resources=leases,resourceNames=hoststatus-canary;hoststatus-manager,verbs=update;patch
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=hoststatus-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=hoststatus-system,resources=leases,resourceNames=hoststatus-manager,verbs=get;update
// +kubebuilder:rbac:groups=compute.hoststatus.dev,resources=computeservices,verbs=manage
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

const (
	// stopTimeout is how long components may take to stop: a write or two.
	stopTimeout = 10 * time.Second
	// livenessTimeout is how long the monitor's loop may take to answer a probe.
	livenessTimeout = 5 * time.Second
)

// Run is the manager: it runs until ctx ends or it loses its leadership.
func Run(ctx context.Context, restConfig *rest.Config, options *Options, log logr.Logger) error {
	if errs := options.Validate(); len(errs) > 0 {
		return errs.ToAggregate()
	}
	ctrl.SetLogger(log)
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), agentv1alpha1.AddToScheme(scheme), ownerv1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme), vmimirror.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("registering the kinds: %w", err)
	}
	restConfig = rest.CopyConfig(restConfig)
	// The API server's priority and fairness is the limit. One on this side would
	// let a fan-out delay a verdict.
	restConfig.QPS = -1

	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("finding the host name, which identifies this manager: %w", err)
	}
	identity := host + "_" + string(uuid.NewUUID())
	lock, err := newLock(restConfig, options, identity)
	if err != nil {
		return err
	}
	leader := leadership.NewTracker(lock, clock.RealClock{})
	var watches watch.Sources
	mgr, err := ctrl.NewManager(restConfig, managerOptions(scheme, options, leader, &watches))
	if err != nil {
		return fmt.Errorf("making the manager: %w", err)
	}
	leases, err := leaseClient(restConfig)
	if err != nil {
		return err
	}
	monitor := heartbeat.NewMonitor(heartbeat.Options{
		Leases:          leases.CoordinationV1(),
		Namespaces:      options.LeaseNamespaces,
		DefaultDuration: options.DefaultLeaseDuration,
		Identity:        identity,
		Elected:         mgr.Elected(),
		Leads:           leader.Leads,
		Stalled:         watches.Reopen,
		Clock:           clock.RealClock{},
		Logger:          log.WithName("heartbeat"),
	})
	writer := leadership.NewClient(mgr.GetClient(), leader.Leads)
	byHost, err := server.NewByHost(ctx, mgr.GetCache())
	if err != nil {
		return err
	}
	owners := answers.New(mgr.GetCache(), byHost)
	if err := mgr.Add(owners); err != nil {
		return fmt.Errorf("adding the owners' answers: %w", err)
	}
	if err := mgr.Add(takeover{watches: &watches, client: writer, owners: owners}); err != nil {
		return fmt.Errorf("adding the steps of a takeover: %w", err)
	}
	gate := hostsfirst.New()
	services := computeservice.NewReconciler(writer, monitor, clock.RealClock{}).WithAnswers(owners).Before(gate)
	if options.MirrorNodes {
		services.OfNodes(nodemirror.NodeOf)
	}
	if err := services.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the controller of ComputeServices: %w", err)
	}
	if err := server.NewReconciler(writer, clock.RealClock{}).WithAnswers(owners).Behind(gate).SetupWithManager(ctx, mgr, byHost); err != nil {
		return fmt.Errorf("setting up the controller of Servers: %w", err)
	}
	hostReports := reports.NewReconciler(writer, clock.RealClock{})
	if options.MirrorVMIs {
		hostReports.LeaveOut(vmimirror.Mirrored)
	}
	if err := hostReports.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the controller of HostReports: %w", err)
	}
	if options.MirrorNodes {
		if err := addNodeMirror(mgr, options, &watches, byHost.Count, leader.Leads); err != nil {
			return err
		}
	}
	if options.MirrorVMIs {
		if err := addVMIMirror(mgr, options, &watches, writer, leader.Leads); err != nil {
			return err
		}
	}
	if err := mgr.Add(monitor); err != nil {
		return fmt.Errorf("adding the monitor of heartbeats: %w", err)
	}
	if err := addProbes(mgr, monitor); err != nil {
		return err
	}
	if err := provideFleet(ctx, mgr.GetCache(), leader.Leads); err != nil {
		return err
	}
	webhook, err := newWebhookServing(restConfig, options, log.WithName("webhook"))
	if err != nil {
		return err
	}
	if err := addWebhook(mgr, webhook, monitor, byHost.Count, options); err != nil {
		return err
	}
	log.Info("Starting", "leaseNamespaces", options.LeaseNamespaces, "defaultLeaseDuration", options.DefaultLeaseDuration.String())
	if webhook == nil {
		return start(ctx, mgr, log)
	}
	return serveBeside(ctx, webhook.server, func(ctx context.Context) error { return start(ctx, mgr, log) })
}

// serveBeside serves the webhook while run runs. After ctx ends, the webhook goes on for as
// long as kube-apiserver may still send requests; run, and with it the leadership, does
// not wait for that.
func serveBeside(ctx context.Context, webhook *serving.Server, run func(context.Context) error) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- webhook.Run(ctx)
		stop()
	}()
	err := run(running)
	if ctx.Err() == nil {
		webhook.Close() // One that failed is started again at once.
	}
	return errors.Join(err, <-served)
}

// start runs mgr until it ends. While its caches cannot be filled, because the API server
// is down, it would not end with ctx: controller-runtime goes on waiting for them.
func start(ctx context.Context, mgr ctrl.Manager, log logr.Logger) error {
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		select {
		case err = <-ended:
		case <-time.After(stopTimeout):
			log.Info("Some components did not stop in time; exiting anyway", "after", stopTimeout.String())
		}
	}
	if err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

func managerOptions(scheme *runtime.Scheme, options *Options, lock resourcelock.Interface, watches *watch.Sources) ctrl.Options {
	services := cache.ByObject{Transform: cache.TransformStripManagedFields()}
	if options.MirrorNodes {
		services.Transform = nodemirror.KeepOwnEntries
	}
	servers := cache.ByObject{Transform: stripServer}
	if options.MirrorVMIs {
		servers.Transform = vmimirror.KeepMirrored(stripServer)
	}
	metrics := metricsserver.Options{BindAddress: options.MetricsBindAddress, SecureServing: options.MetricsSecure, TLSOpts: []func(*tls.Config){options.TLS.Apply}}
	if options.MetricsSecure {
		metrics.FilterProvider = metricsFilter
	}
	return ctrl.Options{
		Scheme:                              scheme,
		MapperProvider:                      staticMapper,
		Metrics:                             metrics,
		HealthProbeBindAddress:              options.HealthProbeBindAddress,
		PprofBindAddress:                    options.PprofBindAddress,
		LeaderElection:                      true,
		LeaderElectionResourceLockInterface: lock,
		LeaderElectionReleaseOnCancel:       true,
		LeaseDuration:                       ptr.To(leadership.LeaseDuration),
		RenewDeadline:                       ptr.To(leadership.RenewDeadline),
		RetryPeriod:                         ptr.To(leadership.RetryPeriod),
		// No periodic pass over everything: without an event nothing needs to change.
		Cache: cache.Options{
			SyncPeriod:  ptr.To(time.Duration(0)),
			NewInformer: watches.NewInformer,
			ByObject: map[client.Object]cache.ByObject{
				&v1alpha1.Server{}:          servers,
				&v1alpha1.ComputeService{}:  services,
				&agentv1alpha1.HostReport{}: {Transform: reports.Keep},

				&ownerv1alpha1.MaintenanceAnswer{}: {Transform: answers.Keep},
			},
		},
		// Tests run several managers in one process.
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	}
}

// metricsFilter serves /metrics only to clients with the right to read it, and limits how
// many are checked with kube-apiserver at a time: anybody can send a token, and each new
// one has to be checked.
func metricsFilter(config *rest.Config, client *http.Client) (metricsserver.Filter, error) {
	authorized, err := filters.WithAuthenticationAndAuthorization(config, client)
	if err != nil {
		return nil, err
	}
	return func(log logr.Logger, metrics http.Handler) (http.Handler, error) {
		handler, err := authorized(log, metrics)
		if err != nil {
			return nil, err
		}
		return serving.WithFairQueue(handler), nil
	}, nil
}

// takeover is what a new leader does before it reads or writes anything.
type takeover struct {
	watches *watch.Sources
	client  *leadership.Client
	owners  *answers.Answers
}

// Start implements manager.Runnable. Servers need not be as new as the leadership:
// writing one that is behind fails. The owners' answers follow later: nothing waits for
// them, and where their kind is not installed they never do.
func (t takeover) Start(ctx context.Context) error {
	if t.watches.Renew(ctx, &v1alpha1.ComputeService{}) != nil {
		return nil // The process ends.
	}
	t.client.MarkFresh()
	if t.watches.Renew(ctx, &ownerv1alpha1.MaintenanceAnswer{}) == nil {
		t.owners.MarkFresh()
	}
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (takeover) NeedLeaderElection() bool { return true }

// newLock is the lock by which this manager leads. Unlike client-go's it writes no Events,
// which would need another right and help nobody.
func newLock(restConfig *rest.Config, options *Options, identity string) (resourcelock.Interface, error) {
	restConfig = rest.CopyConfig(restConfig)
	restConfig.Timeout = leadership.RenewDeadline / 2
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("making the client for the leader's Lease: %w", err)
	}
	return leadership.NewLock(client.CoordinationV1(), v1alpha1.LeaderLeaseName, identity, clock.RealClock{}, options.leaderNamespaces()...), nil
}

func leaseClient(restConfig *rest.Config) (kubernetes.Interface, error) {
	restConfig = rest.CopyConfig(restConfig)
	restConfig.ContentType = runtime.ContentTypeProtobuf
	leases, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("making the client for Leases: %w", err)
	}
	return leases, nil
}
