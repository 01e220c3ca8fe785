// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
	"hoststatus.dev/hoststatus/test/framework/fleet"
)

const (
	// nobody is the user of the images.
	nobody = 65532
	// accountFolder is where a pod finds its service account.
	accountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// binaries is a folder with the binaries of the images.
var binaries = sync.OnceValues(func() (string, error) {
	all, err := images()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(scratch, "binaries")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, image := range all {
		for name, file := range image.files {
			if err := os.Link(file, filepath.Join(dir, name)); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
})

// createPod makes a pod of a template, as its controller would, on a node.
func createPod(ctx context.Context, kube kubernetes.Interface, name, node string, template corev1.PodTemplateSpec) (*corev1.Pod, error) {
	pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Namespace, pod.Name, pod.Spec.NodeName = namespace, name, node
	_, err := kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("making node %s: %w", node, err)
	}
	created, err := kube.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("making pod %s: %w", name, err)
	}
	return created, nil
}

// runPod makes the process of a pod, as a kubelet and a container engine would: from
// the files and the entrypoint of its image, with the arguments and the
// environment of the manifest, a token that is bound to the pod, and no rights on this
// machine. What a kubelet would not do: flags are added for the place of files and for
// addresses, because all pods share one network here.
//
// Where the tests do not run as root the image's root folder and user are left out.
func runPod(ctx context.Context, f *fleet.Fleet, kube kubernetes.Interface, pod *corev1.Pod, files map[string]string, add ...string) (*controlplane.Process, error) {
	container := pod.Spec.Containers[0]
	all, err := images()
	if err != nil {
		return nil, err
	}
	image, ok := all[strings.Split(path.Base(container.Image), ":")[0]]
	if !ok || len(image.Config.Entrypoint) != 1 {
		return nil, fmt.Errorf("image %s is not built by hack/image.sh, or its entrypoint %v is not its binary alone", container.Image, image.Config.Entrypoint)
	}
	binary := image.Config.Entrypoint[0]
	dir := filepath.Join(f.Dir, "pods", pod.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for name, file := range image.files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := write(dir, name, content, 0o555); err != nil {
			return nil, err
		}
	}
	token, err := kube.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
			ExpirationSeconds: ptr.To[int64](3600),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("asking for the token of pod %s: %w", pod.Name, err)
	}
	admin, err := f.Cluster.AdminConfig()
	if err != nil {
		return nil, err
	}
	host, port, found := strings.Cut(strings.TrimPrefix(f.Cluster.URL, "https://"), ":")
	if !found {
		return nil, fmt.Errorf("the API server's URL %s has no port", f.Cluster.URL)
	}
	env := []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
	for name, content := range map[string]string{"token": token.Status.Token, "ca.crt": string(admin.CAData), "namespace": pod.Namespace} {
		if err := write(dir, path.Join(accountFolder, name), []byte(content), 0o444); err != nil {
			return nil, err
		}
	}
	for name, content := range files {
		if err := write(dir, name, []byte(content), 0o444); err != nil {
			return nil, err
		}
	}
	args, more := arguments(pod, container)
	args, env = append(args, add...), append(env, more...)
	if os.Geteuid() == 0 {
		p := controlplane.NewProcess(pod.Name, binary, f.LogFile(pod.Name), env, args...)
		p.Confine(dir, nobody)
		return p, nil
	}
	admin.CertData, admin.KeyData, admin.BearerToken = nil, nil, token.Status.Token
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, admin); err != nil {
		return nil, err
	}
	for i := range args {
		for name := range files {
			args[i] = strings.Replace(args[i], "="+name, "="+filepath.Join(dir, name), 1)
		}
	}
	return controlplane.NewProcess(pod.Name, filepath.Join(dir, binary), f.LogFile(pod.Name), nil, append(args, "--kubeconfig="+kubeconfig)...), nil
}

// arguments returns the arguments and the environment of a container, with what the
// manifest takes from the pod filled in.
func arguments(pod *corev1.Pod, container corev1.Container) (args, env []string) {
	var replacements []string
	for _, variable := range container.Env {
		value := variable.Value
		if variable.ValueFrom != nil && variable.ValueFrom.FieldRef != nil && variable.ValueFrom.FieldRef.FieldPath == "spec.nodeName" {
			value = pod.Spec.NodeName
		}
		env = append(env, variable.Name+"="+value)
		replacements = append(replacements, "$("+variable.Name+")", value)
	}
	replacer := strings.NewReplacer(replacements...)
	for _, arg := range container.Args {
		args = append(args, replacer.Replace(arg))
	}
	return args, env
}

// write writes a file of an image, which nobody may change. A run before this one may
// have left it.
func write(image, name string, content []byte, mode os.FileMode) error {
	file := filepath.Join(image, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	_ = os.Remove(file)
	return os.WriteFile(file, content, mode)
}
