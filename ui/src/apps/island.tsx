// The editor of an app: its steps as forms, the same document as JSON, the server's drawing and problems beside
// it while somebody types, and a trial that shows what each step said. Nothing is saved before "save".

import { batch, effect } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ApiError } from "../core/api.js";
import { onKey } from "../core/keys.js";
import { page } from "../core/page.js";
import { InputTable } from "../editor/inputs.js";
import { Field } from "../prompts/field.js";
import { Fold, Icon, IconButton, JsonArea } from "../prompts/parts.js";
import { draw, saveApp } from "./api.js";
import { jsonTokens, newTool, offers, reference, write, type AppModel, type Route, type Tool } from "./model.js";
import { Graph, Pairs, Section, Text, Wrong } from "./parts.js";
import { change, createState, problemsAt, readable, takeText, token, type Props, type State } from "./state.js";
import { StepList } from "./steps.js";
import { Trial, tryOut } from "./trial.js";

export function mount(el: HTMLElement, props: Props): () => void {
  el.replaceChildren();
  const stops: (() => void)[] = [];
  render(<Editor props={props} onUnmount={(stop) => stops.push(stop)} />, el);
  return () => { for (const stop of stops) stop(); render(null, el); };
}

/** Draws and checks a moment after the last change; an answer that was overtaken is dropped. */
function follow(s: State): () => void {
  let timer = 0;
  let abort: AbortController | null = null;
  const look = async (text: string) => {
    abort?.abort();
    const mine = (abort = new AbortController());
    try {
      const found = await draw(text, mine.signal);
      batch(() => {
        s.problems.value = found.problems;
        // Half-typed JSON has no drawing: the last one stays.
        if (found.graph) s.graph.value = found.graph;
        s.failed.value = "";
      });
    } catch (e) {
      if (!mine.signal.aborted) s.failed.value = e instanceof TypeError ? s.t("appedit-network") : (e as Error).message;
    } finally {
      if (abort === mine) s.checking.value = false;
    }
  };
  const stop = effect(() => {
    const text = s.text.value;
    clearTimeout(timer);
    s.checking.value = true;
    timer = window.setTimeout(() => void look(text), s.graph.peek() ? 250 : 0);
  });
  return () => { stop(); clearTimeout(timer); abort?.abort(); };
}

function Editor({ props, onUnmount }: { props: Props; onUnmount: (stop: () => void) => void }) {
  const ref = useRef<State | null>(null);
  const s = (ref.current ??= createState(props));
  const root = useRef<HTMLDivElement>(null);
  const { t } = s;
  useEffect(() => {
    onUnmount(follow(s));
    onUnmount(() => s.run.value?.abort.abort());
    onUnmount(onKey(root.current!, (key) => {
      if (key.mod && key.name === "s") { void save(s); return true; }
      if (key.mod && key.name === "Enter") { void tryOut(s); return true; }
      return false;
    }));
    const leave = (e: BeforeUnloadEvent) => { if (s.changed.value) e.preventDefault(); };
    window.addEventListener("beforeunload", leave);
    onUnmount(() => window.removeEventListener("beforeunload", leave));
  }, []);
  const form = s.tab.value === "form";
  return (
    <div class="ap" ref={root}>
      <div class="ap-main stack">
        <div class="row">
          <span class="seg" role="group" aria-label={t("appedit-view")}>
            <button type="button" aria-pressed={form} onClick={() => { s.tab.value = "form"; }}>{t("appedit-form")}</button>
            <button type="button" aria-pressed={!form} onClick={() => { s.tab.value = "json"; }}>JSON</button>
          </span>
        </div>
        {props.base === null && <div class="field"><label for="ap-name">{t("appedit-app-name")}</label><input class="input mono" id="ap-name" value={s.name.value} placeholder="geo/distance" autocomplete="off" spellcheck={false} onInput={(e) => { s.name.value = e.currentTarget.value; s.changed.value = true; }} /><p class="hint">{t("appedit-app-name-hint")}</p></div>}
        {form ? s.unreadable.value ? <div class="note warn"><Icon name="err" /><div>{t("appedit-unreadable")}</div></div> : <Form s={s} /> : <Source s={s} />}
      </div>
      <aside class="ap-side stack" aria-label={t("appedit-graph")}>
        <Problems s={s} />
        <Section title={t("appedit-graph")}>{s.graph.value ? <Graph drawing={s.graph.value} label={t("appedit-graph")} onOpen={(href) => openStep(s, href)} /> : <p class="muted small">{t("appedit-no-graph")}</p>}</Section>
        <Trial s={s} />
      </aside>
      <Foot s={s} />
    </div>
  );
}

