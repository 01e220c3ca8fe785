// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// installedRetry is how long to wait before it is tried again whether
// VirtualMachineInstances can be listed: KubeVirt takes minutes to install.
const installedRetry = 5 * time.Second

// whenInstalled is a source of VirtualMachineInstances that begins once they can be listed.
// An informer would try twice a second, for ever where there is no KubeVirt, and its log
// would not state what to do.
type whenInstalled struct {
	source.TypedSyncingSource[reconcile.Request]
	reader client.Reader
	pause  time.Duration
	// begun is set once the source below was started.
	begun bool
}

// Start implements source.Source. It returns once the source below has been started, or
// ctx ends, which is no error: a manager that is stopped before there is KubeVirt has not
// failed. The controller waits for it, and nobody else does.
func (s *whenInstalled) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	if !s.wait(ctx) {
		return nil
	}
	s.begun = true
	return s.TypedSyncingSource.Start(ctx, queue)
}

// WaitForSync implements source.TypedSyncingSource. It is called after Start.
func (s *whenInstalled) WaitForSync(ctx context.Context) error {
	if !s.begun {
		return nil
	}
	return s.TypedSyncingSource.WaitForSync(ctx)
}

// String names the source in the log.
func (s *whenInstalled) String() string { return "VirtualMachineInstances" }

// wait returns true once they can be listed, and false if ctx ends before that. It logs
// what is missing, once for each thing, and not at the first try: for a moment after its
// start, kube-apiserver knows neither roles nor CustomResourceDefinitions.
func (s *whenInstalled) wait(ctx context.Context) bool {
	logger := log.FromContext(ctx)
	before, logged := "", ""
	for {
		err := s.reader.List(ctx, &VirtualMachineInstanceList{}, client.Limit(1))
		if err == nil {
			if logged != "" {
				logger.Info("VirtualMachineInstances can be listed now, and are mirrored")
			}
			return true
		}
		missing := s.remedy(err)
		if missing == before && missing != logged {
			logger.Info("VirtualMachineInstances are not mirrored yet, everything else works: " + missing)
			logged = missing
		}
		before = missing
		select {
		case <-ctx.Done():
			return false
		case <-time.After(s.pause):
		}
	}
}

// remedy states what to do about an error.
func (s *whenInstalled) remedy(err error) string {
	switch {
	case apierrors.IsNotFound(err):
		return "the cluster has no CustomResourceDefinition virtualmachineinstances.kubevirt.io with version " + GroupVersion.Version + ". Install KubeVirt, or start the manager without --mirror-virtualmachineinstances; it is tried again every " + s.pause.String()
	case apierrors.IsForbidden(err):
		return "the manager has no right to list them. Apply config/vmi-mirror, or set vmiMirror.enabled in the chart; it is tried again every " + s.pause.String()
	default:
		return "listing them fails, and is tried again every " + s.pause.String() + ": " + err.Error()
	}
}
