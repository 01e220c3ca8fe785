// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// source speaks as much of the Kubernetes API as the manager uses: it lists,
// watches and patches ComputeServices, Servers, Leases, HostReports and MaintenanceAnswers, from
// memory. It stands in where the local control plane, not the manager, is what a measurement would
// find the limit of. It keeps no history, so nothing is ever deleted from it.
type source struct {
	url string

	mu      sync.Mutex
	version int64
	kinds   map[string]*kind
	// writes counts the patches of statuses.
	writes int
	// statusWritten is called with each object whose status was patched, while the
	// source is locked.
	statusWritten func(client.Object)
	problem       error
}

type kind struct {
	name     string
	objects  map[types.NamespacedName]*stored
	watchers map[*watcher]struct{}
}

type stored struct {
	object  client.Object
	version int64
}

// watcher is one watch that runs.
type watcher struct {
	*stream
	namespace string
	encode    func(watch.EventType, runtime.Object) []byte
}

const (
	kindServices = "computeservices"
	kindServers  = "servers"
	kindLeases   = "leases"
	kindReports  = "hostreports"
	kindAnswers  = "maintenanceanswers"
)

var kindNames = map[string]string{kindServices: "ComputeService", kindServers: "Server", kindLeases: "Lease", kindReports: "HostReport", kindAnswers: "MaintenanceAnswer"}

// startSource serves an empty source until the trial ends.
func (t *trial) startSource() (*source, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	s := &source{url: "http://" + listener.Addr().String(), kinds: map[string]*kind{}, statusWritten: func(client.Object) {}}
	for name := range kindNames {
		s.kinds[name] = &kind{name: name, objects: map[types.NamespacedName]*stored{}, watchers: map[*watcher]struct{}{}}
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.later(func() { _ = server.Close() })
	return s, nil
}

// put stores an object and tells the watches. Afterwards it is the source's.
func (s *source) put(obj client.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(s.kindOf(obj), obj)
}

func (s *source) kindOf(obj client.Object) *kind {
	switch obj.(type) {
	case *v1alpha1.ComputeService:
		return s.kinds[kindServices]
	case *v1alpha1.Server:
		return s.kinds[kindServers]
	case *agentv1alpha1.HostReport:
		return s.kinds[kindReports]
	case *ownerv1alpha1.MaintenanceAnswer:
		return s.kinds[kindAnswers]
	default:
		return s.kinds[kindLeases]
	}
}

func (s *source) store(k *kind, obj client.Object) {
	key := client.ObjectKeyFromObject(obj)
	s.version++
	obj.SetResourceVersion(strconv.FormatInt(s.version, 10))
	event := watch.Modified
	if k.objects[key] == nil {
		event = watch.Added
		obj.SetUID(types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", s.version)))
		obj.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
		if obj.GetGeneration() == 0 {
			obj.SetGeneration(1)
		}
	}
	k.objects[key] = &stored{object: obj, version: s.version}
	for w := range k.watchers {
		if w.namespace == "" || w.namespace == key.Namespace {
			w.push(w.encode(event, obj))
		}
	}
}

// change changes a stored object; its old state stays what others may hold.
func change[T client.Object](s *source, name types.NamespacedName, f func(T)) {
	var zero T
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kindOf(zero)
	obj := k.objects[name].object.DeepCopyObject().(T)
	f(obj)
	s.store(k, obj)
}

// err returns what the source was asked and does not know.
func (s *source) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

// ServeHTTP implements http.Handler.
func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	code, err := s.serve(w, r)
	if err == nil {
		return
	}
	reason := map[int]metav1.StatusReason{http.StatusNotFound: metav1.StatusReasonNotFound, http.StatusConflict: metav1.StatusReasonConflict}[code]
	if reason == "" {
		s.mu.Lock()
		s.problem = errors.Join(s.problem, fmt.Errorf("%s %s: %w", r.Method, r.URL, err))
		s.mu.Unlock()
	}
	status := &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reason, Message: err.Error(),
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(mustJSON(status))
}

func (s *source) serve(w http.ResponseWriter, r *http.Request) (int, error) {
	// /apis/GROUP/VERSION[/namespaces/NAMESPACE]/KIND[/NAME[/status]]
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/"), "/")[2:]
	var key types.NamespacedName
	if parts[0] == "namespaces" {
		key.Namespace, parts = parts[1], parts[2:]
	}
	k := s.kinds[parts[0]]
	if k == nil {
		return http.StatusInternalServerError, errors.New("unknown kind")
	}
	if len(parts) > 1 {
		key.Name = parts[1]
	}
	switch {
	case r.Method == http.MethodGet && key.Name == "" && r.URL.Query().Get("watch") != "":
		return s.watch(w, r, k, key.Namespace)
	case r.Method == http.MethodGet && key.Name == "":
		return s.list(w, r, k, key.Namespace)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return http.StatusInternalServerError, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := k.objects[key]
	var after client.Object
	switch {
	case r.Method == http.MethodPost || r.Method == http.MethodPut:
		lease := &coordinationv1.Lease{}
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, lease); err != nil {
			return http.StatusInternalServerError, err
		}
		after = lease
	case found == nil:
		return http.StatusNotFound, errors.New("not found")
	case r.Method == http.MethodGet:
		return s.answer(w, r, k, found.object)
	case r.Method == http.MethodPatch:
		if after, err = merge(found.object, body); errors.Is(err, errConflict) {
			return http.StatusConflict, err
		} else if err != nil {
			return http.StatusInternalServerError, err
		}
		if len(parts) > 2 {
			s.writes++
			defer s.statusWritten(after)
		}
	default:
		return http.StatusInternalServerError, errors.New("unknown method")
	}
	s.store(k, after)
	return s.answer(w, r, k, after)
}

var errConflict = errors.New("the object has been modified")

// merge applies a merge patch whose parts are flat.
func merge(old client.Object, body []byte) (client.Object, error) {
	var patch struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Spec, Status map[string]json.RawMessage
	}
	if err := json.Unmarshal(body, &patch); err != nil {
		return nil, err
	}
	if v := patch.Metadata.ResourceVersion; v != "" && v != old.GetResourceVersion() {
		return nil, errConflict
	}
	obj, ok := old.DeepCopyObject().(client.Object)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", old)
	}
	switch o := obj.(type) {
	case *v1alpha1.Server:
		return obj, overlay(&o.Status, patch.Status)
	case *v1alpha1.ComputeService:
		return obj, overlay(&o.Status, patch.Status)
	case *coordinationv1.Lease:
		return obj, overlay(&o.Spec, patch.Spec)
	default:
		return nil, fmt.Errorf("unexpected %T", old)
	}
}

