// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// atOnce is how long the servers of a host may take to show what an operator has set
// for it.
const atOnce = time.Second

// Story walks through every host status, with the commands that a person would type,
// and prints them with their real output. It fails at the first step that is not as
// expected.
func (f *Fleet) Story(ctx context.Context, out io.Writer) error {
	steps := []step{
		{"Every host reports: all servers are on a host that is UP.", nil,
			All(v1alpha1.HostStatusUp), atOnce, "get servers.compute -A"},
		{"The agent on compute-1 is killed (SIGKILL). Nobody knows whether the host runs: UNKNOWN, once its Lease has expired.",
			func(context.Context) error { f.Agents["compute-1"].Kill(); return nil },
			All(v1alpha1.HostStatusUnknown, "compute-1"), f.LeaseDuration + 2*time.Second, "get servers.compute -A"},
		{"A silent host reports nothing about its servers: their last state stays, with the host status that shows how far to trust it.", nil,
			All(v1alpha1.HostStatusUnknown, "compute-1"), atOnce,
			"get servers.compute -n team-a web-1 -o custom-columns=NAME:.metadata.name,STATUS:.status.state,HOST_STATUS:.status.hostStatus,REASON:.status.hostStatusReason,REPORTING:.status.hostReporting"},
		{"The agent is back: UP with its first heartbeat.",
			func(context.Context) error { return f.StartAgent("compute-1") },
			All(v1alpha1.HostStatusUp, "compute-1"), 5 * time.Second, "get computeservices"},
		{"A fencing tool has powered compute-2 off and reports it: DOWN at once, and safe to fail over. Here its agent still runs, which is worth a warning.",
			f.patch("compute-2", `{"spec":{"forcedDown":true,"forcedDownReason":"fenced by ipmi"}}`),
			All(v1alpha1.HostStatusDown, "compute-2"), atOnce, "get servers.compute -A --field-selector status.hostStatus=DOWN"},
		{"That is undone, and an operator disables the host instead: MAINTENANCE.",
			f.patch("compute-2", `{"spec":{"forcedDown":false,"disabled":true,"disabledReason":"new memory"}}`),
			All(v1alpha1.HostStatusMaintenance, "compute-2"), atOnce, "get computeservices compute-2"},
		{"Both: DOWN takes precedence.",
			f.patch("compute-2", `{"spec":{"forcedDown":true}}`),
			All(v1alpha1.HostStatusDown, "compute-2"), atOnce, "get computeservices compute-2"},
		{"Neither, although the reasons are still set: UP.",
			f.patch("compute-2", `{"spec":{"forcedDown":false,"disabled":false}}`),
			All(v1alpha1.HostStatusUp, "compute-2"), atOnce, "get computeservices compute-2"},
		{"A maintenance window is announced for compute-3, to open in 4 s and to last 4 s: NEEDS_MAINTENANCE.",
			f.announce("compute-3", 4*time.Second, 4*time.Second),
			All(v1alpha1.HostStatusNeedsMaintenance, "compute-3"), atOnce, "get servers.compute -A --field-selector spec.host=compute-3"},
		{"It opens: MAINTENANCE.", nil,
			All(v1alpha1.HostStatusMaintenance, "compute-3"), 6 * time.Second, "get servers.compute -A --field-selector spec.host=compute-3"},
		{"It closes: UP.", nil,
			All(v1alpha1.HostStatusUp, "compute-3"), 6 * time.Second, "get servers.compute -A --field-selector spec.host=compute-3"},
		{"compute-4 is disabled, and its server db-2 moves to compute-1: that one is UP again.",
			f.migrate, f.migrated, atOnce, "get servers.compute -A"},
		{"The ComputeService of compute-4 is deleted, with a warning: its servers are on no known host, and their host status is empty.",
			f.kubectl("delete computeservice compute-4"),
			All(v1alpha1.HostStatusNone, "compute-4"), atOnce,
			"get servers.compute -n team-b -o custom-columns=NAME:.metadata.name,HOST:.spec.host,HOST_STATUS:.status.hostStatus,REASON:.status.hostStatusReason"},
		{"It is created again: its Lease was renewed all the time, so its servers are UP at once.",
			f.create("compute-4"), All(v1alpha1.HostStatusUp), atOnce, "get servers.compute -A"},
	}
	steps = append(steps, f.policySteps()...)
	for i, s := range steps {
		if err := f.showStep(ctx, out, i+1, s); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, s.title, err)
		}
	}
	return nil
}

