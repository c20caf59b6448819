// The document of an app as the editor holds it: lists of rows where the document has maps, so that a name can be
// half typed and two rows can be called the same for a moment. Pure functions and plain data; the server judges.

import type { Json, JsonObject, PromptDocument } from "../prompts/document.js";

/** A name and an expression (or a header's value). */
export interface Pair { name: string; value: string }
export interface Route { name: string; models: string[] }
export interface Tool {
  name: string; description: string; method: string; url: string; headers: Pair[]; credential: string; credential_header: string;
  parameters: JsonObject; timeout_ms: string; dry: Json | undefined; rest: JsonObject;
}
export const STEP_TYPES = ["prompt", "tool", "agent", "chain", "retrieve", "guard"] as const;
/** Where a policy's rules look, and what a step does where one blocks; the first of each is what holds unsaid. */
export const POINTS = ["input", "output", "retrieved", "tool_arguments", "tool_result"] as const;
export const ON_BLOCK = ["stop", "continue"] as const;
export type StepType = typeof STEP_TYPES[number];

export interface Step {
  id: string; type: StepType; when: string; after: string[];
  /** `prompt:NAME@SELECTOR`, or a prompt that stands in the app. */
  prompt: string | PromptDocument;
  variables: Pair[]; model: string; parameters: JsonObject;
  tool: string; tools: string[]; limits: { steps: string; cost_usd: string; seconds: string };
  for_each: string; steps: Step[];
  index: string; query: string; top_k: string; guard: string; on: string; point: string; on_block: string;
  /** Fields that the form does not know; they travel untouched. */
  rest: JsonObject;
}
export interface AppModel {
  description: string; inputs: JsonObject | undefined; models: Route[]; guards: string[]; tools: Tool[]; steps: Step[];
  output: { type: string; value: string }; rest: JsonObject;
}

const object = (value: unknown): JsonObject => (value !== null && typeof value === "object" && !Array.isArray(value) ? value as JsonObject : {});
const list = (value: unknown): Json[] => (Array.isArray(value) ? value as Json[] : []);
const text = (value: unknown): string => (typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value));
const texts = (value: unknown): string[] => list(value).map(text);
const pairs = (value: unknown): Pair[] => Object.entries(object(value)).map(([name, one]) => ({ name, value: text(one) }));

/** What each type of step has besides `id`, `type`, `when` and `after`. */
export const FIELDS: Record<StepType, readonly (keyof Step)[]> = {
  prompt: ["prompt", "variables", "model", "parameters"],
  agent: ["prompt", "variables", "model", "parameters", "tools", "limits"],
  tool: ["tool", "variables"],
  chain: ["for_each", "steps"],
  retrieve: ["index", "query", "top_k"],
  guard: ["guard", "on", "point", "on_block"],
};

export function newStep(type: StepType, id: string): Step {
  return {
    id, type, when: "", after: [], prompt: type === "agent" ? { messages: [{ role: "user", content: "{{ question }}" }] } : "", variables: [], model: "", parameters: {}, tool: "", tools: [],
    limits: { steps: "", cost_usd: "", seconds: "" }, for_each: "", steps: [], index: "", query: "", top_k: "", guard: "", on: "", point: "", on_block: "", rest: {},
  };
}
export const newTool = (name: string): Tool => ({
  name, description: "", method: "GET", url: "", headers: [], credential: "", credential_header: "", parameters: {}, timeout_ms: "", dry: undefined, rest: {},
});

function readStep(value: unknown): Step {
  const { id, type, when, after, prompt, variables, model, parameters, tool, arguments: given, tools, limits, for_each, steps, index, query, top_k, guard, on, point, on_block, ...rest } = object(value);
  const kind = STEP_TYPES.find((one) => one === type) ?? "prompt";
  const bounds = object(limits);
  return {
    id: text(id), type: kind, when: text(when), after: texts(after),
    prompt: typeof prompt === "string" || prompt === undefined ? text(prompt) : object(prompt) as PromptDocument,
    variables: pairs(kind === "tool" ? given : variables), model: text(model), parameters: object(parameters),
    tool: text(tool), tools: texts(tools), limits: { steps: text(bounds["steps"]), cost_usd: text(bounds["cost_usd"]), seconds: text(bounds["seconds"]) },
    for_each: text(for_each), steps: list(steps).map(readStep),
    index: text(index), query: text(query), top_k: text(top_k), guard: text(guard), on: text(on), point: text(point), on_block: text(on_block), rest,
  };
}

function readTool([name, value]: [string, unknown]): Tool {
  const { type: _type, description, method, url, headers, credential, credential_header, parameters, timeout_ms, dry, ...rest } = object(value);
  return {
    name, description: text(description), method: text(method) || "GET", url: text(url), headers: pairs(headers), credential: text(credential),
    credential_header: text(credential_header), parameters: object(parameters), timeout_ms: text(timeout_ms), dry: dry as Json | undefined, rest,
  };
}

export function read(document: unknown): AppModel {
  const { description, inputs, models, guards, tools, steps, output, ...rest } = object(document);
  const out = object(output);
  return {
    description: text(description), inputs: inputs === undefined ? undefined : object(inputs), rest,
    models: Object.entries(object(models)).map(([name, routes]) => ({ name, models: texts(routes) })),
    guards: texts(guards), tools: Object.entries(object(tools)).map(readTool), steps: list(steps).map(readStep),
    output: { type: text(out["type"]) || "text", value: text(out["value"]) },
  };
}

