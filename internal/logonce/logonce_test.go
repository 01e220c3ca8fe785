// SPDX-License-Identifier: Apache-2.0

package logonce

import (
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"hoststatus.dev/hoststatus/test/framework/logbook"
)

func TestAMessageIsLoggedOnceForAsLongAsItHolds(t *testing.T) {
	book := logbook.New()
	ctx := log.IntoContext(t.Context(), book.Logger)
	var l Log[string]
	for _, step := range []struct{ key, message string }{
		{"a", "x"}, {"a", "x"}, {"b", "x"}, {"a", "y"}, {"a", "y"}, {"a", ""}, {"a", ""}, {"a", "y"}, {"c", ""},
	} {
		l.Info(ctx, step.key, step.message)
	}
	book.Want(t, "x", "x", "y", "y")
}
