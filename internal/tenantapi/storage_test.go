// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// warnings takes the warnings of one request.
type warnings struct{ texts []string }

// AddWarning implements warning.Recorder.
func (w *warnings) AddWarning(_, text string) { w.texts = append(w.texts, text) }

// expect checks that the warnings so far are one that begins with each of want.
func (w *warnings) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	ok := len(w.texts) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.HasPrefix(w.texts[i], want[i])
	}
	if !ok {
		t.Errorf("%s: warnings %q, want %q", when, w.texts, want)
	}
}

const (
	staleHostStatus = "host status may be out of date"
	staleServers    = "servers may be out of date"
)

// testStorage answers ann from an API server that has the servers web, UP, and off,
// UNKNOWN.
type testStorage struct {
	*storage
	authorizer *fakeAuthorizer
	clock      *testingclock.FakeClock
	// revision is etcd's; more is set if the API server's lists have another page.
	revision *atomic.Int64
	more     *atomic.Bool
}

func newTestStorage(t *testing.T) testStorage {
	t.Helper()
	s := testStorage{authorizer: &fakeAuthorizer{}, clock: testingclock.NewFakeClock(instant), revision: &atomic.Int64{}, more: &atomic.Bool{}}
	s.revision.Store(10)
	apiServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer runtime.Object
		web, off := server(8, "ns", "web"), server(8, "ns", "off", host(computev1alpha1.HostStatusUnknown))
		for _, s := range []*computev1alpha1.Server{web, off} {
			s.SetGroupVersionKind(computev1alpha1.SchemeGroupVersion.WithKind("Server"))
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/servers/web"):
			answer = web
		case strings.HasSuffix(r.URL.Path, "/servers/off"):
			answer = off
		case !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList"):
			answer = &computev1alpha1.ServerList{
				TypeMeta: metav1.TypeMeta{APIVersion: computev1alpha1.SchemeGroupVersion.String(), Kind: "ServerList"},
				Items:    []computev1alpha1.Server{*off},
			}
		default:
			list := &metav1.PartialObjectMetadataList{
				TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"},
				ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(s.revision.Load(), 10)},
			}
			if s.more.Load() && r.URL.Query().Get("continue") == "" {
				list.Continue = "as of " + list.ResourceVersion
			}
			if asked := r.URL.Query().Get("resourceVersion"); asked != "" && r.URL.Query().Get("resourceVersionMatch") != "Exact" {
				t.Errorf("kube-apiserver is asked to wait for %s", asked)
			}
			answer = list
		}
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(apiServer.Close)
	up, err := newUpstream(&rest.Config{Host: apiServer.URL, QPS: -1}, logr.Discard())
	check(t, err)
	f := newFeed(testProjector(), s.clock, logr.Discard())
	check(t, f.Replace([]any{server(8, "ns", "web"), server(9, "ns", "db")}, "10"))
	s.storage = &storage{
		upstream: up, feed: f, grants: newGrants(s.authorizer, s.clock), canaries: newCanaries([]string{"leases"}, s.clock), tokens: newTokens(f.projector.hostIDKey),
		limits: newLimits(100, nil), shared: newSharing(s.clock), clock: s.clock, log: logr.Discard(), tableConvertor: tableConvertor{s.clock},
	}
	s.renewCanary(t)
	return s
}

// renewCanary lets the manager report.
func (s testStorage) renewCanary(t *testing.T) {
	t.Helper()
	renewed, seconds := metav1.NewMicroTime(s.clock.Now()), int32(15)
	check(t, canaryStore{s.canaries, "leases"}.Update(&coordinationv1.Lease{
		Spec: coordinationv1.LeaseSpec{RenewTime: &renewed, LeaseDurationSeconds: &seconds},
	}))
}

// request returns the context of a request of ann.
func (s testStorage) request(t *testing.T) (context.Context, *warnings) {
	t.Helper()
	w := &warnings{}
	ctx := request.WithUser(request.WithNamespace(t.Context(), "ns"), ann)
	return warning.WithWarningRecorder(ctx, w), w
}

func TestAGetWarnsOfOldHostStatusWhoIsToldOfIt(t *testing.T) {
	for name, c := range map[string]struct {
		allow           []string
		object, asTable []string
	}{
		"no grant":     {nil, nil, nil},
		"full":         {[]string{"status/ns/"}, []string{staleHostStatus}, []string{staleHostStatus}},
		"unknown only": {[]string{"unknownstatus/ns/"}, nil, []string{staleHostStatus}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStorage(t)
			s.authorizer.set(c.allow...)
			s.clock.Step(time.Minute)
			ctx, warned := s.request(t)
			object, err := s.Get(ctx, "web", &metav1.GetOptions{})
			check(t, err)
			warned.expect(t, "the object", c.object...)
			_, err = s.ConvertToTable(ctx, object, nil)
			check(t, err)
			warned.expect(t, "the table", c.asTable...)
		})
	}
}

