// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReportCrashes(t *testing.T) {
	for name, c := range map[string]struct {
		log  string
		want int
	}{
		"a quiet log":  {"level=INFO msg=Running\n", 0},
		"an empty log": {"", 0},
		"a data race":  {"level=INFO\n==================\nWARNING: DATA RACE\nWrite at 0x01\n", 1},
		"the race that is not ours": {"level=INFO\n==================\nWARNING: DATA RACE\n" +
			"  k8s.io/apiserver/pkg/server/dynamiccertificates.(*DynamicServingCertificateController).syncCerts()\n" +
			"  k8s.io/apiserver/pkg/server.(*SecureServingInfo).Serve()\n==================\nlevel=INFO\n", 0},
		"another race with certificates": {"==================\nWARNING: DATA RACE\n" +
			"  k8s.io/apiserver/pkg/server/dynamiccertificates.(*DynamicServingCertificateController).syncCerts()\n" +
			"  hoststatus.dev/hoststatus/internal/tenantapi.(*servingCert).run()\n==================\n", 1},
		"a panic":       {"panic: runtime error: index out of range\n", 1},
		"a fatal error": {"fatal error: concurrent map writes\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "manager.log"), []byte(c.log), 0o644); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if got := ReportCrashes(&out, dir); got != c.want || (out.Len() > 0) != (c.want > 0) {
				t.Errorf("code %d and %q, want %d", got, out.String(), c.want)
			}
		})
	}
	t.Run("no logs to look at", func(t *testing.T) {
		if ReportCrashes(&strings.Builder{}, t.TempDir()) == 0 {
			t.Error("that is no proof")
		}
	})
}
