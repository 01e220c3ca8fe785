// SPDX-License-Identifier: Apache-2.0

import {el, setAttribute, setText} from './shared/dom.js';
import {compareNames, placeFor} from './shared/names.js';
import {stamp} from './shared/times.js';

const NAME_HEIGHT = 17; // px of the name of a group

// Tiles draws a tile for each host, in groups. All are in the document, so that a screen
// reader and the browser's own search find them; the browser lays out only the groups that
// are in sight.
export class Tiles {
  constructor(box, open) {
    this.box = box;
    this.open = open;
    this.groups = new Map(); // name → {name, element, members, names}
    this.order = []; // groups, in order
    this.tiles = new Map(); // host → {record, element, letter, group, shown}
    this.dirty = new Set(); // hosts whose tiles are to be drawn
    this.filter = '';
    this.active = null; // the host that the keyboard is at
    this.ids = 0;
    box.addEventListener('keydown', (event) => this.key(event));
    box.addEventListener('click', (event) => {
      const tile = this.tiles.get(event.target.closest('.tile')?.dataset.host);
      if (tile) {
        this.activate(tile.record.name);
        this.open(tile.record.name);
      }
    });
    box.addEventListener('focus', () => {
      // Not for a click: the page would move away under the mouse.
      if (box.matches(':focus-visible') && !this.tiles.get(this.active)?.shown) {
        this.move(0, 1);
      }
    });
    // Asking for the width would have the browser lay everything out.
    this.width = box.clientWidth;
    new ResizeObserver(([{contentRect}]) => {
      this.width = contentRect.width;
      this.estimate();
    }).observe(box);
  }

  // set takes a host that has changed, come or gone; it is drawn later.
  set(before, after) {
    const name = (after ?? before).name;
    const tile = this.tiles.get(name);
    if (after && tile && tile.record.group === after.group) {
      tile.record = after;
    } else {
      if (tile) {
        this.drop(tile);
      }
      if (after) {
        this.add(after);
      }
    }
    this.dirty.add(name);
  }

  add(record) {
    const letter = el('b', {'aria-hidden': 'true'});
    const element = el('div', {role: 'option', id: 'host-' + this.ids++, 'aria-selected': 'false', 'data-host': record.name, title: record.name},
      letter, el('span', {}, record.name));
    const tile = {record, element, letter, group: this.group(record.group), shown: true};
    const {names, members} = tile.group;
    const at = placeFor(names, record.name, compareNames);
    members.insertBefore(element, members.children[at] ?? null);
    names.splice(at, 0, record.name);
    this.tiles.set(record.name, tile);
  }

  drop(tile) {
    const {group, record, element} = tile;
    group.names.splice(placeFor(group.names, record.name, compareNames), 1);
    element.remove();
    this.tiles.delete(record.name);
    if (this.active === record.name) {
      this.active = null;
      this.box.removeAttribute('aria-activedescendant');
    }
    if (group.names.length === 0) {
      group.element.remove();
      this.groups.delete(group.name);
      this.order.splice(this.order.indexOf(group), 1);
    }
  }

  // group is the one of a name, which is made if there is none.
  group(name) {
    let group = this.groups.get(name);
    if (!group) {
      const members = el('div', {class: 'members', role: 'presentation'});
      const element = el('div', {class: 'group', role: 'group', 'aria-label': name}, el('div', {class: 'group-name', 'aria-hidden': 'true'}, name), members);
      group = {name, element, members, names: []};
      const at = placeFor(this.order, group, (a, b) => compareNames(a.name, b.name));
      this.box.insertBefore(element, this.box.children[at] ?? null);
      this.order.splice(at, 0, group);
      this.groups.set(name, group);
    }
    return group;
  }

  // estimate tells the browser how high each group is that it has not laid out yet, so that
  // the page does not jump when it does. The sizes are those of hosts.css.
  estimate() {
    const [tile, gap, height] = this.box.classList.contains('small') ? [22, 2, 22] : [150, 4, 26];
    const columns = Math.max(1, Math.floor((this.width + gap) / (tile + gap)));
    for (const group of this.order) {
      const shown = this.filter === '' ? group.names.length : group.names.filter((name) => this.tiles.get(name).shown).length;
      const size = `auto ${NAME_HEIGHT + Math.ceil(shown / columns) * (height + gap) - gap}px`;
      if (group.size !== size) {
        group.size = size;
        group.element.style.setProperty('contain-intrinsic-height', size);
      }
    }
  }

