// SPDX-License-Identifier: Apache-2.0

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

// timeOf is a time of the API in milliseconds, or null if there is none.
export function timeOf(text) {
  const at = Date.parse(text ?? '');
  return Number.isNaN(at) ? null : at;
}

// clock is the time of the day in UTC.
export function clock(at) {
  return new Date(at).toISOString().slice(11, 19) + 'Z';
}

// stamp is a time as the plugins print it.
export function stamp(at) {
  return new Date(at).toISOString().slice(0, 19) + 'Z';
}

// age is a duration as kubectl prints it, roughly.
export function age(milliseconds) {
  const units = [[DAY, 'd', 3], [HOUR, 'h', 3], [MINUTE, 'm', 3], [SECOND, 's', 0]];
  for (const [unit, letter, from] of units) {
    if (milliseconds >= unit * from) {
      return Math.floor(Math.max(0, milliseconds) / unit) + letter;
    }
  }
  return '0s';
}
