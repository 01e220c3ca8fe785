// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// needClient skips a test where one of OpenStack's clients, which hack/ensure-packages.sh
// installs, is missing.
func needClient(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: hack/ensure-packages.sh openstack", name)
	}
}

// run runs one of the clients as an account, and returns all that it prints.
func runClient(ctx context.Context, t testing.TB, account, version string, args ...string) string {
	t.Helper()
	endpoint := env.url + "/v2.1/team-a"
	command := exec.CommandContext(ctx, args[0], args[1:]...)
	command.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "COLUMNS=400", "CLIFF_MAX_TERM_WIDTH=400", "CLIFF_FIT_WIDTH=0", "LANG=C.UTF-8", "PYTHONWARNINGS=ignore",
		"OS_AUTH_TYPE=admin_token", "OS_ENDPOINT=" + endpoint, "OS_TOKEN=" + env.tokens[account], "OS_COMPUTE_API_VERSION=" + version,
	}
	if args[0] == "nova" { // It wants these, and uses neither.
		command.Env = append(command.Env, "OS_AUTH_URL="+env.url+"/identity/v3", "OS_PROJECT_ID=team-a", "OS_ENDPOINT_OVERRIDE="+endpoint)
	}
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	if code := command.ProcessState.ExitCode(); code != 0 {
		fmt.Fprintf(&out, "[exit %d]\n", code)
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// What differs from run to run is replaced by as many characters, so that tables stay tables.
var (
	timePattern    = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6}|Z)?`)
	hostIDPattern  = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	requestPattern = regexp.MustCompile(`req-[0-9a-f-]{36}`)
	oldIDPattern   = regexp.MustCompile(`\b[0-9]{9,15}\b`)
)

// steady replaces ids by names and times by zeros.
func steady(t testing.TB, text string) string {
	t.Helper()
	names := map[string]string{}
	var servers v1alpha1.ServerList
	expect.NoError(t, env.Client.List(t.Context(), &servers))
	for _, s := range servers.Items {
		names[string(s.UID)] = s.Namespace + "-" + s.Name
	}
	var services v1alpha1.ComputeServiceList
	expect.NoError(t, env.Client.List(t.Context(), &services))
	for _, s := range services.Items {
		names[string(s.UID)] = s.Name
	}
	for id, name := range names {
		text = strings.ReplaceAll(text, id, fmt.Sprintf("%-*s", len(id), "id-of-"+name)[:len(id)])
	}
	zeros := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' || r >= 'a' && r <= 'f' {
				return '0'
			}
			return r
		}, s)
	}
	for _, pattern := range []*regexp.Regexp{timePattern, hostIDPattern, oldIDPattern} {
		text = pattern.ReplaceAllStringFunc(text, zeros)
	}
	text = requestPattern.ReplaceAllString(text, "req-…")
	return strings.ReplaceAll(text, env.url, "http://nova-api")
}

// golden compares with, or writes, a file of testdata/golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		expect.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		expect.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	expect.NoError(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); go test ./test/nova -update writes it\n%s", path, diff)
	}
}

// everyStatus lets the hosts have one status each: compute-1 is UP, compute-2 DOWN,
// compute-3 in MAINTENANCE and compute-4 UNKNOWN. All are as before at the end.
func everyStatus(t *testing.T) {
	t.Helper()
	patch := func(host, spec string) {
		kubectl(t, "patch", "computeservice", host, "--type=merge", "--patch="+`{"spec":`+spec+`}`)
	}
	t.Cleanup(func() {
		patch("compute-2", `{"forcedDown":null,"forcedDownReason":null}`)
		patch("compute-3", `{"disabled":null,"disabledReason":null}`)
		expect.NoError(t, env.StartAgent("compute-4"))
		for _, host := range []string{"compute-2", "compute-3", "compute-4"} {
			hostIs(t, v1alpha1.HostStatusUp, host)
		}
	})
	expect.Eventually(t, patience, everyServerIsReported(t))
	env.Agents["compute-4"].Stop()
	patch("compute-2", `{"forcedDown":true,"forcedDownReason":"fenced by ipmi"}`)
	patch("compute-3", `{"disabled":true,"disabledReason":"new memory"}`)
	hostIs(t, v1alpha1.HostStatusDown, "compute-2")
	hostIs(t, v1alpha1.HostStatusMaintenance, "compute-3")
	hostIs(t, v1alpha1.HostStatusUnknown, "compute-4")
}

// callers are the accounts whose output is kept: an administrator, an owner in each of the
// three grades, and a stranger.
var callers = []string{"administrator", "ana", "abe", "ada", "stranger"}

const longList = "openstack server list --long --sort-column Name"

// words splits a command, in which a dot within a word stands for a space.
func words(command string) []string {
	fields := strings.Fields(command)
	for i := 1; i < len(fields); i++ {
		if i > 0 && fields[i-1] == "-c" || strings.HasPrefix(fields[i], "'") {
			fields[i] = strings.Trim(strings.ReplaceAll(fields[i], ".", " "), "'")
		}
	}
	return fields
}

func TestOpenStacksClientsShowWhatTheirCallerMaySee(t *testing.T) {
	needClient(t, "openstack")
	needClient(t, "nova")
	everyStatus(t)
	for _, c := range []struct {
		name, version, command string
		// only names who runs it; none means all callers.
		only []string
	}{
		{name: "server-list-long", version: "2.72", command: longList},
		{name: "server-list-by-default", version: "2.1", command: "openstack server list --sort-column Name", only: []string{"ana"}},
		{name: "server-list-all-projects", version: "2.72", command: longList + " --all-projects --name ^(api|build|db|queue|web)-"},
		{name: "server-list-host", version: "2.72", command: "openstack server list --all-projects --host compute-2 --sort-column Name"},
		{name: "server-list-host-as-owner", version: "2.72", command: "openstack server list --host compute-2", only: []string{"ana"}},
		{name: "server-list-project", version: "2.72", command: "openstack server list --project team-b --sort-column Name", only: []string{"administrator", "ana"}},
		{name: "server-list-status", version: "2.72", command: "openstack server list --project team-b --status SHUTOFF", only: []string{"administrator"}},
		{name: "server-list-page", version: "2.72", command: "nova list --sort display_name:asc --limit 2 --marker MARKER", only: []string{"ana"}},
		{name: "server-show", version: "2.72", command: "openstack server show web-2"},
		{name: "nova-list-fields", version: "2.72", command: "nova list --sort display_name:asc --fields name,host_status"},
		{name: "compute-service-list", version: "2.72", command: "openstack compute service list --host compute-3"},
		{name: "hypervisor-list", version: "2.72", command: "openstack hypervisor list --matching compute-2"},
		{name: "hypervisor-list-old", version: "2.30", command: "openstack hypervisor list --matching compute-2", only: []string{"administrator"}},
		{name: "nova-hypervisor-servers", version: "2.72", command: "nova hypervisor-servers compute-2", only: []string{"administrator"}},
		{name: "evacuate", version: "2.72", command: "nova evacuate web-2", only: []string{"administrator"}},
	} {
		for _, caller := range callers {
			if len(c.only) > 0 && !strings.Contains(strings.Join(c.only, " "), caller) {
				continue
			}
			t.Run(c.name+"/"+caller, func(t *testing.T) {
				command := words(strings.ReplaceAll(c.command, "MARKER", serverUID(t, "team-a", "db-2")))
				golden(t, filepath.Join(c.name, caller), steady(t, runClient(t.Context(), t, caller, c.version, command...)))
			})
		}
	}
}

func TestOpenStacksClientsSetServices(t *testing.T) {
	needClient(t, "openstack")
	needClient(t, "nova")
	list := func(version string) []string {
		columns := []string{"openstack", "compute", "service", "list", "--host", "compute-1", "--service", "nova-compute", "-c", "Host", "-c", "Status", "-c", "State"}
		if version != "2.10" {
			columns = append(columns, "--long", "-c", "Disabled Reason", "-c", "Forced Down")
		}
		return columns
	}
	for _, version := range []string{"2.11", "2.52", "2.72"} {
		t.Run(version, func(t *testing.T) {
			var out strings.Builder
			run := func(args ...string) {
				t.Helper()
				fmt.Fprintf(&out, "$ %s\n%s", strings.Join(args, " "), runClient(t.Context(), t, "administrator", version, args...))
			}
			set := func(args ...string) {
				run(append([]string{"openstack", "compute", "service", "set"}, append(args, "compute-1", "nova-compute")...)...)
			}
			t.Cleanup(func() {
				kubectl(t, "patch", "computeservice", "compute-1", "--type=merge", `--patch={"spec":{"disabled":null,"disabledReason":null,"forcedDown":null,"forcedDownReason":null}}`)
			})
			set("--disable", "--disable-reason", "new memory")
			run(list(version)...)
			set("--enable")
			set("--down")
			run(list(version)...)
			hostIs(t, v1alpha1.HostStatusDown, "compute-1")
			set("--up")
			run(list(version)...)
			hostIs(t, v1alpha1.HostStatusUp, "compute-1")
			golden(t, filepath.Join("service-set", version), steady(t, out.String()))
		})
	}
	t.Run("nova", func(t *testing.T) {
		var out strings.Builder
		for _, line := range []string{"nova service-force-down HOST", "nova service-list --host compute-1", "nova service-force-down --unset HOST", "nova service-disable --reason broken HOST", "nova service-enable HOST"} {
			var service v1alpha1.ComputeService
			expect.NoError(t, env.Client.Get(t.Context(), key("", "compute-1"), &service))
			fmt.Fprintf(&out, "$ %s\n%s", line, runClient(t.Context(), t, "administrator", "2.72", words(strings.ReplaceAll(line, "HOST", string(service.UID)))...))
		}
		hostIs(t, v1alpha1.HostStatusUp, "compute-1")
		golden(t, filepath.Join("service-set", "nova"), steady(t, out.String()))
	})
	t.Run("an owner may not", func(t *testing.T) {
		golden(t, filepath.Join("service-set", "ana"), steady(t, runClient(t.Context(), t, "ana", "2.72", "openstack", "compute", "service", "set", "--down", "compute-1", "nova-compute")))
	})
}

// writeClouds writes the clouds.yaml of docs/use/nova.md for an account.
func writeClouds(t *testing.T, account string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "use", "nova.md"))
	expect.NoError(t, err)
	_, content, found := strings.Cut(string(page), "```yaml\n")
	if !found {
		t.Fatal("docs/use/nova.md has no clouds.yaml")
	}
	content, _, _ = strings.Cut(content, "```")
	content = strings.NewReplacer("https://nova.example.com", env.url, "TOKEN", env.tokens[account]).Replace(content)
	path := filepath.Join(t.TempDir(), "clouds.yaml")
	expect.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestCloudsOfEveryWayToAuthenticate(t *testing.T) {
	needClient(t, "openstack")
	path := writeClouds(t, "ana")
	for _, cloud := range []string{"token", "password", "credential", "v3token"} {
		t.Run(cloud, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), "openstack", "--os-cloud", cloud, "server", "list", "--sort-column", "Name", "-f", "value", "-c", "Name")
			command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "OS_CLIENT_CONFIG_FILE=" + path, "LANG=C.UTF-8", "PYTHONWARNINGS=ignore"}
			out, err := command.CombinedOutput()
			if want := "db-1\ndb-2\nweb-1\nweb-2\nweb-3\n"; err != nil || string(out) != want {
				t.Errorf("%v\n%s\nwant\n%s", err, out, want)
			}
		})
	}
}

func TestTheSDKReadsServersAndServices(t *testing.T) {
	needClient(t, "openstack")
	everyStatus(t)
	for _, account := range []string{"administrator", "ana", "ada"} {
		t.Run(account, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), "/usr/bin/python3", filepath.Join("testdata", "sdk.py"))
			command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "OS_CLIENT_CONFIG_FILE=" + writeClouds(t, account), "LANG=C.UTF-8", "PYTHONWARNINGS=ignore"}
			out, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			golden(t, filepath.Join("sdk", account), steady(t, string(out)))
		})
	}
}

// What make demo shows of owners' answers and of OpenStack's client holds.
func TestTheClientsPartOfTheDemoHolds(t *testing.T) {
	expect.NoError(t, env.ClientsStory(t.Context(), t.Output(), env.url))
}
