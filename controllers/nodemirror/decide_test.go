// SPDX-License-Identifier: Apache-2.0

package nodemirror

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func nodeWith(modifiers ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-1"}}
	for _, modify := range modifiers {
		modify(n)
	}
	return n
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }
func inMaintenanceBecause(reason, message string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: "MaintenanceInProgress", Status: corev1.ConditionTrue, Reason: reason, Message: message})
	}
}

func TestTheReasonOfAMaintenanceIsThatOfTheNode(t *testing.T) {
	for name, c := range map[string]struct {
		node *corev1.Node
		want string
	}{
		"with both":         {nodeWith(inMaintenanceBecause("Firmware", "until noon")), "the Node has the condition MaintenanceInProgress: Firmware: until noon"},
		"without a message": {nodeWith(inMaintenanceBecause("Firmware", "")), "the Node has the condition MaintenanceInProgress: Firmware"},
		"without anything":  {nodeWith(inMaintenanceBecause("", "")), "the Node has the condition MaintenanceInProgress"},
		"also cordoned":     {nodeWith(cordoned, inMaintenanceBecause("Firmware", "")), "the Node has the condition MaintenanceInProgress: Firmware"},
		"several lines":     {nodeWith(inMaintenanceBecause("", "a\nb")), "the Node has the condition MaintenanceInProgress: a\uFFFDb"},
		"a very long one":   {nodeWith(inMaintenanceBecause("", strings.Repeat("ü", 300))), "the Node has the condition MaintenanceInProgress: " + strings.Repeat("ü", 256-50)},
		"another condition": {nodeWith(func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: "MaintenancePlanned", Status: corev1.ConditionTrue}}
		}), ""},
		"one that is not true": {nodeWith(func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: "MaintenanceInProgress", Status: corev1.ConditionFalse}}
		}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := flagsOf(c.node)
			if v[disabledReason] != c.want || (v[disabled] == "true") != (c.want != "") {
				t.Errorf("disabled %q with reason %q, want %q", v[disabled], v[disabledReason], c.want)
			}
		})
	}
}

func with(of corev1.NodeConditionType, owner string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: of, Status: corev1.ConditionTrue, Reason: "Disks"})
		if owner != "" {
			n.ManagedFields = append(n.ManagedFields, metav1.ManagedFieldsEntry{
				Manager: owner, Operation: metav1.ManagedFieldsOperationApply, Subresource: "status",
				FieldsV1: metav1.NewFieldsV1(`{"f:status":{"f:conditions":{"k:{\"type\":\"` + string(of) + `\"}":{".":{},"f:reason":{},"f:status":{},"f:type":{}}}}}`),
			})
		}
	}
}

