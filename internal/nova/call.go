// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// call is one request of a client.
type call struct {
	*face
	ctx     context.Context
	request *http.Request
	body    []byte
	// route is the path as logs and metrics have it.
	route string
	// id is the element of the path that its route does not name, and resource is the path
	// within the project.
	id       string
	resource string
	query    url.Values
	links    links
	version  microversion
	token    token
	// project is the namespace of the request, "" if none is known.
	project string
	// warnings are those of kube-apiserver, to be passed on.
	warnings []string
}

// answer is that to a call.
type answer struct {
	code        int
	body        []byte
	contentType string
	header      http.Header
}

func ok(body []byte) *answer { return &answer{code: http.StatusOK, body: body} }

// passWarnings lets the answer carry the warnings of kube-apiserver's.
func (c *call) passWarnings(header http.Header) {
	for _, warning := range header.Values(headerWarning) {
		if len(c.warnings) < maxWarnings {
			c.warnings = append(c.warnings, warning)
		}
	}
}

// denial returns the fault for an error of kube-apiserver: what it did not grant is refused
// by policy, and the rest reveals nothing.
func (c *call) denial(err error, policy string) error {
	var f *fault
	var r *refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return f
	case errors.As(err, &r):
		switch r.code {
		case http.StatusUnauthorized:
			return unauthorized(c.links.base)
		case http.StatusForbidden:
			if policy != "" {
				return denied(policy)
			}
		case http.StatusConflict:
			return &fault{code: http.StatusConflict, message: "It was changed by others at the same time; try again."}
		case http.StatusBadRequest, http.StatusUnprocessableEntity:
			return badRequest("The cluster refuses this: %s", causes(r))
		case http.StatusTooManyRequests:
			return overLimit("The cluster has too many requests; try again.")
		}
	case errors.Is(c.ctx.Err(), context.Canceled):
		return unavailable() // Nobody waits for it.
	}
	c.complaints.report(c.route, err)
	return unavailable()
}

// causes returns what is wrong with an object, as its schema says. It names no caller, unlike
// the message.
func causes(r *refusal) string {
	if r.status.Details == nil || len(r.status.Details.Causes) == 0 {
		return "what is asked for cannot be."
	}
	cause := r.status.Details.Causes[0]
	return cause.Field + ": " + cause.Message
}
