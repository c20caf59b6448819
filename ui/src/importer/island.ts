// The import of files: send them, look at the first rows, correct what columns become, import all or nothing.

import { ApiError, failure, post, url, type Schemas } from "../core/api.js";
import { h } from "../core/dom.js";
import { page, words, type Words } from "../core/page.js";
import { textOf } from "../dataset/edits.js";

interface Props { name: string; show: string; count: number; splits: string[]; i18n: Words }
type Upload = Schemas["DatasetUpload"];
type Preview = Schemas["ImportPreview"];

const FORMATS = ["csv", "tsv", "jsonl", "json", "promptfoo", "promptfoo_csv"];
const ENCODINGS = ["utf-8", "shift_jis", "euc-jp", "utf-16le", "windows-1252"];
const TARGETS = ["input", "expected", "context", "metadata", "split", "verdict", "id", "chat", "ignore"];

export function mount(el: HTMLElement, props: Props): () => void {
  const t = words(props.i18n);
  let uploads: Upload[] = [];
  let mapping: Record<string, string> = {};
  let asked = 0;

  const file = h("input", { type: "file", multiple: true, class: "input", id: "imp-file", accept: ".csv,.tsv,.jsonl,.ndjson,.json,.yaml,.yml,.zip,.tar,.gz,.tgz" });
  const format = select("imp-format", [["", t("imp-format-auto")], ...FORMATS.map((value): [string, string] => [value, value])]);
  const encoding = select("imp-encoding", [["", t("imp-encoding-auto")], ...ENCODINGS.slice(1).map((value): [string, string] => [value, value])]);
  const split = h("input", { class: "input", id: "imp-split", autocomplete: "off" });
  const mode = select("imp-mode", [["append", t("imp-mode-append")], ["replace", t("imp-mode-replace")]]);
  const status = h("p", { role: "status", class: "muted" });
  const error = h("div", { role: "alert" });
  const result = h("div", { class: "stack" });
  const field = (id: string, label: string, control: HTMLElement, hint = ""): HTMLElement =>
    h("div", { class: "field" }, h("label", { for: id }, label), control, hint ? h("p", { class: "hint" }, hint) : null);

  el.replaceChildren(h("section", { class: "stack" },
    h("h2", {}, t("imp-title")), h("p", { class: "muted" }, t("imp-text")),
    field("imp-file", t("imp-choose"), file),
    h("div", { class: "row import-options" }, field("imp-format", t("imp-format"), format), field("imp-encoding", t("imp-encoding"), encoding), field("imp-split", t("imp-split"), split, t("imp-split-hint")), field("imp-mode", t("imp-mode"), mode)),
    status, error, result));

  const options = (): Schemas["ImportOptions"] => ({
    ...(format.value ? { format: format.value as Schemas["ImportFormat"] } : {}),
    ...(encoding.value ? { encoding: encoding.value } : {}),
    ...(split.value.trim() ? { split: split.value.trim() } : {}),
    mode: mode.value as Schemas["ImportMode"],
    mapping,
  });

  const fail = (problem: unknown): void => {
    status.textContent = "";
    const text = problem instanceof ApiError ? problem.message : String(problem);
    error.replaceChildren(h("div", { class: "note err" }, h("div", {}, h("strong", {}, t("imp-failed")), " ", text)));
  };

  const send = async (): Promise<void> => {
    const files = [...file.files ?? []];
    uploads = [];
    mapping = {};
    error.replaceChildren();
    result.replaceChildren();
    try {
      for (const one of files) {
        status.textContent = t("imp-sending", { name: one.name });
        const response = await fetch(url(`/api/v1/dataset-uploads?name=${encodeURIComponent(one.name)}`), {
          method: "POST", body: one, credentials: "same-origin",
          headers: { "x-meguri-project": page.project, "content-type": "application/octet-stream" },
        });
        if (!response.ok) throw await failure(response);
        uploads.push(await response.json() as Upload);
      }
      await look();
    } catch (problem) { fail(problem); }
  };

  const look = async (): Promise<void> => {
    if (!uploads.length) return;
    const mine = ++asked;
    status.textContent = t("imp-reading");
    error.replaceChildren();
    try {
      const preview = await post<Preview>("/api/v1/dataset-uploads/preview", { uploads, options: options() });
      if (mine !== asked) return;
      status.textContent = t("imp-files", { n: preview.files.length }) + ": " + preview.files.slice(0, 8).map((one) => one.split ? `${one.name} → ${one.split}` : one.name).join(", ");
      draw(preview);
    } catch (problem) { if (mine === asked) { result.replaceChildren(); fail(problem); } }
  };

  const draw = (preview: Preview): void => {
    const columns = h("div", { class: "import-columns" }, ...preview.columns.map(({ column, field: target }) => {
      const choices = [...new Set([target, ...TARGETS, `input.${column}`, `metadata.${column}`])];
      const control = select("", choices.map((value): [string, string] => [value, value]));
      control.value = target;
      control.setAttribute("aria-label", `${t("imp-column")} ${column}: ${t("imp-field")}`);
      control.addEventListener("change", () => { mapping = { ...mapping, [column]: control.value }; void look(); });
      return h("div", { class: "row tight" }, h("code", { class: "clip" }, column), "→", control);
    }));
    const cell = (value: unknown): HTMLElement => h("td", { class: "wide" }, h("span", { class: "ex-cell" }, textOf(value).slice(0, 400)));
    const rows = preview.examples.map((one) => h("tr", {}, cell(one.input), cell(one.expected), h("td", { class: "fit" }, one.split ?? ""), cell(one.metadata && Object.keys(one.metadata).length ? JSON.stringify(one.metadata) : "")));
    const head = h("tr", {}, ...["imp-input", "imp-expected", "imp-row-split", "imp-metadata"].map((key) => h("th", { scope: "col" }, t(key))));
    const problems = preview.problems.map((one) => h("li", {}, h("strong", {}, t("imp-line", { file: one.file, line: one.line })), " ", one.message));
    const go = h("button", { class: "btn primary", type: "button" }, t("imp-import"));
    go.addEventListener("click", () => void start(go));
    result.replaceChildren(
      problems.length ? h("div", { class: "note err", role: "alert" }, h("div", {}, h("strong", {}, t("imp-problems")), h("ul", {}, ...problems))) : "",
      preview.columns.length ? columns : "",
      h("h3", {}, t("imp-first")),
      h("div", { class: "table-wrap", tabindex: "0", role: "region", "aria-label": t("imp-first") }, h("table", { class: "table cards" }, h("thead", {}, head), h("tbody", {}, ...rows))),
      mode.value === "replace" && props.count ? h("p", { class: "status t-warn" }, t("imp-replace-sure", { count: props.count })) : "",
      h("div", { class: "row" }, go),
    );
  };

  const start = async (button: HTMLButtonElement): Promise<void> => {
    button.disabled = true;
    status.textContent = t("imp-importing");
    error.replaceChildren();
    try {
      const saved = await post<Schemas["SavedDataset"]>(`/api/v1/datasets/${props.name}/import`, { uploads, options: options() });
      status.textContent = t("imp-done", { count: saved.added });
      location.assign(props.show);
    } catch (problem) { button.disabled = false; fail(problem); }
  };

  file.addEventListener("change", () => void send());
  for (const control of [format, encoding, mode]) control.addEventListener("change", () => void look());
  split.addEventListener("change", () => void look());
  return () => undefined;
}

function select(id: string, choices: [string, string][]): HTMLSelectElement {
  return h("select", { class: "select", ...(id ? { id } : {}) }, ...choices.map(([value, label]) => h("option", { value }, label)));
}
