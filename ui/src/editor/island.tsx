// The editor of a prompt: a draft of the next version. Everything typed is rendered by the server with sample
// inputs, so what is shown is what a call would send. Nothing is saved before "save".

import { batch, effect, signal, type Signal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../core/api.js";
import { int } from "../core/format.js";
import { onKey } from "../core/keys.js";
import { page, words, type Words } from "../core/page.js";
import { findAlike, openWith, renderDraft, requestMove, saveVersion, type AlikeAnswer, type Problem, type Rendered } from "../prompts/api.js";
import {
  ROLES, copyOf, isPlaceholder, placeOf, rowsOf, samplesOf, schemaOf, tidy, valuesOf, withType,
  type Json, type JsonObject, type Message, type PromptDocument,
} from "../prompts/document.js";
import { Field, type Mark } from "../prompts/field.js";
import { Fold, Icon, IconButton, JsonArea, type Model } from "../prompts/parts.js";
import { InputTable } from "./inputs.js";

interface Props {
  name: string;
  is_new: boolean;
  base: number | null;
  document: PromptDocument;
  tags: string[];
  models: Model[];
  prompts: string[];
  labels: string[];
  i18n: Words;
}

interface Item { id: number; message: Message }
let nextId = 1;

function createState(props: Props) {
  const document = copyOf(props.document);
  return {
    t: words(props.i18n), props,
    name: signal(props.name),
    doc: signal<PromptDocument>(document),
    items: signal<Item[]>((document.messages ?? []).map((message) => ({ id: nextId++, message }))),
    samples: signal<Record<string, string>>(samplesOf(document.inputs)),
    rendered: signal<Rendered | null>(null),
    failed: signal(""),
    busy: signal(false),
    saving: signal(false),
    changed: signal(false),
  };
}
export type State = ReturnType<typeof createState>;

export function mount(el: HTMLElement, props: Props): () => void {
  el.replaceChildren();
  const stops: (() => void)[] = [];
  render(<Editor props={props} onUnmount={(stop) => stops.push(stop)} />, el);
  return () => { for (const stop of stops) stop(); render(null, el); };
}

/** The document as it would be saved at this moment. */
export const current = (s: State): PromptDocument => tidy({ ...s.doc.value, messages: s.items.value.map((i) => i.message) });

export function edit(s: State, change: Partial<PromptDocument>): void {
  s.changed.value = true;
  s.doc.value = { ...s.doc.value, ...change };
}

function editItems(s: State, items: Item[]): void {
  s.changed.value = true;
  s.items.value = items;
}

/** Renders a moment after the last change; an answer that was overtaken is dropped. */
function follow(s: State): () => void {
  let timer = 0;
  let abort: AbortController | null = null;
  const stop = effect(() => {
    const content = current(s);
    const inputs = valuesOf(s.samples.value, content.inputs);
    clearTimeout(timer);
    timer = window.setTimeout(() => void look(content, inputs), s.rendered.peek() ? 250 : 0);
  });
  const look = async (content: PromptDocument, inputs: JsonObject) => {
    abort?.abort();
    const mine = (abort = new AbortController());
    s.busy.value = true;
    try {
      const answer = await renderDraft(content, inputs, content.model ?? s.props.models[0]?.id ?? "", mine.signal);
      batch(() => { s.rendered.value = answer; s.failed.value = ""; });
    } catch (e) {
      if (!mine.signal.aborted) s.failed.value = e instanceof TypeError ? s.t("editor-network") : (e as Error).message;
    } finally {
      if (abort === mine) s.busy.value = false;
    }
  };
  return () => { stop(); clearTimeout(timer); abort?.abort(); };
}

function Editor({ props, onUnmount }: { props: Props; onUnmount: (stop: () => void) => void }) {
  const ref = useRef<State | null>(null);
  const s = (ref.current ??= createState(props));
  const root = useRef<HTMLDivElement>(null);
  const { t } = s;
  useEffect(() => {
    onUnmount(follow(s));
    onUnmount(onKey(root.current!, (key) => {
      if (key.mod && (key.name === "s" || key.name === "Enter") && !s.saving.value) { s.saving.value = true; return true; }
      return false;
    }));
    const leave = (e: BeforeUnloadEvent) => { if (s.changed.value) e.preventDefault(); };
    window.addEventListener("beforeunload", leave);
    onUnmount(() => window.removeEventListener("beforeunload", leave));
  }, []);
  const doc = s.doc.value;
  const compare = () => {
    s.changed.value = false;
    openWith(`${page.root}/compare`, { drafts: JSON.stringify([{ title: t("editor-draft"), name: s.name.value, document: current(s) }]), rows: JSON.stringify([{ inputs: valuesOf(s.samples.value, doc.inputs) }]), against: props.is_new ? "" : `${props.name}@v${props.base}` });
  };
  return (
    <div class="ed" ref={root}>
      <div class="ed-main stack">
        <div class="bar-form ed-top">
          {props.is_new && <div class="field wide"><label for="ed-name">{t("editor-name")}</label><input class="input mono" id="ed-name" value={s.name.value} placeholder="support/answer" autocomplete="off" spellcheck={false} onInput={(e) => { s.name.value = e.currentTarget.value; s.changed.value = true; }} /></div>}
          <div class="field wide"><label for="ed-about">{t("editor-description")}</label><input class="input" id="ed-about" value={doc.description ?? ""} onInput={(e) => edit(s, { description: e.currentTarget.value })} /></div>
          <div class="field"><label for="ed-type">{t("editor-type")}</label><select class="select" id="ed-type" value={doc.type ?? "chat"} onChange={(e) => switchType(s, e.currentTarget.value as "chat" | "text")}><option value="chat">{t("editor-type-chat")}</option><option value="text">{t("editor-type-text")}</option></select></div>
          <div class="field"><label for="ed-dialect">{t("editor-dialect")}</label><select class="select" id="ed-dialect" value={doc.dialect ?? "jinja"} onChange={(e) => edit(s, { dialect: e.currentTarget.value as "jinja" | "simple" })}><option value="jinja">Jinja</option><option value="simple">{"{{ }}"}</option></select></div>
        </div>
        {doc.type === "text" ? <TextTemplate s={s} /> : <Messages s={s} />}
        <Undeclared s={s} />
        <Fold title={t("editor-inputs")} count={rowsOf(doc.inputs).length ? int(rowsOf(doc.inputs).length) : ""} open={rowsOf(doc.inputs).length > 0}>
          <InputTable id="ed-inputs" t={t} schema={doc.inputs} about={t("editor-inputs-text")} problems={(s.rendered.value?.problems ?? []).filter((p) => p.path.startsWith("/inputs"))} onChange={(inputs) => edit(s, { inputs })} />
        </Fold>
        <ExampleList s={s} />
        <Partials s={s} />
        <Calling s={s} />
        <Fold title={t("editor-output")} count={doc.response_format !== undefined || doc.tools?.length ? "●" : ""}>
          <JsonArea id="ed-format" label={t("editor-response")} hint={t("editor-response-hint")} value={doc.response_format} bad={t("editor-bad-json")} onChange={(v) => edit(s, { response_format: v as Json })} rows={8} />
          {doc.response_format === undefined && <div><button class="btn small" type="button" onClick={() => edit(s, { response_format: schemaStart() })}>{t("editor-response-start")}</button></div>}
          <JsonArea id="ed-tools" label={t("editor-tools")} hint={t("editor-tools-hint")} value={doc.tools?.length ? doc.tools : undefined} bad={t("editor-bad-json")} onChange={(v) => edit(s, { tools: (v ?? []) as Json[] })} rows={6} />
        </Fold>
      </div>
      <Side s={s} />
      <div class="ed-foot">
        <span class="muted small">{props.is_new ? t("editor-foot-new") : t("editor-foot", { version: props.base ?? 0 })}</span>
        <span class="end row">
          <button class="btn" type="button" onClick={compare}>{t("editor-compare")}</button>
          <button class="btn primary" type="button" onClick={() => { s.saving.value = true; }}>{t("editor-save")}</button>
        </span>
      </div>
      {s.saving.value && <SaveDialog s={s} />}
    </div>
  );
}

const schemaStart = (): Json => ({ type: "json_schema", json_schema: { name: "answer", strict: true, schema: { type: "object", additionalProperties: false, required: ["answer"], properties: { answer: { type: "string" } } } } });

function switchType(s: State, type: "chat" | "text"): void {
  const next = withType({ ...s.doc.value, messages: s.items.value.map((i) => i.message) }, type);
  batch(() => {
    s.items.value = (next.messages ?? []).map((message) => ({ id: nextId++, message }));
    edit(s, { type, template: next.template ?? "" });
  });
}

/** What completion offers: inputs, partials, and the names that loops make. */
function names(s: State): { name: string; detail: string }[] {
  const inputs = rowsOf(s.doc.value.inputs).map((r) => ({ name: r.name, detail: r.type || s.t("editor-input") }));
  const partials = Object.entries(s.doc.value.partials ?? {}).map(([name, reference]) => ({ name: `partials.${name}`, detail: reference }));
  return [...inputs, ...partials, { name: "loop.index", detail: "" }];
}

const problemsAt = (s: State, path: string): Mark[] => (s.rendered.value?.problems ?? []).filter((p) => p.path === path || p.path.startsWith(`${path}/`));

function TextTemplate({ s }: { s: State }) {
  return (
    <section class="panel ed-message">
      <header><h2>{s.t("editor-type-text")}</h2></header>
      <Field value={s.doc.value.template ?? ""} label={s.t("editor-type-text")} hint={s.t("editor-write")} simple={s.doc.value.dialect === "simple"} names={() => names(s)} problems={problemsAt(s, "/template")} onChange={(template) => edit(s, { template })} />
    </section>
  );
}

function Messages({ s }: { s: State }) {
  const { t } = s;
  const items = s.items.value;
  const add = (message: Message) => editItems(s, [...items, { id: nextId++, message }]);
  const swap = (a: number, b: number) => {
    const next = [...items];
    [next[a], next[b]] = [next[b]!, next[a]!];
    editItems(s, next);
  };
  const set = (at: number, message: Message) => editItems(s, items.map((item, i) => (i === at ? { ...item, message } : item)));
  return (
    <div class="stack-s">
      {items.map(({ id, message }, at) => {
        const title = t("editor-message", { n: at + 1 });
        const problems = problemsAt(s, `/messages/${at}`);
        return (
          <section class="panel ed-message" key={id} aria-label={title}>
            <header>
              {isPlaceholder(message)
                ? <><span class="badge accent">{t("editor-placeholder")}</span><input class="input quiet auto mono" aria-label={t("editor-placeholder-name")} value={message.placeholder} spellcheck={false} onInput={(e) => set(at, { placeholder: e.currentTarget.value })} /></>
                : <select class="select quiet auto" aria-label={t("editor-role")} value={message.role} onChange={(e) => set(at, { ...message, role: e.currentTarget.value })}>{ROLES.map((role) => <option key={role} value={role}>{t(`editor-role-${role}`)}</option>)}</select>}
              <span class="end row tight">
                <IconButton name="up" label={t("editor-up")} disabled={at === 0} onClick={() => swap(at, at - 1)} />
                <IconButton name="down" label={t("editor-down")} disabled={at === items.length - 1} onClick={() => swap(at, at + 1)} />
                <IconButton name="close" label={t("editor-remove")} onClick={() => editItems(s, items.filter((_, i) => i !== at))} />
              </span>
            </header>
            {isPlaceholder(message)
              ? <p class="muted small ed-note">{t(message.placeholder === "messages" ? "editor-placeholder-messages" : message.placeholder === "examples" ? "editor-placeholder-examples" : "editor-placeholder-text")}</p>
              : <Field value={message.content} label={title} hint={t("editor-write")} simple={s.doc.value.dialect === "simple"} names={() => names(s)} problems={problems} onChange={(content) => set(at, { ...message, content })} />}
            <Problems problems={problems} />
          </section>
        );
      })}
      <div class="row">
        <button class="btn small" type="button" onClick={() => add({ role: items.length ? "user" : "system", content: "" })}><Icon name="plus" />{t("editor-add-message")}</button>
        <button class="btn small" type="button" onClick={() => add({ placeholder: "messages" })}><Icon name="plus" />{t("editor-add-placeholder")}</button>
      </div>
    </div>
  );
}

function Problems({ problems }: { problems: Mark[] }) {
  if (!problems.length) return null;
  return <ul class="ed-problems">{problems.map((p) => <li key={p.message} class="t-err small"><Icon name="err" />{p.message}</li>)}</ul>;
}

/** Names that the templates use and nobody declared: one click declares them. */
function Undeclared({ s }: { s: State }) {
  const declared = new Set(rowsOf(s.doc.value.inputs).map((r) => r.name));
  const missing = [...new Set((s.rendered.value?.variables ?? []).map((v) => v.name.split(".")[0]!))].filter((name) => !declared.has(name) && name !== "partials" && name !== "examples");
  if (!missing.length) return null;
  const declare = () => {
    const rows = [...rowsOf(s.doc.value.inputs), ...missing.map((name) => ({ name, type: "string", required: true, initial: "", example: s.samples.value[name] ?? "", description: "", rest: {} }))];
    edit(s, { inputs: schemaOf(rows, s.doc.value.inputs) ?? {} });
  };
  return <div class="note info"><div class="row">{s.t("editor-undeclared", { names: missing.join(", ") })}<button class="btn small" type="button" onClick={declare}>{s.t("editor-declare")}</button></div></div>;
}

function ExampleList({ s }: { s: State }) {
  const { t } = s;
  const examples = s.doc.value.examples ?? { items: [] };
  const items = examples.items ?? [];
  const inputs = rowsOf(s.doc.value.inputs);
  const set = (next: typeof items) => edit(s, { examples: { ...examples, items: next } });
  const select = examples.select;
  return (
    <Fold title={t("editor-examples")} count={items.length ? int(items.length) : ""}>
      <p class="muted small">{t("editor-examples-text")}</p>
      {items.map((example, at) => (
        <div class="ed-example" key={at}>
          <JsonArea id={`ed-ex-${at}`} label={t("editor-example-inputs", { n: at + 1 })} value={example.inputs} bad={t("editor-bad-json")} rows={3} onChange={(v) => set(items.map((x, i) => (i === at ? { ...x, inputs: (v ?? {}) as JsonObject } : x)))} />
          <div class="field"><label for={`ed-ex-out-${at}`}>{t("editor-example-output")}</label><textarea class="area" id={`ed-ex-out-${at}`} rows={3} value={typeof example.output === "string" ? example.output : JSON.stringify(example.output)} onInput={(e) => { const { value } = e.currentTarget; set(items.map((x, i) => (i === at ? { ...x, output: value } : x))); }} /></div>
          <IconButton name="close" label={t("editor-remove")} onClick={() => set(items.filter((_, i) => i !== at))} />
        </div>
      ))}
      <div class="bar-form">
        <button class="btn small" type="button" onClick={() => set([...items, { inputs: Object.fromEntries(inputs.filter((r) => r.required || !r.initial).map((r) => [r.name, ""])), output: "" }])}><Icon name="plus" />{t("editor-add-example")}</button>
        {items.length > 1 && <div class="field end"><label for="ed-select">{t("editor-select")}</label><select class="select" id="ed-select" value={select ? String(select.k) : ""} onChange={(e) => { const k = Number(e.currentTarget.value); const { select: _old, ...rest } = examples; edit(s, { examples: k ? { ...rest, select: { ...select, k, by: "similarity" } } : rest }); }}>
          <option value="">{t("editor-select-all")}</option>
          {items.slice(0, -1).map((_, i) => <option key={i} value={String(i + 1)}>{t("editor-select-k", { k: i + 1 })}</option>)}
        </select></div>}
      </div>
    </Fold>
  );
}

function Partials({ s }: { s: State }) {
  const { t, props } = s;
  const entries = Object.entries(s.doc.value.partials ?? {});
  const [draft, setDraft] = useState({ name: "", reference: "" });
  const add = () => {
    const reference = draft.reference.includes(":") ? draft.reference : `prompt:${draft.reference}`;
    if (!draft.name || !draft.reference) return;
    edit(s, { partials: { ...s.doc.value.partials, [draft.name]: reference } });
    setDraft({ name: "", reference: "" });
  };
  return (
    <Fold title={t("editor-partials")} count={entries.length ? int(entries.length) : ""}>
      <p class="muted small">{t("editor-partials-text")}</p>
      {entries.map(([name, reference]) => (
        <div class="row" key={name}><code>{`{{ partials.${name} }}`}</code><span class="muted">=</span><code class="clip">{reference}</code><span class="end"><IconButton name="close" label={t("editor-remove")} onClick={() => { const { [name]: _gone, ...rest } = s.doc.value.partials ?? {}; edit(s, { partials: rest }); }} /></span></div>
      ))}
      <Problems problems={problemsAt(s, "/partials")} />
      <div class="bar-form">
        <div class="field"><label for="ed-partial-name">{t("editor-partial-name")}</label><input class="input mono" id="ed-partial-name" value={draft.name} placeholder="tone" onInput={(e) => setDraft({ ...draft, name: e.currentTarget.value })} /></div>
        <div class="field wide"><label for="ed-partial-ref">{t("editor-partial-ref")}</label><input class="input mono" id="ed-partial-ref" list="ed-prompts" value={draft.reference} placeholder="prompt:shared/tone@production" onInput={(e) => setDraft({ ...draft, reference: e.currentTarget.value })} /><datalist id="ed-prompts">{props.prompts.map((p) => <option key={p} value={`prompt:${p}@production`} />)}</datalist></div>
        <button class="btn" type="button" onClick={add}><Icon name="plus" />{t("editor-add")}</button>
      </div>
    </Fold>
  );
}

function Calling({ s }: { s: State }) {
  const { t, props } = s;
  const doc = s.doc.value;
  const parameters = doc.parameters ?? {};
  const number = (name: string, step: string) => (
    <div class="field"><label for={`ed-${name}`}>{t(`editor-${name}`)}</label><input class="input num" id={`ed-${name}`} type="number" step={step} value={typeof parameters[name] === "number" ? String(parameters[name]) : ""} placeholder={t("editor-default")} onInput={(e) => { const text = e.currentTarget.value; const { [name]: _old, ...rest } = parameters; edit(s, { parameters: text === "" || Number.isNaN(Number(text)) ? rest : { ...rest, [name]: Number(text) } }); }} /></div>
  );
  return (
    <Fold title={t("editor-calling")} count={doc.model ?? ""}>
      <div class="bar-form">
        <div class="field wide"><label for="ed-model">{t("editor-model")}</label><input class="input mono" id="ed-model" list="ed-models" value={doc.model ?? ""} placeholder={t("editor-model-caller")} onInput={(e) => edit(s, { model: e.currentTarget.value })} /><datalist id="ed-models">{props.models.map((m) => <option key={m.id} value={m.id} />)}</datalist></div>
        {number("temperature", "0.05")}{number("top_p", "0.01")}{number("max_tokens", "1")}
      </div>
      <JsonArea id="ed-parameters" label={t("editor-parameters")} hint={t("editor-parameters-hint")} value={Object.keys(parameters).length ? parameters : undefined} bad={t("editor-bad-json")} rows={4} onChange={(v) => edit(s, { parameters: (v ?? {}) as JsonObject })} />
      <JsonArea id="ed-config" label={t("editor-config")} hint={t("editor-config-hint")} value={doc["config"]} bad={t("editor-bad-json")} rows={3} onChange={(v) => edit(s, { config: v })} />
    </Fold>
  );
}

function Side({ s }: { s: State }) {
  const { t } = s;
  const answer = s.rendered.value;
  const rows = rowsOf(s.doc.value.inputs);
  const declared = new Set(rows.map((r) => r.name));
  const more = [...new Set((answer?.variables ?? []).map((v) => v.name.split(".")[0]!))].filter((n) => !declared.has(n));
  const fields = [...rows, ...more.map((name) => ({ name, type: "string", initial: "", description: "", required: true, example: "", rest: {} }))];
  const elsewhere = (answer?.problems ?? []).filter((p) => !shownAtPart(p));
  return (
    <aside class="ed-side stack" aria-label={t("editor-preview")}>
      <section class="panel"><header><h2>{t("editor-samples")}</h2></header><div class="body stack-s">
        {fields.length === 0 && <p class="muted small">{t("editor-no-inputs")}</p>}
        {fields.map((row) => {
          const wrong = (answer?.problems ?? []).filter((p) => p.path === `variables.${row.name}`);
          return <div class="field" key={row.name}><label for={`ed-s-${row.name}`}><code>{row.name}</code>{row.required && <span class="muted"> *</span>}{row.type && row.type !== "string" && <span class="muted small"> {row.type}</span>}</label>
            <textarea class="area ed-sample" id={`ed-s-${row.name}`} rows={1} spellcheck={false} value={s.samples.value[row.name] ?? ""} placeholder={row.initial || row.description} {...(wrong.length ? { "aria-invalid": "true" as const } : {})} onInput={(e) => { s.samples.value = { ...s.samples.value, [row.name]: e.currentTarget.value }; }} />
            {wrong.map((p) => <p class="error" key={p.message}><Icon name="err" />{p.message}</p>)}</div>;
        })}
      </div></section>
      <section class="panel" aria-live="off">
        <header><h2>{t("editor-preview")}</h2>{answer?.tokens && <span class="end muted small">{t(answer.tokens.method === "model" ? "editor-tokens" : "editor-tokens-about", { n: int(answer.tokens.count), model: answer.tokens.model ?? "" })}</span>}</header>
        <div class="body stack-s" data-state={s.busy.value ? "busy" : "ready"}>
          {s.failed.value && <div class="note err" role="alert"><div>{s.failed.value}</div></div>}
          {elsewhere.map((p) => <div class="note err" key={p.path + p.message}><Icon name="err" /><div>{p.path && <code>{p.path}</code>} {p.message}</div></div>)}
          {answer?.messages.map((m, i) => <article class="msg" data-role={m.role} key={i}><header><h3>{m.role}</h3></header><div class="part"><pre class="text">{m.content}</pre></div></article>)}
          {answer && !answer.messages.length && !answer.problems.length && <p class="muted small">{t("editor-nothing")}</p>}
        </div>
      </section>
    </aside>
  );
}

/** Whether a problem is shown beside the part that it is about. */
function shownAtPart(p: Problem): boolean {
  if (p.path.startsWith("variables.")) return true;
  return placeOf(p.path).part === "messages" && placeOf(p.path).index !== null || p.path === "/template" || p.path.startsWith("/partials");
}

function SaveDialog({ s }: { s: State }) {
  const { t, props } = s;
  const dialog = useRef<HTMLDialogElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const error = useRef<Signal<string>>(signal("")).current;
  const alike = useRef<Signal<AlikeAnswer | null>>(signal(null)).current;
  const working = useRef<Signal<boolean>>(signal(false)).current;
  useEffect(() => {
    dialog.current?.showModal();
    findAlike(current(s), s.name.value).then((found) => { alike.value = found; }, () => undefined);
  }, []);
  const same = alike.value?.identical.find((x) => x.name === s.name.value);
  const submit = async (e: Event) => {
    e.preventDefault();
    const data = new FormData(form.current!);
    const [message, label] = ["message", "label"].map((key) => String(data.get(key) ?? "").trim()) as [string, string];
    const name = props.is_new ? String(data.get("name") ?? "").trim() : props.name;
    working.value = true;
    try {
      const saved = await saveVersion(name, current(s), message);
      if (label) await requestMove(saved.name, label, saved.version, message);
      s.changed.value = false;
      location.assign(`${page.root}/prompts/show?name=${encodeURIComponent(saved.name)}&version=${saved.version}`);
    } catch (problem) {
      working.value = false;
      error.value = problem instanceof ApiError ? problem.message : t("editor-network");
    }
  };
  const diff = (name: string, version: number) => `${page.root}/prompts/show?name=${encodeURIComponent(name)}&version=${version}`;
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="ed-save-title" onClose={() => { s.saving.value = false; }}>
      <form ref={form} onSubmit={(e) => void submit(e)}>
        <h2 id="ed-save-title">{t("editor-save")}</h2>
        {error.value && <div class="note err" role="alert"><div>{error}</div></div>}
        {same && <div class="note info"><div>{t("editor-identical", { version: same.version })}</div></div>}
        {!same && alike.value?.identical.map((x) => <div class="note info" key={x.name}><div>{t("editor-identical-other", { name: x.name, version: x.version })} <a class="link" href={diff(x.name, x.version)} target="_blank">{t("editor-look")}</a></div></div>)}
        {!same && alike.value?.similar.slice(0, 3).map((x) => <div class="note warn" key={x.name + x.version}><div>{t("editor-similar", { name: x.name, version: x.version, percent: Math.floor(x.similarity * 100) })} <a class="link" href={diff(x.name, x.version)} target="_blank">{t("editor-look")}</a></div></div>)}
        {props.is_new && <div class="field"><label for="ed-save-name">{t("editor-name")}</label><input class="input mono" id="ed-save-name" name="name" required value={s.name.value} autocomplete="off" placeholder="support/answer" onInput={(e) => { s.name.value = e.currentTarget.value; }} /><p class="hint">{t("editor-name-hint")}</p></div>}
        <div class="field"><label for="ed-save-message">{t("editor-message-label")}</label><input class="input" id="ed-save-message" name="message" autocomplete="off" /></div>
        <div class="field"><label for="ed-save-label">{t("editor-label")}</label><select class="select" id="ed-save-label" name="label"><option value="">{t("editor-label-none")}</option>{props.labels.map((l) => <option key={l} value={l}>{l}</option>)}</select></div>
        <footer><button class="btn" type="button" onClick={() => dialog.current?.close()}>{t("editor-cancel")}</button><button class="btn primary" disabled={working.value}>{t("editor-save-submit")}</button></footer>
      </form>
    </dialog>
  );
}
