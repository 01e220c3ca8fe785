// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

const onAttackers = "attackers"

// attackers are faults that somebody causes on purpose, with no more rights than one
// host, one tenant, or anybody who reaches the webhook's port has.
var attackers = []fault{
	{name: "one host holds 300 bodies that never end", target: onAttackers, run: attack(slowBodies)},
	{name: "a tenant asks for a future resourceVersion, 8 at a time", target: onAttackers, run: attack(futureVersions)},
	{name: "a tenant selects by 40,000 labels, 4 at a time", target: onAttackers, run: attack(monsterSelectors)},
	{name: "a tenant opens 200 WatchLists, over and over", target: onAttackers, run: attack(watchLists)},
	{name: "60 bodies that never end and 3 of YAML reach the webhook", target: onAttackers, run: attack(webhookFlood)},
	{name: "all attackers at once", target: onAttackers, short: true, run: attack(slowBodies, futureVersions, monsterSelectors, watchLists, webhookFlood)},
}

// attacker starts what goes on until ctx ends, as part of running.
type attacker func(ctx context.Context, w *world, running *sync.WaitGroup) error

// attack lets attackers do their worst for a while. Another tenant has to be answered
// meanwhile, and an operator's word has to count.
func attack(by ...attacker) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, r *rand.Rand) error {
		during, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		for _, start := range by {
			if err := start(during, w, &running); err != nil {
				return err
			}
		}
		if err := letPass(ctx, between(r, 2*time.Second, 4*time.Second)); err != nil {
			return err
		}
		bystander, err := newCaller(w, "bea")
		if err != nil {
			return err
		}
		// Beside another fault the API server may be away for as long as that takes.
		answered, end := false, time.Now().Add(12*time.Second)
		for limit := time.Now().Add(recoveryLimit); time.Now().Before(end) || !answered; {
			if time.Now().After(limit) {
				return errors.New("a tenant who attacks nobody got no answer")
			}
			request, err := bystander.request(ctx, http.MethodGet, tenantServers("team-b"), nil)
			if err != nil {
				return err
			}
			code, err := bystander.send(request)
			answered = answered || err == nil && code == http.StatusOK
			if err := letPass(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		return w.set(ctx, w.some(r, 1)[0].name, `{"spec":{"forcedDown":true}}`)
	}
}

func tenantServers(namespace string) string {
	return "/apis/tenant.hoststatus.dev/v1alpha1/namespaces/" + namespace + "/servers"
}

// slowBodies is a host that begins to renew its own Lease and does not go on, so that
// each request keeps its seat in the API server's priority level.
func slowBodies(ctx context.Context, w *world, running *sync.WaitGroup) error {
	const name = "mallory"
	path := "/apis/coordination.k8s.io/v1/namespaces/" + v1alpha1.DefaultLeaseNamespace + "/leases/" + name
	c, err := newCaller(w, "system:hoststatus:host:"+name, "system:hoststatus:hosts")
	if err != nil {
		return err
	}
	c.overAndOver(ctx, running, 300, func() (*http.Request, error) {
		request, err := c.request(ctx, http.MethodPut, path, neverEnding(ctx, "{"))
		if err == nil {
			request.ContentLength = 100_000
		}
		return request, err
	})
	return nil
}

func futureVersions(ctx context.Context, w *world, running *sync.WaitGroup) error {
	return asTenant(ctx, w, running, 8, tenantServers(tenant)+"?resourceVersion=99999999")
}

func monsterSelectors(ctx context.Context, w *world, running *sync.WaitGroup) error {
	var selector strings.Builder
	for i := range 40000 {
		_, _ = fmt.Fprintf(&selector, "!a%d,", i)
	}
	return asTenant(ctx, w, running, 4, tenantServers(tenant)+"?labelSelector="+url.QueryEscape(strings.TrimSuffix(selector.String(), ",")))
}

func watchLists(ctx context.Context, w *world, running *sync.WaitGroup) error {
	// A second is long enough for all that is there to be sent.
	return asTenant(ctx, w, running, 200, tenantServers(tenant)+
		"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1")
}

// asTenant asks for path as an owner of servers who is not the one whose answers count.
func asTenant(ctx context.Context, w *world, running *sync.WaitGroup, clients int, path string) error {
	c, err := newCaller(w, "ada")
	if err != nil {
		return err
	}
	c.overAndOver(ctx, running, clients, func() (*http.Request, error) {
		return c.request(ctx, http.MethodGet, path, nil)
	})
	return nil
}

// webhookFlood comes from somebody who has no name, and reaches the port.
func webhookFlood(ctx context.Context, w *world, running *sync.WaitGroup) error {
	c := &caller{
		base:      "https://127.0.0.1:" + w.fleet.WebhookPort,
		transport: withoutHTTP2(&tls.Config{InsecureSkipVerify: true}), // an attacker does not care who answers
	}
	const path = "/protect-computeservices"
	c.overAndOver(ctx, running, 60, func() (*http.Request, error) {
		return c.request(ctx, http.MethodPost, path, neverEnding(ctx, strings.Repeat(" ", 1<<20)))
	})
	yaml := append([]byte("a:\n"), bytes.Repeat([]byte("- a\n"), 7<<18)...)
	c.overAndOver(ctx, running, 3, func() (*http.Request, error) {
		request, err := c.request(ctx, http.MethodPost, path, bytes.NewReader(yaml))
		if err == nil {
			request.Header.Set("Content-Type", "application/yaml")
		}
		return request, err
	})
	return nil
}

// neverEnding is a body of which no more comes than what it begins with, until ctx ends.
func neverEnding(ctx context.Context, begin string) io.Reader {
	return io.MultiReader(strings.NewReader(begin), readerFunc(func([]byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// caller sends requests, of which it reads the answers and keeps the codes alone.
type caller struct {
	base      string
	transport http.RoundTripper
}

// newCaller is somebody who has a certificate for the API server.
func newCaller(w *world, user string, groups ...string) (*caller, error) {
	config, err := w.fleet.Cluster.ConfigFor(user, groups...)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	return &caller{base: w.fleet.Cluster.URL, transport: withoutHTTP2(tlsConfig)}, nil
}

// withoutHTTP2 has a connection for each request, so that nothing but the server bounds
// how many are open.
func withoutHTTP2(config *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: config, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
}

func (c *caller) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err == nil && body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, err
}

func (c *caller) send(request *http.Request) (int, error) {
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// overAndOver has n requests under way until ctx ends. There is a pause between two, so
// that it is not this machine's CPUs that are attacked.
func (c *caller) overAndOver(ctx context.Context, running *sync.WaitGroup, n int, next func() (*http.Request, error)) {
	for range n {
		running.Go(func() {
			for ctx.Err() == nil {
				if request, err := next(); err == nil {
					_, _ = c.send(request)
				}
				_ = letPass(ctx, 100*time.Millisecond)
			}
		})
	}
}
