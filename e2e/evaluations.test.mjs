// An evaluation in the browser, in both languages: started by the form, compared, its worst example
// opened with both answers and a trace; the evaluator's editor; each page empty and full, checked and drawn.

import AxeBuilder from "@axe-core/playwright";
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { eventually, openPage, shotsDir, signUp, startBrowser, startProvider, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

const DATASET = "support/質問";
let browser, provider;
before(async () => { browser = await startBrowser(); provider = await startProvider(); });
after(async () => { await browser?.close(); provider?.stop(); });

/** No accessibility fault, nothing to scroll sideways, and a picture for people. */
async function look({ page, misdeeds }, name, lang, theme, width) {
  await page.screenshot({ path: join(shotsDir("evaluations"), `${name}-${width}-${theme}-${lang}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name}: ${wide} px to scroll sideways`);
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).join(", ")}`), [], name);
  assert.deepEqual(misdeeds, [], name);
}

for (const lang of ["en", "ja"]) {
  describe(`an evaluation in ${lang}`, () => {
    const t = words(lang);
    let server, person, state, address;
    before(async () => {
      server = await startServer();
      state = await signUp(browser, server);
      person = await openPage(browser, server, { lang, storageState: state, theme: "light", width: 1280, height: 900 });
    });
    after(async () => { await person?.context.close(); await server?.stop(); });

    test("empty pages say what there could be", async () => {
      for (const path of ["evaluations", "evaluators", "evaluations/new"]) {
        await person.page.goto(`${server.url}/default/${path}`);
        await look(person, `empty-${path.replace("/", "-")}`, lang, "light", 1280);
      }
    });

    test("candidates are chosen in a form, and the comparison says which is better", async () => {
      const { page } = person;
      await server.cli("provider", "add", "acme", "--protocol", "openai", "--base-url", `${provider.url}/v1`);
      await server.cli("provider", "test", "acme").catch(() => undefined);
      await eventually(async () => (await server.call("/v1/models")).text.includes("acme/"), "the provider", 20_000);
      const examples = Array.from({ length: 24 }, (_, i) => ({
        id: `q${i}`, input: `Where is shelf ${i}? 棚は?`, expected: `Where is shelf ${i}? 棚は?`, metadata: { floor: `floor ${i % 3}` },
      }));
      await server.call("/api/v1/datasets", { name: DATASET, examples });
      const judge = { type: "metric", description: "The text is in the answer", metric: { id: "contains" } };
      await server.call("/api/v1/catalog/evaluator/quality%2Fexact/versions", { content: judge });
      const document = {
        dataset: `dataset:${DATASET}@latest`, candidates: [{ name: "echo", model: "acme/echo" }, { name: "日本語", model: "acme/japanese" }],
        evaluators: ["evaluator:quality/exact@latest", { name: "similar", evaluator: { type: "metric", metric: { id: "compat:levenshtein" } } }],
        gate: [{ evaluator: "quality/exact", not_worse_by: 0.05 }],
      };
      await page.goto(`${server.url}/default/evaluations/new`);
      await page.locator("details.fold-box > summary").click();
      await page.fill("#f-document", JSON.stringify(document));
      await page.fill("#f-save_as", "support/quality");
      await page.getByRole("button", { name: t("evaluations-start"), exact: true }).last().click();
      await page.waitForURL(/evaluations\/show/);
      address = page.url();
      // The page follows the evaluation by itself.
      await page.getByText(t("evaluations-state-done"), { exact: true }).first().waitFor({ timeout: 60_000 });
      await page.getByText(t("evaluations-verdict-worse"), { exact: true }).first().waitFor();
      await page.getByText(t("evaluations-outcome-fail"), { exact: true }).first().waitFor();
    });

    test("the worst example has the answers side by side and their traces", async () => {
      const { page } = person;
      await page.goto(`${address}&field=floor`);
      await page.getByRole("rowheader", { name: "floor 0" }).waitFor();
      await page.locator("#examples tbody a.target").first().click();
      await page.waitForURL(/evaluations\/example/);
      assert.equal(await page.locator(".evaluation-answers > section").count(), 2);
      await look(person, "example", lang, "light", 1280);
      await page.getByRole("link", { name: t("evaluations-trace"), exact: true }).last().click();
      await page.waitForURL(/\/traces\//);
      await page.getByText("quality/exact").first().waitFor();
    });

    test("an evaluator is written in a form, refused where it is wrong, and kept", async () => {
      const { page } = person;
      await page.goto(`${server.url}/default/evaluators/edit?type=judge`);
      await look(person, "judge", lang, "light", 1280);
      await page.fill("#f-name", "quality/kind");
      await page.locator("button[value=form]").click();
      await page.getByRole("alert").getByText("/criteria").waitFor();
      await page.selectOption("#f-model", "acme/echo");
      await page.fill("#f-criterion1", "kindness");
      await page.fill("#f-meaning1", "how kind the answer is");
      await page.locator("button[value=form]").click();
      await page.waitForURL(/evaluators\/edit\?name=/);
      assert.equal(await page.inputValue("#f-criterion1"), "kindness");
    });

    test("full pages, wide and narrow, light and dark", async () => {
      const paths = {
        list: "/default/evaluations", show: `${new URL(address).pathname}${new URL(address).search}&field=floor`,
        new: "/default/evaluations/new", evaluators: "/default/evaluators", metric: "/default/evaluators/edit?name=quality%2Fexact",
      };
      for (const [theme, width] of [["light", 1280], ["dark", 1280], ["light", 390], ["dark", 390]]) {
        const opened = await openPage(browser, server, { lang, theme, storageState: state, width, height: 900 });
        for (const [name, path] of Object.entries(paths)) {
          await opened.page.goto(server.url + path);
          await look(opened, name, lang, theme, width);
        }
        await opened.context.close();
      }
    });

    test("everything works without scripts", async () => {
      const context = await browser.newContext({ javaScriptEnabled: false, storageState: state });
      const page = await context.newPage();
      await page.goto(`${server.url}/default/evaluations/new`);
      await page.selectOption("#f-dataset", DATASET);
      await page.selectOption("#f-model1", "acme/echo");
      await page.selectOption("#f-e1", "metric:exact-match");
      await page.fill("#f-limit", "2");
      await page.locator("form button.primary").last().click();
      await page.waitForURL(/evaluations\/show/);
      await eventually(async () => {
        await page.reload();
        return (await page.locator(".badge.ok").count()) > 0;
      }, "the end", 60_000);
      await context.close();
    });
  });
}
