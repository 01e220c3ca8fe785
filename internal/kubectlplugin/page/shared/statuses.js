// SPDX-License-Identifier: Apache-2.0

// Statuses is the table of host statuses, which the plugin brings. A value that is not in it
// is of a later release, and worse than all others, since it might mean anything.
export class Statuses {
  constructor(rows) {
    this.rows = rows.map((row, rank) => ({...row, rank, className: 's' + rank}));
    this.byValue = new Map(this.rows.map((row) => [row.value, row]));
  }

  // of is the row of a value; null and undefined are the absent one.
  of(value) {
    const row = this.byValue.get(value ?? null);
    return row ?? {value, name: String(value), letter: '!', className: 'later', rank: this.rows.length, meaning: 'a value of a later release', ofHosts: true};
  }

  // paint adds the colours to a style sheet. A style attribute would be refused by the
  // page's own policy.
  paint(sheet) {
    for (const row of this.rows) {
      if (/^#[0-9a-f]{6}$/.test(row.tile) && /^#[0-9a-f]{6}$/.test(row.ink)) {
        sheet.insertRule(`.${row.className} { --tile: ${row.tile}; --ink: ${row.ink}; }`, sheet.cssRules.length);
      }
    }
  }
}
