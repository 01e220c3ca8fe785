// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

// alertGroups are the rules as Prometheus reads them.
type alertGroups struct {
	Groups []alertGroup `json:"groups"`
}

type alertGroup struct {
	Name  string  `json:"name"`
	Rules []alert `json:"rules"`
}

type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func readAlerts(path string) (*alertGroups, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the alerts: %w", err)
	}
	var groups alertGroups
	if err := yaml.UnmarshalStrict(content, &groups); err != nil {
		return nil, fmt.Errorf("reading the alerts in %s: %w", path, err)
	}
	return &groups, nil
}

// prometheusRule wraps the alerts for the Prometheus operator.
func prometheusRule(groups *alertGroups) ([]byte, error) {
	object, err := yaml.Marshal(map[string]any{
		"apiVersion": "monitoring.coreos.com/v1",
		"kind":       "PrometheusRule",
		"metadata": map[string]any{
			"name": "hoststatus", "namespace": "hoststatus-system",
			"labels": map[string]string{"app.kubernetes.io/name": "hoststatus"},
		},
		"spec": groups,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the PrometheusRule: %w", err)
	}
	var out bytes.Buffer
	out.WriteString("# Made from alerts.yaml by `make generate`.\n")
	out.Write(object)
	return out.Bytes(), nil
}
