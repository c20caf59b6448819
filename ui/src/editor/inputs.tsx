// The inputs of a prompt, an app or a tool as a table, and as the JSON Schema that they are.

import { useState } from "preact/hooks";
import { TYPES, rowsOf, schemaOf, type InputRow, type JsonObject } from "../prompts/document.js";
import { Icon, IconButton, JsonArea } from "../prompts/parts.js";

interface Props {
  /** Begins the ids of its fields. */
  id: string;
  t: (key: string) => string;
  schema: JsonObject | undefined;
  about: string;
  problems: { path: string; message: string }[];
  onChange(schema: JsonObject): void;
}

export function InputTable({ id, t, schema, about, problems, onChange }: Props) {
  const rows = rowsOf(schema);
  const [raw, setRaw] = useState(false);
  const [name, setName] = useState("");
  const write = (next: InputRow[]) => onChange(schemaOf(next, schema) ?? {});
  const set = (at: number, change: Partial<InputRow>) => write(rows.map((row, i) => (i === at ? { ...row, ...change } : row)));
  const add = () => {
    const wanted = name.trim();
    if (!wanted || rows.some((row) => row.name === wanted)) return;
    write([...rows, { name: wanted, type: "string", required: true, initial: "", example: "", description: "", rest: {} }]);
    setName("");
  };
  return (
    <>
      <div class="row"><p class="muted small grow">{about}</p><button class="btn ghost small" type="button" aria-pressed={raw} onClick={() => setRaw(!raw)}>JSON</button></div>
      {raw
        ? <JsonArea id={`${id}-schema`} label={t("editor-inputs-schema")} value={schema} bad={t("editor-bad-json")} rows={12} onChange={(v) => onChange((v ?? {}) as JsonObject)} />
        : rows.length > 0 && <div class="table-wrap"><table class="table ed-inputs"><thead><tr>
            <th scope="col">{t("editor-col-name")}</th><th scope="col">{t("editor-col-type")}</th><th scope="col">{t("editor-col-required")}</th><th scope="col">{t("editor-col-default")}</th><th scope="col">{t("editor-col-example")}</th><th scope="col">{t("editor-col-description")}</th><th><span class="sr">{t("editor-remove")}</span></th>
          </tr></thead><tbody>
          {rows.map((row, at) => {
            const cell = (key: "initial" | "example" | "description", label: string) => <input class="input quiet" aria-label={`${row.name}: ${label}`} value={row[key]} onInput={(e) => set(at, { [key]: e.currentTarget.value })} />;
            return <tr key={row.name}>
              <td class="mono">{row.name}</td>
              <td><select class="select quiet" aria-label={`${row.name}: ${t("editor-col-type")}`} value={row.type} onChange={(e) => set(at, { type: e.currentTarget.value })}><option value="">{t("editor-any")}</option>{TYPES.map((type) => <option key={type} value={type}>{type}</option>)}</select></td>
              <td><input type="checkbox" class="ed-check" aria-label={`${row.name}: ${t("editor-col-required")}`} checked={row.required} onChange={(e) => set(at, { required: e.currentTarget.checked })} /></td>
              <td>{cell("initial", t("editor-col-default"))}</td><td>{cell("example", t("editor-col-example"))}</td><td>{cell("description", t("editor-col-description"))}</td>
              <td class="actions"><IconButton name="close" label={`${t("editor-remove")}: ${row.name}`} onClick={() => write(rows.filter((_, i) => i !== at))} /></td>
            </tr>;
          })}
          </tbody></table></div>}
      {problems.map((p) => <p class="t-err small" key={p.path + p.message}><code>{p.path}</code> {p.message}</p>)}
      {!raw && <form class="bar-form" onSubmit={(e) => { e.preventDefault(); add(); }}>
        <div class="field"><label class="sr" for={`${id}-name`}>{t("editor-col-name")}</label><input class="input mono" id={`${id}-name`} value={name} placeholder={t("editor-input-name")} onInput={(e) => setName(e.currentTarget.value)} /></div>
        <button class="btn small"><Icon name="plus" />{t("editor-add-input")}</button>
      </form>}
    </>
  );
}
