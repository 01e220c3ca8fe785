// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/utils/ptr"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// fake answers like an API server with some hosts and servers, and a manager.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	hosts   []v1alpha1.ComputeService
	servers []v1alpha1.Server
	owned   []tenantv1alpha1.Server
	// version is that of the last change.
	version int
	// renewed is when a manager was at work; nil for now.
	renewed *time.Time
	// forgets has every watch answered with 410, once.
	forgets bool
	// cut ends the watches that are open, and refused has new ones refused.
	cut     chan struct{}
	refused bool
	// hangs lets requests wait for ever, and warning is in the header of each answer.
	hangs   bool
	warning string
	lists   int
	// events go to the watches, by their paths.
	events map[chan []byte]string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{version: 1, cut: make(chan struct{}), events: map[chan []byte]string{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

// host is a host that has had a status for some time.
func fakeHost(name string, status *v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, ago time.Duration) v1alpha1.ComputeService {
	h := v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1"}}
	h.Status.HostStatus, h.Status.HostStatusReason = status, reason
	h.Status.HostStatusTransitionTime = at(-ago)
	reports := metav1.ConditionTrue
	if reason == v1alpha1.ReasonLeaseExpired || reason == v1alpha1.ReasonForcedDown {
		reports = metav1.ConditionFalse
	}
	h.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReporting, Status: reports, Reason: string(reason), LastTransitionTime: *at(-ago)}}
	return h
}

// at is a time from now.
func at(d time.Duration) *metav1.Time { return &metav1.Time{Time: time.Now().Add(d)} }

// change stores a host that is there, and tells the watches.
func (f *fake) change(name string, how func(*v1alpha1.ComputeService)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.hosts, func(h v1alpha1.ComputeService) bool { return h.Name == name })
	how(&f.hosts[i])
	f.tell(&f.hosts[i], "/computeservices")
}

// changeOwned stores a server as its owner sees it, and tells the watches.
func (f *fake) changeOwned(i int, how func(*tenantv1alpha1.Server)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(&f.owned[i])
	f.tell(&f.owned[i], "/servers")
}

// tell tells the watches of a resource of a change.
func (f *fake) tell(object metav1.Object, resource string) {
	f.version++
	object.SetResourceVersion(strconv.Itoa(f.version))
	event, _ := json.Marshal(map[string]any{"type": "MODIFIED", "object": object})
	for watch, path := range f.events {
		if strings.HasSuffix(path, resource) {
			watch <- append(event, '\n')
		}
	}
}

// cutWatches ends the watches that are open; refuse has new ones refused from now on.
func (f *fake) cutWatches(refuse bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.cut)
	f.cut = make(chan struct{})
	f.refused = refuse
}

func (f *fake) listed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lists
}

func (f *fake) set(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
}

