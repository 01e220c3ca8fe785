// SPDX-License-Identifier: Apache-2.0

package serving

import (
	stdlog "log"
	"strings"

	"github.com/go-logr/logr"
)

// ErrorLog is for http.Server: what it reports is logged at the level of debugging, because
// anyone who can connect can cause it.
func ErrorLog(log logr.Logger) *stdlog.Logger { return stdlog.New(connectionErrors{log}, "", 0) }

type connectionErrors struct{ log logr.Logger }

// Write implements io.Writer.
func (c connectionErrors) Write(line []byte) (int, error) {
	c.log.V(1).Info("Connection error", "message", strings.TrimSpace(string(line)))
	return len(line), nil
}
