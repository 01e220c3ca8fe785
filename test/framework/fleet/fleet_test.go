// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func TestASecondFleetInTheSameFolderIsRefusedAndAFirstOneStartsEmpty(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ready")); !os.IsNotExist(err) {
		t.Errorf("what an earlier run left is still there: %v", err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "already runs in "+dir) {
		t.Errorf("the error of the second is %v", err)
	}
	unlock()
	if unlock, err = lock(dir); err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	unlock()
}

func TestACheckOfAllServersNamesTheOneThatIsWrong(t *testing.T) {
	up, down := v1alpha1.HostStatusUp, v1alpha1.HostStatusDown
	server := func(name, host string, status *v1alpha1.HostStatus) v1alpha1.Server {
		s := v1alpha1.Server{Spec: v1alpha1.ServerSpec{Host: host}, Status: v1alpha1.ServerStatus{HostFields: v1alpha1.HostFields{HostStatus: status}}}
		s.Name = name
		return s
	}
	servers := []v1alpha1.Server{server("a", "one", &up), server("b", "two", &down), server("c", "three", nil)}
	if err := All(up, "one")(servers); err != nil {
		t.Error(err)
	}
	for _, host := range []string{"two", "three", "none"} {
		if err := All(up, host)(servers); err == nil {
			t.Errorf("the servers on %s pass for UP", host)
		}
	}
	if err := All(up)(servers); err == nil || !strings.Contains(err.Error(), `/b on two has host status "DOWN"`) {
		t.Errorf("the complaint is %v", err)
	}
}
