// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Subject is what the monitor needs to know about a ComputeService.
type Subject struct {
	Name       string
	UID        types.UID
	Generation int64
	// Version is the resourceVersion of the ComputeService.
	Version string
	// Lease carries the heartbeats.
	Lease types.NamespacedName
	// Duration is D as the ComputeService sets it; zero leaves it to the Lease.
	Duration time.Duration
	// Node is the host's Node, where that is known. A Lease that belongs to another Node
	// of the same name does not count.
	Node types.UID
	// Memory is the last verdict that was stored for this host.
	Memory Reporting
}

// Verdict is the monitor's verdict on one host.
type Verdict struct {
	Reporting Reporting
	// Version is the resourceVersion of the ComputeService that the monitor has seen
	// last.
	Version string
	// Duration is the D in force.
	Duration time.Duration
	// SinceRenewal is how long ago the last renewal was seen; negative if none
	// was seen by this process.
	SinceRenewal time.Duration
	// Overdue is how long ago the deadline passed of a host that this process has
	// declared silent; zero if it has not.
	Overdue time.Duration
}

type subject struct {
	name       string
	uid        types.UID
	generation int64
	version    string
	watch      *namespace
	lease      *lease
	node       types.UID
	override   time.Duration
	duration   time.Duration
	reporting  Reporting
	memory     Reporting
	// from is the moment that the deadline counts from.
	from     time.Duration
	deadline time.Duration
	place    int
	// declared: the current verdict was given because the deadline passed.
	declared bool
	// witnessed: a renewal was seen while this process led.
	witnessed bool
}

// ofAnotherNode reports that the Lease does not belong to the Node of s: a machine that
// was replaced by one of the same name may still renew it.
func (s *subject) ofAnotherNode() bool {
	return s.node != "" && s.lease.node != "" && s.node != s.lease.node
}

// track takes the current state of a ComputeService.
func (c *core) track(now time.Duration, in Subject) {
	s := c.subjects[in.Name]
	if s != nil && s.uid != in.UID {
		c.forget(in.Name, s.uid)
		s = nil
	}
	if s == nil {
		s = &subject{name: in.Name, uid: in.UID, generation: in.Generation, version: in.Version, node: in.Node, override: in.Duration, place: noPlace}
		c.subjects[in.Name] = s
		c.attach(s, in.Lease)
		c.begin(now, s, in.Memory)
		c.hooks.changed(s.name)
		return
	}
	s.version = in.Version
	before := s.ofAnotherNode()
	s.node = in.Node
	if s.lease.name != in.Lease {
		c.detach(s)
		s.override = in.Duration
		c.attach(s, in.Lease)
		c.repoint(now, s)
	} else if s.override != in.Duration {
		s.override = in.Duration
		c.durationChanged(s)
	}
	if s.ofAnotherNode() != before {
		c.repoint(now, s)
	}
	if in.Memory != s.memory {
		s.memory = in.Memory
		// A verdict of the last leader may reach us when we already lead. Ours takes
		// precedence only where it rests on what we have seen ourselves.
		if !c.leader || !s.witnessed && !s.declared {
			c.recall(now, s, in.Memory)
		}
	}
	// It is less where etcd was restored from a backup.
	if in.Generation != s.generation {
		s.generation = in.Generation
		c.hooks.changed(s.name)
	}
}

// forget takes the deletion of a ComputeService. What was observed of its Lease
// stays as long as the Lease does.
func (c *core) forget(name string, uid types.UID) {
	if s := c.subjects[name]; s != nil && s.uid == uid {
		c.detach(s)
		delete(c.subjects, name)
	}
}

