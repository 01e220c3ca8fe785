// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// atOnce is how long the servers of a host may take to show what an operator has set
// for it.
const atOnce = time.Second

// answered is how long an answer of an owner may take to count: answers are counted together
// with the others of half a second.
const answered = 3 * time.Second

// Story walks through every host status, with the commands that a person would type,
// and prints them with their real output. It fails at the first step that is not as
// expected.
func (f *Fleet) Story(ctx context.Context, out io.Writer) error {
	steps := []Scene{
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
			f.KubectlPrinted("delete computeservice compute-4"),
			All(v1alpha1.HostStatusNone, "compute-4"), atOnce,
			"get servers.compute -n team-b -o custom-columns=NAME:.metadata.name,HOST:.spec.host,HOST_STATUS:.status.hostStatus,REASON:.status.hostStatusReason"},
		{"It is created again: its Lease was renewed all the time, so its servers are UP at once.",
			f.create("compute-4"), All(v1alpha1.HostStatusUp), atOnce, "get servers.compute -A"},
	}
	return f.Tell(ctx, out, append(steps, f.policySteps()...))
}

// Scene is one step of a story.
type Scene struct {
	Title string
	// Do is what happens, if anything does. Its context is for KubectlPrinted and Print.
	Do func(context.Context) error
	// Check is what must be so of all Servers within Limit.
	Check func([]v1alpha1.Server) error
	Limit time.Duration
	// Show is the command of kubectl that shows it, if there is one.
	Show string
}

// Tell prints steps and what came of them, and fails at the first that is not as expected.
func (f *Fleet) Tell(ctx context.Context, out io.Writer, steps []Scene) error {
	for _, s := range steps {
		f.told++
		_, _ = fmt.Fprintf(out, "\n%d. %s\n", f.told, s.Title)
		if err := f.showStep(withOutput(ctx, out), s); err != nil {
			return fmt.Errorf("step %d (%s): %w", f.told, s.Title, err)
		}
	}
	return nil
}

func (f *Fleet) showStep(ctx context.Context, s Scene) error {
	begin := time.Now()
	if s.Do != nil {
		if err := s.Do(ctx); err != nil {
			return err
		}
		begin = time.Now()
	}
	if err := f.WaitFor(ctx, s.Limit, s.Check); err != nil {
		return err
	}
	Print(ctx, "   (after %s)", time.Since(begin).Round(time.Millisecond))
	if s.Show == "" {
		return nil
	}
	return f.KubectlPrinted(s.Show)(ctx)
}

// Print prints a line to where the story of a Scene goes.
func Print(ctx context.Context, format string, args ...any) {
	_, _ = fmt.Fprintf(ctx.Value(outputKey{}).(io.Writer), format+"\n", args...)
}

type outputKey struct{}

func withOutput(ctx context.Context, out io.Writer) context.Context {
	return context.WithValue(ctx, outputKey{}, out)
}

// KubectlPrinted returns an action of a Scene that runs kubectl with the words of line and
// more arguments, and prints command and output.
func (f *Fleet) KubectlPrinted(line string, more ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		args := append(strings.Fields(line), more...)
		return printed(ctx, "kubectl "+quote(args), f.Kubectl(ctx, args...))
	}
}

// printed runs a command, and prints it, as a person would type it, and its output.
func printed(ctx context.Context, typed string, command *exec.Cmd) error {
	out := ctx.Value(outputKey{}).(io.Writer)
	_, _ = fmt.Fprintf(out, "$ %s\n", typed)
	answer, err := command.CombinedOutput()
	_, _ = out.Write(answer)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", typed, err, answer)
	}
	return nil
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
	return f.KubectlPrinted("patch computeservice "+host+" --type merge", "-p", patch)
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
	return f.KubectlPrinted("patch servers.compute db-2 -n team-a --type merge", "-p", `{"spec":{"host":"compute-1"}}`)(ctx)
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
		return f.KubectlPrinted("get computeservice " + host)(ctx)
	}
}
