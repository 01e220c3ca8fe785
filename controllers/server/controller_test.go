// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/retry"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(offset time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(now.Add(offset))) }

var (
	none    = ptr.To(v1alpha1.HostStatusNone)
	up      = ptr.To(v1alpha1.HostStatusUp)
	down    = ptr.To(v1alpha1.HostStatusDown)
	unknown = ptr.To(v1alpha1.HostStatusUnknown)
)

type serverModifier = func(*v1alpha1.Server)

// serverOn returns a Server whose VM is reported on, without host fields yet.
func serverOn(host string, modifiers ...serverModifier) *v1alpha1.Server {
	s := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "vm", Generation: 1}}
	s.Spec.Host = host
	s.Status = reported()
	for _, modify := range modifiers {
		modify(s)
	}
	return s
}

// reported is what the agent reports.
func reported() v1alpha1.ServerStatus {
	return v1alpha1.ServerStatus{
		State: "ACTIVE", TaskState: "rebooting", PowerState: "RUNNING",
		Networks: []v1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}},
	}
}

// settled gives a server the host fields that it has had from a reporting host
// since an hour ago, under its present generation.
func settled(status *v1alpha1.HostStatus) serverModifier {
	return func(s *v1alpha1.Server) {
		s.Status.HostStatus, s.Status.HostStatusReason = status, v1alpha1.ReasonReporting
		s.Status.HostReporting = v1alpha1.HostReportingTrue
		s.Status.HostStatusTransitionTime = at(-time.Hour)
		s.Status.ObservedGeneration, s.Status.HostVersion = s.Generation, firstVersion
	}
}

// beginning returns the fields with a history that begins with the present value.
func beginning(fields v1alpha1.HostFields) v1alpha1.HostFields {
	fields.HostHistory = []v1alpha1.HostStatusChange{{HostStatus: fields.HostStatus, Reason: fields.HostStatusReason, Since: fields.HostStatusTransitionTime}}
	return fields
}

// firstVersion is what the fake client gives to objects that it begins with.
const firstVersion = "999"

func since(t *metav1.Time) serviceModifier {
	return func(s *v1alpha1.ComputeService) { s.Status.HostStatusTransitionTime = t }
}

func moved(host string) serverModifier {
	return func(s *v1alpha1.Server) { s.Spec.Host, s.Generation = host, s.Generation+1 }
}

func as(namespace, name string) serverModifier {
	return func(s *v1alpha1.Server) { s.Namespace, s.Name = namespace, name }
}

type serviceModifier = func(*v1alpha1.ComputeService)

// service returns a host with this status, that reports.
func service(name string, status *v1alpha1.HostStatus, modifiers ...serviceModifier) *v1alpha1.ComputeService {
	s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid of " + name), Generation: 1}}
	s.Status = v1alpha1.ComputeServiceStatus{
		HostStatus: status, HostStatusReason: v1alpha1.ReasonReporting, ObservedGeneration: 1,
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReporting, Status: "True", Reason: "Reporting"}},
	}
	for _, modify := range modifiers {
		modify(s)
	}
	return s
}

func because(reason v1alpha1.HostStatusReason) serviceModifier {
	return func(s *v1alpha1.ComputeService) { s.Status.HostStatusReason = reason }
}

func reporting(status metav1.ConditionStatus) serviceModifier {
	return func(s *v1alpha1.ComputeService) { s.Status.Conditions[0].Status = status }
}

func stale(s *v1alpha1.ComputeService) { s.Generation++ }

func announced(s *v1alpha1.ComputeService) {
	s.Spec.MaintenanceWindow = &v1alpha1.MaintenanceWindow{StartTime: at(time.Hour), EndTime: at(2 * time.Hour), Reason: ptr.To("of host-a")}
	s.Status.Conditions = append(s.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionWindowOpen, Status: "False", Reason: string(v1alpha1.ReasonWindowAnnounced),
	})
}

// world is a reconciler, and all that is around it.
type world struct {
	*testing.T
	client.Client
	reconciler *Reconciler
	writes     int
	writeError error
}

// serversOn does what the index of the cache does.
func (w *world) serversOn(host string) ([]string, error) {
	var servers v1alpha1.ServerList
	if err := w.List(w.Context(), &servers); err != nil {
		return nil, err
	}
	var keys []string
	for i := range servers.Items {
		if servers.Items[i].Spec.Host == host {
			keys = append(keys, client.ObjectKeyFromObject(&servers.Items[i]).String())
		}
	}
	return keys, nil
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t}
	w.Client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Server{}, &v1alpha1.ComputeService{}).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourcePatch: func(ctx context.Context, c client.Client, name string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
				w.writes++
				if w.writeError != nil {
					return w.writeError
				}
				return c.SubResource(name).Patch(ctx, obj, patch, opts...)
			},
		}).Build()
	w.reconciler = NewReconciler(w.Client, clocktesting.NewFakePassiveClock(now.Add(999*time.Millisecond)))
	return w
}

