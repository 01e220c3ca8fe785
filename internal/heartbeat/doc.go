// SPDX-License-Identifier: Apache-2.0

// Package heartbeat decides which hosts report in time. A host's heartbeat is
// the renewal of its Lease; D is for how long one renewal holds.
//
// The rules, each tested by name:
//
//   - A renewal counts from the moment it is seen, on the monotonic clock.
//     Times of the host's clock are compared for equality only.
//   - Only sighted time counts. The leader renews a canary Lease in each lease
//     namespace and waits for its echo on the watch that brings the renewals.
//     Time without an echo is blind time, and every deadline moves by it.
//   - Silence is proven before it is declared: a canary written after a deadline
//     and seen on the watch is a barrier, because a watch delivers in order.
//   - A restart forgets nothing: it starts from the Reporting conditions.
//   - Deadlines are in memory, in one heap per watch, with one timer for all. A
//     renewal moves a deadline; it wakes nobody and writes nothing.
//
// core is the decision, without goroutines, clock or client; Monitor runs it;
// leaseWatch connects it to the API server.
package heartbeat
