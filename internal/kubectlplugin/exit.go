// SPDX-License-Identifier: Apache-2.0

package kubectlplugin

import (
	"errors"
	"fmt"
)

// The exit codes that mean the same for every plugin, for scripts.
const (
	// ExitOK: everything is done, or was so already.
	ExitOK = 0
	// ExitError: the API server could not be reached, or refused a request.
	ExitError = 1
	// ExitUsage: the command line is wrong. Nothing was written.
	ExitUsage = 2
	// ExitNotFound: a named object does not exist. Nothing was written.
	ExitNotFound = 3
	// ExitNotConfirmed: the change was not confirmed. Nothing was written.
	ExitNotConfirmed = 4
)

// CodedError is an error with an exit code of its own.
type CodedError struct {
	error
	Code int
}

// WithCode gives an error an exit code.
func WithCode(err error, code int) error { return CodedError{err, code} }

// Unwrap returns the error itself.
func (e CodedError) Unwrap() error { return e.error }

// UsageError is about a wrong command line.
func UsageError(format string, args ...any) error {
	return WithCode(fmt.Errorf(format, args...), ExitUsage)
}

// CodeOf is the exit code for an error.
func CodeOf(err error) int {
	var coded CodedError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.Code
	default:
		return ExitError
	}
}

// Joined is several errors as one. It keeps the exit code where all failed alike.
func Joined(failed []error) error {
	if len(failed) == 0 {
		return nil
	}
	code := CodeOf(failed[0])
	for _, err := range failed {
		if CodeOf(err) != code {
			code = ExitError
		}
	}
	return WithCode(errors.Join(failed...), code)
}
