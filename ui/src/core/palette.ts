// Ctrl/Cmd+K: pages, prompts, models, a pasted trace id, actions. Also the list of keys behind "?".

import { json, type Schemas } from "./api.js";
import { h } from "./dom.js";
import { letterKeys, onKey } from "./keys.js";
import { page, t } from "./page.js";

interface Entry { text: string; kind: string; run: () => void }

const go = (href: string) => () => location.assign(href);

function pages(): Entry[] {
  const links = [...document.querySelectorAll<HTMLAnchorElement>(".rail .nav a")];
  return links.map((a) => ({ text: a.textContent?.trim() ?? "", kind: t("js-palette-page"), run: go(a.href) }));
}

function actions(): Entry[] {
  const theme = (value: string): Entry => ({ text: t(`js-palette-theme-${value}`), kind: t("js-palette-action"), run: () => choose("theme", value) });
  return ["light", "dark", "system"].map(theme)
    .concat([["en", "English"], ["ja", "日本語"]].filter(([code]) => code !== page.lang)
      .map(([code, text]) => ({ text: text!, kind: t("js-palette-action"), run: () => choose("lang", code!) })));
}

function choose(name: string, value: string): void {
  document.querySelector<HTMLButtonElement>(`button[name="${name}"][value="${value}"]`)?.click();
}

let fetched: Promise<Entry[]> | undefined;
/** Prompts and models are asked for once per page, when the palette first opens. */
function objects(): Promise<Entry[]> {
  fetched ??= Promise.all([
    json<Schemas["Prompts"]>("/api/v1/prompts").then((r) => r.items.map((p) => (
      { text: p.name, kind: t("js-palette-prompt"), run: go(`${page.root}/prompts/show?name=${encodeURIComponent(p.name)}`) }))),
    json<{ data: { id: string }[] }>("/v1/models").then((r) => r.data.map((m) => (
      { text: m.id, kind: t("js-palette-model"), run: go(`${page.root}/playground?model=${encodeURIComponent(m.id)}`) }))),
  ].map((p) => p.catch(() => [] as Entry[]))).then((lists) => lists.flat());
  return fetched;
}

function matching(all: Entry[], q: string): Entry[] {
  const parts = q.toLowerCase().split(/\s+/).filter(Boolean);
  const hits = all.filter((e) => parts.every((p) => e.text.toLowerCase().includes(p)));
  if (/^[0-9a-f]{32}$/i.test(q)) hits.unshift({ text: t("js-palette-open-trace", { id: q }), kind: t("js-palette-trace"), run: go(`${page.root}/traces/${q.toLowerCase()}`) });
  if (q) hits.push({ text: t("js-palette-search-traces", { q }), kind: t("js-palette-trace"), run: go(`${page.root}/traces?q=${encodeURIComponent(q)}`) });
  return hits.slice(0, 40);
}

export function openPalette(): void {
  if (document.querySelector(".palette") || !page.project) return;
  const input = h("input", { type: "text", role: "combobox", "aria-expanded": "true", "aria-controls": "palette-list", "aria-autocomplete": "list", placeholder: t("js-palette"), "aria-label": t("js-palette"), autocomplete: "off", spellcheck: "false" });
  const list = h("ul", { id: "palette-list", role: "listbox", "aria-label": t("js-palette") });
  const dialog = h("dialog", { class: "dialog palette", "aria-label": t("js-palette") }, input, list);
  let all = [...pages(), ...actions()];
  let shown: Entry[] = [];
  let at = 0;

  const mark = () => {
    [...list.children].forEach((li, i) => li.setAttribute("aria-selected", String(i === at)));
    const li = list.children[at];
    li?.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", li?.id ?? "");
  };
  const draw = () => {
    shown = matching(all, input.value.trim());
    at = 0;
    list.replaceChildren(...shown.map((e, i) => {
      const li = h("li", { role: "option", id: `palette-${i}` }, h("span", { class: "clip" }, e.text), h("span", { class: "end" }, e.kind));
      li.addEventListener("click", () => run(i));
      return li;
    }));
    if (!shown.length) list.append(h("li", { class: "none", role: "option", "aria-disabled": "true" }, t("js-palette-none")));
    mark();
  };
  const run = (i: number) => { dialog.close(); shown[i]?.run(); };

  onKey(dialog, (key) => {
    if (key.name === "ArrowDown" || key.name === "ArrowUp") {
      at = (at + (key.name === "ArrowDown" ? 1 : -1) + shown.length) % Math.max(1, shown.length);
      mark();
      return true;
    }
    if (key.name === "Enter") { run(at); return true; }
    return false;
  });
  input.addEventListener("input", (e) => { if (!(e as InputEvent).isComposing) draw(); });
  input.addEventListener("compositionend", draw);
  openModal(dialog);
  draw();
  void objects().then((more) => { all = [...all, ...more]; if (dialog.open) draw(); });
}

export function openHelp(): void {
  if (document.querySelector(".help-dialog")) return;
  const line = (keys: string[], text: string) => [h("dt", {}, ...keys.map((k) => h("kbd", {}, k))), h("dd", {}, t(text))];
  const mod = /Mac|iP/.test(navigator.platform) ? "⌘" : "Ctrl";
  const list = h("dl", { class: "keys" },
    ...line([mod, "K"], "js-help-palette"), ...line(["/"], "js-help-search"), ...line(["?"], "js-help-help"),
    ...line(["g", "o t p r m v k"], "js-help-go"), ...line(["j", "k"], "js-help-move"), ...line(["↵"], "js-help-open"),
    ...line(["[", "]"], "js-help-pages"), ...line(["Esc"], "js-help-esc"),
    ...(document.querySelector('[data-island="trace"]') ? [...line(["↑", "↓"], "js-help-spans"), ...line(["←", "→"], "js-help-fold"), ...line(["f"], "js-help-tree"), ...line(["r"], "js-help-replay")] : []),
    ...(document.querySelector('[data-island="playground"]') ? line([mod, "↵"], "js-help-send") : []));
  const toggle = h("button", { class: "btn ghost", type: "button" }, t(letterKeys.on() ? "js-help-off" : "js-help-on"));
  const close = h("button", { class: "btn", type: "button" }, t("js-close"));
  const dialog = h("dialog", { class: "dialog help-dialog", "aria-labelledby": "help-title" },
    h("div", { class: "inner" }, h("h2", { id: "help-title" }, t("js-help")), list, h("footer", {}, toggle, close)));
  toggle.addEventListener("click", () => { letterKeys.set(!letterKeys.on()); dialog.close(); });
  close.addEventListener("click", () => dialog.close());
  openModal(dialog);
}

function openModal(dialog: HTMLDialogElement): void {
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); });
  dialog.showModal();
}
