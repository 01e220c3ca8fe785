// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestNamesOfNetworksThatWereStoredBeforeTheyWereRefusedAreMadePrintable(t *testing.T) {
	stored := []computev1alpha1.ServerNetwork{{Name: "x", Addresses: []string{"10.0.0.4"}}, {Name: "a\u009b\u202eb"}}
	want := []computev1alpha1.ServerNetwork{{Name: "x", Addresses: []string{"10.0.0.4"}}, {Name: "a��b"}}
	if diff := cmp.Diff(want, printableNetworks(stored)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if stored[1].Name != "a\u009b\u202eb" {
		t.Error("what others share has been changed")
	}
	if clean := stored[:1]; &printableNetworks(clean)[0] != &clean[0] {
		t.Error("what is printable is copied")
	}
}
