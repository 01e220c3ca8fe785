// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/go-logr/logr"

	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/internal/agent/driver/libvirt"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// The roles of this program, in the variable roleName.
const (
	roleName = "HOSTSTATUS_LIBVIRT_ROLE"
	// roleWatch prints what OnHealth hears, until its standard input ends.
	roleWatch = "watch"
	// roleDriver and roleBare list again and again, and print the figures of it.
	roleDriver = "driver"
	roleBare   = "bare"
	// roleSocket and roleURI are what they connect to.
	roleSocket = "HOSTSTATUS_LIBVIRT_SOCKET"
	roleURI    = "HOSTSTATUS_LIBVIRT_URI"
)

// figures are what listings cost, one by one.
type figures struct {
	Took, CPU []time.Duration
	// RSS is in bytes, after the last of each process.
	RSS []int64
	// Servers is how many were found.
	Servers int
}

// listings is how many one process makes.
const listings = 3

// add lists in a process of its own.
func (f *figures) add(t *testing.T, h *host, name, uri string) {
	t.Helper()
	cmd := inRole(t, name, h, uri)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	expect.NoError(t, err)
	var now figures
	expect.NoError(t, json.Unmarshal(out, &now))
	if now.Servers != domains {
		t.Fatalf("%s: %d servers", name, now.Servers)
	}
	f.Took, f.CPU, f.RSS = append(f.Took, now.Took...), append(f.CPU, now.CPU...), append(f.RSS, now.RSS...)
}

// over names what f has too much of beside a bare client.
func (f *figures) over(bare *figures) string {
	switch {
	case times(f.Took, bare.Took) > mostTimeOfBare:
		return "time"
	case times(f.CPU, bare.CPU) > mostOfBare:
		return "CPU"
	case times(f.RSS, bare.RSS) > mostOfBare:
		return "memory"
	}
	return ""
}

// times is how many times b the figures a are: by their medians or by the least of each,
// since what else runs on the machine adds to the one or the other.
func times[T ~int64](a, b []T) float64 {
	return min(float64(median(a))/float64(median(b)), float64(slices.Min(a))/float64(slices.Min(b)))
}

func (f *figures) String() string {
	return fmt.Sprintf("%d ms, %d ms CPU, %.1f MB", median(f.Took).Milliseconds(), median(f.CPU).Milliseconds(), float64(median(f.RSS))/1e6)
}