func overlay[T any](into *T, fields map[string]json.RawMessage) error {
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(mustJSON(into), &all); err != nil {
		return err
	}
	for name, value := range fields {
		if string(value) == "null" {
			delete(all, name)
		} else {
			all[name] = value
		}
	}
	*into = *new(T)
	return json.Unmarshal(mustJSON(all), into)
}

// serializerFor returns how an answer is encoded: Leases by protobuf if that is asked
// for, all else by JSON.
func serializerFor(r *http.Request, k *kind) runtime.SerializerInfo {
	want := runtime.ContentTypeJSON
	if k.name == kindLeases && strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		want = runtime.ContentTypeProtobuf
	}
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), want)
	return info
}

// typed fills in what the serializers do not.
func (k *kind) typed(obj runtime.Object) runtime.Object {
	obj.GetObjectKind().SetGroupVersionKind(k.version().WithKind(kindNames[k.name]))
	return obj
}

func (k *kind) version() schema.GroupVersion {
	switch k.name {
	case kindLeases:
		return coordinationv1.SchemeGroupVersion
	case kindReports:
		return agentv1alpha1.SchemeGroupVersion
	case kindAnswers:
		return ownerv1alpha1.SchemeGroupVersion
	default:
		return v1alpha1.SchemeGroupVersion
	}
}

