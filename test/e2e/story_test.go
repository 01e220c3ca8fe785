// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
)

// The story that `make demo` tells holds: all five values, none, and every
// transition between them.
func TestTheStoryOfTheDemoHolds(t *testing.T) {
	if err := fleet.Story(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
}
