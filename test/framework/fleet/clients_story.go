// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/ptr"

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
	told, stop, err := f.teller(ctx)
	if err != nil {
		return err
	}
	defer stop()
	steps = append(steps,
		Scene{"A notifier with an account of team-a tells a receiver of CloudEvents of hosts that go DOWN and come back. compute-2 is forced down.",
			told(f.patch("compute-2", `{"spec":{"forcedDown":true}}`)), All(v1alpha1.HostStatusDown, "compute-2"), atOnce, ""},
		Scene{"That is undone.",
			told(f.patch("compute-2", `{"spec":{"forcedDown":null}}`)), All(v1alpha1.HostStatusUp), atOnce, ""})
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

// teller starts a notifier of team-a, and waits until it has sent what there is. What told
// returns does something, and then prints the event that the notifier sends of it. stop ends
// the notifier.
func (f *Fleet) teller(ctx context.Context) (told func(func(context.Context) error) func(context.Context) error, stop func(), err error) {
	const server = "team-a/web-2"
	snapshot, events := make(chan string, 8), make(chan string, 8)
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e event
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&e); err != nil || e.Subject != server {
			return
		}
		to := events
		if e.Data.Cause == "Snapshot" {
			to = snapshot
		}
		select {
		case to <- fmt.Sprintf("   the receiver gets %s\n   of %s: %s -> %s (%s)", e.Type, e.Subject, ptr.Deref(e.Data.Before.HostStatus, ""), ptr.Deref(e.Data.After.HostStatus, ""), e.Data.After.HostStatusReason):
		default: // Nobody waits for so many.
		}
	}))
	config := f.path("notifier.yaml")
	content := "namespaces: [team-a]\nsinks: [{name: receiver, cloudEvents: {url: " + strconv.Quote(sink.URL) + "}}]\nroutes: [{name: down, sink: receiver, hostStatuses: [DOWN]}]\n"
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		sink.Close()
		return nil, nil, fmt.Errorf("writing the notifier's configuration: %w", err)
	}
	n, err := f.StartNotifier(ctx, "notifier", Account{Namespace: "team-a", Name: "notifier", Roles: []string{"hoststatus-server-viewer", "hoststatus-host-status-viewer"}}, config)
	if err == nil {
		_, err = next(ctx, snapshot)
	}
	stop = func() {
		if n != nil {
			n.Stop()
		}
		sink.Close()
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return func(do func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := do(ctx); err != nil {
				return err
			}
			line, err := next(ctx, events)
			if err == nil {
				Print(ctx, "%s", line)
			}
			return err
		}
	}, stop, nil
}

// event is what the story shows of an event.
type event struct {
	Type, Subject string
	Data          struct {
		Cause         string
		Before, After v1alpha1.HostFields
	}
}

// next waits for what the notifier sends.
func next(ctx context.Context, events <-chan string) (string, error) {
	select {
	case line := <-events:
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(settleTimeout):
		return "", errors.New("the notifier has sent nothing")
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
