// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	testingclock "k8s.io/utils/clock/testing"
)

// fakeAuthorizer allows what is listed as subresource/namespace/name, and fails
// while it is broken.
type fakeAuthorizer struct {
	authorizer.Authorizer
	mu     sync.Mutex
	allow  map[string]bool
	broken bool
	asked  []string
}

func (f *fakeAuthorizer) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := fmt.Sprintf("%s/%s/%s", a.GetSubresource(), a.GetNamespace(), a.GetName())
	f.asked = append(f.asked, q)
	if f.broken {
		return authorizer.DecisionNoOpinion, "", errors.New("unreachable")
	}
	if a.GetVerb() != "get" || a.GetAPIGroup() != "tenant.hoststatus.dev" || a.GetResource() != "servers" || !a.IsResourceRequest() {
		return authorizer.DecisionNoOpinion, "", fmt.Errorf("a strange question: %v", a)
	}
	if f.allow[q] || f.allow[a.GetSubresource()+"//"] || f.allow[fmt.Sprintf("%s/%s/", a.GetSubresource(), a.GetNamespace())] {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (f *fakeAuthorizer) set(allow ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allow = map[string]bool{}
	for _, q := range allow {
		f.allow[q] = true
	}
}

func (f *fakeAuthorizer) setBroken(broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

func (f *fakeAuthorizer) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

var ann = &user.DefaultInfo{Name: "ann", Groups: []string{"a", "b"}}

func TestAGrantIsWhatTheAuthorizerAllows(t *testing.T) {
	for name, c := range map[string]struct {
		allow           []string
		namespace, name string
		want            grant
	}{
		"nothing":                 {nil, "ns", "", grantNone},
		"status in the namespace": {[]string{"status/ns/"}, "ns", "", grantFull},
		"status in the namespace, asked for one server":  {[]string{"status/ns/"}, "ns", "web", grantFull},
		"status in another namespace":                    {[]string{"status/other/"}, "ns", "", grantNone},
		"status everywhere":                              {[]string{"status//"}, "ns", "", grantFull},
		"status in one namespace, asked for all":         {[]string{"status/ns/"}, "", "", grantNone},
		"unknown in the namespace":                       {[]string{"unknownstatus/ns/"}, "ns", "", grantUnknown},
		"both":                                           {[]string{"unknownstatus/ns/", "status/ns/"}, "ns", "", grantFull},
		"status of one server, asked for it":             {[]string{"status/ns/web"}, "ns", "web", grantFull},
		"status of one server, asked for another":        {[]string{"status/ns/web"}, "ns", "db", grantNone},
		"status of one server, asked for all":            {[]string{"status/ns/web"}, "ns", "", grantNone},
		"unknown of one server, asked for it":            {[]string{"unknownstatus/ns/web"}, "ns", "web", grantUnknown},
		"unknown for all, status of one, asked for it":   {[]string{"unknownstatus/ns/", "status/ns/web"}, "ns", "web", grantFull},
		"unknown for all, status of one, asked for more": {[]string{"unknownstatus/ns/", "status/ns/web"}, "ns", "", grantUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeAuthorizer{}
			f.set(c.allow...)
			got, err := newGrants(f, testingclock.NewFakePassiveClock(instant)).of(t.Context(), ann, c.namespace, c.name)
			if err != nil || got != c.want {
				t.Errorf("grant %d, %v; want %d", got, err, c.want)
			}
		})
	}
}

func TestAnErrorOfTheAuthorizerHidesAndIsNotRemembered(t *testing.T) {
	f := &fakeAuthorizer{broken: true}
	f.set("status/ns/")
	g := newGrants(f, testingclock.NewFakePassiveClock(instant))
	if got, err := g.of(t.Context(), ann, "ns", ""); got != grantNone || err == nil {
		t.Errorf("grant %d, error %v", got, err)
	}
	if s, err := g.set(t.Context(), ann, "", "", func() []string { return []string{"ns"} }); err == nil || s.column || s.in("ns") != grantNone {
		t.Errorf("set %+v, error %v", s, err)
	}
	f.setBroken(false)
	if got, err := g.of(t.Context(), ann, "ns", ""); got != grantFull || err != nil {
		t.Errorf("once it answers: grant %d, error %v", got, err)
	}
}

func TestAVerdictHoldsForTwoSeconds(t *testing.T) {
	f := &fakeAuthorizer{}
	f.set("status/ns/")
	c := testingclock.NewFakePassiveClock(instant)
	g := newGrants(f, c)
	check := func(when string, want grant) {
		t.Helper()
		if got, err := g.of(t.Context(), ann, "ns", ""); got != want || err != nil {
			t.Errorf("%s: grant %d, %v; want %d", when, got, err, want)
		}
	}
	check("at first", grantFull)
	f.set()
	c.SetTime(instant.Add(verdictTTL - 1))
	check("right before it lapses", grantFull)
	if f.count() != 1 {
		t.Errorf("asked %v", f.asked)
	}
	c.SetTime(instant.Add(verdictTTL))
	check("when it has lapsed", grantNone)
}

func TestANoAboutOneServerHoldsForFiveSecondsAndAYesForTwo(t *testing.T) {
	f := &fakeAuthorizer{}
	c := testingclock.NewFakePassiveClock(instant)
	g := newGrants(f, c)
	for _, step := range []struct {
		at    time.Duration
		allow string
		want  grant
		// asked is how often the authorizer has been asked for the status of this server.
		asked int
	}{
		{0, "", grantNone, 1},
		{verdictTTL, "status/ns/web-1", grantNone, 1},
		{namedDenialTTL - 1, "status/ns/web-1", grantNone, 1},
		{namedDenialTTL, "status/ns/web-1", grantFull, 2},
		{namedDenialTTL + verdictTTL - 1, "", grantFull, 2},
		{namedDenialTTL + verdictTTL, "", grantNone, 3},
		{namedDenialTTL + 2*verdictTTL, "status/ns/", grantFull, 3},
	} {
		f.set(step.allow)
		c.SetTime(instant.Add(step.at))
		got, err := g.of(t.Context(), ann, "ns", "web-1")
		asked := 0
		for _, q := range f.asked {
			if q == "status/ns/web-1" {
				asked++
			}
		}
		if got != step.want || err != nil || asked != step.asked {
			t.Errorf("after %v: grant %d, %v, asked %d times; want %d and %d", step.at, got, err, asked, step.want, step.asked)
		}
	}
}

func TestManyWhoAskTheSameAskOnce(t *testing.T) {
	f := &fakeAuthorizer{}
	f.set("status/ns/")
	g := newGrants(f, testingclock.NewFakePassiveClock(instant))
	var asking sync.WaitGroup
	for range 100 {
		asking.Go(func() {
			if got, err := g.of(context.Background(), ann, "ns", ""); got != grantFull || err != nil {
				t.Errorf("grant %d, %v", got, err)
			}
		})
	}
	asking.Wait()
	if f.count() != 1 {
		t.Errorf("asked %d times", f.count())
	}
}

func TestAListOfAllNamespacesAsksClusterWideFirst(t *testing.T) {
	namespaces := func() []string { return []string{"a", "b", "c"} }
	for name, c := range map[string]struct {
		allow []string
		asked int
		want  map[string]grant
		all   grant
		col   bool
	}{
		"everywhere":           {[]string{"status//"}, 1, map[string]grant{"a": grantFull, "b": grantFull, "new": grantFull}, grantFull, true},
		"in one":               {[]string{"status/b/"}, 2 + 1 + 2*2, map[string]grant{"a": grantNone, "b": grantFull, "new": grantNone}, grantNone, true},
		"unknown and one":      {[]string{"unknownstatus//", "status/b/"}, 2 + 1 + 2*2, map[string]grant{"a": grantUnknown, "b": grantFull}, grantUnknown, true},
		"nowhere":              {nil, 2 + 3*2, map[string]grant{"a": grantNone, "b": grantNone}, grantNone, false},
		"in one without rows":  {[]string{"status/other/"}, 2 + 3*2, map[string]grant{"a": grantNone}, grantNone, false},
		"unknown in one":       {[]string{"unknownstatus/c/"}, 2 + 3*2, map[string]grant{"a": grantNone, "c": grantUnknown}, grantNone, true},
		"one server in a list": {[]string{"status/a/web"}, 2 + 3*2, map[string]grant{"a": grantNone}, grantNone, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeAuthorizer{}
			f.set(c.allow...)
			s, err := newGrants(f, testingclock.NewFakePassiveClock(instant)).set(t.Context(), ann, "", "", namespaces)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]grant{}
			for namespace := range c.want {
				got[namespace] = s.in(namespace)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("grants (-want +got):\n%s", diff)
			}
			if s.wide() != c.all || s.column != c.col || f.count() != c.asked {
				t.Errorf("cluster-wide %d, column %t, %d questions: %v", s.wide(), s.column, f.count(), f.asked)
			}
		})
	}
}

