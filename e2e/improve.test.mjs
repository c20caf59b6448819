// A prompt is improved in the browser, in both languages: started by the form, followed by the page,
// judged on what was held out, opened in the editor; each page empty and full, checked and drawn.

import AxeBuilder from "@axe-core/playwright";
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { eventually, openPage, shotsDir, signUp, startBrowser, startProvider, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

const DATASET = "support/質問";
const PROMPT = "support/答え";
let browser, provider;
before(async () => { browser = await startBrowser(); provider = await startProvider(); });
after(async () => { await browser?.close(); provider?.stop(); });

/** No accessibility fault, nothing to scroll sideways, and a picture for people. */
async function look({ page, misdeeds }, name, lang, theme, width) {
  await page.screenshot({ path: join(shotsDir("improve"), `${name}-${width}-${theme}-${lang}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name}: ${wide} px to scroll sideways`);
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).join(", ")}`), [], name);
  assert.deepEqual(misdeeds, [], name);
}

for (const lang of ["en", "ja"]) {
  describe(`a prompt is improved in ${lang}`, () => {
    const t = words(lang);
    let server, person, state, address;
    before(async () => {
      server = await startServer();
      state = await signUp(browser, server);
      person = await openPage(browser, server, { lang, storageState: state, theme: "light", width: 1280, height: 900 });
    });
    after(async () => { await person?.context.close(); await server?.stop(); });

    test("empty pages say what there could be", async () => {
      for (const path of ["improvements", "improvements/new"]) {
        await person.page.goto(`${server.url}/default/${path}`);
        await look(person, `empty-${path.replace("/", "-")}`, lang, "light", 1280);
      }
    });

    test("a form starts it, and the page says what it was worth", async () => {
      const { page } = person;
      await server.cli("provider", "add", "acme", "--protocol", "openai", "--base-url", `${provider.url}/v1`);
      await server.cli("provider", "test", "acme").catch(() => undefined);
      await eventually(async () => (await server.call("/v1/models")).text.includes("acme/"), "the provider", 20_000);
      const rare = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "hazel", "ivory", "jaded", "krill", "lilac"];
      const examples = rare.flatMap((word, i) => ["本", "map", "key"].map((thing, j) => ({
        id: `q${i}-${j}`, input: { question: `${word} ${thing} ${i * 3 + j}?` }, expected: `echo: ${word} ${thing} ${i * 3 + j}?`,
      })));
      await server.call("/api/v1/datasets", { name: DATASET, examples });
      const content = { messages: [{ role: "user", content: "Please tell me now: {{ question }}" }], model: "acme/echo" };
      await server.call("/api/v1/prompts", { name: PROMPT, content });
      await page.goto(`${server.url}/default/improvements/new?prompt=${encodeURIComponent(PROMPT)}`);
      await page.selectOption("#f-dataset", DATASET);
      await page.selectOption("#f-e1", "metric:exact-match");
      await page.selectOption("#f-e2", "metric:contains");
      await page.fill("#f-train", "train");
      await page.getByRole("button", { name: t("improve-start"), exact: true }).click();
      // Half of the splits and no reflecting model: said at the fields.
      await page.locator("#h-reflector.error").waitFor();
      // The browser's console names the refusal, as it should.
      person.misdeeds.length = 0;
      await page.fill("#f-train", "");
      await page.selectOption("#f-reflector", "acme/improver");
      await page.fill("#f-guidance", "短く。");
      await page.getByRole("button", { name: t("improve-start"), exact: true }).click();
      await page.waitForURL(/improvements\/show/);
      address = page.url();
      // The page follows it by itself.
      await page.getByText(t("evaluations-state-done"), { exact: true }).first().waitFor({ timeout: 60_000 });
      await page.getByText(t("evaluations-verdict-better"), { exact: true }).first().waitFor();
      await page.getByText(t("improve-ended-perfect"), { exact: true }).waitFor();
    });

    test("a step shows what changed and every answer; the best text opens in the editor", async () => {
      const { page } = person;
      await page.goto(address);
      await page.locator(".improve-tree .improve-tree a.link").first().click();
      await page.waitForURL(/improvements\/step/);
      await page.getByText("余計な言葉", { exact: false }).first().waitFor();
      await page.locator("table.diff td.add").first().waitFor();
      await look(person, "step", lang, "light", 1280);
      await page.goto(address);
      await page.getByRole("link", { name: t("improve-open", { n: 2 }), exact: true }).click();
      await page.waitForURL(/prompts\/edit\?name=.*version=2/);
    });

    test("full pages, wide and narrow, light and dark", async () => {
      const found = new URL(address);
      const id = found.searchParams.get("id");
      const paths = {
        list: "/default/improvements", show: found.pathname + found.search, step: `/default/improvements/step?id=${id}&number=1`,
        new: `/default/improvements/new?like=${id}`,
      };
      for (const [theme, width] of [["light", 1280], ["dark", 1280], ["light", 390], ["dark", 390]]) {
        const opened = await openPage(browser, server, { lang, theme, storageState: state, width, height: 900 });
        for (const [name, path] of Object.entries(paths)) {
          await opened.page.goto(server.url + path);
          await opened.page.evaluate(() => document.querySelectorAll("main details").forEach((fold) => { fold.open = true; }));
          await look(opened, name, lang, theme, width);
        }
        await opened.context.close();
      }
    });

    test("everything works without scripts", async () => {
      const context = await browser.newContext({ javaScriptEnabled: false, storageState: state, locale: lang === "ja" ? "ja-JP" : "en-US" });
      const page = await context.newPage();
      await page.goto(`${server.url}/default/improvements/new`);
      await page.selectOption("#f-prompt", PROMPT);
      await page.fill("#f-version", "1");
      await page.selectOption("#f-dataset", DATASET);
      await page.selectOption("#f-e1", "metric:exact-match");
      await page.selectOption("#f-reflector", "acme/improver");
      await page.getByRole("button", { name: t("improve-start"), exact: true }).click();
      await page.waitForURL(/improvements\/show/);
      await eventually(async () => {
        await page.reload();
        return (await page.locator(".improve-node.is-best .badge.ok").count()) > 0 && (await page.getByText(t("evaluations-state-done"), { exact: true }).count()) > 0;
      }, "the end", 60_000);
      await context.close();
    });
  });
}
