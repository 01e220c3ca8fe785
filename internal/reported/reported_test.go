// SPDX-License-Identifier: Apache-2.0

package reported

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func network(name string, addresses ...string) v1alpha1.ServerNetwork {
	return v1alpha1.ServerNetwork{Name: name, Addresses: addresses}
}

func numbered(n int, format string) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf(format, i+1))
	}
	return all
}

func networks(n int) (all []v1alpha1.ServerNetwork) {
	for _, name := range numbered(n, "net-%d") {
		all = append(all, network(name))
	}
	return all
}

func TestWhatIsReportedIsNormalised(t *testing.T) {
	type nets = []v1alpha1.ServerNetwork
	for name, c := range map[string]struct {
		in, want Fields
		note     string // in the only note; "" if there is none.
	}{
		"nothing": {},
		"what is normal already": {
			in:   Fields{State: "SHUTOFF", TaskState: "powering-off", PowerState: "SHUTDOWN", Networks: nets{network("xnet", "10.0.0.4", "fe80::1"), network("empty")}},
			want: Fields{State: "SHUTOFF", TaskState: "powering-off", PowerState: "SHUTDOWN", Networks: nets{network("xnet", "10.0.0.4", "fe80::1"), network("empty")}},
		},
		"another spelling of states": {in: Fields{State: "shutoff ", PowerState: "Shutdown"}, want: Fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		"an unknown state":           {in: Fields{State: "HALTED", PowerState: "SHUTDOWN"}, want: Fields{PowerState: "SHUTDOWN"}, note: `state "HALTED" is unknown`},
		"an unknown power state":     {in: Fields{State: "SHUTOFF", PowerState: "DYING"}, want: Fields{State: "SHUTOFF"}, note: `power state "DYING" is unknown`},
		"a task state of two words":  {in: Fields{State: "SHUTOFF", TaskState: "powering off"}, want: Fields{State: "SHUTOFF"}, note: "not one word"},
		"a task state too long":      {in: Fields{TaskState: strings.Repeat("x", 65)}, note: "not one word"},
		"a strange task state":       {in: Fields{TaskState: "a\x1bb"}, note: `"a\x1bb"`},

		"a prefix length":                 {in: Fields{Networks: nets{network("x", "10.0.0.4/24", "2001:db8::1/64")}}, want: Fields{Networks: nets{network("x", "10.0.0.4", "2001:db8::1")}}},
		"a zone":                          {in: Fields{Networks: nets{network("x", "fe80::1%eth0", "fe80::2%eth0/64")}}, want: Fields{Networks: nets{network("x", "fe80::1", "fe80::2")}}},
		"IPv4 in IPv6":                    {in: Fields{Networks: nets{network("x", "::ffff:10.0.0.11")}}, want: Fields{Networks: nets{network("x", "10.0.0.11")}}},
		"IPv6 in capitals and at length":  {in: Fields{Networks: nets{network("x", " 2001:DB8:0:0::1 ")}}, want: Fields{Networks: nets{network("x", "2001:db8::1")}}},
		"one address twice":               {in: Fields{Networks: nets{network("x", "10.0.0.4", "10.0.0.4", "10.0.0.4/8")}}, want: Fields{Networks: nets{network("x", "10.0.0.4")}}},
		"two interfaces in one network":   {in: Fields{Networks: nets{network("x", "10.0.0.4"), network("y"), network("x", "10.0.0.5", "10.0.0.4")}}, want: Fields{Networks: nets{network("x", "10.0.0.4", "10.0.0.5"), network("y")}}},
		"no address":                      {in: Fields{State: "SHUTOFF", Networks: nets{network("x", "dhcp", "10.0.0.4")}}, want: Fields{State: "SHUTOFF", Networks: nets{network("x", "10.0.0.4")}}, note: `network "x": "dhcp" is not an IP address`},
		"an empty address":                {in: Fields{Networks: nets{network("x", "")}}, want: Fields{Networks: nets{network("x")}}, note: `"" is not an IP address`},
		"33 addresses":                    {in: Fields{Networks: nets{network("x", numbered(33, "10.0.0.%d")...)}}, want: Fields{Networks: nets{network("x", numbered(32, "10.0.0.%d")...)}}, note: "more than 32 addresses: 10.0.0.33"},
		"33 networks":                     {in: Fields{Networks: networks(33)}, want: Fields{Networks: networks(32)}, note: `more than 32 networks: "net-33"`},
		"a nameless network":              {in: Fields{Networks: nets{network("", "10.0.0.4")}}, want: Fields{Networks: nets{network("unnamed", "10.0.0.4")}}, note: "without a name"},
		"two nameless networks":           {in: Fields{Networks: nets{network("unnamed", "10.0.0.4"), network(" ", "10.0.0.5")}}, want: Fields{Networks: nets{network("unnamed", "10.0.0.4", "10.0.0.5")}}, note: "without a name"},
		"a long name":                     {in: Fields{Networks: nets{network(strings.Repeat("ü", 254))}}, want: Fields{Networks: nets{network(strings.Repeat("ü", 253))}}, note: "longer than 253"},
		"a name with a bell and bidi":     {in: Fields{Networks: nets{network("x\a\u202ey")}}, want: Fields{Networks: nets{network("x��y")}}, note: `"x\a\u202ey"`},
		"a name in a broken encoding":     {in: Fields{Networks: nets{network("x\xff")}}, want: Fields{Networks: nets{network("x�")}}, note: "cannot be shown"},
		"a network of which nothing goes": {in: Fields{PowerState: "RUNNING", Networks: nets{network("x", "dhcp")}}, want: Fields{PowerState: "RUNNING", Networks: nets{network("x")}}, note: "is not an IP address"},
	} {
		t.Run(name, func(t *testing.T) {
			got, notes := Normalise(c.in)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.note == "" && len(notes) > 0 || c.note != "" && (len(notes) != 1 || !strings.Contains(notes[0], c.note)) {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			if again, more := Normalise(got); !cmp.Equal(got, again) || len(more) > 0 {
				t.Errorf("not normal yet: %+v, %q", again, more)
			}
		})
	}
}

func TestNotesOnOneServerHaveABound(t *testing.T) {
	_, notes := Normalise(Fields{Networks: []v1alpha1.ServerNetwork{network(strings.Repeat("\x1b", 10_000), numbered(1000, "no address %d")...)}})
	if len(notes) != maxNotes || len(strings.Join(notes, "")) > maxNotes*1000 {
		t.Errorf("%d notes: %.2000q", len(notes), notes)
	}
}

// What is taken for normal is what the schema takes.
func TestTheNormalFormIsThatOfTheSchema(t *testing.T) {
	content, err := os.ReadFile("../../config/crd/compute.hoststatus.dev_servers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Properties          map[string]schema
		Items               *schema
		Enum                []string
		MaxLength, MaxItems int
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct{ OpenAPIV3Schema schema }
			}
		}
	}
	if err := yaml.Unmarshal(content, &crd); err != nil {
		t.Fatal(err)
	}
	status := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"].Properties
	network := status["networks"].Items.Properties
	for name, c := range map[string]struct{ schema, here any }{
		"states":        {status["state"].Enum, serverStates},
		"power states":  {status["powerState"].Enum, powerStates},
		"task state":    {status["taskState"].MaxLength, maxTaskState},
		"networks":      {status["networks"].MaxItems, maxNetworks},
		"addresses":     {network["addresses"].MaxItems, maxAddresses},
		"network names": {network["name"].MaxLength, maxNetworkName},
	} {
		if fmt.Sprint(c.schema) != fmt.Sprint(c.here) {
			t.Errorf("%s: the schema has %v, the code %v", name, c.schema, c.here)
		}
	}
}
