// SPDX-License-Identifier: Apache-2.0

// Package mergepatch does with objects what an API server does with those that it is sent, for
// tests that stand in for one.
package mergepatch

import "encoding/json"

// Recode makes into what from is in JSON.
func Recode(from, into any) error {
	encoded, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(encoded, into)
}

// Apply returns target as a merge patch, of RFC 7386, changes it. It uses up target.
func Apply(target, patch map[string]any) map[string]any {
	if target == nil {
		target = map[string]any{}
	}
	for key, value := range patch {
		if value == nil {
			delete(target, key)
		} else if inner, ok := value.(map[string]any); ok {
			present, _ := target[key].(map[string]any)
			target[key] = Apply(present, inner)
		} else {
			target[key] = value
		}
	}
	return target
}
