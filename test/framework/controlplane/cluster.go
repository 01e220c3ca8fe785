// SPDX-License-Identifier: Apache-2.0

// Package controlplane starts and stops a local control plane: a real etcd,
// kube-apiserver and kube-controller-manager on loopback. `make run`, the
// integration tests and the benchmarks all use it.
package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	startTimeout = 2 * time.Minute
	// controllers are those without which a cluster does not behave like one: no
	// namespace would be deleted, no role aggregated, nothing garbage-collected.
	controllers = "namespace-controller,clusterrole-aggregation-controller,garbage-collector-controller,resourcequota-controller,serviceaccount-controller"
	// podControllers make pods.
	podControllers = ",deployment-controller,replicaset-controller"
)

// Options are how to start a Cluster. The zero value is good for tests.
type Options struct {
	// Dir holds data, certificates and logs. Empty means a temporary folder that
	// Stop removes.
	Dir string
	// Log takes progress, for a person. Nil means nowhere.
	Log io.Writer
	// Fsync lets etcd wait for the disk on each write, as in production. Without
	// it a power failure could lose data, which no test here looks at.
	Fsync bool
	// Kubernetes is the release of kube-apiserver. Empty means Main.
	Kubernetes Release
	// Pods lets controllers make pods of Deployments, and kube-scheduler place them on
	// Nodes. Nothing runs them.
	Pods bool
	// Nodes lets kubelets join the cluster and run pods, which Pods is implied by. Nil means
	// that the control plane serves loopback alone.
	Nodes *Nodes
	// APIServerArgs are added to kube-apiserver's own.
	APIServerArgs []string
}

// Nodes is the network that a control plane shares with its nodes. It has to be in a
// network namespace that the caller has made for it.
type Nodes struct {
	// Address is where nodes and pods reach the API server, an address of this machine.
	Address string
	// Services is the range of the Services' addresses, in CIDR notation, and
	// APIServerService the first address in it, which leads to the API server.
	Services, APIServerService string
}

// Cluster is a running control plane.
type Cluster struct {
	// Dir holds data, certificates and logs.
	Dir string
	// URL of the API server.
	URL string

	Etcd, APIServer, ControllerManager *Process
	// Scheduler is nil unless Options.Pods asked for it.
	Scheduler *Process

	binaries  *Binaries
	temporary bool
	clientCA  *authority
	serverCA  *authority
	// etcdURL is where etcd serves clients that have etcdClient, which only this user has.
	etcdURL    string
	etcdClient *tls.Config
	// nodes is nil where the control plane serves loopback alone.
	nodes *Nodes
}

