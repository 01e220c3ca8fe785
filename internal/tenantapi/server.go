// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/healthz"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/internal/servingcert"
	"hoststatus.dev/hoststatus/internal/tenantapi/openapi"
)

// retryInterval is how often the server tries again, at its start, to reach what it
// cannot serve without.
const retryInterval = time.Second

// Run serves until ctx ends.
func Run(ctx context.Context, config *restclient.Config, options *Options, log logr.Logger) error {
	if errs := options.Validate(); len(errs) > 0 {
		return errs.ToAggregate()
	}
	config = restclient.CopyConfig(config)
	// The API server's priority and fairness is the limit: a list of a thousand
	// namespaces asks for a thousand grants, and must not wait here.
	config.QPS = -1
	client, err := builtinClient(config)
	if err != nil {
		return err
	}
	reviews, err := reviewClient(config)
	if err != nil {
		return err
	}
	up, err := newUpstream(config, log.WithName("upstream"))
	if err != nil {
		return err
	}
	certificate, key, err := sharedIdentity(ctx, config, client, options, log)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	p := &projector{hostIDKey: key, labelPrefixes: sets.New(options.VisibleLabelPrefixes...)}
	s := &storage{
		upstream:       up,
		feed:           newFeed(p, clock.RealClock{}, log.WithName("feed")),
		canaries:       newCanaries(options.LeaseNamespaces, clock.RealClock{}),
		tokens:         newTokens(key),
		shared:         newSharing(clock.RealClock{}),
		gather:         gatherInterval,
		clock:          clock.RealClock{},
		log:            log.WithName("servers"),
		tableConvertor: tableConvertor{clock.RealClock{}},
	}
	server, err := newServer(options, client, reviews, s, certificate.provider)
	if err != nil {
		return err
	}

	// What answers need runs on after ctx has ended, until the last answer is sent.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { up.watch(background, s.feed) })
	running.Go(func() { up.watchHosts(background, s.feed) })
	running.Go(func() { s.keepQuiet(background) })
	defer scraped.Provide(s.collect)()
	running.Go(func() { s.canaries.watch(background, client, log.WithName("canary")) })
	if certificate.own != nil {
		running.Go(func() { certificate.own.Run(background) })
	}
	log.Info("Starting", "address", options.BindAddress.String(), "port", options.SecurePort)
	if err := server.PrepareRun().RunWithContext(ctx); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// reviewClient makes the client that asks who callers are and what they may do. Callers
// wait for the answers, so only reviewBackoff sets how often it asks.
func reviewClient(config *restclient.Config) (kubernetes.Interface, error) {
	config = restclient.CopyConfig(config)
	config.Wrap(forReviews)
	return builtinClient(config)
}

// builtinClient makes the client for all built-in kinds.
func builtinClient(config *restclient.Config) (kubernetes.Interface, error) {
	config = restclient.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.DisableCompression = true
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the client: %w", err)
	}
	return client, nil
}

// certificate is what the server shows to its clients. own is nil if somebody else
// maintains it.
type certificate struct {
	provider dynamiccertificates.CertKeyContentProvider
	own      *servingcert.Cert
}

// sharedIdentity finds, or makes, what the replicas share: the certificate and the key of
// the host ids. The server can start before the API server and before it is
// registered, so it tries until it works.
func sharedIdentity(ctx context.Context, config *restclient.Config, client kubernetes.Interface, options *Options, log logr.Logger) (c certificate, key []byte, err error) {
	try := func(what string, do func(context.Context) error) error {
		var last error
		err := wait.PollUntilContextCancel(ctx, retryInterval, true, func(ctx context.Context) (bool, error) {
			err := do(ctx)
			if err != nil && (last == nil || last.Error() != err.Error()) {
				log.Error(err, "Cannot start yet; retrying", "what", what)
			}
			last = err
			return err == nil, nil
		})
		if err != nil {
			return errors.Join(err, last)
		}
		return nil
	}
	if options.CertDir != "" {
		c.provider, err = dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert",
			filepath.Join(options.CertDir, certFile), filepath.Join(options.CertDir, keyFile))
		if err != nil {
			return c, nil, fmt.Errorf("--cert-dir: %w", err)
		}
	} else {
		objects, err := dynamic.NewForConfig(config)
		if err != nil {
			return c, nil, fmt.Errorf("making the client for the APIService: %w", err)
		}
		c.own = newOwnCert(client, objects, options, log.WithName("certificate"))
		c.provider = ownCert{c.own}
		if err := try("serving certificate", c.own.Ensure); err != nil {
			return c, nil, err
		}
	}
	err = try("key of the host ids", func(ctx context.Context) (err error) {
		key, err = ensureHostIDKey(ctx, client, options.Namespace)
		return err
	})
	return c, key, err
}

