// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"hoststatus.dev/hoststatus/test/framework/sandbox"
)

// box is where the cluster runs.
var box sandbox.Sandbox

// cgroups is where the kernel's control groups are mounted.
const cgroups = "/sys/fs/cgroup"

// programs are those of Debian's packages that hack/ensure-packages.sh installs.
var programs = []string{"containerd", "ctr", "runc", "containerd-shim-runc-v2", "iptables", "ip", "nsenter", "unshare", "/usr/lib/cni/bridge", "/usr/lib/cni/host-local", "/usr/lib/cni/loopback"}

// skipped is why there is no cluster, or empty.
var skipped string

// forbidden returns why this machine cannot run nodes, or nothing.
func forbidden() string {
	if os.Geteuid() != 0 {
		return "nodes need network and mount namespaces, control groups and overlay mounts, which take root: sudo make test-cluster"
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return "there is no " + program + " on this machine; hack/ensure-packages.sh installs it"
		}
	}
	// Whether the kernel allows what a node does is best asked by doing it.
	if err := box.Try(`
		mount --make-rprivate / && mount -t tmpfs tmpfs /mnt
		mkdir /mnt/lower /mnt/upper /mnt/work /mnt/merged && mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/merged
		ip link add try type veth peer name try2 && ip link add try3 type bridge
		iptables -t nat -A OUTPUT -p tcp -m comment --comment try -m statistic --mode random --probability 0.5 -j RETURN
	`); err != nil {
		return "what a node does: " + err.Error()
	}
	return ""
}

// enter builds what the cluster needs while there is a network, runs the tests inside, and
// puts back what belongs to the whole machine.
func enter(ctx context.Context) (code int, err error) {
	dir, err := os.MkdirTemp("", "hoststatus-cluster-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := prepare(ctx, dir); err != nil {
		return 0, err
	}
	restore, err := rememberSysctls()
	if err != nil {
		return 0, err
	}
	defer restore()
	group := cgroupOf(dir)
	// Made before, removed after all processes in them.
	defer removeCgroups(group)
	if err := makeCgroups(group); err != nil {
		return 0, err
	}
	return box.Enter(ctx, dir)
}

// cgroupOf is the name of the control groups of the cluster in a folder.
func cgroupOf(dir string) string { return filepath.Base(dir) }

// rememberSysctls returns what gives the machine back the settings that a kubelet makes.
func rememberSysctls() (restore func(), err error) {
	values := map[string][]byte{}
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"} {
		path := filepath.Join("/proc/sys", name)
		if values[path], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return func() {
		for path, value := range values {
			if err := os.WriteFile(path, value, 0o644); err != nil {
				fmt.Println("restoring a setting of the machine:", err)
			}
		}
	}, nil
}

// hierarchies are the folders in which a control group has to be made: one, or one for
// each controller where they are of version 1.
func hierarchies() (folders []string, unified bool, err error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, true, nil
	}
	entries, err := os.ReadDir(cgroups)
	for _, entry := range entries {
		if entry.IsDir() {
			folders = append(folders, filepath.Join(cgroups, entry.Name()))
		}
	}
	return folders, false, err
}

func makeCgroups(group string) error {
	folders, unified, err := hierarchies()
	if err != nil {
		return err
	}
	for _, parent := range folders {
		if unified {
			if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+cpu +cpuset +memory +pids +io"), 0o644); err != nil {
				return fmt.Errorf("handing control groups on: %w", err)
			}
		}
		if err := os.Mkdir(filepath.Join(parent, group), 0o755); err != nil {
			return err
		}
		if unified {
			if err := os.WriteFile(filepath.Join(parent, group, "cgroup.subtree_control"), []byte("+cpu +cpuset +memory +pids +io"), 0o644); err != nil {
				return fmt.Errorf("handing control groups on: %w", err)
			}
		}
		for node := range nodes {
			if err := os.Mkdir(filepath.Join(parent, group, nodeName(node)), 0o755); err != nil {
				return err
			}
		}
		if filepath.Base(parent) != "cpuset" {
			continue
		}
		// Of version 1 a group has no CPUs and no memory of its own accord.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			content, err := os.ReadFile(filepath.Join(parent, file))
			if err != nil {
				return err
			}
			for _, child := range []string{group, filepath.Join(group, nodeName(0)), filepath.Join(group, nodeName(1))} {
				if err := os.WriteFile(filepath.Join(parent, child, file), content, 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// removeCgroups removes a group and all in it, which no process is in any more.
func removeCgroups(group string) {
	folders, _, err := hierarchies()
	for _, parent := range folders {
		err = errors.Join(err, removeCgroup(filepath.Join(parent, group)))
	}
	if err != nil {
		fmt.Println("removing the control groups:", err)
	}
}

func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(path, entry.Name())))
		}
	}
	return errors.Join(err, os.Remove(path))
}