/** Shows a step in the form; the form comes first where the JSON is open. */
function openStep(s: State, href: string): void {
  s.tab.value = "form";
  requestAnimationFrame(() => {
    const card = document.getElementById(href.slice(1));
    card?.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    card?.querySelector<HTMLInputElement>(".ap-id")?.focus({ preventScroll: true });
  });
}

/** Goes to the field of a problem: the nearest one around it that is on the page. */
function openPlace(s: State, path: string): void {
  s.tab.value = "form";
  requestAnimationFrame(() => {
    for (let at = path; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) {
      const field = document.getElementById(`ap${at}`) ?? document.getElementById(`ap${at}/id`);
      if (field) { field.scrollIntoView({ block: "center" }); field.focus({ preventScroll: true }); return; }
    }
  });
}

function Problems({ s }: { s: State }) {
  const { t } = s;
  if (s.failed.value) return <div class="note err" role="alert"><Icon name="err" /><div>{s.failed.value}</div></div>;
  if (!s.problems.value.length) return null;
  return (
    <div class="note err" role="status"><Icon name="err" />
      <ul class="stack-0 ap-problems">{s.problems.value.slice(0, 8).map((p) => <li key={p.path + p.message}>
        {p.path ? <button class="link mono" type="button" onClick={() => openPlace(s, p.path)}>{p.path}</button> : p.line !== null && <span class="muted">{t("appedit-line", { n: p.line })}</span>} {p.message}</li>)}</ul>
    </div>
  );
}

function Source({ s }: { s: State }) {
  const marks = s.problems.value.map((p) => ({ message: p.path ? `${p.path}: ${p.message}` : p.message, line: p.line }));
  return (
    <div class="panel ap-source">
      <Field value={s.text.value} label={s.t("appedit-document")} tokens={jsonTokens} names={() => []} problems={marks} onChange={(text) => { if (text !== s.text.value) takeText(s, text); }} />
    </div>
  );
}

function Form({ s }: { s: State }) {
  const { t, props } = s;
  // Read so that every change of the model draws the form again.
  void s.touched.value;
  const model = s.model.current;
  return <>
    <datalist id="ap-prompts">{props.prompts.map((name) => <option key={name} value={name} />)}</datalist>
    <datalist id="ap-models">{props.models.map((m) => <option key={m.id} value={m.id} />)}</datalist>
    <datalist id="ap-results">{offers(model, "/steps/-").map((one) => <option key={one} value={one} />)}</datalist>
    <Text s={s} path="/description" label={t("appedit-description")} value={model.description} onChange={(text) => { model.description = text; }} />
    <Section title={t("appedit-inputs")}>
      <InputTable id="ap-inputs" t={t} schema={model.inputs} about={t("appedit-inputs-text")} problems={problemsAt(s, "/inputs")} onChange={(schema) => change(s, () => { model.inputs = Object.keys(schema).length ? schema : undefined; })} />
    </Section>
    <Models s={s} model={model} />
    <Section title={t("appedit-steps")} count={model.steps.length} id="ap-steps"><StepList s={s} steps={model.steps} path="" /></Section>
    <Tools s={s} model={model} />
    <Guards s={s} model={model} />
    <Section title={t("appedit-output")}>
      <div class="bar-form">
        <div class="field"><label for="ap/output/type">{t("appedit-output-type")}</label><select class="select" id="ap/output/type" value={model.output.type} onChange={(e) => { const type = e.currentTarget.value; change(s, () => { model.output.type = type; }); }}><option value="text">{t("appedit-output-text")}</option><option value="json">JSON</option></select></div>
        <Text s={s} path="/output/value" label={t("appedit-output-value")} value={model.output.value} mono wide list="ap-results" placeholder={t("appedit-output-last")} onChange={(text) => { model.output.value = text; }} />
      </div>
    </Section>
  </>;
}

