// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// fault is an answer that is an error. All clients print the message of the first object in
// the body.
type fault struct {
	code    int
	message string
	// form is how the body looks.
	form form
	// header is added to the answer's.
	header http.Header
}

// form is how the body of a fault looks.
type form int

const (
	// formCompute is that of the compute API: an object named after the code.
	formCompute form = iota
	// formUnrouted is that of a path that the compute API does not have: it comes before
	// versions are looked at, so the answer names none.
	formUnrouted
	// formIdentity is that of the identity API.
	formIdentity
	// formSize is that of a body that is too large.
	formSize
)

// Error implements error.
func (f *fault) Error() string { return f.message }

// faultNames are what the compute API calls its errors.
var faultNames = map[int]string{
	http.StatusBadRequest:           "badRequest",
	http.StatusUnauthorized:         "unauthorized",
	http.StatusForbidden:            "forbidden",
	http.StatusNotFound:             "itemNotFound",
	http.StatusMethodNotAllowed:     "badMethod",
	http.StatusConflict:             "conflictingRequest",
	http.StatusUnsupportedMediaType: "badMediaType",
	http.StatusTooManyRequests:      "overLimit",
	http.StatusServiceUnavailable:   "serviceUnavailable",
}

const (
	contentTypeJSON  = "application/json"
	contentTypeFault = "application/json; charset=UTF-8"
)

// body returns the body and its content type.
func (f *fault) body() (body []byte, contentType string) {
	type details struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Title   string `json:"title,omitempty"`
	}
	type titled struct {
		Message string `json:"message"`
		Code    string `json:"code"`
		Title   string `json:"title"`
	}
	var content any
	contentType = contentTypeFault
	switch f.form {
	case formUnrouted, formSize:
		title := http.StatusText(f.code)
		content, contentType = titled{f.message, fmt.Sprintf("%d %s", f.code, title), title}, contentTypeJSON
	case formIdentity:
		content, contentType = map[string]details{"error": {f.code, f.message, http.StatusText(f.code)}}, contentTypeJSON
	case formCompute:
		name, ok := faultNames[f.code]
		if !ok {
			name = "computeFault"
		}
		content = map[string]details{name: {Code: f.code, Message: f.message}}
	}
	body, err := json.Marshal(content)
	if err != nil {
		panic(err) // Numbers and texts can always be encoded.
	}
	return body, contentType
}

// asFault returns the fault that err is, or one that reveals nothing of it.
func asFault(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	return unavailable()
}

func badRequest(format string, args ...any) *fault {
	return &fault{code: http.StatusBadRequest, message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) *fault {
	return &fault{code: http.StatusNotFound, message: fmt.Sprintf(format, args...)}
}

// noSuchResource is the answer of a route that the microversion asked for does not have.
func noSuchResource() *fault { return notFound("The resource could not be found.") }

func unrouted() *fault {
	return &fault{code: http.StatusNotFound, message: "The resource could not be found.<br /><br />\n\n\n", form: formUnrouted}
}

// denied is the answer to a caller to whom RBAC does not grant what policy names.
func denied(policy string) *fault {
	return &fault{code: http.StatusForbidden, message: fmt.Sprintf("Policy doesn't allow %s to be performed.", policy)}
}

func forbidden(format string, args ...any) *fault {
	return &fault{code: http.StatusForbidden, message: fmt.Sprintf(format, args...)}
}

// unauthorized is the answer to a request without a token that kube-apiserver accepts. base
// is the URL of this server.
func unauthorized(base string) *fault {
	return &fault{
		code: http.StatusUnauthorized, message: "The request you have made requires authentication.", form: formIdentity,
		header: http.Header{"Www-Authenticate": {fmt.Sprintf("Keystone uri=%q", base+pathIdentity)}},
	}
}

func unavailable() *fault {
	return &fault{code: http.StatusServiceUnavailable, message: "The servers cannot be read or changed just now; try again. The log of nova-api says why."}
}

func overLimit(message string) *fault {
	return &fault{code: http.StatusTooManyRequests, message: message, header: http.Header{"Retry-After": {"1"}}}
}

func tooLarge() *fault {
	return &fault{code: http.StatusRequestEntityTooLarge, message: "The body is too large.", form: formSize}
}
