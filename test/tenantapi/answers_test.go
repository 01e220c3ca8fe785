// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const answerer = "hoststatus-maintenance-answerer"

// answersPath is where the answers of a namespace are, or one of them.
func answersPath(namespace string, name ...string) string {
	return strings.Join(append([]string{"/apis/owner.hoststatus.dev/v1alpha1/namespaces/" + namespace + "/maintenanceanswers"}, name...), "/")
}

// send writes something.
func (p *person) send(t testing.TB, method, path, contentType, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, env.cluster.URL+path, strings.NewReader(body))
	expect.NoError(t, err)
	request.Header.Set("Content-Type", contentType)
	response, err := p.http.Do(request)
	expect.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	expect.NoError(t, err)
	return answer{response.StatusCode, response.Header.Values("Warning"), content}
}

// reportingHost makes a host that reports, and returns once the manager says so.
func reportingHost(t *testing.T, name string, window *computev1alpha1.MaintenanceWindow, want computev1alpha1.HostStatus) *computev1alpha1.ComputeService {
	t.Helper()
	service := &computev1alpha1.ComputeService{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       computev1alpha1.ComputeServiceSpec{LeaseDurationSeconds: computev1alpha1.MaxLeaseDurationSeconds, MaintenanceWindow: window},
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: computev1alpha1.DefaultLeaseNamespace, Name: name}}
	for _, object := range []client.Object{service, lease} {
		expect.NoError(t, env.admin.Create(t.Context(), object))
		t.Cleanup(func() { expect.NoError(t, env.admin.Delete(context.Background(), object)) })
	}
	expect.Eventually(t, patience, func() error {
		lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
		if err := env.admin.Update(t.Context(), lease); err != nil {
			return err
		}
		return hostHas(t, service, want)
	})
	return service
}

// hostHas checks the status of a host, of which it reads the present version.
func hostHas(t testing.TB, service *computev1alpha1.ComputeService, want computev1alpha1.HostStatus) error {
	expect.NoError(t, env.admin.Get(t.Context(), client.ObjectKeyFromObject(service), service))
	if got := service.Status.HostStatus; got == nil || *got != want {
		return fmt.Errorf("%s is %s, want %s", service.Name, ptr.Deref(got, "absent"), want)
	}
	return nil
}

// incidental is what differs between any two answers.
var incidental = regexp.MustCompile(`"(uid|resourceVersion|creationTimestamp|time|continue)": ?"[^"]*"|in record \([0-9]+\)`)

