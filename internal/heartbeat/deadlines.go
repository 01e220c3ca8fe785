// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"container/heap"
	"time"
)

// deadlines is a heap of the subjects that have a deadline, the earliest first.
// Each subject knows its place, so that moving one deadline allocates nothing.
type deadlines struct{ items []*subject }

const noPlace = -1

// set gives s the deadline at, adding it if it had none.
func (d *deadlines) set(s *subject, at time.Duration) {
	s.deadline = at
	if s.place == noPlace {
		heap.Push((*deadlineHeap)(d), s)
		return
	}
	heap.Fix((*deadlineHeap)(d), s.place)
}

// clear takes the deadline of s away, if it has one.
func (d *deadlines) clear(s *subject) {
	if s.place != noPlace {
		heap.Remove((*deadlineHeap)(d), s.place)
	}
}

// first returns the subject whose deadline is the earliest, or nil.
func (d *deadlines) first() *subject {
	if len(d.items) == 0 {
		return nil
	}
	return d.items[0]
}

// passed counts the deadlines that are before now. It visits no more than twice as
// many: what is below a later one in the heap is later still.
func (d *deadlines) passed(now time.Duration) int {
	var below func(i int) int
	below = func(i int) int {
		if i >= len(d.items) || d.items[i].deadline >= now {
			return 0
		}
		return 1 + below(2*i+1) + below(2*i+2)
	}
	return below(0)
}

// restore puts the heap in order after deadlines were changed in place.
func (d *deadlines) restore() { heap.Init((*deadlineHeap)(d)) }

// deadlineHeap keeps the methods of heap.Interface off deadlines.
type deadlineHeap deadlines

func (h *deadlineHeap) Len() int           { return len(h.items) }
func (h *deadlineHeap) Less(i, j int) bool { return h.items[i].deadline < h.items[j].deadline }

func (h *deadlineHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].place, h.items[j].place = i, j
}

func (h *deadlineHeap) Push(x any) {
	s := x.(*subject)
	s.place = len(h.items)
	h.items = append(h.items, s)
}

func (h *deadlineHeap) Pop() any {
	last := len(h.items) - 1
	s := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	s.place = noPlace
	return s
}
