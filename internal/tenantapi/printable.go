// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"slices"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/printable"
)

// printableNetworks returns networks whose names can be shown. The schema refuses others,
// but may have stored some before it did, and one would keep its owner, and anyone who
// lists it, from printing YAML. It copies only what it has to change.
func printableNetworks(networks []computev1alpha1.ServerNetwork) []computev1alpha1.ServerNetwork {
	copied := false
	for i := range networks {
		clean := printable.Clean(networks[i].Name)
		if clean == networks[i].Name {
			continue
		}
		if !copied {
			networks, copied = slices.Clone(networks), true
		}
		networks[i].Name = clean
	}
	return networks
}
