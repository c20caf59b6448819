// The public JSON API as the islands use it: same origin, session cookie, project in a header.
// Shapes are the ones of /openapi.json; `npm run types -- FILE -o src/api.gen.ts` generates the whole set.

import { page } from "./page.js";

export class ApiError extends Error {
  constructor(readonly status: number, readonly code: string, message: string, readonly traceId: string | null) {
    super(message);
  }
}

export function url(path: string): string {
  return page.base + path;
}

export function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("x-meguri-project", page.project);
  if (init.body) headers.set("content-type", "application/json");
  return fetch(url(path), { ...init, headers, credentials: "same-origin" });
}

/** Sends and reads JSON; an answer other than 2xx becomes an ApiError with the server's own message. */
export async function json<T>(path: string, init: RequestInit = {}): Promise<T> {
  const response = await request(path, init);
  if (!response.ok) throw await failure(response);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

export const post = <T>(path: string, body: unknown): Promise<T> => json<T>(path, { method: "POST", body: JSON.stringify(body) });
export const put = <T>(path: string, body: unknown): Promise<T> => json<T>(path, { method: "PUT", body: JSON.stringify(body) });

/** Reads both error shapes: ours {code, message} at the top or under "error", and OpenAI's {"error": {…}}. */
export async function failure(response: Response): Promise<ApiError> {
  const trace = response.headers.get("x-meguri-trace-id");
  try {
    const body = await response.json() as { error?: unknown; code?: string; message?: string };
    const inner = (typeof body.error === "object" && body.error !== null ? body.error : body) as { code?: string; type?: string; message?: string };
    return new ApiError(response.status, inner.code ?? inner.type ?? String(response.status), inner.message ?? response.statusText, trace);
  } catch {
    return new ApiError(response.status, String(response.status), response.statusText, trace);
  }
}

export interface SseEvent { event: string; data: string }

/** Server-sent events of a fetch answer (EventSource can neither POST nor send headers). */
export async function* events(response: Response): AsyncGenerator<SseEvent> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = "message";
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += value ?? "";
      // A lone CR at the end may be half of CRLF: it waits for the next piece.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = done ? "" : lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event, data: data.join("\n") };
          event = "message";
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line.startsWith("event:")) {
          event = line.slice(6).trim();
        }
      }
      if (done) {
        if (data.length) yield { event, data: data.join("\n") };
        return;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
