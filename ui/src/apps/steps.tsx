// The steps of an app as forms, one card each, and the cards of a chain inside its own.

import { useEffect, useState } from "preact/hooks";
import { ROLES, isPlaceholder, loopNamesIn, namesIn, rowsOf, texts, type JsonObject, type PromptDocument } from "../prompts/document.js";
import { Field } from "../prompts/field.js";
import { Icon, IconButton, JsonArea, ModelOptions } from "../prompts/parts.js";
import { labelsOf, promptAt } from "./api.js";
import { ON_BLOCK, POINTS, STEP_TYPES, everyStep, freeId, newStep, offers, reference, referenceTo, type Step, type StepType } from "./model.js";
import { Pairs, Text, Wrong } from "./parts.js";
import { change, problemsAt, type State } from "./state.js";

let nextKey = 1;
const keys = new WeakMap<Step, number>();
const keyOf = (step: Step): number => {
  const key = keys.get(step) ?? nextKey++;
  keys.set(step, key);
  return key;
};

/** Steps whose cards are folded. */
const folded = new WeakSet<Step>();

export function StepList({ s, steps, path }: { s: State; steps: Step[]; path: string }) {
  const { t } = s;
  const add = (type: StepType) => change(s, () => {
    const step = newStep(type, freeId(s.model.current, type === "prompt" ? "step" : type));
    const first = s.model.current.models[0];
    if (first && (type === "prompt" || type === "agent")) step.model = first.name;
    if (type === "tool") step.tool = s.model.current.tools[0]?.name ?? "";
    if (type === "chain") step.steps = [newStep("prompt", freeId(s.model.current, "inner"))];
    steps.push(step);
  });
  return (
    <div class="ap-steps">
      {steps.map((step, at) => <Card key={keyOf(step)} s={s} steps={steps} step={step} at={at} path={`${path}/steps/${at}`} />)}
      <Wrong s={s} path={`${path}/steps`} below={false} />
      <div class="row tight ap-add"><span class="muted small">{t("appedit-add-step")}</span>
        {STEP_TYPES.filter((type) => type !== "retrieve").map((type) => <button class="btn small" type="button" key={type} onClick={() => add(type)}><Icon name="plus" />{t(`appedit-type-${type}`)}</button>)}
      </div>
    </div>
  );
}

function Card({ s, steps, step, at, path }: { s: State; steps: Step[]; step: Step; at: number; path: string }) {
  const { t } = s;
  const [open, show] = useState(!folded.has(step));
  const setOpen = (on: boolean) => { if (on) folded.delete(step); else folded.add(step); show(on); };
  const move = (by: number) => {
    // A new key draws the card anew instead of moving it: Chromium 156 dies of `moveBefore` on a card (Preact uses it).
    keys.delete(step);
    change(s, () => { steps.splice(at, 1); steps.splice(at + by, 0, step); });
    const label = `${t(by < 0 ? "appedit-up" : "appedit-down")}: ${step.id}`;
    requestAnimationFrame(() => document.querySelector<HTMLButtonElement>(`#${CSS.escape(`step-${step.id}`)} button[aria-label="${CSS.escape(label)}"]`)?.focus());
  };
  const bad = problemsAt(s, path).length;
  const list = `ap-list-${keyOf(step)}`;
  return (
    <section class="panel ap-card" id={`step-${step.id}`} data-kind={step.type} aria-label={t("appedit-step-n", { id: step.id || at + 1 })}>
      <header>
        <button class="btn ghost small icon-only ap-turn" type="button" aria-expanded={open} aria-label={t("appedit-step-n", { id: step.id || at + 1 })} onClick={() => setOpen(!open)}><Icon name="right" /></button>
        <span class="kind" data-kind={step.type} />
        <input class="input quiet mono ap-id" id={`ap${path}/id`} aria-label={t("appedit-id")} value={step.id} placeholder="id" autocomplete="off" spellcheck={false} {...(problemsAt(s, `${path}/id`).length ? { "aria-invalid": "true" as const } : {})} onInput={(e) => { const text = e.currentTarget.value; change(s, () => rename(s, step, text)); }} />
        <select class="select auto quiet" aria-label={t("appedit-type")} value={step.type} onChange={(e) => { const type = e.currentTarget.value as StepType; change(s, () => { step.type = type; step.rest = {}; if (type === "agent" && step.prompt === "") step.prompt = newStep("agent", "").prompt; }); }}>{STEP_TYPES.map((type) => <option key={type} value={type}>{t(`appedit-type-${type}`)}</option>)}</select>
        {!open && bad > 0 && <span class="badge err">{bad}</span>}
        <span class="end row tight">
          <IconButton name="up" label={`${t("appedit-up")}: ${step.id}`} disabled={at === 0} onClick={() => move(-1)} />
          <IconButton name="down" label={`${t("appedit-down")}: ${step.id}`} disabled={at === steps.length - 1} onClick={() => move(1)} />
          <IconButton name="close" label={`${t("appedit-remove")}: ${step.id}`} onClick={() => change(s, () => { steps.splice(at, 1); })} />
        </span>
      </header>
      {open && <div class="body stack-s">
        <Wrong s={s} path={path} below={false} /><Wrong s={s} path={`${path}/id`} /><Wrong s={s} path={`${path}/type`} />
        <datalist id={list}>{offers(s.model.current, path).map((one) => <option key={one} value={one} />)}</datalist>
        <Body s={s} step={step} path={path} list={list} />
        <More s={s} steps={steps} step={step} path={path} list={list} />
      </div>}
    </section>
  );
}

