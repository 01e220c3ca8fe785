// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

const (
	bareGroup = "bare.bench.hoststatus.dev"
	barePath  = "/apis/" + bareGroup + "/v1"
)

// bareView is the least that an aggregated API server can do to tell owners of their hosts:
// it has the event of each server encoded, and sends it to the watches of its namespace once
// the host's ComputeService has changed. It checks nobody's rights and works nothing out.
type bareView struct {
	// events are those of the servers of a host, by namespace.
	events map[string]map[string][]byte

	mu sync.Mutex
	// watches are those that run, and their namespaces.
	watches map[*stream]string
}

// startBareView starts one behind kube-apiserver, with the servers as the owners' view shows
// them to p.
func (w *world) startBareView(ctx context.Context, p *person) error {
	v := &bareView{events: map[string]map[string][]byte{}, watches: map[*stream]string{}}
	if err := v.encode(ctx, w, p); err != nil {
		return err
	}
	server := httptest.NewUnstartedServer(v)
	server.EnableHTTP2 = true
	server.StartTLS()
	w.trial.later(func() {
		server.CloseClientConnections()
		server.Close()
	})
	port := int64(server.Listener.Addr().(*net.TCPAddr).Port)
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "bare-view"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost", Ports: []corev1.ServicePort{{Port: int32(port)}}},
	}
	if _, err := w.leases.CoreV1().Services(service.Namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the Service of a bare view: %w", err)
	}
	registration := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"metadata": map[string]any{"name": "v1." + bareGroup},
		"spec": map[string]any{
			"group": bareGroup, "version": "v1", "groupPriorityMinimum": int64(1000), "versionPriority": int64(10), "insecureSkipTLSVerify": true,
			"service": map[string]any{"namespace": service.Namespace, "name": service.Name, "port": port},
		},
	}}
	if err := w.admin.Create(ctx, registration); err != nil {
		return fmt.Errorf("registering a bare view: %w", err)
	}
	if out, err := w.fleet.Kubectl(ctx, "wait", "--for=condition=Available", "--timeout="+settleTimeout.String(), "apiservice/"+registration.GetName()).CombinedOutput(); err != nil {
		return fmt.Errorf("waiting for a bare view: %w\n%s", err, out)
	}
	return follow(ctx, w, &v1alpha1.ComputeServiceList{}, func(s *v1alpha1.ComputeService, _ time.Time) { v.changed(s.Name) })
}

// encode makes the events of all servers.
func (v *bareView) encode(ctx context.Context, w *world, p *person) error {
	var servers v1alpha1.ServerList
	if err := w.admin.List(ctx, &servers); err != nil {
		return fmt.Errorf("listing servers: %w", err)
	}
	hosts := map[string]string{}
	for _, s := range servers.Items {
		hosts[s.Namespace+"/"+s.Name] = s.Spec.Host
	}
	response, err := p.ask(ctx, tenantPath+"/servers")
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	var shown struct{ Items []json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&shown); err != nil {
		return fmt.Errorf("reading the owners' view: %w", err)
	}
	for _, item := range shown.Items {
		var of metav1.PartialObjectMetadata
		if err := json.Unmarshal(item, &of); err != nil {
			return fmt.Errorf("reading a server of the owners' view: %w", err)
		}
		host := hosts[of.Namespace+"/"+of.Name]
		if v.events[host] == nil {
			v.events[host] = map[string][]byte{}
		}
		v.events[host][of.Namespace] = fmt.Appendf(v.events[host][of.Namespace], "{\"type\":\"MODIFIED\",\"object\":%s}\n", item)
	}
	return nil
}

// changed sends the events of the servers of a host, whose ComputeService has changed.
func (v *bareView) changed(host string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for watch, namespace := range v.watches {
		if events := v.events[host][namespace]; len(events) > 0 {
			watch.push(events)
		}
	}
}

// ServeHTTP implements http.Handler.
func (v *bareView) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	namespace, within := strings.CutPrefix(strings.TrimSuffix(r.URL.Path, "/servers"), barePath+"/namespaces/")
	switch {
	case !within:
		_, _ = io.WriteString(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"`+bareGroup+`/v1","resources":[]}`)
		return
	case r.URL.Query().Get("watch") == "":
		_, _ = io.WriteString(w, `{"metadata":{"resourceVersion":"1"},"items":[]}`)
		return
	}
	watch := newStream()
	v.mu.Lock()
	v.watches[watch] = namespace
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.watches, watch)
	}()
	watch.send(w, r)
}
