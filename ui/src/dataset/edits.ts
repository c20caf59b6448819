// Values of the grid's cells as text and back. Pure functions.

export type Field = "input" | "expected" | "split" | "verdict" | "metadata";
export type Cell = unknown;
export type Patch = Record<string, unknown>;

/** A value as it is edited: texts as they are, everything else as JSON, nothing as nothing. */
export function textOf(value: Cell): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** What a text means in a cell that held `before`: where text was, text stays, unless it was nothing and reads as an object or a list. */
export function parseCell(field: Field, text: string, before: Cell): { value: unknown } | { problem: true } {
  if (text === "" && field !== "input") return { value: field === "metadata" ? metadata({}, before) : null };
  if (field === "split" || field === "verdict") return { value: text.trim() === "" ? null : text.trim() };
  const isJson = field === "metadata" || (before !== undefined && before !== null && typeof before !== "string");
  if (!isJson) return { value: text };
  try {
    const value = JSON.parse(text) as unknown;
    if (field !== "metadata") return { value };
    if (value === null || typeof value !== "object" || Array.isArray(value)) return { problem: true };
    return { value: metadata(value as Record<string, unknown>, before) };
  } catch {
    return { problem: true };
  }
}

/** A merge patch sets what it names: what is gone must be named as null. */
function metadata(after: Record<string, unknown>, before: Cell): Record<string, unknown> {
  const gone = before !== null && typeof before === "object" ? Object.keys(before).filter((key) => !(key in after)) : [];
  return { ...after, ...Object.fromEntries(gone.map((key) => [key, null])) };
}

/** An example with a patch on it, as the server will merge them. */
export function merged<T extends object>(example: T, patch: Patch): T {
  const result = { ...example } as Record<string, unknown>;
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else if (key === "metadata") {
      const both = { ...(result[key] as object | undefined), ...(value as object) } as Record<string, unknown>;
      result[key] = Object.fromEntries(Object.entries(both).filter(([, one]) => one !== null));
    } else result[key] = value;
  }
  return result as T;
}
