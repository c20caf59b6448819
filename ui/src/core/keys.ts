// The only place that listens to the keyboard (a lint test holds that).
// While an input method composes Japanese text, Enter and every other key belong to it:
// `isComposing` says so, and Safari says it by keyCode 229 on the Enter that confirms a candidate.

export interface Key {
  name: string;
  mod: boolean;
  shift: boolean;
  alt: boolean;
  typing: boolean;
  event: KeyboardEvent;
}

/** Calls `handler` for each key that is not part of a composition; a handler that returns true has dealt with the key. */
export function onKey(target: EventTarget, handler: (key: Key) => boolean | void): () => void {
  const listener = (e: Event) => {
    const event = e as KeyboardEvent;
    if (event.isComposing || event.keyCode === 229 || event.defaultPrevented) return;
    const key: Key = {
      name: event.key,
      mod: event.ctrlKey || event.metaKey,
      shift: event.shiftKey,
      alt: event.altKey,
      typing: isTyping(event.target),
      event,
    };
    if (handler(key) === true) event.preventDefault();
  };
  target.addEventListener("keydown", listener);
  return () => target.removeEventListener("keydown", listener);
}

function isTyping(target: EventTarget | null): boolean {
  const el = target as HTMLElement | null;
  if (!el?.matches) return false;
  return el.matches('input:not([type="checkbox"], [type="radio"], [type="range"]), textarea, select, [contenteditable="true"]');
}

/** Single-letter keys can be switched off (WCAG 2.1.4). */
const COOKIE = "meguri_letter_keys";
export const letterKeys = {
  on: (): boolean => !document.cookie.includes(`${COOKIE}=off`),
  set(on: boolean): void {
    document.cookie = `${COOKIE}=${on ? "on" : "off"}; path=/; max-age=31536000; samesite=lax`;
  },
};