function Models({ s, model }: { s: State; model: AppModel }) {
  const { t, props } = s;
  const add = () => change(s, () => { model.models.push({ name: model.models.length ? `route${model.models.length + 1}` : "main", models: [props.models[0]?.id ?? ""] }); });
  const row = (route: Route, at: number) => {
    const path = `/models/${token(route.name)}`;
    const swap = (i: number, j: number) => change(s, () => { [route.models[i], route.models[j]] = [route.models[j]!, route.models[i]!]; });
    return (
      <div class="ap-route" key={at} role="group" aria-label={`${t("appedit-route")} ${route.name}`}>
        <input class="input mono" id={`ap${path}`} aria-label={`${t("appedit-route-name")} ${at + 1}`} value={route.name} autocomplete="off" spellcheck={false} {...(problemsAt(s, path).length ? { "aria-invalid": "true" as const } : {})} onInput={(e) => { const text = e.currentTarget.value; change(s, () => renameRoute(model, route, text)); }} />
        <ol>{route.models.map((id, i) => <li key={i}>
          <span class="muted small num">{i + 1}</span>
          <input class="input mono" list="ap-models" aria-label={`${route.name}: ${t("appedit-model")} ${i + 1}`} value={id} placeholder="provider/model" autocomplete="off" spellcheck={false} onInput={(e) => { const text = e.currentTarget.value.trim(); change(s, () => { route.models[i] = text; }); }} />
          <IconButton name="up" label={`${t("appedit-up")}: ${id || i + 1}`} disabled={i === 0} onClick={() => swap(i, i - 1)} />
          <IconButton name="close" label={`${t("appedit-remove")}: ${id || i + 1}`} disabled={route.models.length < 2} onClick={() => change(s, () => { route.models.splice(i, 1); })} />
        </li>)}
          <li><button class="btn ghost small" type="button" onClick={() => change(s, () => { route.models.push(""); })}><Icon name="plus" />{t("appedit-add-fallback")}</button></li></ol>
        <IconButton name="close" label={`${t("appedit-remove")}: ${route.name}`} onClick={() => change(s, () => { model.models.splice(at, 1); })} />
        <div class="ap-wrong"><Wrong s={s} path={path} /></div>
      </div>
    );
  };
  return (
    <Section title={t("appedit-models")}>
      <p class="muted small">{t("appedit-models-text")}</p>
      {model.models.map(row)}
      <Wrong s={s} path="/models" below={false} />
      <div><button class="btn small" type="button" onClick={add}><Icon name="plus" />{t("appedit-add-route")}</button></div>
    </Section>
  );
}

