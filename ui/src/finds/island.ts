// Finds of guards by keyboard: J and K move, 1, 2 and 3 say what a find was and go on, O opens its call.
// The buttons of the page send the same as a form; here the answer comes without a new page.

import { ApiError, post } from "../core/api.js";
import { toast } from "../core/dom.js";
import { letterKeys, onKey, type Key } from "../core/keys.js";
import { words, type Words } from "../core/page.js";

interface Props { i18n: Words }

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  const finds = [...el.querySelectorAll<HTMLElement>("[data-find]")];
  const count = el.querySelector<HTMLElement>("[data-judged]");
  const here = () => finds.findIndex((find) => find.contains(document.activeElement));

  const go = (to: number): boolean => {
    const find = finds[to];
    if (!find) return false;
    find.focus({ preventScroll: true });
    find.scrollIntoView({ block: "nearest" });
    return true;
  };

  const buttons = (find: HTMLElement) => [...find.querySelectorAll<HTMLButtonElement>("button[name=verdict]")];

  const judge = async (find: HTMLElement, button: HTMLButtonElement, next: boolean): Promise<void> => {
    if (find.dataset["busy"] !== undefined) return;
    find.dataset["busy"] = "";
    const comment = find.querySelector<HTMLInputElement>("[name=comment]")?.value ?? "";
    try {
      await post<unknown>(`/api/v1/guard/finds/${encodeURIComponent(find.dataset["find"]!)}/verdict`, { verdict: button.value, ...(comment ? { comment } : {}) });
      for (const other of buttons(find)) other.setAttribute("aria-pressed", String(other === button));
      find.dataset["said"] = "";
      const by = find.querySelector("[data-said-by]");
      if (by) by.textContent = "";
      if (count) count.textContent = t("finds-count", { n: finds.filter((one) => one.dataset["said"] !== undefined).length, of: finds.length });
      if (next) go(finds.indexOf(find) + 1);
    } catch (error) {
      toast(t("finds-failed", { message: error instanceof ApiError ? error.message : "" }), "err");
    } finally {
      delete find.dataset["busy"];
    }
  };

  const key = (pressed: Key): boolean => {
    if (pressed.typing || pressed.mod || pressed.alt || !letterKeys.on()) return false;
    const at = here();
    const name = pressed.name.toLowerCase();
    if (name === "j") return go(Math.min(at + 1, finds.length - 1));
    if (name === "k") return go(Math.max(at - 1, 0));
    const find = finds[at];
    if (!find) return false;
    if (name === "o") {
      find.querySelector<HTMLAnchorElement>("[data-trace]")?.click();
      return true;
    }
    const button = buttons(find)[Number(name) - 1];
    if (!button) return false;
    void judge(find, button, true);
    return true;
  };

  const submitted = (event: SubmitEvent): void => {
    const button = event.submitter;
    const find = (event.target as HTMLElement).closest<HTMLElement>("[data-find]");
    if (!find || !(button instanceof HTMLButtonElement) || button.name !== "verdict") return;
    event.preventDefault();
    void judge(find, button, false);
  };

  el.addEventListener("submit", submitted);
  const stop = onKey(document, key);
  if (!location.hash) go(Math.max(finds.findIndex((find) => find.dataset["said"] === undefined), 0));
  return () => { stop(); el.removeEventListener("submit", submitted); };
}
