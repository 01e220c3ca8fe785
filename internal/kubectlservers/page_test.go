// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"strings"
	"testing"
)

func TestAPageIsNotServedOfWhatIsWrongOrCannotBeRead(t *testing.T) {
	refusing := newAPI()
	refusing.lacks = []string{"list/servers"}
	for name, c := range map[string]struct {
		api  *api
		args []string
		code int
		says string
	}{
		"a name":          {newAPI(), []string{"page", "web-1"}, ExitUsage, "page takes no names of servers; type a name into the page"},
		"a port":          {newAPI(), []string{"page", "--port=-1"}, ExitUsage, "--port: -1 is not a port; use 1 to 65535, or 0 for any free one"},
		"a selector":      {newAPI(), []string{"page", "-l", "a=b=c"}, ExitUsage, "--selector: "},
		"a missing right": {refusing, []string{"page"}, ExitError, "you lack the right to list servers.tenant.hoststatus.dev in namespace team-a"},
	} {
		out, complaints, code := c.api.run(t, 0, c.args...)
		if code != c.code || !strings.Contains(complaints, c.says) || out != "" {
			t.Errorf("%s: it ends with %d, prints %q, and says %s", name, code, out, complaints)
		}
	}
}
