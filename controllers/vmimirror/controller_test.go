// SPDX-License-Identifier: Apache-2.0

package vmimirror

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/retry"
)

// vmiCache has one VirtualMachineInstance, or none.
type vmiCache struct {
	cache.Cache
	vmi *VirtualMachineInstance
}

func (c vmiCache) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	vmi, ok := obj.(*VirtualMachineInstance)
	if c.vmi == nil || !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	*vmi = *c.vmi.DeepCopy()
	return nil
}

// servers is a client with one Server, or none, that notes what is written, and answers
// the writes with err.
type servers struct {
	client.Client
	server *v1alpha1.Server
	writes []string
	err    error
}

func (c *servers) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	server, ok := obj.(*v1alpha1.Server)
	if c.server == nil || !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	c.server.DeepCopyInto(server)
	return nil
}

func (c *servers) write(verb string) error {
	c.writes = append(c.writes, verb)
	return c.err
}

func (c *servers) Create(context.Context, client.Object, ...client.CreateOption) error {
	return c.write("create")
}

func (c *servers) Patch(context.Context, client.Object, client.Patch, ...client.PatchOption) error {
	return c.write("patch")
}

func (c *servers) Delete(context.Context, client.Object, ...client.DeleteOption) error {
	return c.write("delete")
}

func (c *servers) Status() client.SubResourceWriter { return status{servers: c} }

type status struct {
	client.SubResourceWriter
	servers *servers
}

func (s status) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return s.servers.write("patch status")
}

// reconciled lets the mirror look at a VirtualMachineInstance and a Server once.
func reconciled(ctx context.Context, t *testing.T, vmi *VirtualMachineInstance, server *v1alpha1.Server, leads func() bool, refusal error) (*servers, reconcile.Result, error) {
	t.Helper()
	c, live := &servers{server: cached(t, server), err: refusal}, &servers{server: server}
	r := NewReconciler(c, live, vmiCache{vmi: vmi}, labels.Everything(), leads)
	result, err := r.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "team-a", Name: "web-1"}})
	return c, result, err
}

