// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"time"

	testclock "k8s.io/utils/clock/testing"
)

func TestAConnectionIsAskedToEndOnceItIsOld(t *testing.T) {
	now := testclock.NewFakeClock(time.Now())
	c := newConnections(now)
	for _, step := range []struct {
		after   time.Duration
		address string
		want    bool
	}{
		{0, "a:1", false},
		{connectionAge - time.Second, "a:1", false},
		{0, "b:1", false},
		{time.Second, "a:1", true},
		{0, "a:1", false}, // Already asked.
		{0, "b:1", false},
		{connectionAge, "b:1", true},
	} {
		now.Step(step.after)
		if got := c.old(step.address); got != step.want {
			t.Errorf("%+v: old is %v", step, got)
		}
	}
}

func TestSoManyConnectionsAreRememberedAndNoMore(t *testing.T) {
	c := newConnections(testclock.NewFakeClock(time.Now()))
	for i := range 3 * connectionsKnown {
		c.old(fmt.Sprint(i))
		if len(c.since) > connectionsKnown {
			t.Fatalf("%d connections are remembered", len(c.since))
		}
	}
}

// Over HTTP/2, as kube-apiserver has it: the old connection answers, and the next request
// goes over a new one.
func TestAfterAWhileAClientHasANewConnectionAndNoRequestFails(t *testing.T) {
	now := testclock.NewFakeClock(time.Now())
	server := httptest.NewUnstartedServer(newConnections(now).handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the request came by %s", r.Proto)
		}
	})))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	reused := func() (reused bool) {
		t.Helper()
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return reused
	}
	reused()
	for range 3 {
		if !reused() {
			t.Error("a young connection is not used again")
		}
	}
	now.Step(connectionAge)
	if !reused() {
		t.Error("the old connection does not answer")
	}
	// The client learns of it with the answer, or a moment later.
	deadline := time.Now().Add(time.Minute)
	for reused() {
		if time.Now().After(deadline) {
			t.Fatal("the client goes on with the old connection")
		}
	}
}