func (w *world) read() *v1alpha1.Server {
	w.Helper()
	s := &v1alpha1.Server{}
	if err := w.Get(w.Context(), client.ObjectKey{Namespace: "tenant", Name: "vm"}, s); err != nil {
		w.Fatal(err)
	}
	return s
}

// reconcile reconciles the server as it is now.
func (w *world) reconcile() reconcile.Result {
	w.Helper()
	request := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "tenant", Name: "vm"}}
	result, err := reconcile.AsReconciler(w.Client, w.reconciler).Reconcile(w.Context(), request)
	if err != nil {
		w.Fatal(err)
	}
	return result
}

func TestReconcileWritesTheHostFieldsWhenTheyDiffer(t *testing.T) {
	window := &v1alpha1.AnnouncedWindow{StartTime: at(time.Hour), EndTime: at(2 * time.Hour)}
	withWindow := func(s *v1alpha1.Server) { s.Status.MaintenanceWindow = window }
	sinceNow, sinceBefore := at(0), at(-time.Hour)
	for name, c := range map[string]struct {
		server  *v1alpha1.Server
		service *v1alpha1.ComputeService
		want    v1alpha1.ServerStatus
		writes  int
	}{
		"a new server takes the fields of its host": {
			serverOn("host-a"), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 1}, 1,
		},
		"a server that is right is not written": {
			serverOn("host-a", settled(up)), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 1}, 0,
		},
		"a change moves the time": {
			serverOn("host-a", settled(up)), service("host-a", down, because("ForcedDown"), reporting("False")),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: down, HostStatusReason: "ForcedDown", HostReporting: "False", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 1}, 1,
		},
		"a change has the host's time, if that is known": {
			serverOn("host-a", settled(up)), service("host-a", down, since(at(-time.Minute))),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: down, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: at(-time.Minute)}, ObservedGeneration: 1}, 1,
		},
		"a change and its end between two looks have it, too": {
			serverOn("host-a", settled(up)), service("host-a", up, since(at(-time.Minute))),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: at(-time.Minute)}, ObservedGeneration: 1}, 1,
		},
		"a server that moved has its own": {
			serverOn("host-b", settled(up), moved("host-a")), service("host-a", unknown, since(at(-time.Minute))),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: unknown, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 2}, 1,
		},
		"a server that was written before there were versions is completed": {
			serverOn("host-a", settled(up), func(s *v1alpha1.Server) { s.Status.HostVersion = "" }), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 1}, 1,
		},
		"a version alone is no reason to write": {
			serverOn("host-a", settled(up), func(s *v1alpha1.Server) { s.Status.HostVersion = "998" }), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 1, HostVersion: "998"}, 0,
		},
		"another reason for the same status does not": {
			serverOn("host-a", settled(unknown)), service("host-a", unknown, because("LeaseExpired"), reporting("False")),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: unknown, HostStatusReason: "LeaseExpired", HostReporting: "False", HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 1}, 1,
		},
		"a move from an UP host to an UP host keeps the time": {
			serverOn("host-b", settled(up), moved("host-a")), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 2}, 1,
		},
		"a move to a host that is not UP does not": {
			serverOn("host-b", settled(up), moved("host-a")), service("host-a", unknown),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: unknown, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 2}, 1,
		},
		"a server that leaves its host has none": {
			serverOn("host-a", settled(up), withWindow, moved("")), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: none, HostStatusReason: "NoHost", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 2}, 1,
		},
		"a server whose host does not exist has none": {
			serverOn("host-b", settled(up)), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: none, HostStatusReason: "HostNotFound", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 1}, 1,
		},
		"a window appears": {
			serverOn("host-a", settled(up)), service("host-a", up, announced),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", MaintenanceWindow: window, HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 1}, 1,
		},
		"a window that is gone is removed": {
			serverOn("host-a", settled(up), withWindow), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 1}, 1,
		},
		"a host status that is not derived yet is removed": {
			serverOn("host-a", settled(up)), service("host-a", nil, because("WaitingForHeartbeat"), reporting("Unknown")),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatusReason: "WaitingForHeartbeat", HostReporting: "Unknown", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 1}, 1,
		},
		"host fields that somebody wiped come back": {
			serverOn("host-a"), service("host-a", down),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: down, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 1}, 1,
		},
		"a time that somebody removed comes back": {
			serverOn("host-a", settled(up), func(s *v1alpha1.Server) { s.Status.HostStatusTransitionTime = nil }), service("host-a", up),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceNow}, ObservedGeneration: 1}, 1,
		},
		"what was true holds until the host's own status stands for its spec": {
			serverOn("host-a", settled(up)), service("host-a", down, stale),
			v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: sinceBefore}, ObservedGeneration: 1}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.server, c.service)
			agents := reported()
			if c.want.HostReporting != "" && c.want.HostVersion == "" {
				c.want.HostVersion = firstVersion
			}
			if c.writes > 0 {
				c.want.HostFields = beginning(c.want.HostFields)
			}
			c.want.State, c.want.TaskState, c.want.PowerState, c.want.Networks = agents.State, agents.TaskState, agents.PowerState, agents.Networks
			for range 2 { // The second time there is nothing to do.
				if result := w.reconcile(); result != (reconcile.Result{}) {
					t.Errorf("asks to come again: %+v", result)
				}
				if diff := cmp.Diff(c.want, w.read().Status); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if w.writes != c.writes {
					t.Errorf("%d writes, want %d", w.writes, c.writes)
				}
			}
		})
	}
}

