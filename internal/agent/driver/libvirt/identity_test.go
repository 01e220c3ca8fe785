// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

const testUUID = "ff91d2dc-69ab-4c41-9ae5-6bf1e4ed1a4c"

// xmlOf is a domain with this metadata and these devices.
func xmlOf(metadata, devices string) string {
	return `<domain type='qemu' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>instance-0000000e</name><uuid>` + testUUID + `</uuid>
<metadata>` + metadata + `</metadata><memory unit='KiB'>16384</memory><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>` + devices + `</devices></domain>`
}

const hs = `<hs:server xmlns:hs='https://hoststatus.dev/libvirt/1' namespace='tenant' name='vm1'/>`

func hsWith(networks string) string {
	return `<hs:server xmlns:hs="https://hoststatus.dev/libvirt/1" namespace="tenant" name="vm1">` + networks + `</hs:server>`
}

func novaOf(version, ports string) string {
	return `<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/` + version + `"><nova:package version="32.0.0"/><nova:name>somebody-else/vm</nova:name>
<nova:owner><nova:user uuid="4e1a">demo</nova:user><nova:project uuid="2b7e151628aed2a6abf7158809cf4f3c">demo</nova:project></nova:owner>` + ports + `</nova:instance>`
}

const nic = `<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default' portid='x' bridge='virbr0'/><target dev='vnet0'/></interface>`