func TestTwoUsersShareAVerdictOnlyIfNobodyCanTellThemApart(t *testing.T) {
	same := identity(&user.DefaultInfo{Name: "ann", Groups: []string{"b", "a"}, Extra: map[string][]string{"k": {"v"}, "l": nil}})
	if same != identity(&user.DefaultInfo{Name: "ann", Groups: []string{"a", "b"}, Extra: map[string][]string{"l": nil, "k": {"v"}}}) {
		t.Error("the order of groups makes two users")
	}
	for _, other := range []*user.DefaultInfo{
		{Name: "bob", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v"}, "l": nil}},
		{Name: "ann", Groups: []string{"a"}, Extra: map[string][]string{"k": {"v"}, "l": nil}},
		{Name: "ann", Groups: []string{"ab"}, Extra: map[string][]string{"k": {"v"}, "l": nil}},
		{Name: "ann", UID: "1", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v"}, "l": nil}},
		{Name: "ann", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"w"}, "l": nil}},
		{Name: "ann", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": nil, "l": {"v"}}},
		{Name: "ann", Groups: []string{"a", "b"}},
	} {
		if identity(other) == same {
			t.Errorf("%v is taken for another user", other)
		}
	}
}

func TestTheMemoryOfVerdictsIsBounded(t *testing.T) {
	f := &fakeAuthorizer{}
	c := testingclock.NewFakePassiveClock(instant)
	g := newGrants(f, c)
	for i := range maxVerdicts {
		g.verdicts[question{user: sha256.Sum256([]byte{byte(i % 7)}), namespace: fmt.Sprint(i)}] = &verdict{until: instant.Add(verdictTTL)}
	}
	c.SetTime(instant.Add(time.Hour))
	if _, err := g.of(t.Context(), ann, "ns", ""); err != nil {
		t.Fatal(err)
	}
	if len(g.verdicts) > 2 {
		t.Errorf("%d verdicts are remembered an hour later", len(g.verdicts))
	}
	for i := range 1000 { // Names that nobody asks for again.
		if _, err := g.of(t.Context(), ann, "ns", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	c.SetTime(instant.Add(time.Hour + sweepInterval))
	if _, err := g.of(t.Context(), ann, "ns", ""); err != nil {
		t.Fatal(err)
	}
	if len(g.verdicts) > 2 {
		t.Errorf("%d verdicts are remembered %s later", len(g.verdicts), sweepInterval)
	}
}