// step is one step of the story: what is done, what must follow and within
// which time, and the command that shows it.
type step struct {
	title string
	do    func(context.Context) error
	check func([]v1alpha1.Server) error
	limit time.Duration
	show  string
}

func (f *Fleet) showStep(ctx context.Context, out io.Writer, number int, s step) error {
	_, _ = fmt.Fprintf(out, "\n%d. %s\n", number, s.title)
	begin := time.Now()
	if s.do != nil {
		if err := s.do(withOutput(ctx, out)); err != nil {
			return err
		}
		begin = time.Now()
	}
	if err := f.WaitFor(ctx, s.limit, s.check); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "   (after %s)\n", time.Since(begin).Round(time.Millisecond))
	return f.kubectl(s.show)(withOutput(ctx, out))
}

type outputKey struct{}

func withOutput(ctx context.Context, out io.Writer) context.Context {
	return context.WithValue(ctx, outputKey{}, out)
}

// kubectl returns an action that runs kubectl, and prints command and output.
func (f *Fleet) kubectl(line string, more ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		out := ctx.Value(outputKey{}).(io.Writer)
		args := append(strings.Fields(line), more...)
		_, _ = fmt.Fprintf(out, "$ kubectl %s\n", quote(args))
		answer, err := f.Kubectl(ctx, args...).CombinedOutput()
		_, _ = out.Write(answer)
		if err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", line, err, answer)
		}
		return nil
	}
}

// quote prints arguments so that a shell takes them as they are.
func quote(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = arg
		if strings.ContainsAny(arg, " \"{}'$\\") {
			quoted[i] = "'" + arg + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func (f *Fleet) patch(host, patch string) func(context.Context) error {
	return f.kubectl("patch computeservice "+host+" --type merge", "-p", patch)
}

func (f *Fleet) announce(host string, in, lasting time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		// Whole seconds, as the API keeps them.
		start := time.Now().Add(in + time.Second).Truncate(time.Second).UTC()
		return f.patch(host, fmt.Sprintf(`{"spec":{"maintenanceWindow":{"startTime":%q,"endTime":%q,"reason":"new firmware"}}}`,
			start.Format(time.RFC3339), start.Add(lasting).Format(time.RFC3339)))(ctx)
	}
}

func (f *Fleet) migrate(ctx context.Context) error {
	if err := f.patch("compute-4", `{"spec":{"disabled":true}}`)(ctx); err != nil {
		return err
	}
	if err := f.WaitFor(ctx, atOnce, All(v1alpha1.HostStatusMaintenance, "compute-4")); err != nil {
		return err
	}
	return f.kubectl("patch servers.compute db-2 -n team-a --type merge", "-p", `{"spec":{"host":"compute-1"}}`)(ctx)
}

func (f *Fleet) migrated(servers []v1alpha1.Server) error {
	if err := All(v1alpha1.HostStatusUp, "compute-1")(servers); err != nil {
		return err
	}
	return All(v1alpha1.HostStatusMaintenance, "compute-4")(servers)
}

// create makes a ComputeService again, as its manifest has it.
func (f *Fleet) create(host string) func(context.Context) error {
	return func(ctx context.Context) error {
		service := &v1alpha1.ComputeService{}
		service.Name = host
		if err := f.Client.Create(ctx, service); err != nil {
			return fmt.Errorf("creating ComputeService %s: %w", host, err)
		}
		return f.kubectl("get computeservice " + host)(ctx)
	}
}
