// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/internal/cli"
)

func TestOptionsThatCannotBeAreRefusedAtTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		// want are parts of the error; none means that there is none.
		want []string
	}{
		"without TLS":                {[]string{"--plain-http"}, nil},
		"nothing but clients":        {[]string{"--plain-http", "--metrics-bind-address=0", "--health-probe-bind-address=0"}, nil},
		"a public URL":               {[]string{"--plain-http", "--public-url=https://nova.example.com:8774"}, nil},
		"no certificate":             {nil, []string{"--cert-dir", "--plain-http"}},
		"no such certificate":        {[]string{"--cert-dir=/nowhere"}, []string{"--cert-dir", "tls.crt", "tls.key"}},
		"a certificate without TLS":  {[]string{"--cert-dir=/nowhere", "--plain-http"}, []string{"--plain-http"}},
		"a public URL with a path":   {[]string{"--plain-http", "--public-url=https://example.com/nova"}, []string{"--public-url"}},
		"a public URL with a user":   {[]string{"--plain-http", "--public-url=https://ann@example.com"}, []string{"--public-url"}},
		"a public URL of another":    {[]string{"--plain-http", "--public-url=ftp://example.com"}, []string{"--public-url"}},
		"no address":                 {[]string{"--plain-http", "--bind-address=0"}, []string{"--bind-address"}},
		"more of one than of all":    {[]string{"--plain-http", "--max-requests=4", "--max-requests-per-token=5"}, []string{"--max-requests-per-token", "from 1 to 4"}},
		"no requests":                {[]string{"--plain-http", "--max-requests=0", "--max-requests-per-token=1"}, []string{"--max-requests"}},
		"bodies without end":         {[]string{"--plain-http", "--max-body-bytes=1000000000"}, []string{"--max-body-bytes"}},
		"no time":                    {[]string{"--plain-http", "--request-timeout=0s"}, []string{"--request-timeout"}},
		"no connections":             {[]string{"--plain-http", "--max-connections=0"}, []string{"--max-connections"}},
		"a version of TLS that is 0": {[]string{"--plain-http", "--tls-min-version=0"}, []string{"--tls-min-version"}},
		"everything at once":         {[]string{"--bind-address=x", "--metrics-bind-address=x", "--health-probe-bind-address=x", "--shutdown-delay=1h"}, []string{"--bind-address", "--metrics-bind-address", "--health-probe-bind-address", "--shutdown-delay", "--cert-dir"}},
	} {
		t.Run(name, func(t *testing.T) {
			options := NewOptions()
			if err := cli.FlagSet("nova-api", options).Parse(c.args); err != nil {
				t.Fatal(err)
			}
			errs := options.Validate()
			text := ""
			if len(errs) > 0 {
				text = errs.ToAggregate().Error()
			}
			if len(c.want) == 0 && text != "" {
				t.Error(text)
			}
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q does not mention %s", text, want)
				}
			}
		})
	}
}
