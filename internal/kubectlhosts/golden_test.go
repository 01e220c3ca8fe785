// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden files")

// session is what somebody types, and what is printed, by the clock of now.
type session struct {
	*api
	servers []v1alpha1.Server
	answers []ownerv1alpha1.MaintenanceAnswer
	// refuses are hosts that the API server does not let be changed.
	refuses map[string]bool
	// typed are the answers of a person at a terminal; nil for no terminal.
	typed []string

	transcript bytes.Buffer
}

// newSession has hosts that are written to.
func newSession(hosts ...*v1alpha1.ComputeService) *session {
	s := &session{api: newAPI(hosts...), refuses: map[string]bool{}}
	s.other = s.serve
	return s
}

func (s *session) serve(w http.ResponseWriter, r *http.Request) bool {
	host, isHost := strings.CutPrefix(r.URL.Path, hostsPath+"/")
	namespace, isAnswers := strings.CutPrefix(r.URL.Path, "/apis/owner.hoststatus.dev/v1alpha1/namespaces/")
	switch {
	case isHost && r.Method == http.MethodPatch:
		s.patch(w, r, host)
	case strings.Contains(r.URL.Path, "/leases/compute-"):
		lease := canaryOf(now.Add(-4 * time.Second))
		lease.Spec.HolderIdentity = ptr.To(filepath.Base(r.URL.Path))
		answer(w, http.StatusOK, lease)
	case r.URL.Path == serversPath && strings.Contains(r.Header.Get("Accept"), "as=Table"):
		table := metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{{Name: "Name"}, {Name: "Host"}}}
		for i := range s.servers {
			table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{s.servers[i].Name, s.servers[i].Spec.Host}})
		}
		answer(w, http.StatusOK, table)
	case r.URL.Path == serversPath:
		list := v1alpha1.ServerList{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "ServerList"}, Items: []v1alpha1.Server{}}
		for _, server := range s.servers {
			if r.URL.Query().Get("fieldSelector") == "spec.host="+server.Spec.Host {
				list.Items = append(list.Items, server)
			}
		}
		answer(w, http.StatusOK, list)
	case isAnswers && s.answers == nil:
		message := `maintenanceanswers.owner.hoststatus.dev is forbidden: User "vera" cannot list resource "maintenanceanswers" in API group "owner.hoststatus.dev"`
		answer(w, http.StatusForbidden, metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: message,
		})
	case isAnswers:
		list := ownerv1alpha1.MaintenanceAnswerList{TypeMeta: metav1.TypeMeta{APIVersion: ownerv1alpha1.SchemeGroupVersion.String(), Kind: "MaintenanceAnswerList"}}
		for _, a := range s.answers {
			if namespace == a.Namespace+"/maintenanceanswers" {
				list.Items = append(list.Items, a)
			}
		}
		answer(w, http.StatusOK, list)
	default:
		return false
	}
	return true
}

// patch changes a host, unless it is a dry run.
func (s *session) patch(w http.ResponseWriter, r *http.Request, host string) {
	s.state.Lock()
	defer s.state.Unlock()
	i := slices.IndexFunc(s.hosts, func(h v1alpha1.ComputeService) bool { return h.Name == host })
	var patch map[string]any
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || i < 0 {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	if s.refuses[host] {
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
		return
	}
	before, _ := json.Marshal(s.hosts[i])
	var object map[string]any
	_ = json.Unmarshal(before, &object)
	merge(object, patch)
	after, _ := json.Marshal(object)
	changed := v1alpha1.ComputeService{}
	_ = json.Unmarshal(after, &changed)
	if r.URL.Query().Get("dryRun") == "" {
		s.hosts[i] = changed
	}
	answer(w, http.StatusOK, changed)
}

// merge applies a JSON merge patch.
func merge(object, patch map[string]any) {
	for key, value := range patch {
		inner, ok := value.(map[string]any)
		switch at, there := object[key].(map[string]any); {
		case value == nil:
			delete(object, key)
		case ok && there:
			merge(at, inner)
		default:
			object[key] = value
		}
	}
}

// window returns the window of a host as it is stored.
func (s *session) window(name string) *v1alpha1.MaintenanceWindow {
	return s.hosts[slices.IndexFunc(s.hosts, func(h v1alpha1.ComputeService) bool { return h.Name == name })].Spec.MaintenanceWindow
}

// run runs a command, and returns its exit code.
func (s *session) run(t *testing.T, args ...string) int {
	t.Helper()
	server := httptest.NewServer(s.api)
	defer server.Close()
	streams, in, out, complaints := genericiooptions.NewTestIOStreams()
	in.WriteString(strings.Join(s.typed, "\n") + "\n")
	code := Run(t.Context(), Environment{
		IOStreams: streams, InTerminal: s.typed != nil, OutTerminal: s.typed != nil, Now: func() time.Time { return now },
		Getenv: func(name string) string { return map[string]string{"NO_COLOR": "1"}[name] }, ManagerPatience: time.Millisecond,
	}, append(slices.Clone(args), "--server="+server.URL, "--kubeconfig=/dev/null"))
	s.transcript.WriteString("$ kubectl hosts")
	for _, arg := range args {
		if arg == "" || strings.ContainsAny(arg, " '{}*") {
			arg = "'" + arg + "'"
		}
		s.transcript.WriteString(" " + arg)
	}
	s.transcript.WriteString("\n" + out.String())
	for line := range strings.Lines(complaints.String()) {
		s.transcript.WriteString("2> " + strings.TrimSuffix(line, "\n") + "\n")
	}
	if code != ExitOK {
		_, _ = fmt.Fprintf(&s.transcript, "[exit code %d]\n", code)
	}
	s.transcript.WriteString("\n")
	return code
}

// golden compares what was printed with the file of the test's name.
func (s *session) golden(t *testing.T) {
	t.Helper()
	path := filepath.Join("testdata", t.Name()+".golden")
	if *update {
		if err := os.WriteFile(path, s.transcript.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if diff := cmp.Diff(string(want), s.transcript.String()); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it):\n%s", path, diff)
	}
}