func TestAPlannedMaintenanceIsAWindowWithoutATimeUnlessItIsOurOwn(t *testing.T) {
	const planned, inProgress = corev1.NodeMaintenancePlanned, corev1.NodeMaintenanceInProgress
	for name, c := range map[string]struct {
		node *corev1.Node
		want values
		own  corev1.NodeConditionType
	}{
		"planned":                 {nodeWith(with(planned, "")), values{windowReason: "the Node has the condition MaintenancePlanned: Disks"}, ""},
		"planned, by a tool":      {nodeWith(with(planned, "a-tool")), values{windowReason: "the Node has the condition MaintenancePlanned: Disks"}, ""},
		"planned, by us":          {nodeWith(with(planned, ConditionOwner)), values{}, planned},
		"in progress, by us":      {nodeWith(with(inProgress, ConditionOwner)), values{}, inProgress},
		"in progress beside ours": {nodeWith(with(planned, ConditionOwner), with(inProgress, "")), values{disabled: "true", disabledReason: "the Node has the condition MaintenanceInProgress: Disks"}, planned},
		"both":                    {nodeWith(with(planned, ""), with(inProgress, "")), values{windowReason: "the Node has the condition MaintenancePlanned: Disks", disabled: "true", disabledReason: "the Node has the condition MaintenanceInProgress: Disks"}, ""},
	} {
		// As the cache has it.
		stripped, err := StripNode(c.node)
		if err != nil {
			t.Fatal(err)
		}
		node := stripped.(*corev1.Node)
		if diff := cmp.Diff(c.want, flagsOf(node)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		var own corev1.NodeConditionType
		if o := OwnCondition(node); o != nil {
			own = o.Type
		}
		if own != c.own {
			t.Errorf("%s: own condition %q, want %q", name, own, c.own)
		}
	}
}

func windowBy(mirror bool, w v1alpha1.MaintenanceWindow) change {
	return func(s *v1alpha1.ComputeService, owned map[string]bool) {
		s.Spec.MaintenanceWindow, owned[windowReason] = &w, mirror
		prune(owned)
	}
}

func TestAWindowThatSomebodyElseHasMadeIsTheirs(t *testing.T) {
	planned := nodeWith(with(corev1.NodeMaintenancePlanned, ""))
	reason := "the Node has the condition MaintenancePlanned: Disks"
	mine := v1alpha1.MaintenanceWindow{Reason: &reason}
	timed := v1alpha1.MaintenanceWindow{Reason: &reason, StartTime: ptr.To(metav1.Now())}
	theirs := v1alpha1.MaintenanceWindow{StartTime: ptr.To(metav1.Now())}
	for name, c := range map[string]struct {
		node    *corev1.Node
		service *v1alpha1.ComputeService
		want    action
	}{
		"none yet":                         {planned, serviceWith(), applyFields},
		"announced":                        {planned, serviceWith(windowBy(true, mine)), leave},
		"announced, and a time was added":  {planned, serviceWith(windowBy(true, timed)), leave},
		"somebody else's":                  {planned, serviceWith(windowBy(false, theirs)), leave},
		"somebody else's, without a plan":  {nodeWith(), serviceWith(windowBy(false, theirs)), leave},
		"the plan was given up":            {nodeWith(), serviceWith(windowBy(true, mine)), applyFields},
		"what was planned was set by us":   {nodeWith(with(corev1.NodeMaintenancePlanned, ConditionOwner)), serviceWith(windowBy(false, theirs)), leave},
		"set by us, of a window of before": {nodeWith(with(corev1.NodeMaintenancePlanned, ConditionOwner)), serviceWith(), leave},
	} {
		if d := decide(c.node, true, c.service); d.action != c.want {
			t.Errorf("%s: %s %v, want %s", name, d.action, d.fields, c.want)
		}
	}
}

func anotherUID(n *corev1.Node) {
	n.UID = "uid-2"
}

func tainted(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffectNoExecute})
	}
}

var outOfServiceTaint = tainted(corev1.TaintNodeOutOfService, "x")

// serviceWith returns a ComputeService as the mirror made it, of which fields are
// changed: by the mirror if they are in owned, else by somebody else.
func serviceWith(modifiers ...func(*v1alpha1.ComputeService, map[string]bool)) *v1alpha1.ComputeService {
	s := &v1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "n1",
			Labels:      map[string]string{LabelManagedBy: FieldOwner},
			Annotations: map[string]string{AnnotationNodeUID: "uid-1"},
		},
		Spec: v1alpha1.ComputeServiceSpec{LeaseRef: &v1alpha1.LeaseReference{Namespace: "kube-node-lease", Name: "n1"}},
	}
	owned := map[string]bool{managedBy: true, nodeUID: true, leaseNamespace: true, leaseName: true}
	for _, modify := range modifiers {
		modify(s, owned)
	}
	set := fieldpath.NewSet()
	for field := range owned {
		set.Insert(paths[field])
	}
	raw, err := set.ToJSON()
	if err != nil {
		panic(err)
	}
	if !set.Empty() {
		s.ManagedFields = []metav1.ManagedFieldsEntry{
			{Manager: FieldOwner, Operation: metav1.ManagedFieldsOperationApply, FieldsV1: metav1.NewFieldsV1(string(raw))},
			{Manager: "hoststatus-manager", Subresource: "status", FieldsV1: metav1.NewFieldsV1(`{"f:status":{}}`)},
		}
	}
	return s
}

type change = func(*v1alpha1.ComputeService, map[string]bool)

func disabledBy(mirror bool, value bool, reason string) change {
	return func(s *v1alpha1.ComputeService, owned map[string]bool) {
		s.Spec.Disabled, owned[disabled] = &value, mirror
		if reason != "" {
			s.Spec.DisabledReason, owned[disabledReason] = &reason, mirror
		}
		prune(owned)
	}
}

