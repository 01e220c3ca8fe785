// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestValidation(t *testing.T) {
	flag := Flag("flag")
	namespaces := func(names ...string) field.ErrorList {
		return ValidateNamespaces(flag, names, "name one")
	}
	for name, c := range map[string]struct {
		got field.ErrorList
		// want is how each error begins.
		want []string
	}{
		"a namespace":                  {ValidateNamespace(flag, "a-1"), nil},
		"no namespace":                 {ValidateNamespace(flag, ""), []string{`--flag: Invalid value: "": a lowercase RFC 1123 label`}},
		"a namespace with dots":        {ValidateNamespace(flag, "a.b"), []string{`--flag: Invalid value: "a.b": must not contain dots`}},
		"a namespace of 64 characters": {ValidateNamespace(flag, strings.Repeat("a", 64)), []string{"--flag: Invalid value: "}},

		"namespaces":                     {namespaces("a", "b"), nil},
		"no namespaces":                  {namespaces(), []string{"--flag: Required value: name one"}},
		"namespaces of which one is bad": {namespaces("a", "B"), []string{`--flag[1]: Invalid value: "B": `}},
		"a namespace twice":              {namespaces("a", "b", "a"), []string{`--flag[2]: Duplicate value: "a"`}},
		"everything that is wrong": {
			namespaces("A", "b", "b"), []string{`--flag[0]: Invalid value: "A": `, `--flag[2]: Duplicate value: "b"`},
		},

		"a name with dots":             {ValidateObjectName(flag, "host-a.rack-1"), nil},
		"a name of 253 characters":     {ValidateObjectName(flag, strings.Repeat("a", 253)), nil},
		"a name of 254 characters":     {ValidateObjectName(flag, strings.Repeat("a", 254)), []string{"--flag: Invalid value: "}},
		"a name with a slash":          {ValidateObjectName(flag, "a/b"), []string{`--flag: Invalid value: "a/b": a lowercase RFC 1123 subdomain`}},
		"a Service's name":             {ValidateServiceName(flag, "web-1"), nil},
		"a Service that is a number":   {ValidateServiceName(flag, "1"), []string{`--flag: Invalid value: "1": a DNS-1035 label`}},
		"a port":                       {ValidatePort(flag, 65535), nil},
		"port 0":                       {ValidatePort(flag, 0), []string{"--flag: Invalid value: 0: must be between 1 and 65535"}},
		"a port that is out of range":  {ValidatePort(flag, 65536), []string{"--flag: Invalid value: 65536: must be between 1 and 65535"}},
		"the shortest lease":           {ValidateLeaseDuration(flag, 3*time.Second), nil},
		"the longest lease":            {ValidateLeaseDuration(flag, time.Hour), nil},
		"a lease that is too short":    {ValidateLeaseDuration(flag, 2*time.Second), []string{`--flag: Invalid value: "2s": must be whole seconds from 3s to 1h`}},
		"a lease that is too long":     {ValidateLeaseDuration(flag, time.Hour+time.Second), []string{`--flag: Invalid value: "1h0m1s": `}},
		"a lease of parts of a second": {ValidateLeaseDuration(flag, 3500*time.Millisecond), []string{`--flag: Invalid value: "3.5s": `}},
		"a negative lease":             {ValidateLeaseDuration(flag, -time.Minute), []string{`--flag: Invalid value: "-1m0s": `}},

		"an address":                     {ValidateAddress(flag, "127.0.0.1:8081"), nil},
		"an address of IPv6":             {ValidateAddress(flag, "[::1]:8081"), nil},
		"all addresses":                  {ValidateAddress(flag, ":8081"), nil},
		"any port":                       {ValidateAddress(flag, "localhost:0"), nil},
		"nowhere":                        {ValidateAddress(flag, "0"), nil},
		"an empty address":               {ValidateAddress(flag, ""), []string{`--flag: Invalid value: "": must be host:port, :port or 0: `}},
		"an address without a port":      {ValidateAddress(flag, "localhost"), []string{`--flag: Invalid value: "localhost": must be host:port, :port or 0: `}},
		"a port without its colon":       {ValidateAddress(flag, "8081"), []string{`--flag: Invalid value: "8081": must be host:port, :port or 0: `}},
		"IPv6 without brackets":          {ValidateAddress(flag, "::1:8081"), []string{`--flag: Invalid value: "::1:8081": must be host:port, :port or 0: `}},
		"a colon without its port":       {ValidateAddress(flag, "localhost:"), []string{`--flag: Invalid value: "localhost:": must end with a port from 0 to 65535, not ""`}},
		"the name of a port":             {ValidateAddress(flag, ":http"), []string{`--flag: Invalid value: ":http": must end with a port from 0 to 65535, not "http"`}},
		"an address whose port is large": {ValidateAddress(flag, ":65536"), []string{`--flag: Invalid value: ":65536": must end with a port from 0 to 65535, not "65536"`}},
	} {
		t.Run(name, func(t *testing.T) {
			if len(c.got) != len(c.want) {
				t.Fatalf("%v, want %d errors", c.got.ToAggregate(), len(c.want))
			}
			for i, err := range c.got {
				if !strings.HasPrefix(err.Error(), c.want[i]) {
					t.Errorf("%q, want one that begins with %q", err, c.want[i])
				}
			}
		})
	}
}
