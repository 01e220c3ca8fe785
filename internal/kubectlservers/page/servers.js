// SPDX-License-Identifier: Apache-2.0

import {chip, el, onFrame, setAttribute, setText} from './shared/dom.js';
import {get, warningsOf} from './shared/follow.js';
import {byId, Details, every, Frame, keys, start} from './shared/frame.js';
import {matches, termsOf} from './shared/names.js';
import {age, clock, DAY, HOUR, MINUTE, SECOND, stamp} from './shared/times.js';
import {hostsOf, place, Servers, spansOf} from './model.js';

const ROWS = 500; // rows at most
const FRESH_EVERY = 10 * SECOND; // between looks whether the view is up to date
const FRESH_WITHIN = 15 * SECOND; // a watch may hang for long without an error
const GRANT_FOR = 30 * SECOND; // how long what is granted counts as known
const GRANTS = 50; // namespaces of which is asked what is granted
const RANGES = [['1 hour', HOUR], ['6 hours', 6 * HOUR], ['1 day', DAY], ['1 week', 7 * DAY]];

const frame = new Frame();
const settings = await start();
const {statuses} = settings;
setText(byId('cluster'), [settings.cluster, settings.namespace ? 'namespace ' + settings.namespace : 'all namespaces', settings.selector].filter(Boolean).join(', '));

const filter = byId('filter');
const table = byId('servers');
const range = byId('range');
range.append(...RANGES.map(([name, length]) => el('option', {value: length, selected: length === DAY}, name + ' back and ahead')));
const grants = new Map(); // namespace → {lacks, at}
const rows = new Map(); // key → {record, drawnAt, element}
let active = null; // the server that the keyboard is at

const rowOf = (key) => rows.get(key)?.element;
const details = new Details((key) => {
  const [namespace, server] = key.split('/');
  return 'show?' + new URLSearchParams({namespace, server});
});
const open = (key) => details.open(key, key, {focus: () => (rowOf(key) ?? filter).focus()});
const draw = onFrame(drawAll);
const servers = new Servers(statuses, told, ended);

function told(before, after) {
  const record = after ?? before;
  if (servers.listed && before?.status !== after?.status) {
    frame.announce(!after ? `${record.name} is gone.` : after.shown ? `The host of ${record.name} is ${after.status.name}.` : `The host status of ${record.name} is not shown any more.`);
  }
  details.changed(record.key);
  draw();
}

function ended() {
  frame.listed = true;
  draw();
}

// nameOf is how a row names a server: with its namespace if there are several.
const nameOf = (record) => settings.namespace ? record.name : record.key;

function drawAll() {
  // A row loses the focus when it is moved.
  const focused = document.activeElement?.dataset?.server;
  const now = Date.now();
  const length = Number(range.value);
  const first = now - length;
  const last = now + length;
  const terms = termsOf(filter.value);
  const all = servers.inOrder();
  const found = all.filter((record) => matches(record.text, record.status?.name ?? 'not shown', terms));
  const bodies = [];
  const kept = new Set();
  for (const host of hostsOf(found)) {
    if (kept.size + host.records.length > ROWS && kept.size > 0) {
      break;
    }
    const lines = host.records.map((record, i) => {
      kept.add(record.key);
      return row(record, i === 0 && !host.alone ? `${host.records.length} servers on one host` : '', now, first, last);
    });
    bodies.push(bodyOf(host, lines));
  }
  for (const key of rows.keys()) {
    if (!kept.has(key)) {
      rows.delete(key);
    }
  }
  placeBodies(bodies);
  if (active === null || !rows.has(active)) {
    active = rows.keys().next().value ?? null;
  }
  for (const [key, {element}] of rows) {
    setAttribute(element, 'tabindex', key === active ? '0' : '-1');
  }
  if (focused !== undefined) {
    (rowOf(focused) ?? rowOf(active))?.focus({preventScroll: true});
  }
  setText(byId('found'), `${terms.length > 0 ? `${found.length} of ${all.length} servers match` : `${all.length} servers`}${kept.size < found.length ? `; the first ${kept.size} are shown, type into the filter to find others` : ''}`);
  drawAxis(first, now, last);
  drawLacks(found, now);
  frame.drawn(table);
}

const bodyByHost = new Map(); // host → its part of the table

// bodyOf is the part of the table with the rows of a host. What has not changed stays as it
// is, so that the browser has little to lay out.
function bodyOf(host, lines) {
  let body = bodyByHost.get(host.key);
  if (!body) {
    body = el('tbody', {});
    bodyByHost.set(host.key, body);
  }
  body.classList.toggle('together', !host.alone);
  if (body.rows.length !== lines.length || lines.some((line, i) => body.rows[i] !== line)) {
    body.replaceChildren(...lines);
  }
  return body;
}

// placeBodies puts the parts of the table into their order, and removes those of other hosts.
function placeBodies(bodies) {
  const wanted = new Set(bodies);
  for (const [key, body] of bodyByHost) {
    if (!wanted.has(body)) {
      body.remove();
      bodyByHost.delete(key);
    }
  }
  let next = table.tBodies[0] ?? null;
  for (const body of bodies) {
    if (body === next) {
      next = next.nextElementSibling;
    } else {
      table.insertBefore(body, next);
    }
  }
}

