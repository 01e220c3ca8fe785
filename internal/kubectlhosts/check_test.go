// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// installation is what of an API server check asks.
type installation struct {
	// hosts and servers are how lists are answered, by the code.
	hosts, servers int
	// dead is true if the canary, of 12:00, is not renewed.
	dead bool
	// absent is true if there has never been one.
	absent bool

	renewals atomic.Int64
}

func (i *installation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(code int, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
	status := func(code int, reason, message string) {
		answer(code, fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q}`, code, reason, message))
	}
	list := func(code int, kind, group string) {
		switch code {
		case http.StatusOK:
			answer(code, `{"kind":"`+kind+`List","apiVersion":"`+group+`/v1alpha1","metadata":{},"items":[]}`)
		case http.StatusForbidden:
			status(code, "Forbidden", `servers.`+group+` is forbidden: User "u" cannot list resource "servers" in API group "`+group+`"`)
		case http.StatusServiceUnavailable:
			status(code, "ServiceUnavailable", "the server is currently unable to handle the request")
		default:
			http.NotFound(w, r)
		}
	}
	switch r.URL.Path {
	case "/apis/compute.hoststatus.dev/v1alpha1/computeservices":
		list(i.hosts, "ComputeService", "compute.hoststatus.dev")
	case "/apis/tenant.hoststatus.dev/v1alpha1/namespaces/team-a/servers":
		list(i.servers, "Server", "tenant.hoststatus.dev")
	case "/apis/coordination.k8s.io/v1/namespaces/hoststatus-leases/leases/hoststatus-canary":
		if i.absent {
			status(http.StatusNotFound, "NotFound", "leases \"hoststatus-canary\" not found")
			return
		}
		renewed := now
		if !i.dead {
			renewed = now.Add(time.Duration(i.renewals.Add(1)) * time.Second)
		}
		answer(http.StatusOK, `{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"hoststatus-canary","namespace":"hoststatus-leases"},"spec":{"renewTime":"`+renewed.Format(metav1.RFC3339Micro)+`"}}`)
	default:
		http.NotFound(w, r)
	}
}

func TestCheckLooksAtWhatRunsAndNotOnlyAtWhatIsStored(t *testing.T) {
	const resources, canary, view = "custom resources", "manager, by its canary in hoststatus-leases", "owners' view"
	for name, c := range map[string]struct {
		cluster *installation
		options checkOptions
		want    map[string]string
	}{
		"all works": {&installation{hosts: 200, servers: 200}, checkOptions{tenantAPI: true}, map[string]string{resources: ok, canary: ok, view: ok}},
		"nothing runs": {
			&installation{hosts: 200, servers: 503, dead: true}, checkOptions{tenantAPI: true},
			map[string]string{resources: ok, canary: "was last renewed 60s ago: no manager leads", view: "unable to handle the request"},
		},
		"nothing has ever run": {
			&installation{hosts: 200, servers: 503, absent: true}, checkOptions{tenantAPI: true},
			map[string]string{resources: ok, canary: "does not exist: no manager leads", view: "unable to handle the request"},
		},
		"nothing is installed": {
			&installation{absent: true}, checkOptions{tenantAPI: true},
			map[string]string{resources: "hoststatus is not installed in the cluster at http://127.0.0.1:", canary: "does not exist", view: "is not served: there is no APIService v1alpha1.tenant.hoststatus.dev"},
		},
		"without the tenant API": {&installation{hosts: 200}, checkOptions{}, map[string]string{resources: ok, canary: ok}},
		"without the right to read servers": {
			&installation{hosts: 200, servers: 403}, checkOptions{tenantAPI: true},
			map[string]string{resources: ok, canary: ok, view: "you lack the right to list servers.tenant.hoststatus.dev in namespace team-a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.cluster)
			defer server.Close()
			p := newPlugin(Environment{
				IOStreams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &bytes.Buffer{}, ErrOut: &bytes.Buffer{}},
				Getenv:    func(string) string { return "" },
				Now:       func() time.Time { return now.Add(time.Minute) },
			})
			newRoot(p)
			*p.Config.APIServer = server.URL
			cluster, err := p.connect()
			if err != nil {
				t.Fatal(err)
			}
			c.options.leaseNamespaces = []string{v1alpha1.DefaultLeaseNamespace}
			works := true
			for _, want := range c.want {
				works = works && want == ok
			}
			k := &check{cluster: cluster, options: &c.options, namespace: "team-a", first: map[string]time.Time{}}
			got := map[string]string{}
			// What does not work would be looked at until a deadline.
			look := k.look
			if works {
				look = k.until
			}
			k.look(t.Context())
			findings := look(t.Context())
			for _, f := range findings {
				got[f.what] = ok
				if f.err != nil {
					got[f.what] = f.err.Error()
				}
			}
			same := cmp.Comparer(func(a, b string) bool { return strings.Contains(a, b) || strings.Contains(b, a) })
			if diff := cmp.Diff(c.want, got, same); diff != "" {
				t.Errorf("what was found (-want +got):\n%s", diff)
			}
		})
	}
}
