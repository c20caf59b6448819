// Drafts and versions beside each other: every column (a draft or version, with a model) against every row of
// inputs. Drafts run as they are, without being saved. Answers stream in, a few at a time.

import { batch, computed, effect, signal, type Signal } from "@preact/signals";
import { render, type ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, json } from "../core/api.js";
import { toast } from "../core/dom.js";
import { int, ms, usd } from "../core/format.js";
import { onKey } from "../core/keys.js";
import { page, words, type Words } from "../core/page.js";
import { generate, openWith, promptPath, saveVersion, score, stream } from "../prompts/api.js";
import { cellText, copyOf, isPlaceholder, loopNamesIn, namesIn, rowsOf, samplesOf, texts, tidy, valuesOf, type Json, type JsonObject, type PromptDocument } from "../prompts/document.js";
import { Icon, IconButton, ModelOptions, type Model } from "../prompts/parts.js";
import { MOST_ROWS, parseRows, pool, type RowData } from "./rows.js";

/** How many answers are asked for at once: a local model answers one after the other anyway. */
const AT_ONCE = 4;

interface Given { title: string; name: string; version: number | null; document: PromptDocument }
interface Props {
  given: Given[];
  models: Model[];
  chosen: string[];
  rows: RowData[];
  prompts: string[];
  can_save: boolean;
  generate: boolean;
  i18n: Words;
}

/** A draft or a saved version. Editing a version makes it a draft. */
interface Subject { id: number; title: Signal<string>; name: string; version: number | null; saved: PromptDocument | null; document: Signal<PromptDocument>; open: Signal<boolean> }
interface Row { id: number; texts: Signal<Record<string, string>>; message: Signal<string> }
interface Cell {
  state: Signal<"idle" | "queued" | "waiting" | "streaming" | "done" | "stopped" | "failed">;
  text: Signal<string>; error: Signal<string>; trace: Signal<string | null>;
  input: Signal<number | null>; output: Signal<number | null>; total_ms: Signal<number | null>; cost_usd: Signal<number | null>; thumbs: Signal<number>;
}
interface Column { key: string; subject: Subject; model: string }

let nextId = 1;
const cell = (): Cell => ({ state: signal("idle"), text: signal(""), error: signal(""), trace: signal(null), input: signal(null), output: signal(null), total_ms: signal(null), cost_usd: signal(null), thumbs: signal(0) });
const subject = (given: Given): Subject => ({
  id: nextId++, title: signal(given.title), name: given.name, version: given.version, open: signal(false),
  saved: given.version === null ? null : given.document, document: signal(copyOf(given.document)),
});
const row = (data: RowData): Row => ({ id: nextId++, texts: signal(Object.fromEntries(Object.entries(data.inputs).map(([k, v]) => [k, cellText(v as Json)]))), message: signal(data.message) });

function createState(props: Props) {
  const subjects = signal(props.given.map(subject));
  // Without any model there is still the one that a draft names itself.
  const models = signal(props.chosen.length ? props.chosen : [props.models[0]?.id ?? ""]);
  // What any column takes, with the samples of the first one that has them.
  const samples = Object.assign({}, ...props.given.map((g) => valuesOf(samplesOf(g.document.inputs), g.document.inputs)).reverse()) as JsonObject;
  const rows = signal((props.rows.length ? props.rows : [{ inputs: samples, message: "" }]).map(row));
  const columns = computed<Column[]>(() => subjects.value.flatMap((s) => models.value.map((model) => ({ key: `${s.id} ${model}`, subject: s, model }))));
  const inputs = computed(() => [...new Set(subjects.value.flatMap((s) => inputsOf(s.document.value)))]);
  return {
    t: words(props.i18n), props, subjects, models, rows, columns, inputs,
    cells: new Map<string, Cell>(),
    running: signal<AbortController | null>(null),
    dialog: signal<"" | "add" | "rows" | "generate" | "save">(props.generate ? "generate" : ""),
    saving: signal<Subject | null>(null),
    announce: signal(""),
  };
}
type State = ReturnType<typeof createState>;

/** What a document takes: what it declares, and what its texts read besides. */
function inputsOf(document: PromptDocument): string[] {
  const read = texts(document).flatMap((text) => namesIn(text).filter((name) => !loopNamesIn(text).includes(name)));
  return [...rowsOf(document.inputs).map((r) => r.name), ...read].filter((name) => !["partials", "examples", "loop"].includes(name));
}

