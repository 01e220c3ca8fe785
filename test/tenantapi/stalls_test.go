// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// latencies are how long the requests of a victim took.
type latencies []time.Duration

func (l latencies) worst() time.Duration { return slices.Max(l) }

func (l latencies) String() string {
	s := slices.Sorted(slices.Values(l))
	return fmt.Sprintf("%d requests, median %s, worst %s", len(s), s[len(s)/2].Round(time.Millisecond), s[len(s)-1].Round(time.Millisecond))
}

func (l latencies) median() time.Duration { return slices.Sorted(slices.Values(l))[len(l)/2] }

// times is how many times as long l are as other: by their medians or by the least of each,
// since what else runs on the machine adds to the one or the other.
func (l latencies) times(other latencies) float64 {
	return min(float64(l.median())/float64(other.median()), float64(slices.Min(l))/float64(slices.Min(other)))
}

// suffer lets a victim list and get until enough says so.
func suffer(t *testing.T, victim *person, namespace string, enough func(n int) bool) (l latencies) {
	t.Helper()
	for !enough(len(l)) {
		for _, path := range []string{pathOf(namespace), pathOf(namespace, "web"), pathOf(namespace) + "?resourceVersion=0"} {
			began := time.Now()
			if a := victim.get(t, path, ""); a.code != http.StatusOK {
				t.Errorf("the victim's %s is answered %d: %s", path, a.code, a.body)
			}
			l = append(l, time.Since(began))
		}
	}
	return l
}

// manyServers makes n servers in a namespace.
func manyServers(t *testing.T, namespace string, n int) {
	t.Helper()
	var making sync.WaitGroup
	next := atomic.Int64{}
	for range 8 {
		making.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				s := &computev1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("web-%d", i), Namespace: namespace, Labels: map[string]string{"app": "web"}}}
				s.Spec.Host = "host-1"
				if err := env.admin.Create(t.Context(), s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	making.Wait()
}

