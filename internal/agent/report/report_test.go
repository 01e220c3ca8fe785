// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/driver"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

// reporting is a Reporter and the API server that it reports to. All of it lives in a
// bubble of synctest, whose time passes when everybody waits; that is why the requests do
// not go over a socket.
type reporting struct {
	*testing.T
	*Reporter
	log *logbook.Book

	// mu is held by the API server while it answers. The bubble orders its answers
	// and the test anyway, but the race detector does not know that.
	mu       sync.Mutex
	requests []string // method and body
	times    []time.Time
	stored   *agentv1alpha1.HostReport
	versions int
	healths  []error
	dropped  int
	// refuse, if set, is asked for the error with which a request is answered.
	refuse func(method, body string) error
}

// reports runs test in a bubble, beside a Reporter of host-a.
func reports(t *testing.T, test func(r *reporting)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &reporting{T: t, log: logbook.New()}
		client, err := NewClient(&rest.Config{Host: "http://api", Transport: r})
		if err != nil {
			t.Fatal(err)
		}
		r.Reporter = New("host-a", client, r.log.Logger)
		r.OnHealth = func(err error) { r.healths = append(r.healths, err) }
		r.OnConnectionFailure = func() { r.dropped++ }
		ctx, cancel := context.WithCancel(t.Context())
		go r.Reporter.Run(ctx)
		synctest.Wait()
		test(r)
		cancel()
	})
}

var reportsResource = schema.GroupResource{Group: agentv1alpha1.SchemeGroupVersion.Group, Resource: "hostreports"}

