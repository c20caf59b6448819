// Chat with any model of the project. Drafts run as they are: every message, the system prompt and the parameters
// are sent as they stand on the screen. Answers stream into one text node, one DOM write per frame.

import { batch, computed, effect, signal, type Signal } from "@preact/signals";
import { render, type ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, json, type Schemas } from "../core/api.js";
import { toast } from "../core/dom.js";
import { int, ms, usd } from "../core/format.js";
import { onKey } from "../core/keys.js";
import { page, words, type Words } from "../core/page.js";
import { loopNamesIn, namesIn, rowsOf, texts, valuesOf, type JsonObject, type PromptDocument } from "../prompts/document.js";
import { documentOf, moveLabel, run, saveVersion, score, systemOf, versions, withSystem, type ChatMessage, type Params, type Usage, type Version } from "./api.js";

interface Props {
  models: { id: string; label: string; group: string }[];
  model: string;
  system: string;
  messages: { role: "user" | "assistant"; content: string }[];
  params: Params;
  prompts: { name: string; href: string }[];
  prompt: { name: string; version: number; label: string | null } | null;
  labels: string[];
  can_save: boolean;
  i18n: Words;
}

interface Message {
  id: number;
  role: "user" | "assistant";
  text: Signal<string>;
  state: Signal<"idle" | "waiting" | "streaming" | "stopped" | "failed">;
  error: Signal<string>;
  trace: Signal<string | null>;
  usage: Signal<Usage | null>;
  first_ms: Signal<number | null>;
  total_ms: Signal<number | null>;
  cost_usd: Signal<string>;
  thumbs: Signal<number>;
}

let nextId = 1;
const message = (role: "user" | "assistant", text = ""): Message => ({
  id: nextId++, role, text: signal(text), state: signal("idle"), error: signal(""), trace: signal(null), usage: signal(null),
  first_ms: signal(null), total_ms: signal(null), cost_usd: signal(""), thumbs: signal(0),
});

export function mount(el: HTMLElement, props: Props): () => void {
  const stops: (() => void)[] = [];
  render(<Playground props={props} onUnmount={(stop) => stops.push(stop)} />, el);
  return () => { for (const stop of stops) stop(); render(null, el); };
}

function createState(props: Props) {
  const t = words(props.i18n);
  const s = {
    t, props,
    model: signal(props.model || props.models[0]?.id || ""),
    system: signal(props.system),
    params: signal<Params>({ ...props.params }),
    messages: signal<Message[]>(props.messages.map((m) => message(m.role, m.content))),
    draft: signal(""),
    running: signal<AbortController | null>(null),
    prompts: signal(props.prompts.map((p) => p.name)),
    prompt: signal<{ name: string; version: number } | null>(props.prompt && { name: props.prompt.name, version: props.prompt.version }),
    versions: signal<Version[]>([]),
    savedText: signal<string | null>(null),
    document: signal<PromptDocument | null>(null),
    variables: signal<Record<string, string>>({}),
    announce: signal(""),
    saving: signal(false),
    settings: signal(false),
    session: signal(newSession()),
  };
  const edited = computed(() => s.prompt.value !== null && s.savedText.value !== null && s.savedText.value !== s.system.value);
  const names = computed(() => {
    const document = s.document.value && withSystem(s.document.value, s.system.value);
    const read = (document ? texts(document) : [s.system.value]).flatMap((text) => namesIn(text).filter((name) => !loopNamesIn(text).includes(name)));
    return [...new Set([...rowsOf(document?.inputs).map((r) => r.name), ...read])].filter((name) => !["partials", "examples", "loop"].includes(name));
  });
  /** What a call sends: numbers and lists as what they are. */
  const values = () => valuesOf(s.variables.value, s.document.value?.inputs);
  return { ...s, edited, names, values };
}
type State = ReturnType<typeof createState>;