// Nothing that one caller asks makes another wait. The attacker's rights are those of
// every owner: view, in a namespace.
func TestNoRequestOfOneCallerStallsAnother(t *testing.T) {
	const servers = 1000
	home, other := newNamespace(t), newNamespace(t)
	putServer(t, home, "web", "host-1", withHostStatus(computev1alpha1.HostStatusUp))
	manyServers(t, other, servers)
	victim, attacker := newPerson(t), newPerson(t)
	bind(t, victim, viewer, home)
	bind(t, attacker, viewer, other)
	expect.Eventually(t, patience, func() error {
		if n := len(attacker.list(t, other, "resourceVersion=0").Items); n < servers {
			return fmt.Errorf("the view has %d servers", n)
		}
		return nil
	})
	future := "?resourceVersion=99999999999"
	monster := make([]string, 40_000)
	for i := range monster {
		monster[i] = fmt.Sprintf("!a%d", i)
	}
	oneOf := func(codes ...int) func(answer) error {
		return func(a answer) error {
			if !slices.Contains(codes, a.code) {
				return fmt.Errorf("answered %d: %.300s", a.code, a.body)
			}
			return nil
		}
	}
	const list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	for _, attack := range []struct {
		name, path string
		atOnce     int
		// within is how long one request may take, at most; a watch ends by itself.
		within time.Duration
		check  func(answer) error
	}{
		{"four lists of the future", pathOf(other) + future, 4, 10 * time.Second, oneOf(http.StatusGatewayTimeout, http.StatusTooManyRequests)},
		{"lists of the future", pathOf(other) + future, 60, time.Minute, oneOf(http.StatusGatewayTimeout, http.StatusTooManyRequests)},
		{"gets of the future", pathOf(other, "web-1") + future, 150, time.Minute, oneOf(http.StatusGatewayTimeout, http.StatusTooManyRequests)},
		{"monstrous selectors", pathOf(other) + "?labelSelector=" + url.QueryEscape(strings.Join(monster, ",")), 4, 10 * time.Second, oneOf(http.StatusBadRequest)},
		{"monstrous sets", pathOf(other) + "?labelSelector=" + url.QueryEscape("a in ("+strings.ReplaceAll(strings.Join(monster, ","), "!", "")+")"), 4, 10 * time.Second, oneOf(http.StatusBadRequest)},
		{"WatchLists", pathOf(other) + "?watch=true&timeoutSeconds=5&" + list, 100, time.Minute, func(a answer) error {
			if n := bytes.Count(a.body, []byte(`"type":"ADDED"`)); n > servers {
				return fmt.Errorf("the watch has sent %d servers", n)
			}
			// Its own timeout may come before its turn.
			return oneOf(http.StatusOK, http.StatusTooManyRequests, http.StatusGatewayTimeout)(a)
		}},
		{"watches that begin with a list", pathOf(other) + "?watch=true&timeoutSeconds=5", 100, time.Minute, oneOf(http.StatusOK, http.StatusTooManyRequests, http.StatusGatewayTimeout)},
		{"large lists", pathOf(other), 60, time.Minute, oneOf(http.StatusOK, http.StatusTooManyRequests)},
	} {
		t.Run(attack.name, func(t *testing.T) {
			alone := suffer(t, victim, home, func(n int) bool { return n >= 60 })
			ctx, stop := context.WithCancel(t.Context())
			var attacking sync.WaitGroup
			var mu sync.Mutex
			answers := map[int]int{}
			var slowest time.Duration
			for range attack.atOnce {
				attacking.Go(func() {
					began := time.Now()
					a, err := attacker.try(ctx, attack.path, "")
					took := time.Since(began)
					if err != nil {
						if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					defer mu.Unlock()
					answers[a.code]++
					slowest = max(slowest, took)
					if err := attack.check(a); err != nil {
						t.Error(err)
					}
				})
			}
			ended := make(chan struct{})
			go func() { attacking.Wait(); close(ended) }()
			// Until the attack is over, or has lasted for long enough; at least 15 requests.
			limit := time.Now().Add(10 * time.Second)
			during := suffer(t, victim, home, func(n int) bool {
				select {
				case <-ended:
					return n >= 15
				default:
					return n >= 15 && time.Now().After(limit)
				}
			})
			deadline := time.AfterFunc(attack.within, stop)
			defer deadline.Stop()
			<-ended
			stop()
			t.Logf("the victim alone: %s", alone)
			t.Logf("during the attack: %s; the attacker was answered %v, at last after %s", during, answers, slowest.Round(time.Millisecond))
			if bound := max(3*time.Second, 10*alone.worst()); during.worst() > bound {
				t.Errorf("the victim waited %s; alone %s at most", during.worst(), alone.worst())
			}
			if len(answers) == 0 || slowest > attack.within {
				t.Errorf("the attacker was answered %v after %s", answers, slowest)
			}
			a, err := attacker.try(t.Context(), pathOf(other, "web-1"), "")
			expect.NoError(t, err)
			if a.code != http.StatusOK {
				t.Errorf("afterwards the attacker is answered %d: %s", a.code, a.body)
			}
		})
	}
}

// outcome is the code of an answer, or of the error that a watch ends with.
func (a answer) outcome() int {
	line, _, _ := bytes.Cut(a.body, []byte("\n"))
	var e event
	var status metav1.Status
	if a.code == http.StatusOK && json.Unmarshal(line, &e) == nil && e.Type == "ERROR" && json.Unmarshal(e.Object, &status) == nil {
		return int(status.Code)
	}
	return a.code
}

// Every parameter that a caller can send, wrong in each way, is answered as the custom
// resource answers it, and is not worth a line in the log.
func TestWrongParametersAreAnsweredAsTheCustomResourceAnswersThem(t *testing.T) {
	namespace := newNamespace(t)
	putServer(t, namespace, "web", "host-1")
	admin := administrator(t)
	custom := func(path string) string {
		return strings.Replace(path, groupPath, "/apis/compute.hoststatus.dev/v1alpha1", 1)
	}
	logFile := filepath.Join(env.dir, "tenant-apiserver-0.log")
	before, err := os.ReadFile(logFile)
	expect.NoError(t, err)
	numbers := []string{"abc", "-1", "0", "00", "1", "1.5", "0x10", "99999999", "99999999999999999999999", "", "%20", "%00", "1;2", "a,b"}
	queries := []string{"", "nonsense=1", "pretty=maybe", "export=true", "dryRun=All", "fieldManager=x", "resourceVersion=1&resourceVersion=abc"}
	for _, n := range numbers {
		queries = append(queries, "resourceVersion="+n)
	}
	lists := []string{"watch=maybe&timeoutSeconds=1"}
	for _, match := range []string{"Exact", "NotOlderThan", "Nonsense", ""} {
		for _, version := range []string{"", "0", "1", "abc", "99999999"} {
			lists = append(lists, "resourceVersionMatch="+match+"&resourceVersion="+version)
		}
		lists = append(lists, "resourceVersionMatch="+match+"&sendInitialEvents=true", "resourceVersionMatch="+match+"&sendInitialEvents=false")
	}
	for _, n := range numbers {
		lists = append(lists, "limit="+n, "timeoutSeconds="+n, "continue="+n, "sendInitialEvents="+n, "allowWatchBookmarks="+n)
	}
	lists = append(lists, "continue=e30", "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYSJ9&resourceVersion=1", "limit=1&resourceVersion=0&continue=abc")
	for _, selector := range []string{"a", "a=b", "a==b,c!=d", "a in (b", "a in ()", "a notin (b,c)", "!a", "!!a", "=", ",", "a,", "a=b=c", "a>1", "a>b", "-=-", "a/b/c=d", "a\\,b=c", strings.Repeat("x", 300), "metadata.name=web", "metadata.name=", "metadata.namespace=" + namespace, "spec.host=host-1", "status.nonsense=x"} {
		for _, parameter := range []string{"labelSelector", "fieldSelector"} {
			lists = append(lists, parameter+"="+url.QueryEscape(selector))
		}
	}
	one, all := pathOf(namespace, "web"), pathOf(namespace)
	var paths []string
	for _, q := range queries {
		paths = append(paths, one+"?"+q, pathOf(namespace, "web", "status")+"?"+q, all+"?"+q, all+"?watch=true&timeoutSeconds=1&"+q)
	}
	for _, q := range lists {
		paths = append(paths, all+"?"+q)
		if !strings.Contains(q, "timeoutSeconds") {
			paths = append(paths, all+"?watch=true&timeoutSeconds=1&"+q)
		}
	}
	// What the view answers differently, and why.
	differs := func(path string, view, custom int) string {
		switch {
		case strings.Contains(path, "fieldSelector=spec.host"):
			return "only the custom resource has spec.host"
		case view == http.StatusBadRequest && custom >= http.StatusInternalServerError:
			return "kube-apiserver calls the caller's mistake its own"
		}
		return ""
	}
	var asking sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, path := range paths {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			ask := func(path string) answer {
				a, err := admin.try(t.Context(), path, "")
				if err != nil {
					t.Errorf("%s: %v", path, err)
				}
				return a
			}
			view, custom := ask(path), ask(custom(path))
			got, want := view.outcome(), custom.outcome()
			switch why := differs(path, got, want); {
			case got >= http.StatusInternalServerError && got != http.StatusGatewayTimeout:
				t.Errorf("%s: the view answers %d: %s", path, got, view.body)
			case got != want && why == "":
				t.Errorf("%s: the view answers %d: %.300s\nthe custom resource %d: %.300s", path, got, view.body, want, custom.body)
			case got != want:
				t.Logf("%s: %d, and not %d: %s", path, got, want, why)
			}
		})
	}
	asking.Wait()
	t.Logf("%d requests", len(paths))
	after, err := os.ReadFile(logFile)
	expect.NoError(t, err)
	for line := range strings.Lines(string(after[len(before):])) {
		if strings.HasPrefix(line, "E") {
			t.Errorf("the log says: %s", line)
		}
	}
}

func TestReviewsOfTheTenantAPIHaveAPriorityLevelOfTheirOwn(t *testing.T) {
	config, err := env.cluster.ConfigFor(fleet.TenantAPIUser, fleet.TenantAPIGroups...)
	expect.NoError(t, err)
	server := personWith(t, fleet.TenantAPIUser, config)
	review := `{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":"ann","resourceAttributes":{"verb":"get","group":"tenant.hoststatus.dev","resource":"servers","namespace":"default"}}}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, env.cluster.URL+"/apis/authorization.k8s.io/v1/subjectaccessreviews", strings.NewReader(review))
	expect.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := server.http.Do(request)
	expect.NoError(t, err)
	expect.NoError(t, response.Body.Close())
	out, err := env.kubectl(t.Context(), "get", "prioritylevelconfigurations", "hoststatus-reviews", "-o", "jsonpath={.metadata.uid}").Output()
	expect.NoError(t, err)
	if got := response.Header.Get("X-Kubernetes-PF-PriorityLevel-UID"); response.StatusCode != http.StatusCreated || got == "" || got != string(out) {
		t.Errorf("a review is answered %d, at the level %s, not at %s", response.StatusCode, got, out)
	}
}