// verdict returns the verdict on a ComputeService.
func (c *core) verdict(now time.Duration, name string, uid types.UID) (Verdict, bool) {
	s := c.subjects[name]
	if s == nil || s.uid != uid {
		return Verdict{}, false
	}
	v := Verdict{Reporting: s.reporting, Version: s.version, Duration: s.duration, SinceRenewal: -1}
	if s.lease.renewed && !s.ofAnotherNode() {
		v.SinceRenewal = now - s.lease.renewedAt
	}
	if s.declared {
		v.Overdue = now - s.deadline
	}
	return v, true
}

// begin gives a subject that is new to this process its first verdict: the one that
// was stored before, or what is known from its Lease.
func (c *core) begin(now time.Duration, s *subject, memory Reporting) {
	s.memory = memory
	s.reporting = memory
	if memory == NoVerdict {
		s.reporting = Waiting
	}
	c.settleIn(now, s)
}

// recall follows the verdict of another process that leads.
func (c *core) recall(now time.Duration, s *subject, memory Reporting) {
	if memory == NotReadable && s.watch.readable {
		memory = NeverReported
	}
	if memory == NoVerdict || memory == s.reporting {
		return
	}
	s.reporting, s.declared = memory, false
	if memory.silent() {
		s.watch.deadlines.clear(s)
	} else {
		s.from = now
		s.watch.deadlines.set(s, now+s.duration)
	}
	c.hooks.changed(s.name)
}

// repoint keeps the last verdict for one D, on another Lease.
func (c *core) repoint(now time.Duration, s *subject) {
	before := s.reporting
	c.settleIn(now, s)
	if s.reporting != before {
		c.hooks.changed(s.name)
	}
}

// settleIn fits the verdict on s to the Lease it has just been attached to.
func (c *core) settleIn(now time.Duration, s *subject) {
	s.declared = false
	switch {
	case !s.watch.readable && s.reporting != Reports:
		s.reporting = NotReadable
	case s.reporting == NotReadable:
		s.reporting = NeverReported
	}
	if s.reporting != Reports && s.lease.renewed && !s.ofAnotherNode() && now-s.lease.renewedAt < s.duration {
		s.reporting = Reports
		s.from = s.lease.renewedAt
		s.watch.deadlines.set(s, max(s.from, s.watch.blindEnd)+s.duration)
		return
	}
	if !s.reporting.silent() {
		s.from = now
		s.watch.deadlines.set(s, now+s.duration)
	}
}

// durationChanged moves the deadline of s by the change of its D.
func (c *core) durationChanged(s *subject) {
	before := s.duration
	s.watch.durations.remove(before)
	s.duration = c.durationOf(s)
	s.watch.durations.add(s.duration)
	if s.place != noPlace && s.duration != before {
		s.watch.deadlines.set(s, max(s.deadline+s.duration-before, s.watch.blindEnd+s.duration/2))
	}
}

func (c *core) durationOf(s *subject) time.Duration {
	switch {
	case s.override > 0:
		return s.override
	case s.lease.duration > 0:
		return s.lease.duration
	default:
		return c.defaultDuration
	}
}

func (c *core) attach(s *subject, name types.NamespacedName) {
	s.watch = c.unreadable
	key := name.String()
	if w := c.watches[name.Namespace]; w != nil {
		s.watch, key = w, name.Name
	}
	s.lease = s.watch.leases[key]
	if s.lease == nil {
		s.lease = &lease{name: name}
		s.watch.leases[key] = s.lease
	}
	s.lease.subjects = append(s.lease.subjects, s)
	s.duration = c.durationOf(s)
	s.watch.durations.add(s.duration)
}

func (c *core) detach(s *subject) {
	s.watch.deadlines.clear(s)
	s.watch.durations.remove(s.duration)
	s.lease.subjects = slices.DeleteFunc(s.lease.subjects, func(other *subject) bool { return other == s })
	s.watch.drop(s.lease)
}

// setReporting changes the verdict on s to r, if it is a new one.
func (c *core) setReporting(s *subject, r Reporting) {
	if s.reporting != r {
		s.reporting, s.declared = r, false
		c.hooks.changed(s.name)
	}
}
