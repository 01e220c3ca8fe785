// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOptionsAreValidatedWhole(t *testing.T) {
	if errs := NewOptions().Validate(); len(errs) > 0 {
		t.Errorf("the defaults: %v", errs)
	}
	for name, c := range map[string]struct {
		change func(*Options)
		want   []string
	}{
		"a port out of range":             {func(o *Options) { o.SecurePort = 0 }, []string{"--secure-port"}},
		"no address":                      {func(o *Options) { o.BindAddress = nil }, []string{"--bind-address"}},
		"a namespace that cannot be":      {func(o *Options) { o.Namespace = "A" }, []string{"--namespace"}},
		"a service that cannot be":        {func(o *Options) { o.ServiceName = "" }, []string{"--service-name"}},
		"a folder without a certificate":  {func(o *Options) { o.CertDir = t.TempDir() }, []string{"--cert-dir", "--cert-dir"}},
		"a long shutdown":                 {func(o *Options) { o.ShutdownDelay = time.Hour }, []string{"--shutdown-delay"}},
		"a TLS that there is not":         {func(o *Options) { o.TLS.MinVersion = "1.2"; o.TLS.CipherSuites = []string{"NONE"} }, []string{"--tls-cipher-suites[0]", "--tls-min-version"}},
		"no lease namespace":              {func(o *Options) { o.LeaseNamespaces = nil }, []string{"--lease-namespaces"}},
		"a lease namespace twice":         {func(o *Options) { o.LeaseNamespaces = []string{"a", "a"} }, []string{"--lease-namespaces[1]"}},
		"a prefix with its slash":         {func(o *Options) { o.VisibleLabelPrefixes = []string{"example.com/"} }, []string{"--visible-label-prefixes[0]"}},
		"an audit log of a negative size": {func(o *Options) { o.Audit.LogOptions.Path = "-"; o.Audit.LogOptions.MaxSize = -1 }, []string{"--audit-*"}},
		"two things": {func(o *Options) { o.SecurePort = -1; o.LeaseNamespaces = []string{"_"} },
			[]string{"--lease-namespaces[0]", "--secure-port"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions()
			c.change(o)
			var got []string
			for _, err := range o.Validate() {
				got = append(got, err.Field)
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}
