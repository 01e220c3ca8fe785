// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
)

// namespaceFile has the namespace of a pod's service account.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Run tells sinks what becomes of the hosts of servers, until ctx ends.
func Run(ctx context.Context, restConfig *rest.Config, options *Options, log logr.Logger) error {
	if errs := options.Validate(); len(errs) > 0 {
		return errs.ToAggregate()
	}
	own, err := os.ReadFile(namespaceFile)
	if err != nil {
		own = nil // It does not run in a pod.
	}
	load := func() (*Config, error) { return LoadConfig(options.ConfigFile, strings.TrimSpace(string(own))) }
	config, err := load()
	if err != nil {
		return err
	}
	restConfig = rest.CopyConfig(restConfig)
	restConfig.QPS = -1 // It asks a few questions a second at most; kube-apiserver has its own limits.
	w, err := newWatching(restConfig)
	if err != nil {
		return err
	}
	n, err := newNotifier(config, restConfig.UserAgent, clock.RealClock{}, log)
	if err != nil {
		return fmt.Errorf("the configuration %s: %w", options.ConfigFile, err)
	}
	defer scraped.Provide(n.collect)()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running, runs := errgroup.WithContext(ctx)
	if err := n.serve(runs, running, restConfig, options, registry(config)); err != nil {
		return err
	}
	running.Go(func() error {
		defer stop()
		untilChanged(runs, config, load, clock.RealClock{}, log)
		return nil
	})
	running.Go(func() error { return n.run(runs, w.run, w.grants) })
	return running.Wait()
}

// configInterval is how often the configuration is looked at. It takes kubelets up to a minute
// to show a change of a ConfigMap.
const configInterval = 10 * time.Second

// untilChanged returns when there is another configuration, so that the process ends and is
// started with that one, or when ctx ends. One that is wrong is logged once.
func untilChanged(ctx context.Context, current *Config, load func() (*Config, error), c clock.WithTicker, log logr.Logger) {
	ticker := c.NewTicker(configInterval)
	defer ticker.Stop()
	problem := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		found, err := load()
		switch {
		case err == nil && reflect.DeepEqual(found, current):
			problem = ""
		case err == nil:
			log.Info("The configuration has changed; ending, to be started with the new one")
			return
		case err.Error() != problem:
			problem = err.Error()
			log.Error(err, "The configuration has changed and is wrong; going on with the one before")
		}
	}
}

func newWatching(config *rest.Config) (*watching, error) {
	scheme := runtime.NewScheme()
	if err := tenantv1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("making the client: %w", err)
	}
	c, err := ctrlclient.NewWithWatch(config, ctrlclient.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making the client: %w", err)
	}
	grants, err := authorizationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the client: %w", err)
	}
	return &watching{client: c, grants: reviews{grants}}, nil
}
