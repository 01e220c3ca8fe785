// SPDX-License-Identifier: Apache-2.0

// What the page knows of hosts, apart from how it is drawn.

import {Store} from './shared/store.js';
import {HOUR, MINUTE, SECOND, timeOf} from './shared/times.js';

// OTHERS is the group of hosts whose names begin with nothing in common.
export const OTHERS = 'other hosts';
const MAX_CHANGES = 5000;

// groupOf is the rack of a host by its label rack, or by one that ends in /rack; else what its
// name begins with, before the number.
export function groupOf(name, labels = {}) {
  const key = Object.hasOwn(labels, 'rack') ? 'rack' : Object.keys(labels).sort().find((label) => label.endsWith('/rack'));
  if (key !== undefined && labels[key] !== '') {
    return 'rack ' + labels[key];
  }
  const prefix = /^(.*?)[-_]?\d+$/.exec(name.split('.')[0])?.[1];
  return prefix || OTHERS;
}

// recordOf is what is shown of a ComputeService.
export function recordOf(object, statuses) {
  const {metadata, spec = {}, status = {}} = object;
  const reporting = (status.conditions ?? []).find((condition) => condition.type === 'Reporting');
  const row = statuses.of(status.hostStatus);
  const notes = [];
  if (spec.forcedDown && spec.forcedDownReason) {
    notes.push(spec.forcedDownReason);
  }
  if (spec.disabled && spec.disabledReason) {
    notes.push(spec.disabledReason);
  }
  if ((status.hostStatusReason === 'WindowAnnounced' || status.hostStatusReason === 'WindowOpen') && spec.maintenanceWindow?.reason) {
    notes.push(spec.maintenanceWindow.reason);
  }
  const record = {
    name: metadata.name,
    group: groupOf(metadata.name, metadata.labels),
    status: row,
    reason: status.hostStatusReason ?? '',
    reporting: reporting?.status ?? 'Unknown',
    since: timeOf(status.hostStatusTransitionTime),
    note: notes.join('; '),
  };
  // What the word hides: a host may be in maintenance, and dead.
  record.silent = record.reporting === 'False' && row.value !== 'UNKNOWN' && row.value !== 'DOWN';
  record.text = [record.name, record.group, row.name, record.reason, record.note].join(' ').toLowerCase();
  return record;
}

// Fleet has a record of each host.
export class Fleet extends Store {
  constructor(statuses, told, ended) {
    super((object) => recordOf(object, statuses), told, ended);
  }

  // counts are how many hosts have each status, the worst status first.
  counts() {
    const counts = new Map();
    for (const {status} of this.records.values()) {
      const count = counts.get(status.name) ?? {status, hosts: 0};
      count.hosts++;
      counts.set(status.name, count);
    }
    return [...counts.values()].sort((a, b) => b.status.rank - a.status.rank);
  }
}

// Changes has the changes of the last hour. One that is known from several places is there
// once, with what the status was before if any of them knows it.
export class Changes {
  constructor() {
    this.byKey = new Map();
  }

  // add takes {time, host, from, to, reason}; from is undefined if it is not known.
  add(change) {
    const key = [Math.floor(change.time / SECOND), change.to.name, change.host].join(' ');
    const known = this.byKey.get(key);
    if (known) {
      known.from ??= change.from;
      return;
    }
    this.byKey.set(key, {...change});
    if (this.byKey.size > 2 * MAX_CHANGES) {
      const newest = [...this.byKey].sort(([, a], [, b]) => b.time - a.time).slice(0, MAX_CHANGES);
      this.byKey = new Map(newest);
    }
  }

  // forget drops what is older than an hour.
  forget(now) {
    for (const [key, change] of this.byKey) {
      if (change.time <= now - HOUR) {
        this.byKey.delete(key);
      }
    }
  }

  // latest are the newest changes, the newest first.
  latest(count) {
    return [...this.byKey.values()].sort((a, b) => b.time - a.time).slice(0, count);
  }

  // minutes are the last 60, the oldest first: {start, counts: [{status, changes}], total},
  // the worst status first. A change of a clock that is ahead counts as of now.
  minutes(now) {
    const first = Math.floor(now / MINUTE) * MINUTE - 59 * MINUTE;
    const minutes = Array.from({length: 60}, (_, i) => ({start: first + i * MINUTE, byName: new Map(), total: 0}));
    for (const change of this.byKey.values()) {
      const at = Math.min(59, Math.floor((change.time - first) / MINUTE));
      if (at >= 0) {
        const minute = minutes[at];
        const count = minute.byName.get(change.to.name) ?? {status: change.to, changes: 0};
        count.changes++;
        minute.byName.set(change.to.name, count);
        minute.total++;
      }
    }
    return minutes.map(({start, byName, total}) => ({start, total, counts: [...byName.values()].sort((a, b) => b.status.rank - a.status.rank)}));
  }
}
