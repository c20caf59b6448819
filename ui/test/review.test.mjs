// Keys of the review page that can be changed, and places in texts counted as the server counts them.

import assert from "node:assert/strict";
import test from "node:test";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

async function load(file) {
  const entry = fileURLToPath(new URL(`../src/review/${file}`, import.meta.url));
  const { outputFiles } = await esbuild.build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}
const keys = await load("keymap.ts");
const spans = await load("spans.ts");

test("a key belongs to one action, and digits belong to options", () => {
  assert.equal(keys.conflict(keys.STANDARD, "skip", "u"), "undo");
  assert.equal(keys.conflict(keys.STANDARD, "skip", "s"), null);
  assert.equal(keys.conflict(keys.STANDARD, "skip", "3"), "digits");
  assert.equal(keys.conflict(keys.STANDARD, "skip", "?"), "help");
});

test("what was kept comes back, and nonsense does not", () => {
  const changed = { ...keys.STANDARD, skip: "x" };
  assert.deepEqual(keys.parse(keys.write(changed)), changed);
  assert.equal(keys.write(keys.STANDARD), "{}");
  for (const text of [null, "", "no json", "[]", "null", '{"skip":7,"fly":"f"}', '{"skip":"u"}', '{"skip":"1"}']) {
    assert.deepEqual(keys.parse(text), keys.STANDARD, String(text));
  }
});

test("keys read as people know them", () => {
  assert.equal(keys.nameOf({ name: "Enter", mod: true, alt: false }), "Mod+Enter");
  assert.equal(keys.nameOf({ name: "S", mod: false, alt: false }), "s");
  assert.equal(keys.shownAs("Mod+Enter", false), "Ctrl ↵");
  assert.equal(keys.shownAs("Mod+Enter", true), "⌘ ↵");
});

test("characters are counted, not halves of them", () => {
  const text = "𠮷野家は 東京";
  assert.equal(spans.length(text), 7);
  const marked = spans.toggle([], text, { start: 0, end: 3, label: "name" });
  assert.deepEqual(marked, [{ start: 0, end: 3, label: "name" }]);
  assert.deepEqual(spans.pieces(text, marked).map((piece) => piece.text), ["𠮷野家", "は 東京"]);
  // Blanks at the ends are left out; the same again takes it away; nothing is no place.
  assert.deepEqual(spans.toggle([], text, { start: 4, end: 7, label: "place" }), [{ start: 5, end: 7, label: "place" }]);
  assert.deepEqual(spans.toggle(marked, text, { start: 0, end: 3, label: "name" }), []);
  assert.deepEqual(spans.toggle([], text, { start: 4, end: 5, label: "x" }), []);
});

test("places overlap, and go through the form's lines", () => {
  const both = [{ start: 0, end: 3, label: "a" }, { start: 2, end: 4, label: "two words" }];
  assert.deepEqual(spans.parse(spans.write(both)), both);
  assert.deepEqual(spans.parse("x\n1-2\n 3-4 a b \n"), [{ start: 3, end: 4, label: "a b" }]);
  const found = spans.pieces("abcdef", both).map((piece) => [piece.text, piece.labels.length]);
  assert.deepEqual(found, [["ab", 1], ["c", 2], ["d", 1], ["ef", 0]]);
});
