// Gzip budgets of what a page loads. Needs a build: npm run build.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const { css, page, with: islands } = JSON.parse(readFileSync(new URL("../dist/sizes.json", import.meta.url), "utf8"));
const KB = 1000;
const BUDGETS = { charts: 70, traces: 40, trace: 250, playground: 250, pull: 40, editor: 250, compare: 250, apps: 250, dataset: 50, importer: 50, review: 50, finds: 40, curve: 40 };

test("style sheet ≤ 25 kB", () => assert.ok(css <= 25 * KB, `${css} bytes`));
test("lists and forms ≤ 40 kB", () => assert.ok(page <= 40 * KB, `${page} bytes`));
for (const [name, bytes] of Object.entries(islands)) {
  test(`page with ${name} ≤ ${BUDGETS[name]} kB`, () => {
    assert.ok(name in BUDGETS, `island ${name} has no budget: add a line`);
    assert.ok(bytes <= BUDGETS[name] * KB, `${bytes} bytes`);
  });
}
test("the overview and the trace list, charts included, ≤ 70 kB", () => {
  const both = islands.charts + islands.traces - page;
  assert.ok(both <= 70 * KB, `${both} bytes`);
});
