// SPDX-License-Identifier: Apache-2.0

// Package webhook looks at what people write where that needs more than the object
// itself: other objects, or the heartbeats of a host. It warns, and refuses nothing
// but the deletion of a ComputeService that is protected from it.
//
// What to say is decided by functions of values; the validators around them only
// gather these.
package webhook

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"hoststatus.dev/hoststatus/internal/heartbeat"
)

// The paths at which the rules are served, as config/webhook has them.
const (
	pathComputeServices    = "/warn-computeservices"
	pathServers            = "/warn-servers"
	pathDeletionProtection = "/protect-computeservices"
)

// lookupTimeout is how long a validator may take to gather what it decides from: a
// writer waits for it.
const lookupTimeout = time.Second

// Monitor is the part of heartbeat.Monitor that the rules ask.
type Monitor interface {
	Synced() bool
	Verdict(name string, uid types.UID) (heartbeat.Verdict, bool)
	Renewals(lease types.NamespacedName) (interval, holds time.Duration)
}

// Options are what the rules need. All fields are required.
type Options struct {
	// Live reads from the API server.
	Cache, Live client.Reader
	// ServersOn returns how many Servers name a host.
	ServersOn func(host string) (int, error)
	Monitor   Monitor
	// LeaseNamespaces are those that the manager reads.
	LeaseNamespaces []string
	Scheme          *runtime.Scheme
}

// Registrar is the part of a webhook server that Register uses.
type Registrar interface {
	Register(path string, hook http.Handler)
}

// Register adds the rules to a server.
func Register(server Registrar, o Options) {
	server.Register(pathComputeServices, advisory(admission.WithValidator(o.Scheme, &computeServiceWarnings{o})))
	server.Register(pathServers, advisory(admission.WithValidator(o.Scheme, &serverWarnings{o})))
	server.Register(pathDeletionProtection, admission.WithValidator(o.Scheme, &deletionProtection{o.ServersOn, o.Live}))
}

// advisory makes a webhook that may warn and never refuses, whatever goes wrong in
// it: failurePolicy Ignore does not help against an answer that says no.
func advisory(inner *admission.Webhook) *admission.Webhook {
	return &admission.Webhook{Handler: admission.HandlerFunc(func(ctx context.Context, request admission.Request) admission.Response {
		response := inner.Handle(ctx, request)
		if response.Allowed {
			return response
		}
		message := ""
		if response.Result != nil {
			message = response.Result.Message
		}
		logf.FromContext(ctx).Info("Admission check failed; allowing the request", "because", message)
		return admission.Allowed("").WithWarnings(response.Warnings...)
	})}
}

// ago says how long ago something was, as a person would.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than 1 s ago"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	default:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
}
