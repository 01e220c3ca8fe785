// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"fmt"
	"os"
	"strings"
)

// MetadataNamespace is the XML namespace of the element by which a domain's metadata names
// its Server.
const MetadataNamespace = "https://hoststatus.dev/libvirt/1"

// Metadata is that element, with an optional network and its addresses.
func Metadata(namespace, name, network string, addresses ...string) string {
	var inner strings.Builder
	if network != "" {
		inner.WriteString("<hs:network name='" + network + "'>")
		for _, a := range addresses {
			inner.WriteString("<hs:address>" + a + "</hs:address>")
		}
		inner.WriteString("</hs:network>")
	}
	return fmt.Sprintf("<hs:server xmlns:hs='%s' namespace='%s' name='%s'>%s</hs:server>", MetadataNamespace, namespace, name, &inner)
}

// Guest is a domain of 16 MiB without a disk, whose firmware waits for ever, or with a boot
// sector.
type Guest struct {
	Name, Metadata string
	// Boot is the code of the boot sector.
	Boot []byte
	// More is further XML beside the devices, and Devices within them.
	More, Devices string
}

// XML writes the definition of a guest to a file.
func (h *Host) XML(g Guest) (path string, err error) {
	if g.Boot != nil {
		image := make([]byte, 65536)
		copy(image, g.Boot)
		image[510], image[511] = 0x55, 0xaa
		if err := os.WriteFile(h.Path(g.Name+".img"), image, 0o600); err != nil {
			return "", err
		}
		g.Devices += `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='` + h.Path(g.Name+".img") + `'/><target dev='hda' bus='ide'/></disk>`
	}
	return h.Path(g.Name + ".xml"), h.write(g.Name+".xml", `<domain type='qemu'><name>`+g.Name+`</name><metadata>`+g.Metadata+`</metadata>
<memory unit='MiB'>16</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>`+g.More+`
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/><memballoon model='none'/>`+g.Devices+`</devices></domain>`)
}

// Define makes a persistent domain, which does not run.
func (h *Host) Define(g Guest) error {
	path, err := h.XML(g)
	if err == nil {
		_, err = h.Virsh("define", path)
	}
	return err
}

// DefineAndStart makes a persistent domain that runs.
func (h *Host) DefineAndStart(g Guest) error {
	if err := h.Define(g); err != nil {
		return err
	}
	_, err := h.Virsh("start", g.Name)
	return err
}

// Migrate moves a domain that runs to another host, and leaves its definition behind.
func (h *Host) Migrate(domain string, to *Host, flags ...string) error {
	_, err := h.Virsh(append([]string{"migrate", "--live", domain, to.URI(), "--migrateuri", "unix://" + to.Path("m")}, flags...)...)
	return err
}
