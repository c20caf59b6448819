// Runs on every page: htmx with its two extensions, islands, times, menus, keys.
// Everything here only speeds up what the page does by links and forms anyway.

import "htmx.org/dist/htmx.esm.js";
import "htmx.org/dist/ext/hx-csp.js";
import "htmx.org/dist/ext/hx-sse.js";
import { json } from "./core/api.js";
import { h, toast } from "./core/dom.js";
import { mountIslands } from "./core/islands.js";
import { letterKeys, onKey, type Key } from "./core/keys.js";
import { closeDrawer, drawerOpened, listClick, listKey } from "./core/lists.js";
import { page, t } from "./core/page.js";
import { openHelp, openPalette } from "./core/palette.js";
import { localiseTimes } from "./core/times.js";

document.documentElement.classList.add("js");
ready(document);
document.addEventListener("htmx:after:swap", () => { ready(document); drawerOpened(); });
document.addEventListener("htmx:before:response", refused);
document.addEventListener("htmx:error", () => toast(t("js-failed"), "err"));
document.addEventListener("click", clicked);
document.addEventListener("toggle", placeMenu, true);
document.addEventListener("submit", submitted);
onKey(document, globalKey);

function ready(root: ParentNode): void {
  localiseTimes(root);
  tabSets(root);
  void mountIslands(root);
  const mod = /Mac|iP/.test(navigator.platform);
  if (mod) for (const el of root.querySelectorAll<HTMLElement>("[data-mod-key]")) el.textContent = `⌘${el.dataset["modKey"]}`;
  for (const el of root.querySelectorAll<HTMLSelectElement>("select[data-submit]")) el.onchange = () => el.form?.requestSubmit();
  for (const el of root.querySelectorAll<HTMLElement>("[data-toast]")) window.setTimeout(() => el.remove(), 8000);
  waitForFirstTrace(root);
}

/** Parts of pages are only ever read. What is refused is opened as a page: it says why, or asks to sign in again. */
function refused(event: Event): void {
  const { request, response } = (event as CustomEvent<{ ctx: { request: { action: string }; response: { raw: Response } } }>).detail.ctx;
  if (response.raw.ok && !response.raw.redirected) return;
  event.preventDefault();
  location.assign(response.raw.ok ? location.href : request.action);
}

function clicked(event: MouseEvent): void {
  const target = event.target as Element;
  const copy = target.closest<HTMLElement>("[data-copy], [data-copy-code]");
  if (copy) return void copyText(copy);
  const action = target.closest<HTMLElement>("[data-action]")?.dataset["action"];
  if (action === "palette") return openPalette();
  if (action === "help") return openHelp();
  if (target.closest("[data-close]") && !event.metaKey && !event.ctrlKey) {
    event.preventDefault();
    return void closeDrawer();
  }
  listClick(event);
}

/** A form that takes long says so, once: what it says is in `data-busy`. */
function submitted(event: SubmitEvent): void {
  const form = event.target as HTMLFormElement;
  const text = form.dataset["busy"];
  if (!text || event.defaultPrevented) return;
  if (form.dataset["sent"] !== undefined) return event.preventDefault();
  form.dataset["sent"] = "";
  for (const button of form.querySelectorAll<HTMLButtonElement>("button:not([type=button])")) button.setAttribute("aria-disabled", "true");
  form.append(h("p", { class: "row muted", role: "status" }, h("span", { class: "spin" }), text));
}

async function copyText(button: HTMLElement): Promise<void> {
  const text = button.dataset["copy"] ?? button.closest(".code")?.querySelector("pre")?.textContent ?? "";
  try {
    await navigator.clipboard.writeText(text);
    toast(t("js-copied"));
  } catch {
    toast(t("js-failed"), "err");
  }
}

/** Style sheets place menus beside their button; browsers without anchors get it done here. */
function placeMenu(event: Event): void {
  const menu = event.target as HTMLElement;
  if (CSS.supports("position-area", "block-end") || !menu.matches?.("[popover][data-menu]") || (event as ToggleEvent).newState !== "open") return;
  const opener = [...document.querySelectorAll<HTMLElement>(`[popovertarget="${menu.id}"]`)].find((b) => b.offsetParent !== null);
  if (!opener) return;
  const at = opener.getBoundingClientRect();
  const size = menu.getBoundingClientRect();
  const below = at.bottom + 4 + size.height <= innerHeight;
  menu.style.top = `${Math.max(8, below ? at.bottom + 4 : at.top - 4 - size.height)}px`;
  menu.style.left = `${Math.max(8, Math.min(at.left, innerWidth - size.width - 8))}px`;
}

let goPressed = 0;
const AREAS: Record<string, string> = { o: "/", t: "/traces", p: "/playground", r: "/prompts", m: "/models", v: "/providers", k: "/keys" };

function globalKey(key: Key): boolean {
  if (key.mod && !key.alt && key.name.toLowerCase() === "k") { openPalette(); return true; }
  if (key.name === "Escape") return !document.querySelector("dialog[open], :popover-open") && closeDrawer();
  if (key.typing || key.mod || key.alt || !letterKeys.on() || document.querySelector("dialog[open]")) return false;
  if (key.name === "?") { openHelp(); return true; }
  if (key.name === "/") {
    const field = document.querySelector<HTMLInputElement>("[data-search]");
    field?.focus();
    field?.select();
    return field !== null;
  }
  if (performance.now() - goPressed < 1500) {
    goPressed = 0;
    const area = AREAS[key.name];
    if (area && page.project) { location.assign(page.root + area); return true; }
  }
  if (key.name === "g") { goPressed = performance.now(); return true; }
  const link = document.querySelector<HTMLAnchorElement>(`a[data-key="${CSS.escape(key.name)}"]`);
  if (link) { link.click(); return true; }
  return listKey(key);
}

/** Tabs of example snippets: roving focus, arrows move. Without scripts all panels show one below the other. */
function tabSets(root: ParentNode): void {
  for (const set of root.querySelectorAll<HTMLElement>("[data-tabs]:not([data-ready])")) {
    set.dataset["ready"] = "";
    const tabs = [...set.querySelectorAll<HTMLElement>('[role="tab"]')];
    const select = (tab: HTMLElement) => {
      for (const other of tabs) {
        const on = other === tab;
        other.setAttribute("aria-selected", String(on));
        other.tabIndex = on ? 0 : -1;
        const panel = document.getElementById(other.getAttribute("aria-controls") ?? "");
        if (panel) panel.hidden = !on;
      }
    };
    for (const tab of tabs) tab.addEventListener("click", () => select(tab));
    onKey(set, (key) => {
      const at = tabs.indexOf(key.event.target as HTMLElement);
      if (at < 0 || (key.name !== "ArrowRight" && key.name !== "ArrowLeft")) return false;
      const next = tabs[(at + (key.name === "ArrowRight" ? 1 : -1) + tabs.length) % tabs.length]!;
      select(next);
      next.focus();
      return true;
    });
    if (tabs[0]) select(tabs[0]);
  }
}

/** On an empty project: look for the first trace every few seconds while the tab is visible, then show it and stop. */
let waiting = false;
function waitForFirstTrace(root: ParentNode): void {
  if (waiting || !root.querySelector("[data-first-trace]")) return;
  waiting = true;
  const look = async () => {
    if (!document.hidden) {
      try {
        const found = await json<{ items: unknown[] }>("/api/v1/traces?from=-30d&limit=1");
        if (found.items.length) return location.reload();
      } catch { /* The page stays as it is; the next look may succeed. */ }
    }
    window.setTimeout(look, 2500);
  };
  window.setTimeout(look, 1500);
}
