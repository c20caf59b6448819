// One item at a time by keyboard. The form on the page works without this; here the same answers go to
// the API, and the item after lies ready in the page before this one is done, so going on takes no time.

import { ApiError, post } from "../core/api.js";
import { h, toast } from "../core/dom.js";
import { letterKeys, onKey, type Key } from "../core/keys.js";
import { words, type Words } from "../core/page.js";
import { ACTIONS, conflict, nameOf, parse as parseMap, shownAs, STANDARD, write as writeMap, type Action, type Keymap } from "./keymap.js";
import { length, parse, pieces, toggle, write, type Span } from "./spans.js";

interface Progress { labelled: number; skipped: number; held: number; left: number }
interface Props { queue: string; here: string; i18n: Words }

const KEPT = "meguri_review_keys=";
const MAC = /Mac|iP/.test(navigator.platform);

function kept(): string | null {
  const found = document.cookie.split("; ").find((cookie) => cookie.startsWith(KEPT));
  return found ? decodeURIComponent(found.slice(KEPT.length)) : null;
}

function keepMap(text: string): void {
  document.cookie = `${KEPT}${encodeURIComponent(text)}; path=/; max-age=31536000; samesite=lax`;
}

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  const inbox = `/api/v1/review/inbox/${encodeURIComponent(props.queue)}`;
  let keymap: Keymap = parseMap(kept());
  let busy = false;
  const shown = () => el.querySelector<HTMLElement>("#review-item");
  const form = () => el.querySelector<HTMLFormElement>("#review-item > form");
  const questions = () => [...(form()?.querySelectorAll<HTMLFieldSetElement>("[data-question]") ?? [])];

  // -- the item ------------------------------------------------------------------------------------

  const open = (): void => {
    const item = form();
    if (!item) return;
    for (const box of item.querySelectorAll<HTMLElement>("[data-spans]")) marking(item, box, t);
    for (const kbd of item.querySelectorAll<HTMLElement>("[data-act=complete] kbd")) kbd.textContent = shownAs(keymap.complete, MAC);
    shown()?.querySelector("[data-prefetch]")?.dispatchEvent(new Event("prefetch"));
    // Whoever opens an item reads it first: nothing scrolls away from it.
    choose(questions()[0], true);
  };

  /** The question that digits answer. */
  const choose = (question: HTMLFieldSetElement | undefined, stay = false): boolean => {
    if (!question) return false;
    for (const other of questions()) other.toggleAttribute("data-current", other === question);
    const control = question.querySelector<HTMLElement>("input:checked, input, textarea:not([hidden]), [data-labels] button");
    const kind = question.dataset["kind"];
    // A text field takes keys away from the item: it is entered by Enter, not by passing.
    if (kind === "text" || kind === "expected" || kind === "correction" || kind === "spans") { question.tabIndex = -1; question.focus({ preventScroll: stay }); } else control?.focus({ preventScroll: stay });
    if (!stay) question.scrollIntoView({ block: "nearest" });
    return true;
  };
  const current = () => questions().find((q) => q.contains(document.activeElement)) ?? questions().find((q) => q.hasAttribute("data-current"));

  const progress = (now: Progress): void => {
    const total = now.labelled + now.left;
    const bar = el.querySelector<HTMLProgressElement>("[data-bar]");
    if (bar) { bar.max = total || 1; bar.value = now.labelled; }
    const count = el.querySelector("[data-count]");
    if (count) count.textContent = `${now.labelled} / ${total}`;
  };

  /** The item after, if it is here already. */
  const ready = (): HTMLElement | null => el.querySelector<HTMLElement>("[data-prefetch] > #review-item");

  /** Shows what was asked for ahead; otherwise the page is asked. */
  const advance = (skipped = false): void => {
    const before = shown();
    const next = ready();
    if (!before || !next || next.hasAttribute("data-empty")) return location.assign(props.here);
    const done = form()?.dataset["item"];
    next.remove();
    before.replaceWith(next);
    // It was made before the last one was labelled.
    for (const undo of next.querySelectorAll<HTMLElement>("[data-act=undo]")) undo.hidden = false;
    for (const prev of next.querySelectorAll<HTMLAnchorElement>("[data-act=prev]")) {
      if (!skipped) prev.href = `${props.here}?item=${encodeURIComponent(done ?? "")}`;
      prev.hidden = prev.getAttribute("href") === "";
    }
    open();
    window.scrollTo({ top: 0 });
    busy = false;
  };

  const refuse = (error: unknown): void => {
    busy = false;
    const item = form();
    if (!(error instanceof ApiError) || !item) return toast(t("reviewkeys-failed"), "err");
    if (error.status === 409) { toast(error.message, "err"); return location.assign(props.here); }
    const name = /^\/values\/([^/]+)/.exec(error.at ?? "")?.[1]?.replaceAll("~1", "/").replaceAll("~0", "~");
    const at = questions().find((q) => q.dataset["question"] === name);
    const problem = at?.querySelector<HTMLElement>("p.error") ?? item.querySelector<HTMLElement>("[data-problem]");
    if (problem) { problem.textContent = error.message; problem.hidden = false; }
    choose(at);
  };

  const complete = async (): Promise<void> => {
    const item = form();
    if (!item || busy) return;
    for (const problem of item.querySelectorAll<HTMLElement>("p.error, [data-problem]")) problem.hidden = true;
    const values: Record<string, unknown> = {};
    for (const question of questions()) {
      let value: unknown;
      try { value = answerOf(question); } catch { return wrong(question, t("reviewkeys-bad-json")); }
      if (value !== undefined) values[question.dataset["question"]!] = value;
      const required = !question.querySelector("legend > .faint");
      if (value === undefined && required) return wrong(question, t("reviewkeys-needed"));
    }
    busy = true;
    const again = !shown()?.querySelector("[data-prefetch]");
    try {
      const body = { fence: Number(item.dataset["fence"]), values, comment: item.querySelector<HTMLTextAreaElement>("[data-comment]")?.value ?? "" };
      const done = await post<{ progress: Progress }>(`/api/v1/review/items/${item.dataset["item"]}/label`, body);
      progress(done.progress);
      if (again) location.assign(props.here); else advance();
    } catch (error) { refuse(error); }
  };

  const wrong = (question: HTMLFieldSetElement, text: string): void => {
    const problem = question.querySelector<HTMLElement>("p.error");
    if (problem) { problem.textContent = text; problem.hidden = false; }
    choose(question);
  };

  const skip = async (): Promise<void> => {
    const item = form();
    if (!item || busy || !item.querySelector("[data-act=skip]")) return;
    busy = true;
    try {
      const body = { fence: Number(item.dataset["fence"]), reason: item.querySelector<HTMLTextAreaElement>("[data-comment]")?.value ?? "" };
      progress(await post<Progress>(`/api/v1/review/items/${item.dataset["item"]}/skip`, body));
      advance(true);
    } catch (error) { refuse(error); }
  };

  const undo = async (): Promise<void> => {
    if (busy) return;
    busy = true;
    try {
      const { item } = await post<{ item: { id: string } | null }>(`${inbox}/undo`, {});
      if (item) location.assign(`${props.here}?item=${encodeURIComponent(item.id)}`);
    } catch (error) {
      busy = false;
      toast(error instanceof ApiError ? (error.code === "nothing_to_undo" ? t("reviewkeys-nothing") : error.message) : t("reviewkeys-failed"), "err");
    }
  };

  // -- keys ----------------------------------------------------------------------------------------

  const step = (by: number): boolean => {
    const all = questions();
    const at = all.indexOf(current()!);
    return choose(all[Math.min(all.length - 1, Math.max(0, at + by))]);
  };

  /** Enters a text, or goes on to the next question; after the last one the item is done. */
  const commit = (): boolean => {
    const question = current();
    const text = question?.querySelector<HTMLElement>("textarea:not([hidden])");
    if (question && text && document.activeElement === question && question.dataset["kind"] !== "spans") { text.focus(); return true; }
    const all = questions();
    if (question && all.indexOf(question) === all.length - 1) { void complete(); return true; }
    return step(1);
  };

  const digit = (n: number): boolean => {
    const question = current();
    const kind = question?.dataset["kind"];
    if (!question) return false;
    if (kind === "spans") { question.querySelectorAll<HTMLButtonElement>("[data-label-name]")[n - 1]?.click(); return true; }
    const inputs = [...question.querySelectorAll<HTMLInputElement>("input[type=radio], input[type=checkbox]")];
    const input = kind === "rating" ? inputs.find((i) => i.value === String(n)) ?? (n === 0 ? inputs.find((i) => i.value === "10") : undefined) : inputs[n - 1];
    if (!input) return false;
    input.click();
    input.focus();
    return true;
  };

  const act = (action: Action): boolean => {
    if (action === "complete") { void complete(); return true; }
    if (action === "skip") { void skip(); return true; }
    if (action === "undo") { void undo(); return true; }
    if (action === "up") return step(-1);
    if (action === "down") return step(1);
    if (action === "commit") return commit();
    if (action === "leave") { const question = current(); if (question) { question.tabIndex = -1; question.focus(); } return question !== undefined; }
    const link = form()?.querySelector<HTMLAnchorElement>(`[data-act="${action}"]:not([hidden])`);
    link?.click();
    return !!link;
  };

  const key = (pressed: Key): boolean => {
    if (document.querySelector("dialog[open]") || !form()) return false;
    const name = nameOf(pressed);
    const action = ACTIONS.find((one) => keymap[one] === name);
    // While somebody types, every key is a letter of theirs, but the two that lead out.
    if (pressed.typing) return action === "complete" || action === "leave" ? act(action) : false;
    if (pressed.name === "?") { help(); return true; }
    if ((pressed.event.target as Element).closest("[data-text]") && caret(pressed)) return true;
    const single = name.length === 1;
    if (single && !letterKeys.on()) return false;
    if (/^[0-9]$/.test(name)) return digit(Number(name));
    // Enter on a button or link presses it.
    if (action === "commit" && (pressed.event.target as Element).closest("button, a, summary")) return false;
    return action ? act(action) : false;
  };

  // -- help and remapping --------------------------------------------------------------------------

  const help = (): void => {
    if (document.querySelector(".help-dialog")) return;
    const list = h("dl", { class: "keys review-keys" });
    const problem = h("p", { class: "error", role: "alert" });
    const close = h("button", { class: "btn primary", type: "button" }, t("reviewkeys-close"));
    const reset = h("button", { class: "btn ghost", type: "button" }, t("reviewkeys-reset"));
    const toggleLetters = h("button", { class: "btn ghost", type: "button" });
    const dialog = h("dialog", { class: "dialog help-dialog", "aria-labelledby": "review-help" },
      h("div", { class: "inner" }, h("h2", { id: "review-help" }, t("reviewkeys-title")), h("p", { class: "small muted" }, t("reviewkeys-hint")), list, problem, h("footer", {}, toggleLetters, reset, close)));
    let waiting: Action | null = null;
    const keep = (): void => { keepMap(writeMap(keymap)); draw(); };
    const draw = (): void => {
      toggleLetters.textContent = t(letterKeys.on() ? "reviewkeys-off" : "reviewkeys-on");
      list.replaceChildren(
        h("dt", {}, h("kbd", {}, "1 – 9")), h("dd", {}, t("reviewkeys-digits")),
        ...ACTIONS.flatMap((action) => {
          const says = waiting === action ? t("reviewkeys-press") : shownAs(keymap[action], MAC);
          // Whoever speaks to the page says what stands on the button, so its name has that too.
          const name = `${says} · ${t("reviewkeys-change", { what: t(`reviewkeys-${action}`) })}`;
          const button = h("button", { class: "btn small", type: "button", "data-remap": action, "aria-pressed": String(waiting === action), "aria-label": name }, says);
          button.addEventListener("click", () => { waiting = waiting === action ? null : action; problem.textContent = ""; draw(); list.querySelector<HTMLElement>(`[data-remap="${action}"]`)?.focus(); });
          return [h("dt", {}, button), h("dd", {}, t(`reviewkeys-${action}`))];
        }));
    };
    const stop = onKey(dialog, (pressed) => {
      if (!waiting || ["Control", "Meta", "Alt", "Shift"].includes(pressed.name)) return false;
      const [action, name] = [waiting, nameOf(pressed)];
      const taken = conflict(keymap, action, name);
      waiting = null;
      if (taken) problem.textContent = t("reviewkeys-taken", { key: shownAs(name, MAC), what: t(`reviewkeys-${taken}`) });
      else keymap = { ...keymap, [action]: name };
      keep();
      list.querySelector<HTMLElement>(`[data-remap="${action}"]`)?.focus();
      return true;
    });
    reset.addEventListener("click", () => { keymap = { ...STANDARD }; problem.textContent = ""; keep(); });
    toggleLetters.addEventListener("click", () => { letterKeys.set(!letterKeys.on()); draw(); });
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => { stop(); dialog.remove(); });
    draw();
    document.body.append(dialog);
    dialog.showModal();
  };

  // -- listening -----------------------------------------------------------------------------------

  const clicked = (event: MouseEvent): void => {
    const action = (event.target as Element).closest<HTMLElement>("[data-act]")?.dataset["act"] as Action | undefined;
    if (!action || action === "prev" || action === "next") return;
    event.preventDefault();
    act(action);
  };
  const submitted = (event: SubmitEvent): void => {
    if (event.target !== form()) return;
    event.preventDefault();
    void complete();
  };
  const keysButton = document.querySelector<HTMLButtonElement>("[data-review-keys]");
  if (keysButton) { keysButton.hidden = false; keysButton.addEventListener("click", help); }
  el.addEventListener("click", clicked);
  el.addEventListener("submit", submitted);
  // Before the page's own keys, some of which are the same.
  const stop = onKey(document.body, key);
  open();
  return () => { stop(); el.removeEventListener("click", clicked); el.removeEventListener("submit", submitted); keysButton?.removeEventListener("click", help); };
}

