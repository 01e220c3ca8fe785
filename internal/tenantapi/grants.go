// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

const (
	// verdictTTL is for how long an answer of the authorizer holds. Together with
	// recheckInterval it keeps a revocation's way to a running watch under 10 s.
	verdictTTL = 2 * time.Second
	// namedDenialTTL is for how long a no about one server holds. It is longer, because of
	// callers without a grant each name is asked about, and hides nothing that is granted for
	// long: together with recheckInterval, a new grant's way to a running watch stays under 10 s.
	namedDenialTTL = 5 * time.Second
	// authorizationTimeout is how long the authorizer may take to answer.
	authorizationTimeout = 5 * time.Second
	// maxQuestions is how many questions of one request the authorizer is asked at
	// once. A list of all namespaces asks one or two for each.
	maxQuestions = 64
	// maxVerdicts bounds the memory of answers. Those that have lapsed are dropped every
	// sweepInterval.
	maxVerdicts   = 100_000
	sweepInterval = 10 * time.Second
)

// grant is how much a caller sees of a server's host.
type grant int

const (
	// grantNone hides every host field.
	grantNone grant = iota
	// grantUnknown shows them while the host status is UNKNOWN.
	grantUnknown
	// grantFull shows them.
	grantFull
)

// shows reports whether the host fields are in the answer.
func (g grant) shows(status *computev1alpha1.HostStatus) bool {
	switch g {
	case grantFull:
		return true
	case grantUnknown:
		return status != nil && *status == computev1alpha1.HostStatusUnknown
	default:
		return false
	}
}

// grants asks the server's authorizer, and remembers its answers for a moment.
type grants struct {
	authorizer authorizer.Authorizer
	clock      clock.PassiveClock

	mu       sync.Mutex
	verdicts map[question]*verdict
	// swept is when those that have lapsed were dropped last.
	swept time.Time
}

// question is what the authorizer is asked: may this user `get` this subresource
// of a server, or with no name, of every server; of a namespace, or of all.
type question struct {
	// user is the hash of an identity: those of people in many groups are long.
	user                         [sha256.Size]byte
	subresource, namespace, name string
}

// verdict is an answer, or one that is on its way.
type verdict struct {
	done    chan struct{}
	allowed bool
	err     error
	// until is when it lapses. Once it is there, only the grants' lock protects that.
	until time.Time
}

func newGrants(a authorizer.Authorizer, c clock.PassiveClock) *grants {
	return &grants{authorizer: a, clock: c, verdicts: map[question]*verdict{}}
}

// of returns the grant of u in namespace, "" for all of them together, on the server
// called name, "" for every server. With an error the grant is what is certain: an answer
// that did not come counts as no. What is asked depends on the caller alone, never on the
// server, or the time that it takes would reveal something of the server.
func (g *grants) of(ctx context.Context, u user.Info, namespace, name string) (grant, error) {
	// One server is asked about only for callers that were refused all of them: a question
	// without a name means every server, and many requests share its answer.
	full, fullErr := g.allowed(ctx, u, v1alpha1.SubresourceStatus, namespace, "")
	if full {
		return grantFull, nil
	}
	var asking sync.WaitGroup
	if name != "" {
		asking.Go(func() { full, fullErr = g.allowed(ctx, u, v1alpha1.SubresourceStatus, namespace, name) })
	}
	unknown, err := g.allowed(ctx, u, v1alpha1.SubresourceUnknownStatus, namespace, "")
	if name != "" && !unknown {
		unknown, err = g.allowed(ctx, u, v1alpha1.SubresourceUnknownStatus, namespace, name)
	}
	asking.Wait()
	switch {
	case full:
		return grantFull, nil
	case unknown:
		return grantUnknown, fullErr
	default:
		return grantNone, errors.Join(fullErr, err)
	}
}

// ofNamespaces returns the grant in each namespace, asked at the same time.
func (g *grants) ofNamespaces(ctx context.Context, u user.Info, namespaces []string, name string) (map[string]grant, error) {
	var (
		mu      sync.Mutex
		asking  sync.WaitGroup
		answers = make(map[string]grant, len(namespaces))
		first   error
		slots   = make(chan struct{}, maxQuestions)
	)
	for _, namespace := range namespaces {
		slots <- struct{}{}
		if ctx.Err() != nil {
			// Nobody waits for the rest of the answers.
			<-slots
			mu.Lock()
			first = cmp.Or(first, context.Cause(ctx))
			mu.Unlock()
			break
		}
		asking.Go(func() {
			defer func() { <-slots }()
			answer, err := g.of(ctx, u, namespace, name)
			mu.Lock()
			defer mu.Unlock()
			answers[namespace] = answer
			if err != nil && first == nil {
				first = err
			}
		})
	}
	asking.Wait()
	return answers, first
}

