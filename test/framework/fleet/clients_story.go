// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// ClientsStory goes on where Story ends: what owners do with the plugin, when a host needs
// maintenance, and what people see who come from OpenStack. novaURL is what StartNovaAPI has
// returned.
func (f *Fleet) ClientsStory(ctx context.Context, out io.Writer, novaURL string) error {
	const host = "compute-3"
	needed := All(v1alpha1.HostStatusNeedsMaintenance, host)
	steps := []Scene{
		{"compute-3 needs new firmware: in an hour, or as soon as the owners of all its servers are ready. They may put it off for two hours more. Owners have Nova's table.",
			f.KubectlPrinted("hosts window "+host+" --start +1h --latest +3h --for 1h --open-when-ready --category Software --impact Reboot --reason", "new firmware"),
			needed, atOnce, "servers list -n team-a --as=ana"},
		{"ana asks what that means for web-3.", nil,
			needed, atOnce, "servers show web-3 -n team-a --as=ana"},
		{"It is ready, she answers. build-1 of team-b is on that host, too, and its owner has not answered: the window stays closed.",
			f.KubectlPrinted("servers ready web-3 -n team-a --as=ana"),
			func(servers []v1alpha1.Server) error { return errors.Join(needed(servers), counts("web-3")(servers)) }, answered, "hosts show " + host},
		{"bea answers for build-1, and the window opens.",
			f.KubectlPrinted("servers ready build-1 -n team-b --as=bea"),
			All(v1alpha1.HostStatusMaintenance, host), answered, "get servers -n team-a --as=ana"},
		{"The work is done before the hour is over.",
			f.KubectlPrinted("hosts window " + host + " --clear"),
			All(v1alpha1.HostStatusUp), atOnce, "servers show web-3 -n team-a --as=ana"},
	}
	if openstack, err := exec.LookPath("openstack"); err == nil {
		steps = append(steps, Scene{"OpenStack's own client asks nova-api, with a token of ana's.",
			f.openstack(openstack, novaURL), All(v1alpha1.HostStatusUp), atOnce, ""})
	}
	return f.Tell(ctx, out, steps)
}

// counts checks that a server's owner is known to be ready.
func counts(name string) func([]v1alpha1.Server) error {
	return func(servers []v1alpha1.Server) error {
		for _, s := range servers {
			if s.Name == name && s.Status.MaintenanceWindow != nil && s.Status.MaintenanceWindow.Answer == v1alpha1.AnswerStateReady {
				return nil
			}
		}
		return fmt.Errorf("the answer for %s does not count yet", name)
	}
}

// openstack returns an action of a Scene that lists the servers of team-a with OpenStack's
// client.
func (f *Fleet) openstack(binary, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		token, err := os.ReadFile(f.TokenFile("ana"))
		if err != nil {
			return fmt.Errorf("reading a token of ana's: %w", err)
		}
		args := []string{"--os-auth-type", "admin_token", "--os-endpoint", url + "/v2.1/team-a", "--os-compute-api-version", "2.72", "server", "list", "--long",
			"-c", "Name", "-c", "Status", "-c", "Networks", "-c", "Host Status"}
		typed := fmt.Sprintf("%s %s --os-token $(cat %s)", filepath.Base(binary), quote(args), f.TokenFile("ana"))
		return printed(ctx, typed, exec.CommandContext(ctx, binary, append(args, "--os-token", strings.TrimSpace(string(token)))...))
	}
}
