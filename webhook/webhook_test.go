// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/heartbeat"
)

func service(modify ...func(*v1alpha1.ComputeService)) *v1alpha1.ComputeService {
	s := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: "compute-1", UID: "uid"}}
	for _, m := range modify {
		m(s)
	}
	return s
}

func down(value *bool) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) { s.Spec.ForcedDown = value }
}

func leaseIn(namespace string) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) {
		s.Spec.LeaseRef = &v1alpha1.LeaseReference{Namespace: namespace}
	}
}

func leaseNamed(name string) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) { s.Spec.LeaseRef = &v1alpha1.LeaseReference{Name: name} }
}

func protection(value string) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) {
		s.Annotations = map[string]string{v1alpha1.AnnotationDeletionProtection: value}
	}
}

func d(seconds int32) func(*v1alpha1.ComputeService) {
	return func(s *v1alpha1.ComputeService) { s.Spec.LeaseDurationSeconds = seconds }
}

func disabled(s *v1alpha1.ComputeService) { s.Spec.Disabled = ptr.To(true) }

func seenUp(s *v1alpha1.ComputeService) {
	s.Status.LastSeenUpTime = ptr.To(metav1.NewTime(time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)))
}

func word(r heartbeat.Reporting, sinceRenewal time.Duration) *heartbeat.Verdict {
	return &heartbeat.Verdict{Reporting: r, SinceRenewal: sinceRenewal, Duration: time.Minute}
}