func TestTheXMLOfADomainNamesItsServer(t *testing.T) {
	server := func(namespace, name string) types.NamespacedName {
		return types.NamespacedName{Namespace: namespace, Name: name}
	}
	vm1 := server("tenant", "vm1")
	ofNova := server("2b7e151628aed2a6abf7158809cf4f3c", testUUID)
	both := []string{IdentityMetadata, IdentityNova}
	type nets = []v1alpha1.ServerNetwork
	for name, c := range map[string]struct {
		xml       string
		identity  []string // metadata alone, if nil
		namespace string   // of Nova's servers
		want      details
		problem   string // a part of it
	}{
		"no metadata":                      {xml: `<domain type='qemu'><name>a</name></domain>`},
		"metadata of others":               {xml: xmlOf(`<x:y xmlns:x='urn:x' namespace='tenant' name='vm1'/>`, "")},
		"another namespace of XML":         {xml: xmlOf(`<hs:server xmlns:hs='https://hoststatus.dev/libvirt/2' namespace='tenant' name='vm1'/>`, "")},
		"its own metadata":                 {xml: xmlOf(hs, ""), want: details{server: vm1}},
		"metadata that is not to be used":  {xml: xmlOf(hs, ""), identity: []string{IdentityNova}},
		"no name":                          {xml: xmlOf(`<hs:server xmlns:hs='https://hoststatus.dev/libvirt/1' namespace='tenant'/>`, ""), problem: `name ""`},
		"no namespace":                     {xml: xmlOf(`<hs:server xmlns:hs='https://hoststatus.dev/libvirt/1' name='vm1'/>`, ""), problem: `namespace ""`},
		"a name that cannot be":            {xml: xmlOf(`<hs:server xmlns:hs='https://hoststatus.dev/libvirt/1' namespace='tenant' name='VM 1&#x202e;'/>`, ""), problem: "name \"VM 1\ufffd\""},
		"a namespace with a dot":           {xml: xmlOf(`<hs:server xmlns:hs='https://hoststatus.dev/libvirt/1' namespace='a.b' name='vm1'/>`, ""), problem: `namespace "a.b"`},
		"Nova, which is not to be used":    {xml: xmlOf(novaOf("1.1", ""), "")},
		"Nova":                             {xml: xmlOf(novaOf("1.1", ""), ""), identity: both, want: details{server: ofNova}},
		"an older Nova":                    {xml: xmlOf(novaOf("1.0", ""), ""), identity: both, want: details{server: ofNova}},
		"Nova with a fixed namespace":      {xml: xmlOf(novaOf("1.1", ""), ""), identity: both, namespace: "cloud", want: details{server: server("cloud", testUUID)}},
		"Nova without a project":           {xml: xmlOf(`<n:instance xmlns:n="http://openstack.org/xmlns/libvirt/nova/1.1"/>`, ""), identity: both, problem: `namespace ""`},
		"its own metadata and Nova's":      {xml: xmlOf(novaOf("1.1", "")+hs, ""), identity: both, want: details{server: vm1}},
		"own metadata that is wrong, Nova": {xml: xmlOf(novaOf("1.1", "")+`<hs:server xmlns:hs='https://hoststatus.dev/libvirt/1' namespace='tenant' name='_'/>`, ""), identity: both, problem: `name "_"`},
		"Nova's ports": {
			xml: xmlOf(novaOf("1.1", `<nova:ports><nova:port uuid="a"><nova:ip type="fixed" address="10.0.0.4" ipVersion="4"/><nova:ip type="floating" address="192.0.2.1"/></nova:port>
<nova:port uuid="b"><nova:ip type="fixed" address="2001:db8::4" ipVersion="6"/></nova:port></nova:ports>`), nic),
			identity: both, want: details{server: ofNova, networks: nets{{Name: "unnamed", Addresses: []string{"10.0.0.4", "2001:db8::4"}}}},
		},
		"Nova without ports, on a network of libvirt": {
			xml: xmlOf(novaOf("1.1", ""), nic), identity: both, want: details{server: ofNova, leased: []leasedInterface{{"52:54:00:00:00:01", "default"}}},
		},
		"an interface on a network of libvirt": {
			xml: xmlOf(hs, nic), want: details{server: vm1, leased: []leasedInterface{{"52:54:00:00:00:01", "default"}}},
		},
		"interfaces that libvirt leases nothing to": {
			xml:  xmlOf(hs, `<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface><interface type='user'><mac address='52:54:00:00:00:02'/></interface><interface type='network'/>`),
			want: details{server: vm1},
		},
		"a network with its addresses": {
			xml:  xmlOf(hsWith(`<hs:network mac='52:54:00:00:00:01' name='xnet'><hs:address> 10.0.0.4 </hs:address><hs:address>fd00::4</hs:address></hs:network>`), nic),
			want: details{server: vm1, networks: nets{{Name: "xnet", Addresses: []string{"10.0.0.4", "fd00::4"}}}},
		},
		"a network by its name alone": {
			xml:  xmlOf(hsWith(`<hs:network mac='52-54-00-00-00-01' name='xnet'/>`), nic),
			want: details{server: vm1, networks: nets{{Name: "xnet"}}, leased: []leasedInterface{{"52:54:00:00:00:01", "xnet"}}},
		},
		"a network of an interface that was taken out": {
			xml: xmlOf(hsWith(`<hs:network mac='52:54:00:00:00:09' name='xnet'><hs:address>10.0.0.4</hs:address></hs:network>`), ""), want: details{server: vm1},
		},
		"a network of no interface": {
			xml:  xmlOf(hsWith(`<hs:network name='xnet'><hs:address>10.0.0.4</hs:address></hs:network>`), ""),
			want: details{server: vm1, networks: nets{{Name: "xnet", Addresses: []string{"10.0.0.4"}}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions()
			if c.identity != nil {
				o.Identity = c.identity
			}
			o.NovaNamespace = c.namespace
			got, err := readXML(c.xml, testUUID, &o)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got.problem, c.problem) || (c.problem == "") != (got.problem == "") {
				t.Errorf("problem %q, want %q", got.problem, c.problem)
			}
			got.problem = ""
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(details{}, leasedInterface{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestXMLThatCannotBeReadIsAnError(t *testing.T) {
	o := NewOptions()
	for name, text := range map[string]string{"none": "", "cut": xmlOf(hs, "")[:200], "too long": xmlOf(hs, strings.Repeat("<disk/>", maxXML/7))} {
		if got, err := readXML(text, testUUID, &o); err == nil {
			t.Errorf("%s: no error, and %+v", name, got)
		}
	}
}

func TestTextsOnLinesOfTheLogAreShortAndPlain(t *testing.T) {
	if got := shortened("vm\x1b[31m\u202e"); got != "vm\ufffd[31m\ufffd" {
		t.Errorf("%q", got)
	}
	if got := shortened(strings.Repeat("ü", 1000)); len([]rune(got)) != maxName {
		t.Errorf("%d characters", len([]rune(got)))
	}
}