func median[T cmp.Ordered](all []T) T {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

func role() int {
	o := libvirt.NewOptions()
	o.Socket, o.URI = os.Getenv(roleSocket), os.Getenv(roleURI)
	var list func() (int, error)
	switch os.Getenv(roleName) {
	case roleWatch:
		return watchUntilTheEndOfInput(o)
	case roleDriver:
		list = func() (int, error) { return listWithDriver(o) }
	case roleBare:
		list = func() (int, error) { return listBare(o) }
	}
	var all figures
	for range listings {
		begin, cpu := time.Now(), cpuTime()
		servers, err := list()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		all.Took, all.CPU, all.Servers = append(all.Took, time.Since(begin)), append(all.CPU, cpuTime()-cpu), servers
	}
	all.RSS = []int64{rss()}
	_ = json.NewEncoder(os.Stdout).Encode(all)
	return 0
}

func watchUntilTheEndOfInput(o libvirt.Options) int {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	d := &libvirt.Driver{Options: o, Logger: logr.Discard(), OnHealth: func(err error) { fmt.Println("health:", err) }}
	_ = d.Run(ctx, func(vms []driver.VM) { fmt.Println("reports:", len(vms)) })
	return 0
}

// listWithDriver returns how many servers the first report has.
func listWithDriver(o libvirt.Options) (servers int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d := &libvirt.Driver{Options: o, Logger: logr.Discard()}
	err = d.Run(ctx, func(vms []driver.VM) {
		servers = len(vms)
		cancel()
	})
	return servers, err
}

// bareXML is what a client has to read of a domain's XML to know its server.
type bareXML struct {
	Metadata struct {
		Server *struct {
			Namespace string `xml:"namespace,attr"`
			Name      string `xml:"name,attr"`
		} `xml:"https://hoststatus.dev/libvirt/1 server"`
	} `xml:"metadata"`
}

type bareDialer string

func (d bareDialer) Dial() (net.Conn, error) { return net.Dial("unix", string(d)) }

// listBare makes the calls of a listing with the library alone, and keeps what they return.
func listBare(o libvirt.Options) (servers int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := golibvirt.NewWithDialer(bareDialer(o.Socket))
	if err := l.ConnectToURI(golibvirt.ConnectURI(o.URI)); err != nil {
		return 0, err
	}
	defer func() { _ = l.Disconnect() }()
	lifecycle, err := l.LifecycleEvents(ctx)
	if err != nil {
		return 0, err
	}
	go func() {
		for range lifecycle {
		}
	}()
	type found struct {
		state  []golibvirt.TypedParam
		xml    bareXML
		leases []golibvirt.DomainInterface
	}
	records, err := l.ConnectGetAllDomainStats(nil, uint32(golibvirt.DomainStatsState), 0)
	if err != nil {
		return 0, err
	}
	if _, _, err := l.ConnectListAllDomains(1, golibvirt.ConnectListDomainsManagedsave); err != nil {
		return 0, err
	}
	all := make([]found, len(records))
	for i, r := range records {
		all[i].state = r.Params
		text, err := l.DomainGetXMLDesc(r.Dom, 0)
		if err != nil {
			return 0, err
		}
		if err := xml.Unmarshal([]byte(text), &all[i].xml); err != nil {
			return 0, err
		}
		if all[i].xml.Metadata.Server == nil {
			continue
		}
		servers++
		if r.Dom.ID >= 0 {
			all[i].leases, _ = l.DomainInterfaceAddresses(r.Dom, uint32(golibvirt.DomainInterfaceAddressesSrcLease), 0)
		}
	}
	runtime.KeepAlive(all)
	return servers, nil
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// rss is the memory of this process, without what is only not collected yet.
func rss() int64 {
	debug.FreeOSMemory()
	var size, resident int64
	content, _ := os.ReadFile("/proc/self/statm")
	_, _ = fmt.Sscan(string(content), &size, &resident)
	return resident * int64(os.Getpagesize())
}

// inRole returns this program in a role.
func inRole(t *testing.T, name string, h *host, uri string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleName+"="+name, roleSocket+"="+h.Socket(), roleURI+"="+uri)
	return cmd
}

func TestLibvirtdRefusesUsersWithoutANameWhichIsExplained(t *testing.T) {
	t.Parallel()
	h := sharedHost(t)
	// The folder of `go test` is not for other users.
	program, err := os.ReadFile("/proc/self/exe")
	expect.NoError(t, err)
	expect.NoError(t, os.WriteFile(h.Path("program"), program, 0o755))
	for id, want := range map[uint32][]string{
		65532: {"refuses users and groups that have no name", "uid 65532, gid 65532", "65534"},
		65534: {"health: <nil>"},
	} {
		cmd := inRole(t, roleWatch, h, "qemu:///system")
		cmd.Path = h.Path("program")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		in, err := cmd.StdinPipe()
		expect.NoError(t, err)
		out, err := cmd.StdoutPipe()
		expect.NoError(t, err)
		cmd.Stderr = os.Stderr
		expect.NoError(t, cmd.Start())
		var printed strings.Builder
		buffer := make([]byte, 4096)
		for !strings.Contains(printed.String(), "health: ") || !strings.HasSuffix(printed.String(), "\n") {
			n, err := out.Read(buffer)
			printed.Write(buffer[:n])
			if err != nil {
				break
			}
		}
		_ = in.Close()
		_ = cmd.Wait()
		for _, words := range want {
			if !strings.Contains(printed.String(), words) {
				t.Errorf("user %d: %q, want %q", id, printed.String(), words)
			}
		}
	}
}

const (
	// domains is how many of libvirt's test driver are listed.
	domains = 1000
	// leastRounds and mostRounds are how many processes of each kind list them, by turns, so
	// that what else runs on the machine costs both alike. More rounds are made while the
	// figures are too far apart.
	leastRounds, mostRounds = 3, 8
	// mostOfBare is what the driver may cost, as a multiple of a client that only makes the
	// same calls.
	mostOfBare = 1.5
	// mostTimeOfBare is more, because on a busy machine it depends on who else runs at that
	// moment: what waits for whom would show, and nothing else does.
	mostTimeOfBare = 3
)

// It measures, so it does not run beside others: those that do begin when it has ended.
func TestAThousandDomainsCostWhatTheyCostABareClient(t *testing.T) {
	h := sharedHost(t)
	const uri = "test:///default"
	// The domains of the test driver are there while somebody is connected.
	l := golibvirt.NewWithDialer(bareDialer(h.Path("sock/libvirt-sock")))
	expect.NoError(t, l.ConnectToURI(uri))
	defer func() { _ = l.Disconnect() }()
	for i := range domains {
		d, err := l.DomainDefineXMLFlags(fmt.Sprintf(`<domain type='test'><name>t%d</name><metadata>%s</metadata>
<memory>16384</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices><interface type='network'><mac address='52:54:00:00:%02x:%02x'/>
<source network='default'/></interface></devices></domain>`, i, metadataOf(fmt.Sprint("vm", i)), i/256, i%256), 0)
		expect.NoError(t, err)
		_, err = l.DomainCreateWithFlags(d, 0)
		expect.NoError(t, err)
	}
	var driver, bare figures
	for round := range mostRounds {
		driver.add(t, h, roleDriver, uri)
		bare.add(t, h, roleBare, uri)
		if round+1 >= leastRounds && driver.over(&bare) == "" {
			break
		}
	}
	t.Logf("driver: %s; bare client: %s", &driver, &bare)
	if what := driver.over(&bare); what != "" {
		t.Errorf("%s: more than %.1f times that of a bare client, or %d times in time", what, mostOfBare, mostTimeOfBare)
	}
	w := watch(t, h, func(o *libvirt.Options) { o.URI = uri })
	w.await("vm0", active)
	if networks := w.networks("vm0"); len(networks) != 1 || networks[0].Name != "default" || len(networks[0].Addresses) == 0 {
		t.Errorf("networks %v, want the lease", networks)
	}
}
