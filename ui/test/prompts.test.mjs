// The pure parts of the prompt islands: documents, templates, pasted rows. Bundled here, because node runs no TypeScript.

import assert from "node:assert/strict";
import test from "node:test";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

async function load(file) {
  const entry = fileURLToPath(new URL(`../src/${file}`, import.meta.url));
  const { outputFiles } = await esbuild.build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}
const doc = await load("prompts/document.ts");
const template = await load("prompts/template.ts");
const rows = await load("compare/rows.ts");

test("inputs as rows and back are the same schema", () => {
  const schema = {
    type: "object", required: ["a"],
    properties: {
      a: { type: "string", description: "x", default: "", examples: ["one", "two"], minLength: 1 },
      b: { type: "array", items: { type: "string" }, default: ["p", "q"] },
      c: { type: ["string", "null"] },
      d: { default: "\"quoted\"" },
      e: {},
    },
    additionalProperties: false,
  };
  assert.deepEqual(doc.schemaOf(doc.rowsOf(schema), schema), schema);
  assert.deepEqual(doc.rowsOf(undefined), []);
  assert.equal(doc.schemaOf([], undefined), undefined);
});

test("cells: empty is not set, \"\" is an empty text, numbers are numbers", () => {
  assert.equal(doc.cellValue("", "string"), undefined);
  assert.equal(doc.cellValue('""', "string"), "");
  assert.equal(doc.cellValue("12", "string"), "12");
  assert.equal(doc.cellValue("12", "integer"), 12);
  assert.deepEqual(doc.cellValue('["a"]', "array"), ["a"]);
  assert.equal(doc.cellValue("no json", "array"), "no json");
  for (const value of ["", "x", '"x"', 3, true, null, ["a"], { b: 1 }]) {
    const type = typeof value === "string" ? "string" : "";
    assert.deepEqual(doc.cellValue(doc.cellText(value), type), value);
  }
});

test("a document that says nothing more is the smallest one", () => {
  const messages = [{ role: "system", content: "Hi" }];
  assert.deepEqual(doc.tidy({ type: "chat", dialect: "jinja", messages, description: "", inputs: {}, examples: { items: [] }, tools: [], template: "old" }), { messages });
  assert.deepEqual(doc.tidy({ type: "text", template: "Hi", messages }), { type: "text", template: "Hi" });
  assert.deepEqual(doc.withType({ messages: [...messages, { placeholder: "messages" }] }, "text").template, "Hi");
  assert.deepEqual(doc.withType({ type: "text", template: "Hi" }, "chat").messages, messages);
});

test("templates are read in pieces, half typed ones too", () => {
  const kinds = (text, simple) => template.tokens(text, simple).map((t) => `${t.kind}:${text.slice(t.from, t.to)}`);
  assert.deepEqual(kinds("a {{ name|upper }} b"), ["mark:{{", "name:name", "filter:upper", "mark:}}"]);
  assert.deepEqual(kinds("{% for x in 名前 %}"), ["mark:{%", "word:for", "name:x", "word:in", "name:名前", "mark:%}"]);
  assert.deepEqual(kinds("{# {{ x }} #}{{ y"), ["comment:{# {{ x }} #}", "mark:{{", "name:y"]);
  assert.deepEqual(kinds("{% raw %}{{ x }}{% endraw %}{{ y }}").filter((k) => k.startsWith("name")), ["name:y"]);
  assert.deepEqual(kinds("{% if x %}{{ y }}", true), ["mark:{{", "name:y", "mark:}}"]);
  for (const text of ["{{", "{%", "{#", "{{ \"", "{{ 'a}}' }}", "}}{{}}", "{{{{{{"]) assert.ok(Array.isArray(template.tokens(text)));
  const long = "{{ a }}".repeat(50_000);
  assert.ok(template.tokens(long).length < 100_000, "what is behind the limit stays plain");
});

test("names that a template reads", () => {
  assert.deepEqual(doc.namesIn("Answer in one word, {{ who }}. {% if not quiet %}{% for x in 名前 %}{{ x|upper }}{% endfor %}{% endif %}").sort(), ["quiet", "who", "x", "名前"]);
  assert.deepEqual(doc.loopNamesIn("{% for a, b in c|items %}{% endfor %} for d in e"), ["a", "b"]);
});

test("completion knows where it stands", () => {
  const at = (text) => { const place = template.placeAt(text, text.length); return place && [place.list, place.word]; };
  assert.deepEqual(at("Hi {{ na"), ["names", "na"]);
  assert.deepEqual(at("Hi {{ name|up"), ["filters", "up"]);
  assert.deepEqual(at("{% fo"), ["tags", "fo"]);
  assert.deepEqual(at("{% for x in it"), ["names", "it"]);
  assert.equal(at("Hi na"), null);
  assert.equal(at("{{ x }} na"), null);
  assert.equal(at('{{ x|default("na'), null);
  assert.equal(at("{{ x.na"), null);
});

test("rows: CSV, spreadsheet, JSON, JSON lines", () => {
  const read = (text) => rows.parseRows(text).rows?.map((r) => [r.inputs, r.message]);
  assert.deepEqual(read('question,message\n"a, ""b""\nc",hi\r\n日本,\n'), [[{ question: 'a, "b"\nc' }, "hi"], [{ question: "日本" }, ""]]);
  assert.deepEqual(read("a\tb\n1\t2"), [[{ a: "1", b: "2" }, ""]]);
  assert.deepEqual(read("a;b\n1;2"), [[{ a: "1", b: "2" }, ""]]);
  assert.deepEqual(read('[{"a": 1}, {"inputs": {"b": [2]}, "message": "m"}]'), [[{ a: 1 }, ""], [{ b: [2] }, "m"]]);
  assert.deepEqual(read('{"a": 1}\n\n{"a": 2}'), [[{ a: 1 }, ""], [{ a: 2 }, ""]]);
});

test("rows: what is wrong is said with its line", () => {
  const wrong = (text) => { const { error, line } = rows.parseRows(text); return [error, line]; };
  assert.deepEqual(wrong("  "), ["empty", 1]);
  assert.deepEqual(wrong("a,b"), ["empty", 2]);
  assert.deepEqual(wrong("a,,c\n1,2,3"), ["header", 1]);
  assert.deepEqual(wrong('a\nx\n"never closed\n'), ["quote", 3]);
  assert.deepEqual(wrong('{"a": 1}\n[2]'), ["json", 2]);
  assert.deepEqual(wrong("[1, 2]"), ["json", 1]);
  const many = "a\n" + "x\n".repeat(500);
  assert.deepEqual([rows.parseRows(many).rows.length, rows.parseRows(many).cut], [200, 300]);
});

test("jobs run a few at a time and stop when told", async () => {
  let open = 0;
  let most = 0;
  const abort = new AbortController();
  const done = [];
  const jobs = Array.from({ length: 10 }, (_, i) => async () => {
    most = Math.max(most, ++open);
    await Promise.resolve();
    open--;
    done.push(i);
    if (i === 5) abort.abort();
  });
  await rows.pool(jobs, 3, abort.signal);
  assert.equal(most, 3);
  assert.ok(done.length < 10 && done.includes(5), String(done));
});