/** What a question's fields say; undefined where they say nothing. */
function answerOf(question: HTMLFieldSetElement): unknown {
  const kind = question.dataset["kind"];
  if (kind === "multi") return [...question.querySelectorAll<HTMLInputElement>("input:checked")].map((input) => input.value);
  if (kind === "spans") return parse(question.querySelector("textarea")!.value);
  const checked = question.querySelector<HTMLInputElement>("input[type=radio]:checked");
  if (checked) return kind === "rating" ? Number(checked.value) : checked.value;
  const text = question.querySelector<HTMLInputElement | HTMLTextAreaElement>("input[type=number], textarea")?.value ?? "";
  if (text.trim() === "") return undefined;
  if (kind === "rating") return Number(text);
  return question.hasAttribute("data-json") ? JSON.parse(text) : text;
}

/** Moves a caret in a text that cannot be edited, so that places can be marked without a mouse. */
function caret(pressed: Key): boolean {
  if (pressed.name !== "ArrowLeft" && pressed.name !== "ArrowRight" && pressed.name !== "ArrowUp" && pressed.name !== "ArrowDown") return false;
  const selection = getSelection();
  if (!selection?.rangeCount) return false;
  const unit = pressed.name === "ArrowUp" || pressed.name === "ArrowDown" ? "line" : pressed.mod ? "word" : "character";
  selection.modify(pressed.shift ? "extend" : "move", pressed.name === "ArrowLeft" || pressed.name === "ArrowUp" ? "backward" : "forward", unit);
  return true;
}

