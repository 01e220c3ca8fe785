// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/reported"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

// patience is how long the kernel may take to tell of a change of a file, before
// the test fails.
const patience = 30 * time.Second

// vm is the server name in the namespace tenant, with this power state.
func vm(name string, power v1alpha1.PowerState) driver.VM {
	return driver.VM{Server: types.NamespacedName{Namespace: "tenant", Name: name}, Fields: reported.Fields{PowerState: power}}
}

// fileOf is what the fake driver reads as these VMs.
func fileOf(vms ...driver.VM) string {
	if len(vms) == 0 {
		return "servers: []\n"
	}
	content := "servers:\n"
	for _, v := range vms {
		content += "- {namespace: " + v.Server.Namespace + ", name: " + v.Server.Name + ", powerState: " + string(v.PowerState) + "}\n"
	}
	return content
}

// driving is a FakeDriver that runs, and its file.
type driving struct {
	*testing.T
	path    string
	reports chan []driver.VM
	log     *logbook.Book
	health  atomic.Pointer[error]
}

// drive runs the driver until the test ends. An empty content is no file.
func drive(t *testing.T, content string) *driving {
	t.Helper()
	dr := &driving{T: t, path: filepath.Join(t.TempDir(), "vms.yaml"), reports: make(chan []driver.VM, 1000), log: logbook.New()}
	if content != "" {
		dr.write(dr.path, content)
	}
	d := &Driver{Path: dr.path, Logger: dr.log.Logger, OnHealth: func(err error) { dr.health.Store(&err) }}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, func(vms []driver.VM) { dr.reports <- vms }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("driver ended with %v", err)
		}
	})
	return dr
}

func (dr *driving) write(path, content string) {
	dr.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		dr.Fatal(err)
	}
}

// replace puts a new file in the place of the old one, as editors do.
func (dr *driving) replace(content string) {
	dr.Helper()
	dr.write(dr.path+".new", content)
	if err := os.Rename(dr.path+".new", dr.path); err != nil {
		dr.Fatal(err)
	}
}

// await waits for a report of these VMs. There may be others before, since a file
// that is written in place is seen while it is empty, too.
func (dr *driving) await(want ...driver.VM) {
	dr.Helper()
	timeout := time.After(patience)
	var last []driver.VM
	for {
		select {
		case last = <-dr.reports:
			if cmp.Equal(want, last) {
				return
			}
		case <-timeout:
			dr.Fatalf("last report (-want +got):\n%s", cmp.Diff(want, last))
		}
	}
}

// awaitLog waits for a line about the file.
func (dr *driving) awaitLog(words string) {
	dr.Helper()
	select {
	case line := <-dr.log.Came:
		if !strings.Contains(line, words) {
			dr.Errorf("logged %s, want %q", line, words)
		}
	case <-time.After(patience):
		dr.Fatal("nothing is logged")
	}
}

func TestFakeDriverReportsWhatTheFileSaysAndEachChange(t *testing.T) {
	dr := drive(t, fileOf(vm("a", "RUNNING")))
	dr.await(vm("a", "RUNNING"))
	dr.write(dr.path, fileOf(vm("a", "SHUTDOWN"), vm("b", "RUNNING")))
	dr.await(vm("a", "SHUTDOWN"), vm("b", "RUNNING"))
	dr.replace(fileOf(vm("b", "CRASHED")))
	dr.await(vm("b", "CRASHED"))
	dr.replace(fileOf(vm("b", "RUNNING")))
	dr.await(vm("b", "RUNNING"))
	dr.log.Want(t)
}