  // small leaves the names out.
  small(is) {
    this.box.classList.toggle('small', is);
  }

  // draw draws the tiles that have changed, or all if the filter has, and returns how many
  // match it.
  draw(matches, filter) {
    const all = filter !== this.filter;
    this.filter = filter;
    for (const name of all ? this.tiles.keys() : this.dirty) {
      const tile = this.tiles.get(name);
      if (tile) {
        this.drawTile(tile, matches(tile.record));
      }
    }
    if (all) {
      for (const group of this.order) {
        group.element.hidden = !group.names.some((name) => this.tiles.get(name).shown);
      }
    } else {
      for (const name of this.dirty) {
        const group = this.tiles.get(name)?.group;
        if (group && filter !== '') {
          group.element.hidden = !group.names.some((member) => this.tiles.get(member).shown);
        }
      }
    }
    this.dirty.clear();
    this.estimate();
    if (filter === '') {
      return this.tiles.size;
    }
    let found = 0;
    for (const tile of this.tiles.values()) {
      found += tile.shown ? 1 : 0;
    }
    return found;
  }

  drawTile(tile, shown) {
    const {record, element, letter} = tile;
    const {status} = record;
    const className = 'tile ' + status.className + (record.silent ? ' silent' : '');
    if (element.className !== className) {
      element.className = className;
    }
    setText(letter, status.letter);
    const words = [record.name, status.name];
    if (record.reason) {
      words.push(record.reason);
    }
    if (record.silent) {
      words.push('does not report');
    }
    if (record.since !== null) {
      words.push('since ' + stamp(record.since));
    }
    setAttribute(element, 'aria-label', words.join(', '));
    if (tile.shown !== shown) {
      tile.shown = shown;
      element.hidden = !shown;
    }
  }

  // shownNames are the hosts that match, as they are laid out.
  shownNames() {
    return this.order.flatMap((group) => group.names.filter((name) => this.tiles.get(name).shown));
  }

  activate(name) {
    const before = this.tiles.get(this.active);
    if (before) {
      setAttribute(before.element, 'aria-selected', 'false');
    }
    this.active = name;
    const {element} = this.tiles.get(name);
    setAttribute(element, 'aria-selected', 'true');
    setAttribute(this.box, 'aria-activedescendant', element.id);
    element.scrollIntoView({block: 'nearest'});
  }

  // move goes some tiles on, or some rows.
  move(rows, steps) {
    const names = this.shownNames();
    if (names.length === 0) {
      return;
    }
    const at = names.indexOf(this.active);
    if (at < 0) {
      this.activate(names[0]);
    } else if (rows === 0) {
      this.activate(names[Math.max(0, Math.min(names.length - 1, at + steps))]);
    } else {
      this.activate(this.inRow(names, at, rows) ?? names[at]);
    }
  }

  // inRow is the tile in the next row, of this group or of another, that is nearest.
  inRow(names, at, direction) {
    const boxOf = (name) => this.tiles.get(name).element.getBoundingClientRect();
    const here = boxOf(names[at]);
    let top = null;
    let best = null;
    let nearest = Infinity;
    for (let i = at + direction; i >= 0 && i < names.length; i += direction) {
      const box = boxOf(names[i]);
      if (Math.abs(box.top - here.top) < 2) {
        continue;
      }
      if (top !== null && Math.abs(box.top - top) >= 2) {
        break;
      }
      top = box.top;
      if (Math.abs(box.left - here.left) < nearest) {
        nearest = Math.abs(box.left - here.left);
        best = names[i];
      }
    }
    return best;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity]};
    if (moves[event.key]) {
      this.move(...moves[event.key]);
      event.preventDefault();
    } else if (event.key === 'Enter' && this.active !== null) {
      this.open(this.active);
      event.preventDefault();
    }
  }
}
