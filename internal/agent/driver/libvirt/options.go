// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/internal/cli"
)

// The sources that --libvirt-identity names.
const (
	IdentityMetadata = "metadata"
	IdentityNova     = "nova"
)

// DefaultSockets are tried in this order: virtqemud has replaced libvirtd where both are.
var DefaultSockets = []string{"/run/libvirt/virtqemud-sock-ro", "/run/libvirt/libvirt-sock-ro"}

// shortestResync keeps a slip of the unit from keeping libvirtd busy.
const shortestResync = time.Second

// Options are the flags of this driver.
type Options struct {
	// Socket is the path of libvirt's read-only socket. Empty, the default, is the first of
	// DefaultSockets that something listens on.
	Socket string
	// URI is the hypervisor that libvirt is asked for; qemu:///system by default.
	URI string
	// Identity is what may say which Server a domain is: IdentityMetadata, by default, and
	// IdentityNova. The metadata of hoststatus wins over Nova's.
	Identity []string
	// NovaNamespace is the namespace of Nova's servers. Empty, the default, is for each the
	// UUID of its project.
	NovaNamespace string
	// Resync is how long after a listing all is read again, in which a libvirtd that hangs is
	// noticed, too; 60 s by default, at least 1 s.
	Resync time.Duration
}

// NewOptions returns the defaults.
func NewOptions() Options {
	return Options{URI: "qemu:///system", Identity: []string{IdentityMetadata}, Resync: time.Minute}
}

// AddFlags binds the options to flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Socket, "libvirt-socket", o.Socket, "Path of libvirt's read-only socket, for --driver=libvirt. By default the first of "+strings.Join(DefaultSockets, " and ")+" that something listens on.")
	fs.StringVar(&o.URI, "libvirt-uri", o.URI, "Hypervisor that libvirt is asked for.")
	fs.StringSliceVar(&o.Identity, "libvirt-identity", o.Identity, "What names the Server of a domain: metadata (the element of hoststatus in the domain's metadata), nova (what OpenStack Nova writes there), or both; then metadata wins.")
	fs.StringVar(&o.NovaNamespace, "libvirt-nova-namespace", o.NovaNamespace, "Namespace of the Servers of Nova's domains. By default the UUID of each one's project.")
	fs.DurationVar(&o.Resync, "libvirt-resync", o.Resync, "Time after which everything is read from libvirt again, at least 1s. Changes are seen at once without it; DHCP leases are not.")
}

// Validate returns everything that is wrong with the options.
func (o *Options) Validate() (errs field.ErrorList) {
	flag := cli.Flag("libvirt-socket")
	if o.Socket != "" && !strings.HasPrefix(o.Socket, "/") {
		errs = append(errs, field.Invalid(flag, o.Socket, "must be an absolute path, such as "+DefaultSockets[0]))
	}
	if o.URI == "" {
		errs = append(errs, field.Required(cli.Flag("libvirt-uri"), "name the hypervisor, such as qemu:///system"))
	}
	flag = cli.Flag("libvirt-identity")
	if len(o.Identity) == 0 {
		errs = append(errs, field.Required(flag, "nothing would say which Server a domain is: metadata, nova or both"))
	}
	for _, source := range o.Identity {
		if source != IdentityMetadata && source != IdentityNova {
			errs = append(errs, field.NotSupported(flag, source, []string{IdentityMetadata, IdentityNova}))
		}
	}
	if o.NovaNamespace != "" {
		flag = cli.Flag("libvirt-nova-namespace")
		if !slices.Contains(o.Identity, IdentityNova) {
			errs = append(errs, field.Forbidden(flag, "needs nova in --libvirt-identity"))
		}
		errs = append(errs, cli.ValidateNamespace(flag, o.NovaNamespace)...)
	}
	if o.Resync < shortestResync {
		errs = append(errs, field.Invalid(cli.Flag("libvirt-resync"), o.Resync.String(), "must be at least "+shortestResync.String()))
	}
	return errs
}