// ServeHTTP implements http.Handler.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	f.mu.Lock()
	hangs, warning := f.hangs, f.warning
	f.mu.Unlock()
	if hangs {
		<-r.Context().Done()
		return
	}
	if warning != "" {
		w.Header().Set("Warning", `299 - "`+warning+`"`)
	}
	last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case r.URL.Query().Get("watch") != "":
		f.watch(w, r)
	case last == "computeservices":
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lists++
		items, list := paged(f.hosts, r, f.version)
		encode(w, v1alpha1.ComputeServiceList{TypeMeta: typeOf(v1alpha1.SchemeGroupVersion.String(), "ComputeServiceList"), ListMeta: list, Items: items})
	case strings.Contains(r.URL.Path, "/apis/tenant.") && last == "servers":
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lists++
		items, list := paged(f.owned, r, f.version)
		encode(w, tenantv1alpha1.ServerList{TypeMeta: typeOf(tenantv1alpha1.SchemeGroupVersion.String(), "ServerList"), ListMeta: list, Items: items})
	case last == "servers":
		f.mu.Lock()
		defer f.mu.Unlock()
		items := f.servers
		if host, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "spec.host="); ok {
			items = slices.DeleteFunc(slices.Clone(items), func(s v1alpha1.Server) bool { return s.Spec.Host != host })
		}
		encode(w, v1alpha1.ServerList{TypeMeta: typeOf(v1alpha1.SchemeGroupVersion.String(), "ServerList"), Items: append([]v1alpha1.Server{}, items...)})
	case strings.Contains(r.URL.Path, "/computeservices/"):
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, h := range f.hosts {
			if h.Name == last {
				h.TypeMeta = typeOf(v1alpha1.SchemeGroupVersion.String(), "ComputeService")
				encode(w, h)
				return
			}
		}
		notFound(w)
	case strings.Contains(r.URL.Path, "/apis/tenant.") && strings.Contains(r.URL.Path, "/servers/"):
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, s := range f.owned {
			if strings.HasSuffix(r.URL.Path, "/namespaces/"+s.Namespace+"/servers/"+s.Name) {
				s.TypeMeta = typeOf(tenantv1alpha1.SchemeGroupVersion.String(), "Server")
				encode(w, s)
				return
			}
		}
		notFound(w)
	case last == v1alpha1.CanaryLeaseName:
		f.mu.Lock()
		defer f.mu.Unlock()
		encode(w, coordinationv1.Lease{TypeMeta: typeOf("coordination.k8s.io/v1", "Lease"), Spec: coordinationv1.LeaseSpec{
			RenewTime: &metav1.MicroTime{Time: *cmp.Or(f.renewed, ptr.To(time.Now()))}, LeaseDurationSeconds: ptr.To[int32](15),
		}})
	case last == "selfsubjectaccessreviews":
		var review authorizationv1.SelfSubjectAccessReview
		known := runtime.NewScheme()
		_ = authorizationv1.AddToScheme(known)
		body, _ := io.ReadAll(r.Body)
		// Kinds of Kubernetes come as protobuf.
		if _, _, err := serializer.NewCodecFactory(known).UniversalDeserializer().Decode(body, nil, &review); err != nil {
			notFound(w)
			return
		}
		review.TypeMeta = typeOf("authorization.k8s.io/v1", "SelfSubjectAccessReview")
		review.Status.Allowed = review.Spec.ResourceAttributes.Namespace == "team-a" && review.Spec.ResourceAttributes.Subresource == tenantv1alpha1.SubresourceStatus
		encode(w, review)
	default:
		notFound(w)
	}
}

func (f *fake) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 10_000)
	f.mu.Lock()
	cut, refused := f.cut, f.refused
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	gone := f.forgets
	f.forgets = false
	if !refused && !gone {
		f.events[events] = r.URL.Path
	}
	var missed [][]byte
	for _, h := range f.hosts {
		if version, _ := strconv.Atoi(h.ResourceVersion); version > from && strings.HasSuffix(r.URL.Path, "computeservices") {
			event, _ := json.Marshal(map[string]any{"type": "MODIFIED", "object": h})
			missed = append(missed, append(event, '\n'))
		}
	}
	f.mu.Unlock()
	defer f.set(func() { delete(f.events, events) })
	switch {
	case refused:
		w.WriteHeader(http.StatusServiceUnavailable)
		encode(w, metav1.Status{TypeMeta: typeOf("v1", "Status"), Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Message: "the API server is being replaced"})
		return
	case gone:
		encode(w, map[string]any{"type": "ERROR", "object": metav1.Status{Code: http.StatusGone, Message: "too old"}})
		return
	}
	flusher, _ := w.(http.Flusher)
	flusher.Flush()
	for _, event := range missed {
		_, _ = w.Write(event)
	}
	flusher.Flush()
	for {
		select {
		case event := <-events:
			_, _ = w.Write(event)
			flusher.Flush()
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// paged is a page of a list, whose continue token is the place of the next one.
func paged[T any](all []T, r *http.Request, version int) ([]T, metav1.ListMeta) {
	meta := metav1.ListMeta{ResourceVersion: strconv.Itoa(version)}
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	page := append([]T{}, all[from:]...)
	if limit > 0 && len(page) > limit {
		page, meta.Continue = page[:limit], strconv.Itoa(from+limit)
	}
	return page, meta
}

func typeOf(version, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: kind}
}

func encode(w http.ResponseWriter, value any) { _ = json.NewEncoder(w).Encode(value) }

func notFound(w http.ResponseWriter) {
	w.WriteHeader(http.StatusNotFound)
	encode(w, metav1.Status{TypeMeta: typeOf("v1", "Status"), Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: "not found", Details: &metav1.StatusDetails{}})
}
