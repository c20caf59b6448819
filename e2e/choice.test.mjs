// Choosing a model in the browser, in both languages: a shortlist by properties, the task and what
// matters, rounds as they go, the chart, other weights, evidence; each page checked and drawn.

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
  await page.screenshot({ path: join(shotsDir("choice"), `${name}-${width}-${theme}-${lang}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name}: ${wide} px to scroll sideways`);
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).join(", ")}`), [], name);
  assert.deepEqual(misdeeds, [], name);
}

for (const lang of ["en", "ja"]) {
  describe(`a choice in ${lang}`, () => {
    const t = words(lang);
    let server, person, state, address;
    before(async () => {
      server = await startServer();
      state = await signUp(browser, server);
      person = await openPage(browser, server, { lang, storageState: state, theme: "light", width: 1280, height: 900 });
    });
    after(async () => { await person?.context.close(); await server?.stop(); });

    test("the empty list leads to the catalog", async () => {
      const { page } = person;
      await page.goto(`${server.url}/default/choices`);
      await look(person, "empty", lang, "light", 1280);
      await page.getByRole("link", { name: t("choices-new"), exact: true }).last().click();
      await page.waitForURL(/choices\/models/);
    });

    test("models are filtered by what is known of them, and marked", async () => {
      const { page } = person;
      await server.cli("provider", "add", "acme", "--protocol", "openai", "--base-url", `${provider.url}/v1`);
      await server.cli("provider", "test", "acme").catch(() => undefined);
      await eventually(async () => (await server.call("/v1/models")).text.includes("acme/echo"), "the provider", 20_000);
      for (const [model, usd] of [["echo", 5], ["echo-small", 0.5], ["japanese", 0.1], ["structured", 1], ["status-400", 1]]) {
        await server.call("/api/v1/prices", { provider: "acme", model, input_usd: usd, output_usd: usd }, "PUT");
      }
      const card = { model: "acme/echo*", vendor: "Acme", licence: "MIT", open: true, context_tokens: 32000, regions: ["東京"], languages: ["en", "ja"], sources: ["https://example.com/echo"], read_on: "2026-11-01" };
      await server.call("/api/v1/catalog/model_card/team%2Fecho/versions", { content: card });
      await page.goto(`${server.url}/default/choices/models`);
      await page.selectOption("#f-vendor", "Acme");
      await page.getByRole("button", { name: t("choices-filter"), exact: true }).click();
      await page.waitForURL(/vendor=Acme/);
      assert.equal(await page.locator("tbody tr").count(), 1);
      await page.check('input[name="m:acme/echo"]');
      await page.getByRole("button", { name: t("choices-among") }).click();
      await page.waitForURL(/choices\/new/);
      assert.ok(await page.isChecked('input[name="m:acme/echo"]'));
    });

    test("the form says what is wrong, and starts", async () => {
      const { page } = person;
      const examples = Array.from({ length: 50 }, (_, i) => ({ id: `q${i}`, input: `Where is shelf ${i}? 棚は?`, expected: `Where is shelf ${i}? 棚は?` }));
      await server.call("/api/v1/datasets", { name: DATASET, examples });
      await page.reload();
      await page.fill("#f-more", "acme/echo-small, acme/status-400, acme/japanese, acme/structured");
      await page.selectOption("#f-dataset", DATASET);
      await page.selectOption("#f-e1", "metric:contains");
      await page.selectOption("#f-e2", "metric:exact-match");
      await page.fill("#f-finalists", "3");
      await page.fill("#f-name", "support/");
      await page.getByRole("button", { name: t("choices-start"), exact: true }).click();
      await page.locator("#h-name").waitFor();
      // A refused form is a 422, which the browser writes to its console.
      assert.equal(person.misdeeds.splice(0).filter((said) => !said.includes("422")).length, 0);
      await look(person, "form", lang, "light", 1280);
      await page.fill("#f-name", "support/model");
      await page.getByRole("button", { name: t("choices-start"), exact: true }).click();
      await page.waitForURL(/choices\/show/);
      address = page.url().split("#")[0];
      // The page follows the rounds by itself.
      await page.locator("#result .choice-verdict").waitFor({ timeout: 60_000 });
      await page.getByText("acme/status-400").first().waitFor();
      assert.ok((await page.locator(".choice-verdict").textContent()).includes("acme/echo-small"));
      // Three finalists, or more where no interval tells them apart.
      assert.ok(await page.locator(".choice-chart circle").count() >= 3);
    });

    test("other weights and limits are weighed on the page", async () => {
      const { page } = person;
      await page.fill("#f-usd_per_1000", "0.00001");
      await page.getByRole("button", { name: t("choices-weigh"), exact: true }).click();
      await page.waitForURL(/usd_per_1000=0.00001/);
      await page.locator("#result .note").waitFor();
      await look(person, "limited", lang, "light", 1280);
      await page.getByRole("link", { name: t("choices-as-asked"), exact: true }).click();
      await page.locator("#result .choice-verdict").waitFor();
    });

    test("a prompt cites the choice", async () => {
      const { page } = person;
      const content = { messages: [{ role: "system", content: "Echo." }], model: "acme/echo-small" };
      await server.call("/api/v1/prompts", { name: "support/answer", content });
      await page.goto(address);
      await page.selectOption("#f-subject", "prompt:support/answer");
      await page.getByRole("button", { name: t("choices-cite-button"), exact: true }).click();
      await eventually(async () => (await server.call("/api/v1/evidence?kind=prompt&name=support%2Fanswer")).text.includes('"outcome":"pass"'), "the evidence", 10_000);
    });

    test("full pages, wide and narrow, light and dark", async () => {
      const { pathname, search } = new URL(address);
      const paths = { list: "/default/choices", models: "/default/choices/models?callable=yes&sort=-input", catalog: "/default/choices/models?vendor=OpenAI", show: pathname + search, again: `/default/choices/new?like=${new URL(address).searchParams.get("id")}` };
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
      const context = await browser.newContext({ javaScriptEnabled: false, storageState: state, locale: lang === "ja" ? "ja-JP" : "en-US" });
      const page = await context.newPage();
      await page.goto(`${server.url}/default/choices/new?m%3Aacme%2Fecho=on&m%3Aacme%2Fjapanese=on`);
      await page.selectOption("#f-dataset", DATASET);
      await page.selectOption("#f-e1", "metric:contains");
      await page.fill("#f-name", "support/plain");
      await page.locator("form button.primary").last().click();
      await page.waitForURL(/choices\/show/);
      await eventually(async () => {
        await page.reload();
        return (await page.locator("#result").count()) > 0;
      }, "the end", 60_000);
      await page.fill("#f-cost", "0");
      await page.getByRole("button", { name: t("choices-weigh"), exact: true }).click();
      await page.waitForURL(/cost=0/);
      await context.close();
    });
  });
}
