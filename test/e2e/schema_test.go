// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// Each rule of the schema, with something that it accepts and something that it
// refuses, and what the refusal says.
func TestBadInputIsRefusedByNameWithWhatToDo(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	longName := strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 62)+".", 4), ".")
	for _, test := range []struct {
		name string
		kind string
		// object is what follows apiVersion, kind and metadata.
		object string
		// refused lists what the message must contain; empty means accepted.
		refused []string
	}{
		{"an empty spec", "ComputeService", `spec: {}`, nil},
		{"no spec", "ComputeService", ``, nil},
		{"a flag of the wrong type", "ComputeService", `spec: {disabled: "yes"}`, []string{"spec.disabled", "boolean"}},
		{"an unknown field", "ComputeService", `spec: {disabledd: true}`, []string{`unknown field "spec.disabledd"`}},
		{"the shortest lease duration", "ComputeService", `spec: {leaseDurationSeconds: 3}`, nil},
		{"the longest lease duration", "ComputeService", `spec: {leaseDurationSeconds: 3600}`, nil},
		{"lease duration 0", "ComputeService", `spec: {leaseDurationSeconds: 0}`, []string{"spec.leaseDurationSeconds", "greater than or equal to 3"}},
		{"lease duration -1", "ComputeService", `spec: {leaseDurationSeconds: -1}`, []string{"spec.leaseDurationSeconds", "greater than or equal to 3"}},
		{"lease duration 4000", "ComputeService", `spec: {leaseDurationSeconds: 4000}`, []string{"spec.leaseDurationSeconds", "less than or equal to 3600"}},
		{"a reason of 256 characters", "ComputeService", `spec: {disabledReason: ` + long[:256] + `}`, nil},
		{"a reason of 10,000 characters", "ComputeService", `spec: {disabledReason: ` + long + `}`, []string{"spec.disabledReason", "256"}},
		{"another reason of 10,000 characters, which is cut", "ComputeService", `spec: {forcedDownReason: ` + long + `}`, nil},
		{"a reason in other scripts", "ComputeService", `spec: {disabledReason: "Wartung 東京 ремонт 👩\u200d🔧"}`, nil},
		{"a reason with a bell", "ComputeService", `spec: {disabledReason: "a\u0007b"}`, []string{"spec.disabledReason", "one line of text"}},
		{"a reason with a line feed", "ComputeService", `spec: {disabledReason: "a\nb"}`, []string{"spec.disabledReason", "one line of text"}},
		{"a reason with a C1", "ComputeService", `spec: {disabledReason: "a\u009bb"}`, []string{"spec.disabledReason", "one line of text"}},
		{"a window for a reason with DEL", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", reason: "a\u007fb"}}`, []string{"spec.maintenanceWindow.reason", "one line of text"}},
		{"a window for a reason that turns round", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", reason: "a\u202eb"}}`, []string{"spec.maintenanceWindow.reason", "one line of text"}},
		{"a window without an end", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z"}}`, nil},
		{"a window", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", endTime: "2030-01-01T00:00:01Z"}}`, nil},
		{"a window that ends before it starts", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", endTime: "2029-01-01T00:00:00Z"}}`, []string{"spec.maintenanceWindow.endTime", "after startTime"}},
		{"a window that ends as it starts", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", endTime: "2030-01-01T00:00:00Z"}}`, []string{"spec.maintenanceWindow.endTime", "after startTime"}},
		{"a window with an end alone", "ComputeService", `spec: {maintenanceWindow: {endTime: "2029-01-01T00:00:00Z"}}`, []string{"spec.maintenanceWindow.startTime", "must be given where endTime is"}},
		{"a window at a time that is not known yet", "ComputeService", `spec: {maintenanceWindow: {reason: new disks}}`, nil},
		{"a window without anything", "ComputeService", `spec: {maintenanceWindow: {}}`, []string{"spec.maintenanceWindow", "at least 1 properties"}},
		{"a window at no time", "ComputeService", `spec: {maintenanceWindow: {startTime: tomorrow}}`, []string{"spec.maintenanceWindow.startTime", "date-time"}},
		{"a window in the first second", "ComputeService", `spec: {maintenanceWindow: {startTime: "1970-01-01T00:00:00Z"}}`, nil},
		{"a window until the last second", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00.5+02:00", endTime: "9999-12-31T23:59:59Z"}}`, nil},
		{"a window with a lower-case t", "ComputeService", `spec: {maintenanceWindow: {startTime: "2026-12-01t22:00:00Z"}}`, []string{"spec.maintenanceWindow.startTime", "2026-12-01t22:00:00Z"}},
		{"a window with a lower-case z", "ComputeService", `spec: {maintenanceWindow: {startTime: "2026-12-01T22:00:00z"}}`, []string{"spec.maintenanceWindow.startTime", "2026-12-01T22:00:00z"}},
		{"a window with something behind it", "ComputeService", `spec: {maintenanceWindow: {startTime: "2026-12-01T22:00:00Ztx"}}`, []string{"spec.maintenanceWindow.startTime", "2026-12-01T22:00:00Ztx"}},
		{"a window that ends with a lower-case z", "ComputeService", `spec: {maintenanceWindow: {startTime: "2026-12-01T22:00:00Z", endTime: "2026-12-02T22:00:00z"}}`, []string{"spec.maintenanceWindow.endTime", "2026-12-02T22:00:00z"}},
		{"a window in the year 1", "ComputeService", `spec: {maintenanceWindow: {startTime: "0001-01-01T00:00:00Z"}}`, []string{"spec.maintenanceWindow.startTime", "from 1970 to 9999"}},
		{"a window until the year 10000 in UTC", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", endTime: "9999-12-31T23:59:59-05:00"}}`, []string{"spec.maintenanceWindow.endTime", "from 1970 to 9999"}},
		{"a window that owners may put off", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", latestStartTime: "2030-01-01T06:00:00Z", endTime: "2030-01-01T08:00:00Z", openWhenReady: true, category: Hardware, impact: Reboot}}`, nil},
		{"a latest time at the start", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", latestStartTime: "2030-01-01T00:00:00Z"}}`, nil},
		{"a latest time before the start", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", latestStartTime: "2029-01-01T00:00:00Z"}}`, []string{"spec.maintenanceWindow.latestStartTime", "must not be before startTime"}},
		{"a latest time at the end", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", latestStartTime: "2030-01-01T08:00:00Z", endTime: "2030-01-01T08:00:00Z"}}`, []string{"spec.maintenanceWindow.latestStartTime", "before endTime"}},
		{"a latest time without a start", "ComputeService", `spec: {maintenanceWindow: {latestStartTime: "2030-01-01T00:00:00Z"}}`, []string{"spec.maintenanceWindow.startTime", "must be given where latestStartTime is"}},
		{"a latest time that no client can read", "ComputeService", `spec: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", latestStartTime: "2030-01-01T06:00:00z"}}`, []string{"spec.maintenanceWindow.latestStartTime", "2030-01-01T06:00:00z"}},
		{"a category that is none", "ComputeService", `spec: {maintenanceWindow: {category: Recall}}`, []string{"spec.maintenanceWindow.category", "Unsupported value"}},
		{"an impact that is none", "ComputeService", `spec: {maintenanceWindow: {impact: Bad}}`, []string{"spec.maintenanceWindow.impact", "Unsupported value"}},
		{"counts of answers", "ComputeService/status", `status: {maintenance: {startTime: "2030-01-01T00:00:00Z", opensAt: "2030-01-01T00:00:00Z", servers: 3, ready: 1, putOff: 0}}`, nil},
		{"a count below 0", "ComputeService/status", `status: {maintenance: {servers: 3, ready: -1, putOff: 0}}`, []string{"status.maintenance.ready", "greater than or equal to 0"}},
		{"an opening that no client can read", "ComputeService/status", `status: {maintenance: {opensAt: "2030-01-01T00:00:00z", servers: 3, ready: 1, putOff: 0}}`, []string{"status.maintenance.opensAt", "2030-01-01T00:00:00z"}},

		{"ready", "MaintenanceAnswer", `spec: {answer: Ready, windowStartTime: "2030-01-01T00:00:00Z"}`, nil},
		{"ready for one server", "MaintenanceAnswer", `spec: {answer: Ready, windowStartTime: "2030-01-01T00:00:00Z", serverUID: 6ba7b810-9dad-11d1-80b4-00c04fd430c8}`, nil},
		{"not before a time", "MaintenanceAnswer", `spec: {answer: NotBefore, notBefore: "2030-01-01T04:00:00Z", windowStartTime: "2030-01-01T00:00:00Z"}`, nil},
		{"not before no time", "MaintenanceAnswer", `spec: {answer: NotBefore, windowStartTime: "2030-01-01T00:00:00Z"}`, []string{"spec.notBefore", "must be given with answer NotBefore"}},
		{"ready not before a time", "MaintenanceAnswer", `spec: {answer: Ready, notBefore: "2030-01-01T04:00:00Z", windowStartTime: "2030-01-01T00:00:00Z"}`, []string{"spec.notBefore", "with no other answer"}},
		{"an answer to no window", "MaintenanceAnswer", `spec: {answer: Ready}`, []string{"spec.windowStartTime", "Required value"}},
		{"an answer without a word", "MaintenanceAnswer", `spec: {windowStartTime: "2030-01-01T00:00:00Z"}`, []string{"spec.answer", "Required value"}},
		{"an answer that is none", "MaintenanceAnswer", `spec: {answer: Never, windowStartTime: "2030-01-01T00:00:00Z"}`, []string{"spec.answer", "Unsupported value"}},
		{"no answer", "MaintenanceAnswer", ``, []string{"spec", "Required value"}},
		{"a window that no client can read", "MaintenanceAnswer", `spec: {answer: Ready, windowStartTime: "2030-01-01t00:00:00Z"}`, []string{"spec.windowStartTime", "2030-01-01t00:00:00Z"}},
		{"a time that no client can read", "MaintenanceAnswer", `spec: {answer: NotBefore, notBefore: "2030-01-01T00:00:00z", windowStartTime: "2030-01-01T00:00:00Z"}`, []string{"spec.notBefore", "2030-01-01T00:00:00z"}},
		{"a uid of 10,000 characters", "MaintenanceAnswer", `spec: {answer: Ready, windowStartTime: "2030-01-01T00:00:00Z", serverUID: ` + long + `}`, []string{"spec.serverUID", "64"}},

		{"a kubelet's lease", "ComputeService", `spec: {leaseRef: {namespace: kube-node-lease, name: node-1.example.org}}`, nil},
		{"a lease reference to nothing", "ComputeService", `spec: {leaseRef: {}}`, []string{"spec.leaseRef"}},
		{"a lease in no possible namespace", "ComputeService", `spec: {leaseRef: {namespace: Not_A_Namespace}}`, []string{"spec.leaseRef.namespace", "lower-case"}},
		{"a lease with no possible name", "ComputeService", `spec: {leaseRef: {name: "not a name"}}`, []string{"spec.leaseRef.name", "lower-case"}},
		{"the canary for a lease", "ComputeService", `spec: {leaseRef: {name: hoststatus-canary}}`, []string{"spec.leaseRef.name", "manager's own Leases"}},
		{"the leader's lease", "ComputeService", `spec: {leaseRef: {name: hoststatus-manager}}`, []string{"spec.leaseRef.name", "manager's own Leases"}},
		{"the canary for a host", "ComputeService/hoststatus-canary", `spec: {}`, []string{"metadata.name", "manager's own Leases"}},
		{"a host with a name of 251 characters", "ComputeService/" + longName, `spec: {}`, nil},

		{"a server on no host", "Server", `spec: {}`, nil},
		{"a server on an empty host", "Server", `spec: {host: ""}`, nil},
		{"a server on a host", "Server", `spec: {host: ` + longName + `, providerID: "openstack:///1"}`, nil},
		{"a host that no host can be", "Server", `spec: {host: "Not A Host"}`, []string{"spec.host", "lower-case"}},
		{"a host name of 10,000 characters", "Server", `spec: {host: ` + long + `}`, []string{"spec.host", "253"}},
		{"a provider ID with an escape", "Server", `spec: {providerID: "a\u001b[31m"}`, []string{"spec.providerID", "one line of text"}},
		{"a network with a C1", "Server/status", `status: {networks: [{name: "a\u009bb"}]}`, []string{"status.networks[0].name", "one line of text"}},
		{"a network with an isolate", "Server/status", `status: {networks: [{name: "a\u2066b"}]}`, []string{"status.networks[0].name", "one line of text"}},
		{"a task state with a bell", "Server/status", `status: {taskState: "a\u0007b"}`, []string{"status.taskState", "one word"}},
		{"a host of the wrong type", "Server", `spec: {host: 5}`, []string{"spec.host", "string"}},
		{"a provider ID of 10,000 characters", "Server", `spec: {providerID: ` + long + `}`, []string{"spec.providerID", "512"}},
		{"an unknown field", "Server", `spec: {hostname: a}`, []string{`unknown field "spec.hostname"`}},

		{"a reported status", "Server/status", `status: {state: ACTIVE, taskState: image_snapshot, powerState: RUNNING, networks: [{name: a, addresses: [10.0.0.1, "fd00::1"]}, {name: b}]}`, nil},
		{"a state that is none", "Server/status", `status: {state: RUNNINGG}`, []string{"status.state", "Unsupported value"}},
		{"a power state that is none", "Server/status", `status: {powerState: "on"}`, []string{"status.powerState", "Unsupported value"}},
		{"a task state of several words", "Server/status", `status: {taskState: "powering off"}`, []string{"status.taskState", "one word"}},
		{"an address that is none", "Server/status", `status: {networks: [{name: a, addresses: [10.0.0.0/8]}]}`, []string{"status.networks[0].addresses[0]", "without a prefix length"}},
		{"one network twice", "Server/status", `status: {networks: [{name: a}, {name: a}]}`, []string{"status.networks[1]", "Duplicate value"}},
		{"10,000 networks", "Server/status", `status: {networks: [` + networks(10_000) + `]}`, []string{"status.networks", "at most 32"}},
		{"a host status that is none", "Server/status", `status: {hostStatus: UPP}`, []string{"status.hostStatus", "Unsupported value"}},
		{"times", "Server/status", `status: {hostStatusTransitionTime: "2030-01-01T00:00:00Z", maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", endTime: "2030-01-02T00:00:00Z"}}`, nil},
		{"a transition that no client can read", "Server/status", `status: {hostStatusTransitionTime: "2030-01-01t00:00:00Z"}`, []string{"status.hostStatusTransitionTime", "2030-01-01t00:00:00Z"}},
		{"a window that no client can read", "Server/status", `status: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", endTime: "2030-01-02T00:00:00Ztx"}}`, []string{"status.maintenanceWindow.endTime", "2030-01-02T00:00:00Ztx"}},
		{"a window in the year 1", "Server/status", `status: {maintenanceWindow: {startTime: "0001-01-01T00:00:00Z"}}`, []string{"status.maintenanceWindow.startTime", "from 1970 to 9999"}},
		{"a transition that no client can read", "ComputeService/status", `status: {hostStatusTransitionTime: "2030-01-01T00:00:00z"}`, []string{"status.hostStatusTransitionTime", "2030-01-01T00:00:00z"}},
		{"a last renewal that no client can read", "ComputeService/status", `status: {lastSeenUpTime: "2030-01-01T00:00:00Ztx"}`, []string{"status.lastSeenUpTime", "2030-01-01T00:00:00Ztx"}},
		{"a condition", "ComputeService/status", `status: {conditions: [` + condition("2030-01-01T00:00:00Z") + `]}`, nil},
		{"a condition that no client can read", "ComputeService/status", `status: {conditions: [` + condition("2030-01-01T00:00:00z") + `]}`, []string{"status.conditions", "2030-01-01T00:00:00z"}},
		{"a condition of the year 1", "ComputeService/status", `status: {conditions: [` + condition("0001-01-01T00:00:00Z") + `]}`, []string{"status.conditions", "lastTransitionTime must", "from 1970 to 9999"}},
		{"what owners may know of a window", "Server/status", `status: {maintenanceWindow: {startTime: "2030-01-01T00:00:00Z", opensAt: "2030-01-01T01:00:00Z", latestStartTime: "2030-01-01T06:00:00Z", category: Other, impact: None, answer: Stale}}`, nil},
		{"an answer that is none", "Server/status", `status: {maintenanceWindow: {answer: Perhaps}}`, []string{"status.maintenanceWindow.answer", "Unsupported value"}},
		{"a history", "Server/status", `status: {hostHistory: [{hostStatus: "", reason: NoHost, since: "2030-01-01T00:00:00Z"}, {since: "2030-01-01T00:00:00Z"}]}`, nil},
		{"a history of nine", "Server/status", `status: {hostHistory: [` + strings.Repeat(`{since: "2030-01-01T00:00:00Z"},`, 9) + `]}`, []string{"status.hostHistory", "at most 8"}},
		{"a change at no time", "Server/status", `status: {hostHistory: [{hostStatus: UP}]}`, []string{"status.hostHistory[0].since", "Required value"}},
		{"a change that no client can read", "Server/status", `status: {hostHistory: [{since: "2030-01-01t00:00:00Z"}]}`, []string{"status.hostHistory[0].since", "2030-01-01t00:00:00Z"}},
		{"a reason that is none", "Server/status", `status: {hostStatusReason: BecauseOfHost1}`, []string{"status.hostStatusReason", "Unsupported value"}},
	} {
		t.Run(test.kind[:6]+": "+test.name, func(t *testing.T) {
			err := submit(t, test.kind, test.object)
			if len(test.refused) == 0 {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range test.refused {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message does not say %q: %.600s", part, err.Error())
				}
			}
		})
	}
}

// submit creates an object by strict validation, or, for kind/status, updates
// the status of one.
func submit(t *testing.T, kind, object string) error {
	t.Helper()
	kind, rest, _ := strings.Cut(kind, "/")
	name := "submitted"
	if kind == "ComputeService" && rest != "" && rest != "status" {
		name = rest
	}
	group := "compute"
	if kind == "MaintenanceAnswer" {
		group = "owner"
	}
	manifest := fmt.Sprintf("apiVersion: %s.hoststatus.dev/v1alpha1\nkind: %s\nmetadata: {name: %s, namespace: team-a}\n%s\n", group, kind, name, object)
	obj := &unstructured.Unstructured{}
	expect.NoError(t, yaml.Unmarshal([]byte(manifest), &obj.Object))
	if kind == "ComputeService" {
		obj.SetNamespace("")
	}
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(system.Client.Delete(context.Background(), obj)); err != nil {
			t.Error(err)
		}
	})
	strict := client.WithFieldValidation(system.Client, "Strict")
	if rest != "status" {
		return strict.Create(t.Context(), obj)
	}
	var existing client.Object = &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if kind == "Server" {
		existing = newServer(t, "team-a", name, "")
	} else {
		expect.NoError(t, system.Client.Create(t.Context(), existing))
	}
	obj.SetResourceVersion("")
	obj.SetUID(existing.GetUID())
	body, err := obj.MarshalJSON()
	expect.NoError(t, err)
	return strict.Status().Patch(t.Context(), existing, client.RawPatch("application/merge-patch+json", body))
}

func condition(since string) string {
	return `{type: Tested, status: "True", reason: Tested, message: "", lastTransitionTime: "` + since + `"}`
}

func networks(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("{name: n%d}", i)
	}
	return strings.Join(all, ",")
}

func write(t *testing.T, path, content string) {
	t.Helper()
	expect.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}
