// SPDX-License-Identifier: Apache-2.0

// Package manager wires the controllers, the monitor of heartbeats and the
// probes into one process.
package manager

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/cli"
)

// Options are the flags of the manager.
type Options struct {
	// LeaseNamespaces are the namespaces whose Leases are heartbeats.
	LeaseNamespaces []string
	// DefaultLeaseDuration is D where neither ComputeService nor Lease gives one.
	DefaultLeaseDuration time.Duration
	// LeaderElectionNamespace is where the managers elect their leader.
	LeaderElectionNamespace string
	// FormerLeaderElectionNamespace is where managers of 0.1 elect theirs. A leader
	// holds the Lease there, too. Empty means that no such managers are left.
	FormerLeaderElectionNamespace string
	// MetricsBindAddress is where /metrics is served; "0" for nowhere.
	MetricsBindAddress string
	// MetricsSecure serves /metrics over TLS, and only to clients with the right to it.
	MetricsSecure bool
	// HealthProbeBindAddress is where /healthz and /readyz are; "0" for nowhere.
	HealthProbeBindAddress string
	// WebhookBindAddress is where the admission webhook is served; "0" for nowhere.
	WebhookBindAddress string
	// WebhookCertDir holds tls.crt and tls.key of the webhook. Empty means that the
	// manager makes its own certificate, shares it with its replicas, and writes the
	// caBundle.
	WebhookCertDir string
	// ShutdownDelay is how long the webhook is still served after the manager was asked
	// to stop.
	ShutdownDelay time.Duration
	// TLS are the TLS settings of the webhook and /metrics.
	TLS cli.TLSOptions
	// Namespace is the manager's own: where the Secret and the Service of its webhook
	// are.
	Namespace string
	// MirrorNodes keeps one ComputeService for each Node that MirrorNodesSelector
	// matches, a label selector; an empty one matches all.
	MirrorNodes         bool
	MirrorNodesSelector string
	// WriteNodeConditions sets the maintenance conditions of mirrored Nodes while a window of
	// their host is announced or open. The default is false.
	WriteNodeConditions bool
	// MirrorVMIs keeps one Server for each VirtualMachineInstance of KubeVirt that
	// MirrorVMIsSelector matches, a label selector; an empty one matches all.
	MirrorVMIs         bool
	MirrorVMIsSelector string
	// PprofBindAddress is where profiles are served, to anybody; "0" for nowhere.
	PprofBindAddress string
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
		DefaultLeaseDuration: time.Minute,
		// Not where hosts report: what delays their requests must not delay this.
		LeaderElectionNamespace:       "hoststatus-system",
		FormerLeaderElectionNamespace: v1alpha1.DefaultLeaseNamespace,
		MetricsBindAddress:            ":8443",
		MetricsSecure:                 true,
		HealthProbeBindAddress:        ":8081",
		WebhookBindAddress:            ":9443",
		// How long proxies may still send requests.
		ShutdownDelay:    5 * time.Second,
		Namespace:        "hoststatus-system",
		PprofBindAddress: "0",
	}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.LeaseNamespaces, "lease-namespaces", o.LeaseNamespaces, "Namespaces whose Leases are heartbeats. Add kube-node-lease to use kubelets as reporters. The manager writes a canary Lease in each.")
	fs.DurationVar(&o.DefaultLeaseDuration, "default-lease-duration", o.DefaultLeaseDuration, "How long a heartbeat is valid where neither the ComputeService nor the Lease sets it, in whole seconds from 3s to 1h.")
	fs.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", o.LeaderElectionNamespace, "Namespace of the Lease by which managers elect their leader.")
	fs.StringVar(&o.FormerLeaderElectionNamespace, "former-leader-election-namespace", o.FormerLeaderElectionNamespace, "Namespace in which managers of 0.1 elect their leader. The leader holds the Lease there as well, so that no two lead during an upgrade or a rollback. Set it to empty once no manager of 0.1 can come back.")
	fs.StringVar(&o.MetricsBindAddress, "metrics-bind-address", o.MetricsBindAddress, "Address on which /metrics is served; 0 turns this off.")
	fs.BoolVar(&o.MetricsSecure, "metrics-secure", o.MetricsSecure, "Serve /metrics over TLS, and only to users with the right to get the URL /metrics.")
	fs.StringVar(&o.HealthProbeBindAddress, "health-probe-bind-address", o.HealthProbeBindAddress, "Address on which /healthz and /readyz are served; 0 turns this off.")
	fs.StringVar(&o.WebhookBindAddress, "webhook-bind-address", o.WebhookBindAddress, "Address on which the admission webhook is served over TLS; 0 turns this off.")
	fs.StringVar(&o.WebhookCertDir, "webhook-cert-dir", o.WebhookCertDir, "Folder with "+certFile+" and "+keyFile+" of the webhook, for example of cert-manager. They are read again when they change, and the caBundle is left to whoever provides them. By default the manager makes its own certificate and fills in the caBundle.")
	fs.DurationVar(&o.ShutdownDelay, "shutdown-delay", o.ShutdownDelay, "How long the webhook is still served after SIGTERM, at most 1m. Another manager leads meanwhile.")
	o.TLS.AddFlags(fs, "the webhook and /metrics")
	fs.StringVar(&o.Namespace, "namespace", o.Namespace, "Namespace of the manager: where the Secret and the Service of its webhook are.")
	fs.BoolVar(&o.MirrorNodes, "mirror-nodes", o.MirrorNodes, "Keep one ComputeService per Node, with the kubelet as its reporter. Needs kube-node-lease among --lease-namespaces, and the rights of config/node-mirror.")
	fs.StringVar(&o.MirrorNodesSelector, "mirror-nodes-selector", o.MirrorNodesSelector, "Label selector of the Nodes that are mirrored, for example hypervisor=true; by default all are.")
	fs.BoolVar(&o.WriteNodeConditions, "write-node-conditions", o.WriteNodeConditions, "Set the condition MaintenancePlanned of a Node while a window is announced for its host, and MaintenanceInProgress while one is open. Needs --mirror-nodes, and the rights of config/node-conditions.")
	fs.BoolVar(&o.MirrorVMIs, "mirror-virtualmachineinstances", o.MirrorVMIs, "Keep one Server per VirtualMachineInstance of KubeVirt, in its namespace and with its name. Needs the rights of config/vmi-mirror.")
	fs.StringVar(&o.MirrorVMIsSelector, "mirror-virtualmachineinstances-selector", o.MirrorVMIsSelector, "Label selector of the VirtualMachineInstances that are mirrored, for example tier!=test; by default all are.")
	fs.StringVar(&o.PprofBindAddress, "pprof-bind-address", o.PprofBindAddress, "Address on which profiles are served under /debug/pprof/, without authentication: give a loopback address; 0 turns this off.")
}