/** Policies by name and label, and those that watch the app's calls without being named. */
function Guards({ s, model }: { s: State; model: AppModel }) {
  const { t, props } = s;
  const lost = model.guards.map((one) => reference(one).name).filter((name) => !props.guards.some((policy) => policy.name === name));
  const rows = [...props.guards, ...lost.map((name) => ({ name, labels: [], anyway: [] }))];
  const row = ({ name, labels, anyway }: Props["guards"][number], at: number) => {
    const index = model.guards.findIndex((one) => reference(one).name === name);
    const value = model.guards[index] ?? "";
    const options = [...new Set([value, ...[...labels, "latest"].map((label) => `guard:${name}@${label}`)].filter((one) => one !== ""))];
    const choose = (chosen: string) => change(s, () => { model.guards.splice(index < 0 ? model.guards.length : index, index < 0 ? 0 : 1, ...(chosen ? [chosen] : [])); });
    const watching = anyway.filter((one) => one.app === null || one.app === s.name.value);
    const bad = index >= 0 && problemsAt(s, `/guards/${index}`).length > 0;
    return (
      <div class="ap-guard" key={name}>
        <label class="mono" for={`ap-guard-${at}`}>{name}</label>
        <select class="select" id={`ap-guard-${at}`} value={value} {...(bad ? { "aria-invalid": "true" as const } : {})} onChange={(e) => choose(e.currentTarget.value)}><option value="">{t("appedit-guards-not")}</option>{options.map((one) => <option key={one} value={one}>{one}</option>)}</select>
        {watching.map((one) => <p class="small muted" key={one.text}>{t("appedit-guards-anyway")} {one.text}</p>)}
        {index >= 0 && <Wrong s={s} path={`/guards/${index}`} />}
      </div>
    );
  };
  return (
    <Fold title={t("appedit-guards")} count={model.guards.length ? String(model.guards.length) : ""} open={model.guards.length > 0}>
      <p class="muted small">{t(rows.length ? "appedit-guards-text" : "appedit-guards-none")}</p>
      {rows.map(row)}
      <Wrong s={s} path="/guards" below={false} />
    </Fold>
  );
}

/** Steps that named a route go on naming it. */
function renameRoute(model: AppModel, route: Route, name: string): void {
  const old = route.name;
  route.name = name;
  if (old === "" || name === "") return;
  const follow = (steps: AppModel["steps"]) => { for (const step of steps) { if (step.model === old) step.model = name; follow(step.steps); } };
  follow(model.steps);
}

function Tools({ s, model }: { s: State; model: AppModel }) {
  const { t } = s;
  return (
    <Fold title={t("appedit-tools")} count={model.tools.length ? String(model.tools.length) : ""} open={model.tools.length > 0}>
      <p class="muted small">{t("appedit-tools-text")}</p>
      {model.tools.map((tool, at) => <ToolCard key={at} s={s} model={model} tool={tool} at={at} />)}
      <Wrong s={s} path="/tools" below={false} />
      <div><button class="btn small" type="button" onClick={() => change(s, () => { model.tools.push(newTool(`tool${model.tools.length + 1}`)); })}><Icon name="plus" />{t("appedit-add-tool")}</button></div>
    </Fold>
  );
}

