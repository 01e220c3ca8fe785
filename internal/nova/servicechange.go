// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

const (
	// fieldManager is the owner of the flags that clients set.
	fieldManager = "nova-api"
	// forcedDownReason stands beside a flag that clients set without one: their API has none.
	forcedDownReason = "forced down by a client of nova-api"
	// maxConflicts is how often a change is tried that others make impossible.
	maxConflicts = 4

	contentTypeMergePatch = "application/merge-patch+json"
	policyServicesUpdate  = policyServices + "update"
)

// patch returns the merge patch that makes a change to s, on condition that s is still as it
// was read: a flag and its reason are changed together. A flag that is cleared is removed,
// so that nobody owns it.
func (change *serviceChange) patch(s *service) ([]byte, error) {
	spec := map[string]any{}
	if d := change.disabled; d != nil {
		spec["disabled"], spec["disabledReason"] = nil, nil
		if *d {
			spec["disabled"] = true
			if change.reason != nil {
				spec["disabledReason"] = *change.reason
			}
		}
	}
	if d := change.forcedDown; d != nil {
		switch {
		case !*d:
			spec["forcedDown"], spec["forcedDownReason"] = nil, nil
		case !s.forcedDown():
			spec["forcedDown"], spec["forcedDownReason"] = true, forcedDownReason
		default:
			spec["forcedDown"] = true // Whoever set it before has written why.
		}
	}
	content, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": s.UID, "resourceVersion": s.ResourceVersion},
		"spec":     spec,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding a patch: %w", err)
	}
	return content, nil
}

// apply makes a change to the service that find returns, which it asks again if others
// change it at the same time.
func (c *call) apply(change *serviceChange, find func() (*service, error)) (*service, error) {
	for attempt := 0; ; attempt++ {
		before, err := find()
		if err != nil {
			return nil, err
		}
		content, err := change.patch(before)
		if err != nil {
			return nil, err
		}
		after := &service{}
		header, err := c.kube.read(c.ctx, c.token, target{
			method: http.MethodPatch, path: append(computeServices(), before.Name),
			query: url.Values{"fieldManager": {fieldManager}}, contentType: contentTypeMergePatch, body: content,
		}, after)
		if refused(err, http.StatusConflict) && attempt < maxConflicts {
			continue
		}
		if err != nil {
			return nil, err
		}
		c.passWarnings(header)
		return after, nil
	}
}

// updateService serves PUT /os-services/ID, where ID is an action before version 2.53.
func (c *call) updateService() (*answer, error) {
	object, err := c.object()
	if err != nil {
		return nil, err
	}
	if c.version < withServiceUUIDs {
		return c.updateOldService(object)
	}
	id := c.id
	change, err := parseChange(object, id)
	if err != nil {
		return nil, err
	}
	after, err := c.apply(change, func() (*service, error) {
		s, err := c.findService(strings.ToLower(id))
		if err == nil && s == nil {
			err = notFound("Service %s could not be found.", id)
		}
		return s, err
	})
	if err != nil {
		return nil, c.denial(err, policyServicesUpdate)
	}
	e := &encoder{}
	e.begin("", '{')
	after.encode(e, "service", c.version, after.lastSeen())
	e.end('}')
	return ok(e.b), nil
}

func (c *call) updateOldService(object map[string]any) (*answer, error) {
	action := c.id
	change, err := parseOldChange(object, action, c.version)
	if err != nil {
		return nil, err
	}
	after, err := c.apply(change, func() (*service, error) {
		s, err := c.getService(change.host)
		if err == nil && s == nil {
			err = notFound("Host '%s' is not mapped to any cell", change.host)
		}
		return s, err
	})
	if err != nil {
		return nil, c.denial(err, policyServicesUpdate)
	}
	e := &encoder{}
	e.begin("", '{')
	e.begin("service", '{')
	e.text("host", after.Name)
	e.text("binary", binaryCompute)
	if change.disabled != nil {
		e.text("status", after.status())
	}
	if change.reason != nil {
		e.text("disabled_reason", *change.reason)
	}
	if change.forcedDown != nil {
		e.boolean("forced_down", after.forcedDown())
	}
	e.end('}')
	e.end('}')
	return ok(e.b), nil
}

// deleteService serves DELETE /os-services/ID: it is refused, whoever asks, but who asks for
// what does not exist is answered that.
func (c *call) deleteService() (*answer, error) {
	id := c.id
	missing := notFound("Service %s not found.", id)
	if c.version < withServiceUUIDs {
		return nil, forbidden(refusedDeletion)
	}
	if !isUID(id) {
		return nil, badRequest("Invalid uuid %s", id)
	}
	s, err := c.findService(strings.ToLower(id))
	switch {
	case err != nil:
		return nil, c.denial(err, policyServices+"delete")
	case s == nil:
		return nil, missing
	}
	return nil, forbidden(refusedDeletion)
}

const refusedDeletion = "Services cannot be deleted here: delete the ComputeService of the host with kubectl, once no server is on it."
