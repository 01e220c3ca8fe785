// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"strings"
	"testing"
)

func TestOptionsThatAreWrongAreRefusedByTheNameOfTheFlag(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"the defaults and a configuration": {func(*Options) {}, ""},
		"no configuration":                 {func(o *Options) { o.ConfigFile = "" }, "--config: Required value"},
		"an address of metrics":            {func(o *Options) { o.MetricsBindAddress = "8443" }, "--metrics-bind-address: Invalid value"},
		"an address of probes":             {func(o *Options) { o.HealthProbeBindAddress = "x:y" }, "--health-probe-bind-address: Invalid value"},
		"no certificate":                   {func(o *Options) { o.CertDir = t.TempDir() }, "--cert-dir: Invalid value"},
	} {
		o := NewOptions()
		o.ConfigFile = "config.yaml"
		c.change(o)
		errs := o.Validate()
		if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, errs, c.want)
		}
	}
}