// newServer makes the generic API server: no etcd, no admission, and no priority and
// fairness, because every request came through kube-apiserver's already.
func newServer(options *Options, client, reviews kubernetes.Interface, s *storage, cert dynamiccertificates.CertKeyContentProvider) (*genericapiserver.GenericAPIServer, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme)
	config := genericapiserver.NewConfig(codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	config.EnableProfiling = false
	s.limits = newLimits(seatsPerCPU*goruntime.GOMAXPROCS(0), codecs)
	config.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return newConnections(clock.RealClock{}).handler(boundedSelectors(genericapiserver.DefaultBuildHandlerChain(s.limits.handler(api), c), codecs))
	}
	config.ShutdownDelayDuration = options.ShutdownDelay
	describe(config, scheme)

	serving := genericoptions.NewSecureServingOptions()
	serving.BindAddress, serving.BindPort = options.BindAddress, options.SecurePort
	serving.ServerCert.GeneratedCert = cert
	serving.Required = true
	serving.MinTLSVersion, serving.CipherSuites = options.TLS.MinVersion, options.TLS.CipherSuites
	if err := serving.WithLoopback().ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return nil, fmt.Errorf("--bind-address, --secure-port: %w", err)
	}
	if external, err := serving.DefaultExternalAddress(); err == nil {
		config.PublicAddress = external
	} else {
		config.PublicAddress = options.BindAddress
	}
	if err := options.Audit.ApplyTo(config); err != nil {
		return nil, fmt.Errorf("--audit-*: %w", err)
	}
	if err := authentication(config, client, reviews); err != nil {
		return nil, err
	}
	asked, err := authorization(config, reviews.AuthorizationV1())
	if err != nil {
		return nil, err
	}
	s.grants = newGrants(asked, clock.RealClock{})
	config.AddReadyzChecks(
		readyWhen("servers", s.feed.hasSynced, "the servers have not been listed yet"),
		readyWhen("canary", s.canaries.hasSynced, "the manager's canary has not been looked for yet"))

	server, err := config.Complete(nil).New("tenant-apiserver", genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("making the server: %w", err)
	}
	group := genericapiserver.NewDefaultAPIGroupInfo(v1alpha1.SchemeGroupVersion.Group, scheme, runtime.NewParameterCodec(scheme), codecs)
	group.NegotiatedSerializer = textSerializer{serializer.NewCodecFactory(scheme, serializer.WithStreamingCollectionEncodingToJSON())}
	group.VersionedResourcesStorageMap[v1alpha1.SchemeGroupVersion.Version] = map[string]rest.Storage{
		resourceServers: s,
		resourceServers + "/" + v1alpha1.SubresourceStatus: statusStorage{s},
	}
	if err := server.InstallAPIGroup(&group); err != nil {
		return nil, fmt.Errorf("installing the API: %w", err)
	}
	return server, nil
}

// describe gives the server its OpenAPI.
func describe(config *genericapiserver.Config, scheme *runtime.Scheme) {
	namer := apiopenapi.NewDefinitionNamer(scheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIConfig.Info.Title, config.OpenAPIV3Config.Info.Title = "hoststatus", "hoststatus"
	config.OpenAPIConfig.Info.Version, config.OpenAPIV3Config.Info.Version = v1alpha1.SchemeGroupVersion.Version, v1alpha1.SchemeGroupVersion.Version
}

func readyWhen(name string, ready func() bool, reason string) healthz.HealthChecker {
	return healthz.NamedCheck(name, func(*http.Request) error {
		if !ready() {
			return errors.New(reason)
		}
		return nil
	})
}
