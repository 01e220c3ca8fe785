// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxReason is how long the reason for disabling a service may be, in characters.
const maxReason = 255

// object returns the body of a request, which has to be a JSON object.
func (c *call) object() (map[string]any, error) {
	if len(c.body) == 0 {
		return nil, badRequest("None is not of type 'object'")
	}
	if err := checkContentType(c.request.Header); err != nil {
		return nil, err
	}
	return decodeObject(c.body)
}

func checkContentType(header http.Header) error {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || kind != contentTypeJSON && kind != "application/vnd.openstack.compute+json" {
		return &fault{code: http.StatusUnsupportedMediaType, message: "Unsupported Content-Type"}
	}
	return nil
}

// decodeObject reads a JSON object.
func decodeObject(content []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil || decoder.More() {
		return nil, badRequest("Malformed request body")
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, badRequest("%s is not of type 'object'", show(value))
	}
	return object, nil
}

// show prints a value as the compute API does in its messages.
func show(value any) string {
	switch v := value.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return "'" + v + "'"
	case json.Number:
		return v.String()
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return "it"
	}
	return string(encoded)
}

// serviceChange is what a client asks to be changed of a service. What is nil stays.
type serviceChange struct {
	host       string
	disabled   *bool
	reason     *string
	forcedDown *bool
}

// parseOldChange reads the body of PUT /os-services/ACTION, of versions before services had
// UUIDs.
func parseOldChange(object map[string]any, action string, v microversion) (*serviceChange, error) {
	for _, required := range []string{"host", "binary"} {
		if _, ok := object[required]; !ok {
			return nil, badRequest("'%s' is a required property", required)
		}
	}
	allowed := []string{"host", "binary", "disabled_reason"}
	if v >= withForcedDown {
		allowed = append(allowed, "forced_down")
	}
	fields := changeFields{object: object}
	if err := fields.check(allowed); err != nil {
		return nil, err
	}
	change := &serviceChange{host: fields.host}
	yes, no := true, false
	switch {
	case action == "enable":
		change.disabled = &no
	case action == "disable":
		change.disabled = &yes
	case action == "disable-log-reason":
		if fields.reason == nil {
			return nil, badRequest("Missing disabled reason field")
		}
		change.disabled, change.reason = &yes, fields.reason
	case action == "force-down" && v >= withForcedDown:
		if fields.forcedDown == nil {
			return nil, badRequest("Missing forced_down field")
		}
		change.forcedDown = fields.forcedDown
	default:
		return nil, notFound("Unknown action")
	}
	if fields.binary != binaryCompute {
		return nil, badRequest("Updating a %s service is not supported. Only %s services can be updated.", fields.binary, binaryCompute)
	}
	return change, nil
}

// parseChange reads the body of PUT /os-services/ID.
func parseChange(object map[string]any, id string) (*serviceChange, error) {
	fields := changeFields{object: object}
	if err := fields.check([]string{"status", "disabled_reason", "forced_down"}); err != nil {
		return nil, err
	}
	switch {
	case !isUID(id):
		return nil, badRequest("Invalid uuid %s", id)
	case fields.disabled != nil && !*fields.disabled && fields.reason != nil:
		return nil, badRequest("Specifying 'disabled_reason' when status is 'enabled' is invalid.")
	case fields.disabled == nil && fields.forcedDown == nil:
		return nil, badRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
	}
	return &serviceChange{disabled: fields.disabled, reason: fields.reason, forcedDown: fields.forcedDown}, nil
}

// changeFields are the fields that the two forms of a change have.
type changeFields struct {
	object               map[string]any
	host, binary         string
	disabled, forcedDown *bool
	reason               *string
}

func (f *changeFields) check(allowed []string) error {
	var extra []string
	for _, name := range sortedKeys(f.object) {
		if !slices.Contains(allowed, name) {
			extra = append(extra, "'"+name+"'")
		}
	}
	if len(extra) > 0 {
		verb := "was"
		if len(extra) > 1 {
			verb = "were"
		}
		return badRequest("Additional properties are not allowed (%s %s unexpected)", strings.Join(extra, ", "), verb)
	}
	for _, name := range allowed {
		if value, ok := f.object[name]; ok {
			if err := f.take(name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *changeFields) take(name string, value any) error {
	invalid := func(format string, args ...any) error {
		return badRequest("Invalid input for field/attribute %s. Value: %s. %s", name, strings.Trim(show(value), "'"), fmt.Sprintf(format, args...))
	}
	text, isText := value.(string)
	if name == "forced_down" {
		yes, isBoolean := value.(bool)
		if isText {
			yes, isBoolean = parseBoolean(text)
		} else if !isBoolean {
			return invalid("%s is not of type 'boolean', 'string'", show(value))
		}
		if !isBoolean {
			return invalid("%s is not one of True, False and the words for them", show(value))
		}
		f.forcedDown = &yes
		return nil
	}
	if !isText {
		return invalid("%s is not of type 'string'", show(value))
	}
	longest := maxReason
	switch name {
	case "status":
		if text != "enabled" && text != "disabled" {
			return invalid("%s is not one of ['enabled', 'disabled']", show(value))
		}
		disabled := text == "disabled"
		f.disabled = &disabled
		return nil
	case "host":
		f.host = text
	case "binary":
		f.binary = text
	case "disabled_reason":
		f.reason = &text
	}
	switch n := utf8.RuneCountInString(text); {
	case n == 0:
		return invalid("'' is too short")
	case n > longest:
		return invalid("%s is too long", show(value))
	}
	return nil
}
