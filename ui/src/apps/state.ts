// What the parts of the app editor share. The model is changed in place and `touched` counts up: a step keeps its
// identity, and so its place on the screen, however it is moved.

import { batch, signal } from "@preact/signals";
import { words, type Words } from "../core/page.js";
import { rowsOf, samplesOf, type JsonObject } from "../prompts/document.js";
import type { Model } from "../prompts/parts.js";
import type { Drawing, Problem, StepSpan } from "./api.js";
import { print, read } from "./model.js";

export interface Props {
  name: string;
  base: number | null;
  document: string;
  message: string;
  untouched: boolean;
  prompts: string[];
  /** The project's policies; what each watches without being named, here or only in the app of that name. */
  guards: { name: string; labels: string[]; anyway: { text: string; app: string | null }[] }[];
  models: Model[];
  i18n: Words;
}

/** One trial: the answer as it comes, and the steps that ended. */
export interface Run { state: "running" | "done" | "failed" | "stopped"; text: string; error: string; trace: string | null; steps: StepSpan[]; ms: number | null; abort: AbortController }

export function createState(props: Props) {
  const begun = readable(props.document);
  const model = read(begun ?? {});
  return {
    t: words(props.i18n), props,
    name: signal(props.name), message: signal(props.message),
    model: { current: model },
    touched: signal(0),
    /** The document as text: what is checked, drawn, tried and saved. */
    text: signal(begun === null ? props.document : print(model)),
    /** Why the text is no JSON; the form rests until it is. */
    unreadable: signal(begun === null),
    tab: signal<"form" | "json">(begun === null ? "json" : "form"),
    problems: signal<Problem[]>([]),
    graph: signal<Drawing | null>(null),
    checking: signal(true),
    failed: signal(""),
    samples: signal<Record<string, string>>({ question: "", ...samplesOf(model.inputs) }),
    run: signal<Run | null>(null),
    saving: signal(false),
    refused: signal(""),
    changed: signal(!props.untouched),
    /** What is known of prompts of the catalog: labels by name, inputs by reference. */
    labels: signal<Record<string, string[]>>({}),
    reads: signal<Record<string, string[]>>({}),
  };
}
export type State = ReturnType<typeof createState>;

export function readable(text: string): JsonObject | null {
  try {
    const value = JSON.parse(text) as unknown;
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value as JsonObject : null;
  } catch { return null; }
}

/** Changes the model by hand of the form. */
export function change(s: State, how: () => void): void {
  how();
  batch(() => {
    s.changed.value = true;
    s.touched.value++;
    s.text.value = print(s.model.current);
    fillSamples(s);
  });
}

/** Takes over what was typed as JSON, as soon as it reads. */
export function takeText(s: State, text: string): void {
  const found = readable(text);
  batch(() => {
    s.changed.value = true;
    s.text.value = text;
    s.unreadable.value = found === null;
    if (found === null) return;
    s.model.current = read(found);
    s.touched.value++;
    fillSamples(s);
  });
}

/** The inputs that a trial asks for: those declared, else the one question. */
export const inputRows = (s: State) => {
  const rows = rowsOf(s.model.current.inputs);
  return rows.length ? rows : rowsOf({ type: "object", required: ["question"], properties: { question: { type: "string" } } });
};

/** New inputs begin with their samples; what was typed stays. */
function fillSamples(s: State): void {
  const more = Object.entries(samplesOf(s.model.current.inputs)).filter(([name]) => !(name in s.samples.value));
  if (more.length) s.samples.value = { ...s.samples.value, ...Object.fromEntries(more) };
}

/** The problems of a field: those of its place and, for a field that is shown as one, below it. */
export const problemsAt = (s: State, path: string, below = true): Problem[] =>
  s.problems.value.filter((p) => p.path === path || (below && p.path.startsWith(`${path}/`)));

/** A part of a JSON Pointer. */
export const token = (name: string): string => name.replaceAll("~", "~0").replaceAll("/", "~1");