// Validate returns everything that is wrong with the options.
func (o *Options) Validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, cli.ValidateNamespaces(cli.Flag("lease-namespaces"), o.LeaseNamespaces, "name at least one namespace whose Leases are heartbeats")...)
	errs = append(errs, cli.ValidateLeaseDuration(cli.Flag("default-lease-duration"), o.DefaultLeaseDuration)...)
	errs = append(errs, cli.ValidateNamespace(cli.Flag("leader-election-namespace"), o.LeaderElectionNamespace)...)
	if o.FormerLeaderElectionNamespace != "" {
		errs = append(errs, cli.ValidateNamespace(cli.Flag("former-leader-election-namespace"), o.FormerLeaderElectionNamespace)...)
	}
	errs = append(errs, cli.ValidateAddress(cli.Flag("metrics-bind-address"), o.MetricsBindAddress)...)
	errs = append(errs, cli.ValidateAddress(cli.Flag("health-probe-bind-address"), o.HealthProbeBindAddress)...)
	errs = append(errs, cli.ValidateAddress(cli.Flag("pprof-bind-address"), o.PprofBindAddress)...)
	errs = append(errs, o.validateMirrors()...)
	return append(errs, o.validateWebhook()...)
}

// leaderNamespaces are the namespaces of the leader's Leases: the former first, since a
// manager of 0.1 takes only that one.
func (o *Options) leaderNamespaces() []string {
	if former := o.FormerLeaderElectionNamespace; former != "" && former != o.LeaderElectionNamespace {
		return []string{former, o.LeaderElectionNamespace}
	}
	return []string{o.LeaderElectionNamespace}
}

func (o *Options) validateMirrors() (errs field.ErrorList) {
	if o.MirrorNodes && !slices.Contains(o.LeaseNamespaces, corev1.NamespaceNodeLease) {
		errs = append(errs, field.Invalid(cli.Flag("mirror-nodes"), o.MirrorNodes, "kubelets renew their Leases in "+corev1.NamespaceNodeLease+
			", which is not among --lease-namespaces; add it there, and apply config/node-mirror for the rights"))
	}
	if o.WriteNodeConditions && !o.MirrorNodes {
		errs = append(errs, field.Invalid(cli.Flag("write-node-conditions"), o.WriteNodeConditions, "has no effect without --mirror-nodes; add that, or leave this out"))
	}
	errs = append(errs, validateSelector("mirror-nodes", o.MirrorNodes, o.MirrorNodesSelector, "hypervisor=true")...)
	return append(errs, validateSelector("mirror-virtualmachineinstances", o.MirrorVMIs, o.MirrorVMIsSelector, "tier!=test")...)
}

// validateSelector checks the selector of the mirror that a flag switches on.
func validateSelector(mirror string, on bool, selector, example string) (errs field.ErrorList) {
	flag := cli.Flag(mirror + "-selector")
	if !on && selector != "" {
		errs = append(errs, field.Invalid(flag, selector, "has no effect without --"+mirror+"; add that, or leave this out"))
	}
	if _, err := labels.Parse(selector); err != nil {
		errs = append(errs, field.Invalid(flag, selector, "must be a label selector as kubectl's -l takes it, for example "+example+": "+err.Error()))
	}
	return errs
}

func (o *Options) validateWebhook() field.ErrorList {
	errs := cli.ValidateNamespace(cli.Flag("namespace"), o.Namespace)
	errs = append(errs, cli.ValidateKnownAddress(cli.Flag("webhook-bind-address"), o.WebhookBindAddress)...)
	errs = append(errs, cli.ValidateShutdownDelay(cli.Flag("shutdown-delay"), o.ShutdownDelay)...)
	errs = append(errs, o.TLS.Validate()...)
	if o.WebhookCertDir == "" {
		return errs
	}
	flag := cli.Flag("webhook-cert-dir")
	if o.WebhookBindAddress == "0" {
		errs = append(errs, field.Invalid(flag, o.WebhookCertDir, "has no effect because --webhook-bind-address=0 turns the webhook off; leave one of them out"))
	}
	for _, name := range []string{certFile, keyFile} {
		if _, err := os.Stat(filepath.Join(o.WebhookCertDir, name)); err != nil {
			errs = append(errs, field.Invalid(flag, o.WebhookCertDir, "must hold "+name+": "+err.Error()))
		}
	}
	return errs
}