// Start starts a control plane and waits until it is ready.
func Start(ctx context.Context, options Options) (_ *Cluster, err error) {
	log := options.Log
	if log == nil {
		log = io.Discard
	}
	c := &Cluster{Dir: options.Dir}
	if c.binaries, err = EnsureBinaries(ctx, log); err != nil {
		return nil, err
	}
	if c.binaries, err = c.binaries.with(ctx, options.Kubernetes, log); err != nil {
		return nil, err
	}
	c.nodes, options.Pods = options.Nodes, options.Pods || options.Nodes != nil
	if options.Pods {
		if err := c.binaries.add(ctx, log, binScheduler); err != nil {
			return nil, err
		}
	}
	if c.nodes != nil {
		if err := c.binaries.add(ctx, log, nodePrograms...); err != nil {
			return nil, err
		}
	}
	if c.Dir == "" {
		if c.Dir, err = os.MkdirTemp("", "hoststatus-controlplane-"); err != nil {
			return nil, fmt.Errorf("making a temporary folder: %w", err)
		}
		c.temporary = true
	}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.writePKI(); err != nil {
		return nil, err
	}
	if err := c.startEtcd(ctx, options.Fsync); err != nil {
		return nil, err
	}
	if err := c.startAPIServer(ctx, options.APIServerArgs); err != nil {
		return nil, err
	}
	if err := c.startControllerManager(ctx, options.Pods); err != nil {
		return nil, err
	}
	if options.Pods {
		if err := c.startScheduler(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Stop ends every process of the control plane.
func (c *Cluster) Stop() {
	for _, p := range []*Process{c.Scheduler, c.ControllerManager, c.APIServer, c.Etcd} {
		if p != nil {
			p.Stop()
		}
	}
	if c.temporary {
		_ = os.RemoveAll(c.Dir)
	}
}

// KubectlPath returns the path of kubectl.
func (c *Cluster) KubectlPath() string { return c.binaries.Path(binKubectl) }

// Kubectl returns a command that runs kubectl as the user of a kubeconfig.
func (c *Cluster) Kubectl(ctx context.Context, kubeconfig string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.KubectlPath(), args...)
	// kubectl caches in its home what the cluster serves.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+c.Dir)
	return cmd
}

// Kubelet returns the path of the kubelet, where Options.Nodes asked for it.
func (c *Cluster) Kubelet() string { return c.binaries.Path(binKubelet) }

// KubeProxy returns the path of kube-proxy, where Options.Nodes asked for it.
func (c *Cluster) KubeProxy() string { return c.binaries.Path(binKubeProxy) }

// ClientCA is the file with the authority by which clients are known.
func (c *Cluster) ClientCA() string { return c.path("client-ca.crt") }

// AdminConfig returns a client configuration that may do everything.
func (c *Cluster) AdminConfig() (*rest.Config, error) {
	return c.ConfigFor("hoststatus-admin", "system:masters")
}

// ConfigFor returns a client configuration for a user in groups, with a client
// certificate. It has no client-side rate limit.
func (c *Cluster) ConfigFor(user string, groups ...string) (*rest.Config, error) {
	pair, err := c.clientCA.client(user, groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host:            c.URL,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.serverCA.pem, CertData: pair.cert, KeyData: pair.key},
		QPS:             -1,
	}, nil
}

// ConfigWithToken returns a client configuration for the user of a token. It has no
// client-side rate limit.
func (c *Cluster) ConfigWithToken(token string) *rest.Config {
	return &rest.Config{Host: c.URL, TLSClientConfig: rest.TLSClientConfig{CAData: c.serverCA.pem}, BearerToken: token, QPS: -1}
}

// WriteKubeconfig writes a client configuration of ConfigFor to path.
func WriteKubeconfig(path string, config *rest.Config) error {
	const name = "hoststatus-dev"
	kubeconfig := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
	if err := clientcmd.WriteToFile(kubeconfig, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, name) }

func (c *Cluster) process(name string, args ...string) *Process {
	env := os.Environ()
	if testing.Testing() {
		// Tests do not measure the control plane, and it takes most of their CPU. Within the
		// limit it collects garbage less often than it would, for memory that is there.
		env = append(env, "GOGC=400", "GOMEMLIMIT=1GiB")
	}
	return NewProcess(name, c.binaries.Path(name), c.path(name+".log"), env, args...)
}

// writePKI makes all certificates, among them those of the front proxy, by which
// an aggregated API server knows that a request comes through kube-apiserver.
func (c *Cluster) writePKI() (err error) {
	if err := PrivateFolder(c.Dir); err != nil {
		return fmt.Errorf("making the cluster's folder: %w", err)
	}
	if c.serverCA, err = newAuthority("hoststatus-dev-server-ca"); err != nil {
		return err
	}
	if c.clientCA, err = newAuthority("hoststatus-dev-client-ca"); err != nil {
		return err
	}
	frontProxyCA, err := newAuthority("hoststatus-dev-front-proxy-ca")
	if err != nil {
		return err
	}
	for name, ca := range map[string]*authority{"server-ca": c.serverCA, "client-ca": c.clientCA, "front-proxy-ca": frontProxyCA} {
		if err := os.WriteFile(c.path(name+".crt"), ca.pem, 0o644); err != nil {
			return fmt.Errorf("writing a certificate: %w", err)
		}
	}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	if c.nodes != nil {
		names = append(names, c.nodes.Address, c.nodes.APIServerService)
		kubelets, err := c.clientCA.client("kube-apiserver-kubelet-client", "system:masters")
		if err != nil {
			return err
		}
		if err := kubelets.write(c.Dir, "apiserver-kubelet-client"); err != nil {
			return err
		}
	}
	serving, err := c.serverCA.server(names...)
	if err != nil {
		return err
	}
	if err := serving.write(c.Dir, "apiserver"); err != nil {
		return err
	}
	frontProxy, err := frontProxyCA.client("front-proxy-client")
	if err != nil {
		return err
	}
	if err := frontProxy.write(c.Dir, "front-proxy-client"); err != nil {
		return err
	}
	if err := c.writeEtcdPKI(); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the key for service accounts: %w", err)
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("service-accounts.key"), encoded, 0o600); err != nil {
		return fmt.Errorf("writing the key for service accounts: %w", err)
	}
	return nil
}

