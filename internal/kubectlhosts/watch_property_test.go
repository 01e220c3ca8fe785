// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Whoever reads the lines of a watch knows each host as it is, also after a time without a
// connection in which hosts have changed, gone, or been made again under their names.
func TestTheLinesOfAWatchLeadToTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// By the lines, read is the status of each host, and added how many there have been of
		// a name.
		read, added := map[string]string{}, map[string]int{}
		watch := newTransitions(nil, nil, false, func() time.Time { return now }, func(line Transition) {
			status, known := read[line.Host]
			if known == (line.Event == "Added") || known && line.From != status {
				t.Fatalf("of a host that is %q (known: %t) there is the line %s", status, known, showTransition(line, false, false))
			}
			switch read[line.Host] = line.To; line.Event {
			case "Added":
				added[line.Host]++
			case "Deleted":
				delete(read, line.Host)
			}
		})
		there, made := map[string]*v1alpha1.ComputeService{}, 0
		// seen are the hosts of each name that the watch has been shown.
		seen := map[string]map[types.UID]bool{}
		show := func(s *v1alpha1.ComputeService) {
			if seen[s.Name] == nil {
				seen[s.Name] = map[types.UID]bool{}
			}
			seen[s.Name][s.UID] = true
		}
		list := func() {
			var all []any
			for _, s := range there {
				show(s)
				all = append(all, s)
			}
			if err := watch.Replace(all, ""); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := fmt.Sprintf("compute-%d", rapid.IntRange(1, 3).Draw(t, "host"))
			before, heard := there[name], rapid.Bool().Draw(t, "heard")
			var err error
			if before != nil && rapid.Bool().Draw(t, "goes") {
				if delete(there, name); heard {
					err = watch.Delete(before)
				}
			} else {
				s := called(name, service(rapid.SampledFrom([]v1alpha1.HostStatus{"UP", "DOWN", "UNKNOWN"}).Draw(t, "status"), v1alpha1.ReasonReporting,
					rapid.SampledFrom([]metav1.ConditionStatus{"True", "False"}).Draw(t, "reports")))
				if before != nil {
					s.UID = before.UID
				} else {
					made++
					s.UID = types.UID(fmt.Sprint(made))
				}
				if there[name] = s; heard {
					show(s)
					err = watch.Update(s)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if !heard && rapid.Bool().Draw(t, "lists again") {
				list()
			}
		}
		list()
		for name, s := range there {
			if read[name] != statusWord(s) {
				t.Errorf("%s is %s, and is read as %q", name, statusWord(s), read[name])
			}
		}
		if len(read) != len(there) {
			t.Errorf("%d hosts are read, of %d", len(read), len(there))
		}
		for name, hosts := range seen {
			if added[name] != len(hosts) {
				t.Errorf("%d hosts of the name %s were shown, and %d added", len(hosts), name, added[name])
			}
		}
	})
}
