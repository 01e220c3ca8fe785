// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

var shortScenario = scenario{
	name: "short", title: "Ratios that a change must not spoil",
	sizes: []int{200}, sizesAre: "servers", repeats: 8,
}

// shortAsks is how often each way to ask for the same is tried.
const shortAsks = 100

// limit is how far a figure may be from what it should be. None is a time: each is
// a ratio to what was measured beside it, a count or a size of memory. A machine
// that is busy with other things shifts a ratio by a half, and what these are to
// catch (a write or a reconcile too many, writes one after the other, a copy of
// what need not be kept, something quadratic) by more.
type limit struct {
	// size and figure are the beginnings of what it is for.
	size, figure string
	ratio        bool
	most         float64
}

var limits = []limit{
	{"200 servers", "last server, median", true, 3},
	{"200 servers", "get, granted", true, 4},
	{"200 servers", "get, ungranted", true, 5},
	{"200 servers", "list, granted", true, 2},
	{"200 servers", "list, ungranted", true, 2},
	{"1,000 hosts", "CPU of a renewal", true, 1.6},
	{"1,000 hosts", "live heap per host", false, 1.5 * 6},
	{"1,000 hosts", "live heap per server", false, 1.5 * 1.1},
	{"1,000 hosts", "writes of the restart", false, 0},
	{"1,000 servers, 100 windows", "writes of an answer that moves nothing", false, 1.5},
	{"1,000 servers, 100 windows", "writes of an answer that puts a window off", false, 3},
	{"1,000 servers, 100 windows", "CPU of an answer that moves nothing", true, 3},
	{"1,000 servers, 100 windows", "writes while nothing happens", false, 0},
	{"1,000 servers, 100 windows", "writes of a restart with answers", false, 0},
	// 2.1 KiB; 2.7 where histories and windows are not kept once for all servers of a host. With
	// so few servers what does not grow with them counts, too.
	{"1,000 servers, 100 windows", "live heap per server, with its history, window and answer", false, 2.5},
	{"10 × the fleet", "CPU of a renewal", true, 2},
	{"10 × the fleet", "CPU of a change reported of a server", true, 2},
	{"10 × the fleet", "CPU of a server's first status", true, 2},
}

// runShort measures what changes of the code are likely to spoil, within two
// minutes, and complains where a limit is passed.
func runShort(ctx context.Context, o options) error {
	t := &trial{options: o, scenario: shortScenario, short: true, result: newResult(shortScenario, o)}
	t.result.Sizes, t.result.Repeats = t.scenario.sizes, t.scenario.repeats
	begin := time.Now()
	err := t.runShort(ctx)
	t.result.Seconds = time.Since(begin).Round(time.Second).Seconds()
	t.close()
	if err != nil {
		return err
	}
	t.result.print(os.Stdout)
	return t.result.exceeded(limits)
}

func (t *trial) runShort(ctx context.Context) error {
	g := &growthFigures{}
	for _, n := range []int{100, 1000} {
		if err := t.grow(ctx, n, g); err != nil {
			return err
		}
		t.close()
	}
	for _, s := range []struct {
		name string
		cost series
	}{{"CPU of a renewal", g.renewal}, {"CPU of a change reported of a server", g.change}, {"CPU of a server's first status", g.write}} {
		t.result.addBeside("10 × the fleet", s.name, s.cost.Y[1], "µs", "the smaller fleet", s.cost.Y[0])
	}
	if err := t.answer(ctx, 1000); err != nil {
		return err
	}
	t.close()
	w, m, err := t.newOwnersWorld(ctx)
	if err != nil {
		return err
	}
	if err := w.notice(ctx, m); err != nil {
		return err
	}
	n := t.scenario.sizes[0]
	if err := w.race(ctx, "get", n, false); err != nil {
		return err
	}
	return w.race(ctx, "list", n, false)
}

// exceeded returns which limits are passed.
func (r *result) exceeded(limits []limit) error {
	var errs []error
	for _, l := range limits {
		found := false
		for _, f := range r.Figures {
			if !strings.HasPrefix(f.Size, l.size) || f.Name != l.figure || f.ReferenceName == "granted" {
				continue
			}
			found = true
			value, unit := f.Value, f.Unit
			if l.ratio {
				value, unit = f.ratio(), "× "+f.ReferenceName
			}
			if !(value <= l.most) { // NaN passes no limit.
				errs = append(errs, fmt.Errorf("%s, %s: %s %s, the limit is %s", f.Size, f.Name, number(value), unit, number(l.most)))
			}
		}
		if !found {
			errs = append(errs, fmt.Errorf("%s, %s: it was not measured", l.size, l.figure))
		}
	}
	return errors.Join(errs...)
}