function newSession(): string {
  return "playground-" + [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** A saved prompt travels by name, so the trace links to its version; an edited one travels as text. */
function requestParts(s: State, history: Message[]): { messages: ChatMessage[]; meguri: Record<string, unknown>; draft: { content: PromptDocument; variables: JsonObject } | null } {
  const chat: ChatMessage[] = history.map((m) => ({ role: m.role, content: m.text.value }));
  const meguri: Record<string, unknown> = { session: s.session.value, step: history.filter((m) => m.role === "user").length, tags: ["playground"] };
  const used = s.prompt.value;
  if (used && s.savedText.value !== null && !s.edited.value) {
    return { messages: chat, meguri: { ...meguri, prompt: `${used.name}@v${used.version}`, variables: s.values() }, draft: null };
  }
  if (used && s.document.value) return { messages: chat, meguri, draft: { content: withSystem(s.document.value, s.system.value), variables: s.values() } };
  const system = s.system.value.replace(/\{\{-?\s*([\p{L}_][\p{L}\p{M}\p{N}_]*)\s*-?\}\}/gu, (whole, name: string) => s.variables.value[name] ?? whole);
  return { messages: system.trim() ? [{ role: "system", content: system }, ...chat] : chat, meguri, draft: null };
}

async function send(s: State): Promise<void> {
  if (s.running.value || !s.model.value) return;
  const history = [...s.messages.value];
  if (s.draft.value.trim()) history.push(message("user", s.draft.value));
  if (history.at(-1)?.role !== "user" || askForVariables(s)) return;
  await answer(s, history);
}

/** A variable that nobody has set is asked for: the call would fail, or the model would read its name. */
function askForVariables(s: State): boolean {
  const missing = s.names.value.find((name) => s.variables.value[name] === undefined);
  if (missing === undefined) return false;
  s.settings.value = true;
  toast(s.t("playground-variable", { name: missing }), "err");
  requestAnimationFrame(() => document.getElementById(`pg-var-${missing}`)?.focus());
  // Asked for once: leaving it empty is an answer too.
  s.variables.value = { ...s.variables.value, [missing]: "" };
  return true;
}

/** Runs the conversation up to and including `history` and appends the answer. */
async function answer(s: State, history: Message[]): Promise<void> {
  const reply = message("assistant");
  const abort = new AbortController();
  batch(() => { s.messages.value = [...history, reply]; s.draft.value = ""; s.settings.value = false; s.running.value = abort; reply.state.value = "waiting"; });
  const began = performance.now();
  let pending = "";
  let frame = 0;
  const flush = () => { frame = 0; const piece = pending; pending = ""; batch(() => { reply.text.value += piece; reply.state.value = "streaming"; }); };
  try {
    const parts = requestParts(s, history);
    await run({
      model: s.model.value, params: s.params.value, ...parts, signal: abort.signal,
      onTrace: (id) => { reply.trace.value = id; },
      onText: (piece) => { reply.first_ms.value ??= performance.now() - began; pending += piece; frame ||= requestAnimationFrame(flush); },
      onUsage: (usage) => { reply.usage.value = usage; },
    });
    reply.state.value = "idle";
    s.announce.value = s.t("playground-done");
  } catch (e) {
    const stopped = abort.signal.aborted;
    reply.state.value = stopped ? "stopped" : "failed";
    if (e instanceof ApiError && e.traceId) reply.trace.value = e.traceId;
    if (!stopped) reply.error.value = e instanceof TypeError ? s.t("playground-network") : e instanceof ApiError ? `${e.message} (${e.code})` : (e as Error).message;
    s.announce.value = s.t(stopped ? "playground-stopped" : "playground-error");
  } finally {
    cancelAnimationFrame(frame);
    if (pending) reply.text.value += pending;
    reply.total_ms.value = performance.now() - began;
    s.running.value = null;
  }
  if (reply.trace.value) void recorded(reply);
}

/** The price is known to the server only: it is read from the trace, which is there within a second. */
async function recorded(reply: Message): Promise<void> {
  for (let tries = 0; tries < 4; tries++) {
    await new Promise((done) => setTimeout(done, 400 * (tries + 1)));
    try {
      const trace = await json<Schemas["TraceJson"]>(`/api/v1/traces/${reply.trace.value}`);
      if (typeof trace.cost_nanousd === "number") reply.cost_usd.value = usd(trace.cost_nanousd / 1e9);
      return;
    } catch { /* Not yet written; the next look is a little later. */ }
  }
}

function Playground({ props, onUnmount }: { props: Props; onUnmount: (stop: () => void) => void }) {
  const ref = useRef<State | null>(null);
  const s = (ref.current ??= createState(props));
  const log = useRef<HTMLDivElement>(null);
  const box = useRef<HTMLTextAreaElement>(null);
  const root = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (s.prompt.value) void load(s, s.prompt.value.name, s.prompt.value.version, props.system !== "");
    onUnmount(onKey(root.current!, (key) => {
      if (key.mod && key.name === "Enter") { void send(s); return true; }
      return false;
    }));
    onUnmount(() => s.running.value?.abort());
    let shown = s.messages.value.length;
    onUnmount(effect(() => {
      void s.messages.value.at(-1)?.text.value;
      if (!log.current) return;
      // On a narrow screen the page scrolls, not the conversation.
      const el = getComputedStyle(log.current).overflowY === "auto" ? log.current : document.documentElement;
      const grown = s.messages.value.length > shown;
      shown = s.messages.value.length;
      if (grown || el.scrollHeight - el.scrollTop - el.clientHeight < 120) requestAnimationFrame(() => { el.scrollTop = el.scrollHeight; });
    }));
    onUnmount(effect(() => {
      const url = new URL(location.href);
      url.searchParams.set("model", s.model.value);
      history.replaceState(history.state, "", url);
    }));
  }, []);

  const { t } = s;
  const messages = s.messages.value;
  const canSend = !s.running.value && s.model.value !== "" && (s.draft.value.trim() !== "" || messages.at(-1)?.role === "user");
  return (
    <div ref={root} class="pg-root">
      <div class="pg-chat">
        <div class="pg-log" ref={log} tabIndex={0} aria-label={t("playground-title")} role="region">
          {messages.length === 0 && <div class="pg-start"><Icon d="M2.5 3.5h11v7.2h-6l-3 2.8v-2.8h-2z" /><h2>{t("playground-start")}</h2><p>{t("playground-start-text")}</p></div>}
          {messages.map((m, i) => <Row key={m.id} s={s} m={m} at={i} />)}
        </div>
        <form class="pg-compose" onSubmit={(e) => { e.preventDefault(); void send(s); box.current?.focus(); }}>
          <div class="pg-box">
            <label class="sr" for="pg-draft">{t("playground-placeholder")}</label>
            <textarea id="pg-draft" ref={box} placeholder={t("playground-placeholder")} value={s.draft.value} onInput={(e) => { s.draft.value = e.currentTarget.value; }} data-search />
            <div class="row">
              {messages.length > 0 && <button class="btn ghost small" type="button" onClick={() => { s.running.value?.abort(); batch(() => { s.messages.value = []; s.session.value = newSession(); }); box.current?.focus(); }}>{t("playground-clear")}</button>}
              <span class="grow" />
              <span class="faint small"><kbd>{/Mac|iP/.test(navigator.platform) ? "⌘" : "Ctrl"}</kbd> <kbd>↵</kbd></span>
              {s.running.value
                ? <button class="btn" type="button" onClick={() => s.running.value?.abort()}><Icon d="M4.5 4.5h7v7h-7z" />{t("playground-stop")}</button>
                : <button class="btn primary" disabled={!canSend}>{t("playground-send")}</button>}
            </div>
          </div>
        </form>
        <div class="sr" role="status" aria-live="polite">{s.announce}</div>
      </div>
      <Side s={s} />
      {s.saving.value && <SaveDialog s={s} />}
    </div>
  );
}

