// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// parse returns the options that these flags give.
func parse(t *testing.T, flags ...string) *Options {
	t.Helper()
	o := NewOptions()
	fs := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(flags); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestDefaults(t *testing.T) {
	want := &Options{
		LeaseNamespaces: []string{"hoststatus-leases"}, DefaultLeaseDuration: time.Minute,
		LeaderElectionNamespace: "hoststatus-system", FormerLeaderElectionNamespace: "hoststatus-leases",
		MetricsBindAddress: ":8443", MetricsSecure: true, HealthProbeBindAddress: ":8081",
		WebhookBindAddress: ":9443", ShutdownDelay: 5 * time.Second, Namespace: "hoststatus-system",
		PprofBindAddress: "0",
	}
	if diff := cmp.Diff(want, parse(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// certificates is a folder with what looks like a certificate and its key.
func certificates(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{certFile, keyFile} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOptionsThatAreGood(t *testing.T) {
	for name, flags := range map[string][]string{
		"the defaults":        nil,
		"several namespaces":  {"--lease-namespaces=hoststatus-leases,kube-node-lease"},
		"the shortest lease":  {"--default-lease-duration=3s"},
		"the longest lease":   {"--default-lease-duration=1h"},
		"nothing is served":   {"--metrics-bind-address=0", "--health-probe-bind-address=0", "--webhook-bind-address=0"},
		"a webhook elsewhere": {"--webhook-bind-address=[::1]:443", "--namespace=else"},
		"a lasting webhook":   {"--shutdown-delay=1m"},
		"the newest TLS":      {"--tls-min-version=VersionTLS13"},
		"no former leader":    {"--former-leader-election-namespace="},
		"a leader as in 0.1":  {"--leader-election-namespace=hoststatus-leases"},
		"a certificate":       {"--webhook-cert-dir=" + certificates(t)},
		"addresses of a host": {"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=[::1]:8081", "--pprof-bind-address=127.0.0.1:6060"},
		"plain metrics":       {"--metrics-secure=false"},
		"all nodes":           {"--mirror-nodes", "--lease-namespaces=kube-node-lease"},
		"nodes' conditions":   {"--mirror-nodes", "--write-node-conditions", "--lease-namespaces=kube-node-lease"},
		"some nodes":          {"--mirror-nodes", "--mirror-nodes-selector=hypervisor=true,rack in (r1,r2)", "--lease-namespaces=hoststatus-leases,kube-node-lease"},
		"all VMIs":            {"--mirror-virtualmachineinstances"},
		"some VMIs":           {"--mirror-virtualmachineinstances", "--mirror-virtualmachineinstances-selector=tier!=test"},
	} {
		t.Run(name, func(t *testing.T) {
			if errs := parse(t, flags...).Validate(); len(errs) > 0 {
				t.Error(errs.ToAggregate())
			}
		})
	}
}

func TestOptionsThatAreBadAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		flags []string
		names []string
	}{
		"no lease namespace":                   {[]string{"--lease-namespaces="}, []string{"--lease-namespaces"}},
		"a webhook that lasts too long":        {[]string{"--shutdown-delay=61s"}, []string{"--shutdown-delay"}},
		"a TLS that there is not":              {[]string{"--tls-min-version=1.2", "--tls-cipher-suites=NONE"}, []string{"--tls-min-version", "--tls-cipher-suites[0]"}},
		"a lease namespace that is none":       {[]string{"--lease-namespaces=good,Bad"}, []string{"--lease-namespaces[1]"}},
		"an empty lease namespace":             {[]string{"--lease-namespaces=good,"}, []string{"--lease-namespaces[1]"}},
		"a lease namespace twice":              {[]string{"--lease-namespaces=a,b,a"}, []string{"--lease-namespaces[2]"}},
		"a lease that is too short":            {[]string{"--default-lease-duration=2s"}, []string{"--default-lease-duration"}},
		"a lease that is too long":             {[]string{"--default-lease-duration=61m"}, []string{"--default-lease-duration"}},
		"a lease that is not in whole seconds": {[]string{"--default-lease-duration=3500ms"}, []string{"--default-lease-duration"}},
		"a lease that ends before it begins":   {[]string{"--default-lease-duration=-1m"}, []string{"--default-lease-duration"}},
		"no namespace for the leader":          {[]string{"--leader-election-namespace="}, []string{"--leader-election-namespace"}},
		"a leader's namespace that is none":    {[]string{"--leader-election-namespace=a.b"}, []string{"--leader-election-namespace"}},
		"a former namespace that is none":      {[]string{"--former-leader-election-namespace=a.b"}, []string{"--former-leader-election-namespace"}},
		"metrics on no port":                   {[]string{"--metrics-bind-address=localhost"}, []string{"--metrics-bind-address"}},
		"metrics on an empty address":          {[]string{"--metrics-bind-address="}, []string{"--metrics-bind-address"}},
		"probes on no port":                    {[]string{"--health-probe-bind-address=8081"}, []string{"--health-probe-bind-address"}},
		"profiles on no port":                  {[]string{"--pprof-bind-address=localhost"}, []string{"--pprof-bind-address"}},
		"probes on IPv6 without brackets":      {[]string{"--health-probe-bind-address=::1:8081"}, []string{"--health-probe-bind-address"}},
		"a webhook on any port":                {[]string{"--webhook-bind-address=:0"}, []string{"--webhook-bind-address"}},
		"a webhook on no port":                 {[]string{"--webhook-bind-address=9443"}, []string{"--webhook-bind-address"}},
		"a webhook in no namespace":            {[]string{"--namespace="}, []string{"--namespace"}},
		"a folder without certificates":        {[]string{"--webhook-cert-dir=" + t.TempDir()}, []string{"--webhook-cert-dir"}},
		"a certificate that nobody uses":       {[]string{"--webhook-bind-address=0", "--webhook-cert-dir=" + certificates(t)}, []string{"--webhook-cert-dir"}},
		"nodes without their Leases":           {[]string{"--mirror-nodes"}, []string{"--mirror-nodes"}},
		"conditions of nodes that are none":    {[]string{"--write-node-conditions"}, []string{"--write-node-conditions"}},
		"a selector that is none":              {[]string{"--mirror-nodes", "--lease-namespaces=kube-node-lease", "--mirror-nodes-selector=a b"}, []string{"--mirror-nodes-selector"}},
		"a selector that nobody uses":          {[]string{"--mirror-nodes-selector=a=b"}, []string{"--mirror-nodes-selector"}},
		"a selector of VMIs that is none":      {[]string{"--mirror-virtualmachineinstances", "--mirror-virtualmachineinstances-selector=a b"}, []string{"--mirror-virtualmachineinstances-selector"}},
		"a selector of VMIs that nobody uses":  {[]string{"--mirror-virtualmachineinstances-selector=a=b"}, []string{"--mirror-virtualmachineinstances-selector"}},
		"everything that is wrong, not the first thing": {
			[]string{"--lease-namespaces=A", "--default-lease-duration=0", "--leader-election-namespace=", "--metrics-bind-address=x", "--health-probe-bind-address=x", "--webhook-bind-address=x", "--webhook-cert-dir=/nowhere", "--namespace=A"},
			[]string{"--lease-namespaces[0]", "--default-lease-duration", "--leader-election-namespace", "--metrics-bind-address", "--health-probe-bind-address", "--webhook-bind-address", "--webhook-cert-dir", "--namespace"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			named := map[string]bool{}
			for _, err := range parse(t, c.flags...).Validate() {
				named[err.Field] = true
			}
			want := map[string]bool{}
			for _, name := range c.names {
				want[name] = true
			}
			if diff := cmp.Diff(want, named); diff != "" {
				t.Errorf("flags named (-want +got):\n%s", diff)
			}
		})
	}
}
