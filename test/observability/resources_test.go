// SPDX-License-Identifier: Apache-2.0

package observability

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// resourceConfig is the part of kube-state-metrics' configuration that ours uses.
// Decoding is strict, so that ours uses no more.
type resourceConfig struct {
	Kind string `json:"kind"`
	Spec struct {
		Resources []resource `json:"resources"`
	} `json:"spec"`
}

type resource struct {
	GroupVersionKind struct {
		Group   string `json:"group"`
		Version string `json:"version"`
		Kind    string `json:"kind"`
	} `json:"groupVersionKind"`
	MetricNamePrefix string              `json:"metricNamePrefix"`
	LabelsFromPath   map[string][]string `json:"labelsFromPath"`
	Metrics          []resourceMetric    `json:"metrics"`
}

type resourceMetric struct {
	Name string `json:"name"`
	Help string `json:"help"`
	Each struct {
		Type     string `json:"type"`
		StateSet *struct {
			LabelName string   `json:"labelName"`
			Path      []string `json:"path"`
			List      []string `json:"list"`
		} `json:"stateSet"`
		Info *struct {
			Path           []string            `json:"path"`
			LabelsFromPath map[string][]string `json:"labelsFromPath"`
		} `json:"info"`
		Gauge *struct {
			Path      []string `json:"path"`
			NilIsZero bool     `json:"nilIsZero"`
		} `json:"gauge"`
	} `json:"each"`
}

// serveResources answers as kube-state-metrics is to answer with our configuration.
// kube-state-metrics itself is not there: this shows that the paths lead to what the
// objects have, and that the dashboard asks for what comes of them, and no more.
func serveResources(t *testing.T, system *fleet.Fleet) (address string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "config", "prometheus", "kube-state-metrics.yaml"))
	expect.NoError(t, err)
	var config resourceConfig
	expect.NoError(t, yaml.UnmarshalStrict(content, &config))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var out bytes.Buffer
		for i := range config.Spec.Resources {
			if err := config.Spec.Resources[i].write(r.Context(), system, &out); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		_, _ = w.Write(out.Bytes())
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func (r *resource) write(ctx context.Context, system *fleet.Fleet, out *bytes.Buffer) error {
	list := &unstructured.UnstructuredList{}
	gvk := r.GroupVersionKind
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind + "List"})
	if err := system.Client.List(ctx, list); err != nil {
		return err
	}
	for i := range r.Metrics {
		m := &r.Metrics[i]
		_, _ = fmt.Fprintf(out, "# HELP %s_%s %s\n# TYPE %s_%s gauge\n", r.MetricNamePrefix, m.Name, m.Help, r.MetricNamePrefix, m.Name)
		for _, item := range list.Items {
			labels := labelsOf(item.Object, r.LabelsFromPath)
			if err := m.write(out, r.MetricNamePrefix+"_"+m.Name, item.Object, labels); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *resourceMetric) write(out *bytes.Buffer, name string, obj any, labels []string) error {
	line := func(value float64, more ...string) {
		_, _ = fmt.Fprintf(out, "%s{%s} %v\n", name, strings.Join(append(slices.Clone(labels), more...), ","), value)
	}
	switch {
	case m.Each.Type == "StateSet" && m.Each.StateSet != nil:
		set := m.Each.StateSet
		value, ok := lookup(obj, set.Path).(string)
		if !ok {
			return nil
		}
		for _, state := range set.List {
			holds := 0.0
			if state == value {
				holds = 1
			}
			line(holds, fmt.Sprintf("%s=%q", set.LabelName, state))
		}
	case m.Each.Type == "Info" && m.Each.Info != nil:
		if more := labelsOf(lookup(obj, m.Each.Info.Path), m.Each.Info.LabelsFromPath); len(more) > 0 {
			line(1, more...)
		}
	case m.Each.Type == "Gauge" && m.Each.Gauge != nil:
		found := lookup(obj, m.Each.Gauge.Path)
		if found == nil {
			if m.Each.Gauge.NilIsZero {
				line(0)
			}
			return nil
		}
		value, err := number(found)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		line(value)
	default:
		return fmt.Errorf("%s has type %q, which does not fit what it says", name, m.Each.Type)
	}
	return nil
}

func labelsOf(obj any, paths map[string][]string) []string {
	var labels []string
	for name, path := range paths {
		if value := lookup(obj, path); value != nil {
			quoted, _ := json.Marshal(fmt.Sprint(value))
			labels = append(labels, name+"="+string(quoted))
		}
	}
	slices.Sort(labels)
	return labels
}

// lookup follows a path, in which [key=value] finds an element of a list.
func lookup(obj any, path []string) any {
	for _, part := range path {
		switch at := obj.(type) {
		case map[string]any:
			obj = at[part]
		case []any:
			key, value, _ := strings.Cut(strings.Trim(part, "[]"), "=")
			i := slices.IndexFunc(at, func(e any) bool { m, ok := e.(map[string]any); return ok && m[key] == value })
			if i < 0 {
				return nil
			}
			obj = at[i]
		default:
			return nil
		}
	}
	return obj
}

// number makes a value of what our paths lead to: conditions' statuses and times.
func number(found any) (float64, error) {
	switch found {
	case "True":
		return 1, nil
	case "False", "Unknown":
		return 0, nil
	}
	text, ok := found.(string)
	if !ok {
		return 0, fmt.Errorf("expected a status or a time, not %v", found)
	}
	at, err := time.Parse(time.RFC3339, text)
	return float64(at.Unix()), err
}
