// The document of a prompt as the islands edit it: plain data and pure functions, no DOM, no signals.
// The server's schema (/api/v1/catalog/prompt/schema) is the authority; what is not edited here travels untouched.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface ChatMessage { role: string; content: string }
export interface Placeholder { placeholder: string }
export type Message = ChatMessage | Placeholder;
export interface Example { inputs: JsonObject; output: Json }
export interface Examples { items: Example[]; template?: string; show?: string; select?: { k: number; by: string; input?: string } }

export interface PromptDocument {
  type?: "chat" | "text";
  dialect?: "jinja" | "simple";
  description?: string;
  template?: string;
  messages?: Message[];
  inputs?: JsonObject;
  examples?: Examples;
  partials?: Record<string, string>;
  model?: string;
  parameters?: JsonObject;
  response_format?: Json;
  tools?: Json[];
  [more: string]: unknown;
}

export const ROLES = ["system", "user", "assistant"] as const;
export const TYPES = ["string", "integer", "number", "boolean", "array", "object"] as const;

export const isPlaceholder = (m: Message): m is Placeholder => "placeholder" in m;

/** One input as a row of the table. Cells hold text; `rest` is what the table does not show. */
export interface InputRow { name: string; type: string; required: boolean; initial: string; example: string; description: string; rest: JsonObject }

const object = (value: unknown): JsonObject => (value !== null && typeof value === "object" && !Array.isArray(value) ? value as JsonObject : {});

/** The text of a cell: strings as they are, an empty one as "", anything else as JSON. */
export function cellText(value: Json | undefined): string {
  if (value === undefined) return "";
  if (typeof value === "string") return value === "" || /^".*"$/s.test(value) ? JSON.stringify(value) : value;
  return JSON.stringify(value);
}

/** The value of a cell: nothing when empty; JSON where the type is no string and it reads as JSON, else the text. */
export function cellValue(text: string, type: string): Json | undefined {
  if (text === "") return undefined;
  if (type !== "string" || /^".*"$/s.test(text)) {
    try { return JSON.parse(text) as Json; } catch { return text; }
  }
  return text;
}

export function rowsOf(schema: JsonObject | undefined): InputRow[] {
  const required = new Set(Array.isArray(schema?.["required"]) ? schema["required"] : []);
  return Object.entries(object(schema?.["properties"])).map(([name, property]) => {
    const { type, default: initial, examples, description, ...rest } = object(property);
    const [first, ...others] = Array.isArray(examples) ? examples : [];
    return {
      name, required: required.has(name),
      type: typeof type === "string" ? type : "",
      initial: cellText(initial), example: cellText(first),
      description: typeof description === "string" ? description : "",
      rest: { ...rest, ...(type !== undefined && typeof type !== "string" ? { type } : {}), ...(others.length ? { examples: [null, ...others] } : {}) },
    };
  });
}

/** The schema of these rows, with the rest of `before` kept. Nothing when there are no rows and nothing else. */
export function schemaOf(rows: InputRow[], before: JsonObject | undefined): JsonObject | undefined {
  const { properties: _properties, required: _required, type: _type, ...more } = before ?? {};
  const named = rows.filter((row) => row.name.trim() !== "");
  if (!named.length && !Object.keys(more).length) return undefined;
  const properties: JsonObject = {};
  for (const row of named) {
    const { examples: others, ...rest } = row.rest;
    const property: JsonObject = {};
    if (row.type) property["type"] = row.type;
    if (row.description) property["description"] = row.description;
    const initial = cellValue(row.initial, row.type);
    if (initial !== undefined) property["default"] = initial;
    const example = cellValue(row.example, row.type);
    const later = Array.isArray(others) ? others.slice(1) : [];
    if (example !== undefined || later.length) property["examples"] = [...(example === undefined ? [] : [example]), ...later];
    properties[row.name.trim()] = { ...rest, ...property };
  }
  const required = named.filter((row) => row.required).map((row) => row.name.trim());
  return { type: "object", ...(required.length ? { required } : {}), properties, ...more };
}

/** What the samples start with: the first example, else the default, else nothing. */
export function samplesOf(schema: JsonObject | undefined): Record<string, string> {
  return Object.fromEntries(rowsOf(schema).map((row) => [row.name, row.example || row.initial]));
}

/** The texts of a form of inputs as the values that a call sends. An empty text is left out, so that a default counts. */
export function valuesOf(texts: Record<string, string>, schema: JsonObject | undefined): JsonObject {
  const types = new Map(rowsOf(schema).map((row) => [row.name, row.type]));
  const entries = Object.entries(texts).map(([name, text]) => [name, cellValue(text, types.get(name) ?? "string")] as const);
  return Object.fromEntries(entries.filter((entry): entry is readonly [string, Json] => entry[1] !== undefined));
}

/** The names that a template's expressions read; only a hint for completion, the server knows exactly. */
export function namesIn(template: string): string[] {
  const inside = [...template.matchAll(/\{\{-?\s*([\p{L}_][\p{L}\p{N}_]*)/gu), ...template.matchAll(/\{%-?\s*for\s+[^%]*?\bin\s+([\p{L}_][\p{L}\p{N}_]*)/gu), ...template.matchAll(/\{%-?\s*(?:el)?if\s+(?:not\s+)?([\p{L}_][\p{L}\p{N}_]*)/gu)];
  return [...new Set(inside.map((m) => m[1]!))];
}

/** `x` of `{% for x in xs %}` is no input. */
export function loopNamesIn(template: string): string[] {
  return [...template.matchAll(/\{%-?\s*for\s+([^%]+?)\s+in\b/g)].flatMap((m) => m[1]!.split(",").map((name) => name.trim()));
}

export function texts(document: PromptDocument): string[] {
  if (document.type === "text") return [document.template ?? ""];
  return (document.messages ?? []).flatMap((m) => (isPlaceholder(m) ? [] : [m.content]));
}

/** Leaves out what says nothing, so that the same prompt is the same document however it was typed. */
export function tidy(document: PromptDocument): PromptDocument {
  const out: PromptDocument = {};
  for (const [key, value] of Object.entries(document)) {
    if (value === undefined || value === "" || value === null) continue;
    if (Array.isArray(value) && !value.length) continue;
    if (typeof value === "object" && !Array.isArray(value) && !Object.keys(value as object).length) continue;
    if (key === "type" && value === "chat") continue;
    if (key === "dialect" && value === "jinja") continue;
    if (key === "examples" && !(value as Examples).items?.length) continue;
    out[key] = value;
  }
  if (out.type === "text") delete out.messages;
  else delete out.template;
  return out;
}

export const copyOf = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

/** Switches between one text and messages without losing what was written. */
export function withType(document: PromptDocument, type: "chat" | "text"): PromptDocument {
  if (type === (document.type ?? "chat")) return document;
  if (type === "text") return { ...document, type, template: texts(document).join("\n\n"), messages: [] };
  return { ...document, type, messages: [{ role: "system", content: document.template ?? "" }], template: "" };
}

/** A place in a document, as problems name it, for people: "/messages/0/content" → message 1. */
export function placeOf(path: string): { part: string; index: number | null } {
  const [part = "", index] = path.replace(/^\//, "").split("/");
  return { part, index: index !== undefined && /^\d+$/.test(index) ? Number(index) : null };
}
