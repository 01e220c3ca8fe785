// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// troubled is an API server that answers every read with an error.
type troubled struct {
	asked atomic.Int32
	// answers is closed when it may answer.
	answers chan struct{}
	code    int
	status  metav1.Status
}

func (s *troubled) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.asked.Add(1)
	<-s.answers
	w.Header().Set("Retry-After", "1")
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.WriteHeader(s.code)
	_ = json.NewEncoder(w).Encode(s.status)
}

func newTroubled(code int, reason metav1.StatusReason, causes ...metav1.StatusCause) *troubled {
	s := &troubled{answers: make(chan struct{}), code: code, status: metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, // an HTTP code
		Message: "not now", Details: &metav1.StatusDetails{RetryAfterSeconds: 1, Causes: causes},
	}}
	return s
}

// of returns a storage that reads from s, and logs to log.
func (s *troubled) storage(t *testing.T, log logr.Logger) testStorage {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	storage := newTestStorage(t)
	up, err := newUpstream(&rest.Config{Host: server.URL}, log)
	check(t, err)
	storage.upstream = up
	return storage
}

func tooLargeResourceVersion() *troubled {
	return newTroubled(http.StatusGatewayTimeout, metav1.StatusReasonTimeout, metav1.StatusCause{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"})
}

// A request that kube-apiserver refuses for the moment is for the caller to repeat:
// client-go would repeat it ten times, a second apart.
func TestARefusalOfTheAPIServerIsPassedOnAtOnce(t *testing.T) {
	reads := map[string]func(context.Context, testStorage) error{
		"get": func(ctx context.Context, s testStorage) error {
			_, err := s.Get(ctx, "web", &metav1.GetOptions{ResourceVersion: "99999999"})
			return err
		},
		"list": func(ctx context.Context, s testStorage) error {
			_, err := s.List(ctx, &metainternalversion.ListOptions{ResourceVersion: "99999999"})
			return err
		},
		"watch that begins with a list": func(ctx context.Context, s testStorage) error {
			_, err := s.Watch(ctx, &metainternalversion.ListOptions{})
			return err
		},
		"watch that begins now": func(ctx context.Context, s testStorage) error {
			_, err := s.Watch(ctx, &metainternalversion.ListOptions{SendInitialEvents: ptr.To(false)})
			return err
		},
	}
	for answer, c := range map[string]struct {
		server func() *troubled
		is     func(error) bool
	}{
		"429": {func() *troubled { return newTroubled(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests) }, apierrors.IsTooManyRequests},
		"504": {tooLargeResourceVersion, func(err error) bool { return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) }},
		"503": {func() *troubled {
			return newTroubled(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
		}, apierrors.IsServiceUnavailable},
	} {
		for name, read := range reads {
			t.Run(answer+" to a "+name, func(t *testing.T) {
				server := c.server()
				close(server.answers)
				s := server.storage(t, logr.Discard())
				ctx, _ := s.request(t)
				if err := read(ctx, s); !c.is(err) {
					t.Errorf("the error is %v", err)
				}
				if asked := server.asked.Load(); asked != 1 {
					t.Errorf("the API server was asked %d times", asked)
				}
			})
		}
	}
}

func TestAReviewIsRepeatedForAboutASecond(t *testing.T) {
	server := newTroubled(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests)
	close(server.answers)
	api := httptest.NewServer(server)
	defer api.Close()
	client, err := reviewClient(&rest.Config{Host: api.URL, QPS: -1})
	check(t, err)
	_, err = client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{}, metav1.CreateOptions{})
	if !apierrors.IsTooManyRequests(err) || server.asked.Load() != 1 {
		t.Errorf("asked %d times: %v", server.asked.Load(), err)
	}
}

// Lists that wait for kube-apiserver keep no other caller from listing.
func TestNobodyHasASeatWhileTheAPIServerWaits(t *testing.T) {
	scheme, err := newScheme()
	check(t, err)
	server := tooLargeResourceVersion()
	s := server.storage(t, logr.Discard())
	s.limits = newLimits(2, serializer.NewCodecFactory(scheme))
	list := func(caller, resourceVersion string) error {
		err := error(nil)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		ctx := request.WithNamespace(request.WithUser(r.Context(), &user.DefaultInfo{Name: caller}), "ns")
		ctx = request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, Verb: "list"})
		s.limits.handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err = s.List(r.Context(), &metainternalversion.ListOptions{ResourceVersion: resourceVersion})
		})).ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
		return err
	}
	var asking sync.WaitGroup
	for i := range 8 {
		asking.Go(func() {
			if err := list(fmt.Sprintf("mallory-%d", i%2), "99999999"); !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
				t.Errorf("a list of the future: %v", err)
			}
		})
	}
	// All that may have begun wait for the API server.
	for deadline := time.Now().Add(20 * time.Second); server.asked.Load() < 8; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d lists wait for the API server", server.asked.Load())
		}
	}
	for _, caller := range []string{"ann", "bob", "ann"} {
		check(t, list(caller, "0"))
	}
	close(server.answers)
	asking.Wait()
	s.limits.idle(t)
}

