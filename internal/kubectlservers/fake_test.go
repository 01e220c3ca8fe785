// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/ptr"

	ownerv1alpha1 "hoststatus.dev/hoststatus/api/owner/v1alpha1"
	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// now is the time of all tests, by a clock on the wall two hours ahead of UTC.
var now = time.Date(2026, 10, 1, 14, 0, 0, 0, time.FixedZone("CEST", 2*60*60))

// at is a time so long after now.
func at(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d).UTC()} }

// server is one of team-a on a host with a status.
func server(name string, status v1alpha1.HostStatus, reason v1alpha1.HostStatusReason, changes ...func(*tenantv1alpha1.Server)) *tenantv1alpha1.Server {
	s := &tenantv1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "team-a", Name: name, UID: types.UID(fmt.Sprintf("8f4c1f0e-5d5c-4e0b-9a56-%012x", name)), ResourceVersion: "7",
			CreationTimestamp: *at(-48 * time.Hour),
		},
		Status: tenantv1alpha1.ServerStatus{
			State: "ACTIVE", PowerState: "RUNNING", HostID: "0c1d5f", Networks: []v1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}},
			HostFields: v1alpha1.HostFields{HostStatus: &status, HostStatusReason: reason, HostStatusTransitionTime: at(-5 * time.Minute), HostReporting: v1alpha1.HostReportingTrue},
		},
	}
	typed(s)
	for _, change := range changes {
		change(s)
	}
	return s
}

// hidden takes the host fields away, as the view does where they are not granted.
func hidden(s *tenantv1alpha1.Server) { s.Status.HostFields = v1alpha1.HostFields{} }

func silent(s *tenantv1alpha1.Server) { s.Status.HostReporting = v1alpha1.HostReportingFalse }

// announced gives the server a window in two hours, which can be put off by one day.
func announced(changes ...func(*v1alpha1.AnnouncedWindow)) func(*tenantv1alpha1.Server) {
	return func(s *tenantv1alpha1.Server) {
		w := &v1alpha1.AnnouncedWindow{
			StartTime: at(2 * time.Hour), OpensAt: at(2 * time.Hour), LatestStartTime: at(26 * time.Hour), EndTime: at(30 * time.Hour),
			Category: v1alpha1.CategoryHardware, Impact: v1alpha1.ImpactReboot, Answer: v1alpha1.AnswerStateNone,
		}
		for _, change := range changes {
			change(w)
		}
		s.Status.MaintenanceWindow = w
	}
}

func state(a v1alpha1.AnswerState) func(*v1alpha1.AnnouncedWindow) {
	return func(w *v1alpha1.AnnouncedWindow) { w.Answer = a }
}

// answerOf is an answer to the window in two hours.
func answerOf(name string, answer ownerv1alpha1.Answer, notBefore *metav1.Time) *ownerv1alpha1.MaintenanceAnswer {
	a := &ownerv1alpha1.MaintenanceAnswer{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: name, UID: types.UID("a-" + name), ResourceVersion: "3"},
		Spec:       ownerv1alpha1.MaintenanceAnswerSpec{Answer: answer, NotBefore: notBefore, WindowStartTime: at(2 * time.Hour)},
	}
	a.SetGroupVersionKind(ownerv1alpha1.SchemeGroupVersion.WithKind("MaintenanceAnswer"))
	return a
}

// api answers like an API server with the owners' view.
type api struct {
	servers []*tenantv1alpha1.Server
	answers map[string]*ownerv1alpha1.MaintenanceAnswer
	// grant is what the caller may see: rights are asked for, and the view is as it is.
	grant Grant
	// lacks are rights that the caller does not have, as verb/resource.
	lacks []string
	// other answers other requests, and returns whether it did.
	other func(w http.ResponseWriter, r *http.Request) bool
	// out is what the plugin prints to, if it is set.
	out io.Writer
	// interrupt is Ctrl-C, while the plugin runs.
	interrupt func()

	mu    sync.Mutex
	asked []string
}

const (
	viewPath    = "/apis/tenant.hoststatus.dev/v1alpha1/"
	answersPath = "/apis/owner.hoststatus.dev/v1alpha1/namespaces/team-a/maintenanceanswers"
	reviewPath  = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
)

func newAPI(servers ...*tenantv1alpha1.Server) *api {
	return &api{servers: servers, answers: map[string]*ownerv1alpha1.MaintenanceAnswer{}, grant: GrantAll}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.Method+" "+r.URL.Path)
	if a.other != nil && a.other(w, r) {
		return
	}
	name, named := strings.CutPrefix(r.URL.Path, answersPath+"/")
	switch {
	case r.URL.Path == reviewPath:
		a.review(w, r)
	case strings.HasPrefix(r.URL.Path, viewPath):
		a.view(w, r)
	case named || r.URL.Path == answersPath:
		a.serveAnswer(w, r, name)
	default:
		http.NotFound(w, r)
	}
}

// review answers a question about a right.
func (a *api) review(w http.ResponseWriter, r *http.Request) {
	review := &authorizationv1.SelfSubjectAccessReview{}
	known := runtime.NewScheme()
	_ = authorizationv1.AddToScheme(known)
	body, _ := io.ReadAll(r.Body)
	// Kinds of Kubernetes come as protobuf.
	if _, _, err := serializer.NewCodecFactory(known).UniversalDeserializer().Decode(body, nil, review); err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	review.SetGroupVersionKind(authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"))
	allowed := map[string]Grant{tenantv1alpha1.SubresourceStatus: GrantAll, tenantv1alpha1.SubresourceUnknownStatus: GrantWhileUnknown}
	review.Status.Allowed = allowed[review.Spec.ResourceAttributes.Subresource] == a.grant
	answer(w, http.StatusCreated, review)
}

func (a *api) forbids(w http.ResponseWriter, verb, resource string) bool {
	if !slices.Contains(a.lacks, verb+"/"+resource) {
		return false
	}
	refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf("%s is forbidden: User \"ana\" cannot %s resource %q in API group", resource, verb, resource))
	return true
}

