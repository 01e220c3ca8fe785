// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var now = metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

type vmiModifier = func(*VirtualMachineInstance)

// vmiWith is one that runs on node-1, with one network and one label that owners see.
func vmiWith(modify ...vmiModifier) *VirtualMachineInstance {
	v := &VirtualMachineInstance{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "team-a", Name: "web-1", UID: "uid-1",
			Labels: map[string]string{"app": "web", "kubevirt.io/nodeName": "node-1"},
		},
		Status: VirtualMachineInstanceStatus{
			Phase: PhaseRunning, NodeName: "node-1",
			Interfaces: []Interface{{Name: "default", IP: "10.0.0.4", IPs: []string{"10.0.0.4", "fd00::4"}}},
		},
	}
	for _, m := range modify {
		m(v)
	}
	return v
}

func phase(p Phase) vmiModifier { return func(v *VirtualMachineInstance) { v.Status.Phase = p } }

func onNode(name string) vmiModifier {
	return func(v *VirtualMachineInstance) { v.Status.NodeName = name }
}

func condition(kind string, status corev1.ConditionStatus) vmiModifier {
	return func(v *VirtualMachineInstance) {
		v.Status.Conditions = append(v.Status.Conditions, Condition{Type: kind, Status: status})
	}
}

func migration(m MigrationState) vmiModifier {
	return func(v *VirtualMachineInstance) { v.Status.MigrationState = &m }
}

func ending(v *VirtualMachineInstance)  { v.DeletionTimestamp = &now }
func another(v *VirtualMachineInstance) { v.UID = "uid-2" }

func evacuated(v *VirtualMachineInstance) { v.Status.EvacuationNodeName = "node-1" }

func labelled(key, value string) vmiModifier {
	return func(v *VirtualMachineInstance) {
		v.Labels = maps.Clone(v.Labels)
		v.Labels[key] = value
	}
}

var (
	paused    = condition("Paused", corev1.ConditionTrue)
	migrating = migration(MigrationState{StartTimestamp: &now})
)

