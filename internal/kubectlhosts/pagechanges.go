// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// changesFor is how far back the page's strip of changes reaches.
	changesFor = time.Hour
	// maxServersRead is of how many servers the history is read at most.
	maxServersRead = 20_000
	// maxHostChanges is how many changes the page gets at most, the newest.
	maxHostChanges = 5_000
)

// HostChange is a change of a host's status, as the servers on it have it on record.
type HostChange struct {
	Time time.Time `json:"time"`
	Host string    `json:"host"`
	// From is nil if it is not on record, or was not derived yet.
	From   *v1alpha1.HostStatus      `json:"from"`
	To     *v1alpha1.HostStatus      `json:"to"`
	Reason v1alpha1.HostStatusReason `json:"reason,omitempty"`
}

// HostChanges are the changes of the last hour.
type HostChanges struct {
	Changes []HostChange `json:"changes"`
	// Note is why some may be missing; empty if none are.
	Note string `json:"note,omitempty"`
}

// errEnough ends a list early.
var errEnough = errors.New("enough servers were read")

// hostChanges reads the histories of servers: a host itself has its last change only.
func (c *cluster) hostChanges(ctx context.Context, namespace string) (*HostChanges, error) {
	since := c.now().Add(-changesFor)
	byHost := map[string][][]v1alpha1.HostStatusChange{}
	read := 0
	more, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := kubectlplugin.EachPage(more, c, &v1alpha1.ServerList{}, func(page *v1alpha1.ServerList) {
		for i := range page.Items {
			s := &page.Items[i]
			if s.Spec.Host != "" && len(s.Status.HostHistory) > 0 {
				byHost[s.Spec.Host] = append(byHost[s.Spec.Host], s.Status.HostHistory)
			}
		}
		if read += len(page.Items); read >= maxServersRead && page.Continue != "" {
			stop(errEnough)
		}
	}, client.InNamespace(namespace))
	out := &HostChanges{Changes: []HostChange{}}
	switch {
	case errors.Is(context.Cause(more), errEnough):
		out.Note = "Of earlier changes, those on record with the first " + kubectlplugin.Counted(read, "server") + " are shown."
	case err != nil:
		out.Note = "Of earlier changes, only the last one of each host is shown: " + c.explain(err, "list", "servers", namespace).Error()
	}
	for host, histories := range byHost {
		out.Changes = append(out.Changes, changesOnRecord(host, histories, since)...)
	}
	slices.SortFunc(out.Changes, func(a, b HostChange) int {
		return cmp.Or(a.Time.Compare(b.Time), kubectlplugin.CompareNames(a.Host, b.Host))
	})
	if extra := len(out.Changes) - maxHostChanges; extra > 0 {
		out.Changes = out.Changes[extra:]
	}
	return out, nil
}

// changesOnRecord are the changes of a host since some time, by the histories of the servers
// that are on it. A server that came from another host brings that one's changes along; those
// that were here all the time know nothing of them, so what they do not all have is left out.
func changesOnRecord(host string, histories [][]v1alpha1.HostStatusChange, since time.Time) (out []HostChange) {
	seen := map[HostChange]bool{}
	for _, history := range histories {
		for i, entry := range history {
			if entry.Since.IsZero() || !entry.Since.After(since) {
				continue
			}
			change := HostChange{Time: entry.Since.UTC(), Host: host, To: entry.HostStatus, Reason: entry.Reason}
			// Pointers do not compare.
			key := HostChange{Time: change.Time, Host: hoststatus.Label(entry.HostStatus)}
			// Without an entry before it, it is where the server's own record begins.
			if seen[key] || i+1 == len(history) {
				continue
			}
			seen[key] = true
			if !slices.ContainsFunc(histories, func(other []v1alpha1.HostStatusChange) bool { return contradicts(other, entry) }) {
				change.From = history[i+1].HostStatus
				out = append(out, change)
			}
		}
	}
	return out
}

// contradicts is true if a history reaches back beyond a change and does not have it.
func contradicts(history []v1alpha1.HostStatusChange, change v1alpha1.HostStatusChange) bool {
	reaches := false
	for _, entry := range history {
		if entry.Since.IsZero() {
			continue
		}
		if entry.Since.Equal(change.Since) && hoststatus.SameStatus(entry.HostStatus, change.HostStatus) {
			return false
		}
		reaches = reaches || entry.Since.Before(change.Since)
	}
	return reaches
}
