// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// oneOfEach returns a host for each status of the table, and at the end one with a status
// of a later release.
func oneOfEach() (services []v1alpha1.ComputeService) {
	for row := range hoststatus.Rows() {
		if row.OfHosts() {
			s := v1alpha1.ComputeService{}
			s.Status.HostStatus = row.Status
			services = append(services, s)
		}
	}
	return append(services, *service("OF_A_LATER_RELEASE", "New", "True"))
}

func TestEveryStatusOfTheTableCanBeAskedForAndHasAColour(t *testing.T) {
	for _, s := range oneOfEach() {
		name := statusWord(&s)
		_, _, err := (&listOptions{statuses: []string{strings.ToLower(name)}, sort: "name", output: kubectlplugin.NewOutput()}).validate(nil)
		_, known := hoststatus.RowOf(s.Status.HostStatus)
		if (err == nil) != known {
			t.Errorf("--status %s: %v", name, err)
		}
		if coloured := kubectlplugin.StatusCell(s.Status.HostStatus).Colour != ""; coloured != (known && name != statusNone) {
			t.Errorf("%s has a colour: %t", name, coloured)
		}
	}
}

func TestTheMostPressingStatusComesFirst(t *testing.T) {
	services := oneOfEach()
	if err := sortHosts(services, "status"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range services {
		got = append(got, statusWord(&services[i]))
	}
	if diff := cmp.Diff(append([]string{"OF_A_LATER_RELEASE"}, hostStatuses...), got); diff != "" {
		t.Errorf("(-values of --status +order):\n%s", diff)
	}
}

func TestTheSummaryCountsEveryHost(t *testing.T) {
	services := oneOfEach()
	got := summary(services)
	for i := range services {
		if want := "1 " + statusWord(&services[i]); !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if want := fmt.Sprintf("%d hosts: 1 DOWN, ", len(services)); !strings.HasPrefix(got, want) {
		t.Errorf("%q does not begin with %q", got, want)
	}
}
