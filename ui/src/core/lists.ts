// Keyboard and pointer for tables marked data-list: j/k move, Enter opens (first the drawer, then the page),
// [ and ] turn pages. The cursor is a mark of ours, not focus, so that typing anywhere else stays undisturbed.

import { letterKeys, type Key } from "./keys.js";

const rows = (): HTMLTableRowElement[] => [...document.querySelectorAll<HTMLTableRowElement>("table[data-list] tbody tr[data-href]")];
const current = (): HTMLTableRowElement | null => document.querySelector("tr[data-cursor]") ?? document.querySelector('tr[aria-selected="true"]');

export function listKey(key: Key): boolean {
  if (key.typing || key.mod || key.alt || !letterKeys.on()) return false;
  if (key.name === "j" || key.name === "k") return move(key.name === "j" ? 1 : -1);
  if (key.name === "Enter") return enter(key);
  if (key.name === "[" || key.name === "]") return follow(`a[rel="${key.name === "[" ? "prev" : "next"}"]`);
  return false;
}

function move(by: number): boolean {
  const all = rows();
  if (!all.length) return false;
  const at = all.indexOf(current() as HTMLTableRowElement);
  const next = all[Math.max(0, Math.min(all.length - 1, at + by))];
  if (!next) return false;
  for (const row of all) row.removeAttribute("data-cursor");
  next.setAttribute("data-cursor", "");
  next.scrollIntoView({ block: "nearest" });
  if (document.querySelector(".drawer")) peek(next);
  return true;
}

function enter(key: Key): boolean {
  if ((key.event.target as Element).closest("a, button, summary")) return false;
  const row = current();
  if (!row) return false;
  if (row.dataset["peekHref"] && drawerId() !== row.dataset["id"]) return peek(row);
  location.assign(row.dataset["href"]!);
  return true;
}

const drawerId = (): string | null => new URL(location.href).searchParams.get("peek");

function peek(row: HTMLTableRowElement): boolean {
  const link = row.querySelector<HTMLAnchorElement>("a.preview");
  link?.click();
  return link !== null;
}

function follow(selector: string): boolean {
  const link = document.querySelector<HTMLAnchorElement>(selector);
  link?.click();
  return link !== null;
}

/** A click anywhere in a row does what its main link does, unless text is being selected or a control was hit. */
export function listClick(event: MouseEvent): void {
  const target = event.target as Element;
  const row = target.closest<HTMLTableRowElement>("tr[data-href]");
  if (!row || target.closest("a, button, input, select, label, form") || getSelection()?.toString()) return;
  const link = row.querySelector<HTMLAnchorElement>("a.preview");
  if (event.metaKey || event.ctrlKey || event.button === 1) window.open(row.dataset["href"], "_blank", "noopener");
  else if (link) link.click();
  else location.assign(row.dataset["href"]!);
}

/** After the drawer opened: mark its row and take the reader to its heading. */
export function drawerOpened(): void {
  const id = drawerId();
  for (const row of rows()) {
    if (row.dataset["id"] === id) row.setAttribute("aria-selected", "true");
    else row.removeAttribute("aria-selected");
  }
  if (id) document.getElementById("drawer-title")?.focus({ preventScroll: true });
}

export function closeDrawer(): boolean {
  const drawer = document.querySelector<HTMLElement>(".drawer");
  if (!drawer) return false;
  const href = drawer.dataset["closeHref"];
  const row = document.querySelector<HTMLElement>('tr[aria-selected="true"]');
  drawer.remove();
  if (href) history.pushState({}, "", href);
  row?.removeAttribute("aria-selected");
  row?.setAttribute("data-cursor", "");
  row?.querySelector<HTMLElement>("a.preview")?.focus({ preventScroll: true });
  return true;
}
