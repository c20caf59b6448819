// Both catalogues have the same keys; every key that templates or scripts use exists; no key lies unused.
// Keys that templates build from parts are listed there in comments: {# t: key key … #}.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

const server = fileURLToPath(new URL("../../crates/server/src", import.meta.url));
const src = fileURLToPath(new URL("../src", import.meta.url));
const files = (dir, end) => readdirSync(dir, { recursive: true }).filter((f) => end.test(f)).map((f) => path.join(dir, f));
const read = (f) => readFileSync(f, "utf8");

/** key -> names of the arguments in its text */
function catalogue(lang) {
  const found = new Map();
  let key = "";
  for (const line of read(path.join(server, "ui/locales", `${lang}.ftl`)).split("\n")) {
    const start = /^([a-z][\w-]*) =/.exec(line);
    if (start) {
      assert.ok(!found.has(start[1]), `${lang}.ftl has ${start[1]} twice`);
      found.set((key = start[1]), new Set());
    }
    if (key && (start || line.startsWith(" "))) for (const [, name] of line.matchAll(/\{\s*"?\{?\s*\$(\w+)/g)) found.get(key).add(name);
  }
  return found;
}
const en = catalogue("en");
const ja = catalogue("ja");

const templates = files(server, /\.html$/).map(read).join("\n");
const scripts = files(src, /\.tsx?$/).map(read).join("\n");
const rust = files(server, /\.rs$/).map(read).join("\n");
const prefixes = [...templates.matchAll(/i18n_for\("([\w]+)"\)/g)].map(([, p]) => `${p}-`);

const used = new Set();
for (const [, key] of templates.matchAll(/\bt\("([\w-]+[\w])"/g)) used.add(key);
for (const [, list] of templates.matchAll(/\{# t: ([^#]*)#\}/g)) for (const key of list.trim().split(/\s+/)) used.add(key);
const quoted = new Set([...scripts.matchAll(/["'`]([a-z]+-[\w-]+)["'`]/g)].map(([, k]) => k).concat([...rust.matchAll(/"([a-z]+-[\w-]+)"/g)].map(([, k]) => k)));
const stems = [...scripts.matchAll(/`([a-z]+-(?:[\w-]+-)?)\$\{/g)].map(([, s]) => s);
const rustStems = [...rust.matchAll(/"([a-z]+-(?:[\w-]+-)?)\{\}"/g)].map(([, s]) => s);

test("both languages have the same keys and arguments", () => {
  assert.deepEqual([...en.keys()].filter((k) => !ja.has(k)), [], "missing in ja.ftl");
  assert.deepEqual([...ja.keys()].filter((k) => !en.has(k)), [], "missing in en.ftl");
  for (const [key, args] of en) for (const name of ja.get(key)) assert.ok(args.has(name), `${key}: ja uses $${name}, en does not`);
});

test("every key that is used exists", () => {
  assert.deepEqual([...used].filter((k) => !en.has(k)), []);
  const inScripts = [...scripts.matchAll(/\bt\(\s*"([\w-]+)"/g)].map(([, k]) => k);
  assert.deepEqual(inScripts.filter((k) => !en.has(k)), []);
  const inRust = [...rust.matchAll(/\bpage\.t(?:_with)?\(\s*"([\w-]+)"/g)].map(([, k]) => k);
  assert.deepEqual(inRust.filter((k) => !en.has(k)), []);
});

test("no key lies unused", () => {
  const alive = (key) => used.has(key) || quoted.has(key) || rustStems.some((s) => key.startsWith(s)) || stems.some((s) => key.startsWith(s) && prefixes.some((p) => key.startsWith(p)));
  assert.deepEqual([...en.keys()].filter((k) => !alive(k)), []);
});

test("texts for the browser stay free of selectors and server arguments", () => {
  const text = read(path.join(server, "ui/locales/en.ftl")) + read(path.join(server, "ui/locales/ja.ftl"));
  for (const [, key, value] of text.matchAll(/^([a-z]\w*-[\w-]+) = (.*)$/gm)) {
    if (!prefixes.some((p) => key.startsWith(p)) || !quoted.has(key)) continue;
    assert.ok(!/(?<!")\{\s*\$/.test(value), `${key} needs an argument that only the browser knows: write {"{$name}"}`);
  }
});
