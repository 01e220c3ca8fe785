// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"errors"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

func TestDecisionsAreCountedByWhatTheCallerMaySee(t *testing.T) {
	in := func(namespaces map[string]grant) grantSet { return grantSet{within: true, byNamespace: namespaces} }
	across := func(all grant, namespaces map[string]grant) grantSet {
		return grantSet{all: all, byNamespace: namespaces}
	}
	failed := errors.New("the API server is away")
	for name, c := range map[string]struct {
		granted grantSet
		err     error
		want    string
	}{
		"all of one namespace":                       {in(map[string]grant{"a": grantFull}), nil, outcomeGranted},
		"one namespace, while it is UNKNOWN":         {in(map[string]grant{"a": grantUnknown}), nil, outcomeUnknownOnly},
		"nothing of one namespace":                   {in(map[string]grant{"a": grantNone}), nil, outcomeHidden},
		"all namespaces":                             {across(grantFull, nil), nil, outcomeGranted},
		"no namespace of many":                       {across(grantNone, map[string]grant{"a": grantNone}), nil, outcomeHidden},
		"one namespace of many":                      {across(grantNone, map[string]grant{"a": grantFull, "b": grantNone}), nil, outcomePartly},
		"more in one of many that are shown UNKNOWN": {across(grantUnknown, map[string]grant{"a": grantFull, "b": grantUnknown}), nil, outcomePartly},
		"many, while they are UNKNOWN":               {across(grantUnknown, map[string]grant{"a": grantUnknown}), nil, outcomeUnknownOnly},
		"an answer that did not come":                {in(map[string]grant{"a": grantNone}), failed, outcomeError},
		"some answers that did not come":             {across(grantNone, map[string]grant{"a": grantFull, "b": grantNone}), failed, outcomeError},
	} {
		t.Run(name, func(t *testing.T) {
			read := func() float64 {
				var m dto.Metric
				if err := decisions.WithLabelValues("list", c.want).Write(&m); err != nil {
					t.Fatal(err)
				}
				return m.Counter.GetValue()
			}
			before := read()
			decidedSet("list", c.granted, c.err)
			if got := read() - before; got != 1 {
				t.Errorf("counted %v times as %s", got, c.want)
			}
		})
	}
}
