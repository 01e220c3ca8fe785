// SPDX-License-Identifier: Apache-2.0

// el makes an element with attributes, listeners and children. Strings become text and
// never markup, whatever is in them.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') {
      element.addEventListener(key, value);
    } else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(key, value === true ? '' : value);
    }
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

// chip is a status: its letter in its colour, and its name.
export function chip(status, text = status.name) {
  return el('span', {class: 'chip'}, el('b', {class: status.className, 'aria-hidden': 'true'}, status.letter), text);
}

// setText changes a text only if it differs, so that a screen reader is not told again.
export function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

// setAttribute changes an attribute only if it differs.
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) {
    element.setAttribute(name, value);
  }
}

// onFrame returns a function that asks for draw to be called with the next frame, once
// however often it is asked.
export function onFrame(draw) {
  let asked = false;
  return () => {
    if (asked) {
      return;
    }
    asked = true;
    const run = () => {
      if (asked) {
        asked = false;
        draw();
      }
    };
    requestAnimationFrame(run);
    // A hidden tab has no frames; it is kept up to date, and slowly.
    if (document.hidden) {
      setTimeout(run, 1000);
    }
  };
}
