// SPDX-License-Identifier: Apache-2.0

import {chip, el, onFrame, setAttribute, setText} from './shared/dom.js';
import {get} from './shared/follow.js';
import {byId, Details, every, Frame, keys, start} from './shared/frame.js';
import {compareNames, matches, termOf, termsOf} from './shared/names.js';
import {age, clock, HOUR, MINUTE, timeOf} from './shared/times.js';
import {Changes, Fleet} from './model.js';
import {Tiles} from './tiles.js';

const MANAGER_EVERY = 2000; // ms between looks for a manager
const LATEST = 40; // changes in the list
const ROWS = 500; // rows of the table
const SMALL_FROM = 300; // hosts from which tiles have no room for names

const frame = new Frame();
const settings = await start();
const {statuses} = settings;
setText(byId('cluster'), settings.cluster + (settings.selector ? ', ' + settings.selector : ''));

const filter = byId('filter');
const changes = new Changes();
const details = new Details((host) => 'show?' + new URLSearchParams({host}));
let inTable = false;
const open = (name) => details.open(name, name, inTable ? byId('as-table') : tiles.box);
const tiles = new Tiles(byId('tiles'), open);
const draw = onFrame(drawAll);
const fleet = new Fleet(statuses, told, ended);

// told is what the fleet has learnt of a host.
function told(before, after) {
  const name = (after ?? before).name;
  if (after && (!before || before.status !== after.status)) {
    // What a list brings is the last of several changes, maybe.
    const time = after.since ?? (before ? Date.now() : 0);
    if (time > Date.now() - HOUR) {
      changes.add({time, host: name, from: fleet.listing === null ? before?.status : undefined, to: after.status, reason: after.reason});
    }
  }
  if (fleet.listed && before?.status !== after?.status) {
    frame.announce(after ? `${name} is ${after.status.name}.` : `${name} is gone.`);
  }
  tiles.set(before, after);
  details.changed(name);
  draw();
}

function ended() {
  frame.listed = true;
  readChanges();
  draw();
}

let drawn = '';

function drawAll() {
  const terms = termsOf(filter.value);
  tiles.small(fleet.records.size > SMALL_FROM);
  const found = tiles.draw((record) => matches(record.text, record.status.name, terms), terms.join(' '));
  byId('tiles').hidden = inTable;
  byId('table').hidden = !inTable;
  if (inTable) {
    drawTable(terms);
  }
  setText(byId('found'), terms.length > 0 ? `${found} of ${fleet.records.size} hosts match` : `${fleet.records.size} hosts`);
  drawCounts(terms);
  drawChanges();
  frame.drawn(tiles.box);
}

// drawCounts makes a button for each status, which filters by it.
function drawCounts(terms) {
  const counts = fleet.counts();
  const state = JSON.stringify([counts.map(({status, hosts}) => [status.name, hosts]), terms]);
  if (state === drawn) {
    return;
  }
  drawn = state;
  const focused = document.activeElement?.dataset?.status;
  byId('counts').replaceChildren(...counts.map(({status, hosts}) => {
    const term = termOf(status.name);
    const pressed = terms.includes(term);
    return el('button', {
      type: 'button', 'aria-pressed': String(pressed), title: status.meaning, 'data-status': status.name,
      click: () => setFilter(pressed ? '' : term),
    }, chip(status, `${status.name} ${hosts}`));
  }));
  if (focused) {
    [...byId('counts').children].find((button) => button.dataset.status === focused)?.focus();
  }
}

function setFilter(text) {
  filter.value = text;
  draw();
}

let stripDrawn = '';

