// SPDX-License-Identifier: Apache-2.0

// keyOf names an object by its metadata: with its namespace, if it is in one.
export const keyOf = ({namespace, name}) => namespace ? namespace + '/' + name : name;

// Store has a record of each object that a Follower reads. told gets each difference: (record
// before, record after), of which one is undefined for an object that comes or goes. ended is
// called after each list.
export class Store {
  constructor(recordOf, told, ended = () => {}) {
    Object.assign(this, {recordOf, told, ended});
    this.records = new Map();
    this.listing = null; // the keys of a list that has not ended
    this.listed = false;
  }

  begin() {
    this.listing = new Set();
  }

  put(object) {
    this.listing.add(keyOf(object.metadata));
    this.changed(object);
  }

  end() {
    for (const key of this.records.keys()) {
      if (!this.listing.has(key)) {
        this.remove(key);
      }
    }
    this.listing = null;
    this.listed = true;
    this.ended();
  }

  changed(object) {
    const key = keyOf(object.metadata);
    const before = this.records.get(key);
    const after = this.recordOf(object);
    this.records.set(key, after);
    this.told(before, after);
  }

  removed(object) {
    this.remove(keyOf(object.metadata));
  }

  remove(key) {
    const before = this.records.get(key);
    if (this.records.delete(key)) {
      this.told(before, undefined);
    }
  }
}
