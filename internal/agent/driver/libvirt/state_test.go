// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"fmt"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/internal/reported"
)

func TestStatesAreThoseOfNova(t *testing.T) {
	const paused, shutoff = golibvirt.DomainPaused, golibvirt.DomainShutoff
	type fields = reported.Fields
	for _, c := range []struct {
		state  golibvirt.DomainState
		reason int32
		saved  bool
		want   fields
		where  presence
	}{
		{state: golibvirt.DomainNostate, want: fields{PowerState: "NOSTATE"}},
		{state: golibvirt.DomainRunning, reason: 1, want: fields{State: "ACTIVE", PowerState: "RUNNING"}},
		{state: golibvirt.DomainRunning, reason: 5, want: fields{State: "ACTIVE", PowerState: "RUNNING"}},
		{state: golibvirt.DomainRunning, reason: 1, saved: true, want: fields{State: "ACTIVE", PowerState: "RUNNING"}},
		{state: golibvirt.DomainBlocked, want: fields{State: "ACTIVE", PowerState: "RUNNING"}},
		{state: paused, reason: 0, want: fields{State: "PAUSED", PowerState: "PAUSED"}},
		{state: paused, reason: 1, want: fields{State: "PAUSED", PowerState: "PAUSED"}},
		{state: paused, reason: 2, want: fields{State: "MIGRATING", TaskState: "migrating", PowerState: "PAUSED"}},
		{state: paused, reason: 3, want: fields{State: "ACTIVE", TaskState: "suspending", PowerState: "PAUSED"}},
		{state: paused, reason: 4, want: fields{State: "ACTIVE", PowerState: "PAUSED"}},
		{state: paused, reason: 5, want: fields{State: "ERROR", PowerState: "PAUSED"}},
		{state: paused, reason: 6, want: fields{State: "PAUSED", PowerState: "PAUSED"}},
		{state: paused, reason: 7, want: fields{State: "PAUSED", PowerState: "PAUSED"}},
		{state: paused, reason: 8, want: fields{State: "ACTIVE", PowerState: "PAUSED"}},
		{state: paused, reason: 9, want: fields{State: "ACTIVE", PowerState: "PAUSED"}},
		{state: paused, reason: 10, want: fields{State: "ERROR", PowerState: "PAUSED"}},
		{state: paused, reason: 11, where: starting},
		{state: paused, reason: 12, want: fields{State: "MIGRATING", TaskState: "migrating", PowerState: "PAUSED"}},
		{state: paused, reason: 13, want: fields{State: "ERROR", PowerState: "PAUSED"}},
		{state: paused, reason: 14, want: fields{State: "ERROR", PowerState: "PAUSED"}},
		{state: paused, reason: 99, want: fields{State: "PAUSED", PowerState: "PAUSED"}},
		{state: golibvirt.DomainShutdown, reason: 1, want: fields{State: "ACTIVE", TaskState: "powering-off", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 0, want: fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 1, want: fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 2, want: fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 3, want: fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 4, where: moved},
		{state: shutoff, reason: 4, saved: true, where: moved},
		{state: shutoff, reason: 5, want: fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 5, saved: true, want: fields{State: "SUSPENDED", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 0, saved: true, want: fields{State: "SUSPENDED", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 6, want: fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		{state: shutoff, reason: 8, want: fields{State: "SHUTOFF", PowerState: "SHUTDOWN"}},
		{state: golibvirt.DomainCrashed, reason: 1, want: fields{State: "ERROR", PowerState: "CRASHED"}},
		{state: golibvirt.DomainPmsuspended, want: fields{State: "SUSPENDED", PowerState: "SUSPENDED"}},
		{state: 8},
		{state: -1},
	} {
		t.Run(fmt.Sprintf("%d.%d saved %v", c.state, c.reason, c.saved), func(t *testing.T) {
			got, where := fieldsOf(c.state, c.reason, c.saved)
			if diff := cmp.Diff(c.want, got); diff != "" || where != c.where {
				t.Errorf("presence %v, want %v; (-want +got):\n%s", where, c.where, diff)
			}
			if normal, notes := reported.Normalise(got); !cmp.Equal(normal, got) || len(notes) > 0 {
				t.Errorf("is not what a Server can have: %q", notes)
			}
		})
	}
}
