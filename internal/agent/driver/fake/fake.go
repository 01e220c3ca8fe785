// SPDX-License-Identifier: Apache-2.0

// Package fake is a driver that reads a YAML file in place of a hypervisor.
package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/internal/agent/driver"
)

// Driver reads a YAML file in place of a hypervisor, so that a person can change
// the state of a VM and watch it arrive.
type Driver struct {
	// Path of the file.
	Path string
	// Logger takes a line when the file cannot be used; its last content then stays in
	// effect.
	Logger logr.Logger
	// OnHealth, if set, is called with what is wrong with the file, or nil.
	OnHealth func(error)
}

// maxNotes is how many notes on a file are kept: enough to find what is wrong with it.
const maxNotes = 8

// file is the content of the file.
type file struct {
	Servers []json.RawMessage `json:"servers"`
}

// Run reads the file now and whenever it changes.
func (d *Driver) Run(ctx context.Context, report func([]driver.VM)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching --fake-driver-file: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	// The folder, since an editor replaces the file rather than writing to it.
	if err := watcher.Add(filepath.Dir(d.Path)); err != nil {
		return fmt.Errorf("watching the folder of --fake-driver-file %s: %w", d.Path, err)
	}
	var known []driver.VM
	var lastError, lastNotes string
	for {
		vms, notes, err := readFake(d.Path)
		if d.OnHealth != nil {
			d.OnHealth(err)
		}
		switch {
		case err == nil && (lastError != "" || !reflect.DeepEqual(vms, known)):
			known, lastError = vms, ""
			report(vms)
		case err != nil && err.Error() != lastError:
			lastError = err.Error()
			d.Logger.Error(err, "The fake driver's file cannot be used; keeping its last content")
		}
		if joined := strings.Join(notes, "; "); err == nil && joined != lastNotes {
			lastNotes = joined
			if joined != "" {
				d.Logger.Info("Some entries of the fake driver's file cannot be used; using the others", "notes", notes)
			}
		}
		// Any change in the folder: a file mounted from a ConfigMap changes through a
		// link beside it.
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
		case err := <-watcher.Errors:
			return fmt.Errorf("watching --fake-driver-file: %w", err)
		}
	}
}

// readFake returns the servers in the file, and notes on what is wrong with some of them,
// so that the others can still be reported.
func readFake(path string) (vms []driver.VM, notes []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading --fake-driver-file: %w", err)
	}
	var content file
	if err := yaml.UnmarshalStrict(text, &content); err != nil {
		return nil, nil, fmt.Errorf("reading --fake-driver-file %s: %w", path, err)
	}
	vms = make([]driver.VM, 0, len(content.Servers))
	for i, entry := range content.Servers {
		vm, errs := readServer(field.NewPath("servers").Index(i), entry)
		if vm.Server.Namespace != "" && vm.Server.Name != "" {
			vms = append(vms, vm)
		}
		for _, err := range errs {
			if len(notes) < maxNotes {
				notes = append(notes, err.Error())
			}
		}
	}
	return vms, notes, nil
}

// readServer returns what can be used of an entry, and what is wrong with it.
func readServer(at *field.Path, entry json.RawMessage) (vm driver.VM, errs field.ErrorList) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(entry, &fields); err != nil {
		return driver.VM{}, field.ErrorList{field.Invalid(at, string(entry), "must be a server, with its namespace and name")}
	}
	into := map[string]any{
		"namespace": &vm.Server.Namespace, "name": &vm.Server.Name, "state": &vm.State,
		"taskState": &vm.TaskState, "powerState": &vm.PowerState, "networks": &vm.Networks,
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		target, known := into[name]
		if !known {
			errs = append(errs, field.Invalid(at.Child(name), string(fields[name]), "is not a field of a server; remove it"))
		} else if err := json.Unmarshal(fields[name], target); err != nil {
			errs = append(errs, field.Invalid(at.Child(name), string(fields[name]), "cannot be read and is ignored: "+err.Error()))
			reflect.ValueOf(target).Elem().SetZero()
		}
	}
	if vm.Server.Namespace == "" || vm.Server.Name == "" {
		errs = append(errs, field.Required(at, "set the namespace and the name of the Server"))
	}
	return vm, errs
}
