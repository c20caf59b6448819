// A dataset's way in the browser, in both languages: made, filled from a file with a mapping, edited in the grid
// by keyboard, compared with the version before, and given an example out of a trace.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openPage, signUp, startBrowser, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

let browser;
before(async () => { browser = await startBrowser(); });
after(() => browser.close());

for (const lang of ["en", "ja"]) {
  describe(`a dataset in ${lang}`, () => {
    const t = words(lang);
    const name = lang === "ja" ? "案内/質問" : "guide/questions";
    const api = `/api/v1/datasets/${encodeURIComponent(name)}`;
    let server, opened;
    before(async () => {
      server = await startServer();
      opened = await openPage(browser, server, { lang, storageState: await signUp(browser, server) });
    });
    after(async () => { await opened?.context.close(); await server?.stop(); });

    test("made, and filled from a file after a look at its rows", async () => {
      const { page } = opened;
      await page.goto(`${server.url}/default/datasets/new`);
      await page.fill("#f-name", name);
      await page.getByRole("button", { name: t("datasets-make-import") }).click();
      const rows = Array.from({ length: 150 }, (_, n) => `"question, ${n}",answer ${n},${n % 2 ? "odd" : "even"}`);
      const buffer = Buffer.from(`asked,said,kind\n${rows.join("\n")}\n`);
      await page.setInputFiles("#imp-file", { name: "train.csv", mimeType: "text/csv", buffer });
      await page.getByLabel(/asked/).selectOption("input");
      await page.getByLabel(/said/).selectOption("expected");
      await page.locator(".table td", { hasText: "question, 19" }).waitFor();
      await page.getByRole("button", { name: t("imp-import"), exact: true }).click();
      await page.locator("table[data-grid] tbody tr").nth(99).waitFor();
      const { json } = await server.call(api, undefined, "GET");
      assert.deepEqual([json.count, json.splits], [150, { train: 150 }]);
    });

    test("a bad file changes nothing and says where", async () => {
      const { page } = opened;
      await page.goto(`${server.url}/default/datasets/import?name=${encodeURIComponent(name)}`);
      await page.setInputFiles("#imp-file", { name: "bad.jsonl", mimeType: "application/jsonl", buffer: Buffer.from('{"input": "a"}\n{"input": \n') });
      await page.getByText(t("imp-problems")).waitFor();
      await page.getByText(/bad\.jsonl.*2/).first().waitFor();
    });

    test("edited in the grid by keyboard, saved as one version", async () => {
      const { page } = opened;
      await page.goto(`${server.url}/default/datasets/show?name=${encodeURIComponent(name)}`);
      const cell = page.locator('tr[data-id] td[data-field="expected"]').first();
      await page.locator('td[data-field="input"]').first().focus();
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("Enter");
      await cell.locator("textarea").fill("another answer");
      await page.keyboard.press("Control+Enter");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("Delete");
      await page.locator(".save-bar input").fill("better");
      await Promise.all([page.waitForEvent("load"), page.getByRole("button", { name: t("grid-save"), exact: true }).click()]);
      await page.locator(".ex-cell", { hasText: "another answer" }).waitFor();
      const { json } = await server.call(api, undefined, "GET");
      assert.deepEqual([json.count, json.message], [149, "better"]);
      await page.goto(`${server.url}/default/datasets/diff?name=${encodeURIComponent(name)}`);
      await page.locator("ins", { hasText: "another answer" }).waitFor();
    });

    test("nothing that a page must not do", () => assert.deepEqual(opened.misdeeds, []));
  });
}