func TestOneOddServerInTheFileSilencesNoOther(t *testing.T) {
	b := vm("b", "SHUTDOWN")
	for name, c := range map[string]struct{ entry, note string }{
		"no namespace":   {"{name: a}", "servers[0]: Required value: set the namespace and the name"},
		"no server":      {"a", "servers[0]: Invalid value"},
		"a wrong number": {"{namespace: tenant, name: 5, powerState: RUNNING}", "servers[0].name: Invalid value"},
	} {
		t.Run(name, func(t *testing.T) {
			dr := drive(t, "servers:\n- "+c.entry+"\n- {namespace: tenant, name: b, powerState: SHUTDOWN}\n")
			dr.await(b)
			dr.awaitLog(c.note)
		})
	}
	for name, odd := range map[string]string{
		"networks that are none":    "networks: 10.0.0.4",
		"a task state that is none": "taskState: [x]",
		"a field that is none":      "colour: blue",
	} {
		t.Run(name, func(t *testing.T) {
			dr := drive(t, "servers:\n- {namespace: tenant, name: a, powerState: SHUTDOWN, "+odd+"}\n- {namespace: tenant, name: b, powerState: SHUTDOWN}\n")
			dr.await(vm("a", "SHUTDOWN"), b)
			dr.awaitLog("servers[0]." + strings.SplitN(odd, ":", 2)[0])
		})
	}
}

func TestFakeDriverKeepsWhatItKnewWhenTheFileIsBadAndGoesOn(t *testing.T) {
	dr := drive(t, fileOf(vm("a", "RUNNING")))
	dr.await(vm("a", "RUNNING"))
	for _, bad := range []string{"servers: [", "servers: {}", "machines: []"} {
		dr.replace(bad)
		dr.awaitLog("keeping its last content")
		select {
		case got := <-dr.reports:
			t.Errorf("%q is reported as %v", bad, got)
		default:
		}
	}
	dr.replace(fileOf(vm("a", "SHUTDOWN")))
	dr.await(vm("a", "SHUTDOWN"))
}

func TestFakeDriverWaitsForAFileThatIsMissing(t *testing.T) {
	dr := drive(t, "")
	dr.awaitLog("no such file")
	dr.replace(fileOf(vm("a", "RUNNING")))
	dr.await(vm("a", "RUNNING"))
}

func TestFakeDriverCannotRunWithoutAFolderToWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "vms.yaml")
	err := (&Driver{Path: path}).Run(t.Context(), func([]driver.VM) { t.Error("reports") })
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name %s", err, path)
	}
}

func TestReadFakeReadsEveryField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vms.yaml")
	(&driving{T: t}).write(path, `
servers:
- namespace: tenant
  name: a
  state: ACTIVE
  taskState: rebooting
  powerState: RUNNING
  networks:
  - name: xnet
    addresses: [10.0.0.4, "fd00::4"]
- {namespace: tenant, name: b}
`)
	got, odd, err := readFake(path)
	if err != nil || len(odd) > 0 {
		t.Fatalf("error %v, notes %q", err, odd)
	}
	a := vm("a", "RUNNING")
	a.State, a.TaskState = "ACTIVE", "rebooting"
	a.Networks = []v1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4", "fd00::4"}}}
	if diff := cmp.Diff([]driver.VM{a, vm("b", "")}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadFakeSaysWhatIsWrongAndWhere(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"a file of something else": {"machines: []\n", `unknown field "machines"`},
		"no YAML":                  {"servers: [", "yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vms.yaml")
			(&driving{T: t}).write(path, c.content)
			vms, _, err := readFake(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v; want the file, and %q", err, c.want)
			}
			if vms != nil {
				t.Errorf("and yet %v", vms)
			}
		})
	}
}

func TestAFileThatCannotBeUsedIsAnErrorUntilItCan(t *testing.T) {
	dr := drive(t, "servers: [")
	dr.awaitLog("keeping its last content")
	if err := dr.health.Load(); err == nil || *err == nil {
		t.Error("no error is reported")
	}
	dr.replace(fileOf(vm("a", "RUNNING")))
	dr.await(vm("a", "RUNNING"))
	if err := dr.health.Load(); *err != nil {
		t.Errorf("the error is %v", *err)
	}
}
