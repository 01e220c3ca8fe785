// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/watch"
)

const (
	resourceServers         = "servers"
	resourceComputeServices = "computeservices"
)

// upstream reads the custom resources.
type upstream struct {
	// feed reads for the feed, which tries again by itself, and objects for callers.
	feed       rest.Interface
	objects    rest.Interface
	parameters runtime.ParameterCodec
	metadata   metadata.Interface
	log        logr.Logger
}

func newUpstream(config *rest.Config, log logr.Logger) (*upstream, error) {
	scheme, err := computeScheme()
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	// Between servers of one cluster compression costs more time than it saves.
	config.DisableCompression = true
	forCallers := rest.CopyConfig(config)
	forCallers.Wrap(forReads)
	u := &upstream{parameters: runtime.NewParameterCodec(scheme), log: log}
	if u.metadata, err = metadata.NewForConfig(forCallers); err != nil {
		return nil, fmt.Errorf("making the client for metadata: %w", err)
	}
	for _, client := range []struct {
		config *rest.Config
		out    *rest.Interface
	}{{config, &u.feed}, {forCallers, &u.objects}} {
		client.config.APIPath = "/apis"
		client.config.GroupVersion = &computev1alpha1.SchemeGroupVersion
		client.config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
		client.config.ContentType = runtime.ContentTypeJSON
		if *client.out, err = rest.RESTClientFor(client.config); err != nil {
			return nil, fmt.Errorf("making the client for servers: %w", err)
		}
	}
	return u, nil
}

// get reads one server.
func (u *upstream) get(ctx context.Context, namespace, name, resourceVersion string) (*computev1alpha1.Server, error) {
	server := &computev1alpha1.Server{}
	request := u.objects.Get().Namespace(namespace).Resource(resourceServers).Name(name)
	if resourceVersion != "" {
		request = request.Param("resourceVersion", resourceVersion)
	}
	if err := request.Do(ctx).Into(server); err != nil {
		return nil, u.explain(err, "reading a server", name)
	}
	return server, nil
}

// list returns names and resourceVersions.
func (u *upstream) list(ctx context.Context, namespace string, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	list, err := u.metadata.Resource(computev1alpha1.SchemeGroupVersion.WithResource(resourceServers)).Namespace(namespace).List(ctx, options)
	if err != nil {
		return nil, u.explain(err, "listing servers", "")
	}
	return list, nil
}

// listWhole reads the servers with all that is in them.
func (u *upstream) listWhole(ctx context.Context, namespace string, options metav1.ListOptions) (*computev1alpha1.ServerList, error) {
	list := &computev1alpha1.ServerList{}
	err := u.objects.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resourceServers).
		VersionedParams(&options, u.parameters).Do(ctx).Into(list)
	if err != nil {
		return nil, u.explain(err, "listing servers", "")
	}
	return list, nil
}

// watch keeps f up to date with the servers until ctx ends.
func (u *upstream) watch(ctx context.Context, f *feed) {
	u.reflect(ctx, resourceServers, "Server", &computev1alpha1.Server{}, f)
}

// watchHosts keeps f up to date with the ComputeServices until ctx ends.
func (u *upstream) watchHosts(ctx context.Context, f *feed) {
	u.reflect(ctx, resourceComputeServices, "ComputeService", &computev1alpha1.ComputeService{}, hostStore{f})
}

func (u *upstream) reflect(ctx context.Context, resource, kind string, expected runtime.Object, store cache.ReflectorStore) {
	source := watch.New(cache.NewListWatchFromClient(u.feed, resource, metav1.NamespaceAll, fields.Everything())).Of(kind)
	reflector := cache.NewReflectorWithOptions(source.ListWatch(), expected, store, cache.ReflectorOptions{
		Logger:  &u.log,
		Name:    resource,
		Backoff: watch.Backoff(),
	})
	reflector.RunWithContext(klog.NewContext(ctx, withoutRepetition(u.log, clock.RealClock{})))
}

// explain turns an error of the custom resources into one of this API. What the caller
// can act on is passed on; the rest goes to the log, because it may reveal what is behind
// this server.
func (u *upstream) explain(err error, action, name string) error {
	resource := v1alpha1.SchemeGroupVersion.WithResource(resourceServers).GroupResource()
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewTimeoutError("the servers could not be read in time; try again", 1)
	case errors.As(err, &status):
		s := status.Status()
		switch s.Code {
		case http.StatusNotFound:
			if name == "" {
				break // The custom resources are not installed.
			}
			return apierrors.NewNotFound(resource, name)
		case http.StatusGone, http.StatusBadRequest:
			return &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: s.Code, Reason: s.Reason, Message: s.Message,
				// A list that expired can be continued from here, inconsistently.
				ListMeta: metav1.ListMeta{Continue: s.Continue},
			}}
		case http.StatusGatewayTimeout:
			if apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
				return tooNew()
			}
		case http.StatusTooManyRequests:
			return apierrors.NewTooManyRequests("the servers cannot be read just now; try again", 1)
		}
	}
	u.log.Error(err, "Reading custom resources failed", "action", action)
	return apierrors.NewServiceUnavailable("the servers cannot be read now; the log of the tenant API server says why")
}
