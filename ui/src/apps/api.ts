// What the app editor asks of the server: the public API, and the page's own drawing of a draft.

import { events, failure, json, post, request } from "../core/api.js";
import { page } from "../core/page.js";
import type { JsonObject, PromptDocument } from "../prompts/document.js";

export interface Problem { path: string; message: string; line: number | null }
export interface Box { x: number; y: number; width: number; height: number; kind: string; title: string; text: string; full: string; href: string; has_condition: boolean; is_group: boolean }
export interface Drawing { width: number; height: number; boxes: Box[]; lines: { path: string; arrow: string }[] }
export interface Drawn { graph: Drawing | null; problems: Problem[] }

/** The drawing and the problems of a text that may be half typed. */
export async function draw(document: string, signal: AbortSignal): Promise<Drawn> {
  const response = await request(`${page.root.slice(page.base.length)}/apps/draw`, { method: "POST", body: JSON.stringify({ document }), signal });
  if (!response.ok) throw await failure(response);
  return await response.json() as Drawn;
}

export const saveApp = (name: string, content: JsonObject, message: string): Promise<{ name: string; version: number; already_existed: boolean }> =>
  post("/api/v1/apps", { name, content, message });

/** The labels of a prompt, newest names first come as the server orders them. */
export const labelsOf = async (name: string): Promise<string[]> =>
  (await json<{ items: { label: string }[] }>(`/api/v1/prompts/${encodeURIComponent(name)}/labels`)).items.map((row) => row.label);

export const promptAt = async (name: string, selector: string): Promise<PromptDocument> =>
  (await json<{ content: PromptDocument }>(`/api/v1/prompts/${encodeURIComponent(name)}/versions/${encodeURIComponent(selector)}`)).content;

export interface StepSpan { trace_id: string; span_id: string; parent_span_id: string | null; name: string; kind: string; status: string; latency_ms: number; output_preview: string; error: string | null; started_at: number; cost_nanousd: number | null }

/** The spans of drafts from now on, as they are stored. Resolves when it listens; the generator ends with the signal. */
export async function followDrafts(signal: AbortSignal): Promise<AsyncGenerator<StepSpan>> {
  const query = new URLSearchParams({ scope: "spans", filter: 'app = "draft"' });
  const response = await request(`/api/v1/traces/tail?${query}`, { signal, headers: { accept: "text/event-stream" } });
  if (!response.ok) throw await failure(response);
  return spansOf(response);
}

async function* spansOf(response: Response): AsyncGenerator<StepSpan> {
  for await (const { event, data } of events(response)) if (event === "trace") yield JSON.parse(data) as StepSpan;
}

/** Runs a draft: its trace's id at once, then the answer piece by piece. Throws what the app says went wrong. */
export async function tryDraft(content: JsonObject, inputs: JsonObject, signal: AbortSignal, on: { trace(id: string): void; text(piece: string): void }): Promise<void> {
  const response = await request("/api/v1/apps/try", { method: "POST", body: JSON.stringify({ content, inputs, stream: true }), signal });
  if (!response.ok) throw await failure(response);
  for await (const { event, data } of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as { trace_id?: string; choices?: { delta?: { content?: string | null } }[]; error?: { message?: string } };
    if (event === "trace" && chunk.trace_id) on.trace(chunk.trace_id);
    if (event === "error" || chunk.error) throw new Error(chunk.error?.message ?? data);
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) on.text(piece);
  }
  throw new Error("stream_ended_early");
}
