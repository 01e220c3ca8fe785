// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"hoststatus.dev/hoststatus/internal/version"
)

// Scripts read it, so it is the only thing on standard output.
func TestTheVersionIsPrintedWithoutACluster(t *testing.T) {
	streams, _, out, complaint := genericiooptions.NewTestIOStreams()
	code := Run(t.Context(), Environment{IOStreams: streams, Getenv: func(string) string { return "" }}, []string{"--version"})
	if want := version.Of("kubectl-hosts") + "\n"; code != ExitOK || out.String() != want || complaint.Len() > 0 {
		t.Errorf("code %d, printed %q and %q; want %q alone", code, out, complaint, want)
	}
}
