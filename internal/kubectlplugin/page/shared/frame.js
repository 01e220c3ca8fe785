// SPDX-License-Identifier: Apache-2.0

import {el, setAttribute, setText} from './dom.js';
import {clock} from './times.js';
import {Follower, get} from './follow.js';
import {Statuses} from './statuses.js';

const ANNOUNCE_EVERY = 2000; // ms between announcements to a screen reader
const ANNOUNCED = 3; // changes that one announcement names

// byId is an element of index.html.
export const byId = (id) => document.getElementById(id);

// start reads what the plugin brings along, and gives the statuses their colours.
export async function start() {
  const settings = await (await get('start.json')).json();
  const statuses = new Statuses(settings.statuses);
  statuses.paint(document.styleSheets[0]);
  return {...settings, statuses};
}

// Frame is what is around the content of each page: whether it is live, warnings, and what a
// screen reader is told.
export class Frame {
  constructor() {
    this.problems = new Map();
    this.warnings = new Map();
    this.since = null;
    this.listed = false;
    this.said = [];
    this.more = 0;
    this.timer = null;
    // What the keyboard goes to must not end up below the header.
    const header = document.querySelector('header');
    new ResizeObserver(() => document.documentElement.style.setProperty('scroll-padding-top', header.offsetHeight + 8 + 'px')).observe(header);
    this.draw();
  }

  // heard is told by each connection whether it works: null, or why it does not.
  heard(who, problem) {
    if (problem === null) {
      this.problems.delete(who);
    } else {
      this.problems.set(who, problem);
    }
    const was = this.since !== null;
    if (this.problems.size > 0 && !was) {
      this.since = Date.now();
    }
    if (this.problems.size === 0 && was) {
      this.since = null;
      this.announce('Live again.');
    }
    this.draw();
  }

  // live is true while what is shown is followed.
  get live() {
    return this.listed && this.since === null;
  }

  // warn shows warnings of one kind, in place of those before.
  warn(kind, texts) {
    this.warnings.set(kind, texts);
    this.draw();
  }

  // follow keeps a store up to date with what the page lists and watches.
  follow({path, query}, store) {
    const follower = new Follower({path, query, store, heard: (problem) => this.heard('watch', problem), warned: (texts) => this.warn('api', texts)});
    follower.run();
    return follower;
  }

  // drawn is called when the content, which is in box, has been drawn.
  drawn(box) {
    this.draw();
    if (this.listed) {
      setAttribute(box, 'aria-busy', 'false');
    }
    // The task after the frame: by then it is on the screen.
    setTimeout(() => performance.mark(this.listed ? 'all-painted' : 'painted'));
  }

  draw() {
    const state = byId('state');
    document.documentElement.dataset.live = this.live ? 'yes' : 'no';
    if (this.since !== null) {
      setText(state, `Not live since ${clock(this.since)}, trying again: ${[...this.problems.values()][0]}`);
    } else {
      setText(state, this.listed ? 'Live' : 'Reading …');
    }
    const texts = [...this.warnings.values()].flat();
    const box = byId('warnings');
    if (box.dataset.texts !== texts.join('\n')) {
      box.dataset.texts = texts.join('\n');
      box.replaceChildren(...texts.map((text) => el('p', {}, text)));
      box.hidden = texts.length === 0;
    }
  }

  // announce tells a screen reader, at most every two seconds; what comes meanwhile is
  // counted.
  announce(text) {
    if (this.said.length < ANNOUNCED) {
      this.said.push(text);
    } else {
      this.more++;
    }
    if (this.timer !== null) {
      return;
    }
    this.timer = setTimeout(() => {
      this.timer = null;
      setText(byId('announcer'), this.said.join(' ') + (this.more > 0 ? ` And ${this.more} more changes.` : ''));
      this.said = [];
      this.more = 0;
    }, ANNOUNCE_EVERY);
  }
}

// Details shows what the plugin prints about one object, beside the page.
export class Details {
  constructor(urlOf) {
    this.urlOf = urlOf;
    this.panel = byId('details');
    this.title = byId('details-title');
    this.text = byId('details-text');
    this.shown = null;
    this.asked = 0;
    this.timer = null;
    byId('details-close').addEventListener('click', () => this.close());
  }

  // open shows an object; back gets the focus when it is closed.
  open(key, title, back) {
    this.shown = key;
    this.back = back;
    setText(this.title, title);
    setText(this.text, 'Reading …');
    this.panel.hidden = false;
    this.text.focus();
    return this.read();
  }

  // changed reads again, soon, if the object is shown.
  changed(key) {
    if (key === this.shown && this.timer === null) {
      this.timer = setTimeout(() => {
        this.timer = null;
        this.read();
      }, 500);
    }
  }

  async read() {
    if (this.shown === null) {
      return;
    }
    const asked = ++this.asked;
    let text;
    try {
      text = await (await get(this.urlOf(this.shown))).text();
    } catch (error) {
      text = 'It cannot be shown: ' + error.message;
    }
    if (asked === this.asked && this.shown !== null) {
      setText(this.text, text);
    }
  }

  close() {
    if (this.shown === null) {
      return false;
    }
    this.shown = null;
    this.panel.hidden = true;
    this.back?.focus();
    return true;
  }
}

// keys has the keys that work anywhere on a page. draw draws at once what matches the filter,
// and focus goes on from the filter to that.
export function keys({filter, details, draw, focus, others = {}}) {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const types = event.target === filter;
    if (event.key === '/' && !types) {
      filter.focus();
      filter.select();
    } else if (event.key === 'Escape') {
      if (!details.close()) {
        filter.value = '';
        draw();
        focus();
      }
    } else if (types && (event.key === 'Enter' || event.key === 'ArrowDown')) {
      draw(); // so that what gets the focus is one that matches
      focus();
    } else if (!types && others[event.key]) {
      others[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });
}

// every calls a function again and again, each time after the last one has ended, and not
// while nobody looks.
export async function every(milliseconds, call) {
  for (;;) {
    if (!document.hidden) {
      await call();
    }
    await new Promise((done) => setTimeout(done, milliseconds));
  }
}
