// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"errors"
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// openers are the programs that open a file in the browser, by operating system. On all
// others it is xdg-open.
var openers = map[string][]string{
	"darwin":  {"open"},
	"windows": {"rundll32", "url.dll,FileProtocolHandler"},
}

// openBrowser opens an address by a file that only this user can read: everybody on the
// machine sees the arguments of a process. remove removes the file.
func openBrowser(ctx context.Context, address string) (remove func(), err error) {
	remove = func() {}
	opener, ok := openers[runtime.GOOS]
	if !ok {
		opener = []string{"xdg-open"}
	}
	program, err := exec.LookPath(opener[0])
	if err != nil {
		return remove, errors.New("there is no " + opener[0] + " in $PATH")
	}
	dir, err := os.MkdirTemp("", "hoststatus-page-") // mode 0700
	if err != nil {
		return remove, fmt.Errorf("making a folder for the address: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "page.html")
	content := `<!doctype html><meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url=` + html.EscapeString(address) + `">`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		return remove, fmt.Errorf("writing the address for the browser: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, append(opener[1:], file)...)
	if err := cmd.Start(); err != nil {
		return remove, fmt.Errorf("starting %s: %w", opener[0], err)
	}
	go func() { _ = cmd.Wait() }()
	return remove, nil
}
