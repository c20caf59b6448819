// The document of an app as the editor holds it: what is read is written again, and nothing that is empty.

import assert from "node:assert/strict";
import test from "node:test";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const entry = fileURLToPath(new URL("../src/apps/model.ts", import.meta.url));
const { outputFiles } = await esbuild.build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
const app = await import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);

const whole = {
  description: "all of it",
  inputs: { type: "object", properties: { city: { type: "string", default: "London" } }, required: ["city"] },
  models: { main: ["openai/a", "local/b"] },
  guards: ["guard:safe/input@production", "guard:b@2"],
  tools: { weather: { type: "http", description: "x", method: "POST", url: "https://example.com/{place}", headers: { accept: "json" }, credential: "env:MEGURI_TOOL_W", credential_header: "x-key", parameters: { type: "object" }, timeout_ms: 500, dry: { t: 1 } } },
  steps: [
    { id: "who", type: "prompt", prompt: "prompt:geo/who@production", variables: { country: "inputs.city" }, model: "main", parameters: { temperature: 0 }, when: "true", after: ["w"] },
    { id: "w", type: "tool", tool: "weather", arguments: { place: "inputs.city" } },
    { id: "act", type: "agent", prompt: { messages: [{ role: "user", content: "{{ q }}" }], parameters: { top_p: 1 } }, variables: { q: "inputs.city" }, tools: ["weather"], limits: { steps: 3, cost_usd: 0.5, seconds: 10 } },
    { id: "each", type: "chain", for_each: "steps.who.json.list", steps: [{ id: "in", type: "prompt", prompt: "prompt:a@latest", variables: { x: "item" } }] },
    { id: "r", type: "retrieve", index: "index:i@production", query: "inputs.city", top_k: 3 },
    { id: "g", type: "guard", guard: "guard:g@production", on: "steps.who.text" },
  ],
  output: { type: "json", value: "steps.act.text" },
};

test("what is read is written again, every field of it", () => assert.deepEqual(app.write(app.read(whole)), whole));

test("fields that the form does not know travel untouched", () => {
  const odd = { steps: [{ id: "a", type: "prompt", prompt: "prompt:a@latest", modle: "x" }], later: { a: 1 } };
  assert.deepEqual(app.write(app.read(odd)), odd);
});

test("what says nothing is left out", () => {
  const model = app.read({ steps: [] });
  model.steps.push({ ...app.newStep("prompt", "a"), prompt: "prompt:a@latest", variables: [{ name: "", value: "" }] });
  model.models.push({ name: "", models: [""] });
  assert.deepEqual(app.write(model), { steps: [{ id: "a", type: "prompt", prompt: "prompt:a@latest" }] });
});

test("a step that changes its type leaves nothing of the old one behind", () => {
  const model = app.read({ steps: [whole.steps[0]] });
  model.steps[0].type = "tool";
  assert.deepEqual(Object.keys(app.write(model).steps[0]).sort(), ["after", "arguments", "id", "tool", "type", "when"]);
});

test("expressions are offered from what a step can see", () => {
  const model = app.read(whole);
  const inner = app.offers(model, "/steps/3/steps/0");
  assert.ok(inner.includes("item") && inner.includes("steps.who.text") && inner.includes("inputs.city"));
  const outer = app.offers(model, "/steps/0");
  assert.ok(!outer.includes("item") && !outer.includes("steps.in.text") && !outer.includes("steps.who.text"));
});

test("references in their parts, ids that are free", () => {
  assert.deepEqual(app.reference("prompt:support/answer@v@3"), { name: "support/answer@v", selector: "3" });
  assert.deepEqual(app.reference("prompt:a"), { name: "a", selector: "production" });
  assert.equal(app.referenceTo("", "x"), "");
  assert.equal(app.freeId(app.read(whole), "in"), "in2");
});

test("JSON is coloured: names, texts, numbers, words", () => {
  const kinds = app.jsonTokens('{"a": "b\\"c", "n": -1.5e3, "t": true}').map((token) => token.kind);
  assert.deepEqual(kinds, ["name", "text", "name", "number", "name", "word"]);
});
