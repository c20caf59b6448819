// Marked places in a text, counted in characters (Unicode code points), as the server counts them:
// "𠮷" is one, though JavaScript stores it as two.

export interface Span { start: number; end: number; label: string }

export const length = (text: string): number => [...text].length;

/** Lines as the form sends them: `START-END LABEL`. */
export function parse(text: string): Span[] {
  return text.split("\n").flatMap((line) => {
    const found = /^\s*(\d+)-(\d+)\s+(.+?)\s*$/.exec(line);
    return found ? [{ start: Number(found[1]), end: Number(found[2]), label: found[3]! }] : [];
  });
}

export const write = (spans: Span[]): string => spans.map((s) => `${s.start}-${s.end} ${s.label}`).join("\n");

/** Adds a place, or takes it away when it is there with this label. Blank ends are left out. */
export function toggle(spans: Span[], text: string, span: Span): Span[] {
  const chars = [...text];
  let { start, end } = span;
  while (start < end && /\s/u.test(chars[start] ?? "x")) start++;
  while (end > start && /\s/u.test(chars[end - 1] ?? "x")) end--;
  if (start >= end) return spans;
  const same = (s: Span) => s.start === start && s.end === end && s.label === span.label;
  if (spans.some(same)) return spans.filter((s) => !same(s));
  return [...spans, { start, end, label: span.label }].sort((a, b) => a.start - b.start || a.end - b.end);
}

export interface Piece { text: string; labels: string[] }

/** The text in pieces, each with the labels that cover it; places may overlap. */
export function pieces(text: string, spans: Span[]): Piece[] {
  const chars = [...text];
  const inside = spans.filter((s) => s.start < s.end && s.end <= chars.length);
  const cuts = [...new Set([0, chars.length, ...inside.flatMap((s) => [s.start, s.end])])].sort((a, b) => a - b);
  return cuts.slice(1).map((end, at) => {
    const start = cuts[at]!;
    return { text: chars.slice(start, end).join(""), labels: inside.filter((s) => s.start <= start && end <= s.end).map((s) => s.label) };
  });
}
