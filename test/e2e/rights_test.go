// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

// request is something that somebody asks the API server for.
type request struct {
	method, path string
	body         string
	// as is whom the request wants to be taken for.
	as string
}

func get(path string) request        { return request{method: http.MethodGet, path: path} }
func del(path string) request        { return request{method: http.MethodDelete, path: path} }
func post(path, body string) request { return request{method: http.MethodPost, path: path, body: body} }
func put(path, body string) request  { return request{method: http.MethodPut, path: path, body: body} }
func merge(path, body string) request {
	return request{method: http.MethodPatch, path: path, body: body}
}

// send sends a request, whose effect nobody keeps: writes are dry runs. A Lease that
// is replaced is the one that there is, until nobody else has renewed it meanwhile:
// only then does admission look at it.
func send(t *testing.T, config *rest.Config, r request) (code int, answer string) {
	t.Helper()
	name, isLease := strings.CutPrefix(r.path, leaseOf+"/")
	if r.method != http.MethodPut || !isLease {
		return sendOnce(t, config, r)
	}
	expect.Eventually(t, patience, func() error {
		lease, err := leases().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		present := r
		present.body = strings.Replace(r.body, `"resourceVersion":""`, `"resourceVersion":"`+lease.ResourceVersion+`"`, 1)
		if code, answer = sendOnce(t, config, present); code == http.StatusConflict {
			return errors.New(answer)
		}
		return nil
	})
	return code, answer
}

