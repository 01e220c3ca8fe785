// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// machine says what a result was measured on.
type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	MemoryGiB  int    `json:"memoryGiB"`
	Go         string `json:"go"`
	Kubernetes string `json:"kubernetes"`
	Etcd       string `json:"etcd"`
}

// String is the machine in one line.
func (m machine) String() string {
	return fmt.Sprintf("%d cores (%s), %d GiB, %s, kube-apiserver %s, etcd %s", m.Cores, m.CPU, m.MemoryGiB, m.Go, m.Kubernetes, m.Etcd)
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.Kubernetes, m.Etcd = controlplane.Versions()
	m.CPU = field("/proc/cpuinfo", "model name")
	if kib, err := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		m.MemoryGiB = kib >> 20
	}
	return m
}

// field returns what stands behind the first occurrence of name in a file of
// lines "name: value".
func field(path, name string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// cpuOf returns the CPU time that a process has used.
func cpuOf(pid int) (time.Duration, error) {
	// How the kernel names the CPU clock of another process.
	clock := int32(^pid<<3 | 2)
	var used unix.Timespec
	if err := unix.ClockGettime(clock, &used); err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}

// peakOf returns the largest resident memory that a process has had, in bytes.
func peakOf(pid int) (float64, error) { return memoryOf(pid, "VmHWM") }

// memoryOf returns what the kernel says of the memory of a process in bytes: VmRSS
// now, or VmHWM, its peak.
func memoryOf(pid int, kind string) (float64, error) {
	kib, err := strconv.ParseFloat(strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", pid), kind), " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	return kib * 1024, nil
}

// heapTries is how often a heap is looked at until it rests, and heapPause how long after the
// last look. It rests when it has changed by less than a hundredth.
const (
	heapTries = 20
	heapPause = 500 * time.Millisecond
)

// heapOf returns the live heap of a process with profiles in bytes, once it rests: what the
// last events have put into queues is gone then, too.
func heapOf(ctx context.Context, pprof string) (float64, error) {
	last, err := heapNow(pprof)
	for range heapTries {
		if err != nil {
			return 0, err
		}
		if err := sleep(ctx, heapPause); err != nil {
			return 0, err
		}
		before := last
		last, err = heapNow(pprof)
		if err == nil && math.Abs(last-before) < before/100 {
			return last, nil
		}
	}
	return last, err
}

// heapNow returns the live heap of a process after a collection.
func heapNow(pprof string) (float64, error) {
	// The second collection takes what the first one's finalizers held.
	var body string
	for range 2 {
		var err error
		if body, err = fetch("http://" + pprof + "/debug/pprof/heap?gc=1&debug=1"); err != nil {
			return 0, err
		}
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the heap profile of %s does not tell the live heap", pprof)
}

func fetch(url string) (string, error) {
	response, err := http.Get(url) // the process answers or has ended
	if err != nil {
		return "", fmt.Errorf("asking %s: %w", url, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("asking %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking %s: %s", url, response.Status)
	}
	return string(body), nil
}

// metric returns the sum of the metrics whose line begins with prefix.
func metric(address, prefix string) (float64, error) {
	body, err := fetch("http://" + address + "/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
		if err != nil {
			return 0, fmt.Errorf("reading the metric %s: %w", prefix, err)
		}
		sum += v
	}
	return sum, nil
}
