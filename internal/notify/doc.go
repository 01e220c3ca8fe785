// SPDX-License-Identifier: Apache-2.0

// Package notify tells sinks what becomes of the hosts of servers: a receiver of CloudEvents,
// or an Alertmanager. It is a client like any owner's: it watches the owners' view with the
// rights of the account that it runs under, and keeps nothing on disk.
//
// What decides is apart from what reads and writes. An engine turns what is seen of servers
// into what each route has to say, after its minimum duration and grouping; a queue per sink
// holds the newest state of each server or group until the sink has it; a ledger knows what
// the sink was told. A scope watches, a courier sends.
package notify
