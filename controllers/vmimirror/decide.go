// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	"crypto/sha256"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/reported"
)

// action is what the mirror does about one VirtualMachineInstance.
type action string

const (
	leave  action = "leave"
	create action = "create"
	update action = "update"
	remove action = "delete"
)

// decision is what to do about a VirtualMachineInstance and the Server of its name.
type decision struct {
	action action
	// message explains to people a decision that may surprise them.
	message string
}

const (
	messageForeign    = "A Server with the VirtualMachineInstance's name exists that the mirror has not created, so it is left alone; delete it, and the mirror creates its own"
	messageUnselected = "The VirtualMachineInstance is no longer selected. It stays mirrored until it is gone"
	messageReplaced   = "The VirtualMachineInstance was replaced by another with the same name"
)

// decide compares a VirtualMachineInstance with the Server of its name; either is nil if
// it does not exist. The Server is as the mirror's cache has it.
func decide(vmi *VirtualMachineInstance, selected bool, server *v1alpha1.Server) decision {
	switch {
	case vmi == nil:
		// A Server without its owner is the garbage collector's.
		return decision{action: leave}
	case server == nil && (!selected || vmi.DeletionTimestamp != nil):
		return decision{action: leave}
	case server == nil:
		return decision{action: create}
	case server.DeletionTimestamp != nil:
		return decision{action: leave} // Its end wakes us.
	}
	switch owner := ownerOf(server); {
	case owner == "" && selected && vmi.DeletionTimestamp == nil:
		return decision{action: leave, message: messageForeign}
	case owner == "":
		return decision{action: leave}
	case owner != vmi.UID:
		// Another machine, so another Server: what was recorded of the old one does not hold.
		return decision{action: remove, message: messageReplaced}
	}
	d := decision{action: leave}
	if !selected {
		d.message = messageUnselected
	}
	if want := viewOf(vmi); want.differsInSpec(server) || want.differsInStatus(server) {
		d.action = update
	}
	return d
}

// view is what a Server shows of a VirtualMachineInstance.
type view struct {
	host, providerID string
	labels           map[string]string
	// reported is nil where the last one stays.
	reported *reported.Fields
}

func viewOf(vmi *VirtualMachineInstance) view {
	return view{
		host:       vmi.Status.NodeName,
		providerID: "kubevirt://" + vmi.Namespace + "/" + vmi.Name,
		labels:     shownLabels(vmi.Labels),
		reported:   report(vmi),
	}
}

// differsInSpec reports whether the spec or the labels of a Server, as the cache has it,
// have to be written.
func (v *view) differsInSpec(server *v1alpha1.Server) bool {
	return server.Spec.Host != v.host || server.Spec.ProviderID != fingerprint(v.providerID, keys(v.labels), v.labels)
}

func (v *view) differsInStatus(server *v1alpha1.Server) bool {
	return v.reported != nil && !reported.Equal(reported.Of(&server.Status), *v.reported)
}

// The tasks that have no name of Nova's own are called what KubeVirt calls them.
const (
	taskScheduling        = "scheduling"
	taskSpawning          = "spawning"
	taskMigrating         = "migrating"
	taskDeleting          = "deleting"
	taskEvictionRequested = "eviction-requested"
)

// phases are the states that follow from a phase alone. A phase that is not here says
// nothing about the machine.
var phases = map[Phase]reported.Fields{
	PhaseUnset:          {State: "BUILD", PowerState: "NOSTATE", TaskState: taskScheduling},
	PhasePending:        {State: "BUILD", PowerState: "NOSTATE", TaskState: taskScheduling},
	PhaseScheduling:     {State: "BUILD", PowerState: "NOSTATE", TaskState: taskScheduling},
	PhaseScheduled:      {State: "BUILD", PowerState: "NOSTATE", TaskState: taskSpawning},
	PhaseWaitingForSync: {State: "BUILD", PowerState: "NOSTATE"},
	PhaseRunning:        {State: "ACTIVE", PowerState: "RUNNING"},
	PhaseSucceeded:      {State: "SHUTOFF", PowerState: "SHUTDOWN"},
	PhaseFailed:         {State: "ERROR", PowerState: "CRASHED"},
}

// report returns the states and networks of a VirtualMachineInstance in Nova's words; nil
// if KubeVirt does not know them, and what was reported last stays.
func report(vmi *VirtualMachineInstance) *reported.Fields {
	r, known := phases[vmi.Status.Phase]
	if !known {
		return nil
	}
	if vmi.Status.Phase == PhaseRunning {
		if has(vmi, conditionPaused) {
			r.State, r.PowerState = "PAUSED", "PAUSED"
		}
		switch {
		case migrates(vmi.Status.MigrationState):
			r.State, r.TaskState = "MIGRATING", taskMigrating
		case vmi.Status.EvacuationNodeName != "" || has(vmi, conditionEvictionRequested):
			r.TaskState = taskEvictionRequested
		}
	}
	if vmi.DeletionTimestamp != nil {
		r.TaskState = taskDeleting
	}
	r.Networks = networks(vmi.Status.Interfaces)
	return &r
}