function Row({ s, m, at }: { s: State; m: Message; at: number }) {
  const { t } = s;
  const state = m.state.value;
  const live = state === "waiting" || state === "streaming";
  const remove = () => { s.messages.value = s.messages.value.filter((x) => x !== m); };
  const retry = () => void answer(s, s.messages.value.slice(0, m.role === "user" ? at + 1 : at));
  return (
    <article class={`pg-msg ${m.role}`} data-state={state}>
      <div class="who">{t(`playground-role-${m.role}`)}</div>
      {live
        ? <div class={`pg-text ${state === "streaming" ? "pg-caret" : ""}`}>{state === "waiting" ? <span class="faint">{t("playground-thinking")}</span> : <>{m.text}</>}</div>
        : (state !== "failed" || m.text.value !== "") && <textarea class="pg-text" rows={1} aria-label={t(`playground-role-${m.role}`)} title={t("playground-edit-hint")} value={m.text.value} onInput={(e) => { m.text.value = e.currentTarget.value; }} spellcheck={false} />}
      {state === "failed" && <div class="note err pg-error" role="alert"><Icon d="M8 4.8v3.900M8 11.100v.1M13.800 8A5.800 5.800 0 1 1 2.200 8a5.800 5.800 0 0 1 11.600 0" /><div><strong>{t("playground-error")}</strong> {m.error}</div></div>}
      <div class="pg-foot">
        {state === "stopped" && <span class="t-warn">{t("playground-stopped")}</span>}
        {m.usage.value && <span>{t("playground-tokens", { in: int(m.usage.value.input), out: int(m.usage.value.output) })}</span>}
        {m.first_ms.value !== null && <span>{t("playground-first", { ms: ms(m.first_ms.value) })}</span>}
        {m.usage.value && m.total_ms.value !== null && m.first_ms.value !== null && m.usage.value.output > 1 && <span>{t("playground-rate", { rate: oneDecimal((m.usage.value.output - 1) / Math.max(0.001, (m.total_ms.value - m.first_ms.value) / 1000)) })}</span>}
        {m.total_ms.value !== null && <span>{t("playground-total", { ms: ms(m.total_ms.value) })}</span>}
        {m.cost_usd.value && <span>{m.cost_usd}</span>}
        {m.trace.value && <a class="link" href={`${page.root}/traces/${m.trace.value}`}>{t("playground-trace")}</a>}
        {!live && <span class="acts">
          {m.role === "assistant" && m.trace.value && <><Thumb s={s} m={m} value={1} /><Thumb s={s} m={m} value={-1} /></>}
          {m.role === "assistant" && <Act label={t("playground-copy")} d="M5.5 5.500h8v8h-8zM10.500 5.500v-3h-8v8h3" onClick={() => void navigator.clipboard.writeText(m.text.value)} />}
          {!s.running.value && <Act label={t("playground-retry")} d="M13 8a5 5 0 1 1-1.500-3.500M13 2.500v2.700h-2.700" onClick={retry} />}
          {!s.running.value && <Act label={t("playground-delete")} d="M4 4l8 8M12 4l-8 8" onClick={remove} />}
        </span>}
      </div>
      {m.thumbs.value === -1 && <Comment s={s} m={m} />}
    </article>
  );
}