/** Lets places be marked in the text that a question is about; the lines in its field stay the truth. */
function marking(item: HTMLFormElement, box: HTMLElement, t: (key: string, args?: Record<string, string | number>) => string): void {
  const area = box.querySelector("textarea")!;
  const target = item.querySelector<HTMLElement>(`[data-text="${box.dataset["target"]}"]`);
  const list = box.querySelector<HTMLElement>("[data-marks]")!;
  if (!target || box.dataset["ready"] !== undefined) return;
  box.dataset["ready"] = "";
  const text = target.textContent ?? "";
  const options = [...box.querySelectorAll<HTMLElement>("[data-label-name]")].map((b) => b.dataset["labelName"]!);
  area.hidden = true;
  box.querySelector("label")!.hidden = true;
  target.tabIndex = 0;
  target.setAttribute("role", "group");
  target.setAttribute("aria-label", t("reviewkeys-markable"));
  box.append(h("p", { class: "hint" }, t("reviewkeys-marking")));

  let last: { start: number; end: number } | null = null;
  /** Where the selection is, in characters; what was selected last while a button has the focus. */
  const selected = (): { start: number; end: number } | null => {
    const selection = getSelection();
    if (!selection?.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    if (!target.contains(range.startContainer) || !target.contains(range.endContainer)) return null;
    const before = document.createRange();
    before.selectNodeContents(target);
    before.setEnd(range.startContainer, range.startOffset);
    const start = length(before.toString());
    return { start, end: start + length(range.toString()) };
  };
  const draw = (): void => {
    const spans = parse(area.value);
    target.replaceChildren(...pieces(text, spans).map((piece) => (
      piece.labels.length ? h("mark", { class: `mark-${options.indexOf(piece.labels[0]!) % 6}`, title: piece.labels.join(", ") }, piece.text) : document.createTextNode(piece.text))));
    const chars = [...text];
    list.replaceChildren(...spans.map((span) => {
      const drop = h("button", { class: "btn ghost small", type: "button", "aria-label": t("reviewkeys-unmark", { what: chars.slice(span.start, span.end).join("") }) }, "×");
      drop.addEventListener("click", () => put(spans.filter((other) => other !== span)));
      return h("li", {}, h("span", { class: "clip" }, chars.slice(span.start, span.end).join("")), h("span", { class: "badge" }, span.label), drop);
    }));
  };
  const put = (spans: Span[]): void => { area.value = write(spans); draw(); };
  const remember = (): void => { const now = selected(); if (now) last = now; };
  target.addEventListener("focus", () => {
    const selection = getSelection();
    if (selection && !target.contains(selection.anchorNode)) selection.collapse(target, 0);
  });
  const follow = (): void => { if (target.isConnected) remember(); else document.removeEventListener("selectionchange", follow); };
  document.addEventListener("selectionchange", follow);
  for (const button of box.querySelectorAll<HTMLElement>("[data-label-name]")) {
    button.addEventListener("click", () => {
      const place = selected() ?? last;
      if (!place) { target.focus(); return; }
      put(toggle(parse(area.value), text, { ...place, label: button.dataset["labelName"]! }));
      last = null;
      getSelection()?.removeAllRanges();
    });
  }
  draw();
}
