// Small parts of the app editor: fields with their problems, rows of names and expressions, the drawing.

import type { ComponentChildren } from "preact";
import { Icon, IconButton } from "../prompts/parts.js";
import type { Drawing } from "./api.js";
import type { Pair } from "./model.js";
import { change, problemsAt, token, type State } from "./state.js";

export function Wrong({ s, path, below = true }: { s: State; path: string; below?: boolean }) {
  return <>{problemsAt(s, path, below).map((p) => <p class="error" key={p.path + p.message}><Icon name="err" />{p.message}</p>)}</>;
}

interface TextProps {
  s: State; path: string; label: string; value: string; onChange: (value: string) => void;
  mono?: boolean; hint?: string; placeholder?: string; list?: string; wide?: boolean; numeric?: boolean; sr?: boolean;
}

/** One line of text. Its id is its place in the document, so that a problem leads to it. */
export function Text({ s, path, label, value, onChange, mono, hint, placeholder, list, wide, numeric, sr }: TextProps) {
  const bad = problemsAt(s, path).length > 0;
  return (
    <div class={wide ? "field wide" : "field"}>
      <label class={sr ? "sr" : ""} for={`ap${path}`}>{label}</label>
      <input class={`input${mono ? " mono" : ""}${numeric ? " num" : ""}`} id={`ap${path}`} value={value} placeholder={placeholder ?? ""} list={list ?? ""} {...(numeric ? { inputMode: "decimal" as const } : {})} autocomplete="off" spellcheck={false} {...(bad ? { "aria-invalid": "true" as const } : {})} onInput={(e) => { const text = e.currentTarget.value; change(s, () => onChange(text)); }} />
      <Wrong s={s} path={path} />
      {hint && !bad && <p class="hint">{hint}</p>}
    </div>
  );
}

interface PairsProps {
  s: State; path: string; rows: Pair[]; label: string; nameLabel: string; valueLabel: string; add: string;
  /** Names that are wanted and not there yet. */
  wanted?: string[]; list?: string; guess?: (name: string) => string;
}

/** Names with an expression each, in rows; wanted names are one click away. */
export function Pairs({ s, path, rows, label, nameLabel, valueLabel, add, wanted = [], list, guess }: PairsProps) {
  const { t } = s;
  const missing = wanted.filter((name) => !rows.some((row) => row.name === name));
  const put = (name: string) => change(s, () => { rows.push({ name, value: name ? guess?.(name) ?? "" : "" }); });
  return (
    <div class="ap-pairs" role="group" aria-label={label}>
      <div class="ap-label">{label}</div>
      {rows.map((row, at) => {
        const place = `${path}/${token(row.name)}`;
        const bad = row.name !== "" && problemsAt(s, place).length > 0;
        return <div class="ap-pair" key={at}>
          <input class="input mono" aria-label={`${nameLabel} ${at + 1}`} value={row.name} placeholder={t("appedit-name")} autocomplete="off" spellcheck={false} onInput={(e) => { const text = e.currentTarget.value; change(s, () => { row.name = text; }); }} />
          <span class="muted" aria-hidden="true">←</span>
          <input class="input mono" id={`ap${place}`} aria-label={`${row.name || at + 1}: ${valueLabel}`} value={row.value} list={list ?? ""} placeholder={valueLabel} autocomplete="off" spellcheck={false} {...(bad ? { "aria-invalid": "true" as const } : {})} onInput={(e) => { const text = e.currentTarget.value; change(s, () => { row.value = text; }); }} />
          <IconButton name="close" label={`${t("appedit-remove")}: ${row.name || at + 1}`} onClick={() => change(s, () => { rows.splice(at, 1); })} />
          {row.name !== "" && <div class="ap-wrong"><Wrong s={s} path={place} /></div>}
        </div>;
      })}
      <Wrong s={s} path={path} below={false} />
      <div class="row tight">
        {missing.map((name) => <button class="chip" type="button" key={name} onClick={() => put(name)}><Icon name="plus" />{name}</button>)}
        <button class="btn ghost small" type="button" onClick={() => put("")}><Icon name="plus" />{add}</button>
      </div>
    </div>
  );
}

/** The server's drawing. A box leads to its step in the form. */
export function Graph({ drawing, label, onOpen }: { drawing: Drawing; label: string; onOpen: (href: string) => void }) {
  const groups = drawing.boxes.filter((box) => box.is_group);
  const plain = drawing.boxes.filter((box) => !box.is_group);
  const box = (b: Drawing["boxes"][number]) => {
    const inner = (
      <g class={`box${b.is_group ? " group" : ""}${b.has_condition ? " maybe" : ""}`} data-step={b.kind}>
        <title>{b.full}</title>
        <rect class="frame" x={b.x} y={b.y} width={b.width} height={b.height} rx="6" />
        <rect class="mark" x={b.x + 9} y={b.y + (b.is_group ? 9 : 11)} width="8" height="8" rx="2" />
        <text class="t" x={b.x + 24} y={b.y + (b.is_group ? 17 : 19)}>{b.title}</text>
        {!b.is_group && <text class="s" x={b.x + 24} y={b.y + 35}>{b.text}</text>}
      </g>
    );
    const key = `${b.title} ${b.x} ${b.y}`;
    return b.href ? <a key={key} href={b.href} onClick={(e) => { e.preventDefault(); onOpen(b.href); }}>{inner}</a> : <g key={key}>{inner}</g>;
  };
  return (
    <div class="app-graph" role="region" tabIndex={0} aria-label={label}>
      <svg viewBox={`0 0 ${drawing.width} ${drawing.height}`} width={drawing.width} height={drawing.height} role="group" aria-label={label}>
        {groups.map(box)}
        {drawing.lines.map((line) => <g key={line.path}><path class="edge" d={line.path} /><path class="tip" d={line.arrow} /></g>)}
        {plain.map(box)}
      </svg>
    </div>
  );
}

export function Section({ title, count, children, id }: { title: string; count?: number; children: ComponentChildren; id?: string }) {
  return <section class="panel" {...(id ? { id } : {})}><header><h2>{title}</h2>{count !== undefined && <span class="faint">{count}</span>}</header><div class="body stack-s">{children}</div></section>;
}
