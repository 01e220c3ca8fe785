// SPDX-License-Identifier: Apache-2.0

package fencing

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// bmc is the management controller of a host, which is its agent: the power is on while that
// runs.
type bmc struct {
	host, dir string
}

const (
	lanConfiguration = `name "%[1]s"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 %[2]s
  priv_limit admin
  allowed_auths_admin md5
  guid a123456789abcdefa123456789abcdef
endlan
user 2 true "fencer" "only-a-test" admin 10
chassis_control "%[3]s/chassis 0x20"
`
	// controllers is a BMC and nothing else.
	controllers = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
`
	// chassis is what ipmi_sim calls, with "get power", "set power 0" and the like. A pid
	// that is another program's by now is not the host's.
	chassis = `#!/usr/bin/env bash
cd %[1]s
is_on() { [ "$(readlink "/proc/$(cat pid)/exe")" = "$(readlink -f agent)" ]; }
case "$2 $3 ${4:-}" in
"get power "*) if is_on; then echo power:1; else echo power:0; fi ;;
"set power 0") if is_on && [ ! -e stuck ]; then kill -KILL "$(cat pid)"; fi ;;
esac
`
)

// startBMC starts the management controller of a host, until the test ends.
func startBMC(t *testing.T, host string) *bmc {
	t.Helper()
	b := &bmc{host: host, dir: t.TempDir()}
	port := freeUDPPort(t)
	expect.NoError(t, os.Mkdir(filepath.Join(b.dir, "state"), 0o700))
	expect.NoError(t, os.Symlink(filepath.Join(system.Dir, "bin", "agent"), filepath.Join(b.dir, "agent")))
	b.write(t, "lan.conf", fmt.Sprintf(lanConfiguration, host, port, b.dir))
	b.write(t, "controllers", controllers)
	b.write(t, "chassis", fmt.Sprintf(chassis, b.dir))
	b.powered(t)
	saveOptions(t, host, port, "power_timeout=5\n")
	path, err := exec.LookPath("ipmi_sim")
	expect.NoError(t, err)
	log := filepath.Join(b.dir, "log")
	p := controlplane.NewProcess("ipmi_sim", path, log, os.Environ(), "-n", "-c", filepath.Join(b.dir, "lan.conf"), "-f", filepath.Join(b.dir, "controllers"), "-s", filepath.Join(b.dir, "state"))
	expect.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	expect.Eventually(t, patience, func() error {
		if got := b.says(t); got != "Status: ON" {
			content, _ := os.ReadFile(log)
			return fmt.Errorf("the BMC of %s says %q; its log:\n%s", host, got, content)
		}
		return nil
	})
	return b
}

// saveOptions lets fence-host find the BMC of a host at a port of loopback.
func saveOptions(t *testing.T, host, port, more string) {
	t.Helper()
	options := "ip=127.0.0.1\nipport=" + port + "\nusername=fencer\npassword=only-a-test\nlanplus=1\ncipher=3\n" + more
	expect.NoError(t, os.WriteFile(filepath.Join(bmcFolder(), host), []byte(options), 0o600))
	t.Cleanup(func() { _ = os.Remove(filepath.Join(bmcFolder(), host)) })
}

// powered is to be called when the host's agent was started.
func (b *bmc) powered(t *testing.T) {
	t.Helper()
	b.write(t, "pid", fmt.Sprint(system.Agents[b.host].Pid()))
}

// stick makes the power stay on, whatever is asked for.
func (b *bmc) stick(t *testing.T) {
	t.Helper()
	b.write(t, "stuck", "")
}

func (b *bmc) write(t *testing.T, name, content string) {
	t.Helper()
	expect.NoError(t, os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o700))
}

// says is what fence_ipmilan is told of the power.
func (b *bmc) says(t *testing.T) string {
	t.Helper()
	options, err := os.ReadFile(filepath.Join(bmcFolder(), b.host))
	expect.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "fence_ipmilan")
	cmd.Stdin = strings.NewReader(string(options) + "action=status\n")
	out, _ := cmd.Output() // It ends with 2 if the power is off.
	return strings.TrimSpace(string(out))
}

// freeUDPPort returns a port of loopback that nobody listens on.
func freeUDPPort(t *testing.T) string {
	t.Helper()
	connection, err := net.ListenPacket("udp", "127.0.0.1:0")
	expect.NoError(t, err)
	defer func() { _ = connection.Close() }()
	_, port, err := net.SplitHostPort(connection.LocalAddr().String())
	expect.NoError(t, err)
	return port
}
