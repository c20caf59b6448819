// What the prompt islands ask of the public API.

import { json, post, request, failure, events } from "../core/api.js";
import type { JsonObject, PromptDocument } from "./document.js";

export interface Rendered {
  messages: { role: string; content: string }[];
  model: string | null;
  parameters: JsonObject;
  variables: { name: string; declared: boolean }[];
  inputs: JsonObject;
  problems: Problem[];
  tokens: { count: number; method: "model" | "estimate"; model: string | null } | null;
}
export interface Problem { path: string; message: string; line: number | null }
export interface Alike { name: string; version: number; similarity: number }
export interface AlikeAnswer { identical: { name: string; version: number }[]; similar: Alike[] }
export interface Saved { name: string; version: number; already_existed: boolean }
export interface Candidate { technique: string; document: PromptDocument | null; repairs: string[]; error: string | null; trace_id: string | null }

export const promptPath = (name: string): string => `/api/v1/prompts/${encodeURIComponent(name)}`;

export const renderDraft = (content: PromptDocument, inputs: JsonObject, model: string, signal: AbortSignal): Promise<Rendered> =>
  json("/api/v1/prompts/render", { method: "POST", body: JSON.stringify({ content, inputs, ...(model ? { model } : {}) }), signal });

export const findAlike = (content: PromptDocument, name: string): Promise<AlikeAnswer> => post("/api/v1/prompts/similar", { content, ...(name ? { name } : {}) });

export const saveVersion = (name: string, content: PromptDocument, message: string): Promise<Saved> =>
  post(`${promptPath(name)}/versions`, { content, message });

/** Moves a label; where it is protected, proposes the move. */
export const requestMove = (name: string, label: string, version: number, reason: string): Promise<unknown> =>
  post("/api/v1/proposals", { kind: "prompt", name, label, version, reason });

export const generate = (body: unknown, signal: AbortSignal): Promise<{ candidates: Candidate[] }> =>
  json("/api/v1/prompts/generate", { method: "POST", body: JSON.stringify(body), signal });

export const score = (trace_id: string, value: number): Promise<unknown> => post("/api/v1/scores", { trace_id, name: "thumbs", value });

export interface StreamEnd { input: number | null; output: number | null }

/** One streamed answer of either route. Resolves when the stream ended cleanly, throws when it did not. */
export async function stream(path: string, body: unknown, signal: AbortSignal, on: { trace(id: string | null): void; text(piece: string): void }): Promise<StreamEnd> {
  const response = await request(path, { method: "POST", body: JSON.stringify(body), signal, headers: { accept: "text/event-stream" } });
  on.trace(response.headers.get("x-meguri-trace-id"));
  if (!response.ok) throw await failure(response);
  const end: StreamEnd = { input: null, output: null };
  for await (const { event, data } of events(response)) {
    if (data === "[DONE]") return end;
    const chunk = JSON.parse(data) as {
      choices?: { delta?: { content?: string | null; tool_calls?: { function?: { name?: string; arguments?: string } }[] } }[];
      usage?: { prompt_tokens: number; completion_tokens: number } | null;
      error?: { message?: string };
    };
    if (chunk.error || event === "error") throw new Error(chunk.error?.message ?? data);
    const delta = chunk.choices?.[0]?.delta;
    if (delta?.content) on.text(delta.content);
    for (const call of delta?.tool_calls ?? []) on.text(`${call.function?.name ? `\n→ ${call.function.name} ` : ""}${call.function?.arguments ?? ""}`);
    if (chunk.usage) { end.input = chunk.usage.prompt_tokens; end.output = chunk.usage.completion_tokens; }
  }
  throw new Error("stream_ended_early");
}

/** Opens a page with data that is too large for an address: a form, sent as if by hand. */
export function openWith(action: string, fields: Record<string, string>): void {
  const form = document.createElement("form");
  form.method = "post";
  form.action = action;
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement("input");
    input.type = "hidden";
    input.name = name;
    input.value = value;
    form.append(input);
  }
  document.body.append(form);
  form.submit();
}
