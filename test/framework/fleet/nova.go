// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// NovaUser is the service account that nova-api runs as. It has no rights.
const NovaUser = "system:serviceaccount:hoststatus-system:hoststatus-nova-api"

const (
	// tokenLifetime is that of the tokens of sample users, in seconds.
	tokenLifetime = 24 * 60 * 60
	administrator = "administrator"
)

// NovaAccounts are service accounts of the sample tenants, with the ClusterRoles that each
// has in its namespace: what a person of the same name may see in the owners' view.
var NovaAccounts = []Account{
	{Namespace: "team-a", Name: "ana", Roles: []string{"view", "hoststatus-host-status-viewer"}},
	{Namespace: "team-a", Name: "abe", Roles: []string{"view", "hoststatus-host-status-unknown-viewer"}},
	{Namespace: "team-a", Name: "ada", Roles: []string{"view"}},
	{Namespace: "kube-system", Name: administrator, Everywhere: "cluster-admin"},
}

// Account is a service account, and what it may do.
type Account struct {
	Namespace, Name string
	// Roles are ClusterRoles that it has in its namespace, and Everywhere the one that it
	// has in all.
	Roles      []string
	Everywhere string
}

// StartNovaAPI starts nova-api on a port of localhost, and returns its URL. It is written to
// nova-api.url, and the tokens of NovaAccounts to tokens/NAME.
func (f *Fleet) StartNovaAPI(ctx context.Context) (url string, err error) {
	f.progress("Starting nova-api")
	config, err := f.Cluster.ConfigFor(NovaUser, "system:serviceaccounts", "system:serviceaccounts:hoststatus-system")
	if err != nil {
		return "", err
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return "", err
	}
	f.NovaMetrics = net.JoinHostPort("127.0.0.1", ports[1])
	address := net.JoinHostPort("127.0.0.1", ports[0])
	if f.NovaAPI, err = f.start(Command{
		Binary: "nova-api", Name: "nova-api", Config: config,
		Args:      []string{"--plain-http", "--shutdown-delay=0s"},
		Addresses: []string{"--bind-address=" + address, "--metrics-bind-address=" + f.NovaMetrics, "--health-probe-bind-address=0"},
	}); err != nil {
		return "", err
	}
	url = "http://" + address
	if err := os.WriteFile(f.path("nova-api.url"), []byte(url+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("saving the URL of nova-api: %w", err)
	}
	for _, account := range NovaAccounts {
		token, err := f.NewToken(ctx, account)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(f.path("tokens"), 0o700); err != nil {
			return "", fmt.Errorf("making a folder for tokens: %w", err)
		}
		if err := os.WriteFile(f.TokenFile(account.Name), []byte(token), 0o600); err != nil {
			return "", fmt.Errorf("saving a token: %w", err)
		}
	}
	return url, f.retry(ctx, func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("reaching nova-api: %w", err)
		}
		return conn.Close()
	})
}

// TokenFile is where the token of a sample user is.
func (f *Fleet) TokenFile(name string) string { return filepath.Join(f.path("tokens"), name) }

// NewToken makes a service account, if there is none, and returns a token of it, once
// kube-apiserver knows what it may do.
func (f *Fleet) NewToken(ctx context.Context, a Account) (string, error) {
	config, err := f.Cluster.AdminConfig()
	if err != nil {
		return "", err
	}
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", fmt.Errorf("making a client: %w", err)
	}
	_, err = admin.CoreV1().ServiceAccounts(a.Namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: a.Name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("making the service account of %s: %w", a.Name, err)
	}
	if err := errors.Join(a.bind(ctx, admin)...); err != nil {
		return "", err
	}
	request, err := admin.CoreV1().ServiceAccounts(a.Namespace).CreateToken(ctx, a.Name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](tokenLifetime)}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("making a token of %s: %w", a.Name, err)
	}
	roles := a.Roles
	if a.Everywhere != "" {
		roles = append(slices.Clone(roles), a.Everywhere)
	}
	return request.Status.Token, f.Cluster.WaitForRights(ctx, f.Cluster.ConfigWithToken(request.Status.Token), a.Namespace, roles...)
}

// bind gives the account its rights.
func (a Account) bind(ctx context.Context, admin kubernetes.Interface) (errs []error) {
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: a.Namespace, Name: a.Name}}
	for _, role := range a.Roles {
		_, err := admin.RbacV1().RoleBindings(a.Namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: a.Name + "-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   subjects,
		}, metav1.CreateOptions{})
		errs = append(errs, ignoreExists(err))
	}
	if a.Everywhere != "" {
		_, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: a.Namespace + "-" + a.Name + "-" + a.Everywhere},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: a.Everywhere},
			Subjects:   subjects,
		}, metav1.CreateOptions{})
		errs = append(errs, ignoreExists(err))
	}
	return errs
}

func ignoreExists(err error) error {
	if err == nil || apierrors.IsAlreadyExists(err) {
		return nil
	}
	return fmt.Errorf("binding a role: %w", err)
}