func TestAResourceVersionThatIsNoneIsTheCallersMistake(t *testing.T) {
	var logged strings.Builder
	server := newTroubled(http.StatusInternalServerError, metav1.StatusReasonInternalError)
	close(server.answers)
	s := server.storage(t, funcr.New(func(_, args string) { logged.WriteString(args) }, funcr.Options{}))
	ctx, _ := s.request(t)
	for _, version := range []string{"abc", "-1", "1.5", "99999999999999999999999", " 1", "0x1"} {
		_, getErr := s.Get(ctx, "web", &metav1.GetOptions{ResourceVersion: version})
		_, statusErr := statusStorage{s.storage}.Get(ctx, "web", &metav1.GetOptions{ResourceVersion: version})
		_, listErr := s.List(ctx, &metainternalversion.ListOptions{ResourceVersion: version})
		_, watchErr := s.Watch(ctx, &metainternalversion.ListOptions{ResourceVersion: version})
		for verb, err := range map[string]error{"get": getErr, "get status": statusErr, "list": listErr, "watch": watchErr} {
			if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "resourceVersion") {
				t.Errorf("%s of %q: %v", verb, version, err)
			}
		}
	}
	if logged.Len() > 0 || server.asked.Load() > 0 {
		t.Errorf("asked %d times; logged %s", server.asked.Load(), logged.String())
	}
}

func TestSelectorsAreBoundedBeforeAnybodyReadsThem(t *testing.T) {
	scheme, err := newScheme()
	check(t, err)
	reached := false
	handler := boundedSelectors(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }), serializer.NewCodecFactory(scheme))
	for selector, c := range map[string]struct {
		parameter, term string
	}{
		"requirements": {"labelSelector", "!a"},
		"values":       {"labelSelector", "a"},
		"fields":       {"fieldSelector", "metadata.name!=a"},
	} {
		for terms, good := range map[int]bool{maxTerms: true, maxTerms + 1: false, 40_000: false} {
			reached = false
			value := strings.Repeat(c.term+",", terms-1) + c.term
			if selector == "values" {
				value = "a in (" + value + ")"
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?limit=1", nil)
			query := r.URL.Query()
			query.Set(c.parameter, value)
			r.URL.RawQuery = query.Encode()
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if reached != good || !good && (w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), c.parameter) || !strings.Contains(w.Body.String(), fmt.Sprint(maxTerms))) {
				t.Errorf("%d %s: passed on %t; %d %s", terms, selector, reached, w.Code, w.Body)
			}
		}
	}
}

// A caller that has gone needs no answers: nothing more is asked for it.
func TestNoQuestionBeginsAfterItsRequestHasEnded(t *testing.T) {
	s := newTestStorage(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	namespaces := make([]string, 1000)
	for i := range namespaces {
		namespaces[i] = fmt.Sprintf("ns-%d", i)
	}
	if _, err := s.grants.ofNamespaces(ctx, ann, namespaces, ""); err == nil {
		t.Error("there is no error")
	}
	if asked := s.authorizer.count(); asked > 0 {
		t.Errorf("%d questions were asked", asked)
	}
}

func TestWorkForARequestThatHasEndedStops(t *testing.T) {
	s := newTestStorage(t)
	s.authorizer.set("status/ns/")
	ctx, _ := s.request(t)
	ended, cancel := context.WithCancel(ctx)
	object, err := s.List(ended, &metainternalversion.ListOptions{ResourceVersion: "0"})
	check(t, err)
	cancel()
	if _, err := s.List(ended, &metainternalversion.ListOptions{ResourceVersion: "0"}); !apierrors.IsTimeout(err) {
		t.Errorf("a list: %v", err)
	}
	if _, err := s.ConvertToTable(ended, object, nil); !apierrors.IsTimeout(err) {
		t.Errorf("a table: %v", err)
	}
}
