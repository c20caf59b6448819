// One text with a template in it, or JSON: CodeMirror, with the text's marks coloured, names completed and the
// server's problems underlined. The only place that knows CodeMirror.

import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, type CompletionContext, type CompletionResult } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { lintGutter, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { Compartment, EditorState } from "@codemirror/state";
import { Decoration, EditorView, ViewPlugin, keymap, lineNumbers, placeholder, type DecorationSet, type ViewUpdate } from "@codemirror/view";
import { useEffect, useRef } from "preact/hooks";
import { FILTERS, TAGS, placeAt, tokens } from "./template.js";

export interface Mark { message: string; line: number | null }

export interface FieldProps {
  value: string;
  label: string;
  hint?: string;
  simple?: boolean;
  /** The text is JSON instead: no names are offered, lines have numbers. */
  tokens?: (text: string) => { from: number; to: number; kind: string }[];
  /** Names to offer inside {{ }}; asked when the list opens. */
  names: () => { name: string; detail: string }[];
  problems: Mark[];
  onChange(text: string): void;
}

const marks = Object.fromEntries(["mark", "name", "word", "filter", "text", "number", "comment"].map((kind) => [kind, Decoration.mark({ class: `tpl-${kind}` })]));

type Read = (text: string) => { from: number; to: number; kind: string }[];

function paint(view: EditorView, read: Read): DecorationSet {
  return Decoration.set(read(view.state.doc.toString()).filter((t) => t.to > t.from).map((t) => marks[t.kind]!.range(t.from, t.to)), true);
}

const painter = (read: Read) => ViewPlugin.fromClass(class {
  decorations: DecorationSet;
  constructor(view: EditorView) { this.decorations = paint(view, read); }
  update(update: ViewUpdate) { if (update.docChanged) this.decorations = paint(update.view, read); }
}, { decorations: (plugin) => plugin.decorations });

function complete(names: FieldProps["names"], simple: boolean) {
  return (context: CompletionContext): CompletionResult | null => {
    const place = placeAt(context.state.doc.toString(), context.pos);
    if (!place || (simple && place.list !== "names")) return null;
    const from = place.from;
    if (place.list === "filters") return { from, options: FILTERS.map((label) => ({ label, type: "function" })) };
    if (place.list === "tags") return { from, options: TAGS.map((label) => ({ label, type: "keyword" })) };
    return { from, options: names().map(({ name, detail }) => ({ label: name, detail, type: "variable" })) };
  };
}

/** Its own style sheet stands outside of our layers, so what it colours is coloured here. */
const look = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "transparent", fontSize: "var(--f-13)" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px", borderRadius: "0 0 var(--r-over) var(--r-over)" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6", minHeight: "64px" },
  ".cm-content": { padding: "8px 0", caretColor: "var(--text)" },
  ".cm-line": { padding: "0 12px 0 2px" },
  ".cm-gutters": { backgroundColor: "transparent", border: "0", color: "var(--faint)" },
  ".cm-gutter-lint": { width: "14px" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-placeholder": { color: "var(--faint)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": { background: "color-mix(in srgb, var(--accent) 28%, transparent) !important" },
  ".cm-tooltip": { backgroundColor: "var(--surface)", color: "var(--text)", border: "1px solid var(--line)", borderRadius: "var(--r)", boxShadow: "var(--shadow)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", fontSize: "var(--f-12)", maxHeight: "220px" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "3px 8px" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { background: "var(--accent-bg)", color: "var(--text)" },
  ".cm-completionDetail": { color: "var(--faint)", fontStyle: "normal" },
  ".cm-diagnostic": { padding: "4px 10px", borderLeft: "3px solid var(--err)", fontFamily: "var(--sans)", whiteSpace: "pre-wrap" },
});

/** The page's nonce lets the editor add its style sheet under the strict policy. */
const nonce = (): string => document.querySelector<HTMLScriptElement>("script[nonce]")?.nonce ?? "";

export function Field(props: FieldProps) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const language = useRef(new Compartment());
  const simple = props.simple ?? false;
  const other = props.tokens;
  const coloured = (names: FieldProps["names"]) => (other ? [painter(other), lineNumbers()] : [painter((text) => tokens(text, simple)), autocompletion({ override: [complete(names, simple)], icons: false })]);

  useEffect(() => {
    const names = () => latest.current.names();
    const state = EditorState.create({
      doc: props.value,
      extensions: [
        EditorView.cspNonce.of(nonce()), look, history(), closeBrackets(), ...(other ? [] : [EditorView.lineWrapping]), lintGutter(),
        language.current.of(coloured(names)),
        keymap.of([...closeBracketsKeymap, ...completionKeymap, ...historyKeymap, ...defaultKeymap.filter((k) => k.key !== "Mod-Enter")]),
        ...(props.hint ? [placeholder(props.hint)] : []),
        EditorView.contentAttributes.of({ "aria-label": props.label, spellcheck: "false", autocapitalize: "off" }),
        EditorView.updateListener.of((update) => { if (update.docChanged) latest.current.onChange(update.state.doc.toString()); }),
      ],
    });
    const made = new EditorView({ state, parent: host.current! });
    view.current = made;
    return () => { made.destroy(); view.current = null; };
  }, []);

  useEffect(() => {
    const now = view.current;
    const names = () => latest.current.names();
    now?.dispatch({ effects: language.current.reconfigure(coloured(names)) });
  }, [simple]);

  // A text that was changed elsewhere (undo of a reorder, another template) replaces what is shown; typing never does.
  useEffect(() => {
    const now = view.current;
    if (now && now.state.doc.toString() !== props.value) now.dispatch({ changes: { from: 0, to: now.state.doc.length, insert: props.value } });
  }, [props.value]);

  const shown = JSON.stringify(props.problems);
  useEffect(() => {
    const now = view.current;
    if (now) now.dispatch(setDiagnostics(now.state, props.problems.map((p) => diagnostic(now.state, p))));
  }, [shown]);

  return <div class="cm-host" ref={host} />;
}

function diagnostic(state: EditorState, { message, line }: Mark): Diagnostic {
  const at = state.doc.line(Math.min(Math.max(line ?? 1, 1), state.doc.lines));
  const from = line === null && at.length === 0 ? 0 : at.from;
  return { from, to: Math.max(at.to, from), severity: "error", message };
}
