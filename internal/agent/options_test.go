// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"hoststatus.dev/hoststatus/internal/agent/driver/libvirt"
)

// parse returns the options that these flags give on a host with a good name.
func parse(t *testing.T, flags ...string) *Options {
	t.Helper()
	o := NewOptions()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(append([]string{"--host-name=host-a"}, flags...)); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOptionsThatAreGood(t *testing.T) {
	for name, flags := range map[string][]string{
		"the defaults":                   nil,
		"the shortest lease":             {"--lease-duration=3s", "--renew-interval=1s"},
		"the longest lease":              {"--lease-duration=1h", "--renew-interval=20m"},
		"the fake driver with its file":  {"--driver=fake", "--fake-driver-file=vms.yaml"},
		"libvirt":                        {"--driver=libvirt", "--libvirt-identity=metadata,nova"},
		"a host name with dots in it":    {"--host-name=host-a.rack-1.example"},
		"a namespace of one's own":       {"--lease-namespace=my-leases"},
		"heartbeats far below the limit": {"--renew-interval=10ms"},
	} {
		t.Run(name, func(t *testing.T) {
			if errs := parse(t, flags...).Validate(); len(errs) > 0 {
				t.Error(errs.ToAggregate())
			}
		})
	}
}

func TestDefaultsAreNovas(t *testing.T) {
	want := &Options{HostName: "host-a", LeaseNamespace: "hoststatus-leases", LeaseDuration: time.Minute, RenewInterval: 10 * time.Second, Driver: "none", Libvirt: libvirt.NewOptions()}
	if diff := cmp.Diff(want, parse(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOptionsThatAreBadAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		flags []string
		names []string
	}{
		"no host name":                         {[]string{"--host-name="}, []string{"--host-name"}},
		"a host name with upper-case letters":  {[]string{"--host-name=Host"}, []string{"--host-name"}},
		"a host name with a slash":             {[]string{"--host-name=a/b"}, []string{"--host-name"}},
		"the canary's name":                    {[]string{"--host-name=hoststatus-canary"}, []string{"--host-name"}},
		"the leader's name":                    {[]string{"--host-name=hoststatus-manager"}, []string{"--host-name"}},
		"no namespace":                         {[]string{"--lease-namespace="}, []string{"--lease-namespace"}},
		"a namespace with dots":                {[]string{"--lease-namespace=a.b"}, []string{"--lease-namespace"}},
		"a lease that is too short":            {[]string{"--lease-duration=2s", "--renew-interval=500ms"}, []string{"--lease-duration"}},
		"a lease that is too long":             {[]string{"--lease-duration=3601s"}, []string{"--lease-duration"}},
		"a lease that is not in whole seconds": {[]string{"--lease-duration=30500ms"}, []string{"--lease-duration"}},
		"no interval":                          {[]string{"--renew-interval=0s"}, []string{"--renew-interval"}},
		"a negative interval":                  {[]string{"--renew-interval=-1s"}, []string{"--renew-interval"}},
		"an interval above a third":            {[]string{"--lease-duration=30s", "--renew-interval=10001ms"}, []string{"--renew-interval"}},
		"a driver that does not exist":         {[]string{"--driver=xen"}, []string{"--driver"}},
		"a flag of libvirt's":                  {[]string{"--driver=libvirt", "--libvirt-resync=0s"}, []string{"--libvirt-resync"}},
		"the fake driver's file with libvirt":  {[]string{"--driver=libvirt", "--fake-driver-file=vms.yaml"}, []string{"--fake-driver-file"}},
		"the fake driver without a file":       {[]string{"--driver=fake"}, []string{"--fake-driver-file"}},
		"a file without the fake driver":       {[]string{"--fake-driver-file=vms.yaml"}, []string{"--fake-driver-file"}},
		"everything that is wrong, not the first thing": {
			[]string{"--host-name=", "--lease-namespace=", "--driver=x"}, []string{"--host-name", "--lease-namespace", "--driver"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			named := map[string]bool{}
			for _, err := range parse(t, c.flags...).Validate() {
				named[err.Field] = true
				if !strings.HasPrefix(err.Error(), err.Field+": ") {
					t.Errorf("%q does not begin with the flag", err)
				}
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