func forcedDownBy(mirror bool, reason string) change {
	return func(s *v1alpha1.ComputeService, owned map[string]bool) {
		s.Spec.ForcedDown, owned[forcedDown] = ptr.To(true), mirror
		s.Spec.ForcedDownReason, owned[forcedDownReason] = &reason, mirror
		prune(owned)
	}
}

func prune(owned map[string]bool) {
	for field, is := range owned {
		if !is {
			delete(owned, field)
		}
	}
}

func unlabelled(s *v1alpha1.ComputeService, owned map[string]bool) {
	s.Labels = nil
	delete(owned, managedBy)
}

func relabelled(s *v1alpha1.ComputeService, owned map[string]bool) {
	s.Labels = map[string]string{LabelManagedBy: "helm"}
	delete(owned, managedBy)
}

func notOurs(_ *v1alpha1.ComputeService, owned map[string]bool) { clear(owned) }

func ending(s *v1alpha1.ComputeService, _ map[string]bool) { s.DeletionTimestamp = &metav1.Time{} }

const taintReason = "the Node has the taint node.kubernetes.io/out-of-service=x:NoExecute"

func TestDecide(t *testing.T) {
	base := values{managedBy: FieldOwner, nodeUID: "uid-1", leaseNamespace: "kube-node-lease", leaseName: "n1"}
	and := func(pairs ...string) values {
		v := values{}
		for field, value := range base {
			v[field] = value
		}
		for i := 0; i < len(pairs); i += 2 {
			v[pairs[i]] = pairs[i+1]
		}
		return v
	}
	without := func(v values, fields ...string) values {
		for _, field := range fields {
			delete(v, field)
		}
		return v
	}
	off := func(v values) values { v[disabled], v[disabledReason] = "true", "the Node is cordoned"; return v }
	down := func(v values) values { v[forcedDown], v[forcedDownReason] = "true", taintReason; return v }
	for name, c := range map[string]struct {
		node       *corev1.Node
		unselected bool
		service    *v1alpha1.ComputeService
		want       action
		fields     values
		message    string
	}{
		"nothing is there": {want: leave},
		"a new Node":       {node: nodeWith(), want: create, fields: and()},
		"a new Node that is cordoned, flags come after":                {node: nodeWith(cordoned), want: create, fields: and()},
		"a new Node that is not selected":                              {node: nodeWith(), unselected: true, want: leave},
		"all is as it should be":                                       {node: nodeWith(), service: serviceWith(), want: leave},
		"another taint":                                                {node: nodeWith(tainted("other", "")), service: serviceWith(), want: leave},
		"cordoned":                                                     {node: nodeWith(cordoned), service: serviceWith(), want: applyFields, fields: off(and())},
		"cordoned, and set":                                            {node: nodeWith(cordoned), service: serviceWith(disabledBy(true, true, "the Node is cordoned")), want: leave},
		"uncordoned":                                                   {node: nodeWith(), service: serviceWith(disabledBy(true, true, "the Node is cordoned")), want: applyFields, fields: and()},
		"out of service":                                               {node: nodeWith(outOfServiceTaint), service: serviceWith(), want: applyFields, fields: down(and())},
		"out of service, and set":                                      {node: nodeWith(outOfServiceTaint), service: serviceWith(forcedDownBy(true, taintReason)), want: leave},
		"out of service for another reason":                            {node: nodeWith(outOfServiceTaint), service: serviceWith(forcedDownBy(true, "old")), want: applyFields, fields: down(and())},
		"in service again":                                             {node: nodeWith(), service: serviceWith(forcedDownBy(true, taintReason)), want: applyFields, fields: and()},
		"both":                                                         {node: nodeWith(cordoned, outOfServiceTaint), service: serviceWith(), want: applyFields, fields: down(off(and()))},
		"cordoned, and a person has disabled it":                       {node: nodeWith(cordoned), service: serviceWith(disabledBy(false, true, "mine")), want: leave},
		"cordoned, and a person has set false":                         {node: nodeWith(cordoned), service: serviceWith(disabledBy(false, false, "")), want: leave},
		"uncordoned, and a person has disabled it":                     {node: nodeWith(), service: serviceWith(disabledBy(false, true, "mine")), want: leave},
		"out of service, and a tool has fenced it":                     {node: nodeWith(outOfServiceTaint), service: serviceWith(forcedDownBy(false, "ipmi")), want: leave},
		"in service, and a tool has fenced it":                         {node: nodeWith(), service: serviceWith(forcedDownBy(false, "ipmi")), want: leave},
		"a person's flag is no obstacle to the other":                  {node: nodeWith(cordoned, outOfServiceTaint), service: serviceWith(disabledBy(false, true, "mine")), want: applyFields, fields: down(and())},
		"a person has taken the mirror's flag":                         {node: nodeWith(cordoned), service: serviceWith(disabledBy(true, true, "the Node is cordoned"), disabledBy(false, false, "")), want: applyFields, fields: and()},
		"a person's reason under the mirror's flag":                    {node: nodeWith(cordoned), service: serviceWith(disabledBy(true, true, ""), reasonOfAPerson), want: leave},
		"a person's reason before the flag":                            {node: nodeWith(cordoned), service: serviceWith(reasonOfAPerson), want: applyFields, fields: and(disabled, "true")},
		"a person's leaseRef":                                          {node: nodeWith(), service: serviceWith(leaseOfAPerson), want: leave},
		"a leaseRef that is gone":                                      {node: nodeWith(), service: serviceWith(noLease), want: applyFields, fields: and()},
		"a field that nobody sets and the mirror has":                  {node: nodeWith(), service: serviceWith(func(_ *v1alpha1.ComputeService, owned map[string]bool) { owned[disabled] = true }), want: applyFields, fields: and()},
		"a ComputeService that somebody has made":                      {node: nodeWith(cordoned), service: serviceWith(unlabelled, notOurs), want: leave, message: messageForeign},
		"one that was taken from the mirror":                           {node: nodeWith(cordoned), service: serviceWith(unlabelled), want: leave, message: messageForeign},
		"one that helm keeps":                                          {node: nodeWith(), service: serviceWith(relabelled), want: leave, message: messageForeign},
		"somebody's, of no concern":                                    {node: nodeWith(), unselected: true, service: serviceWith(unlabelled, notOurs), want: leave},
		"somebody's, without a Node":                                   {service: serviceWith(unlabelled, notOurs), want: leave},
		"taken from the mirror, without a Node":                        {service: serviceWith(unlabelled), want: leave},
		"handed over":                                                  {node: nodeWith(cordoned), service: serviceWith(handedOver, notOurs), want: applyFields, fields: off(without(and(), managedBy))},
		"handed over with a leaseRef":                                  {node: nodeWith(), service: serviceWith(notOurs, func(s *v1alpha1.ComputeService, _ map[string]bool) { s.Annotations = nil }), want: applyFields, fields: values{nodeUID: "uid-1"}},
		"the Node is gone":                                             {service: serviceWith(), want: remove, message: "The Node is gone"},
		"the Node is gone, and a person's flag is there":               {service: serviceWith(disabledBy(false, true, "mine")), want: remove, message: "The Node is gone"},
		"a copied label":                                               {service: serviceWith(notOurs), want: leave, message: messageNeverOurs},
		"it is being deleted":                                          {node: nodeWith(cordoned), service: serviceWith(ending), want: leave},
		"the Node is another":                                          {node: nodeWith(anotherUID), service: serviceWith(), want: remove, fields: and(presentNodeUID, "uid-2"), message: "The Node was replaced by another with the same name"},
		"the Node is another, and the old one's flag goes in any case": {node: nodeWith(anotherUID), service: serviceWith(disabledBy(true, true, "the Node is cordoned")), want: remove, fields: and(presentNodeUID, "uid-2"), message: "The Node was replaced by another with the same name"},
		"the Node is another, and not selected":                        {node: nodeWith(anotherUID), unselected: true, service: serviceWith(), want: remove, fields: and(presentNodeUID, "uid-2"), message: "The Node was replaced by another with the same name"},
		"a Node's UID that the mirror has not written":                 {node: nodeWith(anotherUID), service: serviceWith(notOurs), want: leave},
		"no longer selected, and cordoned":                             {node: nodeWith(cordoned), unselected: true, service: serviceWith(), want: applyFields, fields: off(and()), message: messageUnselected},
		"no longer selected, and out of service":                       {node: nodeWith(outOfServiceTaint), unselected: true, service: serviceWith(), want: applyFields, fields: down(and()), message: messageUnselected},
		"no longer selected, and out of service before":                {node: nodeWith(outOfServiceTaint), unselected: true, service: serviceWith(forcedDownBy(true, taintReason)), want: leave, message: messageUnselected},
		"no longer selected, and in service again":                     {node: nodeWith(), unselected: true, service: serviceWith(forcedDownBy(true, taintReason)), want: applyFields, fields: and(), message: messageUnselected},
		"no longer selected, with a person's flag":                     {node: nodeWith(), unselected: true, service: serviceWith(forcedDownBy(false, "ipmi")), want: leave, message: messageUnselected},
		"no longer selected, and taken from the mirror":                {node: nodeWith(outOfServiceTaint), unselected: true, service: serviceWith(unlabelled), want: leave},
		"no longer selected, and gone":                                 {unselected: true, service: serviceWith(), want: remove, message: "The Node is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			got := decide(c.node, c.node != nil && !c.unselected, c.service)
			if got.action != c.want || got.message != c.message {
				t.Errorf("%s (%q), want %s (%q)", got.action, got.message, c.want, c.message)
			}
			if diff := cmp.Diff(c.fields, got.fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func reasonOfAPerson(s *v1alpha1.ComputeService, _ map[string]bool) {
	s.Spec.DisabledReason = ptr.To("new memory")
}

func leaseOfAPerson(s *v1alpha1.ComputeService, owned map[string]bool) {
	s.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: "hoststatus-leases", Name: "other"}
	delete(owned, leaseNamespace)
	delete(owned, leaseName)
}

func noLease(s *v1alpha1.ComputeService, owned map[string]bool) {
	s.Spec.LeaseRef = nil
	delete(owned, leaseNamespace)
	delete(owned, leaseName)
}

func handedOver(s *v1alpha1.ComputeService, _ map[string]bool) {
	s.Annotations, s.Spec.LeaseRef = nil, nil
}

func TestWhatIsAppliedIsWhatIsReadBack(t *testing.T) {
	all := values{
		managedBy: FieldOwner, nodeUID: "uid-1", presentNodeUID: "uid-2", leaseNamespace: "a", leaseName: "b",
		disabled: "true", disabledReason: "c", forcedDown: "false", forcedDownReason: "d", windowReason: "e",
	}
	if len(all) != len(paths) {
		t.Errorf("%d fields are tried of %d", len(all), len(paths))
	}
	for _, v := range []values{all, {}, {nodeUID: "uid-1"}, {leaseName: "b"}, {disabled: "true"}, {forcedDown: "true", forcedDownReason: ""}} {
		c := v.configuration("n1")
		back := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Labels: c.Labels, Annotations: c.Annotations}}
		back.Spec.Disabled, back.Spec.DisabledReason = c.Spec.Disabled, c.Spec.DisabledReason
		back.Spec.ForcedDown, back.Spec.ForcedDownReason = c.Spec.ForcedDown, c.Spec.ForcedDownReason
		if w := c.Spec.MaintenanceWindow; w != nil {
			back.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{Reason: w.Reason}
		}
		if ref := c.Spec.LeaseRef; ref != nil {
			back.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: ptr.Deref(ref.Namespace, ""), Name: ptr.Deref(ref.Name, "")}
		}
		if diff := cmp.Diff(v, read(back)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestANodesKubeletAloneReportsForIt(t *testing.T) {
	present := func(s *v1alpha1.ComputeService, _ map[string]bool) { s.Annotations[AnnotationPresentNodeUID] = "uid-2" }
	for name, c := range map[string]struct {
		service *v1alpha1.ComputeService
		want    types.UID
	}{
		"as the mirror made it":                     {serviceWith(), "uid-1"},
		"protected, and the Node is another":        {serviceWith(present), "uid-2"},
		"taken from the mirror":                     {serviceWith(unlabelled), ""},
		"by a Lease of a person's choice":           {serviceWith(leaseOfAPerson), ""},
		"a copied label":                            {serviceWith(func(s *v1alpha1.ComputeService, _ map[string]bool) { s.Annotations = nil }), ""},
		"the Lease of another of the same kubelets": {serviceWith(func(s *v1alpha1.ComputeService, _ map[string]bool) { s.Spec.LeaseRef.Name = "n2" }), ""},
	} {
		if got := NodeOf(c.service); got != c.want {
			t.Errorf("%s: Node %q, want %q", name, got, c.want)
		}
	}
}

func TestOnlyWhatTheMirrorLooksAtWakesIt(t *testing.T) {
	selector, err := labels.Parse("hypervisor=true")
	if err != nil {
		t.Fatal(err)
	}
	wakes := NewReconciler(nil, nil, selector, nil, nil).nodeChange()
	selected := func(n *corev1.Node) { n.Labels = map[string]string{"hypervisor": "true"} }
	for name, c := range map[string]struct {
		before, after *corev1.Node
		want          bool
	}{
		"a heartbeat":              {nodeWith(selected), nodeWith(selected, func(n *corev1.Node) { n.ResourceVersion = "2" }), false},
		"another label":            {nodeWith(), nodeWith(func(n *corev1.Node) { n.Labels = map[string]string{"a": "b"} }), false},
		"selected":                 {nodeWith(), nodeWith(selected), true},
		"no longer selected":       {nodeWith(selected), nodeWith(), true},
		"cordoned":                 {nodeWith(selected), nodeWith(selected, cordoned), true},
		"in maintenance":           {nodeWith(selected), nodeWith(selected, inMaintenanceBecause("a", "b")), true},
		"another reason for it":    {nodeWith(selected, inMaintenanceBecause("a", "b")), nodeWith(selected, inMaintenanceBecause("a", "c")), true},
		"another taint":            {nodeWith(selected), nodeWith(selected, tainted("other", "")), false},
		"out of service":           {nodeWith(selected), nodeWith(selected, outOfServiceTaint), true},
		"planned":                  {nodeWith(selected), nodeWith(selected, with("MaintenancePlanned", "")), true},
		"planned, by us":           {nodeWith(selected), nodeWith(selected, with("MaintenancePlanned", ConditionOwner)), false},
		"another one of that name": {nodeWith(selected), nodeWith(selected, anotherUID), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := wakes.Update(event.TypedUpdateEvent[*corev1.Node]{ObjectOld: c.before, ObjectNew: c.after}); got != c.want {
				t.Errorf("wakes: %v", got)
			}
		})
	}
}

func TestStatusOfAComputeServiceWakesNobody(t *testing.T) {
	before, after := serviceWith(), serviceWith()
	after.Status.HostStatus, after.ResourceVersion = ptr.To(v1alpha1.HostStatusUp), "2"
	if specOrMetadata.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}) {
		t.Error("a change of status wakes the mirror")
	}
	after.Generation = 2
	if !specOrMetadata.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}) {
		t.Error("a change of spec does not wake the mirror")
	}
}

func TestTheCachesKeepWhatDecides(t *testing.T) {
	full := nodeWith(cordoned, tainted("other", ""), outOfServiceTaint, inMaintenanceBecause("a", "b"), func(n *corev1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue})
		n.Labels = map[string]string{"a": "b"}
		n.Annotations = map[string]string{"large": strings.Repeat("x", 1000)}
		n.Status.NodeInfo.KernelVersion = "6"
	})
	stripped, err := StripNode(full.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	want := nodeWith(cordoned, outOfServiceTaint, inMaintenanceBecause("a", "b"), func(n *corev1.Node) { n.Labels = map[string]string{"a": "b"} })
	if diff := cmp.Diff(want, stripped); diff != "" {
		t.Errorf("Node (-want +got):\n%s", diff)
	}
	service := serviceWith(disabledBy(true, true, "x"))
	before := ownedBy(service.ManagedFields)
	if _, err := KeepOwnEntries(service); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, ownedBy(service.ManagedFields)); diff != "" || len(service.ManagedFields) != 1 {
		t.Errorf("%d entries are kept; owned (-want +got):\n%s", len(service.ManagedFields), diff)
	}
}
