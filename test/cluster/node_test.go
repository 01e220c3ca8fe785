// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/sandbox"
)

// The network, which is in the namespaces of the tests. Node 1 shares the control plane's.
const (
	nodes            = 2
	services         = "10.112.0.0/16"
	apiServerService = "10.112.0.1"
	bridge           = "nodes"
)

func nodeName(i int) string    { return fmt.Sprintf("node-%d", i+1) }
func nodeAddress(i int) string { return fmt.Sprintf("10.111.0.%d", i+1) }
func podRange(i int) string    { return fmt.Sprintf("10.113.%d.0/24", i+1) }

// node is a machine with kubelet, containerd and kube-proxy.
type node struct {
	name string
	dir  string
	// link is this end of the node's cable, in the control plane's network. The first node
	// has none.
	link string
	// machine holds the node's mounts and network.
	machine, containerd, kubelet, kubeProxy *controlplane.Process
}

// command returns one that runs on the node.
func (n *node) command(name string, args ...string) []string {
	return append([]string{"--target", fmt.Sprint(n.machine.Pid()), "--mount", "--net", "--", name}, args...)
}

func (n *node) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", n.command(name, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s on %s: %v\n%s", name, n.name, err, out)
	}
	return string(out)
}

func (n *node) start(t *testing.T, name, path string, args ...string) *controlplane.Process {
	t.Helper()
	nsenter, err := exec.LookPath("nsenter")
	expect.NoError(t, err)
	p := controlplane.NewProcess(name, nsenter, filepath.Join(n.dir, name+".log"), os.Environ(), n.command(path, args...)...)
	expect.NoError(t, p.Start())
	return p
}

func ip(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", line, err, out)
	}
}

// newNetwork is a switch that the control plane and all nodes are plugged into.
func newNetwork(t *testing.T) {
	t.Helper()
	ip(t, "link set lo up")
	ip(t, "link add "+bridge+" type bridge")
	ip(t, "addr add "+nodeAddress(0)+"/24 dev "+bridge)
	ip(t, "link set "+bridge+" up")
	// Packets for nobody have to have a route before kube-proxy sends them elsewhere.
	ip(t, "route add default dev "+bridge)
	for i := 1; i < nodes; i++ {
		ip(t, fmt.Sprintf("route add %s via %s", podRange(i), nodeAddress(i)))
	}
	expect.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
}

// machineScript gives a node the places that containerd and the kubelet write to whatever
// they are told, and keeps them.
const machineScript = `
mount --make-rshared /
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; mount -t tmpfs tmpfs /var/log
mkdir -p /run/containerd /run/netns /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers
mount --bind "$1/kubelet" /var/lib/kubelet; mount --bind "$1/pods" /var/log/pods
touch "$1/ready"
exec sleep infinity
`

const cniConfig = `{"cniVersion":"1.0.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,"ipam":{"type":"host-local","ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
`

// restrict_oom_score_adj lets it run where a process may not lower its score.
const containerdConfig = `version = 2
root = "%[1]s/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[2]s}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: %[3]s
failCgroupV1: false
failSwapOn: false
# What else is on this machine's disk is no concern of the nodes: with the default, 15 percent, a disk that
# is half empty for others can already be too full for pods.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.available: 1%%, imagefs.inodesFree: 1%%}
imageGCHighThresholdPercent: 100
clusterDNS: [10.112.0.10]
clusterDomain: cluster.local
resolvConf: %[1]s/resolv.conf
volumePluginDir: %[1]s/volumeplugins
`

const kubeProxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %[1]s/kube-proxy.kubeconfig}
hostnameOverride: %[2]s
clusterCIDR: 10.113.0.0/16
mode: iptables
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// startNode adds a node to a cluster.
func startNode(t *testing.T, c *controlplane.Cluster, i int) *node {
	t.Helper()
	n := &node{name: nodeName(i), dir: filepath.Join(sandbox.Folder(), nodeName(i))}
	for _, dir := range []string{"containerd", "kubelet", "pods", "cni", "volumeplugins"} {
		expect.NoError(t, os.MkdirAll(filepath.Join(n.dir, dir), 0o755))
	}
	unshare, err := exec.LookPath("unshare")
	expect.NoError(t, err)
	args := []string{"--mount", "--propagation", "private"}
	if i > 0 {
		args = append(args, "--net")
	}
	n.machine = controlplane.NewProcess("machine", unshare, filepath.Join(n.dir, "machine.log"), os.Environ(), append(args, "bash", "-ec", machineScript, "machine", n.dir)...)
	expect.NoError(t, n.machine.Start())
	expect.Eventually(t, patience, func() error {
		_, err := os.Stat(filepath.Join(n.dir, "ready"))
		return err
	})
	if i > 0 {
		n.plugIn(t, i)
	}
	n.configure(t, c, i)
	n.containerd = n.start(t, "containerd", "containerd", "--config", filepath.Join(n.dir, "containerd.toml"))
	expect.Eventually(t, patience, func() error {
		out, err := exec.Command("nsenter", n.command("ctr", "version")...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("containerd on %s: %w\n%s", n.name, err, out)
		}
		return err
	})
	n.kubelet = n.start(t, "kubelet", c.Kubelet(), "--config="+filepath.Join(n.dir, "kubelet.yaml"), "--kubeconfig="+filepath.Join(n.dir, "kubelet.kubeconfig"),
		"--hostname-override="+n.name, "--node-ip="+nodeAddress(i))
	n.kubeProxy = n.start(t, "kube-proxy", c.KubeProxy(), "--config="+filepath.Join(n.dir, "kube-proxy.yaml"))
	return n
}

// plugIn connects a node to the switch.
func (n *node) plugIn(t *testing.T, i int) {
	t.Helper()
	n.link = fmt.Sprintf("to-%s", n.name)
	ip(t, fmt.Sprintf("link add %s type veth peer name eth0 netns %d", n.link, n.machine.Pid()))
	ip(t, fmt.Sprintf("link set %s master %s up", n.link, bridge))
	n.run(t, "ip", "link", "set", "lo", "up")
	n.run(t, "ip", "addr", "add", nodeAddress(i)+"/24", "dev", "eth0")
	n.run(t, "ip", "link", "set", "eth0", "up")
	n.run(t, "ip", "route", "add", "default", "via", nodeAddress(0))
	n.run(t, "bash", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
}

func (n *node) configure(t *testing.T, c *controlplane.Cluster, i int) {
	t.Helper()
	write := func(name, content string) {
		t.Helper()
		expect.NoError(t, os.WriteFile(filepath.Join(n.dir, name), []byte(content), 0o600))
	}
	for file, groups := range map[string][]string{"kubelet": {"system:node:" + n.name, "system:nodes"}, "kube-proxy": {"system:kube-proxy"}} {
		config, err := c.ConfigFor(groups[0], groups[1:]...)
		expect.NoError(t, err)
		expect.NoError(t, controlplane.WriteKubeconfig(filepath.Join(n.dir, file+".kubeconfig"), config))
	}
	write("resolv.conf", "nameserver 10.112.0.10\n")
	write("cni/10-pods.conflist", fmt.Sprintf(cniConfig, podRange(i)))
	write("containerd.toml", fmt.Sprintf(containerdConfig, n.dir, pauseImage))
	write("kubelet.yaml", fmt.Sprintf(kubeletConfig, n.dir, c.ClientCA(), filepath.Join("/", cgroupOf(sandbox.Folder()), n.name)))
	write("kube-proxy.yaml", fmt.Sprintf(kubeProxyConfig, n.dir, n.name))
}

// load puts the images of a tag into the node's store, as a person does by the page about
// installing.
func (n *node) load(t *testing.T, tag string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(sandbox.Folder(), "images", tag, "*.linux-"+runtime.GOARCH+".docker.tar"))
	expect.NoError(t, err)
	if len(files) == 0 {
		t.Fatal(errors.New("there are no images of " + tag))
	}
	for _, file := range files {
		n.run(t, "ctr", "-n", "k8s.io", "images", "import", file)
	}
}

// cut takes the node's cable out, and plug puts it in again.
func (n *node) cut(t *testing.T)  { t.Helper(); ip(t, "link set "+n.link+" down") }
func (n *node) plug(t *testing.T) { t.Helper(); ip(t, "link set "+n.link+" up") }
