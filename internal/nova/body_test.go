// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestChangesOfServices(t *testing.T) {
	const force, hostBinary = "force-down", `"host":"c","binary":"nova-compute"`
	for _, c := range []struct {
		name, id, body string
		version        microversion
		// patch is the spec of the patch, want the message of the refusal.
		patch, want string
	}{
		{"enable", "enable", `{` + hostBinary + `}`, 1, `{"disabled":null,"disabledReason":null}`, ""},
		{"disable", "disable", `{` + hostBinary + `}`, 1, `{"disabled":true,"disabledReason":null}`, ""},
		{"disable with a reason", "disable-log-reason", `{` + hostBinary + `,"disabled_reason":"new memory"}`, 1, `{"disabled":true,"disabledReason":"new memory"}`, ""},
		{"disable without the reason", "disable-log-reason", `{` + hostBinary + `}`, 1, "", "Missing disabled reason field"},
		{"force down before there was that", force, `{` + hostBinary + `}`, 10, "", "Unknown action"},
		{"force down", force, `{` + hostBinary + `,"forced_down":true}`, 11, `{"forcedDown":true,"forcedDownReason":"` + forcedDownReason + `"}`, ""},
		{"no longer, in words", force, `{` + hostBinary + `,"forced_down":"false"}`, 11, `{"forcedDown":null,"forcedDownReason":null}`, ""},
		{"force down without a value", force, `{` + hostBinary + `}`, 11, "", "Missing forced_down field"},
		{"one property too many", force, `{` + hostBinary + `,"forced_down":true,"foo":1}`, 11, "", "Additional properties are not allowed ('foo' was unexpected)"},
		{"no binary", force, `{"host":"c","forced_down":true}`, 11, "", "'binary' is a required property"},
		{"another binary", "enable", `{"host":"c","binary":"nova-scheduler"}`, 1, "", "Updating a nova-scheduler service is not supported. Only nova-compute services can be updated."},
		{"a host that is no text", "enable", `{"host":1,"binary":"nova-compute"}`, 1, "", "Invalid input for field/attribute host. Value: 1. 1 is not of type 'string'"},
		{"an unknown action", "explode", `{` + hostBinary + `}`, 11, "", "Unknown action"},
		{"the old form", force, `{` + hostBinary + `,"forced_down":true}`, 53, "", "Additional properties are not allowed ('binary', 'host' were unexpected)"},
		{"the new form", someUID, `{"forced_down":true}`, 53, `{"forcedDown":true,"forcedDownReason":"` + forcedDownReason + `"}`, ""},
		{"the new form too early", someUID, `{"forced_down":true}`, 52, "", "'host' is a required property"},
		{"everything", someUID, `{"status":"disabled","disabled_reason":"r","forced_down":true}`, 93, `{"disabled":true,"disabledReason":"r","forcedDown":true,"forcedDownReason":"` + forcedDownReason + `"}`, ""},
		{"everything back", someUID, `{"status":"enabled","forced_down":false}`, 93, `{"disabled":null,"disabledReason":null,"forcedDown":null,"forcedDownReason":null}`, ""},
		{"enabled for a reason", someUID, `{"status":"enabled","disabled_reason":"x"}`, 53, "", "Specifying 'disabled_reason' when status is 'enabled' is invalid."},
		{"a reason alone", someUID, `{"disabled_reason":"x"}`, 53, "", "No updates were requested. Fields 'status' or 'forced_down' should be specified."},
		{"nothing", someUID, `{}`, 53, "", "No updates were requested. Fields 'status' or 'forced_down' should be specified."},
		{"an empty reason", someUID, `{"status":"disabled","disabled_reason":""}`, 53, "", "Invalid input for field/attribute disabled_reason. Value: . '' is too short"},
		{"a long reason", someUID, `{"status":"disabled","disabled_reason":"` + strings.Repeat("x", 256) + `"}`, 53, "", "Invalid input for field/attribute disabled_reason. Value: " + strings.Repeat("x", 256) + ". '" + strings.Repeat("x", 256) + "' is too long"},
		{"the longest reason", someUID, `{"status":"disabled","disabled_reason":"` + strings.Repeat("ä", 255) + `"}`, 53, `{"disabled":true,"disabledReason":"` + strings.Repeat("ä", 255) + `"}`, ""},
		{"a number for a flag", someUID, `{"forced_down":7}`, 53, "", "Invalid input for field/attribute forced_down. Value: 7. 7 is not of type 'boolean', 'string'"},
		{"a word that is no flag", someUID, `{"forced_down":"maybe"}`, 53, "", "Invalid input for field/attribute forced_down. Value: maybe. 'maybe' is not one of True, False and the words for them"},
		{"another status", someUID, `{"status":"broken"}`, 53, "", "Invalid input for field/attribute status. Value: broken. 'broken' is not one of ['enabled', 'disabled']"},
		{"no UUID", "151", `{"forced_down":true}`, 53, "", "Invalid uuid 151"},
		{"a list", someUID, `[]`, 53, "", "[] is not of type 'object'"},
		{"null", someUID, `null`, 53, "", "None is not of type 'object'"},
		{"no JSON", someUID, `{`, 53, "", "Malformed request body"},
		{"two objects", someUID, `{}{}`, 53, "", "Malformed request body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parsedPatch(c.id, c.body, c.version)
			switch {
			case c.want != "":
				if err == nil || err.Error() != c.want {
					t.Errorf("got %v, want %s", err, c.want)
				}
			case err != nil:
				t.Error(err)
			case got != c.patch:
				t.Errorf("got %s, want %s", got, c.patch)
			}
		})
	}
}

// parsedPatch returns the spec of the patch that a request makes.
func parsedPatch(id, body string, v microversion) (string, error) {
	object, err := decodeObject([]byte(body))
	if err != nil {
		return "", err
	}
	var change *serviceChange
	if v < withServiceUUIDs {
		change, err = parseOldChange(object, id, v)
	} else {
		change, err = parseChange(object, id)
	}
	if err != nil {
		return "", err
	}
	content, err := change.patch(&service{})
	if err != nil {
		return "", err
	}
	var patch struct {
		Spec json.RawMessage `json:"spec"`
	}
	err = json.Unmarshal(content, &patch)
	return string(patch.Spec), err
}

func TestAPatchHoldsForWhatWasRead(t *testing.T) {
	s := &service{}
	s.UID, s.ResourceVersion = someUID, "4711"
	s.Spec = computev1alpha1.ComputeServiceSpec{ForcedDown: ptr.To(true), ForcedDownReason: ptr.To("fenced by ipmi")}
	content, err := (&serviceChange{forcedDown: ptr.To(true)}).patch(s)
	if err != nil {
		t.Fatal(err)
	}
	// The reason that another tool has written stays.
	if want := `{"metadata":{"resourceVersion":"4711","uid":"` + someUID + `"},"spec":{"forcedDown":true}}`; string(content) != want {
		t.Errorf("got %s, want %s", content, want)
	}
}
