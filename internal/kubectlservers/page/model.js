// SPDX-License-Identifier: Apache-2.0

// What the page knows of servers, apart from how it is drawn.

import {compareNames, placeFor} from './shared/names.js';
import {keyOf, Store} from './shared/store.js';
import {timeOf} from './shared/times.js';

// recordOf is what is shown of a server. What is not shown to the caller stays undefined:
// nothing is concluded from its absence.
export function recordOf(object, statuses) {
  const {metadata, status = {}} = object;
  const shown = status.hostStatus !== undefined || Boolean(status.hostStatusReason);
  const record = {
    key: keyOf(metadata),
    namespace: metadata.namespace,
    name: metadata.name,
    shown,
    status: shown ? statuses.of(status.hostStatus) : undefined,
    reason: status.hostStatusReason ?? '',
    silent: status.hostReporting === 'False',
    since: timeOf(status.hostStatusTransitionTime),
    state: [status.state, status.taskState].filter(Boolean).join(', '),
    power: status.powerState ?? '',
    window: windowOf(status.maintenanceWindow),
    history: (status.hostHistory ?? []).map((entry) => ({status: statuses.of(entry.hostStatus), reason: entry.reason ?? '', since: timeOf(entry.since)})),
    hostID: status.hostID ?? '',
  };
  const labels = Object.entries(metadata.labels ?? {}).map(([name, value]) => name + '=' + value);
  record.text = [record.key, record.status?.name, record.reason, record.state, record.power, ...labels].join(' ').toLowerCase();
  return record;
}

// windowOf is a maintenance window as things stand; null if there is none. from is null if its
// time is not known, and to if no end is planned.
function windowOf(window) {
  if (!window) {
    return null;
  }
  return {
    from: timeOf(window.opensAt) ?? timeOf(window.startTime), to: timeOf(window.endTime),
    category: window.category ?? '', impact: window.impact ?? '', answer: window.answer ?? '',
  };
}

// rankOf orders servers by how urgent they are. Of one whose status is not shown nothing is
// known, so it comes last.
const rankOf = (record) => record.status?.rank ?? -1;

// hostsOf puts servers, which come in the order of their names, on the same host together:
// {key, alone, records}, the most urgent first. A server that is on no host is alone.
export function hostsOf(records) {
  const hosts = new Map();
  for (const record of records) {
    const key = record.hostID === '' ? 'alone ' + record.key : 'host ' + record.namespace + ' ' + record.hostID;
    const host = hosts.get(key) ?? {key, records: []};
    host.records.push(record);
    hosts.set(key, host);
  }
  const all = [...hosts.values()];
  for (const host of all) {
    host.alone = host.records.length === 1;
    host.rank = Math.max(...host.records.map(rankOf));
  }
  return all.sort((a, b) => b.rank - a.rank);
}

// spansOf are the statuses that a server's host had, the oldest first: {status, reason, from,
// to}, in milliseconds. The last one lasts until now.
export function spansOf(record, now) {
  const entries = record.history.filter((entry) => entry.since !== null);
  if (entries.length === 0 && record.shown && record.since !== null) {
    entries.push({status: record.status, reason: record.reason, since: record.since});
  }
  const spans = [];
  let to = now;
  for (const {status, reason, since} of entries) {
    // By a clock that is ahead, it begins now.
    const from = Math.min(since, to);
    spans.unshift({status, reason, from, to});
    to = from;
  }
  return spans;
}

// place is where a span is on a line from one time to another: {left, width}, as shares of
// it, or null if it is not on it. An end that is null is beyond the line's.
export function place(from, to, first, last) {
  const begin = Math.max(from, first);
  const end = Math.min(to ?? last, last);
  if (end < begin || from > last || to !== null && to < first) {
    return null;
  }
  return {left: (begin - first) / (last - first), width: (end - begin) / (last - first)};
}

// Servers has a record of each server, and their order.
export class Servers extends Store {
  constructor(statuses, told, ended) {
    super((object) => recordOf(object, statuses), (before, after) => {
      if (!before || !after) {
        const {key} = before ?? after;
        this.keys.splice(placeFor(this.keys, key, compareNames), before ? 1 : 0, ...(after ? [key] : []));
      }
      told(before, after);
    }, ended);
    this.keys = [];
  }

  // inOrder are the records, in the order of their names.
  inOrder() {
    return this.keys.map((key) => this.records.get(key));
  }
}