func has(vmi *VirtualMachineInstance, condition string) bool {
	return slices.ContainsFunc(vmi.Status.Conditions, func(c Condition) bool {
		return c.Type == condition && c.Status == corev1.ConditionTrue
	})
}

// migrates reports whether a live migration has begun and not ended, as KubeVirt's own
// components see it. The end and the new nodeName come in one write.
func migrates(m *MigrationState) bool {
	return m != nil && m.StartTimestamp != nil && m.EndTimestamp == nil && !m.Completed
}

// maxListed is how many networks, and addresses in each, a Server may have.
const maxListed = 32

// networks returns interfaces as networks of a Server. What a Server may not have is left
// out, since one odd address must not hide a state.
func networks(interfaces []Interface) []v1alpha1.ServerNetwork {
	var out []v1alpha1.ServerNetwork
	for _, i := range interfaces {
		if !isNetworkName(i.Name) {
			continue
		}
		at := slices.IndexFunc(out, func(n v1alpha1.ServerNetwork) bool { return n.Name == i.Name })
		if at < 0 {
			if len(out) == maxListed {
				continue
			}
			at, out = len(out), append(out, v1alpha1.ServerNetwork{Name: i.Name})
		}
		network := &out[at]
		for _, text := range append([]string{i.IP}, i.IPs...) {
			address, ok := parseAddress(text)
			if ok && len(network.Addresses) < maxListed && !slices.Contains(network.Addresses, address) {
				network.Addresses = append(network.Addresses, address)
			}
		}
	}
	return out
}

// isNetworkName reports whether name is one that KubeVirt accepts for a network. An
// interface that only the guest knows, such as a bridge in it, has none.
func isNetworkName(name string) bool {
	return name != "" && len(name) <= 253 && strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// parseAddress returns an IP address in its usual form.
func parseAddress(text string) (string, bool) {
	text, _, _ = strings.Cut(text, "/") // Some network plugins add the prefix length.
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" || address.Is4In6() {
		return "", false
	}
	return address.String(), true
}

const (
	recommendedLabelPrefix = "app.kubernetes.io/"
	// trackingLabel is the label by which Argo CD recognises its objects, and the Server is
	// none of them.
	trackingLabel = recommendedLabelPrefix + "instance"
)

// maxLabels is how many labels are copied, the first by their keys. A tenant can write
// megabytes of them, which every reader of the Server would have to hold.
const maxLabels = 64

// shownLabels returns the labels that owners see of a Server unless flags add more. The
// others belong to KubeVirt and its tools, and one has the name of the node.
func shownLabels(labels map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range labels {
		if !strings.Contains(key, "/") || strings.HasPrefix(key, recommendedLabelPrefix) && key != trackingLabel {
			out[key] = value
		}
	}
	if len(out) > maxLabels {
		for _, key := range slices.Sorted(maps.Keys(out))[maxLabels:] {
			delete(out, key)
		}
	}
	return out
}

// AnnotationLabels has the keys of the labels that the mirror has set on a Server,
// separated by commas. Labels that others have set there are not the mirror's to remove.
const AnnotationLabels = "compute.hoststatus.dev/mirrored-labels"

// keys returns the value of AnnotationLabels.
func keys(labels map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(labels)), ",")
}

// fingerprint is the same for equal provider ids and mirrored labels. The cache has it
// in place of both, which take more memory than the rest of a Server.
func fingerprint(providerID, mirrored string, labels map[string]string) string {
	hash := sha256.New()
	add := func(texts ...string) {
		for _, text := range texts {
			// No label, and no provider id, has a line break.
			hash.Write([]byte(text + "\n"))
		}
	}
	add(providerID, mirrored)
	for key := range strings.SplitSeq(mirrored, ",") {
		value, ok := labels[key]
		if !ok {
			value = "absent\r"
		}
		add(value)
	}
	return string(hash.Sum(nil)[:16])
}

// ownerOf returns the UID of the VirtualMachineInstance that a Server mirrors; empty if
// it mirrors none.
func ownerOf(server *v1alpha1.Server) types.UID {
	for i := range server.OwnerReferences {
		owner := &server.OwnerReferences[i]
		gv, err := schema.ParseGroupVersion(owner.APIVersion)
		if err == nil && gv.Group == GroupVersion.Group && owner.Kind == Kind && owner.Name == server.Name && ptr.Deref(owner.Controller, false) {
			return owner.UID
		}
	}
	return ""
}
