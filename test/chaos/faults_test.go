// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/controlplane"
)

// fault is something that goes wrong for a while. In every run of one, two hosts
// die beside it: one as it begins, one during it.
type fault struct {
	name string
	// target is what it acts on. Faults of different targets can be mixed.
	target string
	// short says that it is part of the short form.
	short bool
	// latency is what it adds to every write, until it ends.
	latency time.Duration
	// long faults take minutes, and are not mixed.
	long bool
	// owners says that it is about what owners are shown, who are there in the long form only.
	owners bool
	run    func(context.Context, *world, *rand.Rand) error
}

const (
	onManagers = "managers"
	onStore    = "API server and etcd"
	onNetwork  = "network"
	onHosts    = "hosts"
	onPeople   = "people"
)

var faults = append([]fault{
	{name: "manager killed", target: onManagers, short: true, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		m, err := w.leader(ctx)
		if err != nil {
			return err
		}
		m.process.Kill()
		return letPass(ctx, between(r, 2*time.Second, 8*time.Second))
	}},
	{name: "both managers killed, twice", target: onManagers, run: killBothTwice},
	{name: "leader paused 5-20 s", target: onManagers, short: true, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		m, err := w.leader(ctx)
		if err != nil {
			return err
		}
		return pause(ctx, m.process, between(r, 5*time.Second, 20*time.Second))
	}},
	{name: "standby paused 10-20 s, then the leader killed", target: onManagers, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		leader, err := w.leader(ctx)
		if err != nil {
			return err
		}
		for _, m := range w.managers {
			if m != leader {
				// Long enough for the hosts that died to be declared, which it does not see.
				if err := pause(ctx, m.process, between(r, 10*time.Second, 20*time.Second)); err != nil {
					return err
				}
			}
		}
		if err := letPass(ctx, between(r, 0, 2*time.Second)); err != nil {
			return err
		}
		leader.process.Kill()
		return letPass(ctx, between(r, 2*time.Second, 8*time.Second))
	}},
	{name: "both managers paused 5-20 s", target: onManagers, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		return pauseBoth(ctx, w, between(r, 5*time.Second, 20*time.Second))
	}},
	{name: "both managers paused 120 s", target: onManagers, long: true, run: func(ctx context.Context, w *world, _ *rand.Rand) error {
		return pauseBoth(ctx, w, 120*time.Second)
	}},
	{name: "two replicas of the owners' view know different things, then the leader is killed", target: onManagers, owners: true, run: splitViews(watchOfHosts, watchOfServers)},
	{name: "leader killed within a fan-out of 500 servers", target: onManagers, short: true, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		m, err := w.leader(ctx)
		if err != nil {
			return err
		}
		if err := w.set(ctx, bigHost, `{"spec":{"forcedDown":true}}`); err != nil {
			return err
		}
		if err := letPass(ctx, between(r, 50*time.Millisecond, 500*time.Millisecond)); err != nil {
			return err
		}
		m.process.Kill()
		return letPass(ctx, 5*time.Second)
	}},
	{name: "API server killed, started on the same data", target: onStore, short: true, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		return restart(ctx, w, w.fleet.Cluster.APIServer, between(r, 500*time.Millisecond, 10*time.Second))
	}},
	{name: "API server paused 5-20 s", target: onStore, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		return pause(ctx, w.fleet.Cluster.APIServer, between(r, 5*time.Second, 20*time.Second))
	}},
	{name: "etcd killed, started on the same data", target: onStore, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		return restart(ctx, w, w.fleet.Cluster.Etcd, between(r, 500*time.Millisecond, 10*time.Second))
	}},
	{name: "etcd paused 4 s, three times", target: onStore, run: pauseEtcdThrice},
	{name: "etcd paused 5-20 s", target: onStore, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		return pause(ctx, w.fleet.Cluster.Etcd, between(r, 5*time.Second, 20*time.Second))
	}},
	{name: "watches stalled 3-15 s", target: onNetwork, short: true, run: stallWatches},
	{name: "watches of one lease namespace stalled 3-15 s", target: onNetwork, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		namespace := w.namespaces()[r.IntN(2)]
		defer w.proxy.stall("/namespaces/" + namespace + "/leases")()
		return letPass(ctx, between(r, 3*time.Second, 15*time.Second))
	}},
	{name: "open watches bring nothing any more", target: onNetwork, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		w.proxy.freeze()
		if err := letPass(ctx, between(r, 3*time.Second, 6*time.Second)); err != nil {
			return err
		}
		return w.set(ctx, w.some(r, 1)[0].name, `{"spec":{"forcedDown":true}}`)
	}},
	{name: "open watches bring nothing any more, then the leader is killed", target: onNetwork, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		w.proxy.freeze()
		// Long enough for the hosts that died to be declared, which the standby does not see.
		if err := letPass(ctx, between(r, 10*time.Second, 20*time.Second)); err != nil {
			return err
		}
		m, err := w.leader(ctx)
		if err != nil {
			return err
		}
		m.process.Kill()
		return letPass(ctx, between(r, 2*time.Second, 8*time.Second))
	}},
	{name: "watches cut, ten times", target: onNetwork, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		for range 10 {
			w.proxy.cutWatches()
			if err := letPass(ctx, between(r, 100*time.Millisecond, 2*time.Second)); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "everything cut 2-15 s", target: onNetwork, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		defer w.proxy.cut()()
		return letPass(ctx, between(r, 2*time.Second, 15*time.Second))
	}},
	{name: "blind spells closer than D", target: onNetwork, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		for range 6 {
			restore := w.proxy.stall("/leases")
			err := letPass(ctx, between(r, 1500*time.Millisecond, 3*time.Second))
			restore()
			if err := errors.Join(err, letPass(ctx, between(r, time.Second, 3*time.Second))); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "slow API, 200 ms", target: onNetwork, latency: 200 * time.Millisecond, run: slow(200 * time.Millisecond)},
	{name: "slow API, 2 s", target: onNetwork, latency: 2 * time.Second, run: slow(2 * time.Second)},
	{name: "clocks of hosts off by an hour", target: onHosts, run: wrongClocks},
	{name: "agents killed, started in the same second", target: onHosts, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		for range 3 {
			for _, h := range append(w.some(r, 20), w.agents...) {
				h.die()
				if err := h.live(); err != nil {
					return err
				}
			}
			if err := letPass(ctx, between(r, time.Second, 3*time.Second)); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "agents paused 2-12 s", target: onHosts, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		var running sync.WaitGroup
		for _, h := range w.agents {
			d := between(r, 2*time.Second, 12*time.Second)
			running.Go(func() { _ = pause(ctx, h.power.(process).Process, d) })
		}
		running.Wait()
		return ctx.Err()
	}},
	{name: "1 % of the hosts die", target: onHosts, run: deaths(1)},
	{name: "30 % of the hosts die", target: onHosts, run: deaths(30)},
	{name: "100 % of the hosts die", target: onHosts, run: deaths(100)},
	{name: "hosts die while the API server is down", target: onStore, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		w.fleet.Cluster.APIServer.Kill()
		err := letPass(ctx, between(r, 100*time.Millisecond, 2*time.Second))
		for _, h := range w.some(r, 30) {
			h.die()
		}
		err = errors.Join(err, letPass(ctx, between(r, 100*time.Millisecond, 6*time.Second)), w.fleet.Cluster.APIServer.Start())
		return errors.Join(err, w.ready(ctx))
	}},
	{name: "Leases deleted", target: onHosts, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		for i, h := range w.some(r, 20) {
			if i%4 == 0 {
				h.die()
			}
			w.seen.deletes(h)
			// While the API server is away nobody can delete anything. If only the answer was
			// lost, the judge allows for what follows from a deletion.
			_ = w.kube.CoordinationV1().Leases(h.namespace).Delete(ctx, h.name, metav1.DeleteOptions{})
		}
		return letPass(ctx, 5*time.Second)
	}},
	{name: "200 tenants list without a pause", target: onPeople, run: listStorm(200, 15*time.Second)},
	{name: "flags set and cleared", target: onPeople, run: func(ctx context.Context, w *world, r *rand.Rand) error {
		for range 20 {
			h := w.hosts[r.IntN(len(w.hosts))]
			flag := []string{"forcedDown", "disabled"}[r.IntN(2)]
			// While the API server is away nobody can set anything.
			_ = w.set(ctx, h.name, fmt.Sprintf(`{"spec":{%q:%v}}`, flag, r.IntN(3) > 0))
			if err := letPass(ctx, between(r, 0, time.Second)); err != nil {
				return err
			}
		}
		return nil
	}},
}, attackers...)

