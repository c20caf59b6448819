// Reads a prompt template piece by piece for highlighting and completion. It judges nothing: a template that
// is half typed must be coloured too. The server says what is wrong.

export type Kind = "mark" | "name" | "word" | "filter" | "text" | "number" | "comment";
export interface Token { from: number; to: number; kind: Kind }

const WORDS = new Set(["if", "elif", "else", "endif", "for", "endfor", "in", "not", "and", "or", "is", "raw", "endraw", "include", "true", "false", "none", "loop"]);
const CLOSE: Record<string, string> = { "{{": "}}", "{%": "%}", "{#": "#}" };
const INSIDE = /\s+|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[\p{L}_][\p{L}\p{N}_]*|\d+(?:\.\d+)?|./gsu;

/** The tokens of a text. `simple` templates know only {{name}}. Bounded: what comes after `limit` characters stays plain. */
export function tokens(text: string, simple = false, limit = 200_000): Token[] {
  const found: Token[] = [];
  const opener = simple ? /\{\{/g : /\{\{|\{%|\{#/g;
  const end = Math.min(text.length, limit);
  for (let open = opener.exec(text); open && open.index < end; open = opener.exec(text)) {
    const close = CLOSE[open[0]]!;
    const at = text.indexOf(close, open.index + 2);
    const stop = at < 0 ? lineEnd(text, open.index) : at;
    const after = at < 0 ? stop : stop + 2;
    if (open[0] === "{#") found.push({ from: open.index, to: after, kind: "comment" });
    else {
      found.push({ from: open.index, to: open.index + 2, kind: "mark" });
      inside(text, open.index + 2, stop, open[0] === "{%", found);
      if (at >= 0) found.push({ from: stop, to: after, kind: "mark" });
      const raw = open[0] === "{%" && /^-?\s*raw\b/.test(text.slice(open.index + 2, stop));
      if (raw) {
        const back = /\{%-?\s*endraw/.exec(text.slice(after));
        opener.lastIndex = back ? after + back.index : text.length;
        continue;
      }
    }
    opener.lastIndex = Math.max(after, open.index + 2);
  }
  return found;
}

const lineEnd = (text: string, from: number): number => {
  const at = text.indexOf("\n", from);
  return at < 0 ? text.length : at;
};

function inside(text: string, from: number, to: number, tag: boolean, found: Token[]): void {
  let first = tag;
  let before = "";
  for (const match of text.slice(from, to).matchAll(INSIDE)) {
    const [piece] = match;
    const start = from + match.index;
    const put = (kind: Kind) => found.push({ from: start, to: start + piece.length, kind });
    if (/^\s/.test(piece)) continue;
    if (/^["']/.test(piece)) put("text");
    else if (/^\d/.test(piece)) put("number");
    else if (/^[\p{L}_]/u.test(piece)) {
      put(first || WORDS.has(piece) ? "word" : before === "|" ? "filter" : "name");
      first = false;
    }
    before = piece;
  }
}

/** Where the cursor stands: which list to offer, and the word so far. Nothing outside of a template's marks. */
export interface Place { list: "names" | "filters" | "tags"; from: number; word: string }

export function placeAt(text: string, at: number): Place | null {
  const before = text.slice(Math.max(0, at - 2000), at);
  const open = Math.max(before.lastIndexOf("{{"), before.lastIndexOf("{%"));
  if (open < 0) return null;
  const inner = before.slice(open + 2);
  if (inner.includes("}}") || inner.includes("%}")) return null;
  const word = /[\p{L}_][\p{L}\p{N}_]*$/u.exec(inner)?.[0] ?? "";
  const rest = inner.slice(0, inner.length - word.length);
  if (/\.\s*$/.test(rest) || (rest.match(/"/g)?.length ?? 0) % 2 || (rest.match(/'/g)?.length ?? 0) % 2) return null;
  const list = /\|\s*$/.test(rest) ? "filters" : before[open + 1] === "%" && /^-?\s*$/.test(rest) ? "tags" : "names";
  return { list, from: at - word.length, word };
}

export const FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "first", "last", "items", "default", "tojson", "join", "replace"];
export const TAGS = ["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];