// Whoever may answer to maintenance and may not see host status is answered the same,
// whatever he sends, for a server whose host has a window, for one whose host has none, and
// for a name that no server has; and so is whoever reads the view, before the answers and
// after them, when the window has been put off by one and opened by another.
func TestAnAnswerTellsAnUngrantedOwnerNothing(t *testing.T) {
	namespace := newNamespace(t)
	const with, without, none = "vm-announced", "vm-undisturb", "vm-inexisten" // As long as each other: lengths are compared, too.
	names := []string{with, without, none}
	const announcedHost, plainHost = "announced-" + secretHost, "plain-" + secretHost
	asked := putServer(t, namespace, with, announcedHost)
	putServer(t, namespace, without, plainHost)
	p, granted := newPerson(t), newPerson(t)
	bind(t, p, viewer, namespace)
	bind(t, p, answerer, namespace)
	bind(t, granted, viewer, namespace)
	bind(t, granted, statusViewer, namespace)

	startManager(t)
	t.Cleanup(func() { expect.NoError(t, env.renewCanary(context.Background())) })
	at := func(d time.Duration) *metav1.Time {
		return ptr.To(metav1.NewTime(time.Now().Add(d).Truncate(time.Second)))
	}
	window := &computev1alpha1.MaintenanceWindow{
		StartTime: at(time.Hour), LatestStartTime: at(3 * time.Hour), EndTime: at(4 * time.Hour), OpenWhenReady: ptr.To(true),
		Category: computev1alpha1.CategoryHardware, Impact: computev1alpha1.ImpactReboot, Reason: ptr.To(secretHost),
	}
	announced := reportingHost(t, announcedHost, window, computev1alpha1.HostStatusNeedsMaintenance)
	reportingHost(t, plainHost, nil, computev1alpha1.HostStatusUp)

	// shown checks what an owner is shown who may see it, also from the view's cache.
	shown := func(status computev1alpha1.HostStatus, want computev1alpha1.AnswerState) func() error {
		return func() error {
			got := map[string]computev1alpha1.HostStatus{}
			for _, s := range granted.list(t, namespace, "resourceVersion=0").Items {
				got[s.Name] = ptr.Deref(s.Status.HostStatus, "absent")
				if w := s.Status.MaintenanceWindow; s.Name == with && (w == nil || w.Answer != want) {
					return fmt.Errorf("the window is %+v, want the answer %s", w, want)
				}
			}
			if got[with] != status || got[without] != computev1alpha1.HostStatusUp {
				return fmt.Errorf("host status is %v, want %s for %s", got, status, with)
			}
			return nil
		}
	}
	expect.Eventually(t, patience, shown(computev1alpha1.HostStatusNeedsMaintenance, computev1alpha1.AnswerStateNone))

	start, later := window.StartTime.UTC().Format(time.RFC3339), at(2*time.Hour).UTC().Format(time.RFC3339)
	body := func(spec string) string {
		return `{"apiVersion":"owner.hoststatus.dev/v1alpha1","kind":"MaintenanceAnswer","metadata":{"name":"NAME"},"spec":{` + spec + `}}`
	}
	ready := `"answer":"Ready","windowStartTime":"` + start + `"`
	notBefore := `"answer":"NotBefore","notBefore":"` + later + `","windowStartTime":"` + start + `"`
	const (
		jsonType, mergePatch, jsonPatch, applyPatch = "application/json", "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"
		dry                                         = "?dryRun=All"
	)
	all, one := answersPath(namespace), answersPath(namespace, "NAME")
	// view is every answer of the view that an owner can ask for.
	view := func() map[string]string {
		out := map[string]string{}
		paths := questions(namespace)
		for _, name := range names {
			paths = append(paths, pathOf(namespace, name), pathOf(namespace, name, "status"), pathOf(namespace, name)+"?resourceVersion=0", pathOf(namespace)+"?fieldSelector=metadata.name%3D"+name)
		}
		for _, path := range paths {
			for _, accept := range []string{"application/json", "application/yaml", acceptTable} {
				a := p.get(t, path, accept)
				// Versions are compared, too: what is hidden must not move them.
				out[path+" "+accept] = fmt.Sprint(a.code, a.warnings, ages.ReplaceAllString(continueToken.ReplaceAllString(string(a.body), ""), ""))
			}
		}
		for _, name := range names {
			w := p.watch(t, namespace, "fieldSelector=metadata.name%3D"+name+"&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", "")
			for range 2 {
				e := w.next(t, limit)
				out["watch of "+name] += e.Type + string(e.Object)
				if e.Type == "BOOKMARK" {
					break
				}
			}
			w.cancel()
		}
		return out
	}
	before := view()
	follows := p.watch(t, namespace, "resourceVersion="+p.list(t, namespace, "").ResourceVersion+"&allowWatchBookmarks=false", "")
	unchanged := func(when string) {
		t.Helper()
		for path, a := range view() {
			if diff := cmp.Diff(before[path], a); diff != "" {
				t.Errorf("%s, %s is answered otherwise than before (-before +after):\n%s", when, path, diff)
			}
		}
	}

	type request struct{ what, method, path, contentType, body string }
	// same sends requests for each name in turn, and compares what they are answered.
	same := func(requests ...request) {
		t.Helper()
		for _, r := range requests {
			var first string
			for i, name := range names {
				put := strings.NewReplacer("NAME", name)
				a := p.send(t, r.method, put.Replace(r.path), r.contentType, put.Replace(r.body))
				text := fmt.Sprint(a.code, a.warnings, strings.ReplaceAll(incidental.ReplaceAllString(string(a.body), ""), name, "NAME"))
				// Only of a status there is no right.
				if (a.code == http.StatusForbidden) != strings.HasSuffix(r.path, "/status") || strings.Contains(text, secretHost) || strings.Contains(text, `"status":{`) {
					t.Errorf("%s: %s is answered %s", r.what, name, text)
				}
				if i == 0 {
					first = text
				}
				if diff := cmp.Diff(first, text); diff != "" {
					t.Errorf("%s: %s is told from %s (-%s +%s):\n%s", r.what, name, with, with, name, diff)
				}
			}
		}
	}
	expect.Eventually(t, patience, func() error { // Until the binding is in force.
		if a := p.send(t, http.MethodPost, all+dry, jsonType, strings.ReplaceAll(body(ready), "NAME", "vm-first")); a.code != http.StatusCreated {
			return fmt.Errorf("a dry run is answered %d: %s", a.code, a.body)
		}
		return nil
	})

	same(
		request{"dry run of Ready", http.MethodPost, all + dry, jsonType, body(ready)},
		request{"dry run of NotBefore", http.MethodPost, all + dry, jsonType, body(notBefore)},
		request{"of another window", http.MethodPost, all + dry, jsonType, body(`"answer":"Ready","windowStartTime":"` + later + `"`)},
		request{"beyond what is possible", http.MethodPost, all + dry, jsonType, body(`"answer":"NotBefore","notBefore":"2999-01-01T00:00:00Z","windowStartTime":"` + start + `"`)},
		request{"for another server", http.MethodPost, all + dry, jsonType, body(ready + `,"serverUID":"guess"`)},
		request{"without a window", http.MethodPost, all, jsonType, body(`"answer":"Ready"`)},
		request{"NotBefore without a time", http.MethodPost, all, jsonType, body(`"answer":"NotBefore","windowStartTime":"` + start + `"`)},
		request{"no such answer", http.MethodPost, all, jsonType, body(`"answer":"Never","windowStartTime":"` + start + `"`)},
		request{"an unknown field", http.MethodPost, all + "?fieldValidation=Strict", jsonType, body(ready + `,"zzz":1`)},
		request{"no answer at all", http.MethodPost, all, jsonType, `nonsense`},
		request{"patch of what is not there", http.MethodPatch, one, mergePatch, `{"spec":{` + notBefore + `}}`},
		request{"delete of what is not there", http.MethodDelete, one, jsonType, ``},
		request{"dry apply", http.MethodPatch, one + dry + "&fieldManager=x&force=true", applyPatch, body(ready)},
		request{"create", http.MethodPost, all, jsonType, body(notBefore)},
	)
	expect.Eventually(t, patience, shown(computev1alpha1.HostStatusNeedsMaintenance, computev1alpha1.AnswerStateNotBefore))
	expect.Eventually(t, patience, func() error {
		if opens := granted.server(t, namespace, with).Status.MaintenanceWindow.OpensAt; opens.UTC().Format(time.RFC3339) != later {
			return fmt.Errorf("the window opens at %s: the answer has put nothing off", opens)
		}
		return nil
	})
	unchanged("when the window has been put off")
	same(
		request{"create once more", http.MethodPost, all, jsonType, body(notBefore)},
		request{"get", http.MethodGet, one, jsonType, ``},
		request{"list of one", http.MethodGet, all + "?fieldSelector=metadata.name%3DNAME", jsonType, ``},
		request{"watch of one", http.MethodGet, all + "?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3DNAME", jsonType, ``},
		request{"the status that there is none of", http.MethodGet, one + "/status", jsonType, ``},
		request{"write of a status", http.MethodPatch, one + "/status", mergePatch, `{"status":{"opensAt":"` + later + `"}}`},
		request{"dry patch", http.MethodPatch, one + dry, mergePatch, `{"spec":{"answer":"Ready","notBefore":null}}`},
		request{"patch of the present", http.MethodPatch, one, mergePatch, `{"spec":{` + notBefore + `}}`},
		request{"wrong patch", http.MethodPatch, one, mergePatch, `{"spec":{"answer":"Ready"}}`},
		request{"test of a status", http.MethodPatch, one, jsonPatch, `[{"op":"test","path":"/status","value":{}}]`},
		request{"stale update", http.MethodPut, one, jsonType, strings.Replace(body(ready), `"NAME"`, `"NAME","resourceVersion":"1"`, 1)},
		request{"dry delete", http.MethodDelete, one + dry, jsonType, ``},
		request{"delete on a condition", http.MethodDelete, one, jsonType, `{"preconditions":{"resourceVersion":"1"}}`},
		request{"patch to Ready", http.MethodPatch, one, mergePatch, `{"spec":{"answer":"Ready","notBefore":null}}`},
	)
	expect.Eventually(t, patience, shown(computev1alpha1.HostStatusMaintenance, computev1alpha1.AnswerStateReady))
	unchanged("when the window has been opened")
	same(
		request{"patch of an open window's answer", http.MethodPatch, one, mergePatch, `{"spec":{` + notBefore + `}}`},
		request{"delete", http.MethodDelete, one, jsonType, ``},
		request{"delete once more", http.MethodDelete, one, jsonType, ``},
	)
	expect.Eventually(t, patience, shown(computev1alpha1.HostStatusMaintenance, computev1alpha1.AnswerStateNone))
	unchanged("when the answers are gone")

	again := fmt.Sprintf(`{"spec":{"maintenanceWindow":{"startTime":%q,"openWhenReady":null}}}`, later)
	expect.NoError(t, env.admin.Patch(t.Context(), announced, client.RawPatch(types.MergePatchType, []byte(again))))
	expect.Eventually(t, patience, shown(computev1alpha1.HostStatusNeedsMaintenance, computev1alpha1.AnswerStateNone))
	unchanged("when another window is announced")

	events := &corev1.EventList{}
	expect.NoError(t, env.admin.List(t.Context(), events, client.InNamespace(namespace)))
	for _, e := range events.Items {
		t.Errorf("there is an event: %s of %s %s: %s", e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message)
	}
	update(t, asked, func(s *computev1alpha1.Server) { s.Status.State = "SHUTOFF" })
	follows.silentUntil(t, limit, func(e event) bool { return e.Type == "MODIFIED" && e.server(t).Status.State == "SHUTOFF" })

	t.Run("the time that it takes", func(t *testing.T) {
		writes := 0
		// In this order: what is written cannot be created any more.
		for _, c := range []struct {
			what string
			do   func(name string) answer
		}{
			{"dry run", func(name string) answer {
				return p.send(t, http.MethodPost, all+dry, jsonType, strings.ReplaceAll(body(ready), "NAME", name))
			}},
			{"write", func(name string) answer {
				writes++ // Something else each time, so that each puts the window off again.
				spec := fmt.Sprintf(`"answer":"NotBefore","notBefore":%q,"windowStartTime":%q`, at(150*time.Minute+time.Duration(writes)*time.Second).UTC().Format(time.RFC3339), later)
				return p.send(t, http.MethodPatch, answersPath(namespace, name)+"?fieldManager=x&force=true", applyPatch, strings.ReplaceAll(body(spec), "NAME", name))
			}},
			{"get of the view", func(name string) answer { return p.get(t, pathOf(namespace, name), "") }},
		} {
			took := map[string]latencies{}
			// In turn, so that both meet with what else this machine does.
			for i := range 60 {
				pair := []string{with, without}
				if i%2 == 1 {
					slices.Reverse(pair)
				}
				for _, name := range pair {
					begun := time.Now()
					a := c.do(name)
					took[name] = append(took[name], time.Since(begun))
					if a.code >= http.StatusBadRequest {
						t.Fatalf("%s is answered %d: %s", c.what, a.code, a.body)
					}
				}
			}
			t.Logf("%s: %s with a window, %s without", c.what, took[with], took[without])
			if r := max(took[with].times(took[without]), took[without].times(took[with])); r > 1.5 {
				t.Errorf("%s takes %.2f times as long for one as for the other", c.what, r)
			}
		}
	})
}