func TestWhatWritersOfComputeServicesAreTold(t *testing.T) {
	const (
		stillReports = "spec.forcedDown: the host still reports (renewed 3 s ago), and DOWN says that it is off and its servers may be failed over; fence it, or set spec.disabled if it only is to be in maintenance"
		unread       = "spec.leaseRef.namespace: the manager does not read Leases in namespace elsewhere, so the host will be UNKNOWN; add the namespace to the manager's --lease-namespaces, or use one that is there: hoststatus-leases, kube-node-lease"
	)
	silent := func(last string) string {
		return "spec.forcedDown: cleared, but the host is silent (" + last + "), so it does not become UP before it reports; see that it runs, and that its agent renews Lease hoststatus-leases/compute-1"
	}
	reports := word(heartbeat.Reports, 3*time.Second)
	both := []string{"hoststatus-leases", "kube-node-lease"}
	for name, c := range map[string]struct {
		before, after *v1alpha1.ComputeService
		verdict       *heartbeat.Verdict
		namespaces    []string
		want          []string
	}{
		"forced down, and it reports":                      {before: service(), after: service(down(ptr.To(true))), verdict: reports, want: []string{stillReports}},
		"forced down, from an explicit false":              {before: service(down(ptr.To(false))), after: service(down(ptr.To(true))), verdict: reports, want: []string{stillReports}},
		"forced down again":                                {before: service(down(ptr.To(true))), after: service(down(ptr.To(true))), verdict: reports},
		"something else while forced down":                 {before: service(down(ptr.To(true))), after: service(down(ptr.To(true)), disabled), verdict: reports},
		"an explicit false for an absent flag":             {before: service(), after: service(down(ptr.To(false))), verdict: reports},
		"forced down, and it is silent":                    {before: service(), after: service(down(ptr.To(true))), verdict: word(heartbeat.Expired, time.Hour)},
		"forced down, and it is waited for":                {before: service(), after: service(down(ptr.To(true))), verdict: word(heartbeat.Waiting, -1)},
		"forced down, and only the memory says it reports": {before: service(), after: service(down(ptr.To(true))), verdict: word(heartbeat.Reports, -1)},
		"forced down, and its silence is being proven":     {before: service(), after: service(down(ptr.To(true))), verdict: word(heartbeat.Reports, 61*time.Second)},
		"forced down, and nothing is known":                {before: service(), after: service(down(ptr.To(true)))},
		"made as forced down":                              {after: service(down(ptr.To(true)))},

		"cleared, and it reports":                {before: service(down(ptr.To(true))), after: service(down(ptr.To(false))), verdict: reports},
		"cleared, and it is waited for":          {before: service(down(ptr.To(true))), after: service(), verdict: word(heartbeat.Waiting, -1)},
		"cleared, and nothing is known":          {before: service(down(ptr.To(true))), after: service()},
		"cleared by removal, and it is silent":   {before: service(down(ptr.To(true))), after: service(), verdict: word(heartbeat.Expired, 90*time.Second), want: []string{silent("renewed 90 s ago")}},
		"cleared by false, and it is silent":     {before: service(down(ptr.To(true))), after: service(down(ptr.To(false))), verdict: word(heartbeat.Expired, 3*time.Minute), want: []string{silent("renewed 3 min ago")}},
		"cleared, and silent since long before":  {before: service(down(ptr.To(true))), after: service(seenUp), verdict: word(heartbeat.Expired, -1), want: []string{silent("last seen up at 2026-10-01T12:00:00Z")}},
		"cleared, and silent, nobody says since": {before: service(down(ptr.To(true))), after: service(), verdict: word(heartbeat.Expired, -1), want: []string{silent("its Lease has expired")}},
		"cleared, and it never reported":         {before: service(down(ptr.To(true))), after: service(), verdict: word(heartbeat.NeverReported, -1), want: []string{silent("never seen to renew its Lease")}},
		"silent, and it was not forced down":     {before: service(), after: service(disabled), verdict: word(heartbeat.Expired, time.Hour)},

		"made with a Lease that nobody reads":    {after: service(leaseIn("elsewhere")), want: []string{unread}},
		"pointed at a Lease that nobody reads":   {before: service(), after: service(leaseIn("elsewhere")), want: []string{unread}},
		"applied again with such a Lease":        {before: service(leaseIn("elsewhere")), after: service(leaseIn("elsewhere"), disabled)},
		"pointed away from such a Lease":         {before: service(leaseIn("elsewhere")), after: service()},
		"pointed at another Lease":               {before: service(), after: service(leaseNamed("other"))},
		"made with the default Lease":            {after: service()},
		"made with a kubelet's Lease":            {after: service(leaseIn("kube-node-lease"))},
		"the default is written out":             {before: service(), after: service(leaseIn("hoststatus-leases"))},
		"made where the default is not read":     {after: service(), namespaces: []string{"kube-node-lease"}, want: []string{"spec.leaseRef.namespace (absent): the manager does not read Leases in namespace hoststatus-leases, so the host will be UNKNOWN; add the namespace to the manager's --lease-namespaces, or use one that is there: kube-node-lease"}},
		"protected":                              {before: service(), after: service(protection("true"))},
		"not protected any more":                 {before: service(protection("true")), after: service(protection("false"))},
		"protected by another word":              {before: service(), after: service(protection("yes")), want: []string{`metadata.annotations[compute.hoststatus.dev/deletion-protection]: "yes" does not protect from deletion; write "true"`}},
		"protected by another word all the time": {before: service(protection("yes")), after: service(protection("yes"), disabled)},
		"everything at once": {before: service(), after: service(down(ptr.To(true)), leaseIn("elsewhere"), protection("True")), verdict: reports,
			want: []string{stillReports, unread, `metadata.annotations[compute.hoststatus.dev/deletion-protection]: "True" does not protect from deletion; write "true"`}},
	} {
		t.Run(name, func(t *testing.T) {
			namespaces := c.namespaces
			if namespaces == nil {
				namespaces = both
			}
			if diff := cmp.Diff(c.want, onWrite(c.before, c.after, c.verdict, namespaces)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhoDeletesAComputeServiceIsToldOfItsServers(t *testing.T) {
	const find = "find them with: kubectl get servers.compute -A --field-selector spec.host=compute-1"
	for name, c := range map[string]struct {
		service *v1alpha1.ComputeService
		servers int
		warned  string
		refused string
	}{
		"none":                        {service: service()},
		"one":                         {service: service(), servers: 1, warned: "1 Server still names this ComputeService in spec.host, and will have no host status (HostNotFound) until the ComputeService is there again or they have moved; " + find},
		"many":                        {service: service(), servers: 300, warned: "300 Servers still name this ComputeService in spec.host, and will have no host status (HostNotFound) until the ComputeService is there again or they have moved; " + find},
		"protected, and none":         {service: service(protection("true"))},
		"protected, and some":         {service: service(protection("true")), servers: 2, refused: "2 Servers still name this ComputeService in spec.host, and its annotation compute.hoststatus.dev/deletion-protection protects it; move them first (kubectl get servers.compute -A --field-selector spec.host=compute-1), or remove the annotation"},
		"protected by a word that is": {service: service(protection("false")), servers: 1, warned: "1 Server still names this ComputeService in spec.host, and will have no host status (HostNotFound) until the ComputeService is there again or they have moved; " + find},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(onDelete(c.service, c.servers), "\n"); got != c.warned {
				t.Errorf("warned of %q, want %q", got, c.warned)
			}
			got := ""
			if err := refuseDelete(c.service, c.servers); err != nil {
				got = err.Error()
			}
			if got != c.refused {
				t.Errorf("refused because %q, want %q", got, c.refused)
			}
		})
	}
}

func TestWhoPutsAServerOnAnUnknownHostIsTold(t *testing.T) {
	on := func(host string) *v1alpha1.Server {
		return &v1alpha1.Server{Spec: v1alpha1.ServerSpec{Host: host}}
	}
	for name, c := range map[string]struct {
		before, after *v1alpha1.Server
		want          bool
	}{
		"made on a host":      {nil, on("compute-1"), true},
		"made on none":        {nil, on(""), false},
		"moved":               {on("compute-1"), on("compute-2"), true},
		"put on its first":    {on(""), on("compute-1"), true},
		"taken from its host": {on("compute-1"), on(""), false},
		"changed elsewhere":   {on("compute-1"), on("compute-1"), false},
	} {
		if got := placed(c.before, c.after); got != c.want {
			t.Errorf("%s: placed is %v", name, got)
		}
	}
	if got := onPlace(on("compute-1"), true); got != nil {
		t.Errorf("a known host: %q", got)
	}
	want := []string{`spec.host: there is no ComputeService "compute-9", so the server has no host status (HostNotFound) until there is one; see what there is with: kubectl get computeservices`}
	if diff := cmp.Diff(want, onPlace(on("compute-9"), false)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// kube-apiserver may cut what is longer.
func TestWarningsAreShort(t *testing.T) {
	const limit = 256
	warnings := append(onWrite(nil, service(leaseIn("kube-node-lease"), protection("yes")), nil, []string{"hoststatus-leases"}),
		onForcedDown(word(heartbeat.Reports, 100*time.Second)),
		onForcedDownCleared(service(seenUp), word(heartbeat.Expired, -1)))
	warnings = append(warnings, onDelete(service(), 100_000)...)
	warnings = append(warnings, onRenewals(1000*time.Second, 0, time.Hour)...)
	warnings = append(warnings, onPlace(&v1alpha1.Server{Spec: v1alpha1.ServerSpec{Host: "compute-1"}}, false)...)
	for _, w := range warnings {
		if len(w) > limit {
			t.Errorf("%d characters: %s", len(w), w)
		}
	}
}

func TestAgesAreAsAPersonWouldSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "less than 1 s ago", 999 * time.Millisecond: "less than 1 s ago", 3900 * time.Millisecond: "3 s ago",
		119 * time.Second: "119 s ago", 2 * time.Minute: "2 min ago", 119 * time.Minute: "119 min ago", 49 * time.Hour: "49 h ago",
	} {
		if got := ago(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// source is a reader and a monitor that say what they are told to.
type source struct {
	unsynced bool
	verdict  *heartbeat.Verdict
	servers  int
	hosts    []string
	err      error
	// interval and holds are those of the Lease hoststatus-leases/compute-1.
	interval, holds time.Duration
}

func (s source) Renewals(lease types.NamespacedName) (interval, holds time.Duration) {
	if lease.String() != "hoststatus-leases/compute-1" {
		return 0, 0
	}
	return s.interval, s.holds
}

func (s source) Synced() bool { return !s.unsynced }

func (s source) Verdict(_ string, uid types.UID) (heartbeat.Verdict, bool) {
	if s.verdict == nil || uid != "uid" {
		return heartbeat.Verdict{}, false
	}
	return *s.verdict, true
}

func (s source) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	for _, host := range s.hosts {
		if host == key.Name {
			return nil
		}
	}
	if s.err != nil {
		return s.err
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: "computeservices"}, key.Name)
}

func (s source) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	asked := client.ListOptions{}
	asked.ApplyOptions(options)
	if asked.FieldSelector.String() != v1alpha1.ServerHostField+"=compute-1" {
		return fmt.Errorf("asked for %v", asked.FieldSelector)
	}
	list.(*v1alpha1.ServerList).Items = make([]v1alpha1.Server, s.servers)
	return s.err
}

func (s source) serversOn(string) (int, error) { return s.servers, s.err }

// served are the rules by their paths.
type served map[string]*admission.Webhook

func (s served) Register(path string, hook http.Handler) { s[path] = hook.(*admission.Webhook) }

func serve(t *testing.T, cache, live source) served {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	rules := served{}
	Register(rules, Options{Cache: cache, Live: live, ServersOn: cache.serversOn, Monitor: cache, LeaseNamespaces: []string{v1alpha1.DefaultLeaseNamespace}, Scheme: scheme})
	return rules
}

func request(t *testing.T, operation admissionv1.Operation, before, after any) admission.Request {
	t.Helper()
	raw := func(obj any) runtime.RawExtension {
		encoded, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: encoded}
	}
	r := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{UID: "request", Operation: operation}}
	if before != nil {
		r.OldObject = raw(before)
	}
	if after != nil {
		r.Object = raw(after)
	}
	return r
}

func kindOf[T any](obj T, kind string) map[string]any {
	encoded, _ := json.Marshal(obj)
	fields := map[string]any{}
	_ = json.Unmarshal(encoded, &fields)
	fields["apiVersion"], fields["kind"] = v1alpha1.SchemeGroupVersion.String(), kind
	return fields
}

func TestWhatTheRulesAnswer(t *testing.T) {
	csvc := func(modify ...func(*v1alpha1.ComputeService)) any {
		return kindOf(service(modify...), "ComputeService")
	}
	server := func(host string) any {
		return kindOf(&v1alpha1.Server{Spec: v1alpha1.ServerSpec{Host: host}}, "Server")
	}
	away := errors.New("away")
	for name, c := range map[string]struct {
		path        string
		cache, live source
		operation   admissionv1.Operation
		old, now    any
		warned      string
		refused     string
	}{
		"a forced down host that reports": {path: pathComputeServices, cache: source{verdict: word(heartbeat.Reports, 0)},
			operation: admissionv1.Update, old: csvc(), now: csvc(down(ptr.To(true))), warned: "less than 1 s ago"},
		"one, and the monitor has not listed the Leases": {path: pathComputeServices, cache: source{verdict: word(heartbeat.Reports, 0), unsynced: true},
			operation: admissionv1.Update, old: csvc(), now: csvc(down(ptr.To(true)))},
		"one that is not tracked": {path: pathComputeServices, operation: admissionv1.Update, old: csvc(), now: csvc(down(ptr.To(true)))},
		"a new one with a Lease elsewhere": {path: pathComputeServices,
			operation: admissionv1.Create, now: csvc(leaseIn("elsewhere")), warned: "--lease-namespaces"},
		"a D as long as the time between renewals": {path: pathComputeServices, cache: source{interval: 10 * time.Second, holds: time.Minute},
			operation: admissionv1.Create, now: csvc(d(10)), warned: "spec.leaseDurationSeconds: 10 is too short, as the host renews its Lease every 10 s; it would go back and forth between UP and UNKNOWN; use 30 or more"},
		"a D that one renewal outlasts": {path: pathComputeServices, cache: source{interval: 9960 * time.Millisecond},
			operation: admissionv1.Update, old: csvc(), now: csvc(d(19)), warned: "use 30 or more"},
		"a D of two renewals": {path: pathComputeServices, cache: source{interval: 10040 * time.Millisecond},
			operation: admissionv1.Update, old: csvc(), now: csvc(d(20))},
		"a D for a Lease that says how long it holds": {path: pathComputeServices, cache: source{holds: time.Minute},
			operation: admissionv1.Create, now: csvc(d(15)), warned: "as its Lease holds for 60 s and so is renewed about every 20 s"},
		"a D that was there": {path: pathComputeServices, cache: source{interval: 10 * time.Second},
			operation: admissionv1.Update, old: csvc(d(10)), now: csvc(d(10), disabled)},
		"a D that was there for another Lease": {path: pathComputeServices, cache: source{interval: 10 * time.Second},
			operation: admissionv1.Update, old: csvc(d(10), leaseNamed("other")), now: csvc(d(10)), warned: "every 10 s"},
		"a D for a Lease that nobody has seen": {path: pathComputeServices, operation: admissionv1.Create, now: csvc(d(3))},
		"a D that goes": {path: pathComputeServices, cache: source{interval: 10 * time.Second},
			operation: admissionv1.Update, old: csvc(d(10)), now: csvc()},
		"a deletion":                   {path: pathComputeServices, cache: source{servers: 2}, operation: admissionv1.Delete, old: csvc(), warned: "2 Servers"},
		"a deletion without servers":   {path: pathComputeServices, operation: admissionv1.Delete, old: csvc()},
		"a deletion without a cache":   {path: pathComputeServices, cache: source{err: away}, operation: admissionv1.Delete, old: csvc()},
		"nonsense":                     {path: pathComputeServices, operation: admissionv1.Update, old: csvc(), now: "nonsense"},
		"an operation of another time": {path: pathServers, operation: "PATCH", now: server("none")},

		"a protected deletion":                      {path: pathDeletionProtection, cache: source{servers: 1}, operation: admissionv1.Delete, old: csvc(protection("true")), refused: "1 Server still names"},
		"a protected deletion without servers":      {path: pathDeletionProtection, operation: admissionv1.Delete, old: csvc(protection("true"))},
		"one, and only the API server knows of any": {path: pathDeletionProtection, live: source{servers: 2}, operation: admissionv1.Delete, old: csvc(protection("true")), refused: "2 Servers still name"},
		"one, and the API server is away":           {path: pathDeletionProtection, live: source{err: away}, operation: admissionv1.Delete, old: csvc(protection("true")), refused: "try again in a moment, or remove the annotation"},
		"a protected deletion without a cache":      {path: pathDeletionProtection, cache: source{err: away}, operation: admissionv1.Delete, old: csvc(protection("true")), refused: "try again in a moment, or remove the annotation"},
		"an unprotected one that came here":         {path: pathDeletionProtection, cache: source{servers: 1, err: away}, operation: admissionv1.Delete, old: csvc()},
		"a creation that came here":                 {path: pathDeletionProtection, operation: admissionv1.Create, now: csvc(protection("true"))},
		"an update that came here":                  {path: pathDeletionProtection, operation: admissionv1.Update, old: csvc(protection("true")), now: csvc()},

		"a server on an unknown host":                   {path: pathServers, operation: admissionv1.Create, now: server("new"), warned: `no ComputeService "new"`},
		"a server on a known host":                      {path: pathServers, cache: source{hosts: []string{"new"}}, operation: admissionv1.Create, now: server("new")},
		"a server on a host that the cache is to learn": {path: pathServers, live: source{hosts: []string{"new"}}, operation: admissionv1.Create, now: server("new")},
		"a server, and the API server does not answer":  {path: pathServers, live: source{err: away}, operation: admissionv1.Create, now: server("new")},
		"a server that moves":                           {path: pathServers, operation: admissionv1.Update, old: server("old"), now: server("new"), warned: `no ComputeService "new"`},
		"a server that stays":                           {path: pathServers, operation: admissionv1.Update, old: server("old"), now: server("old")},
		"a server that goes":                            {path: pathServers, operation: admissionv1.Delete, old: server("old")},
	} {
		t.Run(name, func(t *testing.T) {
			response := serve(t, c.cache, c.live)[c.path].Handle(t.Context(), request(t, c.operation, c.old, c.now))
			if response.UID != "request" {
				t.Errorf("the answer is to request %q", response.UID)
			}
			if got := strings.Join(response.Warnings, "\n"); !strings.Contains(got, c.warned) || c.warned == "" && got != "" {
				t.Errorf("warned of %q, want %q", got, c.warned)
			}
			if response.Allowed != (c.refused == "") {
				t.Errorf("allowed is %v", response.Allowed)
			}
			if c.refused != "" && !strings.Contains(response.Result.Message, c.refused) {
				t.Errorf("refused because %q, want %q", response.Result.Message, c.refused)
			}
		})
	}
}

func TestARuleThatPanicsLetsTheWritePass(t *testing.T) {
	hook := advisory(&admission.Webhook{Handler: admission.HandlerFunc(func(context.Context, admission.Request) admission.Response { panic("oh") })})
	if response := hook.Handle(t.Context(), admission.Request{}); !response.Allowed {
		t.Error("the write is refused")
	}
}