// The time that an answer takes reveals how many questions it needed.
func TestWhatAGetAsksOfTheAuthorizerDoesNotDependOnTheHostStatus(t *testing.T) {
	for name, allow := range map[string][]string{
		"no grant":             nil,
		"full":                 {"status/ns/"},
		"full, of this one":    {"status/ns/web", "status/ns/off"},
		"unknown only":         {"unknownstatus/ns/"},
		"unknown, of this one": {"unknownstatus/ns/web", "unknownstatus/ns/off"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := map[string]int{}
			for _, server := range []string{"web", "off"} { // UP and UNKNOWN.
				s := newTestStorage(t)
				s.authorizer.set(allow...)
				ctx, _ := s.request(t)
				object, err := s.Get(ctx, server, &metav1.GetOptions{})
				check(t, err)
				_, err = s.ConvertToTable(ctx, object, nil)
				check(t, err)
				asked[server] = s.authorizer.count()
			}
			if asked["web"] != asked["off"] || asked["web"] == 0 {
				t.Errorf("questions: %v", asked)
			}
		})
	}
}

// An API server whose etcd was restored uses versions again.
func TestAListNeverHandsOutAnotherServerOfTheSameVersion(t *testing.T) {
	s := newTestStorage(t)
	s.authorizer.set("status/ns/")
	other := &metav1.PartialObjectMetadataList{Items: []metav1.PartialObjectMetadata{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "off", UID: "ns/off", ResourceVersion: "8"}}, // web's, in the feed.
	}}
	ctx, _ := s.request(t)
	records, _, err := s.bodies(ctx, "ns", other, 10, metav1.ListOptions{})
	check(t, err)
	if len(records) != 1 || records[0].known.name != "off" {
		t.Errorf("got %v", records)
	}
}

func TestANamespaceThatCannotBeIsRefused(t *testing.T) {
	s := newTestStorage(t)
	ctx := request.WithUser(request.WithNamespace(t.Context(), ".."), ann)
	if _, err := s.List(ctx, &metainternalversion.ListOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("error %v", err)
	}
}

func TestAnswersFromAFeedThatHearsNothingWarn(t *testing.T) {
	s := newTestStorage(t)
	s.authorizer.set("status/ns/")
	list := func(resourceVersion string) *warnings {
		ctx, warned := s.request(t)
		_, err := s.List(ctx, &metainternalversion.ListOptions{ResourceVersion: resourceVersion})
		check(t, err)
		return warned
	}
	watch := func() *warnings {
		ctx, warned := s.request(t)
		w, err := s.Watch(ctx, &metainternalversion.ListOptions{ResourceVersion: "10"})
		check(t, err)
		w.Stop()
		return warned
	}
	s.clock.Step(feedPatience)
	s.renewCanary(t)
	list("0").expect(t, "a list from the cache, in time")
	watch().expect(t, "a watch, in time")

	s.clock.Step(time.Second)
	list("0").expect(t, "a list from the cache", staleServers)
	watch().expect(t, "a watch", staleServers)
	list("").expect(t, "a consistent list")

	s.clock.Step(time.Minute)
	list("0").expect(t, "a list from the cache without a manager", staleServers, staleHostStatus)
	s.renewCanary(t)
	check(t, s.feed.Bookmark("10"))
	list("0").expect(t, "a list from the cache, after a bookmark")
	watch().expect(t, "a watch, after a bookmark")
}

func TestEverythingThatTheWatchBringsIsHeard(t *testing.T) {
	fake := testingclock.NewFakeClock(instant)
	f := newFeed(testProjector(), fake, logr.Discard())
	for name, bring := range map[string]func() error{
		"a list":       func() error { return f.Replace(nil, "10") },
		"a new server": func() error { return f.Add(server(11, "ns", "web")) },
		"a change":     func() error { return f.Update(server(12, "ns", "web")) },
		"a deletion":   func() error { return f.Delete(server(13, "ns", "web")) },
		"a bookmark":   func() error { return f.Bookmark("14") },
	} {
		fake.Step(feedPatience + 1)
		if f.stale() == "" {
			t.Errorf("before %s: not stale", name)
		}
		check(t, bring())
		if got := f.stale(); got != "" {
			t.Errorf("after %s: %q", name, got)
		}
	}
}