func TestOnlyALeaderMirrors(t *testing.T) {
	yes := func() bool { return true }
	for name, c := range map[string]struct {
		vmi    *VirtualMachineInstance
		server *v1alpha1.Server
		want   []string
	}{
		"new":           {vmiWith(), nil, []string{"create", "patch status"}},
		"unknown, new":  {vmiWith(phase(PhaseUnknown)), nil, []string{"create"}},
		"moved":         {vmiWith(onNode("node-2")), serverOf(vmiWith()), []string{"patch"}},
		"moved, paused": {vmiWith(onNode("node-2"), paused), serverOf(vmiWith()), []string{"patch", "patch status"}},
		"paused":        {vmiWith(paused), serverOf(vmiWith()), []string{"patch status"}},
		"replaced":      {vmiWith(another), serverOf(vmiWith()), []string{"delete"}},
		"as it should":  {vmiWith(), serverOf(vmiWith()), nil},
		"gone":          {nil, serverOf(vmiWith()), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, result, err := reconciled(t.Context(), t, c.vmi, c.server, yes, nil)
			if diff := cmp.Diff(c.want, got.writes); diff != "" || err != nil || !result.IsZero() {
				t.Errorf("%v, %v; writes (-want +got):\n%s", result, err, diff)
			}
			got, result, err = reconciled(t.Context(), t, c.vmi, c.server, func() bool { return false }, nil)
			if len(got.writes) > 0 || err != nil || result.RequeueAfter != retry.ConflictDelay {
				t.Errorf("one that does not lead writes %q: %v, %v", got.writes, result, err)
			}
		})
	}
	t.Run("not any more, when the Server has been read", func(t *testing.T) {
		asked := 0
		got, result, err := reconciled(t.Context(), t, vmiWith(onNode("node-2")), serverOf(vmiWith()), func() bool { asked++; return asked == 1 }, nil)
		if len(got.writes) > 0 || err != nil || result.RequeueAfter != retry.ConflictDelay {
			t.Errorf("writes %q: %v, %v", got.writes, result, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	servers := schema.GroupResource{Group: "compute.hoststatus.dev", Resource: "servers"}
	ending := apierrors.NewForbidden(servers, "web-1", errors.New("the namespace is being terminated"))
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for name, c := range map[string]struct {
		refusal error
		again   time.Duration
		logs    string
		fails   bool
	}{
		"it changed meanwhile":    {refusal: apierrors.NewConflict(servers, "web-1", errors.New("x")), again: retry.ConflictDelay},
		"it is there already":     {refusal: apierrors.NewAlreadyExists(servers, "web-1"), again: retry.ConflictDelay},
		"the namespace is ending": {refusal: ending},
		"the namespace is gone":   {refusal: apierrors.NewNotFound(corev1.Resource("namespaces"), "team-a")},
		"a quota is used up":      {refusal: apierrors.NewForbidden(servers, "web-1", errors.New("exceeded quota")), again: refusedRetry, logs: "exceeded quota"},
		"it is not valid":         {refusal: apierrors.NewInvalid(schema.GroupKind{Kind: "Server"}, "web-1", nil), again: refusedRetry, logs: "cannot have a Server"},
		"anything else":           {refusal: errors.New("no route to host"), fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			ctx := log.IntoContext(t.Context(), funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
			_, result, err := reconciled(ctx, t, vmiWith(), nil, func() bool { return true }, c.refusal)
			if result.RequeueAfter != c.again || (err != nil) != c.fails {
				t.Errorf("%v, %v", result, err)
			}
			if got := strings.Join(lines, "\n"); (c.logs == "") != (got == "") || !strings.Contains(got, c.logs) {
				t.Errorf("logged: %q", got)
			}
		})
	}
}

// lists is a reader that answers each list with the next error, and then with none.
type lists struct {
	client.Reader
	answers []error
}

func (l *lists) List(context.Context, client.ObjectList, ...client.ListOption) error {
	if len(l.answers) == 0 {
		return nil
	}
	err := l.answers[0]
	l.answers = l.answers[1:]
	return err
}

// started is a source that notes that it was started.
type started struct{ times int }

func (s *started) Start(context.Context, workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	s.times++
	return nil
}

func (s *started) WaitForSync(context.Context) error {
	if s.times == 0 {
		return errors.New("it was not started")
	}
	return nil
}

func TestTheSourceBeginsOnceThereIsKubeVirt(t *testing.T) {
	resource := GroupVersion.WithResource("virtualmachineinstances").GroupResource()
	absent, forbidden := apierrors.NewNotFound(resource, ""), apierrors.NewForbidden(resource, "", errors.New("no"))
	for name, c := range map[string]struct {
		answers []error
		want    []string
	}{
		"there is":                  {nil, nil},
		"kube-apiserver just began": {[]error{absent, forbidden}, nil},
		"later":                     {[]error{absent, absent, absent, absent}, []string{"no CustomResourceDefinition virtualmachineinstances.kubevirt.io", "can be listed now"}},
		"later, with rights later":  {[]error{absent, absent, forbidden, forbidden}, []string{"Install KubeVirt", "config/vmi-mirror", "can be listed now"}},
		"another error":             {[]error{errors.New("no route to host"), errors.New("no route to host")}, []string{"no route to host", "can be listed now"}},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			ctx := log.IntoContext(t.Context(), funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
			below := &started{}
			source := &whenInstalled{TypedSyncingSource: below, reader: &lists{answers: c.answers}, pause: time.Nanosecond}
			if err := source.Start(ctx, nil); err != nil || below.times != 1 {
				t.Errorf("started %d times: %v", below.times, err)
			}
			if !slices.EqualFunc(lines, c.want, strings.Contains) {
				t.Errorf("logged %q, want %q", lines, c.want)
			}
		})
	}
	t.Run("never", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		below := &started{}
		source := &whenInstalled{TypedSyncingSource: below, reader: &lists{answers: []error{absent}}, pause: time.Hour}
		if err := errors.Join(source.Start(ctx, nil), source.WaitForSync(ctx)); err != nil || below.times != 0 {
			t.Errorf("started %d times: %v", below.times, err)
		}
	})
}
