// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// checkPause is how long check waits before it looks again: the leader renews its
	// canaries every 0.3 to 2 s.
	checkPause = 500 * time.Millisecond
	// checkRequest is how long one answer may take, so that a lost request is repeated.
	checkRequest = 10 * time.Second
	// defaultNamespace is kubectl's, if neither flag nor kubeconfig names one.
	defaultNamespace = "default"
)

// ok is what check prints for a check that passes.
const ok = "ok"

type checkOptions struct {
	leaseNamespaces []string
	tenantAPI       bool
	timeout         time.Duration
}

func (p *plugin) newCheck() *cobra.Command {
	o := &checkOptions{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that a manager is at work and that the owners' view answers",
		Long: `Check that hoststatus works in this cluster: the custom resources can be listed, a
manager renews its canary (a Lease) in each lease namespace, and the owners' view lists
the servers in --namespace. Until all of that works the checks are repeated, for
--timeout at most.`,
		Example: `  kubectl hosts check
  kubectl hosts check -n team-a --lease-namespaces hoststatus-leases,kube-node-lease`,
		Args: kubectlplugin.Args(cobra.NoArgs, "check takes no arguments; --namespace chooses the namespace"),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.check(cmd.Context(), o) },
	}
	cmd.Flags().StringSliceVar(&o.leaseNamespaces, "lease-namespaces", []string{v1alpha1.DefaultLeaseNamespace}, "The lease namespaces of the manager, as in its flag --lease-namespaces.")
	cmd.Flags().BoolVar(&o.tenantAPI, "tenant-api", true, "Also check the owners' view (the tenant API).")
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "How long to retry until everything works, at most 10m; 0s checks once, and watches the canaries for 5s.")
	return cmd
}

func (o *checkOptions) validate() error {
	if o.timeout < 0 || o.timeout > 10*time.Minute {
		return kubectlplugin.UsageError("--timeout: %s is out of range; use 0s to 10m", o.timeout)
	}
	if len(o.leaseNamespaces) == 0 {
		return kubectlplugin.UsageError("--lease-namespaces: it is empty; give the lease namespaces of the manager, for example %s", v1alpha1.DefaultLeaseNamespace)
	}
	return nil
}

func (p *plugin) check(ctx context.Context, o *checkOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	namespace, _, err := p.Config.ToRawKubeConfigLoader().Namespace()
	if err != nil || namespace == "" {
		namespace = defaultNamespace
	}
	k := &check{cluster: c, options: o, namespace: namespace, first: map[string]time.Time{}}
	// A renewal takes some time in any case.
	limited, cancel := context.WithTimeout(ctx, max(o.timeout, 5*time.Second))
	defer cancel()
	findings := k.until(limited)
	if ctx.Err() != nil {
		return kubectlplugin.Interrupted(c.where)
	}
	rows := make([][]kubectlplugin.Cell, len(findings))
	failed := 0
	for i, f := range findings {
		answer := ok
		if f.err != nil {
			answer = f.err.Error()
			failed++
		}
		rows[i] = []kubectlplugin.Cell{kubectlplugin.Plain(f.what), kubectlplugin.Plain(answer)}
	}
	(&kubectlplugin.Table{Rows: rows}).Write(p.Out, false)
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(findings))
	}
	return nil
}

// check finds out whether hoststatus works.
type check struct {
	*cluster
	options   *checkOptions
	namespace string
	// first is the renewal of each canary that was read first. If there is another
	// renewal, a manager is at work, whether or not the clocks agree.
	first map[string]time.Time
}

type finding struct {
	what string
	err  error
}

// until repeats the checks until everything works or ctx ends, and returns the last findings.
func (k *check) until(ctx context.Context) []finding {
	for {
		findings := k.look(ctx)
		if !slices.ContainsFunc(findings, func(f finding) bool { return f.err != nil }) {
			return findings
		}
		select {
		case <-ctx.Done():
			return findings
		case <-time.After(checkPause):
		}
		// The error of an interrupted request would hide the last finding.
		if ctx.Err() != nil {
			return findings
		}
	}
}

// look makes each check once. Requests go on when the time is up, and end with Ctrl-C.
func (k *check) look(until context.Context) (findings []finding) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(until), checkRequest)
	defer cancel()
	defer context.AfterFunc(until, func() {
		if errors.Is(until.Err(), context.Canceled) {
			cancel()
		}
	})()
	err := k.List(ctx, &v1alpha1.ComputeServiceList{}, client.Limit(1))
	findings = append(findings, finding{"custom resources", k.explain(err, "list", "computeservices", "")})
	namespaces := kubectlplugin.Unique(k.options.leaseNamespaces)
	reads := k.readCanaries(ctx, namespaces)
	for _, namespace := range namespaces {
		findings = append(findings, finding{"manager, by its canary in " + namespace, k.canary(namespace, reads[namespace])})
	}
	if k.options.tenantAPI {
		findings = append(findings, finding{"owners' view", k.ownersView(ctx)})
	}
	return findings
}

func (k *check) canary(namespace string, read canaryRead) error {
	if read.err != nil {
		return read.err
	}
	renewed := read.renewed()
	first, seen := k.first[namespace]
	if !seen {
		k.first[namespace], first = renewed, renewed
	}
	const hint = "no manager leads, or it reads other --lease-namespaces"
	switch {
	case renewed.IsZero():
		return errors.New("does not exist: " + hint)
	case renewed.Equal(first):
		return fmt.Errorf("was last renewed %s ago: %s", kubectlplugin.Human(k.now().Sub(renewed)), hint)
	default:
		return nil
	}
}

// ownersView lists servers as an owner does.
func (k *check) ownersView(ctx context.Context) error {
	servers := &unstructured.UnstructuredList{}
	servers.SetGroupVersionKind(tenantv1alpha1.SchemeGroupVersion.WithKind("ServerList"))
	err := k.List(ctx, servers, client.InNamespace(k.namespace), client.Limit(1))
	switch {
	case err == nil:
		return nil
	case kubectlplugin.IsForbiddenByRBAC(err, "list", "servers"):
		return fmt.Errorf("you lack the right to list servers.%s in namespace %s; ask for the ClusterRole hoststatus-server-viewer or view", tenantv1alpha1.SchemeGroupVersion.Group, k.namespace)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("is not served: there is no APIService v1alpha1.%s", tenantv1alpha1.SchemeGroupVersion.Group)
	default:
		return errors.New(strings.TrimSpace(err.Error()))
	}
}