/** A step that is called something else keeps what is said about it: expressions and `after` follow. */
function rename(s: State, step: Step, id: string): void {
  const old = step.id;
  step.id = id;
  if (old === "" || id === "" || !/^[\p{L}_][\p{L}\p{N}_]*$/u.test(id)) return;
  if (everyStep(s.model.current.steps).some((other) => other.step !== step && (other.step.id === old || other.step.id === id))) return;
  const mention = new RegExp(`(?<![\\p{L}\\p{N}_.])steps\\.${old}(?![\\p{L}\\p{N}_])`, "gu");
  const follow = (text: string) => text.replace(mention, `steps.${id}`);
  for (const { step: one } of everyStep(s.model.current.steps)) {
    for (const row of one.variables) row.value = follow(row.value);
    one.when = follow(one.when); one.for_each = follow(one.for_each); one.query = follow(one.query); one.on = follow(one.on);
    one.after = one.after.map((other) => (other === old ? id : other));
  }
  s.model.current.output.value = follow(s.model.current.output.value);
}

function Body({ s, step, path, list }: { s: State; step: Step; path: string; list: string }) {
  const { t } = s;
  const tools = s.model.current.tools.map((tool) => tool.name).filter((name) => name !== "");
  switch (step.type) {
    case "prompt": return <Asking s={s} step={step} path={path} list={list} />;
    case "agent": return <>
      <Asking s={s} step={step} path={path} list={list} />
      <fieldset class="field"><legend class="ap-label">{t("appedit-tools")}</legend>
        {tools.length === 0 ? <p class="hint">{t("appedit-no-tools")}</p> : <div class="row">{tools.map((name) => <label class="check" key={name}><input type="checkbox" checked={step.tools.includes(name)} onChange={(e) => { const on = e.currentTarget.checked; change(s, () => { step.tools = on ? [...step.tools, name] : step.tools.filter((one) => one !== name); }); }} /><span class="mono">{name}</span></label>)}</div>}
        <Wrong s={s} path={`${path}/tools`} /></fieldset>
      <div class="bar-form">
        {(["steps", "cost_usd", "seconds"] as const).map((key) => <Text key={key} s={s} path={`${path}/limits/${key}`} label={t(`appedit-limit-${key}`)} value={step.limits[key]} numeric placeholder={{ steps: "8", cost_usd: "–", seconds: "120" }[key]} onChange={(text) => { step.limits[key] = text; }} />)}
      </div></>;
    case "tool": return <>
      <div class="field"><label for={`ap${path}/tool`}>{t("appedit-tool")}</label>
        <select class="select" id={`ap${path}/tool`} value={step.tool} {...(problemsAt(s, `${path}/tool`).length ? { "aria-invalid": "true" as const } : {})} onChange={(e) => { const name = e.currentTarget.value; change(s, () => { step.tool = name; }); }}><option value="">{t("appedit-choose")}</option>{[...new Set([...tools, step.tool].filter((x) => x))].map((name) => <option key={name} value={name}>{name}</option>)}</select>
        <Wrong s={s} path={`${path}/tool`} />{tools.length === 0 && <p class="hint">{t("appedit-no-tools")}</p>}</div>
      <Pairs s={s} path={`${path}/arguments`} rows={step.variables} label={t("appedit-arguments")} nameLabel={t("appedit-argument")} valueLabel={t("appedit-expression")} add={t("appedit-add-argument")} list={list} wanted={rowsOf(s.model.current.tools.find((tool) => tool.name === step.tool)?.parameters).map((row) => row.name)} guess={(name) => guess(s, path, name)} /></>;
    case "chain": return <>
      <Text s={s} path={`${path}/for_each`} label={t("appedit-for-each")} value={step.for_each} mono list={list} hint={t("appedit-for-each-hint")} placeholder="steps.list.json.items" onChange={(text) => { step.for_each = text; }} />
      <StepList s={s} steps={step.steps} path={path} /></>;
    case "retrieve": return <><p class="hint">{t("appedit-later")}</p>
      <Text s={s} path={`${path}/index`} label={t("appedit-index")} value={step.index} mono placeholder="index:NAME@production" onChange={(text) => { step.index = text; }} />
      <Text s={s} path={`${path}/query`} label={t("appedit-query")} value={step.query} mono list={list} onChange={(text) => { step.query = text; }} />
      <Text s={s} path={`${path}/top_k`} label={t("appedit-top-k")} value={step.top_k} numeric onChange={(text) => { step.top_k = text; }} /></>;
    case "guard": return <>
      <Text s={s} path={`${path}/guard`} label={t("appedit-guard")} value={step.guard} mono placeholder="guard:NAME@production" onChange={(text) => { step.guard = text; }} />
      <Text s={s} path={`${path}/on`} label={t("appedit-on")} value={step.on} mono list={list} onChange={(text) => { step.on = text; }} />
      <div class="bar-form">
        <div class="field"><label for={`ap${path}/point`}>{t("appedit-point")}</label>
          <select class="select" id={`ap${path}/point`} value={step.point || POINTS[0]} onChange={(e) => { const point = e.currentTarget.value; change(s, () => { step.point = point; }); }}>{POINTS.map((point) => <option key={point} value={point}>{t(`appedit-point-${point}`)}</option>)}</select><Wrong s={s} path={`${path}/point`} /></div>
        <div class="field"><label for={`ap${path}/on_block`}>{t("appedit-on-block")}</label>
          <select class="select" id={`ap${path}/on_block`} value={step.on_block || ON_BLOCK[0]} onChange={(e) => { const then = e.currentTarget.value; change(s, () => { step.on_block = then; }); }}>{ON_BLOCK.map((then) => <option key={then} value={then}>{t(`appedit-on-block-${then}`)}</option>)}</select><Wrong s={s} path={`${path}/on_block`} /></div>
      </div></>;
  }
}

