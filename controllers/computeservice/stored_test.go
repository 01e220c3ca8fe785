// SPDX-License-Identifier: Apache-2.0

package computeservice

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/statuspatch"
)

// Whatever was stored, what is stored afterwards is what was decided, field by field and
// at every depth.
func TestWhatIsStoredIsWhatWasDecided(t *testing.T) {
	seed := rand.Int64()
	t.Logf("seed %d", seed)
	fill := randfill.NewWithSeed(seed).NilChance(0.5).NumElements(0, 3).Funcs(func(t *metav1.Time, c randfill.Continue) {
		t.Time = time.Unix(c.Int63n(1<<32), 0)
	})
	for range 200 {
		service := serviceWith()
		fill.Fill(&service.Status)
		w := newWorld(t, service)
		stored := w.read("host-a")
		before := stored.Status
		var decided v1alpha1.ComputeServiceStatus
		fill.Fill(&decided)
		decided.Report = before.Report // Of controllers/reports.
		if err := statuspatch.Patch(t.Context(), w.Client, stored, fieldsOf(&before), fieldsOf(&decided)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decided, w.read("host-a").Status, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("stored %+v\n(-decided +stored afterwards):\n%s", before, diff)
		}
	}
}
