// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// Notifier is a running notifier, and the addresses of its probes and of its /metrics.
type Notifier struct {
	*controlplane.Process
	Probes, Metrics string
}

// StartNotifier starts a notifier under a service account, which it makes if there is none, with
// a configuration file. name is that of its log. Its caller stops it.
func (f *Fleet) StartNotifier(ctx context.Context, name string, a Account, config string) (*Notifier, error) {
	if _, err := f.NewToken(ctx, a); err != nil {
		return nil, err
	}
	identity, err := f.Cluster.ConfigFor("system:serviceaccount:"+a.Namespace+":"+a.Name, "system:serviceaccounts", "system:serviceaccounts:"+a.Namespace, "system:authenticated")
	if err != nil {
		return nil, err
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return nil, err
	}
	probes, metrics := net.JoinHostPort("127.0.0.1", ports[0]), net.JoinHostPort("127.0.0.1", ports[1])
	p, err := f.start(Command{
		Binary: "notifier", Name: name, Config: identity, Args: []string{"--config=" + config},
		Addresses: []string{"--metrics-bind-address=" + metrics, "--health-probe-bind-address=" + probes},
	})
	if err != nil {
		return nil, err
	}
	return &Notifier{p, probes, metrics}, nil
}

// Ready asks the notifier whether it watches.
func (n *Notifier) Ready() error {
	response, err := http.Get("http://" + n.Probes + "/readyz")
	if err != nil {
		return fmt.Errorf("asking the notifier: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the notifier is not ready: %s", response.Status)
	}
	return nil
}
