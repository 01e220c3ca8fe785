// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// reporting is a Reporter, the API server that it reports to and the driver that
// it hears from. All of it lives in a bubble of synctest, whose time passes when
// everybody waits; that is why the requests do not go over a socket.
type reporting struct {
	*testing.T
	log   *logBook
	knows chan []VM

	// mu is held by the API server while it answers. The bubble orders its answers
	// and the test anyway, but the race detector does not know that.
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
	times    []time.Time
	answer   *apierrors.StatusError // nil accepts.
}

// report runs test in a bubble, beside a Reporter whose driver knows these VMs.
func report(t *testing.T, test func(r *reporting), vms ...VM) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &reporting{T: t, log: newLogBook(), knows: make(chan []VM, 1)}
		client, err := serversClient(&rest.Config{Host: "http://api", Transport: r})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		r.knows <- vms
		go func() {
			if err := NewReporter(r, client, r.log.Logger).Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		test(r)
		cancel()
		time.Sleep(time.Second) // Queues look every half second whether they are shut down.
	})
}

// Run is the driver's.
func (r *reporting) Run(ctx context.Context, report func([]VM)) error {
	for {
		select {
		case vms := <-r.knows:
			report(vms)
		case <-ctx.Done():
			return nil
		}
	}
}

// RoundTrip is the API server's.
func (r *reporting) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.bodies, r.times = append(r.requests, request), append(r.bodies, string(body)), append(r.times, time.Now())
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	if r.answer != nil {
		w.WriteHeader(int(r.answer.ErrStatus.Code))
		err = json.NewEncoder(w).Encode(r.answer.ErrStatus)
	} else {
		_, err = w.WriteString(`{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"Server"}`)
	}
	return w.Result(), err
}

// handOver shows the API server what the test has changed.
func (r *reporting) handOver() {
	r.mu.Lock()
	defer r.mu.Unlock()
}

// learns lets the driver know other VMs.
func (r *reporting) learns(vms ...VM) {
	r.handOver()
	r.knows <- vms
	synctest.Wait()
}

// pass lets time pass.
func (r *reporting) pass(by time.Duration) {
	r.handOver()
	time.Sleep(by) // In the bubble: it takes no time.
	synctest.Wait()
}

// want checks how many reports came since the last call.
func (r *reporting) want(reports int) {
	r.Helper()
	if len(r.bodies) != reports {
		r.Errorf("%d reports, want %d: %q", len(r.bodies), reports, r.bodies)
	}
	r.requests, r.bodies = nil, nil
}

var servers = schema.GroupResource{Group: v1alpha1.SchemeGroupVersion.Group, Resource: "servers"}