function drawChanges() {
  const now = Date.now();
  changes.forget(now);
  const minutes = changes.minutes(now);
  const latest = changes.latest(LATEST);
  const state = JSON.stringify([minutes, latest.map(({time, host, from, to}) => [time, host, from?.name, to.name])]);
  if (state === stripDrawn) {
    return;
  }
  stripDrawn = state;
  const most = Math.max(1, ...minutes.map((minute) => minute.total));
  const strip = byId('strip');
  const words = [];
  strip.replaceChildren(...minutes.map(({start: from, total, counts}) => {
    const text = counts.map(({status, changes: n}) => `${n} ${status.name}`).join(', ');
    if (total > 0) {
      words.push(`${clock(from).slice(0, 5)} ${text}`);
    }
    return el('div', {class: 'minute', title: total > 0 ? `${clock(from).slice(0, 5)}Z: ${text}` : undefined}, ...counts.map(({status, changes: n}) => {
      const bar = el('div', {class: 'bar ' + status.className});
      bar.style.setProperty('height', 100 * n / most + '%');
      return bar;
    }));
  }));
  setAttribute(strip, 'aria-label', words.length > 0 ? `Changes by the minute, UTC: ${words.join('; ')}` : 'No change in the last hour');
  byId('changes').replaceChildren(...latest.map(({time, host, from, to, reason}) => el('li', {},
    el('time', {}, clock(time)), el('span', {}, host), from ? chip(from, '→') : null, chip(to), reason ? el('span', {}, reason) : null)));
}

// drawTable is the same as the tiles, for who reads rather than looks.
function drawTable(terms) {
  const now = Date.now();
  const found = [...fleet.records.values()].filter((record) => matches(record.text, record.status.name, terms))
    .sort((a, b) => b.status.rank - a.status.rank || compareNames(a.name, b.name));
  const rows = found.slice(0, ROWS).map((record) => el('tr', {},
    el('th', {scope: 'row'}, el('button', {type: 'button', click: () => open(record.name)}, record.name)),
    el('td', {}, chip(record.status)), el('td', {}, record.reason), el('td', {}, record.reporting),
    el('td', {}, record.since === null ? '' : age(now - record.since)), el('td', {}, record.group), el('td', {}, record.note)));
  const more = found.length > ROWS ? ` The first ${ROWS} of ${found.length} are shown; type into the filter to find others.` : '';
  const focused = document.activeElement?.closest?.('#table') ? document.activeElement.textContent : null;
  byId('table').replaceChildren(el('table', {},
    el('caption', {class: more ? '' : 'unseen'}, 'Hosts, the most urgent first.' + more),
    el('thead', {}, el('tr', {}, ...['Host', 'Host status', 'Reason', 'Reporting', 'Since', 'Group', 'Note'].map((name) => el('th', {scope: 'col'}, name)))),
    el('tbody', {}, ...rows)));
  if (focused !== null) {
    [...byId('table').querySelectorAll('tbody button')].find((button) => button.textContent === focused)?.focus();
  }
}

function toggleTable() {
  inTable = !inTable;
  setAttribute(byId('as-table'), 'aria-pressed', String(inTable));
  draw();
}

filter.addEventListener('input', draw);
byId('as-table').addEventListener('click', toggleTable);
keys({filter, details, draw: drawAll, focus: () => tiles.box.focus(), others: {t: toggleTable}});

let readingChanges = false;

// readChanges reads what the servers' histories have of the last hour, after each list: a list
// does not tell what happened before it.
async function readChanges() {
  if (readingChanges) {
    return;
  }
  readingChanges = true;
  try {
    const answer = await (await get('changes')).json();
    for (const change of answer.changes) {
      changes.add({time: timeOf(change.time), host: change.host, from: statuses.of(change.from), to: statuses.of(change.to), reason: change.reason ?? ''});
    }
    setText(byId('strip-note'), answer.note ?? '');
    byId('strip-note').hidden = !answer.note;
  } catch (error) {
    setText(byId('strip-note'), 'Earlier changes could not be read: ' + error.message);
    byId('strip-note').hidden = false;
  } finally {
    readingChanges = false;
  }
  draw();
}

async function lookForManager() {
  try {
    const {warnings} = await (await get('manager')).json();
    frame.warn('manager', warnings);
    frame.heard('manager', null);
  } catch (error) {
    frame.heard('manager', error.message);
  }
}

frame.follow(settings, fleet);
every(MANAGER_EVERY, lookForManager);
every(MINUTE / 4, draw);
