// The grid of a dataset's examples: arrows move, Enter edits, Ctrl+Enter takes over, Esc leaves, Del marks a row for removal.
// Edits wait here until they are saved together as one version; until then nothing has changed.

import { ApiError, json, post, type Schemas } from "../core/api.js";
import { h, toast } from "../core/dom.js";
import { letterKeys, onKey, type Key } from "../core/keys.js";
import { words, type Words } from "../core/page.js";
import { merged, parseCell, textOf, type Cell, type Field, type Patch } from "./edits.js";

interface Props { name: string; base: number; edit: boolean; splits: string[]; labels: string[]; i18n: Words }

const FIELDS: Field[] = ["input", "expected", "split", "verdict", "metadata"];

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  const table = el.querySelector<HTMLTableElement>("table[data-grid]")!;
  const path = `/api/v1/datasets/${props.name}`;
  /** By id: what changes, or null for a row that goes. */
  const pending = new Map<string, Patch | null>();
  let editing: { cell: HTMLElement; close: (keep: boolean) => void } | null = null;

  const cells = [...table.querySelectorAll<HTMLElement>("td[data-field]")];
  for (const [at, cell] of cells.entries()) cell.tabIndex = at === 0 ? 0 : -1;
  table.setAttribute("role", "grid");
  for (const cell of cells) cell.setAttribute("role", "gridcell");

  const message = h("input", { class: "input grow", placeholder: t("grid-message"), "aria-label": t("grid-message"), autocomplete: "off" });
  const count = h("span", { class: "grow", role: "status" });
  const save = h("button", { class: "btn primary", type: "button" }, t("grid-save"));
  const discard = h("button", { class: "btn", type: "button" }, t("grid-discard"));
  const bar = h("div", { class: "save-bar row" }, count, message, discard, save);
  bar.hidden = true;
  const hint = h("p", { class: "hint" }, t("grid-help"));
  if (props.edit) el.append(hint, bar);

  const rowOf = (cell: Element): HTMLTableRowElement => cell.closest("tr")!;
  const idOf = (cell: Element): string => rowOf(cell).dataset["id"]!;

  const focus = (cell: HTMLElement | undefined): boolean => {
    if (!cell) return false;
    for (const other of cells) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    return true;
  };

  const draw = (): void => {
    bar.hidden = pending.size === 0;
    count.textContent = t("grid-changes", { n: pending.size });
    for (const row of table.tBodies[0]!.rows) {
      const patch = pending.get(row.dataset["id"]!);
      row.toggleAttribute("data-removed", patch === null);
      row.toggleAttribute("data-changed", !!patch);
    }
  };

  const show = (cell: HTMLElement, text: string): void => {
    cell.replaceChildren(h("span", { class: text === "" ? "ex-cell faint" : "ex-cell" }, text === "" ? "–" : text));
    cell.toggleAttribute("data-changed", true);
  };

  const current = async (id: string): Promise<Schemas["LocatedExample"]> => {
    const now = await json<Schemas["LocatedExample"]>(`${path}/examples/${encodeURIComponent(id)}?version=${props.base}`);
    return merged(now, pending.get(id) ?? {});
  };

  const begin = async (cell: HTMLElement): Promise<void> => {
    if (!props.edit || editing || pending.get(idOf(cell)) === null) return;
    const field = cell.dataset["field"] as Field;
    const before: Node[] = [...cell.childNodes];
    let value: Cell;
    try { value = (await current(idOf(cell)))[field] as Cell; } catch (error) { toast(t("grid-failed", { why: (error as Error).message }), "err"); return; }
    const was = textOf(value);
    const control = editor(field, was, cell, props, t);
    const problem = h("p", { class: "error small", role: "alert" });
    problem.hidden = true;
    cell.replaceChildren(control, problem);
    const close = (keep: boolean): void => {
      const text = control.value;
      if (keep && text !== was) {
        const parsed = parseCell(field, text, value);
        if ("problem" in parsed) {
          problem.textContent = t("grid-bad-json");
          problem.hidden = false;
          control.setAttribute("aria-invalid", "true");
          control.focus();
          return;
        }
        pending.set(idOf(cell), { ...pending.get(idOf(cell)), [field]: parsed.value });
        editing = null;
        show(cell, text);
        draw();
      } else {
        editing = null;
        cell.replaceChildren(...before);
      }
      focus(cell);
    };
    editing = { cell, close };
    control.focus();
    if (control instanceof HTMLTextAreaElement) control.select();
  };

  const remove = (cell: HTMLElement): void => {
    const id = idOf(cell);
    if (pending.get(id) === null) pending.delete(id); else pending.set(id, null);
    draw();
    toast(t(pending.get(id) === null ? "grid-removed" : "grid-undo"));
  };

  const step = (cell: HTMLElement, rows: number, columns: number): boolean => {
    const at = cells.indexOf(cell);
    const column = at % FIELDS.length + columns;
    if (column < 0 || column >= FIELDS.length) return false;
    return focus(cells[at + rows * FIELDS.length + columns]);
  };

  const key = (pressed: Key): boolean => {
    const cell = (pressed.event.target as Element).closest<HTMLElement>("td[data-field]");
    if (!cell) return false;
    if (editing) {
      if (pressed.name === "Escape") { editing.close(false); return true; }
      const takes = pressed.name === "Enter" && (pressed.mod || !(pressed.event.target instanceof HTMLTextAreaElement));
      if (takes) { editing.close(true); return true; }
      if (pressed.name === "Tab") { const at = cell; editing.close(true); if (!editing) step(at, 0, pressed.shift ? -1 : 1); return true; }
      return false;
    }
    if (pressed.mod || pressed.alt) return false;
    switch (pressed.name) {
      case "ArrowDown": return step(cell, 1, 0);
      case "ArrowUp": return step(cell, -1, 0);
      case "ArrowRight": return step(cell, 0, 1);
      case "ArrowLeft": return step(cell, 0, -1);
      case "Home": return step(cell, 0, -(cells.indexOf(cell) % FIELDS.length));
      case "End": return step(cell, 0, FIELDS.length - 1 - cells.indexOf(cell) % FIELDS.length);
      case "Enter": case "F2": void begin(cell); return true;
      case "Delete": if (props.edit && letterKeys.on()) { remove(cell); return true; } return false;
      default: return false;
    }
  };

  const store = async (): Promise<void> => {
    if (editing) editing.close(true);
    if (editing) return;
    const patch: Patch[] = [];
    const gone: string[] = [];
    for (const [id, change] of pending) if (change === null) gone.push(id); else patch.push({ id, ...change });
    save.disabled = true;
    try {
      const saved = await post<Schemas["SavedDataset"]>(`${path}/versions`, { patch, remove: gone, base: props.base, message: message.value });
      pending.clear();
      toast(t("grid-saved", { version: saved.version }));
      location.reload();
    } catch (error) {
      save.disabled = false;
      toast(t("grid-failed", { why: error instanceof ApiError ? error.message : String(error) }), "err");
    }
  };

  const leaving = (event: BeforeUnloadEvent): void => { if (pending.size) event.preventDefault(); };
  const opened = (event: MouseEvent): void => {
    const cell = (event.target as Element).closest<HTMLElement>("td[data-field]");
    if (cell && cell !== editing?.cell) void begin(cell);
  };
  const clicked = (event: MouseEvent): void => {
    const cell = (event.target as Element).closest<HTMLElement>("td[data-field]");
    if (cell && !editing && !getSelection()?.toString()) focus(cell);
  };

  const off = onKey(el, key);
  table.addEventListener("dblclick", opened);
  table.addEventListener("click", clicked);
  save.addEventListener("click", () => void store());
  discard.addEventListener("click", () => { pending.clear(); location.reload(); });
  window.addEventListener("beforeunload", leaving);
  return () => {
    off();
    window.removeEventListener("beforeunload", leaving);
  };
}

