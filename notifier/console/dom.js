// Elements: find, make, write, keep in order.
import { language } from "./strings.js";

export const $ = (id) => document.getElementById(id);

/** Write only what changed: a screen reader repeats what is written, and focus stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export function button(className, text, pressed) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", pressed);
  return made;
}

/** Keep one child per key, in order; untouched children keep their focus. */
export function keyed(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const key = `${keyOf(item)} ${language()}`;
    let child = old.get(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    old.delete(key);
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    update?.(child, item);
  });
  for (const child of old.values()) child.remove();
}
