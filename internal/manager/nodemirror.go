// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/controllers/nodeconditions"
	"hoststatus.dev/hoststatus/controllers/nodemirror"
	"hoststatus.dev/hoststatus/internal/watch"
)

// addNodeMirror adds the mirror of Nodes, which writes spec and not status, with a
// cache of Nodes, and what writes conditions of Nodes, if it is wanted.
func addNodeMirror(mgr ctrl.Manager, options *Options, watches *watch.Sources, serversOn func(string) (int, error), leads func() bool) error {
	selector, err := labels.Parse(options.MirrorNodesSelector)
	if err != nil {
		return fmt.Errorf("reading --mirror-nodes-selector: %w", err)
	}
	nodes, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient:  mgr.GetHTTPClient(),
		Scheme:      mgr.GetScheme(),
		Mapper:      mgr.GetRESTMapper(),
		SyncPeriod:  ptr.To(time.Duration(0)),
		NewInformer: watches.NewInformer,
		ByObject:    map[client.Object]cache.ByObject{&corev1.Node{}: {Transform: nodemirror.StripNode}},
	})
	if err != nil {
		return fmt.Errorf("making the cache of Nodes: %w", err)
	}
	if err := mgr.Add(nodes); err != nil {
		return fmt.Errorf("adding the cache of Nodes: %w", err)
	}
	if err := nodemirror.NewReconciler(mgr.GetClient(), nodes, selector, serversOn, leads).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the controller of Nodes: %w", err)
	}
	if !options.WriteNodeConditions {
		return nil
	}
	if err := nodeconditions.NewReconciler(mgr.GetClient(), nodes, leads).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the controller of Nodes' conditions: %w", err)
	}
	return nil
}