// row is the one of a server, in which together describes the rows from it on. It is drawn
// anew if the server has changed or time has moved on.
function row(record, together, now, first, last) {
  const known = rows.get(record.key);
  const drawnAt = [Math.floor(now / MINUTE), last - first, together].join(' ');
  if (known && known.record === record && known.drawnAt === drawnAt) {
    rows.delete(record.key);
    rows.set(record.key, known); // in the order in which they stand
    return known.element;
  }
  const {status} = record;
  const hostStatus = record.shown
    ? [chip(status), el('span', {class: 'reason'}, record.reason + (record.silent && status.value !== 'UNKNOWN' && status.value !== 'DOWN' ? ', does not report' : ''))]
    : [el('span', {class: 'not-shown'}, 'not shown')];
  const element = el('tr', {'data-server': record.key, tabindex: '-1', click: () => open(record.key), focus: () => { active = record.key; }},
    el('th', {scope: 'row'}, together ? el('span', {class: 'host'}, together) : null, nameOf(record)),
    el('td', {}, ...hostStatus),
    el('td', {}, record.since === null ? '' : el('time', {datetime: stamp(record.since), title: stamp(record.since)}, age(now - record.since))),
    el('td', {}, record.state), el('td', {}, record.power),
    el('td', {}, line(record, now, first, last)));
  rows.delete(record.key);
  rows.set(record.key, {record, drawnAt, element});
  return element;
}

// line is the time line of a server: bars of statuses until now, and the window.
function line(record, now, first, last) {
  const words = [];
  const parts = [];
  const put = (element, at) => {
    element.style.setProperty('left', 100 * at.left + '%');
    element.style.setProperty('width', 100 * at.width + '%');
    parts.push(element);
  };
  for (const {status, reason, from, to} of spansOf(record, now)) {
    const at = place(from, to, first, last);
    const text = `${status.name}${reason ? ` (${reason})` : ''} from ${stamp(from)}${to === now ? '' : ' to ' + stamp(to)}`;
    words.push(text);
    if (at) {
      put(el('div', {class: 'bar ' + status.className, title: text}, status.letter), at);
    }
  }
  const {window} = record;
  if (window) {
    const when = window.from === null ? 'planned, at a time that is not known yet' : `from ${stamp(window.from)}${window.to === null ? ', without a planned end' : ' to ' + stamp(window.to)}`;
    const text = ['maintenance ' + when, window.category, window.impact && 'impact ' + window.impact, window.answer && 'your answer: ' + window.answer].filter(Boolean).join(', ');
    words.push(text);
    const at = window.from === null ? null : place(window.from, window.to, first, last);
    if (at) {
      put(el('div', {class: window.to === null ? 'window open-ended' : 'window', title: text}), at);
    }
  }
  const mark = el('div', {class: 'now'});
  mark.style.setProperty('left', 100 * (now - first) / (last - first) + '%');
  const label = words.length > 0 ? words.join('; ') : record.shown ? 'nothing on record' : 'not shown';
  return el('div', {class: 'line', role: 'img', 'aria-label': label}, ...parts, mark);
}

function drawAxis(first, now, last) {
  const text = (at) => last - first < DAY ? clock(at).slice(0, 5) + 'Z' : stamp(at).slice(5, 16).replace('T', ' ') + 'Z';
  byId('axis').replaceChildren(...[[first, text(first)], [now, 'now'], [last, text(last)]].map(([at, words]) => {
    const label = el('span', {}, words);
    label.style.setProperty('left', 100 * (at - first) / (last - first) + '%');
    return label;
  }));
}

// drawLacks states why host status is not shown where it is not.
function drawLacks(found, now) {
  const namespaces = [...new Set(found.filter((record) => !record.shown).map((record) => record.namespace))].slice(0, GRANTS);
  for (const namespace of namespaces) {
    const known = grants.get(namespace);
    if (!known || now - known.at > GRANT_FOR) {
      grants.set(namespace, {lacks: known?.lacks, at: now});
      askGrant(namespace);
    }
  }
  const texts = namespaces.map((namespace) => grants.get(namespace)?.lacks).filter(Boolean);
  const box = byId('lacks');
  if (box.dataset.texts !== texts.join('\n')) {
    box.dataset.texts = texts.join('\n');
    box.replaceChildren(...texts.map((text) => el('p', {}, text)));
    box.hidden = texts.length === 0;
  }
}

async function askGrant(namespace) {
  try {
    const {lacks} = await (await get('grant?' + new URLSearchParams({namespace}))).json();
    grants.set(namespace, {lacks: lacks || 'There is no host status yet of some servers in namespace ' + namespace + '.', at: Date.now()});
  } catch {
    grants.set(namespace, {lacks: 'It is not known what you may see in namespace ' + namespace + '.', at: Date.now()});
  }
  draw();
}

// move goes some rows on.
function move(steps) {
  const order = [...rows.keys()];
  const at = Math.max(0, Math.min(order.length - 1, order.indexOf(active) + steps));
  rowOf(order[at])?.focus();
}

table.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  const moves = {ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity};
  if (moves[event.key]) {
    move(moves[event.key]);
    event.preventDefault();
  } else if (event.key === 'Enter' && event.target.dataset.server) {
    open(event.target.dataset.server);
    event.preventDefault();
  }
});
// A click focuses; later redraws change which element is the row of a server.
table.addEventListener('focusin', (event) => {
  const key = event.target.dataset?.server;
  if (key) {
    for (const [other, {element}] of rows) {
      setAttribute(element, 'tabindex', other === key ? '0' : '-1');
    }
  }
});
filter.addEventListener('input', draw);
range.addEventListener('change', draw);
keys({filter, details, draw: drawAll, focus: () => rowOf(active)?.focus()});

const follower = frame.follow(settings, servers);
// The view warns in its answers while nobody keeps host status up to date. A watch does not.
every(FRESH_EVERY, async () => {
  try {
    const response = await get(follower.url({limit: 1}), {signal: AbortSignal.timeout(FRESH_WITHIN)});
    frame.warn('api', warningsOf(response.headers.get('Warning')));
    frame.heard('fresh', null);
  } catch (error) {
    frame.heard('fresh', error.message);
  }
});
every(MINUTE / 4, draw);