/** An input of the same name is most likely meant; else the step before. */
function guess(s: State, path: string, name: string): string {
  const all = offers(s.model.current, path);
  return all.find((one) => one === `inputs.${name}`) ?? all.findLast((one) => one.endsWith(".text")) ?? all[0] ?? "";
}

const readBy = (document: PromptDocument): string[] => {
  const read = texts(document).flatMap((text) => namesIn(text).filter((name) => !loopNamesIn(text).includes(name)));
  return [...new Set([...rowsOf(document.inputs).map((row) => row.name), ...read])].filter((name) => !["partials", "examples", "loop"].includes(name));
};

function Asking({ s, step, path, list }: { s: State; step: Step; path: string; list: string }) {
  const { t, props } = s;
  const inline = typeof step.prompt !== "string";
  const wanted = typeof step.prompt === "string" ? s.reads.value[step.prompt] ?? [] : readBy(step.prompt);
  const known = s.model.current.models.map((route) => route.name).filter((name) => name !== "");
  return <>
    <div class="row"><span class="ap-label">{t("appedit-prompt")}</span>
      <span class="seg" role="group" aria-label={t("appedit-prompt")}>
        <button type="button" aria-pressed={!inline} onClick={() => change(s, () => { if (inline) step.prompt = ""; })}>{t("appedit-from-catalog")}</button>
        <button type="button" aria-pressed={inline} onClick={() => change(s, () => { if (!inline) step.prompt = { messages: [{ role: "user", content: "" }] }; })}>{t("appedit-written-here")}</button>
      </span></div>
    {typeof step.prompt === "string" ? <Picker s={s} step={step} path={path} value={step.prompt} /> : <Inline s={s} prompt={step.prompt} path={`${path}/prompt`} />}
    <Pairs s={s} path={`${path}/variables`} rows={step.variables} label={t("appedit-variables")} nameLabel={t("appedit-variable")} valueLabel={t("appedit-expression")} add={t("appedit-add-variable")} list={list} wanted={wanted} guess={(name) => guess(s, path, name)} />
    <div class="field"><label for={`ap${path}/model`}>{t("appedit-model")}</label>
      <select class="select" id={`ap${path}/model`} value={step.model} {...(problemsAt(s, `${path}/model`).length ? { "aria-invalid": "true" as const } : {})} onChange={(e) => { const model = e.currentTarget.value; change(s, () => { step.model = model; }); }}>
        <option value="">{t("appedit-own-model")}</option>
        {known.length > 0 && <optgroup label={t("appedit-models")}>{known.map((name) => <option key={name} value={name}>{name}</option>)}</optgroup>}
        {step.model !== "" && !known.includes(step.model) && !props.models.some((m) => m.id === step.model) && <option value={step.model}>{step.model}</option>}
        <ModelOptions models={props.models} local={t("appedit-local")} />
      </select><Wrong s={s} path={`${path}/model`} /></div>
  </>;
}