func sendOnce(t *testing.T, config *rest.Config, r request) (code int, answer string) {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	expect.NoError(t, err)
	url := system.Cluster.URL + r.path
	if r.method != http.MethodGet {
		url += "?dryRun=All"
		if r.method == http.MethodPatch {
			url += "&fieldManager=rights-test"
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, url, strings.NewReader(r.body))
	expect.NoError(t, err)
	contentType := "application/json"
	if r.method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	req.Header.Set("Content-Type", contentType)
	if r.as != "" {
		req.Header.Set("Impersonate-User", r.as)
	}
	response, err := client.Do(req)
	expect.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	expect.NoError(t, err)
	return response.StatusCode, string(body)
}

const (
	compute = "/apis/compute.hoststatus.dev/v1alpha1"
	reports = "/apis/agent.hoststatus.dev/v1alpha1/hostreports"
	tenants = "/apis/tenant.hoststatus.dev/v1alpha1"
	owners  = "/apis/owner.hoststatus.dev/v1alpha1"
	leaseOf = "/apis/coordination.k8s.io/v1/namespaces/hoststatus-leases/leases"
	rbac    = "/apis/rbac.authorization.k8s.io/v1"
	ours    = "/api/v1/namespaces/hoststatus-system"

	leaderLease = "/apis/coordination.k8s.io/v1/namespaces/hoststatus-system/leases/hoststatus-manager"
)

const (
	webhookOf    = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hoststatus-webhook"
	apiServiceOf = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.tenant.hoststatus.dev"
)

// secret creates a Secret, for a service account if one is named.
func secret(name, kind, account string) request {
	annotations := ""
	if account != "" {
		annotations = `,"annotations":{"kubernetes.io/service-account.name":"` + account + `"}`
	}
	return post(ours+"/secrets", `{"metadata":{"name":"`+name+`"`+annotations+`},"type":"`+kind+`","data":{"tls.crt":"","tls.key":""}}`)
}

func leaseBody(name string) string {
	return `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"` + name + `","namespace":"hoststatus-leases","resourceVersion":""},` +
		`"spec":{"holderIdentity":"somebody","renewTime":"2026-01-01T00:00:00.000000Z"}}`
}

func reportBody(name string) string {
	return `{"apiVersion":"agent.hoststatus.dev/v1alpha1","kind":"HostReport","metadata":{"name":"` + name + `"},"spec":{}}`
}

func answerBody(name string) string {
	return `{"apiVersion":"owner.hoststatus.dev/v1alpha1","kind":"MaintenanceAnswer","metadata":{"name":"` + name + `"},` +
		`"spec":{"answer":"Ready","windowStartTime":"2030-01-01T00:00:00Z"}}`
}

// nobodys are rights that none of our identities has.
var nobodys = map[string]request{
	"read a Secret":                          get("/api/v1/namespaces/default/secrets/some"),
	"list the Secrets of a tenant":           get("/api/v1/namespaces/team-a/secrets"),
	"list all Secrets":                       get("/api/v1/secrets"),
	"list our own Secrets":                   get(ours + "/secrets"),
	"read a ConfigMap":                       get("/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt"),
	"list ConfigMaps":                        get("/api/v1/configmaps"),
	"list namespaces":                        get("/api/v1/namespaces"),
	"delete a namespace":                     del("/api/v1/namespaces/team-a"),
	"list nodes":                             get("/api/v1/nodes"),
	"list pods":                              get("/api/v1/pods"),
	"create a pod":                           post(ours+"/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},"containers":[{"name":"c","image":"i","securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}}`),
	"run a command in a pod":                 post(ours+"/pods/some/exec", ""),
	"create an Event":                        post("/api/v1/namespaces/team-a/events", `{}`),
	"make a token":                           post(ours+"/serviceaccounts/hoststatus-manager/token", `{}`),
	"read a ServiceAccount":                  get(ours + "/serviceaccounts/hoststatus-manager"),
	"be taken for somebody else":             {method: http.MethodGet, path: "/version", as: "hoststatus-admin"},
	"read roles":                             get(rbac + "/clusterroles"),
	"bind a role":                            post(rbac+"/clusterrolebindings", `{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[]}`),
	"bind a role in a namespace":             post(rbac+"/namespaces/team-a/rolebindings", `{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"admin"},"subjects":[]}`),
	"widen the manager's role":               merge(rbac+"/clusterroles/hoststatus-manager", `{"metadata":{"labels":{"a":"b"}}}`),
	"widen the tenant API's role":            merge(rbac+"/clusterroles/hoststatus-tenant-apiserver", `{"metadata":{"labels":{"a":"b"}}}`),
	"take the admission policy away":         del("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/hoststatus-leases"),
	"take its binding away":                  del("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/hoststatus-leases"),
	"change the flow control":                merge("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/hoststatus", `{"metadata":{"labels":{"a":"b"}}}`),
	"change a CRD":                           merge("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/servers.compute.hoststatus.dev", `{"metadata":{"labels":{"a":"b"}}}`),
	"take an API away":                       del("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.tenant.hoststatus.dev"),
	"change somebody else's API":             merge("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.compute.hoststatus.dev", `{"metadata":{"labels":{"a":"b"}}}`),
	"read the API server's metrics":          get("/metrics"),
	"create a ComputeService":                post(compute+"/computeservices", `{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"ComputeService","metadata":{"name":"new"}}`),
	"write the spec of a ComputeService":     merge(compute+"/computeservices/compute-1", `{"spec":{"disabled":true}}`),
	"delete a ComputeService":                del(compute + "/computeservices/compute-1"),
	"delete all ComputeServices":             del(compute + "/computeservices"),
	"replace the status of a ComputeService": put(compute+"/computeservices/compute-1/status", `{}`),
	"create a Server":                        post(compute+"/namespaces/team-a/servers", `{"apiVersion":"compute.hoststatus.dev/v1alpha1","kind":"Server","metadata":{"name":"new"}}`),
	"write the spec of a Server":             merge(compute+"/namespaces/team-a/servers/web-1", `{"spec":{"host":"compute-2"}}`),
	"replace the status of a Server":         put(compute+"/namespaces/team-a/servers/web-1/status", `{}`),
	"delete a Server":                        del(compute + "/namespaces/team-a/servers/web-1"),
	"delete all Servers":                     del(compute + "/namespaces/team-a/servers"),
	"read the owners' view":                  get(tenants + "/servers"),
	"read the owners' view of a server":      get(tenants + "/namespaces/team-a/servers/web-1"),
	"answer for an owner":                    post(owners+"/namespaces/team-a/maintenanceanswers", answerBody("web-1")),
	"take an owner's answer away":            del(owners + "/namespaces/team-a/maintenanceanswers/web-1"),
	"take all answers away":                  del(owners + "/namespaces/team-a/maintenanceanswers"),
	"read all Leases":                        get("/apis/coordination.k8s.io/v1/leases"),
	"read a Lease elsewhere":                 get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/some"),
	"create a Lease elsewhere":               post("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", `{}`),
	"write a kubelet's Lease":                merge("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/some", `{}`),
	"delete a host's Lease":                  del(leaseOf + "/compute-1"),
	"delete another host's Lease":            del(leaseOf + "/compute-2"),
	"delete the canary":                      del(leaseOf + "/hoststatus-canary"),
	"delete the leader's Lease":              del(leaderLease),
	"delete the leader's Lease of 0.1":       del(leaseOf + "/hoststatus-manager"),
	"delete all Leases":                      del(leaseOf),
	"renew a host's Lease with a patch":      merge(leaseOf+"/compute-1", `{"spec":{"holderIdentity":"x"}}`),
	"renew another host's Lease":             put(leaseOf+"/compute-2", leaseBody("compute-2")),
}

// identity is one of ours, with what it must not do beside nobodys, and some of
// what it does.
type identity struct {
	user          string
	groups        []string
	refused, does map[string]request
}

var identities = map[string]identity{
	"manager": {managerUser, fleet.TenantAPIGroups, map[string]request{
		"read the tenant API's Secrets":    get(ours + "/secrets/hoststatus-tenant-apiserver-hostid"),
		"create a Secret elsewhere":        post("/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"}}`),
		"create a Secret that is not its":  secret("some", "kubernetes.io/tls", ""),
		"create the tenant API's Secret":   secret("hoststatus-tenant-apiserver-tls", "kubernetes.io/tls", ""),
		"make itself a token":              secret("hoststatus-webhook-tls", "kubernetes.io/service-account-token", "hoststatus-tenant-apiserver"),
		"make a token under its type":      secret("hoststatus-webhook-tls", "kubernetes.io/tls", "hoststatus-tenant-apiserver"),
		"be asked about Secrets":           merge(webhookOf, `{"webhooks":[{"name":"a.hoststatus.dev","admissionReviewVersions":["v1"],"sideEffects":"None","clientConfig":{"url":"https://127.0.0.1:1/"},"rules":[{"apiGroups":[""],"apiVersions":["v1"],"resources":["secrets"],"operations":["CREATE"]}]}]}`),
		"never be asked":                   merge(webhookOf, `{"webhooks":[]}`),
		"let others fill in its authority": merge(webhookOf, `{"metadata":{"annotations":{"cert-manager.io/inject-ca-from":"a/b"}}}`),
		"delete its certificate":           del(ours + "/secrets/hoststatus-webhook-tls"),
		"read webhooks of others":          get("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
		"create a webhook":                 post("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", `{}`),
		"renew a host's Lease":             put(leaseOf+"/compute-1", leaseBody("compute-1")),
		"renew another Lease beside it":    put(strings.Replace(leaderLease, "/hoststatus-manager", "/some", 1), leaseBody("some")),
		"ask about rights in a namespace":  post("/apis/authorization.k8s.io/v1/namespaces/team-a/localsubjectaccessreviews", `{}`),
		"read the tenant API's own object": get("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.tenant.hoststatus.dev"),
	}, map[string]request{
		"read its certificate": get(ours + "/secrets/hoststatus-webhook-tls"),
		"read its webhook":     get("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hoststatus-webhook"),
		"read ComputeServices": get(compute + "/computeservices"),
		"read Servers":         get(compute + "/servers"),
		"read answers":         get(owners + "/maintenanceanswers"),
		"write its canary":     merge(leaseOf+"/hoststatus-canary", `{"spec":{"holderIdentity":"x"}}`),
		"write a status":       merge(compute+"/computeservices/compute-1/status", `{"status":{"hostStatusReason":"Reporting"}}`),
	}},
	"agent": {"system:hoststatus:host:compute-1", []string{"system:hoststatus:hosts"}, map[string]request{
		"read the tenant API's Secrets":         get(ours + "/secrets/hoststatus-tenant-apiserver-hostid"),
		"create a Secret":                       post(ours+"/secrets", `{"metadata":{"name":"s"}}`),
		"list ComputeServices":                  get(compute + "/computeservices"),
		"read its own ComputeService":           get(compute + "/computeservices/compute-1"),
		"write the status of its own":           merge(compute+"/computeservices/compute-1/status", `{"status":{"hostStatus":"UP"}}`),
		"write the status of another":           merge(compute+"/computeservices/compute-2/status", `{"status":{"hostStatus":"UP"}}`),
		"list all Servers":                      get(compute + "/servers"),
		"list the Servers of a tenant":          get(compute + "/namespaces/team-a/servers"),
		"read a Server on it":                   get(compute + "/namespaces/team-a/servers/web-1"),
		"read a Server's status":                get(compute + "/namespaces/team-a/servers/web-1/status"),
		"list the hosts' Leases":                get(leaseOf),
		"renew the canary":                      put(leaseOf+"/hoststatus-canary", leaseBody("hoststatus-canary")),
		"renew the leader's Lease":              put(leaderLease, leaseBody("hoststatus-manager")),
		"renew the leader's Lease of 0.1":       put(leaseOf+"/hoststatus-manager", leaseBody("hoststatus-manager")),
		"read the leader's Lease":               get(leaderLease),
		"create the Lease of another host":      post(leaseOf, leaseBody("compute-99")),
		"read a kubelet's Lease":                get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/some"),
		"write the status of a Server on it":    merge(compute+"/namespaces/team-a/servers/web-1/status", `{"status":{"state":"ERROR"}}`),
		"write the status of another Server":    merge(compute+"/namespaces/team-a/servers/web-2/status", `{"status":{"state":"ERROR"}}`),
		"patch its own report":                  merge(reports+"/compute-1", `{"spec":{}}`),
		"read its own report":                   get(reports + "/compute-1"),
		"read owners' answers":                  get(owners + "/maintenanceanswers"),
		"list the hosts' reports":               get(reports),
		"create the report of another host":     post(reports, reportBody("compute-99")),
		"delete the report of another host":     del(reports + "/compute-2"),
		"write a host status":                   merge(compute+"/namespaces/team-a/servers/web-1/status", `{"status":{"hostStatus":"DOWN"}}`),
		"ask who somebody is":                   post("/apis/authentication.k8s.io/v1/tokenreviews", `{}`),
		"ask what somebody may do":              post("/apis/authorization.k8s.io/v1/subjectaccessreviews", `{}`),
		"read the configuration of the proxies": get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"),
	}, map[string]request{
		"read its own Lease":    get(leaseOf + "/compute-1"),
		"renew its own Lease":   put(leaseOf+"/compute-1", leaseBody("compute-1")),
		"delete its own report": del(reports + "/compute-1"),
	}},
	"tenant-apiserver": {fleet.TenantAPIUser, fleet.TenantAPIGroups, map[string]request{
		"read a ComputeService":            get(compute + "/computeservices/compute-1"),
		"write the status of a host":       merge(compute+"/computeservices/compute-1/status", `{"status":{"hostStatus":"UP"}}`),
		"write the status of a Server":     merge(compute+"/namespaces/team-a/servers/web-1/status", `{"status":{"state":"ERROR"}}`),
		"list the hosts' Leases":           get(leaseOf),
		"read a host's Lease":              get(leaseOf + "/compute-1"),
		"read owners' answers":             get(owners + "/maintenanceanswers"),
		"read the leader's Lease":          get(leaderLease),
		"read the leader's Lease of 0.1":   get(leaseOf + "/hoststatus-manager"),
		"write the canary":                 put(leaseOf+"/hoststatus-canary", leaseBody("hoststatus-canary")),
		"create a Lease":                   post(leaseOf, leaseBody("compute-99")),
		"read another Secret of ours":      get(ours + "/secrets/some"),
		"change the key of the host ids":   put(ours+"/secrets/hoststatus-tenant-apiserver-hostid", `{}`),
		"delete the key of the host ids":   del(ours + "/secrets/hoststatus-tenant-apiserver-hostid"),
		"delete its certificate":           del(ours + "/secrets/hoststatus-tenant-apiserver-tls"),
		"create a Secret that is not its":  secret("some", "Opaque", ""),
		"create the manager's Secret":      secret("hoststatus-webhook-tls", "kubernetes.io/tls", ""),
		"make itself a token":              secret("some", "kubernetes.io/service-account-token", "hoststatus-manager"),
		"make a token under its name":      secret("hoststatus-tenant-apiserver-tls", "kubernetes.io/service-account-token", "hoststatus-manager"),
		"let another answer":               merge(apiServiceOf, `{"spec":{"service":{"name":"another"}}}`),
		"let anybody answer":               merge(apiServiceOf, `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`),
		"go before other APIs":             merge(apiServiceOf, `{"spec":{"groupPriorityMinimum":20000}}`),
		"create a Secret elsewhere":        post("/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"}}`),
		"read ConfigMaps of ours":          get(ours + "/configmaps"),
		"list APIServices":                 get("/apis/apiregistration.k8s.io/v1/apiservices"),
		"create an APIService":             post("/apis/apiregistration.k8s.io/v1/apiservices", `{}`),
		"read who is bound to which roles": get(rbac + "/clusterrolebindings"),
	}, map[string]request{
		"list ComputeServices": get(compute + "/computeservices"),
		"read Servers":         get(compute + "/servers"),
		"read the canary":      get(leaseOf + "/hoststatus-canary"),
		"read its key":         get(ours + "/secrets/hoststatus-tenant-apiserver-hostid"),
		"read its certificate": get(ours + "/secrets/hoststatus-tenant-apiserver-tls"),
		"read its APIService":  get("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.tenant.hoststatus.dev"),
	}},
}

// Each identity is refused what is none of its business, by the API server itself.
// The same requests of an administrator get another answer: it is the identity, not
// the request, that is refused.
func TestEachIdentityIsRefusedWhatItDoesNotNeed(t *testing.T) {
	admin, err := system.Cluster.AdminConfig()
	expect.NoError(t, err)
	for name, who := range identities {
		t.Run(name, func(t *testing.T) {
			config, err := system.Cluster.ConfigFor(who.user, who.groups...)
			expect.NoError(t, err)
			for _, table := range []map[string]request{nobodys, who.refused} {
				for what, r := range table {
					if code, answer := send(t, config, r); code != http.StatusForbidden {
						t.Errorf("may %s: %s %s is answered %d: %.300s", what, r.method, r.path, code, answer)
					}
					if code, answer := send(t, admin, r); code == http.StatusForbidden || code == http.StatusMethodNotAllowed || code == http.StatusUnauthorized {
						t.Errorf("an administrator may not %s: %s %s is answered %d: %.300s", what, r.method, r.path, code, answer)
					}
				}
			}
			for what, r := range who.does {
				if code, answer := send(t, config, r); code != http.StatusOK {
					t.Errorf("may not %s: %s %s is answered %d: %.300s", what, r.method, r.path, code, answer)
				}
			}
		})
	}
}

// manifest is the part of a manifest that says who may do what.
type manifest struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Rules    []rbacv1.PolicyRule `json:"rules"`
	RoleRef  rbacv1.RoleRef      `json:"roleRef"`
	Subjects []rbacv1.Subject    `json:"subjects"`
}

// shipped returns what a part of config/ renders to.
func shipped(t *testing.T, part string) (manifests []manifest) {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	expect.NoError(t, err)
	out, err := system.Kubectl(t.Context(), "kustomize", filepath.Join(root, "config", part)).Output()
	expect.NoError(t, err)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096)
	for {
		var m manifest
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return manifests
		} else if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, m)
	}
}

// complaints says what no rule of ours may be.
func complaints(rule rbacv1.PolicyRule) (out []string) {
	for what, values := range map[string][]string{
		"verb": rule.Verbs, "resource": rule.Resources, "API group": rule.APIGroups, "URL": rule.NonResourceURLs,
	} {
		for _, value := range values {
			if strings.Contains(value, "*") {
				out = append(out, "has the wildcard "+what+" "+value)
			}
		}
	}
	for _, verb := range []string{"impersonate", "bind", "escalate", "deletecollection"} {
		if slices.Contains(rule.Verbs, verb) {
			out = append(out, "lets "+verb)
		}
	}
	if slices.Contains(rule.Resources, "secrets") && len(rule.ResourceNames) == 0 && !slices.Equal(rule.Verbs, []string{"create"}) {
		out = append(out, "reaches Secrets of any name")
	}
	return out
}

func TestNoShippedRoleHasWildcardsOrReachesSecretsOfAnyName(t *testing.T) {
	roles := 0
	for _, part := range []string{"default", "tenant-apiserver", "node-leases", "node-mirror", "node-conditions", "vmi-mirror"} {
		for _, m := range shipped(t, part) {
			switch m.Kind {
			case "Role", "ClusterRole":
				roles++
				for _, rule := range m.Rules {
					for _, complaint := range complaints(rule) {
						t.Errorf("in config/%s, a rule of %s %s %s", part, m.Kind, m.Metadata.Name, complaint)
					}
				}
				for label := range m.Metadata.Labels {
					if strings.HasPrefix(label, "rbac.authorization.k8s.io/aggregate-to-") && m.Metadata.Name != "hoststatus-server-viewer" {
						t.Errorf("in config/%s, %s %s is added to other roles by %s", part, m.Kind, m.Metadata.Name, label)
					}
				}
			case "RoleBinding", "ClusterRoleBinding":
				known := []string{"system:auth-delegator", "extension-apiserver-authentication-reader"}
				if !strings.HasPrefix(m.RoleRef.Name, "hoststatus-") && !slices.Contains(known, m.RoleRef.Name) {
					t.Errorf("in config/%s, %s %s gives %s", part, m.Kind, m.Metadata.Name, m.RoleRef.Name)
				}
				for _, subject := range m.Subjects {
					if subject.Kind != "ServiceAccount" && subject.Name != "system:hoststatus:hosts" {
						t.Errorf("in config/%s, %s %s gives rights to %s %s", part, m.Kind, m.Metadata.Name, subject.Kind, subject.Name)
					}
				}
			}
		}
	}
	if roles < 10 {
		t.Errorf("%d roles were looked at", roles)
	}
}

func TestWhatIsSaidOfARule(t *testing.T) {
	rule := func(group, resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
	}
	named := rule("", "secrets", "get", "update")
	named.ResourceNames = []string{"one"}
	for name, c := range map[string]struct {
		rule rbacv1.PolicyRule
		bad  bool
	}{
		"a plain rule":            {rule("apps", "deployments", "get"), false},
		"a wildcard verb":         {rule("apps", "deployments", "*"), true},
		"a wildcard resource":     {rule("apps", "*", "get"), true},
		"a wildcard subresource":  {rule("apps", "deployments/*", "get"), true},
		"a wildcard group":        {rule("*", "deployments", "get"), true},
		"all URLs":                {rbacv1.PolicyRule{NonResourceURLs: []string{"/*"}, Verbs: []string{"get"}}, true},
		"impersonation":           {rule("", "users", "impersonate"), true},
		"Secrets of any name":     {rule("", "secrets", "get"), true},
		"Secrets that are named":  {named, false},
		"Secrets that are new":    {rule("", "secrets", "create"), false},
		"new Secrets and others":  {rule("", "secrets", "create", "get"), true},
		"everything of one group": {rule("apps", "deployments", "deletecollection"), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := complaints(c.rule); (len(got) > 0) != c.bad {
				t.Errorf("%q", got)
			}
		})
	}
}
