// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/path"
	"k8s.io/apiserver/pkg/authorization/union"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/healthz"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
	authorizationv1client "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

const (
	// authConfigMap is where kube-apiserver publishes the authorities of its own and of its
	// users' certificates.
	authConfigMapNamespace = "kube-system"
	authConfigMap          = "extension-apiserver-authentication"
	// tokenTTL is how long the result of a token review is remembered, as everywhere in
	// Kubernetes.
	tokenTTL = 10 * time.Second
)

// probePaths are open to anyone: a kubelet has no credentials.
var probePaths = []string{"/healthz", "/livez", "/readyz"}

// reviewBackoff is how a review that failed is repeated: for about a second, because a
// user waits for it.
func reviewBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 4}
}

// authentication identifies users by the front proxy's headers, their certificate or
// their token. The headers are kube-apiserver's, on requests that come through it.
func authentication(config *genericapiserver.Config, client, reviews kubernetes.Interface) error {
	clientCA, err := dynamiccertificates.NewDynamicCAFromConfigMapController("client-ca", authConfigMapNamespace, authConfigMap, "client-ca-file", client)
	if err != nil {
		return fmt.Errorf("following the authority of the users' certificates: %w", err)
	}
	frontProxyCA, err := dynamiccertificates.NewDynamicCAFromConfigMapController("front-proxy-ca", authConfigMapNamespace, authConfigMap, "requestheader-client-ca-file", client)
	if err != nil {
		return fmt.Errorf("following the front proxy's authority: %w", err)
	}
	// One controller of both parts, which the generic server starts.
	frontProxy := &genericoptions.DynamicRequestHeaderController{
		ConfigMapCAController: frontProxyCA,
		RequestHeaderAuthRequestController: headerrequest.NewRequestHeaderAuthRequestController(authConfigMap, authConfigMapNamespace, client,
			"requestheader-username-headers", "requestheader-uid-headers", "requestheader-group-headers",
			"requestheader-extra-headers-prefix", "requestheader-allowed-names"),
	}
	requestHeader := &authenticatorfactory.RequestHeaderConfig{
		CAContentProvider:   frontProxy,
		UsernameHeaders:     headerrequest.StringSliceProvider(headerrequest.StringSliceProviderFunc(frontProxy.UsernameHeaders)),
		UIDHeaders:          headerrequest.StringSliceProvider(headerrequest.StringSliceProviderFunc(frontProxy.UIDHeaders)),
		GroupHeaders:        headerrequest.StringSliceProvider(headerrequest.StringSliceProviderFunc(frontProxy.GroupHeaders)),
		ExtraHeaderPrefixes: headerrequest.StringSliceProvider(headerrequest.StringSliceProviderFunc(frontProxy.ExtraHeaderPrefixes)),
		AllowedClientNames:  headerrequest.StringSliceProvider(headerrequest.StringSliceProviderFunc(frontProxy.AllowedClientNames)),
	}
	for _, ca := range []dynamiccertificates.CAContentProvider{clientCA, frontProxy} {
		if err := config.Authentication.ApplyClientCert(ca, config.SecureServing); err != nil {
			return fmt.Errorf("asking clients for certificates: %w", err)
		}
	}
	anonymous := &apiserver.AnonymousAuthConfig{Enabled: true}
	for _, probe := range probePaths {
		anonymous.Conditions = append(anonymous.Conditions, apiserver.AnonymousAuthCondition{Path: probe})
	}
	authenticator, definitions, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous:                          anonymous,
		TokenAccessReviewClient:            reviews.AuthenticationV1(),
		TokenAccessReviewTimeout:           authorizationTimeout,
		WebhookRetryBackoff:                reviewBackoff(),
		CacheTTL:                           tokenTTL,
		ClientCertificateCAContentProvider: clientCA,
		RequestHeaderConfig:                requestHeader,
	}.New()
	if err != nil {
		return fmt.Errorf("making the authenticator: %w", err)
	}
	config.Authentication.Authenticator = authenticator
	config.Authentication.RequestHeaderConfig = requestHeader
	if config.OpenAPIConfig != nil {
		config.OpenAPIConfig.SecurityDefinitions = definitions
	}
	config.AddReadyzChecks(healthz.NamedCheck("front-proxy-ca", func(*http.Request) error {
		if _, ok := frontProxyCA.VerifyOptions(); !ok || len(frontProxy.UsernameHeaders()) == 0 {
			return errors.New("the front proxy's authority is not known yet")
		}
		return nil
	}))
	return nil
}

// authorization asks the API server. What the generic server asks is remembered for
// verdictTTL; questions about grants are not, because grants remembers the answers.
func authorization(config *genericapiserver.Config, reviews authorizationv1client.AuthorizationV1Interface) (authorizer.Authorizer, error) {
	probes, err := path.NewAuthorizer(probePaths)
	if err != nil {
		return nil, fmt.Errorf("opening the probes: %w", err)
	}
	remembered, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: reviews,
		AllowCacheTTL:             verdictTTL,
		DenyCacheTTL:              verdictTTL,
		WebhookRetryBackoff:       reviewBackoff(),
	}.New()
	if err != nil {
		return nil, fmt.Errorf("making the authorizer: %w", err)
	}
	config.Authorization.Authorizer, err = union.New(
		union.NamedAuthorizer{AuthorizerName: "probes", Authorizer: probes},
		union.NamedAuthorizer{AuthorizerName: "kube-apiserver", Authorizer: namelessFirst{remembered}})
	if err != nil {
		return nil, fmt.Errorf("making the authorizer: %w", err)
	}
	asked, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: reviews,
		WebhookRetryBackoff:       reviewBackoff(),
	}.New()
	if err != nil {
		return nil, fmt.Errorf("making the authorizer of grants: %w", err)
	}
	return asked, nil
}

// namelessFirst asks whether a caller may get every server of the namespace before
// it asks about one: the first answer serves all reads of the next two seconds. By
// the definition of a review, one without a name means all of them.
type namelessFirst struct{ authorizer.Authorizer }

// Authorize implements authorizer.Authorizer.
func (n namelessFirst) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.IsResourceRequest() && a.GetVerb() == "get" && a.GetName() != "" {
		decision, reason, err := n.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User:            a.GetUser(),
			Verb:            a.GetVerb(),
			Namespace:       a.GetNamespace(),
			APIGroup:        a.GetAPIGroup(),
			APIVersion:      a.GetAPIVersion(),
			Resource:        a.GetResource(),
			Subresource:     a.GetSubresource(),
			ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return decision, reason, nil
		}
	}
	return n.Authorizer.Authorize(ctx, a)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (n namelessFirst) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(n.Authorize(ctx, a))
}
