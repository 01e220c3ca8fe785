// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestTLSOptions(t *testing.T) {
	for name, c := range map[string]struct {
		flags  []string
		errors []string
		min    uint16
		suites []uint16
	}{
		"the defaults": {},
		"a version":    {flags: []string{"--tls-min-version=VersionTLS13"}, min: tls.VersionTLS13},
		"cipher suites": {
			flags:  []string{"--tls-min-version=VersionTLS12", "--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"},
			min:    tls.VersionTLS12,
			suites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
		},
		"a version that there is not": {flags: []string{"--tls-min-version=1.3"}, errors: []string{`--tls-min-version: Unsupported value: "1.3": supported values: "VersionTLS10", `}},
		"a cipher suite that there is not": {
			flags:  []string{"--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,ROT13"},
			errors: []string{`--tls-cipher-suites[1]: Unsupported value: "ROT13": supported values: "TLS_AES_128_GCM_SHA256", `},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var o TLSOptions
			fs := pflag.NewFlagSet("binary", pflag.ContinueOnError)
			o.AddFlags(fs, "it")
			if err := fs.Parse(c.flags); err != nil {
				t.Fatal(err)
			}
			errs := o.Validate()
			if len(errs) != len(c.errors) {
				t.Fatalf("%v, want %d errors", errs.ToAggregate(), len(c.errors))
			}
			for i, err := range errs {
				if !strings.HasPrefix(err.Error(), c.errors[i]) {
					t.Errorf("%q, want one that begins with %q", err, c.errors[i])
				}
			}
			if len(errs) > 0 {
				return
			}
			config := &tls.Config{} // what is looked at
			o.Apply(config)
			if config.MinVersion != c.min {
				t.Errorf("version %x, want %x", config.MinVersion, c.min)
			}
			if diff := cmp.Diff(c.suites, config.CipherSuites); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateShutdownDelay(t *testing.T) {
	for d, good := range map[time.Duration]bool{0: true, time.Minute: true, -time.Second: false, time.Minute + 1: false} {
		if errs := ValidateShutdownDelay(Flag("shutdown-delay"), d); (len(errs) == 0) != good {
			t.Errorf("%v: %v", d, errs.ToAggregate())
		}
	}
}
