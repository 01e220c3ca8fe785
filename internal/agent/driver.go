// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// VM is what a driver knows of one server on its host.
type VM struct {
	// Server is the namespace and name of the Server, which the driver has from
	// the VM itself: the agent may not read Servers.
	Server types.NamespacedName
	// Empty fields are not reported.
	State      v1alpha1.ServerState
	TaskState  string
	PowerState v1alpha1.PowerState
	Networks   []v1alpha1.ServerNetwork
}

// Driver knows the VMs on this host.
type Driver interface {
	// Run calls report with all VMs on the host, at first and after each change,
	// until ctx ends. It returns an error only if it cannot go on.
	Run(ctx context.Context, report func([]VM)) error
}

// FakeDriver takes a YAML file for the hypervisor, so that a person can change
// the state of a VM and see it arrive.
type FakeDriver struct {
	// Path of the file.
	Path string
	// Logger takes a line when the file cannot be used; what it said before then
	// stands.
	Logger logr.Logger
}

// fakeFile is the content of the file.
type fakeFile struct {
	Servers []fakeServer `json:"servers"`
}

type fakeServer struct {
	Namespace  string                   `json:"namespace"`
	Name       string                   `json:"name"`
	State      v1alpha1.ServerState     `json:"state"`
	TaskState  string                   `json:"taskState"`
	PowerState v1alpha1.PowerState      `json:"powerState"`
	Networks   []v1alpha1.ServerNetwork `json:"networks"`
}

// Run reads the file now and whenever it changes.
func (d *FakeDriver) Run(ctx context.Context, report func([]VM)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching --fake-driver-file: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	// The folder, since an editor replaces the file rather than writing to it.
	if err := watcher.Add(filepath.Dir(d.Path)); err != nil {
		return fmt.Errorf("watching the folder of --fake-driver-file %s: %w", d.Path, err)
	}
	var known []VM
	var complaint string
	for {
		vms, err := readFake(d.Path)
		switch {
		case err == nil && (complaint != "" || !reflect.DeepEqual(vms, known)):
			known, complaint = vms, ""
			report(vms)
		case err != nil && err.Error() != complaint:
			complaint = err.Error()
			d.Logger.Error(err, "File of the fake driver cannot be used; what it said before stands")
		}
		// Any change in the folder: what is mounted from a ConfigMap changes through
		// a link beside it.
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
		case err := <-watcher.Errors:
			return fmt.Errorf("watching --fake-driver-file: %w", err)
		}
	}
}

func readFake(path string) ([]VM, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading --fake-driver-file: %w", err)
	}
	var file fakeFile
	if err := yaml.UnmarshalStrict(content, &file); err != nil {
		return nil, fmt.Errorf("reading --fake-driver-file %s: %w", path, err)
	}
	vms := make([]VM, 0, len(file.Servers))
	for i, s := range file.Servers {
		if s.Namespace == "" || s.Name == "" {
			return nil, fmt.Errorf("reading --fake-driver-file %s: %w", path,
				field.Required(field.NewPath("servers").Index(i), "give the namespace and the name of the Server"))
		}
		vms = append(vms, VM{
			Server:    types.NamespacedName{Namespace: s.Namespace, Name: s.Name},
			State:     s.State,
			TaskState: s.TaskState, PowerState: s.PowerState, Networks: s.Networks,
		})
	}
	return vms, nil
}