// stallWatches, and the others that have a name, are also what shows that the mutants
// are noticed.
func stallWatches(ctx context.Context, w *world, r *rand.Rand) error {
	defer w.proxy.stall("/")()
	return letPass(ctx, between(r, 3*time.Second, 15*time.Second))
}

// holdHeartbeatsBack keeps what the watches of Leases bring in flight, for longer than
// the shortest D, while everything that is written succeeds.
func holdHeartbeatsBack(ctx context.Context, w *world, _ *rand.Rand) error {
	defer w.proxy.stall("/leases")()
	return letPass(ctx, 2*shortest)
}

func killBothTwice(ctx context.Context, w *world, _ *rand.Rand) error {
	for range 2 {
		// Long enough that what died as the fault began is UNKNOWN by then.
		if err := letPass(ctx, 8*time.Second); err != nil {
			return err
		}
		for _, m := range w.managers {
			m.process.Kill()
		}
		if _, err := w.leader(ctx); err != nil {
			return err
		}
	}
	return letPass(ctx, 2*time.Second)
}

// pauseEtcdThrice cuts hosts and managers off together, for less than it takes a
// manager to lose its leadership.
func pauseEtcdThrice(ctx context.Context, w *world, _ *rand.Rand) error {
	for range 3 {
		if err := errors.Join(pause(ctx, w.fleet.Cluster.Etcd, 4300*time.Millisecond), letPass(ctx, 5*time.Second)); err != nil {
			return err
		}
	}
	return nil
}