function Thumb({ s, m, value }: { s: State; m: Message; value: 1 | -1 }) {
  const label = s.t(value === 1 ? "playground-up" : "playground-down");
  const d = value === 1
    ? "M5 7l2.700-4.800c1.200 0 1.800.8 1.600 2L9 6h3.300c.9 0 1.400.7 1.200 1.500l-1 4.600c-.2.7-.7 1.100-1.400 1.100H5zM2.500 7H5v6.200H2.500z"
    : "M5 9l2.700 4.800c1.200 0 1.800-.8 1.600-2L9 10h3.300c.9 0 1.400-.7 1.200-1.500l-1-4.600c-.2-.7-.7-1.100-1.400-1.100H5zM2.500 9H5V2.800H2.500z";
  const rate = async () => {
    const before = m.thumbs.value;
    m.thumbs.value = before === value ? 0 : value;
    try {
      await score(m.trace.value!, m.thumbs.value);
      s.announce.value = s.t("playground-rated");
    } catch (e) {
      m.thumbs.value = before;
      toast((e as Error).message, "err");
    }
  };
  return <Act label={label} d={d} pressed={m.thumbs.value === value} onClick={() => void rate()} />;
}

function Comment({ s, m }: { s: State; m: Message }) {
  const input = useRef<HTMLInputElement>(null);
  const submit = async (e: Event) => {
    e.preventDefault();
    const text = input.current?.value.trim();
    if (!text) return;
    try {
      await score(m.trace.value!, -1, text);
      toast(s.t("playground-rated"));
      input.current!.value = "";
    } catch (error) {
      toast((error as Error).message, "err");
    }
  };
  return <form class="pg-comment" onSubmit={(e) => void submit(e)}><input ref={input} class="input quiet" aria-label={s.t("playground-comment")} placeholder={s.t("playground-comment")} /><button class="btn">{s.t("playground-comment-send")}</button></form>;
}

