// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestOptionsAreValidated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string // in the only error; "" if there is none
	}{
		"the defaults":                     {change: func(*Options) {}},
		"Nova in a namespace":              {change: func(o *Options) { o.Identity, o.NovaNamespace = []string{"metadata", "nova"}, "cloud" }},
		"a relative path":                  {change: func(o *Options) { o.Socket = "libvirt-sock-ro" }, want: "--libvirt-socket"},
		"no URI":                           {change: func(o *Options) { o.URI = "" }, want: "--libvirt-uri"},
		"no identity":                      {change: func(o *Options) { o.Identity = nil }, want: "--libvirt-identity"},
		"an unknown identity":              {change: func(o *Options) { o.Identity = []string{"name"} }, want: "--libvirt-identity"},
		"a namespace of Nova without Nova": {change: func(o *Options) { o.NovaNamespace = "cloud" }, want: "needs nova"},
		"a namespace that cannot be":       {change: func(o *Options) { o.Identity, o.NovaNamespace = []string{"nova"}, "A" }, want: "--libvirt-nova-namespace"},
		"a resync all the time":            {change: func(o *Options) { o.Resync = time.Millisecond }, want: "--libvirt-resync"},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions()
			c.change(&o)
			errs := o.Validate()
			if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)) {
				t.Errorf("%v, want %q", errs, c.want)
			}
		})
	}
}

func TestOptionsAreFlags(t *testing.T) {
	o := NewOptions()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse([]string{"--libvirt-socket=/s", "--libvirt-uri=test:///default", "--libvirt-identity=metadata,nova", "--libvirt-nova-namespace=cloud", "--libvirt-resync=5s"}); err != nil {
		t.Fatal(err)
	}
	if o.Socket != "/s" || o.URI != "test:///default" || strings.Join(o.Identity, " ") != "metadata nova" || o.NovaNamespace != "cloud" || o.Resync != 5*time.Second {
		t.Errorf("%+v", o)
	}
}