func TestStatesAreThoseOfNova(t *testing.T) {
	for name, c := range map[string]struct {
		vmi *VirtualMachineInstance
		// want is state, power state and task state.
		want string
	}{
		"new":                                   {vmiWith(phase(PhaseUnset)), "BUILD NOSTATE scheduling"},
		"pending":                               {vmiWith(phase(PhasePending)), "BUILD NOSTATE scheduling"},
		"its pod is not there yet":              {vmiWith(phase(PhaseScheduling)), "BUILD NOSTATE scheduling"},
		"its pod is on a node":                  {vmiWith(phase(PhaseScheduled)), "BUILD NOSTATE spawning"},
		"it waits for one of another cluster":   {vmiWith(phase(PhaseWaitingForSync)), "BUILD NOSTATE "},
		"running":                               {vmiWith(), "ACTIVE RUNNING "},
		"paused":                                {vmiWith(paused), "PAUSED PAUSED "},
		"paused before":                         {vmiWith(condition("Paused", corev1.ConditionFalse)), "ACTIVE RUNNING "},
		"paused, and its phase is another":      {vmiWith(paused, phase(PhaseSucceeded)), "SHUTOFF SHUTDOWN "},
		"shut down from inside":                 {vmiWith(phase(PhaseSucceeded)), "SHUTOFF SHUTDOWN "},
		"crashed":                               {vmiWith(phase(PhaseFailed)), "ERROR CRASHED "},
		"to leave its node":                     {vmiWith(evacuated), "ACTIVE RUNNING eviction-requested"},
		"to leave its node, by its condition":   {vmiWith(condition("EvictionRequested", corev1.ConditionTrue)), "ACTIVE RUNNING eviction-requested"},
		"a migration is prepared":               {vmiWith(migration(MigrationState{})), "ACTIVE RUNNING "},
		"migrating":                             {vmiWith(migrating), "MIGRATING RUNNING migrating"},
		"migrating, as it has to leave":         {vmiWith(migrating, evacuated), "MIGRATING RUNNING migrating"},
		"migrating while paused":                {vmiWith(migrating, paused), "MIGRATING PAUSED migrating"},
		"migrated":                              {vmiWith(migration(MigrationState{StartTimestamp: &now, EndTimestamp: &now, Completed: true}), onNode("node-2")), "ACTIVE RUNNING "},
		"a migration that has failed":           {vmiWith(migration(MigrationState{StartTimestamp: &now, Completed: true})), "ACTIVE RUNNING "},
		"crashed while migrating":               {vmiWith(migrating, phase(PhaseFailed)), "ERROR CRASHED "},
		"being deleted":                         {vmiWith(ending), "ACTIVE RUNNING deleting"},
		"being deleted while migrating":         {vmiWith(ending, migrating), "MIGRATING RUNNING deleting"},
		"being deleted before it has run":       {vmiWith(ending, phase(PhasePending)), "BUILD NOSTATE deleting"},
		"KubeVirt does not know":                {vmiWith(phase(PhaseUnknown)), "stays"},
		"KubeVirt does not know, and paused":    {vmiWith(phase(PhaseUnknown), paused), "stays"},
		"a phase of a KubeVirt that is to come": {vmiWith(phase("Dreaming")), "stays"},
	} {
		t.Run(name, func(t *testing.T) {
			got := "stays"
			if r := report(c.vmi); r != nil {
				got = string(r.State) + " " + string(r.PowerState) + " " + r.TaskState
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestNetworksAreThoseThatAServerMayHave(t *testing.T) {
	many := make([]Interface, 40)
	for i := range many {
		many[i].Name = strings.Repeat("x", i+1)
	}
	for name, c := range map[string]struct {
		in   []Interface
		want []v1alpha1.ServerNetwork
	}{
		"none":                          {nil, nil},
		"no address yet":                {[]Interface{{Name: "a"}}, []v1alpha1.ServerNetwork{{Name: "a"}}},
		"one address":                   {[]Interface{{Name: "a", IP: "10.0.0.1"}}, []v1alpha1.ServerNetwork{{Name: "a", Addresses: []string{"10.0.0.1"}}}},
		"the first is among all":        {[]Interface{{Name: "a", IP: "10.0.0.1", IPs: []string{"10.0.0.1", "10.0.0.2"}}}, []v1alpha1.ServerNetwork{{Name: "a", Addresses: []string{"10.0.0.1", "10.0.0.2"}}}},
		"only in the guest":             {[]Interface{{IP: "172.17.0.1"}}, nil},
		"a name that is no line":        {[]Interface{{Name: "a\nb", IP: "10.0.0.1"}}, nil},
		"an address with its prefix":    {[]Interface{{Name: "a", IP: "10.0.0.1/24"}}, []v1alpha1.ServerNetwork{{Name: "a", Addresses: []string{"10.0.0.1"}}}},
		"IPv6 in another form":          {[]Interface{{Name: "a", IPs: []string{"FD00:0::1", "fd00::1"}}}, []v1alpha1.ServerNetwork{{Name: "a", Addresses: []string{"fd00::1"}}}},
		"what is no address of its own": {[]Interface{{Name: "a", IPs: []string{"fe80::1%eth0", "::ffff:10.0.0.1", "unknown", ""}}}, []v1alpha1.ServerNetwork{{Name: "a"}}},
		"one name twice":                {[]Interface{{Name: "a", IP: "10.0.0.1"}, {Name: "b"}, {Name: "a", IP: "10.0.0.2"}}, []v1alpha1.ServerNetwork{{Name: "a", Addresses: []string{"10.0.0.1", "10.0.0.2"}}, {Name: "b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, networks(c.in)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := len(networks(many)); got != maxListed {
		t.Errorf("%d networks", got)
	}
	if got := networks([]Interface{{Name: "a", IPs: tooMany()}}); len(got[0].Addresses) != maxListed {
		t.Errorf("%d addresses", len(got[0].Addresses))
	}
}

func tooMany() (addresses []string) {
	for i := range 40 {
		addresses = append(addresses, fmt.Sprintf("10.0.0.%d", i))
	}
	return addresses
}

func TestOnlyTheLabelsThatOwnersSeeAreCopied(t *testing.T) {
	got := shownLabels(map[string]string{
		"app": "web", "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "argo", "kubevirt.io/nodeName": "node-1", "example.com/x": "y",
	})
	if diff := cmp.Diff(map[string]string{"app": "web", "app.kubernetes.io/name": "web"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

type serverModifier = func(*v1alpha1.Server)

// serverOf is the Server of a VirtualMachineInstance, as the API server has it.
func serverOf(vmi *VirtualMachineInstance, modify ...serverModifier) *v1alpha1.Server {
	v := viewOf(vmi)
	s := &v1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: vmi.Namespace, Name: vmi.Name, UID: "server-1", ResourceVersion: "7", Labels: maps.Clone(v.labels),
			Annotations:     map[string]string{AnnotationLabels: keys(v.labels)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "kubevirt.io/v1", Kind: Kind, Name: vmi.Name, UID: vmi.UID, Controller: ptr.To(true)}},
		},
		Spec: v1alpha1.ServerSpec{Host: v.host, ProviderID: v.providerID},
	}
	if r := v.reported; r != nil {
		s.Status = v1alpha1.ServerStatus{State: r.State, TaskState: r.TaskState, PowerState: r.PowerState, Networks: r.Networks}
	}
	for _, m := range modify {
		m(s)
	}
	return s
}

// cached returns a Server as the cache has it.
func cached(t *testing.T, server *v1alpha1.Server) *v1alpha1.Server {
	t.Helper()
	if server == nil {
		return nil
	}
	out, err := KeepMirrored(func(obj any) (any, error) {
		s := obj.(*v1alpha1.Server)
		return &v1alpha1.Server{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, ResourceVersion: s.ResourceVersion, DeletionTimestamp: s.DeletionTimestamp},
			Spec:       v1alpha1.ServerSpec{Host: s.Spec.Host},
			Status:     s.Status,
		}, nil
	})(server.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	return out.(*v1alpha1.Server)
}

func ownedOtherwise(modify func(*metav1.OwnerReference)) serverModifier {
	return func(s *v1alpha1.Server) { modify(&s.OwnerReferences[0]) }
}

func TestDecisions(t *testing.T) {
	noOwner := func(s *v1alpha1.Server) { s.OwnerReferences = nil }
	serverEnding := func(s *v1alpha1.Server) { s.DeletionTimestamp = &now }
	for name, c := range map[string]struct {
		vmi        *VirtualMachineInstance
		unselected bool
		server     *v1alpha1.Server
		want       action
		message    string
	}{
		"neither":                                  {want: leave},
		"a new one":                                {vmi: vmiWith(), want: create},
		"a new one that is not selected":           {vmi: vmiWith(), unselected: true, want: leave},
		"one that ends already":                    {vmi: vmiWith(ending), want: leave},
		"nothing differs":                          {vmi: vmiWith(), server: serverOf(vmiWith()), want: leave},
		"it has moved":                             {vmi: vmiWith(onNode("node-2")), server: serverOf(vmiWith()), want: update},
		"it is paused":                             {vmi: vmiWith(paused), server: serverOf(vmiWith()), want: update},
		"it begins to end":                         {vmi: vmiWith(ending), server: serverOf(vmiWith()), want: update},
		"KubeVirt lost sight of it":                {vmi: vmiWith(phase(PhaseUnknown)), server: serverOf(vmiWith(paused)), want: leave},
		"KubeVirt lost sight of it, and it moved":  {vmi: vmiWith(phase(PhaseUnknown), onNode("node-2")), server: serverOf(vmiWith()), want: update},
		"another label":                            {vmi: vmiWith(labelled("tier", "a")), server: serverOf(vmiWith()), want: update},
		"another label that owners do not see":     {vmi: vmiWith(labelled("x.io/tier", "a")), server: serverOf(vmiWith()), want: leave},
		"a label less":                             {vmi: vmiWith(), server: serverOf(vmiWith(labelled("tier", "a"))), want: update},
		"a label with another value":               {vmi: vmiWith(labelled("app", "b")), server: serverOf(vmiWith()), want: update},
		"a person has added a label":               {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Labels["mine"] = "x" }), want: leave},
		"a person has changed a label":             {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Labels["app"] = "x" }), want: update},
		"a person has removed a label":             {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { delete(s.Labels, "app") }), want: update},
		"a person has removed the annotation":      {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Annotations = nil }), want: update},
		"a person has moved it":                    {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Spec.Host = "node-9" }), want: update},
		"a person has changed the provider id":     {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Spec.ProviderID = "x" }), want: update},
		"somebody has reported on it":              {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Status.State = "ERROR" }), want: update},
		"only the host's state":                    {vmi: vmiWith(), server: serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Status.HostStatus = ptr.To(v1alpha1.HostStatusDown) }), want: leave},
		"it is gone":                               {server: serverOf(vmiWith()), want: leave},
		"the Server ends":                          {vmi: vmiWith(paused), server: serverOf(vmiWith(), serverEnding), want: leave},
		"another machine of the name":              {vmi: vmiWith(another), server: serverOf(vmiWith()), want: remove, message: messageReplaced},
		"another machine, not selected":            {vmi: vmiWith(another), unselected: true, server: serverOf(vmiWith()), want: remove, message: messageReplaced},
		"another machine, and the old Server ends": {vmi: vmiWith(another), server: serverOf(vmiWith(), serverEnding), want: leave},
		"a person's Server":                        {vmi: vmiWith(), server: serverOf(vmiWith(), noOwner), want: leave, message: messageForeign},
		"a person's Server, and not selected":      {vmi: vmiWith(), unselected: true, server: serverOf(vmiWith(), noOwner), want: leave},
		"a person's Server, and it ends":           {vmi: vmiWith(ending), server: serverOf(vmiWith(), noOwner), want: leave},
		"an owner that does not control it":        {vmi: vmiWith(), server: serverOf(vmiWith(), ownedOtherwise(func(o *metav1.OwnerReference) { o.Controller = nil })), want: leave, message: messageForeign},
		"an owner of another kind":                 {vmi: vmiWith(), server: serverOf(vmiWith(), ownedOtherwise(func(o *metav1.OwnerReference) { o.Kind = "VirtualMachine" })), want: leave, message: messageForeign},
		"an owner of another group":                {vmi: vmiWith(), server: serverOf(vmiWith(), ownedOtherwise(func(o *metav1.OwnerReference) { o.APIVersion = "example.com/v1" })), want: leave, message: messageForeign},
		"an owner of another name":                 {vmi: vmiWith(), server: serverOf(vmiWith(), ownedOtherwise(func(o *metav1.OwnerReference) { o.Name = "web-2" })), want: leave, message: messageForeign},
		"an owner of another version":              {vmi: vmiWith(), server: serverOf(vmiWith(), ownedOtherwise(func(o *metav1.OwnerReference) { o.APIVersion = "kubevirt.io/v1alpha3" })), want: leave},
		"no longer selected":                       {vmi: vmiWith(), unselected: true, server: serverOf(vmiWith()), want: leave, message: messageUnselected},
		"no longer selected, and moved":            {vmi: vmiWith(onNode("node-2")), unselected: true, server: serverOf(vmiWith()), want: update, message: messageUnselected},
	} {
		t.Run(name, func(t *testing.T) {
			got := decide(c.vmi, c.vmi != nil && !c.unselected, cached(t, c.server))
			if got.action != c.want || got.message != c.message {
				t.Errorf("%s (%q), want %s (%q)", got.action, got.message, c.want, c.message)
			}
		})
	}
}