function editor(field: Field, text: string, cell: HTMLElement, props: Props, t: ReturnType<typeof words>): HTMLTextAreaElement | HTMLInputElement | HTMLSelectElement {
  const label = cell.dataset["label"] ?? field;
  if (field === "verdict") {
    const options = ["", "good", "bad"].map((value) => h("option", { value, selected: value === text }, value || "–"));
    return h("select", { class: "select", "aria-label": label }, ...options);
  }
  if (field === "split") {
    const known = [...new Set(["", ...props.splits, text])];
    const input = h("input", { class: "input", value: text, "aria-label": label, list: "grid-splits", autocomplete: "off", placeholder: t("grid-split-none") });
    if (!document.getElementById("grid-splits")) document.body.append(h("datalist", { id: "grid-splits" }, ...known.filter(Boolean).map((value) => h("option", { value }))));
    return input;
  }
  if (field === "expected" && props.labels.length) {
    const options = ["", ...props.labels].map((value) => h("option", { value, selected: value === text }, value || "–"));
    if (text === "" || props.labels.includes(text)) return h("select", { class: "select", "aria-label": label }, ...options);
  }
  const area = h("textarea", { class: "input", rows: String(Math.min(12, Math.max(3, text.split("\n").length))), "aria-label": label, spellcheck: "false" });
  area.value = text;
  return area;
}
