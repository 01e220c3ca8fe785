// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"testing"
	"time"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestTheFleetViewerMayReadAndIsToldWhatItLacks(t *testing.T) {
	silent("compute-1").make(t)
	tenant(t, "team-a")
	server(t, "team-a", "web-1", "compute-1", v1alpha1.HostStatusUnknown)
	s := as(t, "vera", "hoststatus-fleet-viewer")
	s.run(t.Context(), "list")
	s.run(t.Context(), "show", "compute-1")
	stopped, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer stop()
	s.run(stopped, "watch")
	s.run(t.Context(), "force-down", "compute-1", "--reason", "no power")
	s.run(t.Context(), "disable", "compute-1", "--reason", "new memory")
	s.run(t.Context(), "window", "compute-1", "--for", "1h")
	s.run(t.Context(), "up", "compute-1") // there is nothing to write
	s.golden(t)
}

func TestTheFleetOperatorMayDoEverything(t *testing.T) {
	silent("compute-1").make(t)
	s := as(t, "otto", "hoststatus-fleet-operator")
	for _, args := range [][]string{
		{"list"},
		{"show", "compute-1"},
		{"force-down", "compute-1", "--reason", "fenced by ipmi"},
		{"up", "compute-1"},
		{"disable", "compute-1", "--reason", "new memory"},
		{"enable", "compute-1"},
		{"window", "compute-1", "--for", "1h"},
		{"window", "compute-1", "--clear"},
	} {
		if code := s.run(t.Context(), args...); code != 0 {
			t.Errorf("%v ends with %d", args, code)
		}
	}
	stopped, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer stop()
	if code := s.run(stopped, "watch"); code != 0 {
		t.Errorf("watch ends with %d", code)
	}
	s.golden(t)
}

func TestShowTellsAsMuchAsTheUserMayRead(t *testing.T) {
	up("compute-1").make(t)
	s := as(t, "eda", "hoststatus-computeservice-editor")
	s.run(t.Context(), "show", "compute-1")
	s.run(t.Context(), "force-down", "compute-1", "--reason", "fenced by ipmi")
	s.run(t.Context(), "force-down", "compute-1", "--reason", "fenced by ipmi", "--yes")
	s.golden(t)
}

func TestNobodySeesNothing(t *testing.T) {
	up("compute-1").make(t)
	s := as(t, "nils")
	s.run(t.Context(), "list")
	s.run(t.Context(), "show", "compute-1")
	s.run(t.Context(), "up", "compute-1")
	s.run(t.Context(), "watch")
	s.run(t.Context(), "list", "--as", "root", "--as-group", "system:masters")
	admin := newSession()
	admin.run(t.Context(), "list", "--as", "nils")
	admin.run(t.Context(), "list", "--as", "nils", "--as-group", "system:masters")
	admin.run(t.Context(), "list", "--context", "elsewhere")
	s.transcript.Write(admin.transcript.Bytes())
	s.golden(t)
}