func (s *source) answer(w http.ResponseWriter, r *http.Request, k *kind, obj client.Object) (int, error) {
	info := serializerFor(r, k)
	w.Header().Set("Content-Type", info.MediaType)
	return http.StatusInternalServerError, info.Serializer.Encode(k.typed(obj), w)
}

func (s *source) list(w http.ResponseWriter, r *http.Request, k *kind, namespace string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := strconv.FormatInt(s.version, 10)
	info := serializerFor(r, k)
	w.Header().Set("Content-Type", info.MediaType)
	if k.name == kindLeases {
		list := &coordinationv1.LeaseList{TypeMeta: metav1.TypeMeta{Kind: "LeaseList", APIVersion: "coordination.k8s.io/v1"}}
		list.ResourceVersion = version
		for key, o := range k.objects {
			if lease, ok := o.object.(*coordinationv1.Lease); ok && key.Namespace == namespace {
				list.Items = append(list.Items, *lease)
			}
		}
		return http.StatusInternalServerError, info.Serializer.Encode(list, w)
	}
	_, _ = fmt.Fprintf(w, `{"kind":"%sList","apiVersion":%q,"metadata":{"resourceVersion":%q},"items":[`, kindNames[k.name], k.version(), version)
	comma := ""
	for _, o := range k.objects {
		_, _ = io.WriteString(w, comma)
		_, _ = w.Write(mustJSON(k.typed(o.object)))
		comma = ","
	}
	_, _ = io.WriteString(w, "]}")
	return 0, nil
}

func (s *source) watch(w http.ResponseWriter, r *http.Request, k *kind, namespace string) (int, error) {
	info := serializerFor(r, k)
	stream := &watcher{stream: newStream(), namespace: namespace}
	stream.encode = func(event watch.EventType, obj runtime.Object) []byte {
		var frame strings.Builder
		raw, err := runtime.Encode(info.Serializer, k.typed(obj))
		if err == nil {
			err = info.StreamSerializer.Encode(
				&metav1.WatchEvent{Type: string(event), Object: runtime.RawExtension{Raw: raw}},
				info.StreamSerializer.NewFrameWriter(&frame))
		}
		if err != nil {
			panic(err) // Our own types can be encoded.
		}
		return []byte(frame.String())
	}
	query := r.URL.Query()
	initial := query.Get("sendInitialEvents") == "true"
	from, _ := strconv.ParseInt(query.Get("resourceVersion"), 10, 64)

	s.mu.Lock()
	for key, o := range k.objects {
		if (namespace == "" || key.Namespace == namespace) && (initial || o.version > from) {
			event := watch.Modified
			if initial {
				event = watch.Added
			}
			stream.push(stream.encode(event, o.object))
		}
	}
	if initial {
		end := map[string]client.Object{kindServices: &v1alpha1.ComputeService{}, kindServers: &v1alpha1.Server{}, kindLeases: &coordinationv1.Lease{}, kindReports: &agentv1alpha1.HostReport{}, kindAnswers: &ownerv1alpha1.MaintenanceAnswer{}}[k.name]
		end.SetResourceVersion(strconv.FormatInt(s.version, 10))
		end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		stream.push(stream.encode(watch.Bookmark, end))
	}
	k.watchers[stream] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(k.watchers, stream)
	}()

	w.Header().Set("Content-Type", info.MediaType+map[bool]string{true: ";stream=watch"}[info.MediaType == runtime.ContentTypeProtobuf])
	stream.send(w, r)
	return 0, nil
}

// renew renews the Lease of a host, or makes it.
func (s *source) renew(host string, duration time.Duration) {
	s.put(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.DefaultLeaseNamespace, Name: host},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &host, RenewTime: ptr.To(metav1.NowMicro()), LeaseDurationSeconds: ptr.To(int32(duration.Seconds())),
		},
	})
}

// events calls do at a steady rate and returns how often.
func events(ctx context.Context, perSecond int, length time.Duration, do func(i int)) (int, error) {
	begin, n := time.Now(), 0
	for time.Since(begin) < length {
		for due := int(time.Since(begin).Seconds() * float64(perSecond)); n < due; n++ {
			do(n)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return n, err
		}
	}
	return n, nil
}
