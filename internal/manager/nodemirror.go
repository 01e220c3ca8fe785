// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"

	"hoststatus.dev/hoststatus/controllers/nodemirror"
)

// addNodeMirror adds the mirror of Nodes, which writes spec and not status.
func addNodeMirror(mgr ctrl.Manager, serversOn func(string) (int, error), options *Options) error {
	selector, err := labels.Parse(options.MirrorNodesSelector)
	if err != nil {
		return fmt.Errorf("reading --mirror-nodes-selector: %w", err)
	}
	if err := nodemirror.NewReconciler(mgr.GetClient(), selector, serversOn).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the controller of Nodes: %w", err)
	}
	return nil
}