// view serves the owners' view.
func (a *api) view(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.TrimPrefix(r.URL.Path, viewPath), "/")
	if path[len(path)-1] != servers {
		if a.forbids(w, "get", servers) {
			return
		}
		for _, s := range a.servers {
			if s.Name == path[len(path)-1] {
				answer(w, http.StatusOK, s)
				return
			}
		}
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
		return
	}
	if a.forbids(w, "list", servers) {
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "as=Table") {
		answer(w, http.StatusOK, a.table())
		return
	}
	list := &tenantv1alpha1.ServerList{}
	list.SetGroupVersionKind(tenantv1alpha1.SchemeGroupVersion.WithKind("ServerList"))
	for _, s := range a.servers {
		list.Items = append(list.Items, *s)
	}
	answer(w, http.StatusOK, list)
}

// table has the columns of the view that the caller may see.
func (a *api) table() *metav1.Table {
	names := []string{"Name", "Status", "Task State", "Power State", "Networks", "Host Status", "Age", "Since", "Reason", "ID", "Host ID"}
	host := []string{"Host Status", "Since", "Reason"}
	table := &metav1.Table{TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}}
	shown := func(column string) bool { return a.grant != GrantNone || !slices.Contains(host, column) }
	for _, name := range names {
		if shown(name) {
			table.ColumnDefinitions = append(table.ColumnDefinitions, metav1.TableColumnDefinition{Name: name, Type: "string"})
		}
	}
	for _, s := range a.servers {
		status, reason, since := "", "", ""
		if s.Status.HostStatusReason != "" {
			status, reason, since = cmp.Or(string(ptr.Deref(s.Status.HostStatus, "")), "-"), string(s.Status.HostStatusReason), "5m"
		}
		cells := map[string]string{
			"Name": s.Name, "Status": string(s.Status.State), "Task State": s.Status.TaskState, "Power State": string(s.Status.PowerState),
			"Networks": networks(s.Status.Networks), "Host Status": status, "Age": "2d", "Since": since, "Reason": reason, "ID": string(s.UID), "Host ID": s.Status.HostID,
		}
		row := metav1.TableRow{}
		for _, name := range names {
			if shown(name) {
				row.Cells = append(row.Cells, cells[name])
			}
		}
		raw, _ := json.Marshal(metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}})
		row.Object = runtime.RawExtension{Raw: raw}
		table.Rows = append(table.Rows, row)
	}
	return table
}

// serveAnswer keeps answers, and refuses a write that is not of the present version.
func (a *api) serveAnswer(w http.ResponseWriter, r *http.Request, name string) {
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodDelete: "delete"}[r.Method]
	if a.forbids(w, verb, answers) {
		return
	}
	written := &ownerv1alpha1.MaintenanceAnswer{}
	if verb == "create" || verb == "update" {
		_ = json.NewDecoder(r.Body).Decode(written)
		name = written.Name
	}
	present := a.answers[name]
	switch {
	case verb == "create" && present != nil:
		refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists, "already exists")
	case verb != "create" && present == nil:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
	case verb == "update" && written.ResourceVersion != present.ResourceVersion:
		refuse(w, http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified")
	case verb == "get":
		answer(w, http.StatusOK, present)
	case verb == "delete":
		delete(a.answers, name)
		answer(w, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
	default:
		version := 0
		if present != nil {
			version, _ = strconv.Atoi(present.ResourceVersion)
		}
		written.ResourceVersion = strconv.Itoa(version + 1)
		if r.URL.Query().Get("dryRun") == "" {
			a.answers[name] = written
		}
		answer(w, http.StatusOK, written)
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string) {
	answer(w, int(code), metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code, Reason: reason,
		Message: message, Details: &metav1.StatusDetails{},
	})
}

// run runs the plugin against a, at a terminal of the given width; 0 is a pipe.
func (a *api) run(t *testing.T, width int, args ...string) (out, complaints string, code int) {
	t.Helper()
	served := httptest.NewServer(a)
	defer served.Close()
	streams, _, o, e := genericiooptions.NewTestIOStreams()
	if a.out != nil {
		streams.Out = a.out
	}
	// The namespace is that of the kubeconfig, as an owner sets it once.
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{apiVersion: v1, kind: Config, current-context: "", contexts: [{name: "", context: {namespace: team-a}}]}`
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--server=" + served.URL, "--kubeconfig=" + kubeconfig}
	if args[0] == "__complete" { // What is completed comes last.
		args = slices.Concat(args[:1], flags, args[1:])
	} else {
		args = append(args, flags...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // Some verbs run until Ctrl-C.
	defer cancel()
	a.interrupt = cancel
	code = Run(ctx, Environment{
		IOStreams: streams, OutTerminal: width > 0, Width: func() int { return width }, Now: func() time.Time { return now },
		Getenv: func(name string) string { return map[string]string{"NO_COLOR": "1"}[name] },
	}, args)
	return o.String(), strings.ReplaceAll(e.String(), served.URL, "https://10.0.0.1:6443"), code
}
