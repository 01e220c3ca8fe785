// SPDX-License-Identifier: Apache-2.0

// How a page follows the objects of the API server: a list in pages, then a watch that goes on
// where it ended.

const FIRST_PAGE = 500; // objects of the first request of a list, which is soon on the screen
const PAGE = 2000; // objects of each one after it
const WATCH_SECONDS = 240; // how long a watch lasts at least
const ALIVE = 1000; // ms that a watch has to last before its connection counts as good
const FIRST_PAUSE = 200; // ms before the first new attempt
const LONGEST_PAUSE = 5000; // ms
const LONGEST_LINE = 8 << 20; // characters of one event

// Gone is thrown if the API server has forgotten the version from which a watch or a list is
// to go on.
class Gone extends Error {}

// pause is how long to wait before attempt number n, from 1. random is from 0 to 1.
export function pause(n, random) {
  return Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (n - 1)) * (0.5 + random / 2);
}

// problemOf is what an answer other than 200 says.
async function problemOf(response) {
  const text = (await response.text()).slice(0, 2000).trim();
  try {
    return JSON.parse(text).message || response.statusText;
  } catch {
    return text || response.statusText || String(response.status);
  }
}

// warningsOf are the texts of the API server's Warning header: 299 - "text".
export function warningsOf(header) {
  return [...(header ?? '').matchAll(/\b\d{3} \S+ "((?:[^"\\]|\\.)*)"/g)].map((found) => found[1].replace(/\\(.)/g, '$1'));
}

// get requests one answer, and throws what is wrong in words. options are those of fetch.
export async function get(url, options = {}) {
  let response;
  try {
    response = await fetch(url, {cache: 'no-store', credentials: 'omit', redirect: 'error', ...options});
  } catch (error) {
    if (error.name === 'TimeoutError') {
      throw new Error('no answer from the API server');
    }
    throw new Error('the plugin does not answer; is kubectl still running?');
  }
  if (!response.ok) {
    const problem = await problemOf(response);
    throw response.status === 410 ? new Gone(problem) : new Error(problem);
  }
  return response;
}

// lines yields the lines of a body as they come.
export async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) {
        break;
      }
      const parts = (rest + value).split('\n');
      rest = parts.pop();
      if (rest.length > LONGEST_LINE) {
        throw new Error('an event has no end');
      }
      yield* parts;
    }
    if (rest !== '') {
      yield rest;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

// Follower keeps a store up to date. The store has begin() before a list, put(object) for each
// object of it, end() after it, then changed(object) and removed(object). heard(problem) is
// told whether the page is live: null, or why it is not. warned gets the warnings of a list.
export class Follower {
  constructor({path, query, store, heard, warned = () => {}, request = get, wait = (ms) => new Promise((done) => setTimeout(done, ms)), random = Math.random, now = () => performance.now()}) {
    Object.assign(this, {path, query, store, heard, warned, request, wait, random, now});
  }

  url(parameters) {
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(parameters)) {
      query.set(name, value);
    }
    return 'api/' + this.path + '?' + query;
  }

  // run follows until stopped() is true.
  async run(stopped = () => false) {
    let version = null;
    let failures = 0;
    while (!stopped()) {
      try {
        if (version === null) {
          version = await this.list();
        }
        version = await this.watch(version, (reached) => {
          version = reached;
          failures = 0;
        });
        continue;
      } catch (error) {
        failures++;
        if (error instanceof Gone) {
          version = null;
          // One new list at once: a page that slept for long has to begin anew.
          if (failures === 1) {
            continue;
          }
        }
        this.heard(error.message);
      }
      await this.wait(pause(failures, this.random()));
    }
  }

  // list reads everything, and returns the version from which to watch.
  async list() {
    this.store.begin();
    let version = '';
    let next = '';
    do {
      const response = await this.request(this.url(next ? {limit: PAGE, continue: next} : {limit: FIRST_PAGE}));
      this.warned(warningsOf(response.headers?.get('Warning')));
      const page = await response.json();
      version = page.metadata.resourceVersion;
      next = page.metadata.continue ?? '';
      for (const object of page.items ?? []) {
        this.store.put(object);
      }
    } while (next !== '');
    this.store.end();
    return version;
  }

  // watch passes events on until the watch ends, and returns the version that it reached.
  async watch(version, reached) {
    const begun = this.now();
    const timeout = Math.floor(WATCH_SECONDS * (1 + this.random() / 4));
    const response = await this.request(this.url({watch: '1', allowWatchBookmarks: 'true', resourceVersion: version, timeoutSeconds: timeout}));
    this.heard(null);
    let alive = false;
    for await (const line of lines(response.body)) {
      if (line.trim() === '') {
        continue;
      }
      const {type, object} = JSON.parse(line);
      if (type === 'ERROR') {
        throw object.code === 410 ? new Gone(object.message) : new Error(object.message || 'the watch failed');
      }
      version = object.metadata.resourceVersion;
      if (type === 'DELETED') {
        this.store.removed(object);
      } else if (type !== 'BOOKMARK') {
        this.store.changed(object);
      }
      alive = true;
      reached(version);
    }
    if (!alive && this.now() - begun < ALIVE) {
      throw new Error('the connection was closed at once');
    }
    return version;
  }
}
