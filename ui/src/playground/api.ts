// What the playground asks of the public API, and the shapes it relies on.

import { events, failure, json, post, request, type Schemas } from "../core/api.js";
import { isPlaceholder, type ChatMessage, type JsonObject, type PromptDocument } from "../prompts/document.js";

/** One version in the list; its text is fetched when it is chosen. */
export interface Version { version: number; labels: string[] }
export type { ChatMessage };
export interface Params { temperature: number | null; top_p: number | null; max_tokens: number | null; seed: number | null }
export interface Usage { input: number; output: number }

export const promptPath = (name: string): string => `/api/v1/prompts/${encodeURIComponent(name)}`;

/** Newest first, each with the labels that point to it. */
export async function versions(name: string): Promise<Version[]> {
  const [list, labels] = await Promise.all([
    json<Schemas["Versions"]>(`${promptPath(name)}/versions?limit=200`),
    json<Schemas["Pointers"]>(`${promptPath(name)}/labels`),
  ]);
  const at = (version: number) => labels.items.filter((l) => l.version === version).map((l) => l.label);
  return list.items.map(({ version }) => ({ version, labels: at(version) })).sort((a, b) => b.version - a.version);
}

export const documentOf = async (name: string, version: number): Promise<PromptDocument> =>
  (await json<Schemas["VersionDetail"]>(`${promptPath(name)}/versions/${version}`)).content as PromptDocument;

/** The text that the playground edits: the system messages, or the one text. */
export const systemOf = ({ template, messages = [] }: PromptDocument): string =>
  template ?? messages.flatMap((m) => (!isPlaceholder(m) && m.role === "system" ? [m.content] : [])).join("\n\n");

/** The document with another system text; everything else of it stays. */
export function withSystem(document: PromptDocument | null, system: string): PromptDocument {
  if (!document) return { messages: [{ role: "system", content: system }] };
  if (document.type === "text") return { ...document, template: system };
  const rest = (document.messages ?? []).filter((m) => isPlaceholder(m) || m.role !== "system");
  return { ...document, messages: [...(system.trim() ? [{ role: "system", content: system }] : []), ...rest] };
}

export const saveVersion = (name: string, content: PromptDocument, message: string): Promise<Schemas["Saved"]> =>
  post(`${promptPath(name)}/versions`, { content, message });

/** Moves a label; where it is protected, proposes the move: then there is a proposal. */
export const moveLabel = (name: string, label: string, version: number, reason: string): Promise<{ proposal?: unknown }> =>
  post("/api/v1/proposals", { kind: "prompt", name, label, version, reason });

export const score = (trace_id: string, value: number, comment?: string): Promise<unknown> =>
  post("/api/v1/scores", { trace_id, name: "thumbs", value, ...(comment ? { comment } : {}) } satisfies Schemas["NewScore"]);

export interface Run {
  model: string;
  messages: ChatMessage[];
  params: Params;
  meguri: Record<string, unknown>;
  /** An edited prompt, which runs without being saved. */
  draft: { content: PromptDocument; variables: JsonObject } | null;
  signal: AbortSignal;
  onTrace(id: string | null): void;
  onText(piece: string): void;
  onUsage(usage: Usage): void;
}

/** One streamed chat completion. Resolves when the stream ended cleanly, throws when it did not. */
export async function run({ model, messages, params, meguri, draft, signal, onTrace, onText, onUsage }: Run): Promise<void> {
  const set = Object.fromEntries(Object.entries(params).filter(([, v]) => v !== null));
  const body = JSON.stringify({ model, messages, ...set, stream: true, stream_options: { include_usage: true }, ...(draft ? { ...draft, session: meguri["session"], tags: meguri["tags"] } : { meguri }) });
  const response = await request(draft ? "/api/v1/prompts/try" : "/v1/chat/completions", { method: "POST", body, signal, headers: { accept: "text/event-stream" } });
  onTrace(response.headers.get("x-meguri-trace-id"));
  if (!response.ok) throw await failure(response);
  for await (const { event, data } of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as {
      choices?: { delta?: { content?: string | null } }[];
      usage?: { prompt_tokens: number; completion_tokens: number } | null;
      error?: { message?: string };
    };
    if (chunk.error || event === "error") throw new Error(chunk.error?.message ?? data);
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) onText(piece);
    if (chunk.usage) onUsage({ input: chunk.usage.prompt_tokens, output: chunk.usage.completion_tokens });
  }
  throw new Error("stream_ended_early");
}