func (g *grants) allowed(ctx context.Context, u user.Info, subresource, namespace, name string) (bool, error) {
	if err := ctx.Err(); err != nil {
		// A question runs to its end, so none may begin for a request that has ended.
		return false, fmt.Errorf("asking for the grant of servers/%s: %w", subresource, err)
	}
	q := question{sha256.Sum256([]byte(identity(u))), subresource, namespace, name}
	v, mine := g.lookup(q)
	if mine {
		// The answer is for all callers that wait, so one caller that hangs up must not end
		// the question.
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), authorizationTimeout)
			defer cancel()
			v.allowed, v.err = g.ask(ctx, u, q)
			switch {
			case v.err != nil:
				g.forget(q, v)
			case !v.allowed && q.name != "":
				g.keep(v, namedDenialTTL-verdictTTL)
			}
			close(v.done)
		}()
	}
	select {
	case <-v.done:
		return v.allowed, v.err
	case <-ctx.Done():
		return false, fmt.Errorf("asking for the grant of servers/%s: %w", subresource, ctx.Err())
	}
}

// lookup returns the verdict on q, and whether the caller has to ask for it.
func (g *grants) lookup(q question) (v *verdict, mine bool) {
	now := g.clock.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if v, ok := g.verdicts[q]; ok && now.Before(v.until) {
		return v, false
	}
	if full := len(g.verdicts) >= maxVerdicts; full || now.Sub(g.swept) >= sweepInterval {
		g.swept = now
		maps.DeleteFunc(g.verdicts, func(_ question, v *verdict) bool { return !now.Before(v.until) })
		if len(g.verdicts) >= maxVerdicts {
			clear(g.verdicts)
		}
	}
	v = &verdict{done: make(chan struct{}), until: now.Add(verdictTTL)}
	g.verdicts[q] = v
	return v, true
}

// keep lets a verdict hold for longer than others.
func (g *grants) keep(v *verdict, longer time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v.until = v.until.Add(longer)
}

// forget drops a verdict without an answer, so that the next caller asks again.
func (g *grants) forget(q question, v *verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.verdicts[q] == v {
		delete(g.verdicts, q)
	}
}

func (g *grants) ask(ctx context.Context, u user.Info, q question) (bool, error) {
	decision, _, err := g.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User:            u,
		Verb:            "get",
		Namespace:       q.namespace,
		APIGroup:        v1alpha1.SchemeGroupVersion.Group,
		APIVersion:      v1alpha1.SchemeGroupVersion.Version,
		Resource:        resourceServers,
		Subresource:     q.subresource,
		Name:            q.name,
		ResourceRequest: true,
	})
	// An authorizer may allow, and report an error of one of its parts.
	if decision == authorizer.DecisionAllow {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking for the grant of servers/%s: %w", q.subresource, err)
	}
	return false, nil
}

// identity is a string that two users share only if an authorizer cannot tell them
// apart.
func identity(u user.Info) string {
	var b strings.Builder
	part := func(s string) { _, _ = fmt.Fprintf(&b, "%d:%s", len(s), s) }
	part(u.GetName())
	part(u.GetUID())
	groups := slices.Sorted(slices.Values(u.GetGroups()))
	_, _ = fmt.Fprintf(&b, "%d;", len(groups))
	for _, group := range groups {
		part(group)
	}
	extra := u.GetExtra()
	keys := make([]string, 0, len(extra))
	for k := range extra {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		part(k)
		_, _ = fmt.Fprintf(&b, "%d;", len(extra[k]))
		for _, value := range extra[k] {
			part(value)
		}
	}
	return b.String()
}

// grantSet is what a caller may see in the namespaces of one request.
type grantSet struct {
	// all is the grant for all namespaces together; not asked for within one.
	all         grant
	byNamespace map[string]grant
	// within is set if the request is for one namespace.
	within bool
	// column is set if tables have the host's column. It follows the grants, never the
	// rows: an empty list looks like a full one.
	column bool
}

// set asks for the grants of a request for namespace, or for all if it is "", on
// the server called name or on every server. namespaces are those that exist.
func (g *grants) set(ctx context.Context, u user.Info, namespace, name string, namespaces func() []string) (grantSet, error) {
	if namespace != "" {
		one, err := g.of(ctx, u, namespace, name)
		return grantSet{within: true, byNamespace: map[string]grant{namespace: one}, column: one != grantNone}, err
	}
	all, err := g.of(ctx, u, "", name)
	s := grantSet{all: all, byNamespace: map[string]grant{}}
	if all != grantFull {
		var nsErr error
		s.byNamespace, nsErr = g.ofNamespaces(ctx, u, namespaces(), name)
		if err == nil {
			err = nsErr
		}
	}
	s.column = s.any()
	return s, err
}

// lookup returns the grant in namespace; ok is false if it has not been asked for.
func (s grantSet) lookup(namespace string) (g grant, ok bool) {
	if s.all == grantFull {
		return grantFull, true
	}
	g, ok = s.byNamespace[namespace]
	return g, ok
}

// in returns the grant in namespace, none if it has not been asked for.
func (s grantSet) in(namespace string) grant {
	g, _ := s.lookup(namespace)
	return g
}

// any reports whether host status may be in the answer at all.
func (s grantSet) any() bool {
	if s.all != grantNone {
		return true
	}
	for _, g := range s.byNamespace {
		if g != grantNone {
			return true
		}
	}
	return false
}

// wide returns the grant that holds in all that the request is for.
func (s grantSet) wide() grant {
	if !s.within {
		return s.all
	}
	for _, g := range s.byNamespace {
		return g
	}
	return grantNone
}

// same reports whether both grant the same.
func (s grantSet) same(other grantSet) bool {
	return s.all == other.all && maps.Equal(s.byNamespace, other.byNamespace)
}
