// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	plugin "hoststatus.dev/hoststatus/internal/kubectlservers"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

var update = flag.Bool("update", false, "write the golden files")

// reading is when the owner of the golden files reads: the windows are of that day, so that
// lines break where they do in each run.
var reading = time.Date(2031, 3, 5, 12, 0, 0, 0, time.UTC)

// atTerminal is what the plugin prints on a terminal of so many columns.
func (o *owner) atTerminal(t *testing.T, columns int, commands ...string) string {
	t.Helper()
	var transcript strings.Builder
	for _, command := range commands {
		var out bytes.Buffer
		code := plugin.Run(t.Context(), plugin.Environment{
			IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out},
			OutTerminal: true, Width: func() int { return columns }, Now: func() time.Time { return reading },
			Getenv: func(name string) string { return map[string]string{"NO_COLOR": "1"}[name] },
		}, append(strings.Fields(command), "--kubeconfig="+o.kubeconfig, "--namespace="+o.namespace))
		_, _ = fmt.Fprintf(&transcript, "$ kubectl servers %s\n%s", command, out.String())
		if code != 0 {
			_, _ = fmt.Fprintf(&transcript, "[exit code %d]\n", code)
		}
		transcript.WriteString("\n")
	}
	return transcript.String()
}

// What the API server makes up, and when the manager wrote.
var (
	anyID      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	anyShortID = regexp.MustCompile(`[0-9a-f]{8}…[0-9a-f]{8}`)
	anySince   = regexp.MustCompile(`(?m)^(Since: +).*`)
	anyHistory = regexp.MustCompile(`(?m)^History: .*\n( {15}.*\n)*`)
)

func TestWhatOwnersReadOfTheRealViewAtEachWidth(t *testing.T) {
	at := func(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(reading.Add(d))) }
	host(t, "widths-1", &v1alpha1.MaintenanceWindow{
		StartTime: at(2 * time.Hour), LatestStartTime: at(26 * time.Hour), EndTime: at(30 * time.Hour),
		Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot,
	})
	down := host(t, "widths-2", nil)
	before := down.DeepCopy()
	down.Spec.ForcedDown, down.Spec.ForcedDownReason = ptr.To(true), ptr.To("fenced by ipmi")
	expect.NoError(t, env.Admin.Patch(t.Context(), down, client.MergeFrom(before)))
	ana := newOwner(t, "ana", "widths", reads, sees, answers)
	eve := newOwner(t, "eve", "widths", reads)
	for name, on := range map[string]string{"web-1": "widths-1", "web-2": "widths-1", "db-1": "widths-2"} {
		s := server(t, "widths", name, on)
		before := s.DeepCopy()
		s.Status.State, s.Status.PowerState = "ACTIVE", "RUNNING"
		s.Status.Networks = []v1alpha1.ServerNetwork{{Name: "blue-net", Addresses: []string{"10.0.0.4", "fd00::17:3"}}}
		expect.NoError(t, env.Admin.Status().Patch(t.Context(), s, client.MergeFrom(before)))
	}
	ana.becomes(t, "web-1", "about to be maintained", func(r *plugin.Report) bool { return r.Window != nil && r.Window.Answer == v1alpha1.AnswerStateNone })
	ana.becomes(t, "db-1", "DOWN", func(r *plugin.Report) bool { return r.FailOver == plugin.FailOverYes })
	for _, columns := range []int{80, 200} {
		got := ana.atTerminal(t, columns, "list", "show web-1", "show db-1", "ready web-1 --dry-run=server", "not-before web-1 tomorrow 15:00 --dry-run=server", "show web-11") +
			eve.atTerminal(t, columns, "list", "show web-1")
		if !anyHistory.MatchString(got) {
			t.Errorf("there is no history:\n%s", got)
		}
		got = anyID.ReplaceAllString(got, "00000000-0000-0000-0000-000000000000")
		got = anyShortID.ReplaceAllString(got, "00000000…00000000")
		got = anyHistory.ReplaceAllString(anySince.ReplaceAllString(got, "${1}…"), "History:       …\n")
		path := filepath.Join("testdata", fmt.Sprintf("columns-%d.golden", columns))
		if *update {
			expect.NoError(t, os.MkdirAll("testdata", 0o755))
			expect.NoError(t, os.WriteFile(path, []byte(got), 0o644))
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%v; go test -update writes it", err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got; go test -update writes it):\n%s", path, diff)
		}
	}
}