// writeEtcdPKI makes the certificates without which nobody reads or writes etcd, which
// has every Secret of the cluster and listens where every user of this machine can connect.
func (c *Cluster) writeEtcdPKI() error {
	ca, err := newAuthority("hoststatus-dev-etcd-ca")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("etcd-ca.crt"), ca.pem, 0o644); err != nil {
		return fmt.Errorf("writing a certificate: %w", err)
	}
	// etcd connects to itself, with its serving certificate.
	serving, err := ca.peer("etcd")
	if err != nil {
		return err
	}
	if err := serving.write(c.Dir, "etcd"); err != nil {
		return err
	}
	client, err := ca.client("kube-apiserver")
	if err != nil {
		return err
	}
	if err := client.write(c.Dir, "apiserver-etcd-client"); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(client.cert, client.key)
	if err != nil {
		return fmt.Errorf("reading the client certificate for etcd: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	c.etcdClient = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}
	return nil
}

func (c *Cluster) startEtcd(ctx context.Context, fsync bool) error {
	ports, err := FreePorts(2)
	if err != nil {
		return err
	}
	client, peer := "https://127.0.0.1:"+ports[0], "https://127.0.0.1:"+ports[1]
	args := []string{
		"--data-dir=" + c.path("etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--client-cert-auth", "--trusted-ca-file=" + c.path("etcd-ca.crt"),
		"--cert-file=" + c.path("etcd.crt"), "--key-file=" + c.path("etcd.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + c.path("etcd-ca.crt"),
		"--peer-cert-file=" + c.path("etcd.crt"), "--peer-key-file=" + c.path("etcd.key"),
		"--log-level=warn",
	}
	if !fsync {
		args = append(args, "--unsafe-no-fsync")
	}
	c.Etcd = c.process(binEtcd, args...)
	if err := c.Etcd.Start(); err != nil {
		return err
	}
	c.etcdURL = client
	transport := &http.Transport{TLSClientConfig: c.etcdClient}
	defer transport.CloseIdleConnections()
	return c.Etcd.wait(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, client+"/health", nil)
		if err != nil {
			return err
		}
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("health: %s", response.Status)
		}
		return nil
	})
}

