// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"encoding/xml"
	"fmt"
	"net"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/printable"
)

const (
	// maxXML is how many bytes of XML a domain may have: far more than a thousand devices
	// need, and a bound on what one domain can cost.
	maxXML = 1 << 20
	// unnamedNetwork is the network of addresses that Nova has written without its name.
	unnamedNetwork = "unnamed"
)

// domainXML is what this driver reads of a domain's XML. The usual library for it has
// every element, and loses the network of an interface whose network forwards to a bridge.
type domainXML struct {
	Metadata struct {
		Server *struct {
			Namespace string `xml:"namespace,attr"`
			Name      string `xml:"name,attr"`
			Networks  []struct {
				MAC       string   `xml:"mac,attr"`
				Name      string   `xml:"name,attr"`
				Addresses []string `xml:"https://hoststatus.dev/libvirt/1 address"`
			} `xml:"https://hoststatus.dev/libvirt/1 network"`
		} `xml:"https://hoststatus.dev/libvirt/1 server"`
		Nova    *novaXML `xml:"http://openstack.org/xmlns/libvirt/nova/1.1 instance"`
		OldNova *novaXML `xml:"http://openstack.org/xmlns/libvirt/nova/1.0 instance"`
	} `xml:"metadata"`
	Interfaces []struct {
		Type string `xml:"type,attr"`
		MAC  struct {
			Address string `xml:"address,attr"`
		} `xml:"mac"`
		Source struct {
			Network string `xml:"network,attr"`
			Bridge  string `xml:"bridge,attr"`
		} `xml:"source"`
	} `xml:"devices>interface"`
}

// novaXML is what Nova writes. The instance's name in it is free text of its owner, and so
// names nothing here.
type novaXML struct {
	Project struct {
		UUID string `xml:"uuid,attr"`
	} `xml:"owner>project"`
	Addresses []struct {
		Type    string `xml:"type,attr"`
		Address string `xml:"address,attr"`
	} `xml:"ports>port>ip"`
}

// details are what a domain's XML says.
type details struct {
	// server is empty for a domain that is no Server.
	server types.NamespacedName
	// problem is why a domain that means to be a Server cannot be one, or empty.
	problem string
	// networks are those that the metadata or Nova name, with their addresses.
	networks []v1alpha1.ServerNetwork
	// leased are the interfaces whose addresses only a DHCP lease can tell.
	leased []leasedInterface
}

// leasedInterface is an interface of which the metadata has no address.
type leasedInterface struct{ mac, network string }

// readXML returns what the XML of the domain with this UUID says.
func readXML(text, uuid string, o *Options) (details, error) {
	if len(text) > maxXML {
		return details{}, fmt.Errorf("its XML has %d bytes, more than %d", len(text), maxXML)
	}
	var x domainXML
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return details{}, fmt.Errorf("reading its XML: %w", err)
	}
	var d details
	switch nova := x.nova(); {
	case x.Metadata.Server != nil && slices.Contains(o.Identity, IdentityMetadata):
		d.server = types.NamespacedName{Namespace: x.Metadata.Server.Namespace, Name: x.Metadata.Server.Name}
		d.problem = unusable(d.server)
		d.addNetworks(&x)
	case nova != nil && slices.Contains(o.Identity, IdentityNova):
		d.server = types.NamespacedName{Namespace: o.NovaNamespace, Name: uuid}
		if d.server.Namespace == "" {
			d.server.Namespace = nova.Project.UUID
		}
		d.problem = unusable(d.server)
		d.addNovaNetworks(&x, nova)
	}
	if d.problem != "" || d.server.Name == "" {
		return details{problem: d.problem}, nil
	}
	return d, nil
}

func (x *domainXML) nova() *novaXML {
	if x.Metadata.Nova != nil {
		return x.Metadata.Nova
	}
	return x.Metadata.OldNova
}

// addNetworks adds those of the metadata, for interfaces that the domain still has, and
// the interfaces whose addresses it leaves out.
func (d *details) addNetworks(x *domainXML) {
	named := map[string]string{} // networks by MAC
	known := map[string]bool{}   // MACs with addresses
	for _, n := range x.Metadata.Server.Networks {
		mac := normalMAC(n.MAC)
		if n.MAC != "" && !x.hasInterface(mac) {
			continue
		}
		d.networks = append(d.networks, v1alpha1.ServerNetwork{Name: n.Name, Addresses: trimmed(n.Addresses)})
		if n.MAC != "" {
			named[mac], known[mac] = n.Name, known[mac] || len(n.Addresses) > 0
		}
	}
	for _, i := range x.Interfaces {
		mac := normalMAC(i.MAC.Address)
		network, isNamed := named[mac]
		switch {
		case isNamed:
		case i.Source.Network != "":
			network = i.Source.Network
		default:
			network = i.Source.Bridge
		}
		// Only libvirt's own networks have leases that it knows.
		if i.Type == "network" && mac != "" && !known[mac] && network != "" {
			d.leased = append(d.leased, leasedInterface{mac: mac, network: network})
		}
	}
}

// addNovaNetworks adds the fixed addresses, which Nova writes since 2025.1, without the
// names of their networks. Those of before are in nothing that libvirt knows.
func (d *details) addNovaNetworks(x *domainXML, nova *novaXML) {
	var fixed []string
	for _, ip := range nova.Addresses {
		if ip.Type == "fixed" {
			fixed = append(fixed, ip.Address)
		}
	}
	if len(fixed) > 0 {
		d.networks = []v1alpha1.ServerNetwork{{Name: unnamedNetwork, Addresses: trimmed(fixed)}}
		return
	}
	for _, i := range x.Interfaces {
		if mac := normalMAC(i.MAC.Address); i.Type == "network" && mac != "" && i.Source.Network != "" {
			d.leased = append(d.leased, leasedInterface{mac: mac, network: i.Source.Network})
		}
	}
}

func (x *domainXML) hasInterface(mac string) bool {
	for _, i := range x.Interfaces {
		if normalMAC(i.MAC.Address) == mac {
			return true
		}
	}
	return false
}

// unusable returns why a Server cannot have this name, or nothing.
func unusable(server types.NamespacedName) string {
	if wrong := validation.IsDNS1123Label(server.Namespace); len(wrong) > 0 {
		return fmt.Sprintf("namespace %s: %s", quoted(server.Namespace), strings.Join(wrong, "; "))
	}
	if wrong := validation.IsDNS1123Subdomain(server.Name); len(wrong) > 0 {
		return fmt.Sprintf("name %s: %s", quoted(server.Name), strings.Join(wrong, "; "))
	}
	return ""
}

// normalMAC returns an address as it is compared, or "" if it is none.
func normalMAC(text string) string {
	mac, err := net.ParseMAC(strings.TrimSpace(text))
	if err != nil {
		return ""
	}
	return mac.String()
}

func trimmed(texts []string) (all []string) {
	for _, text := range texts {
		if text = strings.TrimSpace(text); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// The most characters of untrusted texts that go on a line of the log.
const (
	maxName    = 64
	maxProblem = 512
)

// quoted is untrusted text within a line of the log.
func quoted(text string) string { return fmt.Sprintf("%q", shortened(text)) }

// shortened is a name from outside as a value on a line of the log.
func shortened(text string) string { return printable.CleanUpTo(maxName, text) }
