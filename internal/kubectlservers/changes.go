// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// What is the field of which a change is.
type What string

// The fields whose changes are printed, and the two changes of a whole server.
const (
	WhatAdded       What = "Added"
	WhatDeleted     What = "Deleted"
	WhatHostStatus  What = "HostStatus"
	WhatReporting   What = "Reporting"
	WhatMaintenance What = "Maintenance"
	WhatAnswer      What = "Answer"
	WhatHost        What = "Host"
	WhatStatus      What = "Status"
	WhatTaskState   What = "TaskState"
	WhatPowerState  What = "PowerState"
)

// labels are how lines name the fields.
var whatLabels = map[What]string{
	WhatHostStatus: "host status", WhatReporting: "host reports", WhatMaintenance: "maintenance", WhatAnswer: "answer",
	WhatStatus: "status", WhatTaskState: "task state", WhatPowerState: "power state",
}

// Change is one change of a server, as watch prints it.
type Change struct {
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace"`
	Server    string    `json:"server"`
	What      What      `json:"what"`
	// From and To are empty where there is no value, or none that the caller may see.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Reason is that of a host status.
	Reason v1alpha1.HostStatusReason `json:"reason,omitempty"`
}

// line writes a change as a line. selected is set if servers were selected by what can change:
// then one that comes or goes may only match now, or not any more.
func (c *Change) line(namespaces, selected, colours bool) string {
	name := c.Server
	if namespaces {
		name = c.Namespace + "/" + c.Server
	}
	words := []string{kubectlplugin.Stamp(c.Time), kubectlplugin.Clean(name)}
	value := func(text string) string {
		cell := kubectlplugin.Plain(cmp.Or(text, kubectlplugin.None))
		if c.What == WhatHostStatus || c.What == WhatAdded || c.What == WhatDeleted {
			status := v1alpha1.HostStatus(text)
			cell = kubectlplugin.StatusCell(&status)
		}
		return kubectlplugin.Paint(cell, colours)
	}
	switch c.What {
	case WhatAdded:
		change := "added"
		if selected {
			change = "added, or matches now"
		}
		words = append(words, change+", host status "+value(c.To))
	case WhatDeleted:
		change := "deleted"
		if selected {
			change = "deleted, or does not match any more"
		}
		words = append(words, change+", host status was "+value(c.From))
	case WhatHost:
		switch {
		case c.From == "":
			words = append(words, "is on a host")
		case c.To == "":
			words = append(words, "is on no host any more")
		default:
			words = append(words, "is on another host")
		}
	case WhatHostStatus:
		change := "host status " + value(c.From) + " -> " + value(c.To) + kubectlplugin.Clean(inBrackets(string(c.Reason)))
		if c.From == c.To {
			change = "host status " + value(c.To) + kubectlplugin.Clean(inBrackets(string(c.Reason)))
		}
		status := v1alpha1.HostStatus(c.To)
		if row, _ := hoststatus.RowOf(&status); row.FailOver {
			change += ", failing over is safe"
		}
		words = append(words, change)
	default:
		words = append(words, whatLabels[c.What]+" "+value(c.From)+" -> "+value(c.To))
	}
	return strings.Join(words, "  ")
}

// windowWords are a window in a watch: when it opens, and when it closes.
func windowWords(fields *v1alpha1.HostFields, now time.Time) string {
	w := fields.MaintenanceWindow
	if w == nil {
		return ""
	}
	at := opensAt(w)
	words := "planned"
	switch {
	case at != nil && isOpen(fields, now):
		words = "open since " + kubectlplugin.Stamp(at.Time)
	case at != nil:
		words = "opens " + kubectlplugin.Stamp(at.Time)
	}
	if w.EndTime != nil {
		words += ", ends " + kubectlplugin.Stamp(w.EndTime.Time)
	}
	return words
}

// changesBetween are the changes from one state of a server to the next, the most important
// first. Those whose time the server does not have are of now.
func changesBetween(before, after *tenantv1alpha1.Server, now time.Time) (out []Change) {
	add := func(what What, from, to string, at time.Time) {
		if at.IsZero() {
			at = now
		}
		out = append(out, Change{
			Time: at.UTC().Truncate(time.Second), Namespace: after.Namespace, Server: after.Name, What: what, From: from, To: to,
		})
	}
	b, a := &before.Status, &after.Status
	if from, to := statusText(b.HostStatus), statusText(a.HostStatus); from != to || b.HostStatusReason != a.HostStatusReason {
		at := time.Time{}
		if from != to && a.HostStatusTransitionTime != nil {
			at = a.HostStatusTransitionTime.Time
		}
		add(WhatHostStatus, from, to, at)
		out[0].Reason = a.HostStatusReason
	}
	for _, field := range []struct {
		what     What
		from, to string
	}{
		{WhatReporting, string(b.HostReporting), string(a.HostReporting)},
		{WhatMaintenance, windowWords(&b.HostFields, now), windowWords(&a.HostFields, now)},
		{WhatAnswer, answerState(b.MaintenanceWindow), answerState(a.MaintenanceWindow)},
		{WhatHost, b.HostID, a.HostID},
		{WhatStatus, string(b.State), string(a.State)},
		{WhatTaskState, b.TaskState, a.TaskState},
		{WhatPowerState, string(b.PowerState), string(a.PowerState)},
	} {
		if field.from != field.to {
			add(field.what, field.from, field.to, time.Time{})
		}
	}
	return out
}

