// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"

	"hoststatus.dev/hoststatus/internal/version"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

const managerUser = "system:serviceaccount:hoststatus-system:hoststatus-manager"

// auditPolicy lets kube-apiserver note what our identities ask for, and nobody else.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: [` + managerUser + `, ` + fleet.TenantAPIUser + `]
- level: Metadata
  userGroups: ["system:hoststatus:hosts"]
- level: None
`

// auditLog is what kube-apiserver has noted of our identities' requests.
type auditLog struct{ policy, path string }

var audit *auditLog

func newAuditLog(dir string) (*auditLog, error) {
	a := &auditLog{policy: filepath.Join(dir, "audit-policy.yaml"), path: filepath.Join(dir, "audit.log")}
	return a, os.WriteFile(a.policy, []byte(auditPolicy), 0o644)
}

func (a *auditLog) apiServerArgs() []string {
	return []string{"--audit-policy-file=" + a.policy, "--audit-log-path=" + a.path, "--audit-log-maxsize=1024"}
}

// asked is a request of one of our processes.
type asked struct {
	user, verb, path string
}

// read returns what is noted of processes whose name for themselves begins with
// program. The tests try things as the same users, under another name.
func (a *auditLog) read(program string) (*auditRecord, error) {
	f, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r := &auditRecord{groups: map[string][]string{}, programs: map[string]string{}}
	granted, refused := map[asked]bool{}, map[asked]bool{}
	decoder := json.NewDecoder(f)
	for {
		var e auditv1.Event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break // The last line may be in the middle of being written.
		} else if err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		if !strings.HasPrefix(e.UserAgent, program) {
			continue
		}
		path, _, _ := strings.Cut(e.RequestURI, "?")
		request := asked{e.User.Username, e.Verb, path}
		if e.Verb == "list" || e.Verb == "watch" {
			// A reflector asks for both in one, and falls back to one after the other.
			request.verb = "list or watch"
		}
		r.groups[e.User.Username] = e.User.Groups
		r.programs[e.User.Username] = e.UserAgent
		switch {
		case e.Annotations["authorization.k8s.io/decision"] != "allow":
			refused[request] = true
		case e.ResponseStatus != nil && e.ResponseStatus.Code == http.StatusForbidden:
			r.denied = append(r.denied, request)
		default:
			granted[request] = true
		}
	}
	for request := range refused {
		if !granted[request] {
			r.refused = append(r.refused, request)
		}
	}
	return r, nil
}

// auditRecord is what became of requests.
type auditRecord struct {
	// groups are those of each user that has asked for anything, and programs what
	// its program calls itself.
	groups   map[string][]string
	programs map[string]string
	// refused are requests that RBAC has refused, and never granted: a new role, and
	// an API server that has just started, take a moment.
	refused []asked
	// denied are requests that RBAC has granted and admission has refused.
	denied []asked
}

// complaints are what our processes have asked for in vain.
func (r *auditRecord) complaints() (out []string) {
	for _, request := range r.refused {
		out = append(out, fmt.Sprintf("RBAC refuses %s to %s %s", request.user, request.verb, request.path))
	}
	for _, request := range r.denied {
		out = append(out, fmt.Sprintf("admission refuses %s to %s %s", request.user, request.verb, request.path))
	}
	slices.Sort(out)
	return out
}

// checkRights checks that each process of the fleet runs under the shipped rights of
// its own identity, and that these have sufficed for everything until now.
func checkRights(t *testing.T) {
	t.Helper()
	r, err := audit.read("hoststatus-")
	expect.NoError(t, err)
	for _, complaint := range r.complaints() {
		t.Error(complaint)
	}
	account := append([]string{"system:authenticated"}, fleet.TenantAPIGroups...)
	want := map[string]struct {
		program string
		groups  []string
	}{
		managerUser:         {"manager", account},
		fleet.TenantAPIUser: {"tenant-apiserver", account},
	}
	for _, host := range fleet.Hosts {
		want["system:hoststatus:host:"+host] = struct {
			program string
			groups  []string
		}{"agent", []string{"system:authenticated", "system:hoststatus:hosts"}}
	}
	for user, w := range want {
		slices.Sort(w.groups)
		groups := slices.Sorted(slices.Values(r.groups[user]))
		if !slices.Equal(groups, w.groups) {
			t.Errorf("%s is in the groups %q, want %q", user, groups, w.groups)
		}
		if got, want := r.programs[user], "hoststatus-"+w.program+"/"+version.Version; got != want {
			t.Errorf("the program of %s calls itself %q, want %q", user, got, want)
		}
		delete(r.groups, user)
	}
	for user := range r.groups {
		t.Errorf("a process of ours runs as %s", user)
	}
}

// What the audit log says of our processes is worth something only if it says the
// same of one that asks for too much.
func TestTheAuditLogTellsOfAProcessThatAsksForTooMuch(t *testing.T) {
	config, err := system.Cluster.ConfigFor(managerUser, fleet.TenantAPIGroups...)
	expect.NoError(t, err)
	config.UserAgent = "greedy"
	greedy, err := kubernetes.NewForConfig(config)
	expect.NoError(t, err)
	if answer := greedy.RESTClient().Get().AbsPath("/api/v1/secrets").Do(t.Context()); answer.Error() == nil {
		t.Fatal("the manager reads all Secrets")
	}
	expect.Eventually(t, patience, func() error {
		r, err := audit.read("greedy")
		if err != nil {
			return err
		}
		want := []string{"RBAC refuses " + managerUser + " to list or watch /api/v1/secrets"}
		if got := r.complaints(); !slices.Equal(got, want) {
			return fmt.Errorf("the audit log complains of %q, want %q", got, want)
		}
		return nil
	})
}
