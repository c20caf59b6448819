// What the playground asks of the public API, and the shapes it relies on.

import { events, failure, json, post, put, request, type Schemas } from "../core/api.js";

/** One version in the list; its text is fetched when it is chosen. */
export interface Version { version: number; labels: string[] }
export type ChatMessage = Schemas["PromptMessage"];
export interface Params { temperature: number | null; top_p: number | null; max_tokens: number | null; seed: number | null }
export interface Usage { input: number; output: number }

export const promptPath = (name: string): string => `/api/v1/prompts/${encodeURIComponent(name)}`;

/** Newest first, each with the labels that point to it. */
export async function versions(name: string): Promise<Version[]> {
  const [list, labels] = await Promise.all([
    json<Schemas["Versions"]>(`${promptPath(name)}/versions?limit=200`),
    json<Schemas["Labels"]>(`${promptPath(name)}/labels`),
  ]);
  const at = (version: number) => labels.items.filter((l) => l.version === version).map((l) => l.label);
  return list.items.map(({ version }) => ({ version, labels: at(version) })).sort((a, b) => b.version - a.version);
}

/** The text of one version: its system message. */
export async function systemText(name: string, version: number): Promise<string> {
  const { content } = await json<Schemas["VersionDetail"]>(`${promptPath(name)}/versions/${version}`);
  return (content as Schemas["PromptContent"]).messages.filter((m) => m.role === "system").map((m) => m.content).join("\n\n");
}

export const saveVersion = (name: string, system: string, message: string): Promise<Schemas["Saved"]> =>
  post(`${promptPath(name)}/versions`, { content: { messages: [{ role: "system", content: system }] }, message } satisfies Schemas["Save"]);

export const moveLabel = (name: string, label: string, version: number, reason: string): Promise<unknown> =>
  put(`${promptPath(name)}/labels/${encodeURIComponent(label)}`, { version, reason } satisfies Schemas["MoveLabel"]);

export const score = (trace_id: string, value: number, comment?: string): Promise<unknown> =>
  post("/api/v1/scores", { trace_id, name: "thumbs", value, ...(comment ? { comment } : {}) } satisfies Schemas["NewScore"]);

export interface Run {
  model: string;
  messages: ChatMessage[];
  params: Params;
  meguri: Record<string, unknown>;
  signal: AbortSignal;
  onTrace(id: string | null): void;
  onText(piece: string): void;
  onUsage(usage: Usage): void;
}

/** One streamed chat completion. Resolves when the stream ended cleanly, throws when it did not. */
export async function run({ model, messages, params, meguri, signal, onTrace, onText, onUsage }: Run): Promise<void> {
  const set = Object.fromEntries(Object.entries(params).filter(([, v]) => v !== null));
  const body = JSON.stringify({ model, messages, ...set, stream: true, stream_options: { include_usage: true }, meguri });
  const response = await request("/v1/chat/completions", { method: "POST", body, signal, headers: { accept: "text/event-stream" } });
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