function Side({ s }: { s: State }) {
  const { t, props } = s;
  const groups = [...new Set(props.models.map((m) => m.group))];
  return (
    <aside class={`pg-side ${s.settings.value ? "open" : ""}`} aria-label={t("playground-settings")}>
      <div class="field pg-always">
        <label for="pg-model">{t("playground-model")}</label>
        <div class="row"><select class="select grow" id="pg-model" value={s.model.value} onChange={(e) => { s.model.value = e.currentTarget.value; }}>
          {groups.map((g) => <optgroup key={g} label={g === "local" ? t("playground-group-local") : g}>{props.models.filter((m) => m.group === g).map((m) => <option key={m.id} value={m.id}>{m.label}</option>)}</optgroup>)}
        </select><button class="btn pg-toggle" type="button" aria-expanded={s.settings.value} onClick={() => { s.settings.value = !s.settings.value; }}>{t("playground-settings")}</button></div>
      </div>
      <div class="field">
        <label for="pg-prompt">{t("playground-catalog")}</label>
        <div class="row">
          <select class="select grow" id="pg-prompt" value={s.prompt.value?.name ?? ""} onChange={(e) => { const name = e.currentTarget.value; if (name) void load(s, name); else batch(() => { s.prompt.value = null; s.document.value = null; }); }}>
            <option value="">{t("playground-catalog-none")}</option>
            {s.prompts.value.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
          {s.prompt.value && <select class="select auto" aria-label={t("playground-version")} value={String(s.prompt.value.version)} onChange={(e) => { if (s.prompt.value) void load(s, s.prompt.value.name, Number(e.currentTarget.value)); }}>
            {s.versions.value.map((v) => <option key={v.version} value={String(v.version)}>{`v${v.version}${v.labels.length ? ` · ${v.labels.join(", ")}` : ""}`}</option>)}
          </select>}
        </div>
      </div>
      <div class="field">
        <label for="pg-system"><span class="row">{t("playground-system")}{s.edited.value && <span class="badge warn">{t("playground-edited")}</span>}</span></label>
        <textarea class="area" id="pg-system" placeholder={t("playground-system-placeholder")} value={s.system.value} onInput={(e) => { s.system.value = e.currentTarget.value; }} />
        {props.can_save && <div><button class="btn" type="button" disabled={!s.system.value.trim()} onClick={() => { s.saving.value = true; }}>{t("playground-save")}</button></div>}
      </div>
      {s.names.value.map((name) => <div class="field" key={name}><label for={`pg-var-${name}`}><code>{name}</code></label><input class="input" id={`pg-var-${name}`} value={s.variables.value[name] ?? ""} onInput={(e) => { s.variables.value = { ...s.variables.value, [name]: e.currentTarget.value }; }} /></div>)}
      <hr />
      <h2>{t("playground-params")}</h2>
      <Param s={s} name="temperature" min={0} max={2} step={0.05} />
      <Param s={s} name="top_p" min={0} max={1} step={0.01} />
      <Param s={s} name="max_tokens" min={1} max={4096} step={1} />
      <Param s={s} name="seed" />
    </aside>
  );
}

function Param({ s, name, min, max, step }: { s: State; name: keyof Params; min?: number; max?: number; step?: number }) {
  const value = s.params.value[name];
  const set = (text: string) => { s.params.value = { ...s.params.value, [name]: text === "" || Number.isNaN(Number(text)) ? null : Number(text) }; };
  const label = s.t(`playground-${name}`);
  return (
    <div class="pg-param">
      <label for={`pg-${name}`}>{label}</label>
      <input class="input" id={`pg-${name}`} inputMode="decimal" value={value === null ? "" : String(value)} placeholder={s.t("playground-default")} onChange={(e) => set(e.currentTarget.value)} />
      {max !== undefined && <input type="range" class="range" aria-label={label} min={min} max={max} step={step} {...(value === null ? { "data-unset": "" } : {})} value={value ?? (name === "max_tokens" ? 512 : 1)} onInput={(e) => set(e.currentTarget.value)} />}
    </div>
  );
}

function SaveDialog({ s }: { s: State }) {
  const { t } = s;
  const dialog = useRef<HTMLDialogElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const error = useRef(signal("")).current;
  useEffect(() => { dialog.current?.showModal(); }, []);
  const submit = async (e: Event) => {
    e.preventDefault();
    const data = new FormData(form.current!);
    const [name, text, label] = ["name", "message", "label"].map((key) => String(data.get(key) ?? "").trim()) as [string, string, string];
    try {
      const { version, already_existed: same } = await saveVersion(name, withSystem(s.prompt.value ? s.document.value : null, s.system.value), text);
      const moved = label ? await moveLabel(name, label, version, text) : null;
      await load(s, name, version);
      if (!s.prompts.value.includes(name)) s.prompts.value = [...s.prompts.value, name].sort();
      s.saving.value = false;
      toast(moved?.proposal ? t("playground-proposed", { label, version }) : label ? t("playground-saved-label", { label, version }) : t(same ? "playground-saved-same" : "playground-saved", { name, version }));
    } catch (problem) {
      error.value = (problem as Error).message;
    }
  };
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="pg-save-title" onClose={() => { s.saving.value = false; }}>
      <form ref={form} onSubmit={(e) => void submit(e)}>
        <h2 id="pg-save-title">{t("playground-save-title")}</h2>
        {error.value && <div class="note err" role="alert"><div>{error}</div></div>}
        <div class="field"><label for="pg-save-name">{t("playground-save-name")}</label><input class="input" id="pg-save-name" name="name" required defaultValue={s.prompt.value?.name ?? ""} list="pg-names" autocomplete="off" placeholder="support/answer" /><datalist id="pg-names">{s.prompts.value.map((n) => <option key={n} value={n} />)}</datalist><p class="hint">{t("playground-save-name-hint")}</p></div>
        <div class="field"><label for="pg-save-message">{t("playground-save-message")}</label><input class="input" id="pg-save-message" name="message" autocomplete="off" /></div>
        <div class="field"><label for="pg-save-label">{t("playground-save-label")}</label><select class="select" id="pg-save-label" name="label"><option value="">{t("playground-save-label-none")}</option>{s.props.labels.map((l) => <option key={l} value={l}>{l}</option>)}</select></div>
        <footer><button class="btn" type="button" onClick={() => dialog.current?.close()}>{t("playground-cancel")}</button><button class="btn primary">{t("playground-save-submit")}</button></footer>
      </form>
    </dialog>
  );
}