func TestAPatchHasOnlyWhatDiffers(t *testing.T) {
	const head = `{"metadata":{"annotations":`
	const tail = `"resourceVersion":"7","uid":"server-1"},"spec":`
	for name, c := range map[string]struct {
		vmi    *VirtualMachineInstance
		server *v1alpha1.Server
		want   string
	}{
		"nothing":                       {vmiWith(), serverOf(vmiWith()), ""},
		"the host":                      {vmiWith(onNode("node-2")), serverOf(vmiWith()), head + `{},"labels":{},` + tail + `{"host":"node-2"}}`},
		"no host":                       {vmiWith(onNode("")), serverOf(vmiWith()), head + `{},"labels":{},` + tail + `{"host":""}}`},
		"a label more":                  {vmiWith(labelled("tier", "a")), serverOf(vmiWith()), head + `{"` + AnnotationLabels + `":"app,tier"},"labels":{"tier":"a"},` + tail + `{}}`},
		"a label less":                  {vmiWith(), serverOf(vmiWith(labelled("tier", "a"))), head + `{"` + AnnotationLabels + `":"app"},"labels":{"tier":null},` + tail + `{}}`},
		"no label, and one of a person": {vmiWith(func(v *VirtualMachineInstance) { v.Labels = nil }), serverOf(vmiWith(), func(s *v1alpha1.Server) { s.Labels["mine"] = "x" }), head + `{"` + AnnotationLabels + `":null},"labels":{"app":null},` + tail + `{}}`},
		"a person has removed one":      {vmiWith(), serverOf(vmiWith(labelled("tier", "a")), func(s *v1alpha1.Server) { delete(s.Labels, "tier") }), head + `{"` + AnnotationLabels + `":"app"},"labels":{},` + tail + `{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			v := viewOf(c.vmi)
			got, err := v.patch(c.server)
			if err != nil || string(got) != c.want {
				t.Errorf("%v\n%s, want\n%s", err, got, c.want)
			}
		})
	}
}

func TestOnlyWhatTheMirrorUsesWakesIt(t *testing.T) {
	selector, err := labels.Parse("kubevirt.io/size!=small")
	if err != nil {
		t.Fatal(err)
	}
	wakes := NewReconciler(nil, nil, nil, selector, nil).vmiChange()
	for name, c := range map[string]struct {
		after *VirtualMachineInstance
		want  bool
	}{
		"a write of KubeVirt's own":   {vmiWith(func(v *VirtualMachineInstance) { v.ResourceVersion = "2" }), false},
		"a label that is not copied":  {vmiWith(labelled("kubevirt.io/nodeName", "node-2")), false},
		"a label that is copied":      {vmiWith(labelled("app", "db")), true},
		"a label that unselects it":   {vmiWith(labelled("kubevirt.io/size", "small")), true},
		"it moves":                    {vmiWith(onNode("node-2")), true},
		"it pauses":                   {vmiWith(paused), true},
		"a migration that is planned": {vmiWith(migration(MigrationState{})), false},
		"a migration that begins":     {vmiWith(migrating), true},
		"an address": {vmiWith(func(v *VirtualMachineInstance) {
			v.Status.Interfaces[0].IPs = append(v.Status.Interfaces[0].IPs, "10.0.0.5")
		}), true},
		"it begins to end":          {vmiWith(ending), true},
		"another of that name":      {vmiWith(another), true},
		"KubeVirt lost sight of it": {vmiWith(phase(PhaseUnknown)), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := wakes.Update(event.TypedUpdateEvent[*VirtualMachineInstance]{ObjectOld: vmiWith(), ObjectNew: c.after}); got != c.want {
				t.Errorf("wakes: %v", got)
			}
		})
	}
}

func TestTheStateOfItsHostWakesNobody(t *testing.T) {
	update := func(modify serverModifier) bool {
		before, after := serverOf(vmiWith()), serverOf(vmiWith(), modify)
		return serverChange.Update(event.UpdateEvent{ObjectOld: cached(t, before), ObjectNew: cached(t, after)})
	}
	for name, c := range map[string]struct {
		modify serverModifier
		want   bool
	}{
		"its host fields": {func(s *v1alpha1.Server) {
			s.Status.HostStatus, s.ResourceVersion = ptr.To(v1alpha1.HostStatusDown), "8"
		}, false},
		"a label of another": {func(s *v1alpha1.Server) { s.Labels["mine"] = "x" }, false},
		"a mirrored label":   {func(s *v1alpha1.Server) { s.Labels["app"] = "x" }, true},
		"its host":           {func(s *v1alpha1.Server) { s.Spec.Host = "x" }, true},
		"its state":          {func(s *v1alpha1.Server) { s.Status.State = "ERROR" }, true},
		"its owner":          {func(s *v1alpha1.Server) { s.OwnerReferences = nil }, true},
	} {
		if got := update(c.modify); got != c.want {
			t.Errorf("%s wakes: %v", name, got)
		}
	}
	if serverChange.Create(event.CreateEvent{Object: serverOf(vmiWith()), IsInInitialList: true}) {
		t.Error("what exists at the start wakes the mirror twice")
	}
}

// stripped is what the cache has of a VirtualMachineInstance, with this selector.
func stripped(t *testing.T, selector string, vmi *VirtualMachineInstance) *VirtualMachineInstance {
	t.Helper()
	parsed, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	out, err := StripVMI(parsed)(vmi.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	return out.(*VirtualMachineInstance)
}

// A tenant writes labels, and a guest reports addresses, without a bound of Kubernetes'. Neither
// takes the memory of those who hold everybody's.
func TestWhatATenantWritesWithoutABoundIsBounded(t *testing.T) {
	full := vmiWith(func(v *VirtualMachineInstance) {
		v.Labels = map[string]string{"kubevirt.io/size": "small", "zone": "a"}
		for i := range 10_000 {
			v.Labels[fmt.Sprintf("l%05d", i)] = strings.Repeat("x", 63)
			v.Status.Interfaces = append(v.Status.Interfaces, Interface{IP: "10.0.0.1"}, Interface{Name: "default", IP: fmt.Sprintf("fd00::%x", i)})
		}
	})
	view := viewOf(full)
	if len(view.labels) != maxLabels || view.labels["l00000"] == "" {
		t.Errorf("a Server gets %d labels", len(view.labels))
	}
	kept := stripped(t, "kubevirt.io/size=small,zone", full)
	if len(kept.Labels) != maxLabels+2 || len(kept.Status.Interfaces) != 1 || len(kept.Status.Interfaces[0].IPs) != maxListed {
		t.Errorf("the cache keeps %d labels and %d interfaces", len(kept.Labels), len(kept.Status.Interfaces))
	}
	if diff := cmp.Diff(shown(full), shown(kept)); diff != "" {
		t.Errorf("of what is kept, a Server shows something else (-want +got):\n%s", diff)
	}
}

func TestTheCachesKeepWhatDecides(t *testing.T) {
	full := vmiWith(paused, condition("Ready", corev1.ConditionTrue), migrating)
	full.Annotations = map[string]string{"large": strings.Repeat("x", 1000)}
	copied := full.DeepCopy()
	if diff := cmp.Diff(full, copied); diff != "" {
		t.Errorf("the copy (-want +got):\n%s", diff)
	}
	want := vmiWith(paused, migrating)
	want.Labels = map[string]string{"app": "web"} // That of the node is not shown.
	want.Status.Interfaces[0].IP = ""             // It is among the others.
	if diff := cmp.Diff(want, stripped(t, "", copied)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	kept := cached(t, serverOf(vmiWith()))
	if kept.Labels != nil || kept.Annotations != nil || len(kept.Spec.ProviderID) != 16 || ownerOf(kept) != "uid-1" {
		t.Errorf("kept: %+v", kept)
	}
	person := serverOf(vmiWith(), func(s *v1alpha1.Server) { s.OwnerReferences = nil })
	if kept := cached(t, person); kept.Spec.ProviderID != "" || Mirrored(kept) {
		t.Errorf("kept of a person's: %+v", kept)
	}
}
