// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// policySteps are the owners' part of the story: the same command, run by users with
// different grants.
func (f *Fleet) policySteps() []Scene {
	const own = "get servers -n team-a --as="
	up, silent := All(v1alpha1.HostStatusUp), All(v1alpha1.HostStatusUnknown, "compute-1")
	return []Scene{
		{"Owners use another API, in which `servers` shows no host names, and host status as RBAC grants it. ada of team-a was given the role view: no host status, not even a column.", nil,
			up, atOnce, own + "ada"},
		{"abe may also get servers/unknownstatus: host status only while it is UNKNOWN, which it is not.", nil,
			up, atOnce, own + "abe"},
		{"ana may also get servers/status.", nil,
			up, atOnce, own + "ana"},
		{"Anybody can ask what they may see.", nil,
			up, atOnce, "auth can-i get servers --subresource=status -n team-a --as=ana"},
		{"The agent on compute-1 is killed once more. ada's view does not change.",
			func(context.Context) error { f.Agents["compute-1"].Kill(); return nil },
			silent, f.LeaseDuration + 2*time.Second, own + "ada"},
		{"abe's does now.", nil,
			silent, atOnce, own + "abe"},
		{"And ana's.", nil,
			silent, atOnce, own + "ana"},
		{"In team-b, bea was given host status.", nil,
			silent, atOnce, "get servers -n team-b --as=bea"},
		{"She can select by it; ada, who may not see it, may not select by it either.",
			f.refused("get servers -n team-a --field-selector status.hostStatus=UNKNOWN --as=ada"),
			silent, atOnce, "get servers -n team-b --field-selector status.hostStatus=UNKNOWN --as=bea"},
		{"Without any grant, ada sees which of her own servers share a host: the host id shows that, and nothing else.",
			func(context.Context) error { return f.StartAgent("compute-1") },
			up, 5 * time.Second, "get servers -n team-a --as=ada -o wide"},
	}
}

// refused returns an action that runs kubectl, and fails unless it is forbidden.
func (f *Fleet) refused(line string) func(context.Context) error {
	return func(ctx context.Context) error {
		err := f.KubectlPrinted(line)(ctx)
		if err == nil || !strings.Contains(err.Error(), "(Forbidden)") {
			return fmt.Errorf("kubectl %s is not forbidden: %w", line, err)
		}
		return nil
	}
}
