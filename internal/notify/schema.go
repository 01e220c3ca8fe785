// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"maps"
	"reflect"
	"strings"

	"hoststatus.dev/hoststatus/internal/hoststatus"
)

const (
	namePattern = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
	urlPattern  = "https?://[^/?#@]+([/?][^#]*)?"
)

// Schema is the JSON schema of a configuration, as the chart has it. What it refuses Validate
// refuses, too, but for a 0 or an empty text in the place of a default, which has to be left out.
// What depends on other fields only Validate knows.
func Schema() map[string]any {
	var statuses []any
	for row := range hoststatus.Rows() {
		if row.Status != nil {
			statuses = append(statuses, *row.Status)
		}
	}
	name := map[string]any{"pattern": "^" + namePattern + "$", "maxLength": maxName}
	address := map[string]any{"pattern": "^" + urlPattern + "$"}
	return schemaOf(reflect.TypeFor[Config](), "", map[string]map[string]any{
		"namespaces":                         {"maxItems": maxNamespaces, "uniqueItems": true},
		"namespaces[]":                       {"pattern": `^(\*|` + namePattern + ")$", "maxLength": maxName},
		"generatorURL":                       {"pattern": "^(" + urlPattern + ")?$"},
		"sinks":                              {"minItems": 1, "maxItems": maxSinks},
		"sinks[]":                            {"oneOf": []any{map[string]any{"required": []string{"cloudEvents"}}, map[string]any{"required": []string{"alertmanager"}}}},
		"sinks[].name":                       name,
		"sinks[].cloudEvents.url":            address,
		"sinks[].cloudEvents.mode":           {"enum": modes},
		"sinks[].cloudEvents.parallel":       {"minimum": 1, "maximum": maxParallel},
		"sinks[].alertmanager.url":           address,
		"sinks[].alertmanager.resendSeconds": {"minimum": minResendSeconds, "maximum": maxResendSeconds},
		"sinks[].alertmanager.expireSeconds": {"minimum": 2 * minResendSeconds, "maximum": maxExpireSeconds},
		"sinks[].tls":                        {"dependencies": map[string]any{"certFile": []string{"keyFile"}, "keyFile": []string{"certFile"}}},
		"sinks[].timeoutSeconds":             {"minimum": 1, "maximum": maxTimeoutSeconds},
		"routes":                             {"minItems": 1, "maxItems": maxRoutes},
		"routes[].name":                      name,
		"routes[].namespaces":                {"maxItems": maxNamespaces},
		"routes[].namespaces[]":              name,
		"routes[].hostStatuses[]":            {"enum": statuses},
		"routes[].minSeconds":                {"minimum": 0, "maximum": maxMinSeconds},
		"routes[].severity":                  {"maxLength": maxSeverity},
	})
}

// schemaOf is the schema of a type, with the rules for it and for what is in it, by path.
func schemaOf(t reflect.Type, path string, rules map[string]map[string]any) map[string]any {
	schema := map[string]any{}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), path, rules)
	case reflect.Struct:
		properties, required := map[string]any{}, []string{}
		for i := range t.NumField() {
			name, omitted, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			properties[name] = schemaOf(t.Field(i).Type, strings.TrimPrefix(path+"."+name, "."), rules)
			if omitted == "" {
				required = append(required, name)
			}
		}
		schema = map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
		if len(required) > 0 {
			schema["required"] = required
		}
	case reflect.Slice:
		schema = map[string]any{"type": "array", "items": schemaOf(t.Elem(), path+"[]", rules)}
	case reflect.String:
		schema["type"] = "string"
	case reflect.Bool:
		schema["type"] = "boolean"
	case reflect.Int:
		schema["type"] = "integer"
	case reflect.Float64:
		schema["type"] = "number"
	}
	maps.Copy(schema, rules[path])
	return schema
}
