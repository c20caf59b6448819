// The span tree: arrows move and fold, f searches, thumbs are posted without leaving the page.
// The rows are the server's own links; this island owns no data.

import { post, type Schemas } from "../core/api.js";
import { toast } from "../core/dom.js";
import { letterKeys, onKey } from "../core/keys.js";
import { words, type Words } from "../core/page.js";

interface Props { trace_id: string; i18n: Words }

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  const rows = [...el.querySelectorAll<HTMLAnchorElement>(".span-row")];
  const search = el.querySelector<HTMLInputElement>("[data-tree-search]");
  const depth = (row: HTMLElement) => Number(row.dataset["depth"]);
  const visible = () => rows.filter((row) => !row.hidden);
  const selected = () => rows.find((row) => row.getAttribute("aria-selected") === "true") ?? rows[0];

  /** Hides every row below a folded one; rows come depth first, so one pass is enough. */
  const applyFolds = () => {
    let limit = Infinity;
    for (const row of rows) {
      if (depth(row) <= limit) limit = Infinity;
      row.hidden = depth(row) > limit;
      if (!row.hidden && row.getAttribute("aria-expanded") === "false") limit = depth(row);
    }
  };
  const fold = (row: HTMLElement, open: boolean) => {
    if (!row.hasAttribute("aria-expanded")) return false;
    row.setAttribute("aria-expanded", String(open));
    applyFolds();
    return true;
  };
  const mark = (row: HTMLElement) => {
    for (const other of rows) { other.setAttribute("aria-selected", String(other === row)); other.tabIndex = other === row ? 0 : -1; }
  };
  const choose = (row: HTMLAnchorElement | undefined) => {
    if (!row) return;
    mark(row);
    row.focus();
    row.click();
  };

  const clicked = (event: MouseEvent) => {
    const row = (event.target as Element).closest<HTMLAnchorElement>(".span-row");
    if (!row) return;
    if ((event.target as Element).closest(".fold") && row.hasAttribute("aria-expanded")) {
      event.preventDefault();
      event.stopPropagation();
      fold(row, row.getAttribute("aria-expanded") === "false");
      return;
    }
    mark(row);
  };
  // Before htmx's own listener on the row, so that folding does not load the span as well.
  el.addEventListener("click", clicked, true);

  const stopKeys = onKey(document, (key) => {
    if (key.mod || key.alt || document.querySelector("dialog[open]")) return false;
    if (key.typing) {
      if (key.event.target === search && key.name === "Enter") { choose(visible().find((r) => !r.classList.contains("miss"))); return true; }
      return false;
    }
    const list = visible();
    const at = list.indexOf(selected()!);
    const row = list[at];
    const inTree = (key.event.target as Element).closest?.(".tree") !== null || document.activeElement === document.body;
    if (inTree && (key.name === "ArrowDown" || key.name === "ArrowUp")) {
      choose(list[Math.max(0, Math.min(list.length - 1, at + (key.name === "ArrowDown" ? 1 : -1)))]);
      return true;
    }
    if (inTree && row && key.name === "ArrowLeft") {
      if (row.getAttribute("aria-expanded") === "true") return fold(row, false);
      choose(list.slice(0, at).reverse().find((r) => depth(r) < depth(row)));
      return true;
    }
    if (inTree && row && key.name === "ArrowRight") return fold(row, true);
    if (key.name === "f" && letterKeys.on()) { search?.focus(); return true; }
    return false;
  });

  const find = () => {
    const q = (search?.value ?? "").trim().toLowerCase();
    if (q) { for (const row of rows) if (row.hasAttribute("aria-expanded")) row.setAttribute("aria-expanded", "true"); applyFolds(); }
    let hits = 0;
    for (const row of rows) {
      const hit = !q || (row.textContent ?? "").toLowerCase().includes(q);
      row.classList.toggle("miss", !hit);
      if (q && hit) hits++;
    }
    if (search) search.title = q ? (hits ? t("tree-matches", { n: hits }) : t("tree-none")) : "";
  };
  const typed = (event: Event) => { if (!(event as InputEvent).isComposing) find(); };
  search?.addEventListener("input", typed);
  search?.addEventListener("compositionend", find);
  for (const row of rows) row.tabIndex = row === selected() ? 0 : -1;

  const form = document.querySelector<HTMLFormElement>("form[data-thumbs]");
  const rate = async (event: SubmitEvent) => {
    const button = event.submitter as HTMLButtonElement | null;
    if (!form || !button) return;
    event.preventDefault();
    const up = button === form.querySelector('button[name="value"]');
    const value = button.getAttribute("aria-pressed") === "true" ? 0 : up ? 1 : -1;
    try {
      await post("/api/v1/scores", { trace_id: props.trace_id, name: "thumbs", value } satisfies Schemas["NewScore"]);
      for (const b of form.querySelectorAll<HTMLButtonElement>('button[name="value"]')) b.setAttribute("aria-pressed", String(b === button && value !== 0));
      toast(t("tree-rated"));
    } catch {
      form.removeEventListener("submit", rate);
      form.requestSubmit(button);
    }
  };
  form?.addEventListener("submit", rate);

  return () => { stopKeys(); el.removeEventListener("click", clicked, true); form?.removeEventListener("submit", rate); };
}
