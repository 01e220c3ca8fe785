// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// A restore of etcd from an older copy takes back what was written since, and with it
// the versions at which all watches stand: the API server shows nothing from there until
// as much has been written again. Nobody restarts anything but etcd and the API server.
// What hosts and servers are is true again before that.
func TestARestoreOfEtcdIsSeenWithoutARestart(t *testing.T) {
	if *duration == 0 {
		t.Skip("part of the long form only, because it takes minutes")
	}
	const (
		// newer is how many writes the restore takes back: more than the fleet makes while
		// its watches find out.
		newer = 12_000
		limit = 5 * time.Minute
	)
	ctx, w := t.Context(), sharedWorld(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cluster := w.fleet.Cluster
	data, backup := filepath.Join(cluster.Dir, "etcd"), filepath.Join(t.TempDir(), "etcd")

	comesBack, dies := w.hosts[1], w.hosts[2]
	comesBack.die()
	must(w.settle(ctx, recoveryLimit))
	cluster.Etcd.Kill()
	must(os.CopyFS(backup, os.DirFS(data)))
	must(cluster.Etcd.Start())
	must(w.ready(ctx))
	must(comesBack.live())
	must(w.settle(ctx, recoveryLimit))

	dies.die()
	undone := &v1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "undone"}, Spec: v1alpha1.ServerSpec{Host: bigHost}}
	must(w.fleet.Client.Create(ctx, undone))
	must(inParallel(make([]struct{}, newer), func(struct{}) error {
		patch := fmt.Appendf(nil, `{"spec":{"leaseTransitions":%d}}`, w.measured.Add(1))
		_, err := w.kube.CoordinationV1().Leases(bareNamespace).Patch(ctx, bareName, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}))
	must(w.settle(ctx, recoveryLimit))

	cluster.APIServer.Kill()
	cluster.Etcd.Kill()
	must(os.RemoveAll(data))
	must(os.CopyFS(data, os.DirFS(backup)))
	must(cluster.Etcd.Start())
	must(cluster.APIServer.Start())
	begin := time.Now()
	must(w.ready(ctx))
	must(w.settle(ctx, limit))
	t.Logf("true again after %v", time.Since(begin).Round(time.Second))

	tenantKnows := func() error {
		out, err := w.fleet.Kubectl(ctx, "get", "--raw", "/apis/tenant.hoststatus.dev/v1alpha1/namespaces/"+tenant+"/servers?resourceVersion=0").CombinedOutput()
		switch {
		case err != nil:
			return fmt.Errorf("listing the owners' view: %w\n%s", err, out)
		case strings.Contains(string(out), `"undone"`):
			return errors.New("the owners' view shows a server that is no more")
		}
		return nil
	}
	for end := begin.Add(limit); ; time.Sleep(time.Second) {
		err := tenantKnows()
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	t.Logf("so for owners after %v", time.Since(begin).Round(time.Second))
	must(dies.live())
	must(w.settle(ctx, recoveryLimit))
}
