// SPDX-License-Identifier: Apache-2.0

// Package nova tests nova-api as clients of the compute API use it: OpenStack's own, unchanged,
// against a real kube-apiserver with the owners' view, a manager and agents at work.
package nova

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

var update = flag.Bool("update", false, "Write the golden files.")

const (
	// patience is how long something may take that is not timed.
	patience = 30 * time.Second
	// leaseDuration is for how long a heartbeat holds.
	leaseDuration = 4 * time.Second
)

// env is what the tests share: the sample fleet, and nova-api before it.
var env struct {
	*fleet.Fleet
	url    string
	tokens map[string]string
}

func TestMain(m *testing.M) { os.Exit(fleet.RunTests(m, "nova", start)) }

func start(ctx context.Context, dir string) (_ *fleet.Fleet, err error) {
	env.Fleet, err = fleet.Start(ctx, fleet.Options{Dir: filepath.Join(dir, "fleet"), LeaseDuration: leaseDuration, RenewInterval: leaseDuration / 4, Log: os.Stdout})
	if err != nil {
		return nil, err
	}
	return env.Fleet, startNova(ctx)
}

// stranger is a service account without any right.
var stranger = fleet.Account{Namespace: "team-c", Name: "stranger"}

func startNova(ctx context.Context) (err error) {
	if env.url, err = env.StartNovaAPI(ctx); err != nil {
		return err
	}
	if out, err := env.Kubectl(ctx, "create", "namespace", stranger.Namespace).CombinedOutput(); err != nil {
		return fmt.Errorf("making a namespace: %w\n%s", err, out)
	}
	env.tokens = map[string]string{}
	for _, account := range append(fleet.NovaAccounts, stranger) {
		if env.tokens[account.Name], err = env.NewToken(ctx, account); err != nil {
			return err
		}
	}
	return nil
}

// client asks nova-api over a connection of its own.
type client struct {
	url, token, version string
}

// as returns a client with the token of an account, that asks for a microversion.
func as(name, version string) *client {
	return &client{url: env.url, token: env.tokens[name], version: version}
}

// response is an answer that has been read.
type response struct {
	code   int
	header http.Header
	body   string
}

func (c *client) do(t testing.TB, method, path, body string, header ...string) response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
	expect.NoError(t, err)
	if c.token != "" {
		request.Header.Set("X-Auth-Token", c.token)
	}
	if c.version != "" {
		request.Header.Set("OpenStack-API-Version", "compute "+c.version)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(request)
	expect.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(answer.Body)
	expect.NoError(t, err)
	return response{answer.StatusCode, answer.Header, string(content)}
}

func (c *client) get(t testing.TB, path string) response { return c.do(t, http.MethodGet, path, "") }

// serverUID returns the id of a server of the sample fleet.
func serverUID(t testing.TB, namespace, name string) string {
	t.Helper()
	var s v1alpha1.Server
	expect.NoError(t, env.Client.Get(t.Context(), key(namespace, name), &s))
	return string(s.UID)
}

// hostIs waits until the servers on a host have a host status.
func hostIs(t testing.TB, want v1alpha1.HostStatus, host string) {
	t.Helper()
	expect.NoError(t, env.WaitFor(context.WithoutCancel(t.Context()), patience, fleet.All(want, host)))
}

// everyServerIsReported checks that the agents have said of each server how it is.
func everyServerIsReported(t testing.TB) func() error {
	return func() error {
		var servers v1alpha1.ServerList
		if err := env.Client.List(t.Context(), &servers); err != nil {
			return err
		}
		for _, s := range servers.Items {
			if s.Status.State == "" {
				return fmt.Errorf("%s/%s has no state yet", s.Namespace, s.Name)
			}
		}
		return nil
	}
}

func key(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// rawPatch is a merge patch.
func rawPatch(content []byte) ctrlclient.Patch {
	return ctrlclient.RawPatch(types.MergePatchType, content)
}