/** A prompt of the catalog by name and label; what it reads is asked for, so that its variables can be offered. */
function Picker({ s, step, path, value }: { s: State; step: Step; path: string; value: string }) {
  const { t, props } = s;
  const { name, selector } = reference(value);
  const exists = props.prompts.includes(name);
  useEffect(() => {
    if (!exists) return;
    let live = true;
    if (!(name in s.labels.value)) labelsOf(name).then((labels) => { if (live) s.labels.value = { ...s.labels.value, [name]: labels }; }, () => undefined);
    if (!(value in s.reads.value)) promptAt(name, selector).then((document) => { if (live) s.reads.value = { ...s.reads.value, [value]: readBy(document) }; }, () => undefined);
    return () => { live = false; };
  }, [value, exists]);
  const selectors = [...new Set([...(s.labels.value[name] ?? []), "latest", selector])];
  const bad = problemsAt(s, `${path}/prompt`).length > 0;
  return (
    <div class="bar-form">
      <div class="field wide"><label for={`ap${path}/prompt`}>{t("appedit-prompt-name")}</label>
        <input class="input mono" id={`ap${path}/prompt`} value={name} list="ap-prompts" placeholder="support/answer" autocomplete="off" spellcheck={false} {...(bad ? { "aria-invalid": "true" as const } : {})} onInput={(e) => { const text = e.currentTarget.value.trim(); change(s, () => { step.prompt = referenceTo(text, selector); }); }} />
        <Wrong s={s} path={`${path}/prompt`} /></div>
      <div class="field"><label for={`ap${path}/prompt@`}>{t("appedit-selector")}</label>
        <select class="select" id={`ap${path}/prompt@`} value={selector} onChange={(e) => { const text = e.currentTarget.value; change(s, () => { step.prompt = referenceTo(name, text); }); }}>{selectors.map((one) => <option key={one} value={one}>{one}</option>)}</select></div>
    </div>
  );
}

