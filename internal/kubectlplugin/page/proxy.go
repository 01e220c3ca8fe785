// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// listTimeout is how long a list may take.
	listTimeout = time.Minute
	// watchTimeout is how long a watch may last. The page asks for less, and begins another.
	watchTimeout = 15 * time.Minute
	// maxQuery is how many bytes the parameters of a request may have; a place to continue a
	// list at is the longest.
	maxQuery = 8 << 10
)

// parameters are those that lists and watches need.
var parameters = map[string]bool{
	"allowWatchBookmarks": true, "continue": true, "fieldSelector": true, "labelSelector": true, "limit": true,
	"resourceVersion": true, "resourceVersionMatch": true, "timeoutSeconds": true, "watch": true,
}

// passedBack are the headers of an answer that the page gets.
var passedBack = []string{"Content-Type", "Retry-After", "Warning"}

// proxy passes lists and watches on to the API server.
type proxy struct {
	// paths are what may be read. They are compared letter by letter.
	paths map[string]bool
	pass  *httputil.ReverseProxy
}

func newProxy(config *rest.Config, reads []Read) (*proxy, error) {
	config = rest.CopyConfig(config)
	config.GroupVersion = &schema.GroupVersion{}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("the address of the API server: %w", err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a connection to the API server: %w", err)
	}
	p := &proxy{paths: map[string]bool{}}
	for _, read := range reads {
		p.paths[read.Path()] = true
	}
	p.pass = &httputil.ReverseProxy{
		Transport: transport,
		// The events of a watch go on at once.
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			resource, _ := r.In.Context().Value(resourceKey{}).(string)
			r.Out.URL = &url.URL{Scheme: base.Scheme, Host: base.Host, Path: strings.TrimSuffix(base.Path, "/") + "/" + resource, RawQuery: r.In.URL.RawQuery}
			r.Out.Host = ""
			// Nothing that the browser sends reaches the API server: no cookie, no
			// credentials, nobody to act as. The transport adds the user's own.
			r.Out.Header = http.Header{"Accept": {"application/json"}, "User-Agent": {config.UserAgent}}
			r.Out.Body, r.Out.ContentLength = nil, 0
		},
		ModifyResponse: modify,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, noAnswer(err), http.StatusBadGateway)
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return p, nil
}

// resourceKey is where the context of a request has what is read.
type resourceKey struct{}

// serve passes a request on, if the page may make it.
func (p *proxy) serve(w http.ResponseWriter, r *http.Request, resource string) *refusal {
	watches, no := p.check(r, resource)
	if no != nil {
		return no
	}
	timeout := listTimeout
	if watches {
		timeout = watchTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), resourceKey{}, resource), timeout)
	defer cancel()
	p.pass.ServeHTTP(w, r.WithContext(ctx))
	return nil
}

// check tells whether a request is a watch, or why it is refused.
func (p *proxy) check(r *http.Request, resource string) (watches bool, no *refusal) {
	if !p.paths[resource] {
		return false, &refusal{http.StatusForbidden, "the page does not read that"}
	}
	if len(r.URL.RawQuery) > maxQuery {
		return false, &refusal{http.StatusRequestURITooLong, fmt.Sprintf("the parameters have more than %d bytes", maxQuery)}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false, &refusal{http.StatusBadRequest, "the parameters cannot be read"}
	}
	for name, values := range query {
		if !parameters[name] || len(values) != 1 {
			return false, &refusal{http.StatusForbidden, fmt.Sprintf("the page does not use the parameter %q, or not more than once", name)}
		}
	}
	if r.Header.Get("Upgrade") != "" || r.ContentLength != 0 {
		return false, &refusal{http.StatusBadRequest, "a read has no body, and stays a read"}
	}
	if !query.Has("watch") {
		return false, nil
	}
	watches, err = strconv.ParseBool(query.Get("watch"))
	if err != nil {
		return false, &refusal{http.StatusBadRequest, "the parameter watch is 1 or 0"}
	}
	return watches, nil
}

// modify takes from an answer what the page does not need.
func modify(response *http.Response) error {
	if response.StatusCode >= http.StatusMultipleChoices && response.StatusCode < http.StatusBadRequest || response.StatusCode == http.StatusSwitchingProtocols {
		return errors.New("the API server sends elsewhere")
	}
	kept := http.Header{}
	for _, name := range passedBack {
		if values := response.Header.Values(name); len(values) > 0 {
			kept[name] = values
		}
	}
	response.Header = kept
	return nil
}

// noAnswer explains why there is none.
func noAnswer(err error) string {
	return "no answer from the API server: " + kubectlplugin.CleanLines(err.Error())
}
