// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"cmp"
	"fmt"
	"slices"

	golibvirt "github.com/digitalocean/go-libvirt"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/reported"
)

// domain is one as libvirt lists it.
type domain struct {
	golibvirt.Domain
	state  golibvirt.DomainState
	reason int32
	// saved is whether it has a managed save image.
	saved bool
}

// active is whether something runs, which libvirt then numbers.
func (d *domain) active() bool { return d.ID >= 0 }

// entry is a domain and what is known of it beside the list.
type entry struct {
	domain
	details
	// leases are the addresses that DHCP gave, by MAC.
	leases map[string][]string
	// before are the fields that were last reported of it; nil if it was not.
	before *reported.Fields
	// leftBefore is whether it had been migrated away, and has not run since.
	leftBefore bool
}

// fields returns what is reported of an entry, and whether it has left this host. Nothing is
// nil.
func (e *entry) fields() (fields *reported.Fields, left bool) {
	f, p := fieldsOf(e.state, e.reason, e.saved)
	switch {
	case p == moved:
		return nil, true
	case e.leftBefore && e.state == golibvirt.DomainShutoff && golibvirt.DomainShutoffReason(e.reason) == golibvirt.DomainShutoffUnknown && !e.saved:
		// libvirtd was restarted, and has forgotten why it is off.
		return nil, true
	case p == starting && e.before == nil:
		return nil, false
	case p == starting:
		f = *e.before
	}
	f.Networks = e.addresses()
	return &f, false
}

// addresses returns the networks that the metadata names, and those in which there are
// leases.
func (e *entry) addresses() []v1alpha1.ServerNetwork {
	all := slices.Clone(e.networks)
	for _, i := range e.leased {
		addresses := e.leases[i.mac]
		if len(addresses) == 0 {
			continue
		}
		at := slices.IndexFunc(all, func(n v1alpha1.ServerNetwork) bool { return n.Name == i.network })
		if at < 0 {
			all = append(all, v1alpha1.ServerNetwork{Name: i.network, Addresses: slices.Clone(addresses)})
			continue
		}
		all[at].Addresses = append(slices.Clone(all[at].Addresses), addresses...)
	}
	return all
}

// claim is one domain that says it is a Server.
type claim struct {
	driver.VM
	domain string
	active bool
}

// compose returns the VMs, in the order of their names, and notes on Servers that more
// than one domain claims to be: of those the only active one counts, or else none.
func compose(claims []claim) (vms []driver.VM, notes map[types.NamespacedName]string) {
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.Server.Namespace, b.Server.Namespace), cmp.Compare(a.Server.Name, b.Server.Name), cmp.Compare(a.domain, b.domain))
	})
	notes = map[types.NamespacedName]string{}
	vms = make([]driver.VM, 0, len(claims))
	for len(claims) > 0 {
		same := 1
		for same < len(claims) && claims[same].Server == claims[0].Server {
			same++
		}
		rivals := claims[:same]
		claims = claims[same:]
		if same == 1 {
			vms = append(vms, rivals[0].VM)
			continue
		}
		active := slices.DeleteFunc(slices.Clone(rivals), func(c claim) bool { return !c.active })
		text := fmt.Sprintf("%d domains claim it, among them %s and %s; ", same, quoted(rivals[0].domain), quoted(rivals[1].domain))
		if len(active) == 1 {
			vms = append(vms, active[0].VM)
			text += "reporting " + quoted(active[0].domain) + ", the only active one"
		} else {
			text += fmt.Sprintf("%d of them are active; reporting none", len(active))
		}
		notes[rivals[0].Server] = text
	}
	return vms, notes
}