func statusText(s *v1alpha1.HostStatus) string {
	if s == nil {
		return ""
	}
	return string(*s)
}

func answerState(w *v1alpha1.AnnouncedWindow) string {
	if w == nil {
		return ""
	}
	return string(w.Answer)
}

// changes remembers each server, so that it finds what has changed also after a time without
// a connection. It is the store of a reflector.
type changes struct {
	names []string
	// selected is set if servers were selected by what can change.
	selected bool
	now      func() time.Time
	print    func(Change)

	mu    sync.Mutex
	known map[string]*tenantv1alpha1.Server
}

func newChanges(found []tenantv1alpha1.Server, names []string, selected bool, now func() time.Time, print func(Change)) *changes {
	c := &changes{names: names, selected: selected, now: now, print: print, known: map[string]*tenantv1alpha1.Server{}}
	for i := range found {
		if c.wanted(&found[i]) {
			c.known[keyOf(&found[i])] = &found[i]
		}
	}
	return c
}

func keyOf(s *tenantv1alpha1.Server) string { return s.Namespace + "/" + s.Name }

func (c *changes) wanted(s *tenantv1alpha1.Server) bool {
	return len(c.names) == 0 || slices.Contains(c.names, s.Name)
}

func serverOf(obj any) (*tenantv1alpha1.Server, error) {
	s, ok := obj.(*tenantv1alpha1.Server)
	if !ok {
		return nil, fmt.Errorf("watching servers: unexpected %T", obj)
	}
	return s, nil
}

// Add implements cache.ReflectorStore for a new server.
func (c *changes) Add(obj any) error { return c.Update(obj) }

// Update is for a server that may have changed.
func (c *changes) Update(obj any) error {
	s, err := serverOf(obj)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen(s)
	return nil
}

func (c *changes) seen(s *tenantv1alpha1.Server) {
	if !c.wanted(s) {
		return
	}
	before, known := c.known[keyOf(s)]
	if known && before.UID != s.UID { // Deleted and made again while there was no connection.
		c.gone(keyOf(s))
		known = false
	}
	c.known[keyOf(s)] = s
	if !known {
		at := s.CreationTimestamp.UTC()
		if c.selected { // It may be old, and match only now.
			at = c.now().UTC().Truncate(time.Second)
		}
		c.print(Change{
			Time: at, Namespace: s.Namespace, Server: s.Name, What: WhatAdded,
			To: statusText(s.Status.HostStatus), Reason: s.Status.HostStatusReason,
		})
		return
	}
	for _, change := range changesBetween(before, s, c.now()) {
		c.print(change)
	}
}

// Delete is for a server that was deleted.
func (c *changes) Delete(obj any) error {
	s, err := serverOf(obj)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone(keyOf(s))
	return nil
}

func (c *changes) gone(key string) {
	before, known := c.known[key]
	if !known {
		return
	}
	delete(c.known, key)
	c.print(Change{
		Time: c.now().UTC().Truncate(time.Second), Namespace: before.Namespace, Server: before.Name,
		What: WhatDeleted, From: statusText(before.Status.HostStatus),
	})
}

// Replace is for all servers, after a time in which changes may have been missed.
func (c *changes) Replace(list []any, _ string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := map[string]bool{}
	found := make([]*tenantv1alpha1.Server, 0, len(list))
	for _, obj := range list {
		s, err := serverOf(obj)
		if err != nil {
			return err
		}
		there[keyOf(s)] = true
		found = append(found, s)
	}
	slices.SortFunc(found, func(a, b *tenantv1alpha1.Server) int { return kubectlplugin.CompareNames(keyOf(a), keyOf(b)) })
	for _, s := range found {
		c.seen(s)
	}
	for key := range c.known {
		if !there[key] {
			c.gone(key)
		}
	}
	return nil
}

// Resync has nothing to do: every change is printed when it comes.
func (c *changes) Resync() error { return nil }