func TestReporterAppliesTheReportedFieldsAndNoOthers(t *testing.T) {
	full := vm("a", "RUNNING")
	full.State, full.TaskState = "ACTIVE", "rebooting"
	full.Networks = []v1alpha1.ServerNetwork{{Name: "xnet", Addresses: []string{"10.0.0.4"}}, {Name: "empty"}}
	const head = `{"kind":"Server","apiVersion":"compute.hoststatus.dev/v1alpha1","metadata":{"name":"a","namespace":"tenant"},"status":`
	for name, c := range map[string]struct {
		vm   VM
		want string
	}{
		"all of them": {full, head + `{"state":"ACTIVE","taskState":"rebooting","powerState":"RUNNING","networks":[{"name":"xnet","addresses":["10.0.0.4"]},{"name":"empty"}]}}`},
		"one of them": {vm("a", "RUNNING"), head + `{"powerState":"RUNNING"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			report(t, func(r *reporting) {
				if len(r.bodies) != 1 {
					r.Fatalf("%d reports", len(r.bodies))
				}
				if diff := cmp.Diff(c.want, r.bodies[0]); diff != "" {
					r.Errorf("(-want +got):\n%s", diff)
				}
				request := r.requests[0]
				got := []string{request.Method, request.URL.String(), request.Header.Get("Content-Type")}
				want := []string{
					"PATCH",
					"http://api/apis/compute.hoststatus.dev/v1alpha1/namespaces/tenant/servers/a/status?fieldManager=hoststatus-agent&force=true",
					"application/apply-patch+yaml",
				}
				if diff := cmp.Diff(want, got); diff != "" {
					r.Errorf("(-want +got):\n%s", diff)
				}
				r.log.want(r.T)
			}, c.vm)
		})
	}
}

func TestReporterReportsChangesAtOnceAndNothingElse(t *testing.T) {
	report(t, func(r *reporting) {
		r.want(2)
		r.learns(vm("a", "RUNNING"), vm("b", "RUNNING"))
		r.want(0)
		r.learns(vm("a", "SHUTDOWN"), vm("b", "RUNNING"))
		r.want(1)
		r.learns(vm("a", "SHUTDOWN"), vm("b", "RUNNING"), vm("c", "RUNNING"))
		r.want(1)
	}, vm("a", "RUNNING"), vm("b", "RUNNING"))
}

func TestReporterRepeatsAReportThatHasNotChangedEveryFiveMinutesOrALittleSooner(t *testing.T) {
	report(t, func(r *reporting) {
		r.pass(time.Hour)
		if n := len(r.times); n < 13 {
			r.Fatalf("%d reports in an hour", n)
		}
		for i := range r.times[1:] {
			if gap := r.times[i+1].Sub(r.times[i]); gap < reportAgainAfter*9/10 || gap > reportAgainAfter {
				r.Errorf("repeated after %s", gap)
			}
		}
	}, vm("a", "RUNNING"))
}

func TestReporterDoesNotReportAVMThatIsGone(t *testing.T) {
	report(t, func(r *reporting) {
		r.want(2)
		r.learns(vm("b", "RUNNING"))
		r.pass(2 * reportAgainAfter)
		if len(r.bodies) == 0 {
			r.Error("the other one is not reported")
		}
		for _, request := range r.requests {
			if request.URL.Path != "/apis/compute.hoststatus.dev/v1alpha1/namespaces/tenant/servers/b/status" {
				r.Errorf("reported to %s", request.URL)
			}
		}
		r.want(len(r.bodies))
		r.learns(vm("a", "RUNNING"), vm("b", "RUNNING"))
		r.want(1) // It has come back.
	}, vm("a", "RUNNING"), vm("b", "RUNNING"))
}

func TestReporterBacksOffAndLogsOnceWhenItIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer *apierrors.StatusError
		words  string
	}{
		"not found": {apierrors.NewNotFound(servers, "a"), "not ours"},
		"forbidden": {apierrors.NewForbidden(servers, "a", errors.New("another host")), "not ours"},
		"an error":  {apierrors.NewInternalError(errors.New("etcd is away")), "Report failed"},
	} {
		t.Run(name, func(t *testing.T) {
			report(t, func(r *reporting) {
				r.want(1)
				r.answer = c.answer
				r.learns(vm("a", "SHUTDOWN"))
				r.want(1)
				wait := firstBackOff
				for ; wait < lastBackOff; wait *= 2 {
					r.pass(wait - 1)
					r.want(0)
					r.pass(1)
					r.want(1)
				}
				r.pass(lastBackOff - 1)
				r.want(0)
				r.pass(1)
				r.want(1)
				r.log.want(r.T, c.words)

				r.answer = nil
				r.pass(lastBackOff)
				r.want(1)
				r.log.want(r.T, c.words, "accepted again")

				r.answer = c.answer
				r.learns(vm("a", "RUNNING"))
				r.want(1)
				r.pass(firstBackOff)
				r.want(1)
				r.log.want(r.T, c.words, "accepted again", c.words)
			}, vm("a", "RUNNING"))
		})
	}
}

func TestReporterDropsARefusedServerThatIsNoLongerOnTheHost(t *testing.T) {
	report(t, func(r *reporting) {
		r.answer = apierrors.NewForbidden(servers, "b", errors.New("another host"))
		r.learns(vm("a", "RUNNING"), vm("b", "RUNNING"))
		r.want(2)
		r.learns(vm("a", "RUNNING"))
		r.answer = nil
		r.pass(firstBackOff)
		r.want(0)
		r.log.want(r.T, "not ours")
	}, vm("a", "RUNNING"))
}

func TestReporterEndsWithTheErrorOfTheDriver(t *testing.T) {
	broken := errors.New("no hypervisor")
	synctest.Test(t, func(t *testing.T) {
		r := NewReporter(brokenDriver{broken}, nil, newLogBook().Logger)
		if err := r.Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Second)
	})
}

type brokenDriver struct{ err error }

func (d brokenDriver) Run(context.Context, func([]VM)) error { return d.err }
