// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"os"
	"path/filepath"
)

// writeOverlay writes, into dir, a kustomization that changes config/part by patches.
//
// They point the shipped manifests at a process on this machine: there are no pods
// here, and kube-apiserver follows an ExternalName without looking for endpoints. The
// names in certificates stay those of the Service.
func writeOverlay(root, dir, part, patches string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	// kustomize takes links for what they point to, and wants a relative path.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("finding %s: %w", dir, err)
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return fmt.Errorf("finding %s: %w", root, err)
	}
	shipped, err := filepath.Rel(dir, filepath.Join(root, "config", part))
	if err != nil {
		return fmt.Errorf("finding config/%s: %w", part, err)
	}
	content := "resources:\n- " + shipped + "\npatches:\n" + patches
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content), 0o644); err != nil {
		return fmt.Errorf("writing the manifests of config/%s: %w", part, err)
	}
	return nil
}

// externalName is a patch that points a Service at a port of localhost.
func externalName(service, port string) string {
	return fmt.Sprintf(`- target: {kind: Service, name: %s}
  patch: |-
    - {op: replace, path: /spec, value: {type: ExternalName, externalName: localhost, ports: [{name: https, port: %s}]}}
`, service, port)
}
