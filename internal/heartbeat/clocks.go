// SPDX-License-Identifier: Apache-2.0

package heartbeat

import "time"

const (
	// maxClockSkew is the difference between a host's clock and ours above which
	// we warn: more than a renewal takes on a slow API server.
	maxClockSkew = 10 * time.Second
	// maxAgreement is the difference below which it agrees with ours again, and
	// agreementHolds for how long it must have done so: a clock that goes to and fro, or
	// two hosts that renew one Lease, log once. It is shorter than the alert waits, so
	// that one odd renewal raises none.
	maxAgreement   = maxClockSkew / 2
	agreementHolds = 5 * time.Minute
	// maxClockDrift is how far the wall clock may move against the monotonic one
	// before everything that depends on the time of day is evaluated again.
	maxClockDrift = time.Second
)

// compareWithHost notices when a host's clock is far from ours, and when it no longer
// is; waited is how much older its renewal may be than the moment it is seen.
func (c *core) compareWithHost(now time.Duration, w *namespace, l *lease, skew, waited time.Duration) {
	if skew > maxClockSkew || skew < -maxClockSkew-waited {
		l.skewedAt = now
		if !l.skewed {
			c.setSkewed(w, l, skew, true)
		}
		return
	}
	if l.skewed && skew <= maxAgreement && skew >= -maxAgreement-waited && now-l.skewedAt >= agreementHolds {
		c.setSkewed(w, l, skew, false)
	}
}

func (c *core) setSkewed(w *namespace, l *lease, skew time.Duration, skewed bool) {
	l.skewed = skewed
	if skewed {
		w.skewed++
	} else {
		w.skewed--
	}
	c.hooks.skewed(l.name, skew, skewed)
}

// compareClocks notices that the wall clock was set, or that it has drifted.
func (c *core) compareClocks(now time.Duration, wall time.Time) {
	wallAtZero := wall.Round(0).Add(-now)
	if c.wallAtZero.IsZero() {
		c.wallAtZero = wallAtZero
	}
	if by := wallAtZero.Sub(c.wallAtZero); by.Abs() > maxClockDrift {
		c.wallAtZero = wallAtZero
		c.hooks.clockStepped(by)
	}
}