func (c *Cluster) startAPIServer(ctx context.Context, extra []string) error {
	ports, err := FreePorts(1)
	if err != nil {
		return err
	}
	args := append([]string{
		"--etcd-servers=" + c.etcdURL, "--etcd-cafile=" + c.path("etcd-ca.crt"),
		"--etcd-certfile=" + c.path("apiserver-etcd-client.crt"), "--etcd-keyfile=" + c.path("apiserver-etcd-client.key"),
		"--secure-port=" + ports[0],
		"--tls-cert-file=" + c.path("apiserver.crt"), "--tls-private-key-file=" + c.path("apiserver.key"),
		"--client-ca-file=" + c.path("client-ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + c.path("service-accounts.key"),
		"--service-account-key-file=" + c.path("service-accounts.key"),
		"--requestheader-client-ca-file=" + c.path("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.path("front-proxy-client.crt"),
		"--proxy-client-key-file=" + c.path("front-proxy-client.key"),
	}, append(c.reach(), extra...)...)
	c.APIServer = c.process(binAPIServer, args...)
	c.URL = "https://127.0.0.1:" + ports[0]
	if c.nodes != nil {
		c.URL = "https://" + net.JoinHostPort(c.nodes.Address, ports[0])
	}
	if err := c.APIServer.Start(); err != nil {
		return err
	}
	return c.WaitReady(ctx)
}

// reach returns the arguments of kube-apiserver that depend on who is to reach it.
func (c *Cluster) reach() []string {
	if c.nodes == nil {
		return []string{
			"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
			// Of loopback: a Service that nobody serves refuses at once, and no request
			// for one leaves this machine.
			"--service-cluster-ip-range=127.96.0.0/16",
			"--authorization-mode=RBAC",
		}
	}
	return []string{
		"--bind-address=0.0.0.0", "--advertise-address=" + c.nodes.Address,
		"--service-cluster-ip-range=" + c.nodes.Services,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + c.path("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + c.path("apiserver-kubelet-client.key"),
	}
}

// ReplaceAPIServer stops the API server and starts that of another release in its place, at
// the same address with the same data, as an upgrade of a control plane does.
func (c *Cluster) ReplaceAPIServer(ctx context.Context, release Release, log io.Writer) error {
	binaries, err := c.binaries.with(ctx, release, log)
	if err != nil {
		return err
	}
	c.APIServer.Stop()
	c.APIServer.path = binaries.Path(binAPIServer)
	if err := c.APIServer.Start(); err != nil {
		return err
	}
	return c.WaitReady(ctx)
}

// WaitReady waits until the API server is ready to serve, for example after it
// was started again.
func (c *Cluster) WaitReady(ctx context.Context) error {
	config, err := c.AdminConfig()
	if err != nil {
		return err
	}
	config.Timeout = 5 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	return c.APIServer.wait(ctx, func(ctx context.Context) error {
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func (c *Cluster) startControllerManager(ctx context.Context, pods bool) error {
	// With the rights that it has in a cluster, and a service account for each controller.
	config, err := c.ConfigFor("system:kube-controller-manager")
	if err != nil {
		return err
	}
	kubeconfig := c.path("controller-manager.kubeconfig")
	if err := WriteKubeconfig(kubeconfig, config); err != nil {
		return err
	}
	ports, err := FreePorts(1)
	if err != nil {
		return err
	}
	which := controllers
	switch {
	case c.nodes != nil:
		which = "*"
	case pods:
		which += podControllers
	}
	c.ControllerManager = c.process(binControllerManager,
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1", "--secure-port="+ports[0], "--cert-dir="+c.path("controller-manager"),
		"--leader-elect=false", "--use-service-account-credentials",
		"--controllers="+which,
		"--service-account-private-key-file="+c.path("service-accounts.key"),
		"--root-ca-file="+c.path("server-ca.crt"),
	)
	if err := c.ControllerManager.Start(); err != nil {
		return err
	}
	return c.ControllerManager.wait(ctx, listens(ports[0]))
}

func (c *Cluster) startScheduler(ctx context.Context) error {
	config, err := c.ConfigFor("system:kube-scheduler", "system:masters")
	if err != nil {
		return err
	}
	kubeconfig := c.path("scheduler.kubeconfig")
	if err := WriteKubeconfig(kubeconfig, config); err != nil {
		return err
	}
	ports, err := FreePorts(1)
	if err != nil {
		return err
	}
	c.Scheduler = c.process(binScheduler,
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1", "--secure-port="+ports[0], "--cert-dir="+c.path("scheduler"),
		"--leader-elect=false",
	)
	if err := c.Scheduler.Start(); err != nil {
		return err
	}
	return c.Scheduler.wait(ctx, listens(ports[0]))
}

// listens checks that somebody listens on a port of loopback.
func listens(port string) func(context.Context) error {
	return func(context.Context) error {
		connection, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", port), time.Second)
		if err != nil {
			return err
		}
		return connection.Close()
	}
}

// PrivateFolder makes a folder that only this user may read, even if it exists already with
// other permissions: it will hold keys, and logs with secrets.
func PrivateFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// FreePorts returns n ports of loopback that nobody listens on. They are not of those that
// the kernel gives to connections, of which one could be open when a port is listened on.
func FreePorts(n int) ([]string, error) {
	const first, last, tries = 12_000, 29_999, 1_000
	var ports []string
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := strconv.Itoa(first + mathrand.IntN(last-first+1))
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			continue
		}
		// Held until all are found, so that they differ.
		defer func() { _ = listener.Close() }()
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("finding %d free ports between %d and %d: %d tries failed", n, first, last, tries)
}