// RoundTrip is the API server's.
func (r *reporting) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		body, _ = io.ReadAll(request.Body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	path := "/apis/agent.hoststatus.dev/v1alpha1/hostreports"
	if request.Method != http.MethodPost {
		path += "/host-a"
	}
	if request.URL.Path != path {
		r.Errorf("asked for %s", request.URL)
	}
	r.requests, r.times = append(r.requests, request.Method+" "+string(body)), append(r.times, time.Now())
	err := r.answer(request.Method, body)
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &status):
		s := status.Status()
		s.APIVersion, s.Kind = "v1", "Status"
		w.WriteHeader(int(s.Code))
		_ = json.NewEncoder(w).Encode(s)
	case err != nil:
		return nil, err
	default:
		_, _ = fmt.Fprintf(w, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"host-a","resourceVersion":"%d"}}`, r.versions)
	}
	return w.Result(), nil
}

// answer does what kube-apiserver does.
func (r *reporting) answer(method string, body []byte) error {
	if r.refuse != nil {
		if err := r.refuse(method, string(body)); err != nil {
			return err
		}
	}
	report := &agentv1alpha1.HostReport{}
	if len(body) > 0 && json.Unmarshal(body, report) != nil {
		r.Errorf("a body that is no report: %s", body)
	}
	switch {
	case method == http.MethodPost && r.stored != nil:
		return apierrors.NewAlreadyExists(reportsResource, "host-a")
	case method == http.MethodPost && report.ResourceVersion != "":
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	case method != http.MethodPost && r.stored == nil:
		return apierrors.NewNotFound(reportsResource, "host-a")
	case method == http.MethodDelete:
		r.stored = nil
		return nil
	case method == http.MethodPut && report.ResourceVersion != r.stored.ResourceVersion:
		return apierrors.NewConflict(reportsResource, "host-a", errors.New("changed"))
	}
	if r.stored == nil || !cmp.Equal(r.stored.Spec, report.Spec) {
		r.versions++
	}
	report.ResourceVersion = fmt.Sprint(r.versions)
	r.stored = report
	return nil
}

// handOver shows the API server what the test has changed.
func (r *reporting) handOver() {
	r.mu.Lock()
	defer r.mu.Unlock()
}

// learns lets the driver know other VMs.
func (r *reporting) learns(vms ...driver.VM) {
	r.handOver()
	r.Know(vms)
	synctest.Wait()
}

// pass lets time pass.
func (r *reporting) pass(by time.Duration) {
	r.handOver()
	time.Sleep(by) // In the bubble: it takes no time.
	synctest.Wait()
}

// want checks which requests came since the last call.
func (r *reporting) want(methods ...string) {
	r.Helper()
	var got []string
	for _, request := range r.requests {
		method, _, _ := strings.Cut(request, " ")
		got = append(got, method)
	}
	if diff := cmp.Diff(methods, got); diff != "" {
		r.Errorf("requests (-want +got):\n%s", diff)
	}
	r.requests = nil
}

// wantStored checks what the API server has, as name=powerState.
func (r *reporting) wantStored(servers ...string) {
	r.Helper()
	var got []string
	if r.stored != nil {
		for _, s := range r.stored.Spec.Servers {
			got = append(got, s.Name+"="+s.PowerState)
		}
	}
	if diff := cmp.Diff(servers, got); diff != "" {
		r.Errorf("stored (-want +got):\n%s", diff)
	}
}

func TestAnAgentThatStartsReplacesTheReportOfTheLastOne(t *testing.T) {
	t.Run("there is none", func(t *testing.T) {
		reports(t, func(r *reporting) {
			r.pass(time.Hour)
			r.want() // The driver has not listed yet.
			r.learns(vm("a", "RUNNING"))
			r.pass(quiet)
			r.want("DELETE", "POST")
			r.wantStored("a=RUNNING")
		})
	})
	t.Run("there is one", func(t *testing.T) {
		reports(t, func(r *reporting) {
			r.stored = &agentv1alpha1.HostReport{}
			r.learns()
			r.pass(quiet)
			r.want("DELETE", "POST")
			r.wantStored()
			if r.stored == nil {
				t.Error("an empty report is not stored")
			}
		})
	})
}

func TestAChangeIsOneUpdateAndNoneWhileNothingChanges(t *testing.T) {
	reports(t, func(r *reporting) {
		r.learns(vm("b", "RUNNING"), vm("a", "RUNNING"))
		r.pass(quiet)
		r.want("DELETE", "POST")
		r.learns(vm("a", "RUNNING"), vm("b", "RUNNING"))
		r.pass(time.Minute)
		r.want()
		r.learns(vm("a", "SHUTDOWN"), vm("b", "RUNNING"))
		r.pass(quiet - 1)
		r.want()
		r.pass(1)
		r.want("PUT")
		r.wantStored("a=SHUTDOWN", "b=RUNNING")
		r.learns(vm("a", "SHUTDOWN"))
		r.pass(quiet)
		r.want("PUT")
		r.wantStored("a=SHUTDOWN")
		r.log.Want(r.T)
	})
}

func TestAChangeThatIsTakenBackIsNoRequest(t *testing.T) {
	reports(t, func(r *reporting) {
		r.learns(vm("a", "RUNNING"))
		r.pass(quiet)
		r.want("DELETE", "POST")
		r.learns(vm("a", "SHUTDOWN"))
		r.learns(vm("a", "RUNNING"))
		r.pass(time.Minute)
		r.want()
	})
}

// Otherwise the Lease would show the error until the report is confirmed.
func TestARefusedChangeThatIsTakenBackLeavesNoError(t *testing.T) {
	reports(t, func(r *reporting) {
		r.learns(vm("a", "RUNNING"))
		r.pass(quiet)
		r.want("DELETE", "POST")
		r.refuse = func(_, body string) error {
			if strings.Contains(body, "CRASHED") {
				return apierrors.NewInvalid(agentv1alpha1.SchemeGroupVersion.WithKind("HostReport").GroupKind(), "host-a", nil)
			}
			return nil
		}
		r.learns(vm("a", "CRASHED"))
		r.pass(quiet)
		r.want("PUT")
		r.learns(vm("a", "RUNNING"))
		r.pass(firstBackOff)
		r.want("PUT")
		if err := r.healths[len(r.healths)-1]; err != nil {
			r.Errorf("the health is %v", err)
		}
		r.log.Want(r.T, "Report failed", "accepted again")
	})
}

func TestChangesThatFollowEachOtherWaitForNoMoreThanASecond(t *testing.T) {
	reports(t, func(r *reporting) {
		r.learns()
		r.pass(quiet)
		r.want("DELETE", "POST")
		begin := time.Now()
		var vms []driver.VM
		for i := range 50 {
			vms = append(vms, vm(fmt.Sprintf("vm-%02d", i), "RUNNING"))
			r.learns(vms...)
			r.pass(50 * time.Millisecond)
		}
		r.pass(quiet)
		r.want("PUT", "PUT", "PUT")
		if delay := r.times[2].Sub(begin); delay > longestDelay {
			r.Errorf("the first of them came after %s", delay)
		}
		if n := len(r.stored.Spec.Servers); n != 50 {
			r.Errorf("%d servers are stored", n)
		}
	})
}

func TestAReportIsConfirmedNowAndThenAndReplacedIfItIsNotTheLastOne(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(r *reporting)
		want    []string
	}{
		"nothing has happened":    {func(*reporting) {}, []string{"PUT"}},
		"it was deleted":          {func(r *reporting) { r.stored = nil }, []string{"PUT", "DELETE", "POST"}},
		"an old one was restored": {func(r *reporting) { r.stored.ResourceVersion = "0" }, []string{"PUT", "DELETE", "POST"}},
	} {
		t.Run(name, func(t *testing.T) {
			reports(t, func(r *reporting) {
				r.learns(vm("a", "RUNNING"))
				r.pass(quiet)
				r.want("DELETE", "POST")
				c.happens(r)
				r.pass(confirmAfter)
				r.want(c.want...)
				r.wantStored("a=RUNNING")
				r.log.Want(r.T)
			})
		})
	}
}

func TestAReportThatFailsIsTriedAgainAndLoggedOnce(t *testing.T) {
	noAnswer := errors.New("connection refused")
	for name, c := range map[string]struct {
		err   error
		words string
		drops bool
	}{
		"the API server is away":  {noAnswer, "connection refused", true},
		"an error":                {apierrors.NewInternalError(errors.New("etcd is away")), "etcd is away", false},
		"it is forbidden":         {apierrors.NewForbidden(reportsResource, "host-a", errors.New("a host may write only its own report")), "only its own report", false},
		"the kind is not there":   {apierrors.NewNotFound(reportsResource, ""), "install the custom resource definition hostreports.agent.hoststatus.dev", false},
		"the answer was not seen": {errors.New("EOF"), "EOF", true},
	} {
		t.Run(name, func(t *testing.T) {
			reports(t, func(r *reporting) {
				r.refuse = func(string, string) error { return c.err }
				r.learns(vm("a", "RUNNING"))
				r.pass(quiet)
				for _, wait := range []time.Duration{firstBackOff, 2 * firstBackOff, 4 * firstBackOff, 8 * firstBackOff, lastBackOff, lastBackOff} {
					if len(r.requests) == 0 {
						r.Fatal("not tried")
					}
					r.requests = nil
					last := r.times[len(r.times)-1]
					r.pass(time.Until(last.Add(wait*9/10)) - 1)
					r.want()
					r.pass(wait/10 + 1)
				}
				r.log.Want(r.T, c.words)
				if c.drops != (r.dropped > 0) {
					r.Errorf("connections were dropped %d times", r.dropped)
				}
				if err := r.healths[len(r.healths)-1]; err == nil || !strings.Contains(err.Error(), c.words) {
					r.Errorf("the health is %v", err)
				}
				r.refuse, r.requests = nil, nil
				r.pass(lastBackOff)
				r.want("DELETE", "POST")
				r.wantStored("a=RUNNING")
				r.log.Want(r.T, c.words, "accepted again")
				if err := r.healths[len(r.healths)-1]; err != nil {
					r.Errorf("the health is %v", err)
				}
			})
		})
	}
}

// News do not hurry a retry: an API server that is away is asked at the same pace.
func TestNewsWhileReportsFailWaitForTheNextTry(t *testing.T) {
	reports(t, func(r *reporting) {
		r.refuse = func(string, string) error { return errors.New("connection refused") }
		for i := range 600 {
			r.learns(vm(fmt.Sprint(i), "RUNNING"))
			r.pass(100 * time.Millisecond)
		}
		if n := len(r.requests); n < 5 || n > 12 {
			r.Errorf("%d requests in a minute", n)
		}
		r.refuse = nil
		r.pass(lastBackOff)
		r.wantStored("599=RUNNING")
	})
}

// The write arrived, and its answer did not.
func TestAnUpdateWithoutAnAnswerIsFollowedByAReplacement(t *testing.T) {
	reports(t, func(r *reporting) {
		r.learns(vm("a", "RUNNING"))
		r.pass(quiet)
		r.want("DELETE", "POST")
		lost := true
		r.refuse = func(string, string) error {
			if lost {
				lost = false
				r.stored.ResourceVersion = "7"
				return errors.New("EOF")
			}
			return nil
		}
		r.learns(vm("a", "SHUTDOWN"))
		r.pass(quiet)
		r.want("PUT")
		r.pass(firstBackOff)
		r.want("DELETE", "POST")
		r.wantStored("a=SHUTDOWN")
	})
}

func TestWhatTheAPIServerDoesNotAcceptIsReportedWithoutWhatIsDecoration(t *testing.T) {
	for name, refusal := range map[string]error{
		"a rule of tomorrow":        apierrors.NewInvalid(agentv1alpha1.SchemeGroupVersion.WithKind("HostReport").GroupKind(), "host-a", nil),
		"too large":                 apierrors.NewRequestEntityTooLargeError("limit is 3145728"),
		"too large for etcd":        answered("etcdserver: request is too large"),
		"too large to send to etcd": answered("rpc error: code = ResourceExhausted desc = trying to send message larger than max (2597145 vs. 2097152)"),
	} {
		t.Run(name, func(t *testing.T) {
			reports(t, func(r *reporting) {
				r.refuse = func(_, body string) error {
					if strings.Contains(body, "networks") {
						return refusal
					}
					return nil
				}
				odd := vm("a", "SHUTDOWN")
				odd.State = "SHUTOFF"
				odd.Networks = []v1alpha1.ServerNetwork{{Name: "x", Addresses: []string{"10.0.0.4"}}}
				r.learns(odd)
				r.pass(quiet)
				r.want("DELETE", "POST", "DELETE", "POST")
				if diff := cmp.Diff([]agentv1alpha1.ReportedServer{{Namespace: "tenant", Name: "a", State: "SHUTOFF", PowerState: "SHUTDOWN"}}, r.stored.Spec.Servers); diff != "" {
					r.Errorf("(-want +got):\n%s", diff)
				}
				r.log.Want(r.T, "sent without networks and task states")
				r.pass(2 * confirmAfter)
				r.log.Want(r.T, "sent without networks and task states")
				r.requests = nil
				odd.PowerState = "CRASHED"
				r.learns(odd)
				r.pass(quiet)
				r.want("PUT", "PUT")
				r.wantStored("a=CRASHED")
				r.log.Want(r.T, "sent without networks and task states")
			})
		})
	}
}

// answered is what kube-apiserver answers if it does not know an error of etcd.
func answered(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: message}}
}

func TestWhatIsLeftOutIsLoggedWhenItChanges(t *testing.T) {
	odd := vm("a", "RUNNING")
	odd.Networks = []v1alpha1.ServerNetwork{{Name: "x", Addresses: []string{"dhcp"}}}
	reports(t, func(r *reporting) {
		r.learns(odd)
		r.pass(quiet)
		r.log.Want(r.T, "is not an IP address")
		odd.PowerState = "SHUTDOWN"
		r.learns(odd)
		r.pass(quiet)
		r.log.Want(r.T, "is not an IP address")
	})
}

func TestARequestThatHangsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := NewClient(&rest.Config{Host: "http://api", Transport: hanging{}})
		if err != nil {
			t.Fatal(err)
		}
		log := logbook.New()
		r := New("host-a", client, log.Logger)
		go r.Run(t.Context())
		r.Know([]driver.VM{vm("a", "RUNNING")})
		time.Sleep(quiet + requestTimeout)
		synctest.Wait()
		log.Want(t, "context deadline exceeded")
	})
}

type hanging struct{}

func (hanging) RoundTrip(request *http.Request) (*http.Response, error) {
	<-request.Context().Done()
	return nil, request.Context().Err()
}
