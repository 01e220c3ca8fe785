// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/controllers/vmimirror"
	"hoststatus.dev/hoststatus/internal/leadership"
	"hoststatus.dev/hoststatus/internal/watch"
)

// addVMIMirror adds the mirror of KubeVirt's VirtualMachineInstances, with a cache of them.
func addVMIMirror(mgr ctrl.Manager, options *Options, watches *watch.Sources, writer *leadership.Client, leads func() bool) error {
	selector, err := labels.Parse(options.MirrorVMIsSelector)
	if err != nil {
		return fmt.Errorf("reading --mirror-virtualmachineinstances-selector: %w", err)
	}
	vmis, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient:  mgr.GetHTTPClient(),
		Scheme:      mgr.GetScheme(),
		Mapper:      mgr.GetRESTMapper(),
		SyncPeriod:  ptr.To(time.Duration(0)),
		NewInformer: watches.NewInformer,
		ByObject:    map[client.Object]cache.ByObject{&vmimirror.VirtualMachineInstance{}: {Transform: vmimirror.StripVMI(selector)}},
	})
	if err != nil {
		return fmt.Errorf("making the cache of VirtualMachineInstances: %w", err)
	}
	if err := mgr.Add(vmis); err != nil {
		return fmt.Errorf("adding the cache of VirtualMachineInstances: %w", err)
	}
	if err := vmimirror.NewReconciler(writer, mgr.GetAPIReader(), vmis, selector, leads).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up the controller of VirtualMachineInstances: %w", err)
	}
	return nil
}
