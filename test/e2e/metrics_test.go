// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hoststatus.dev/hoststatus/internal/version"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

// The manager's certificate is self-made, so nothing vouches for it here.
var insecure = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

// scraper returns the token of somebody who may read /metrics.
var scraper = sync.OnceValues(func() (string, error) {
	ctx, name := context.Background(), "scraper"
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := kube.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules:      []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
	}
	if _, err := kube.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: name}},
	}
	if _, err := kube.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	request, err := kube.CoreV1().ServiceAccounts("default").CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return request.Status.Token, system.Cluster.WaitForRights(ctx, system.Cluster.ConfigWithToken(request.Status.Token), "", name)
})

// scrape reads /metrics with a token, or without.
func scrape(token string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+system.ManagerMetrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return insecure.Do(request)
}

// metric returns the sum of the manager's series that begin with prefix.
func metric(t *testing.T, prefix string) float64 {
	t.Helper()
	sum, err := readMetric(prefix)
	expect.NoError(t, err)
	return sum
}

func readMetric(prefix string) (sum float64, err error) {
	token, err := scraper()
	if err != nil {
		return 0, err
	}
	response, err := scrape(token)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("reading /metrics: %s", response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, lines.Err()
}

func TestMetricsAskForAuthentication(t *testing.T) {
	response, err := scrape("")
	expect.NoError(t, err)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %s", response.Status)
	}
	account, err := kube.CoreV1().ServiceAccounts("team-a").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	expect.NoError(t, err)
	response, err = scrape(account.Status.Token)
	expect.NoError(t, err)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("with a tenant's token: %s", response.Status)
	}
	if metric(t, "hoststatus_heartbeat_canary_writes_total") == 0 {
		t.Error("no canaries are counted")
	}
}

// The release is on the command line and in the metrics, and API servers are told it.
func TestEveryBinarySaysWhichReleaseItIs(t *testing.T) {
	for _, name := range []string{"manager", "agent", "tenant-apiserver"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(system.Dir, "bin", name), "--version").Output()
		expect.NoError(t, err)
		if want := "hoststatus-" + name + " " + version.Version + " ("; !strings.HasPrefix(string(out), want) {
			t.Errorf("%s --version prints %q, want what begins with %q", name, out, want)
		}
	}
	series := fmt.Sprintf(`hoststatus_build_info{go_version=%q,version=%q}`, runtime.Version(), version.Version)
	if got := metric(t, series); got != 1 {
		t.Errorf("%s is %v, want 1", series, got)
	}
}
