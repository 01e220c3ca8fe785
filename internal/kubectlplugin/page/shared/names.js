// SPDX-License-Identifier: Apache-2.0

const collator = new Intl.Collator('en', {numeric: true});

// compareNames orders names as people count: compute-2 before compute-10.
export function compareNames(a, b) {
  return collator.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);
}

// placeFor is where an item belongs in a list that is in order.
export function placeFor(list, item, compare) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compare(list[middle], item) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// termsOf are the words of a filter, in lower case.
export function termsOf(filter) {
  return filter.toLowerCase().split(/\s+/).filter((term) => term !== '');
}

// termOf is the term by which a filter asks for a status.
export function termOf(status) {
  return 'status:' + status.toLowerCase().replaceAll(' ', '-');
}

// matches is true if a text has all terms. One that begins with status: is about the status
// alone.
export function matches(text, status, terms) {
  return terms.every((term) => term.startsWith('status:') ? term === termOf(status) : text.includes(term));
}