function ToolCard({ s, model, tool, at }: { s: State; model: AppModel; tool: Tool; at: number }) {
  const { t } = s;
  const path = `/tools/${token(tool.name)}`;
  const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];
  return (
    <section class="panel ap-card" data-kind="tool" aria-label={`${t("appedit-tool")} ${tool.name}`}>
      <header><span class="kind" data-kind="tool" /><input class="input quiet mono ap-id" id={`ap${path}`} aria-label={`${t("appedit-tool-name")} ${at + 1}`} value={tool.name} autocomplete="off" spellcheck={false} onInput={(e) => { const text = e.currentTarget.value; change(s, () => { tool.name = text; }); }} />
        <span class="end"><IconButton name="close" label={`${t("appedit-remove")}: ${tool.name}`} onClick={() => change(s, () => { model.tools.splice(at, 1); })} /></span></header>
      <div class="body stack-s">
        <Wrong s={s} path={path} below={false} />
        <div class="bar-form">
          <div class="field"><label for={`ap${path}/method`}>{t("appedit-method")}</label><select class="select" id={`ap${path}/method`} value={tool.method} onChange={(e) => { const text = e.currentTarget.value; change(s, () => { tool.method = text; }); }}>{METHODS.map((one) => <option key={one} value={one}>{one}</option>)}</select></div>
          <Text s={s} path={`${path}/url`} label={t("appedit-url")} value={tool.url} mono wide hint={t("appedit-url-hint")} onChange={(text) => { tool.url = text; }} />
        </div>
        <Text s={s} path={`${path}/description`} label={t("appedit-tool-about")} value={tool.description} hint={t("appedit-tool-about-hint")} onChange={(text) => { tool.description = text; }} />
        <InputTable id={`ap-tool-${at}`} t={t} schema={tool.parameters} about={t("appedit-tool-parameters")} problems={problemsAt(s, `${path}/parameters`)} onChange={(schema) => change(s, () => { tool.parameters = schema; })} />
        <Pairs s={s} path={`${path}/headers`} rows={tool.headers} label={t("appedit-headers")} nameLabel={t("appedit-header")} valueLabel={t("appedit-value")} add={t("appedit-add-header")} />
        <div class="bar-form">
          <Text s={s} path={`${path}/credential`} label={t("appedit-credential")} value={tool.credential} mono wide placeholder="env:MEGURI_TOOL_NAME" hint={t("appedit-credential-hint")} onChange={(text) => { tool.credential = text; }} />
          <Text s={s} path={`${path}/credential_header`} label={t("appedit-credential-header")} value={tool.credential_header} mono placeholder="authorization" onChange={(text) => { tool.credential_header = text; }} />
          <Text s={s} path={`${path}/timeout_ms`} label={t("appedit-timeout")} value={tool.timeout_ms} numeric placeholder="10000" onChange={(text) => { tool.timeout_ms = text; }} />
        </div>
        <JsonArea id={`ap${path}/dry`} label={t("appedit-dry")} hint={t("appedit-dry-hint")} value={tool.dry} bad={t("editor-bad-json")} rows={2} onChange={(value) => change(s, () => { tool.dry = value as Tool["dry"]; })} />
      </div>
    </section>
  );
}

function Foot({ s }: { s: State }) {
  const { t, props } = s;
  const count = s.problems.value.length;
  return (
    <form class="ed-foot" onSubmit={(e) => { e.preventDefault(); void save(s); }}>
      <span class="ap-state small" role="status" data-state={s.checking.value ? "busy" : count ? "bad" : "good"}>{count ? <span class="t-err">{t("appedit-problems", { n: count })}</span> : <span class="muted">{t(s.checking.value ? "appedit-checking" : "appedit-no-problems")}</span>}</span>
      {s.refused.value && <span class="t-err small" role="alert">{s.refused.value}</span>}
      <span class="end row ap-save">
        <input class="input" id="ap-message" aria-label={t("appedit-message")} placeholder={t("appedit-message")} value={s.message.value} autocomplete="off" onInput={(e) => { s.message.value = e.currentTarget.value; }} />
        <a class="btn ghost" href={props.base === null ? `${page.root}/apps` : `${page.root}/apps/show?name=${encodeURIComponent(props.name)}`}>{t("appedit-cancel")}</a>
        <button class="btn primary" disabled={s.saving.value}>{t("appedit-save")}</button>
      </span>
    </form>
  );
}

async function save(s: State): Promise<void> {
  const { t, props } = s;
  if (s.saving.value) return;
  const content = s.tab.value === "json" ? readable(s.text.value) : write(s.model.current);
  const name = (props.base === null ? s.name.value : props.name).trim();
  if (content === null || s.unreadable.value) { s.refused.value = t("appedit-unreadable"); return; }
  if (name === "") {
    s.refused.value = t("appedit-name-missing");
    document.getElementById("ap-name")?.focus();
    return;
  }
  s.saving.value = true;
  s.refused.value = "";
  try {
    const saved = await saveApp(name, content, s.message.value.trim());
    s.changed.value = false;
    location.assign(`${page.root}/apps/show?name=${encodeURIComponent(saved.name)}&version=${saved.version}`);
  } catch (e) {
    s.saving.value = false;
    s.refused.value = e instanceof ApiError ? e.message : t("appedit-network");
  }
}
