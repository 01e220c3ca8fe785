// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// ListPage is how many objects one request asks for.
	ListPage = 500
	// AsTable requests printed columns in place of objects: a tenth of the bytes.
	AsTable = "application/json;as=Table;v=v1;g=meta.k8s.io"
)

// RESTConfig is how to connect to the API server. where names the cluster in errors: its
// address and the context.
func (p *Plugin) RESTConfig() (config *rest.Config, where string, err error) {
	config, err = p.Config.ToRESTConfig()
	// If nothing is configured, client-go still defaults to port 8080 of localhost.
	if kubeconfig, readErr := p.Config.ToRawKubeConfigLoader().RawConfig(); clientcmd.IsEmptyConfig(err) ||
		err == nil && readErr == nil && clientcmdapi.IsConfigEmpty(&kubeconfig) && ptr.Deref(p.Config.APIServer, "") == "" && config.Host == "http://localhost:8080" {
		return nil, "", errors.New("no cluster is configured; give --kubeconfig, set $KUBECONFIG or create ~/.kube/config")
	}
	if err != nil {
		return nil, "", err
	}
	config.UserAgent = p.Binary()
	config.QPS, config.Burst = 50, 300
	config.WarningHandler = &serverWarnings{Plugin: p}
	return config, p.whereIs(config), nil
}

// whereIs names the cluster in errors.
func (p *Plugin) whereIs(config *rest.Config) string {
	name := ptr.Deref(p.Config.Context, "")
	if name == "" {
		if kubeconfig, err := p.Config.ToRawKubeConfigLoader().RawConfig(); err == nil {
			name = kubeconfig.CurrentContext
		}
	}
	if name == "" {
		return config.Host
	}
	return fmt.Sprintf("%s (context %q)", config.Host, name)
}

// EachPage lists page by page.
func EachPage[L client.ObjectList](ctx context.Context, c client.Reader, list L, take func(L), options ...client.ListOption) error {
	for {
		if err := c.List(ctx, list, append(options, client.Limit(ListPage), client.Continue(list.GetContinue()))...); err != nil {
			return err
		}
		take(list)
		if list.GetContinue() == "" {
			return nil
		}
	}
}

// RawClient makes requests whose answers are not objects of a scheme.
func RawClient(config *rest.Config, version schema.GroupVersion) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.GroupVersion = &version
	// Errors are decoded, and nothing else.
	known := runtime.NewScheme()
	metav1.AddToGroupVersion(known, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(known).WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return client, nil
}

// IsForbiddenByRBAC is true if a right is missing. A refusal by admission has a message
// of its own.
func IsForbiddenByRBAC(err error, verb, resource string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), fmt.Sprintf("cannot %s resource %q", verb, resource))
}

// IsNoSuchObject is true if the object does not exist, and false if the API does not:
// that 404 has no Status of the API.
func IsNoSuchObject(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// Interrupted is the error for a request that Ctrl-C has ended. It is no sign that anything is
// wrong with the cluster.
func Interrupted(where string) error {
	return fmt.Errorf("interrupted before the cluster at %s answered", where)
}

// Unanswered is why a request got no answer; nil if it got one.
func Unanswered(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return nil
}