/** Loads the versions of a prompt and shows one; `keepText` leaves a text that was handed over by a trace. */
async function load(s: State, name: string, version?: number, keepText = false): Promise<void> {
  try {
    const list = await versions(name);
    const chosen = list.find((v) => v.version === version) ?? list.find((v) => v.labels.includes("production")) ?? list[0];
    if (!chosen) return;
    const document = await documentOf(name, chosen.version);
    const text = systemOf(document);
    batch(() => {
      s.versions.value = list;
      s.prompt.value = { name, version: chosen.version };
      s.savedText.value = text;
      s.document.value = document;
      s.variables.value = { ...Object.fromEntries(rowsOf(document.inputs).filter((r) => r.initial !== "").map((r) => [r.name, r.initial])), ...s.variables.value };
      if (!keepText) s.system.value = text;
    });
  } catch (e) {
    toast((e as Error).message, "err");
  }
}

const oneDecimal = (n: number): string => (n < 100 ? n.toFixed(1) : int(n));

function Icon({ d }: { d: string }) {
  return <svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d={d} /></svg>;
}

function Act({ label, d, pressed, onClick }: { label: string; d: string; pressed?: boolean; onClick: () => void; children?: ComponentChildren }) {
  return <button class="btn ghost small icon-only" type="button" aria-label={label} title={label} {...(pressed === undefined ? {} : { "aria-pressed": pressed })} onClick={onClick}><Icon d={d} /></button>;
}
