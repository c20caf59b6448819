// Rows of inputs as people paste them: CSV or tab-separated with a header, a JSON list, or JSON lines. Pure functions.

import type { Json, JsonObject } from "../prompts/document.js";

export interface RowData { inputs: JsonObject; message: string }
/** The column that is no input but the message sent after the prompt. */
export const MESSAGE = "message";
export const MOST_ROWS = 200;

export type Parsed = { rows: RowData[]; cut: number } | { error: "empty" | "json" | "header" | "quote"; line: number };

export function parseRows(text: string): Parsed {
  const trimmed = text.trim();
  if (trimmed === "") return { error: "empty", line: 1 };
  const found = /^[[{]/.test(trimmed) ? fromJson(trimmed) : fromCsv(text.replace(/^\uFEFF/, ""));
  if ("error" in found) return found;
  return { rows: found.rows.slice(0, MOST_ROWS), cut: Math.max(0, found.rows.length - MOST_ROWS) };
}

function row(values: JsonObject): RowData {
  const { [MESSAGE]: message, ...inputs } = values;
  // A data set's row says `inputs` itself.
  const own = inputs["inputs"];
  const nested = own !== null && typeof own === "object" && !Array.isArray(own) ? own : null;
  return { inputs: nested ?? inputs, message: typeof message === "string" ? message : message === undefined ? "" : JSON.stringify(message) };
}

const isObject = (value: unknown): value is JsonObject => value !== null && typeof value === "object" && !Array.isArray(value);

type Rows = { rows: RowData[] } | { error: "empty" | "json" | "header" | "quote"; line: number };

function fromJson(text: string): Rows {
  try {
    const value = JSON.parse(text) as Json;
    const list = Array.isArray(value) ? value : [value];
    return list.every(isObject) && list.length ? { rows: list.map(row) } : { error: "json", line: 1 };
  } catch { /* Perhaps one object a line. */ }
  const rows: RowData[] = [];
  for (const [at, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === "") continue;
    try {
      const value = JSON.parse(line) as Json;
      if (!isObject(value)) return { error: "json", line: at + 1 };
      rows.push(row(value));
    } catch { return { error: "json", line: at + 1 }; }
  }
  return { rows };
}

function fromCsv(text: string): Rows {
  const first = text.slice(0, text.search(/\r?\n/) < 0 ? text.length : text.search(/\r?\n/));
  const records = csv(text, first.includes("\t") ? "\t" : first.includes(";") && !first.includes(",") ? ";" : ",");
  if ("error" in records) return records;
  const [header, ...rest] = records.records.filter((r) => r.some((cell) => cell.trim() !== ""));
  if (!header || header.some((name) => name.trim() === "")) return { error: "header", line: 1 };
  if (!rest.length) return { error: "empty", line: 2 };
  return { rows: rest.map((cells) => row(Object.fromEntries(header.map((name, i) => [name.trim(), cells[i] ?? ""]).filter(([, value]) => value !== "")))) };
}

/** RFC 4180, with any separator and either line end. */
export function csv(text: string, separator = ","): { records: string[][] } | { error: "quote"; line: number } {
  const records: string[][] = [];
  let record: string[] = [];
  let cell = "";
  let quoted = false;
  let line = 1;
  let opened = 1;
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (c === "\n") line++;
    if (quoted) {
      if (c === '"' && text[i + 1] === '"') { cell += '"'; i++; }
      else if (c === '"') quoted = false;
      else cell += c;
    } else if (c === '"' && cell === "") { quoted = true; opened = line; }
    else if (c === separator) { record.push(cell); cell = ""; }
    else if (c === "\n" || c === "\r") {
      if (c === "\r" && text[i + 1] === "\n") { i++; line++; }
      record.push(cell);
      records.push(record);
      record = [];
      cell = "";
    } else cell += c;
  }
  if (quoted) return { error: "quote", line: opened };
  if (cell !== "" || record.length) { record.push(cell); records.push(record); }
  return { records };
}

/** Runs jobs, at most `most` at a time, in order; stops taking new ones once `signal` is aborted. */
export async function pool(jobs: (() => Promise<void>)[], most: number, signal: AbortSignal): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < jobs.length && !signal.aborted) await jobs[next++]!();
  };
  await Promise.all(Array.from({ length: Math.min(most, jobs.length) }, worker));
}
