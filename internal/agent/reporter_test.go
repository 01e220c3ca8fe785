// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
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
	// decide, if set, answers in its stead.
	decide func(server, body string) *apierrors.StatusError
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
	answer := r.answer
	if r.decide != nil {
		answer = r.decide(path.Base(path.Dir(request.URL.Path)), string(body))
	}
	if answer != nil {
		w.WriteHeader(int(answer.ErrStatus.Code))
		err = json.NewEncoder(w).Encode(answer.ErrStatus)
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
		"not found": {apierrors.NewNotFound(servers, "a"), "not on this host"},
		"forbidden": {apierrors.NewForbidden(servers, "a", errors.New("another host")), "not on this host"},
		"an error":  {apierrors.NewInternalError(errors.New("etcd is away")), "Report failed"},
	} {
		t.Run(name, func(t *testing.T) {
			report(t, func(r *reporting) {
				r.want(1)
				r.answer = c.answer
				r.learns(vm("a", "SHUTDOWN"))
				r.want(1)
				for _, wait := range []time.Duration{firstBackOff, 2 * firstBackOff, lastBackOff, lastBackOff, lastBackOff} {
					last := r.times[len(r.times)-1]
					r.pass(time.Until(last.Add(wait*9/10)) - 1)
					r.want(0)
					r.pass(wait/10 + 1)
					r.want(1)
				}
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
		r.log.want(r.T, "not on this host")
	}, vm("a", "RUNNING"))
}

// forbidden is what a host hears of a server that is not on it.
var forbidden = apierrors.NewForbidden(servers, "any", errors.New("another host"))

// A VM has come from another host, and spec.host follows when the migration is over,
// after whatever time.
func TestAReportThatIsRefusedArrivesWithinFiveSecondsOfBeingRight(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 10 * time.Second, 17*time.Minute + 300*time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			report(t, func(r *reporting) {
				r.decide = func(string, string) *apierrors.StatusError { return forbidden }
				r.learns(vm("b", "RUNNING"))
				r.pass(after)
				r.decide = nil
				r.want(len(r.bodies))
				r.pass(5 * time.Second)
				r.want(1)
			})
		})
	}
}

// That many VMs are refused costs the API server little, whatever their number, and when
// the reason of all of them ends, all of them arrive soon.
func TestManyRefusedReportsAreTriedInTurnAndArriveTogether(t *testing.T) {
	const many = 200
	var all []VM
	for _, name := range numbered(many, "vm-%d") {
		all = append(all, vm(name, "RUNNING"))
	}
	report(t, func(r *reporting) {
		r.decide = func(string, string) *apierrors.StatusError { return forbidden }
		r.learns(all...)
		r.pass(5 * time.Second)
		if n := len(r.bodies); n < many || n > many+10 {
			r.Errorf("%d requests at first", n)
		}
		r.want(len(r.bodies))
		r.pass(10 * time.Minute)
		if n := len(r.bodies); n > int(10*time.Minute/retryGap)+1 {
			r.Errorf("%d requests in ten minutes", n)
		}
		tries := map[string]int{}
		for _, request := range r.requests {
			tries[request.URL.Path]++
		}
		if len(tries) != many {
			r.Errorf("%d of %d have had a turn", len(tries), many)
		}
		arrived := map[string]bool{}
		r.decide = func(server, _ string) *apierrors.StatusError {
			arrived[server] = true
			return nil
		}
		r.pass(5 * time.Second)
		if len(arrived) != many {
			r.Errorf("%d of %d have arrived after five seconds", len(arrived), many)
		}
	})
}

func TestARefusedReportHoldsUpNoOther(t *testing.T) {
	report(t, func(r *reporting) {
		r.decide = func(server, _ string) *apierrors.StatusError {
			if server == "odd" {
				return apierrors.NewInvalid(v1alpha1.SchemeGroupVersion.WithKind("Server").GroupKind(), "odd", nil)
			}
			return nil
		}
		r.learns(vm("odd", "RUNNING"), vm("a", "RUNNING"), vm("b", "RUNNING"))
		r.want(3)
		r.learns(vm("odd", "RUNNING"), vm("a", "SHUTDOWN"), vm("b", "RUNNING"))
		r.want(1)
	})
}

func TestWhatTheAPIServerDoesNotTakeIsReportedWithoutWhatIsDecoration(t *testing.T) {
	report(t, func(r *reporting) {
		r.decide = func(_, body string) *apierrors.StatusError {
			if strings.Contains(body, "networks") {
				return apierrors.NewInvalid(v1alpha1.SchemeGroupVersion.WithKind("Server").GroupKind(), "a", nil)
			}
			return nil
		}
		odd := vm("a", "SHUTDOWN")
		odd.State, odd.TaskState = "SHUTOFF", "a-rule-of-tomorrow"
		odd.Networks = []v1alpha1.ServerNetwork{network("x", "10.0.0.4")}
		r.learns(odd)
		if len(r.bodies) != 2 || !strings.Contains(r.bodies[1], `"status":{"state":"SHUTOFF","powerState":"SHUTDOWN"}}`) {
			r.Errorf("reported %q", r.bodies)
		}
		r.log.want(r.T, "reported without networks and task state")
		r.pass(2 * reportAgainAfter)
		r.log.want(r.T, "reported without networks and task state")
	})
}

func TestReporterNotesOnceWhatItLeavesOut(t *testing.T) {
	odd := vm("a", "RUNNING")
	odd.Networks = []v1alpha1.ServerNetwork{network("x", "dhcp")}
	report(t, func(r *reporting) {
		r.want(1)
		r.log.want(r.T, "is not an IP address")
		odd.PowerState = "SHUTDOWN"
		r.learns(odd)
		r.want(1)
		r.log.want(r.T, "is not an IP address")
	}, odd)
}

func TestReporterEndsWithTheErrorOfTheDriver(t *testing.T) {
	broken := errors.New("no hypervisor")
	synctest.Test(t, func(t *testing.T) {
		r := NewReporter(brokenDriver{broken}, nil, newLogBook().Logger)
		if err := r.Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

type brokenDriver struct{ err error }

func (d brokenDriver) Run(context.Context, func([]VM)) error { return d.err }
