// Small parts that the editor and the compare page share.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

export const ICONS = {
  plus: "M8 3v10M3 8h10",
  close: "M4 4l8 8M12 4l-8 8",
  up: "M8 13V3.500M4 7.300L8 3.300l4 4",
  down: "M8 3v9.500M4 8.700l4 4 4-4",
  right: "M6 4l4 4-4 4",
  play: "M5 3l8 5-8 5z",
  stop: "M4.500 4.500h7v7h-7z",
  copy: "M5.500 5.500h8v8h-8zM10.500 5.500v-3h-8v8h3",
  good: "M5 7l2.700-4.800c1.200 0 1.800.8 1.600 2L9 6h3.300c.9 0 1.400.7 1.200 1.500l-1 4.600c-.2.7-.7 1.100-1.400 1.100H5zM2.500 7H5v6.200H2.500z",
  bad: "M5 9l2.700 4.800c1.200 0 1.800-.8 1.600-2L9 10h3.300c.9 0 1.400-.7 1.200-1.500l-1-4.600c-.2-.7-.7-1.100-1.400-1.100H5zM2.500 9H5V2.800H2.500z",
  err: "M8 4.800v3.900M8 11.100v.1M13.800 8A5.800 5.800 0 1 1 2.200 8a5.800 5.800 0 0 1 11.600 0",
  edit: "M3 13l.7-3L10.700 3l2.300 2.300-7 7z",
} as const;

export function Icon({ name }: { name: keyof typeof ICONS }) {
  return <svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d={ICONS[name]} /></svg>;
}

export function IconButton({ name, label, onClick, disabled, pressed }: { name: keyof typeof ICONS; label: string; onClick: () => void; disabled?: boolean; pressed?: boolean }) {
  return <button class="btn ghost small icon-only" type="button" aria-label={label} title={label} disabled={disabled ?? false} {...(pressed === undefined ? {} : { "aria-pressed": pressed })} onClick={onClick}><Icon name={name} /></button>;
}

/** A part that can be folded, with a count beside its title. */
export function Fold({ title, count, open, children }: { title: string; count?: string; open?: boolean; children: ComponentChildren }) {
  const [shown, show] = useState(open ?? false);
  return (
    <details class="panel fold-panel" open={shown} onToggle={(e) => show(e.currentTarget.open)}>
      <summary><Icon name="right" /><h2>{title}</h2>{count && <span class="muted small">{count}</span>}</summary>
      {shown && <div class="body stack-s">{children}</div>}
    </details>
  );
}

/** JSON as text: tells on the spot when it does not read, and hands over only what does. */
export function JsonArea({ id, label, value, hint, bad, onChange, rows = 6 }: { id: string; label: string; value: unknown; hint?: string; bad: string; onChange: (value: unknown) => void; rows?: number }) {
  const written = value === undefined || value === null ? "" : JSON.stringify(value, null, 2);
  const [text, setText] = useState(written);
  const [given, setGiven] = useState(written);
  const [wrong, setWrong] = useState(false);
  // What changed outside replaces the text; what was typed here stays as it was typed.
  if (given !== written) {
    setGiven(written);
    if (!wrong && parsed(text) !== written) setText(written);
  }
  const change = (next: string) => {
    setText(next);
    try {
      const read = next.trim() === "" ? undefined : JSON.parse(next) as unknown;
      setWrong(false);
      onChange(read);
    } catch { setWrong(true); }
  };
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea class="area code" id={id} rows={rows} spellcheck={false} value={text} {...(wrong ? { "aria-invalid": "true" as const, "aria-describedby": `${id}-e` } : {})} onInput={(e) => change(e.currentTarget.value)} />
      {wrong ? <p class="error" id={`${id}-e`}><Icon name="err" />{bad}</p> : hint && <p class="hint">{hint}</p>}
    </div>
  );
}

function parsed(text: string): string {
  try { return text.trim() === "" ? "" : JSON.stringify(JSON.parse(text), null, 2); } catch { return ""; }
}

export interface Model { id: string; label: string; group: string }

export function ModelOptions({ models, local }: { models: Model[]; local: string }) {
  const groups = [...new Set(models.map((m) => m.group))];
  return <>{groups.map((g) => <optgroup key={g} label={g === "local" ? local : g}>{models.filter((m) => m.group === g).map((m) => <option key={m.id} value={m.id}>{m.label}</option>)}</optgroup>)}</>;
}