const cellOf = (s: State, column: Column, r: Row): Cell => {
  const key = `${column.key} ${r.id}`;
  const found = s.cells.get(key) ?? cell();
  s.cells.set(key, found);
  return found;
};

export function mount(el: HTMLElement, props: Props): () => void {
  el.replaceChildren();
  const stops: (() => void)[] = [];
  render(<Compare props={props} onUnmount={(stop) => stops.push(stop)} />, el);
  return () => { for (const stop of stops) stop(); render(null, el); };
}

const session = "compare-" + [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
const isSaved = (x: Subject): boolean => x.saved !== null && JSON.stringify(tidy(x.document.value)) === JSON.stringify(tidy(x.saved));

/** A saved version travels by name, so that its trace links to it; a draft travels as it stands. */
function callOf(column: Column, r: Row): { path: string; body: unknown } {
  const { subject: x, model } = column;
  const variables = valuesOf(r.texts.value, x.document.value.inputs);
  const messages = r.message.value.trim() ? [{ role: "user", content: r.message.value }] : [];
  const common = { ...(model ? { model } : {}), stream: true, stream_options: { include_usage: true } };
  const meguri = { session, tags: ["compare"] };
  if (isSaved(x)) return { path: "/v1/chat/completions", body: { ...common, messages, meguri: { ...meguri, prompt: `${x.name}@v${x.version}`, variables } } };
  return { path: "/api/v1/prompts/try", body: { ...common, content: tidy(x.document.value), variables, messages, ...meguri } };
}

async function runCell(s: State, column: Column, r: Row, abort: AbortController): Promise<void> {
  const c = cellOf(s, column, r);
  if (abort.signal.aborted) return;
  const began = performance.now();
  let pending = "";
  let frame = 0;
  const flush = () => { frame = 0; const piece = pending; pending = ""; batch(() => { c.text.value += piece; c.state.value = "streaming"; }); };
  c.state.value = "waiting";
  try {
    const { path, body } = callOf(column, r);
    const end = await stream(path, body, abort.signal, {
      trace: (id) => { c.trace.value = id; },
      text: (piece) => { pending += piece; frame ||= requestAnimationFrame(flush); },
    });
    batch(() => { c.input.value = end.input; c.output.value = end.output; });
    cancelAnimationFrame(frame);
    if (pending) flush();
    c.state.value = "done";
  } catch (e) {
    cancelAnimationFrame(frame);
    if (pending) flush();
    if (abort.signal.aborted) c.state.value = "stopped";
    else batch(() => { c.state.value = "failed"; c.error.value = e instanceof TypeError ? s.t("compare-network") : (e as Error).message; if (e instanceof ApiError && e.traceId) c.trace.value = e.traceId; });
  }
  c.total_ms.value = performance.now() - began;
  if (c.state.value === "done" && c.trace.value) void priced(c);
}

/** The price is known to the server only: it is read from the trace, which is there within a second. */
async function priced(c: Cell): Promise<void> {
  for (let tries = 0; tries < 4; tries++) {
    await new Promise((done) => setTimeout(done, 400 * (tries + 1)));
    try {
      const trace = await json<{ cost_nanousd?: number | null }>(`/api/v1/traces/${c.trace.value}`);
      if (typeof trace.cost_nanousd === "number") c.cost_usd.value = trace.cost_nanousd / 1e9;
      return;
    } catch { /* Not yet written; the next look is a little later. */ }
  }
}

async function runAll(s: State, only?: { column?: Column; row?: Row }): Promise<void> {
  if (s.running.value) return;
  const abort = new AbortController();
  const jobs: { column: Column; r: Row }[] = [];
  for (const r of s.rows.value) for (const column of s.columns.value) {
    if ((only?.column && only.column.key !== column.key) || (only?.row && only.row !== r)) continue;
    jobs.push({ column, r });
  }
  batch(() => {
    s.running.value = abort;
    for (const { column, r } of jobs) {
      const c = cellOf(s, column, r);
      c.state.value = "queued"; c.text.value = ""; c.error.value = ""; c.trace.value = null; c.thumbs.value = 0;
      c.input.value = c.output.value = c.total_ms.value = c.cost_usd.value = null;
    }
  });
  await pool(jobs.map(({ column, r }) => () => runCell(s, column, r, abort)), AT_ONCE, abort.signal);
  batch(() => {
    for (const { column, r } of jobs) { const c = cellOf(s, column, r); if (c.state.value === "queued") c.state.value = "stopped"; }
    s.running.value = null;
    s.announce.value = s.t(abort.signal.aborted ? "compare-stopped" : "compare-done", { n: jobs.length });
  });
}

function Compare({ props, onUnmount }: { props: Props; onUnmount: (stop: () => void) => void }) {
  const ref = useRef<State | null>(null);
  const s = (ref.current ??= createState(props));
  const root = useRef<HTMLDivElement>(null);
  const { t } = s;
  useEffect(() => {
    onUnmount(onKey(root.current!, (key) => {
      if (key.mod && key.name === "Enter" && !s.dialog.value) { void runAll(s); return true; }
      return false;
    }));
    onUnmount(() => s.running.value?.abort());
    onUnmount(effect(() => {
      const url = new URL(location.href);
      const versions = s.subjects.value.filter((x) => x.version !== null).map((x) => `${x.name}@v${x.version}`);
      if (versions.length) url.searchParams.set("prompts", JSON.stringify(versions)); else url.searchParams.delete("prompts");
      url.searchParams.set("models", JSON.stringify(s.models.value));
      history.replaceState(history.state, "", url);
    }));
  }, []);
  const columns = s.columns.value;
  const calls = columns.length * s.rows.value.length;
  return (
    <div class="cmp" ref={root}>
      <div class="cmp-bar">
        <button class="btn" type="button" onClick={() => { s.dialog.value = "add"; }}><Icon name="plus" />{t("compare-add")}</button>
        {props.can_save && <button class="btn" type="button" onClick={() => { s.dialog.value = "generate"; }}>{t("compare-generate")}</button>}
        <button class="btn" type="button" onClick={() => { s.dialog.value = "rows"; }}>{t("compare-paste")}</button>
        <span class="cmp-models row tight"><span class="muted small">{t("compare-models")}</span>
          {s.models.value.filter((model) => model).map((model) => <button class="chip" type="button" key={model} aria-label={t("compare-remove-model", { name: model })} disabled={s.models.value.length < 2} onClick={() => { s.models.value = s.models.value.filter((m) => m !== model); }}><span class="clip">{model}</span>{s.models.value.length > 1 && <Icon name="close" />}</button>)}
          <select class="select auto quiet" aria-label={t("compare-add-model")} value="" onChange={(e) => { const id = e.currentTarget.value; if (id && !s.models.value.includes(id)) s.models.value = [...s.models.value.filter((m) => m), id]; e.currentTarget.value = ""; }}><option value="">{t("compare-add-model")}</option><ModelOptions models={props.models.filter((m) => !s.models.value.includes(m.id))} local={t("compare-local")} /></select>
        </span>
        <span class="end row"><span class="muted small">{t("compare-calls", { n: calls })}</span>
          {s.running.value
            ? <button class="btn" type="button" onClick={() => s.running.value?.abort()}><Icon name="stop" />{t("compare-stop")}</button>
            : <button class="btn primary" type="button" disabled={calls === 0} onClick={() => void runAll(s)}><Icon name="play" />{t("compare-run")}</button>}
        </span>
      </div>
      {columns.length === 0
        ? <div class="empty slim"><h2>{t("compare-empty")}</h2><p>{t("compare-empty-text")}</p><div class="row"><button class="btn primary" type="button" onClick={() => { s.dialog.value = "add"; }}>{t("compare-add")}</button>{props.can_save && <button class="btn" type="button" onClick={() => { s.dialog.value = "generate"; }}>{t("compare-generate")}</button>}</div></div>
        : <div class="cmp-wrap" role="region" tabIndex={0} aria-label={t("compare-title")}><table class="cmp-table">
            <thead><tr><th scope="col" class="cmp-in">{t("compare-inputs")}</th>{columns.map((c) => <Head key={c.key} s={s} column={c} />)}</tr></thead>
            <tbody>{s.rows.value.map((r, at) => <RowLine key={r.id} s={s} r={r} at={at} />)}</tbody>
            <tfoot><tr><th scope="row" class="cmp-in"><button class="btn small" type="button" onClick={() => { s.rows.value = [...s.rows.value, row({ inputs: {}, message: "" })]; }}><Icon name="plus" />{t("compare-add-row")}</button></th>{columns.map((c) => <Sums key={c.key} s={s} column={c} />)}</tr></tfoot>
          </table></div>}
      <div class="sr" role="status" aria-live="polite">{s.announce}</div>
      {s.dialog.value === "add" && <AddDialog s={s} />}
      {s.dialog.value === "rows" && <RowsDialog s={s} />}
      {s.dialog.value === "generate" && <GenerateDialog s={s} />}
      {s.dialog.value === "save" && s.saving.value && <SaveDialog s={s} x={s.saving.value} />}
    </div>
  );
}

function Head({ s, column }: { s: State; column: Column }) {
  const { t, props } = s;
  const x = column.subject;
  const saved = isSaved(x);
  const several = s.models.value.length > 1;
  const firstOfSubject = s.columns.value.find((c) => c.subject === x) === column;
  const openEditor = () => openWith(`${page.root}/prompts/edit`, { name: x.name, document: JSON.stringify(tidy(x.document.value)), action: "open", ...(x.version === null ? {} : { base: String(x.version) }) });
  return (
    <th scope="col" class="cmp-col">
      <div class="row tight"><span class="clip grow" title={x.title.value}>{x.title}</span>{saved ? <span class="badge">{`v${x.version}`}</span> : <span class="badge warn">{t("compare-draft")}</span>}</div>
      {several && <div class="muted small clip">{column.model}</div>}
      <div class="row tight cmp-acts">
        <IconButton name="play" label={t("compare-run-column")} disabled={s.running.value !== null} onClick={() => void runAll(s, { column })} />
        {firstOfSubject && <>
          <button class="btn ghost small" type="button" aria-expanded={x.open.value} onClick={() => { x.open.value = !x.open.value; }}>{t("compare-text")}</button>
          <IconButton name="copy" label={t("compare-fork")} onClick={() => { s.subjects.value = [...s.subjects.value, subject({ title: `${x.title.value} *`, name: x.name, version: null, document: x.document.value })]; }} />
          {props.can_save && <IconButton name="edit" label={t("compare-edit")} onClick={openEditor} />}
          <IconButton name="close" label={t("compare-remove")} onClick={() => { s.subjects.value = s.subjects.value.filter((y) => y !== x); }} />
        </>}
      </div>
      {firstOfSubject && x.open.value && <Texts s={s} x={x} />}
      {firstOfSubject && props.can_save && !saved && <div><button class="btn small" type="button" onClick={() => batch(() => { s.saving.value = x; s.dialog.value = "save"; })}>{t("compare-save")}</button></div>}
    </th>
  );
}

/** The texts of a column, to be changed on the spot. */
function Texts({ s, x }: { s: State; x: Subject }) {
  const doc = x.document.value;
  if (doc.type === "text") return <textarea class="area code cmp-text" aria-label={s.t("compare-text")} value={doc.template ?? ""} onInput={(e) => { x.document.value = { ...doc, template: e.currentTarget.value }; }} />;
  return <>{(doc.messages ?? []).map((m, at) => (isPlaceholder(m)
    ? <p class="muted small" key={at}>{`[${m.placeholder}]`}</p>
    : <label class="cmp-label" key={at}><span class="muted small">{m.role}</span><textarea class="area code cmp-text" value={m.content} onInput={(e) => { const { value } = e.currentTarget; x.document.value = { ...doc, messages: (doc.messages ?? []).map((y, i) => (i === at ? { ...y, content: value } : y)) }; }} /></label>))}</>;
}

function RowLine({ s, r, at }: { s: State; r: Row; at: number }) {
  const { t } = s;
  return (
    <tr>
      <th scope="row" class="cmp-in">
        <div class="row tight"><span class="muted small grow">{t("compare-row", { n: at + 1 })}</span>
          <IconButton name="play" label={t("compare-run-row")} disabled={s.running.value !== null} onClick={() => void runAll(s, { row: r })} />
          <IconButton name="close" label={t("compare-remove-row")} disabled={s.rows.value.length < 2} onClick={() => { s.rows.value = s.rows.value.filter((y) => y !== r); }} /></div>
        {s.inputs.value.map((name) => <label class="cmp-label" key={name}><code>{name}</code><textarea class="area cmp-input" rows={1} spellcheck={false} value={r.texts.value[name] ?? ""} onInput={(e) => { r.texts.value = { ...r.texts.value, [name]: e.currentTarget.value }; }} /></label>)}
        <label class="cmp-label"><span class="muted small">{t("compare-message")}</span><textarea class="area cmp-input" rows={1} placeholder={t("compare-message-hint")} value={r.message.value} onInput={(e) => { r.message.value = e.currentTarget.value; }} /></label>
      </th>
      {s.columns.value.map((column) => <AnswerCell key={column.key} s={s} column={column} r={r} />)}
    </tr>
  );
}

function AnswerCell({ s, column, r }: { s: State; column: Column; r: Row }) {
  const { t } = s;
  const c = cellOf(s, column, r);
  const state = c.state.value;
  const rate = async (value: 1 | -1) => {
    const before = c.thumbs.value;
    c.thumbs.value = before === value ? 0 : value;
    try { await score(c.trace.value!, c.thumbs.value); } catch (e) { c.thumbs.value = before; toast((e as Error).message, "err"); }
  };
  return (
    <td class="cmp-cell" data-state={state} data-label={`${column.subject.title.value} · ${column.model}`}>
      {state === "queued" && <span class="faint small">{t("compare-queued")}</span>}
      {state === "waiting" && <span class="row tight muted small"><span class="spin" />{t("compare-waiting")}</span>}
      {c.text.value && <pre class={`text${state === "streaming" ? " pg-caret" : ""}`}>{c.text}</pre>}
      {state === "done" && !c.text.value && <span class="faint small">{t("compare-no-text")}</span>}
      {state === "failed" && <div class="note err"><Icon name="err" /><div>{c.error}</div></div>}
      {(state === "done" || state === "stopped" || state === "failed") && <div class="cmp-foot">
        {state === "stopped" && <span class="t-warn">{t("compare-was-stopped")}</span>}
        {c.total_ms.value !== null && <span>{ms(c.total_ms.value)}</span>}
        {c.output.value !== null && <span>{t("compare-tokens", { in: int(c.input.value ?? 0), out: int(c.output.value) })}</span>}
        {c.cost_usd.value !== null && <span>{usd(c.cost_usd.value)}</span>}
        {c.trace.value && <a class="link" href={`${page.root}/traces/${c.trace.value}`} target="_blank">{t("compare-trace")}</a>}
        {state === "done" && c.trace.value && <span class="end row tight">
          <IconButton name="good" label={t("compare-good")} pressed={c.thumbs.value === 1} onClick={() => void rate(1)} />
          <IconButton name="bad" label={t("compare-bad")} pressed={c.thumbs.value === -1} onClick={() => void rate(-1)} />
        </span>}
      </div>}
    </td>
  );
}

/** What a column cost in all and how it was judged. */
function Sums({ s, column }: { s: State; column: Column }) {
  const { t } = s;
  const cells = s.rows.value.map((r) => cellOf(s, column, r));
  const done = cells.filter((c) => c.state.value === "done");
  const mean = (pick: (c: Cell) => number | null) => { const values = done.map(pick).filter((v): v is number => v !== null); return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null; };
  const time = mean((c) => c.total_ms.value);
  const out = mean((c) => c.output.value);
  const costs = done.map((c) => c.cost_usd.value).filter((v): v is number => v !== null);
  const ups = done.filter((c) => c.thumbs.value === 1).length;
  const downs = done.filter((c) => c.thumbs.value === -1).length;
  const failed = cells.filter((c) => c.state.value === "failed").length;
  if (!done.length && !failed) return <td class="cmp-sum" />;
  return <td class="cmp-sum"><div class="cmp-foot">
    {time !== null && <span title={t("compare-mean")}>⌀ {ms(time)}</span>}
    {out !== null && <span>{t("compare-mean-tokens", { n: int(out) })}</span>}
    {costs.length > 0 && <span>{t("compare-sum-cost", { usd: usd(costs.reduce((a, b) => a + b, 0)) })}</span>}
    {(ups > 0 || downs > 0) && <span>{t("compare-judged", { up: ups, down: downs })}</span>}
    {failed > 0 && <span class="t-err">{t("compare-failed", { n: failed })}</span>}
  </div></td>;
}

function Dialog({ s, title, children, onSubmit, submit, busy }: { s: State; title: string; children: ComponentChildren; onSubmit: (data: FormData) => void; submit: string; busy?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => { dialog.current?.showModal(); }, []);
  return (
    <dialog ref={dialog} class="dialog cmp-dialog" aria-labelledby="cmp-dialog-title" onClose={() => { s.dialog.value = ""; }}>
      <form onSubmit={(e) => { e.preventDefault(); onSubmit(new FormData(e.currentTarget)); }}>
        <h2 id="cmp-dialog-title">{title}</h2>
        {children}
        <footer><button class="btn" type="button" onClick={() => dialog.current?.close()}>{s.t("compare-cancel")}</button><button class="btn primary" disabled={busy ?? false}>{busy && <span class="spin" />}{submit}</button></footer>
      </form>
    </dialog>
  );
}

function AddDialog({ s }: { s: State }) {
  const { t, props } = s;
  const error = useRef<Signal<string>>(signal("")).current;
  const add = async (data: FormData) => {
    const [name, selector] = ["name", "selector"].map((k) => String(data.get(k) ?? "").trim()) as [string, string];
    if (!name) {
      s.subjects.value = [...s.subjects.value, subject({ title: t("compare-draft"), name: "", version: null, document: { messages: [{ role: "system", content: "" }] } })];
      s.subjects.value.at(-1)!.open.value = true;
      s.dialog.value = "";
      return;
    }
    try {
      const found = await json<{ version: number; content: PromptDocument }>(`${promptPath(name)}/versions/${encodeURIComponent(selector.replace(/^v(?=\d+$)/, "") || "latest")}`);
      batch(() => { s.subjects.value = [...s.subjects.value, subject({ title: name, name, version: found.version, document: found.content })]; s.dialog.value = ""; });
    } catch (e) { error.value = (e as Error).message; }
  };
  return (
    <Dialog s={s} title={t("compare-add")} submit={t("compare-add-submit")} onSubmit={(data) => void add(data)}>
      {error.value && <div class="note err" role="alert"><div>{error}</div></div>}
      <div class="field"><label for="cmp-name">{t("compare-add-name")}</label><input class="input mono" id="cmp-name" name="name" list="cmp-names" autocomplete="off" defaultValue={s.subjects.value.at(-1)?.name ?? ""} /><datalist id="cmp-names">{props.prompts.map((p) => <option key={p} value={p} />)}</datalist><p class="hint">{t("compare-add-name-hint")}</p></div>
      <div class="field"><label for="cmp-selector">{t("compare-add-version")}</label><input class="input mono" id="cmp-selector" name="selector" autocomplete="off" placeholder="latest" /><p class="hint">{t("compare-add-version-hint")}</p></div>
    </Dialog>
  );
}

function RowsDialog({ s }: { s: State }) {
  const { t } = s;
  const error = useRef<Signal<string>>(signal("")).current;
  const take = (data: FormData) => {
    const parsed = parseRows(String(data.get("rows") ?? ""));
    if ("error" in parsed) { error.value = t(`compare-rows-${parsed.error}`, { line: parsed.line }); return; }
    if (parsed.cut) toast(t("compare-rows-cut", { n: parsed.cut, most: MOST_ROWS }), "err");
    const added = parsed.rows.map(row);
    batch(() => { s.rows.value = data.get("replace") ? added : [...s.rows.value, ...added]; s.dialog.value = ""; });
  };
  return (
    <Dialog s={s} title={t("compare-paste")} submit={t("compare-rows-submit")} onSubmit={take}>
      {error.value && <div class="note err" role="alert"><div>{error}</div></div>}
      <div class="field"><label for="cmp-rows">{t("compare-rows")}</label><textarea class="area code" id="cmp-rows" name="rows" rows={10} spellcheck={false} placeholder={`${s.inputs.value.join(",") || "question"}\n…`} /><p class="hint">{t("compare-rows-hint")}</p></div>
      <label class="check"><input type="checkbox" name="replace" value="1" defaultChecked />{t("compare-rows-replace")}</label>
    </Dialog>
  );
}

function GenerateDialog({ s }: { s: State }) {
  const { t, props } = s;
  const error = useRef<Signal<string>>(signal("")).current;
  const busy = useRef<Signal<boolean>>(signal(false)).current;
  const abort = useRef(new AbortController());
  useEffect(() => () => abort.current.abort(), []);
  const start = async (data: FormData) => {
    const examples = String(data.get("examples") ?? "").trim();
    const parsed = examples === "" ? [] : examplesOf(examples);
    if (!parsed) { error.value = t("compare-generate-bad-examples"); return; }
    batch(() => { busy.value = true; error.value = ""; });
    try {
      const { candidates } = await generate({ description: String(data.get("description")), examples: parsed, model: String(data.get("model")), n: Number(data.get("n")) }, abort.current.signal);
      const drafts = candidates.filter((c) => c.document).map((c) => subject({ title: t(`compare-technique-${c.technique}`), name: "", version: null, document: c.document! }));
      const broken = candidates.find((c) => c.error);
      if (!drafts.length) { batch(() => { busy.value = false; error.value = broken?.error ?? t("compare-generate-none"); }); return; }
      batch(() => {
        s.subjects.value = [...s.subjects.value, ...drafts];
        const samples = drafts[0]!.document.value.inputs;
        if (s.rows.value.length === 1 && Object.keys(s.rows.value[0]!.texts.value).length === 0) s.rows.value = parsed.length ? parsed.slice(0, 5).map((x) => row({ inputs: x.inputs, message: "" })) : [row({ inputs: valuesOf(samplesOf(samples), samples), message: "" })];
        s.dialog.value = "";
      });
      if (broken) toast(broken.error!, "err");
    } catch (e) {
      batch(() => { busy.value = false; error.value = (e as Error).message; });
    }
  };
  return (
    <Dialog s={s} title={t("compare-generate")} submit={t("compare-generate-submit")} busy={busy.value} onSubmit={(data) => void start(data)}>
      {error.value && <div class="note err" role="alert"><div>{error}</div></div>}
      <div class="field"><label for="cmp-task">{t("compare-generate-task")}</label><textarea class="area" id="cmp-task" name="description" rows={5} required /><p class="hint">{t("compare-generate-task-hint")}</p></div>
      <div class="field"><label for="cmp-examples">{t("compare-generate-examples")}</label><textarea class="area code" id="cmp-examples" name="examples" rows={4} spellcheck={false} placeholder={"question,output\n…"} /><p class="hint">{t("compare-generate-examples-hint")}</p></div>
      <div class="fields two">
        <div class="field"><label for="cmp-model">{t("compare-generate-model")}</label><select class="select" id="cmp-model" name="model"><ModelOptions models={props.models} local={t("compare-local")} /></select></div>
        <div class="field"><label for="cmp-n">{t("compare-generate-n")}</label><input class="input" id="cmp-n" name="n" type="number" min={1} max={8} defaultValue="4" required /></div>
      </div>
      {busy.value && <p class="muted small" role="status">{t("compare-generate-wait")}</p>}
    </Dialog>
  );
}

/** Rows with a column `output` (or `expected`, `answer`), the rest being inputs. */
function examplesOf(text: string): { inputs: JsonObject; output: string }[] | null {
  const parsed = parseRows(text);
  if ("error" in parsed) return null;
  const found = parsed.rows.map(({ inputs, message }) => {
    const key = ["output", "expected", "answer"].find((k) => k in inputs);
    if (!key) return null;
    const { [key]: output, ...rest } = inputs;
    return { inputs: message ? { ...rest, message } : rest, output: cellText(output as Json) };
  });
  return found.every((x) => x !== null) ? found : null;
}

function SaveDialog({ s, x }: { s: State; x: Subject }) {
  const { t } = s;
  const error = useRef<Signal<string>>(signal("")).current;
  const save = async (data: FormData) => {
    const [name, message] = ["name", "message"].map((k) => String(data.get(k) ?? "").trim()) as [string, string];
    try {
      const document = tidy(x.document.value);
      const saved = await saveVersion(name, document, message);
      const kept: Subject = { ...x, title: signal(name), name, version: saved.version, saved: document };
      batch(() => { s.subjects.value = s.subjects.value.map((y) => (y === x ? kept : y)); s.dialog.value = ""; s.saving.value = null; });
      toast(t(saved.already_existed ? "compare-saved-same" : "compare-saved", { name, version: saved.version }));
    } catch (e) { error.value = (e as Error).message; }
  };
  return (
    <Dialog s={s} title={t("compare-save")} submit={t("compare-save-submit")} onSubmit={(data) => void save(data)}>
      {error.value && <div class="note err" role="alert"><div>{error}</div></div>}
      <div class="field"><label for="cmp-save-name">{t("compare-save-name")}</label><input class="input mono" id="cmp-save-name" name="name" required defaultValue={x.name} autocomplete="off" placeholder="support/answer" /></div>
      <div class="field"><label for="cmp-save-message">{t("compare-save-message")}</label><input class="input" id="cmp-save-message" name="message" autocomplete="off" defaultValue={x.version === null && x.title.value !== t("compare-draft") ? x.title.value : ""} /></div>
    </Dialog>
  );
}