const map = (rows: Pair[]): JsonObject => Object.fromEntries(rows.filter((row) => row.name !== "").map((row) => [row.name, row.value]));
/** A number where the text is one; else the text, so that the server can say what is wrong with it. */
const number = (value: string): Json => (value.trim() === "" || Number.isNaN(Number(value)) ? value : Number(value));
const isEmpty = (value: Json | undefined): boolean =>
  value === undefined || value === "" || (Array.isArray(value) ? value.length === 0 : typeof value === "object" && value !== null && Object.keys(value).length === 0);
/** Leaves out what says nothing, so that the same app is the same document however it was typed. */
const said = (fields: { [key: string]: Json | undefined }): JsonObject =>
  Object.fromEntries(Object.entries(fields).filter((entry): entry is [string, Json] => !isEmpty(entry[1])));

function writeStep(step: Step): JsonObject {
  const has = (field: keyof Step) => FIELDS[step.type].includes(field);
  const { limits } = step;
  return {
    id: step.id, type: step.type,
    ...(has("prompt") ? { prompt: step.prompt as Json } : {}), ...(step.type === "tool" ? { tool: step.tool } : {}),
    ...(step.type === "retrieve" ? { index: step.index, query: step.query } : {}), ...(step.type === "guard" ? { guard: step.guard, on: step.on } : {}),
    ...said({
      [step.type === "tool" ? "arguments" : "variables"]: has("variables") ? map(step.variables) : undefined,
      model: has("model") ? step.model : undefined, parameters: has("parameters") ? step.parameters : undefined,
      tools: has("tools") ? step.tools : undefined, top_k: has("top_k") ? number(step.top_k) : undefined,
      limits: has("limits") ? said({ steps: number(limits.steps), cost_usd: number(limits.cost_usd), seconds: number(limits.seconds) }) : undefined,
      point: has("point") && step.point !== "input" ? step.point : undefined, on_block: has("on_block") && step.on_block !== "stop" ? step.on_block : undefined,
      when: step.when, after: step.after, for_each: has("for_each") ? step.for_each : undefined,
    }),
    ...(step.type === "chain" ? { steps: step.steps.map(writeStep) } : {}), ...step.rest,
  };
}

function writeTool(tool: Tool): JsonObject {
  return {
    type: "http", ...said({ description: tool.description, method: tool.method === "GET" ? "" : tool.method }), url: tool.url,
    ...said({ headers: map(tool.headers), credential: tool.credential, credential_header: tool.credential_header, parameters: tool.parameters, timeout_ms: number(tool.timeout_ms) }),
    ...(tool.dry === undefined ? {} : { dry: tool.dry }), ...tool.rest,
  };
}

export function write(model: AppModel): JsonObject {
  const named = <T extends { name: string }>(rows: T[], value: (row: T) => Json) => Object.fromEntries(rows.filter((row) => row.name !== "").map((row) => [row.name, value(row)]));
  return {
    ...said({
      description: model.description, inputs: model.inputs,
      models: named(model.models, (route) => route.models.filter((one) => one !== "")), guards: model.guards,
      tools: named(model.tools, writeTool),
    }),
    steps: model.steps.map(writeStep),
    ...said({ output: said({ type: model.output.type === "text" ? "" : model.output.type, value: model.output.value }) }), ...model.rest,
  };
}

export const print = (model: AppModel): string => JSON.stringify(write(model), null, 2);

/** Every step with its JSON Pointer, those inside chains too. */
export function everyStep(steps: Step[], path = ""): { step: Step; path: string }[] {
  return steps.flatMap((step, at) => [{ step, path: `${path}/steps/${at}` }, ...everyStep(step.steps, `${path}/steps/${at}`)]);
}

/** An id that no step has yet. */
export function freeId(model: AppModel, stem: string): string {
  const taken = new Set(everyStep(model.steps).map(({ step }) => step.id));
  for (let n = 1; ; n++) {
    const id = n === 1 ? stem : `${stem}${n}`;
    if (!taken.has(id)) return id;
  }
}

/** What an expression of this step can begin with: the inputs, and the results of the steps that stand before it. */
export function offers(model: AppModel, path: string): string[] {
  const inputs = Object.keys(object(model.inputs?.["properties"]));
  const found = (inputs.length ? inputs : ["question"]).map((name) => `inputs.${name}`);
  const group = path.slice(0, path.lastIndexOf("/steps/"));
  const inLoop = everyStep(model.steps).some(({ step, path: other }) => step.for_each !== "" && path.startsWith(`${other}/`));
  for (const { step, path: other } of everyStep(model.steps)) {
    if (other === path || path.startsWith(`${other}/`)) continue;
    const theirs = other.slice(0, other.lastIndexOf("/steps/"));
    if (theirs === group || group.startsWith(`${theirs}/`)) found.push(`steps.${step.id}.text`, `steps.${step.id}.json`);
  }
  return inLoop ? ["item", "index", ...found] : found;
}

/** `prompt:NAME@SELECTOR`, or another kind's, in its two parts. */
export function reference(value: string): { name: string; selector: string } {
  const body = value.replace(/^[a-z_]+:/, "");
  const at = body.lastIndexOf("@");
  return at < 0 ? { name: body, selector: "production" } : { name: body.slice(0, at), selector: body.slice(at + 1) };
}
export const referenceTo = (name: string, selector: string): string => (name === "" ? "" : `prompt:${name}@${selector || "production"}`);

/** Tokens of JSON, for colours only. */
export function jsonTokens(source: string, limit = 200_000): { from: number; to: number; kind: "name" | "text" | "number" | "word" }[] {
  const found = [];
  for (const match of source.slice(0, limit).matchAll(/("(?:[^"\\\n]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g)) {
    const kind = match[1] ? (match[2] ? "name" : "text") : match[3] ? "number" : "word";
    found.push({ from: match.index, to: match.index + (match[1] ?? match[0]).length, kind } as const);
  }
  return found;
}
