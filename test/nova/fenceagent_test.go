// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	// fenceCompute and debianPython are Debian's: another Python on the PATH lacks its modules.
	fenceCompute = "/usr/sbin/fence_compute"
	debianPython = "/usr/bin/python3"
)

// fenceComputeScript runs fence_compute as it is. It asks for the parameters of a function of
// novaclient in a way that Python 3.11 has taken out, and Debian 12 has that Python.
const fenceComputeScript = `import inspect, runpy, sys
inspect.getargspec = inspect.getfullargspec
sys.argv[0] = "` + fenceCompute + `"
runpy.run_path(sys.argv[0], run_name="__main__")
`

// attrdUpdater stands for Pacemaker's, by which fence_compute asks for an evacuation.
const attrdUpdater = "#!/bin/sh\nexit 0\n"

// fenceAgent runs fence_compute on a host, and returns what it prints and its exit code.
func fenceAgent(t *testing.T, action, host string) (string, int) {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "run.py")
	expect.NoError(t, os.WriteFile(script, []byte(fenceComputeScript), 0o644))
	expect.NoError(t, os.WriteFile(filepath.Join(dir, "attrd_updater"), []byte(attrdUpdater), 0o755))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, debianPython, script, "--auth-url="+env.url+"/identity/v3", "--username=pacemaker", "--password="+env.tokens["administrator"],
		"--tenant-name=team-a", "--domain=", "--action="+action, "--plug="+host)
	command.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8", "PYTHONWARNINGS=ignore"}
	out, err := command.CombinedOutput()
	if command.ProcessState == nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), command.ProcessState.ExitCode()
}

// Pacemaker's agent marks a host down and disables it, and an owner sees DOWN. How long that
// takes stands beside a kubectl that does the same.
func TestPacemakersFenceAgentMarksAHostDownAndUp(t *testing.T) {
	for _, path := range []string{fenceCompute, debianPython, "/usr/lib/python3/dist-packages/keystoneclient"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%s is missing: hack/ensure-packages.sh openstack", path)
		}
	}
	const host = "compute-2"
	back := func() {
		kubectl(t, "patch", "computeservice", host, "--type=merge", `--patch={"spec":{"disabled":null,"disabledReason":null,"forcedDown":null,"forcedDownReason":null}}`)
		hostIs(t, v1alpha1.HostStatusUp, host)
	}
	t.Cleanup(back)
	address := env.url + "/v2.1/team-a/servers/" + serverUID(t, "team-a", "web-2")
	seenDown := func() {
		t.Helper()
		expect.NoError(t, untilDown(t, http.DefaultClient, address, "X-Auth-Token", env.tokens["ana"], "OpenStack-API-Version", "compute 2.34"))
	}
	status := func(want string, code int) {
		t.Helper()
		if out, exit := fenceAgent(t, "status", host); out != "Status: "+want || exit != code {
			t.Errorf("its status is %q, exit %d; want %s, exit %d", out, exit, want, code)
		}
	}
	var ours, theirs []time.Duration
	for range 3 {
		status("ON", 0)
		begin := time.Now()
		if out, exit := fenceAgent(t, "off", host); exit != 0 {
			t.Fatalf("off: exit %d\n%s", exit, out)
		}
		seenDown()
		ours = append(ours, time.Since(begin))
		status("OFF", 2)
		if out, exit := fenceAgent(t, "on", host); exit != 0 {
			t.Fatalf("on: exit %d\n%s", exit, out)
		}
		hostIs(t, v1alpha1.HostStatusUp, host)

		begin = time.Now()
		kubectl(t, "get", "computeservice", host)
		kubectl(t, "patch", "computeservice", host, "--type=merge", `--patch={"spec":{"forcedDown":true}}`)
		kubectl(t, "patch", "computeservice", host, "--type=merge", `--patch={"spec":{"disabled":true}}`)
		seenDown()
		theirs = append(theirs, time.Since(begin))
		back()
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	t.Logf("from the start of fence_compute until an owner sees DOWN: %s; with kubectl: %s", ours[1].Round(time.Millisecond), theirs[1].Round(time.Millisecond))
}