/** A prompt that stands in the app: its messages. What else it has stays as it is. */
function Inline({ s, prompt, path }: { s: State; prompt: PromptDocument; path: string }) {
  const { t } = s;
  const names = () => readBy(prompt).map((name) => ({ name, detail: "" }));
  const marks = (place: string) => problemsAt(s, place).map((p) => ({ message: p.message, line: null }));
  if (prompt.type === "text") {
    return <div class="ap-text"><Field value={prompt.template ?? ""} label={t("appedit-text")} names={names} problems={marks(`${path}/template`)} onChange={(text) => change(s, () => { prompt.template = text; })} /></div>;
  }
  const messages = prompt.messages ?? [];
  return (
    <div class="ap-messages">
      {messages.map((message, at) => (
        <div class="ap-message" key={at}>
          <div class="row tight">
            {isPlaceholder(message)
              ? <span class="badge">{message.placeholder}</span>
              : <select class="select auto quiet" aria-label={`${t("appedit-role")} ${at + 1}`} value={message.role} onChange={(e) => { const role = e.currentTarget.value; change(s, () => { message.role = role; }); }}>{ROLES.map((role) => <option key={role} value={role}>{role}</option>)}</select>}
            <span class="end"><IconButton name="close" label={`${t("appedit-remove")}: ${t("appedit-message-n", { n: at + 1 })}`} disabled={messages.length < 2} onClick={() => change(s, () => { messages.splice(at, 1); })} /></span>
          </div>
          {!isPlaceholder(message) && <div class="ap-text"><Field value={message.content} label={t("appedit-message-n", { n: at + 1 })} names={names} problems={marks(`${path}/messages/${at}`)} onChange={(text) => { if (text !== message.content) change(s, () => { message.content = text; }); }} /></div>}
        </div>
      ))}
      <Wrong s={s} path={path} below={false} /><Wrong s={s} path={`${path}/messages`} />
      <div><button class="btn ghost small" type="button" onClick={() => change(s, () => { prompt.messages = [...messages, { role: messages.length ? "user" : "system", content: "" }]; })}><Icon name="plus" />{t("appedit-add-message")}</button></div>
    </div>
  );
}

/** What most steps do without: a condition, an order, parameters. */
function More({ s, steps, step, path, list }: { s: State; steps: Step[]; step: Step; path: string; list: string }) {
  const { t } = s;
  const others = steps.filter((other) => other !== step && other.id !== "");
  const asks = step.type === "prompt" || step.type === "agent";
  const used = [step.when !== "", step.after.length > 0, asks && Object.keys(step.parameters).length > 0].filter(Boolean).length;
  const [open, setOpen] = useState(used > 0);
  return (
    <details class="ap-more" open={open} onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary><Icon name="right" />{t("appedit-more")}{used > 0 && <span class="badge">{used}</span>}</summary>
      {open && <div class="stack-s">
        <Text s={s} path={`${path}/when`} label={t("appedit-when")} value={step.when} mono list={list} hint={t("appedit-when-hint")} placeholder={'steps.triage.text == "order"'} onChange={(text) => { step.when = text; }} />
        {others.length > 0 && <fieldset class="field"><legend class="ap-label">{t("appedit-after")}</legend>
          <div class="row">{others.map((other) => <label class="check" key={other.id}><input type="checkbox" checked={step.after.includes(other.id)} onChange={(e) => { const on = e.currentTarget.checked; change(s, () => { step.after = on ? [...step.after, other.id] : step.after.filter((id) => id !== other.id); }); }} /><span class="mono">{other.id}</span></label>)}</div>
          <Wrong s={s} path={`${path}/after`} /></fieldset>}
        {asks && <><JsonArea id={`ap${path}/parameters`} label={t("appedit-parameters")} hint={t("appedit-parameters-hint")} value={Object.keys(step.parameters).length ? step.parameters : undefined} bad={t("editor-bad-json")} rows={3} onChange={(value) => change(s, () => { step.parameters = (value ?? {}) as JsonObject; })} /><Wrong s={s} path={`${path}/parameters`} /></>}
      </div>}
    </details>
  );
}