func TestReconcileRepairsAStatusThatWasWipedAsAWhole(t *testing.T) {
	w := newWorld(t, serverOn("host-a", func(s *v1alpha1.Server) { s.Status = v1alpha1.ServerStatus{} }), service("host-a", up))
	w.reconcile()
	want := v1alpha1.ServerStatus{HostFields: beginning(v1alpha1.HostFields{HostStatus: up, HostStatusReason: "Reporting", HostReporting: "True", HostStatusTransitionTime: at(0)}), ObservedGeneration: 1, HostVersion: firstVersion}
	if diff := cmp.Diff(want, w.read().Status); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReconcileDecidesAgainAfterAConflict(t *testing.T) {
	w := newWorld(t, serverOn("host-a"), service("host-a", up))
	stale := w.read()
	reporting := w.read()
	reporting.Status.PowerState = "SHUTDOWN"
	if err := w.Status().Update(t.Context(), reporting); err != nil {
		t.Fatal(err)
	}
	result, err := w.reconciler.Reconcile(t.Context(), stale)
	if err != nil || result.RequeueAfter != retry.ConflictDelay {
		t.Errorf("error %v, result %+v", err, result)
	}
	if got := w.read().Status; got.HostStatus != nil {
		t.Errorf("written over what came in between: %+v", got)
	}
	w.reconcile()
	if got := w.read().Status; ptr.Deref(got.HostStatus, "") != *up || got.PowerState != "SHUTDOWN" {
		t.Errorf("after deciding again: %+v", got)
	}
}

func TestReconcileAndErrorsOfTheAPIServer(t *testing.T) {
	resource := schema.GroupResource{Group: v1alpha1.SchemeGroupVersion.Group, Resource: "servers"}
	for name, c := range map[string]struct {
		answer error
		delay  time.Duration
		failed bool
	}{
		"conflict is no error and is tried again soon": {apierrors.NewConflict(resource, "vm", errors.New("changed")), retry.ConflictDelay, false},
		"not found is no error":                        {apierrors.NewNotFound(resource, "vm"), 0, false},
		"another error is returned":                    {apierrors.NewInternalError(errors.New("etcd is away")), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, serverOn("host-a"), service("host-a", up))
			w.writeError = c.answer
			result, err := w.reconciler.Reconcile(t.Context(), w.read())
			if (err != nil) != c.failed || result.RequeueAfter != c.delay {
				t.Errorf("error %v, result %+v", err, result)
			}
		})
	}
	t.Run("a host that cannot be read is not taken for one that does not exist", func(t *testing.T) {
		w := newWorld(t, serverOn("host-a", settled(up)), service("host-a", up))
		w.reconciler.client = interceptor.NewClient(w.Client.(client.WithWatch), interceptor.Funcs{
			Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
				return errors.New("the cache is not there")
			},
		})
		if _, err := w.reconciler.Reconcile(t.Context(), w.read()); err == nil || w.writes != 0 {
			t.Errorf("error %v, %d writes", err, w.writes)
		}
	})
	t.Run("a server that is gone is no error", func(t *testing.T) {
		newWorld(t).reconcile()
	})
}

func TestServersAreIndexedByHost(t *testing.T) {
	for name, c := range map[string]struct {
		object client.Object
		want   []string
	}{
		"a server is found by its host":          {serverOn("host-a"), []string{"host-a"}},
		"a server without a host is not indexed": {serverOn(""), nil},
		"another kind is not indexed":            {service("host-a", up), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := indexByHost(c.object)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Each field of a Server's status has one author. A field that is added to the
// status must be added to the patch, or to what the agent reports.
func TestEachFieldOfTheStatusHasOneAuthor(t *testing.T) {
	authored := append(keysOf(reflect.TypeFor[owned]()), "state", "taskState", "powerState", "networks")
	slices.Sort(authored)
	want := keysOf(reflect.TypeFor[v1alpha1.ServerStatus]())
	slices.Sort(want)
	if diff := cmp.Diff(want, authored); diff != "" {
		t.Errorf("(-status +authored):\n%s", diff)
	}
}

// keysOf returns the keys that a struct has in JSON.
func keysOf(of reflect.Type) (keys []string) {
	for _, f := range reflect.VisibleFields(of) {
		if !f.Anonymous {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			keys = append(keys, key)
		}
	}
	return keys
}