func wrongClocks(ctx context.Context, w *world, r *rand.Rand) error {
	some := w.some(r, 30)
	for _, by := range []time.Duration{time.Hour, -time.Hour, 0} {
		for _, h := range some {
			if renewer, ok := h.power.(*renewer); ok {
				renewer.clock.by.Store(int64(by))
			}
		}
		if err := letPass(ctx, between(r, 3*time.Second, 6*time.Second)); err != nil {
			return err
		}
	}
	return nil
}

func deaths(percent int) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, r *rand.Rand) error {
		for _, h := range w.some(r, percent) {
			h.die()
		}
		return letPass(ctx, time.Second)
	}
}

func slow(by time.Duration) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, _ *rand.Rand) error {
		defer w.proxy.slow(by)()
		return letPass(ctx, 25*time.Second)
	}
}

// listStorm lets tenants read all servers of theirs, over and over.
func listStorm(clients int, d time.Duration) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, _ *rand.Rand) error {
		// Where another fault has taken the API server away, it goes on until one of them
		// has got an answer.
		end := time.Now().Add(d)
		ctx, cancel := context.WithTimeout(ctx, d+recoveryLimit)
		defer cancel()
		const people = 20
		var transports []http.RoundTripper
		for range people {
			config, err := w.fleet.Cluster.ConfigFor("ana")
			if err != nil {
				return err
			}
			transport, err := rest.TransportFor(config)
			if err != nil {
				return err
			}
			transports = append(transports, transport)
		}
		var answers atomic.Int64
		var running sync.WaitGroup
		url := w.fleet.Cluster.URL + "/apis/tenant.hoststatus.dev/v1alpha1/namespaces/" + tenant + "/servers"
		for i := range clients {
			running.Go(func() {
				for ctx.Err() == nil && (time.Now().Before(end) || answers.Load() == 0) {
					request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
					if err != nil {
						return
					}
					response, err := transports[i%people].RoundTrip(request)
					if err != nil {
						time.Sleep(10 * time.Millisecond)
						continue
					}
					if _, err := io.Copy(io.Discard, response.Body); err == nil && response.StatusCode == http.StatusOK {
						answers.Add(1)
					}
					_ = response.Body.Close()
				}
			})
		}
		// What a bare client can write meanwhile is the measure of the fan-out.
		rate, err := w.measure(context.WithoutCancel(ctx))
		if err == nil {
			w.stormRate.Store(int64(rate))
		}
		running.Wait()
		if answers.Load() == 0 {
			return errors.New("no tenant got an answer")
		}
		return nil
	}
}

