// A trial of the draft: inputs, the answer as it streams in, and what each step said, as soon as it has said it.

import { batch } from "@preact/signals";
import { ms, usd } from "../core/format.js";
import { page } from "../core/page.js";
import { Icon } from "../prompts/parts.js";
import { valuesOf } from "../prompts/document.js";
import { followDrafts, tryDraft, type StepSpan } from "./api.js";
import { readable, inputRows, type Run, type State } from "./state.js";

/** The last span is stored a moment after the last word; longer than this nobody waits for it. */
const LAST_SPAN_MS = 3000;

export async function tryOut(s: State): Promise<void> {
  const content = readable(s.text.value);
  if (s.run.value?.state === "running" || content === null) return;
  const abort = new AbortController();
  const began = performance.now();
  s.run.value = { state: "running", text: "", error: "", trace: null, steps: [], ms: null, abort };
  const put = (more: Partial<Run>) => { if (s.run.value?.abort === abort) s.run.value = { ...s.run.value, ...more }; };
  const following = new AbortController();
  const steps = await follow(following.signal, (spans) => put({ steps: spans.filter((span) => span.trace_id === s.run.value?.trace) }));
  let frame = 0;
  let pending = "";
  const flush = () => { frame = 0; const piece = pending; pending = ""; put({ text: (s.run.value?.text ?? "") + piece }); };
  try {
    const given = Object.fromEntries(inputRows(s).map((row) => [row.name, s.samples.value[row.name] ?? ""]));
    await tryDraft(content, valuesOf(given, s.model.current.inputs), abort.signal, {
      trace: (trace) => put({ trace }),
      text: (piece) => { pending += piece; frame ||= requestAnimationFrame(flush); },
    });
    put({ state: "done" });
  } catch (e) {
    put(abort.signal.aborted ? { state: "stopped" } : { state: "failed", error: e instanceof TypeError ? s.t("appedit-network") : (e as Error).message });
  }
  cancelAnimationFrame(frame);
  batch(() => { flush(); put({ ms: performance.now() - began }); });
  const trace = s.run.value?.trace;
  if (trace) await Promise.race([steps.rootOf(trace), new Promise((wake) => setTimeout(wake, LAST_SPAN_MS))]);
  following.abort();
}

/** Collects spans as they are stored. Without the right to read traces, or without a connection, there are none. */
async function follow(signal: AbortSignal, on: (spans: StepSpan[]) => void): Promise<{ rootOf(trace: string): Promise<void> }> {
  const spans: StepSpan[] = [];
  const waiting: (() => void)[] = [];
  const read = async (source: AsyncGenerator<StepSpan>) => {
    for await (const span of source) {
      spans.push(span);
      on(spans);
      for (const wake of waiting) wake();
    }
  };
  try {
    const source = await followDrafts(signal);
    read(source).catch(() => undefined);
  } catch { /* The answer comes all the same. */ }
  const has = (trace: string) => spans.some((span) => span.trace_id === trace && span.parent_span_id === null);
  return { rootOf: (trace) => new Promise((done) => { const look = () => { if (has(trace)) done(); }; waiting.push(look); look(); }) };
}

export function Trial({ s }: { s: State }) {
  const { t } = s;
  void s.touched.value;
  const run = s.run.value;
  const busy = run?.state === "running";
  return (
    <section class="panel" id="try"><header><h2>{t("appedit-try")}</h2>{run?.ms !== null && run !== null && <span class="end muted small">{ms(run.ms)}</span>}</header><div class="body stack-s">
      <p class="muted small">{t("appedit-try-text")}</p>
      {inputRows(s).map((row) => (
        <div class="field" key={row.name}><label for={`ap-in-${row.name}`}><code>{row.name}</code>{row.required && <span class="muted"> *</span>}{row.type && row.type !== "string" && <span class="muted small"> {row.type}</span>}</label>
          <textarea class="area ed-sample" id={`ap-in-${row.name}`} rows={1} spellcheck={false} value={s.samples.value[row.name] ?? ""} placeholder={row.initial || row.description} onInput={(e) => { s.samples.value = { ...s.samples.value, [row.name]: e.currentTarget.value }; }} /></div>
      ))}
      <div class="row">
        {busy
          ? <button class="btn" type="button" onClick={() => run.abort.abort()}><Icon name="stop" />{t("appedit-stop")}</button>
          : <button class="btn" type="button" disabled={s.problems.value.length > 0 || s.unreadable.value} onClick={() => void tryOut(s)}><Icon name="play" />{t("appedit-run")}</button>}
        {run?.trace && !busy && <a class="btn ghost" href={`${page.root}/traces/${run.trace}`} target="_blank">{t("appedit-trace")}</a>}
      </div>
      {run && <Result s={s} run={run} />}
    </div></section>
  );
}

function Result({ s, run }: { s: State; run: Run }) {
  const { t } = s;
  const rows = ordered(run.steps);
  return <>
    {rows.length > 0 && <ol class="ap-results">{rows.map(({ span, depth }) => (
      <li key={span.span_id} data-depth={Math.min(depth, 3)}>
        <details>
          <summary><Icon name="right" /><span class={`ap-dot ${span.status === "error" ? "err" : "ok"}`}><span class="sr">{t(span.status === "error" ? "appedit-step-failed" : "appedit-step-done")}</span></span><strong class="mono">{nameOf(span)}</strong><span class="grow clip muted">{span.error ?? span.output_preview}</span><span class="muted small num">{ms(span.latency_ms)}</span></summary>
          <pre>{span.error ?? (span.output_preview || "–")}</pre>
          {span.cost_nanousd !== null && span.cost_nanousd > 0 && <p class="muted small">{usd(span.cost_nanousd / 1e9)}</p>}
        </details>
      </li>))}</ol>}
    {run.state === "running" && <p class="row muted small"><span class="spin" />{t("appedit-running")}</p>}
    {(run.text || run.state === "done") && <div class="ap-answer" aria-live="polite" aria-busy={run.state === "running"}><div class="ap-label">{t("appedit-answer")}</div><pre id="ap-answer">{run.text}</pre></div>}
    {run.state === "failed" && <div class="note err" role="alert"><Icon name="err" /><div>{run.error}</div></div>}
    {run.state === "stopped" && <p class="muted small">{t("appedit-stopped")}</p>}
  </>;
}

/** A span is called after its operation and its step: "chat answer". The step is what the form calls it. */
const nameOf = (span: StepSpan): string => span.name.slice(span.name.indexOf(" ") + 1);

/** The steps in the order in which they began, those of a chain below it; the app's own span is the frame. */
function ordered(spans: StepSpan[]): { span: StepSpan; depth: number }[] {
  const known = new Set(spans.map((span) => span.span_id));
  const root = spans.find((span) => span.parent_span_id === null);
  const below = (parent: string | null, depth: number): { span: StepSpan; depth: number }[] =>
    spans.filter((span) => span !== root && (parent === null ? span.parent_span_id === null || span.parent_span_id === root?.span_id || !known.has(span.parent_span_id) : span.parent_span_id === parent))
      .sort((a, b) => a.started_at - b.started_at)
      .flatMap((span) => [{ span, depth }, ...below(span.span_id, depth + 1)]);
  return below(null, 0);
}