// some returns percent of all hosts, at least one, in random order.
func (w *world) some(r *rand.Rand, percent int) []*host {
	n := max(1, len(w.hosts)*percent/100)
	var out []*host
	for _, i := range r.Perm(len(w.hosts))[:n] {
		out = append(out, w.hosts[i])
	}
	return out
}

// set merges body into a ComputeService, as an operator would: who finds no API server,
// because another fault has taken it away, tries again.
func (w *world) set(ctx context.Context, name, body string) error {
	return retried(ctx, func(ctx context.Context) error {
		service := &v1alpha1.ComputeService{ObjectMeta: metav1.ObjectMeta{Name: name}}
		return w.fleet.Client.Patch(ctx, service, client.RawPatch(types.MergePatchType, []byte(body)))
	})
}

// retried repeats do until it works, for as long as another fault may take the API server
// away.
func retried(ctx context.Context, do func(context.Context) error) error {
	once := func() error {
		// Long enough for a webhook that does not answer to be given up.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return do(ctx)
	}
	for end := time.Now().Add(recoveryLimit); ; {
		err := once()
		if err == nil || time.Now().After(end) {
			return err
		}
		if waited := letPass(ctx, 500*time.Millisecond); waited != nil {
			return errors.Join(err, waited)
		}
	}
}

// heal undoes what faults leave behind on purpose: hosts that are dead, and flags.
func (w *world) heal(ctx context.Context) error {
	for _, h := range w.hosts {
		if err := h.live(); err != nil {
			return err
		}
	}
	return inParallel(w.hosts, func(h *host) error {
		return w.set(ctx, h.name, `{"spec":{"forcedDown":null,"disabled":null}}`)
	})
}

func (w *world) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return w.fleet.Cluster.WaitReady(ctx)
}

// pause stops a process for d. One that has just ended is about to be started
// again.
func pause(ctx context.Context, p *controlplane.Process, d time.Duration) error {
	for begin := time.Now(); ; {
		err := p.Signal(syscall.SIGSTOP)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrProcessDone) || time.Since(begin) > 10*time.Second {
			return err
		}
		if err := letPass(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	err := letPass(ctx, d)
	if resumed := p.Signal(syscall.SIGCONT); !errors.Is(resumed, os.ErrProcessDone) {
		err = errors.Join(err, resumed)
	}
	return err
}

func pauseBoth(ctx context.Context, w *world, d time.Duration) error {
	var running sync.WaitGroup
	errs := make([]error, len(w.managers))
	for i, m := range w.managers {
		running.Go(func() { errs[i] = pause(ctx, m.process, d) })
	}
	running.Wait()
	return errors.Join(errs...)
}

func restart(ctx context.Context, w *world, p *controlplane.Process, down time.Duration) error {
	p.Kill()
	return errors.Join(letPass(ctx, down), p.Start(), w.ready(ctx))
}

func letPass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}
