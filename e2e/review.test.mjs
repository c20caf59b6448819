// A review queue in the browser, in both languages: made by a form, filled, labelled by keyboard with places
// marked in Japanese text, keys changed, an item settled, gold made, a guest let in; each page checked and drawn.

import AxeBuilder from "@axe-core/playwright";
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { eventually, openPage, shotsDir, signUp, startBrowser, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

let browser;
before(async () => { browser = await startBrowser(); });
after(() => browser?.close());

/** No accessibility fault, nothing to scroll sideways, and a picture for people. */
async function look({ page, misdeeds }, name, lang, theme, width) {
  await page.screenshot({ path: join(shotsDir("review"), `${name}-${width}-${theme}-${lang}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name}: ${wide} px to scroll sideways`);
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).join(", ")}`), [], name);
  assert.deepEqual(misdeeds, [], name);
}

for (const lang of ["en", "ja"]) {
  describe(`a review queue in ${lang}`, () => {
    const t = words(lang);
    const name = lang === "ja" ? "案内/回答" : "guide/answers";
    const queue = encodeURIComponent(name);
    let server, person, state, here;
    const labels = async () => {
      const { json } = await server.call(`/api/v1/review/queues/${queue}/items`);
      return json.items;
    };
    before(async () => {
      server = await startServer();
      state = await signUp(browser, server);
      person = await openPage(browser, server, { lang, storageState: state });
      here = `${server.url}/default/review/${queue}`;
    });
    after(async () => { await person?.context.close(); await server?.stop(); });

    test("empty pages say what there could be", async () => {
      for (const path of ["review", "review-queues", "calibration"]) {
        await person.page.goto(`${server.url}/default/${path}`);
        await look(person, `empty-${path}`, lang, "light", 1280);
      }
    });

    test("made by a form, and filled from a dataset", async () => {
      const { page } = person;
      const answer = "𠮷野家は\n東京にあります。\nCall 090-1234-5678.";
      const examples = Array.from({ length: 6 }, (_, i) => ({ id: `e${i}`, input: `Where is shelf ${i}? 棚は?`, metadata: { floor: i }, source: { answer: `${answer} ${i}` } }));
      await server.call("/api/v1/datasets", { name: "support/質問", examples });
      await page.goto(`${server.url}/default/review-queues/edit`);
      await page.fill("#f-name", name);
      await page.fill("#f-guidelines", "Be fair.\n公平に。");
      await page.fill("#f-question1", "verdict");
      await page.selectOption("#f-kind1", "choice");
      await page.fill("#f-options1", "good\nbad");
      await page.locator("details.panel > summary").nth(1).click();
      await page.fill("#f-question2", "quality");
      await page.selectOption("#f-kind2", "rating");
      await page.locator("details.panel > summary").nth(2).click();
      await page.fill("#f-question3", "facts");
      await page.selectOption("#f-kind3", "spans");
      await page.fill("#f-options3", "name\nphone");
      await page.locator("details.panel > summary").nth(3).click();
      await page.fill("#f-question4", "correct");
      await page.selectOption("#f-kind4", "correction");
      await page.uncheck('[name="required4"]');
      await page.locator('button[value="form"]').click();
      await page.waitForURL(/review-queues\/show/);
      await page.getByRole("link", { name: t("review-fill"), exact: true }).first().click();
      await page.waitForURL(/review-queues\/fill/);
      await page.check('[name="source"][value="dataset"]');
      await page.selectOption("#f-dataset", "support/質問");
      await page.getByRole("button", { name: t("review-fill"), exact: true }).click();
      await page.waitForURL(/review-queues\/show/);
      assert.equal((await labels()).length, 6);
    });

    test("labelled by keyboard, places counted in characters, the next item without a wait", async () => {
      const { page } = person;
      await page.goto(here);
      await page.evaluate(() => { window.same = true; });
      const item = () => page.locator("#review-item > form").first().getAttribute("data-item");
      const first = await item();
      await page.locator('[data-question="verdict"][data-current]').waitFor();
      await page.locator("[data-prefetch] > #review-item form").waitFor({ state: "attached" });
      await page.keyboard.press("2");
      await page.keyboard.press("1");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("4");
      await page.keyboard.press("ArrowDown");
      await page.locator('[data-text="output"]').first().focus();
      for (let i = 0; i < 3; i++) await page.keyboard.press("Shift+ArrowRight");
      await page.keyboard.press("1");
      await page.locator(".review-text mark").first().waitFor();
      assert.equal(await page.locator(".review-text mark").first().textContent(), "𠮷野家");
      await look(person, "item-marked", lang, "light", 1280);
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("Control+Enter");
      await eventually(async () => (await item()) !== first, "the next item");
      assert.equal(await page.evaluate(() => window.same), true, "no page was loaded for it");
      const found = (await labels()).find((one) => one.id === first);
      const { values } = found.labels[0];
      assert.deepEqual([values.verdict, values.quality, values.facts], ["good", 4, [{ start: 0, end: 3, label: "name" }]]);
      assert.match(await page.locator("[data-count]").textContent(), /^1 \/ 6/);
    });

    test("what is missing is said where it is missing", async () => {
      const { page } = person;
      await page.keyboard.press("Control+Enter");
      await page.locator('[data-question="verdict"] p.error', { hasText: t("reviewkeys-needed") }).first().waitFor();
    });

    test("keys are shown, changed, and refused where they are taken", async () => {
      const { page } = person;
      await page.keyboard.press("?");
      await page.locator(".help-dialog").waitFor();
      await page.locator('[data-remap="skip"]').click();
      await page.keyboard.press("x");
      await page.locator('[data-remap="undo"]').click();
      await page.keyboard.press("x");
      await page.locator(".help-dialog .error", { hasText: "x" }).waitFor();
      await look(person, "keys", lang, "light", 1280);
      await page.keyboard.press("Escape");
      const item = () => page.locator("#review-item > form").first().getAttribute("data-item");
      const skipped = await item();
      await page.keyboard.press("x");
      await eventually(async () => (await item()) !== skipped, "the item after the skipped one");
      await page.keyboard.press("u");
      await page.waitForURL(/item=/);
      assert.equal(await item(), skipped);
      // Back to where one's own labels are, and forth again.
      await page.keyboard.press("ArrowLeft");
      await page.locator(".note", { hasText: t("review-again") }).waitFor();
      await page.keyboard.press("ArrowRight");
      await page.waitForURL((url) => !url.search);
    });

    test("an input method keeps its Enter", async () => {
      const { page } = person;
      await page.locator('[data-question="correct"] textarea').first().focus();
      const session = await page.context().newCDPSession(page);
      await session.send("Input.imeSetComposition", { text: "とうきょう", selectionStart: 5, selectionEnd: 5 });
      await page.keyboard.press("Enter");
      await session.send("Input.insertText", { text: "東京" });
      assert.match(await page.locator('[data-question="correct"] textarea').first().inputValue(), /東京/);
      await page.keyboard.press("Escape");
      assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("data-question")), "correct");
    });

    test("without scripts the form goes item by item", async () => {
      const context = await browser.newContext({ javaScriptEnabled: false, storageState: state });
      const page = await context.newPage();
      await page.goto(here);
      const first = await page.locator("form.review-item").getAttribute("data-item");
      await page.locator('form.review-item button[value="label"]').click();
      await page.locator('[data-question="verdict"] p.error').waitFor();
      await page.locator('[data-question="verdict"] input[value="bad"]').check();
      await page.locator('[data-question="quality"] input[value="2"]').check();
      await page.locator('[data-question="facts"] textarea').fill("0-3 name\n20-33 phone");
      await page.locator('form.review-item button[value="label"]').click();
      const done = await eventually(async () => (await labels()).find((one) => one.id === first && one.labels.length), "the label");
      const { values } = done.labels[0];
      assert.deepEqual([values.verdict, values.quality, values.facts.length], ["bad", 2, 2]);
      await context.close();
    });

    test("a guest comes by a link, sees this queue and nothing else", async () => {
      const { page } = person;
      await page.goto(`${server.url}/default/review-queues/show?name=${queue}`);
      await page.fill("#f-guest", "Hanako");
      await page.getByRole("button", { name: t("review-guest-make") }).click();
      const link = await page.locator(".code code").textContent();
      await look(person, "guest-link", lang, "light", 1280);
      const guest = await openPage(browser, server, { lang });
      await guest.page.goto(link);
      await guest.page.waitForURL(/\/review\//);
      assert.ok(!guest.page.url().includes("token"));
      assert.equal(await guest.page.locator(".rail .nav a").count(), 1);
      await look(guest, "guest", lang, "light", 1280);
      await guest.page.locator('[data-question="verdict"][data-current]').waitFor();
      await guest.page.keyboard.press("1");
      await guest.page.keyboard.press("ArrowDown");
      await guest.page.keyboard.press("5");
      await guest.page.keyboard.press("Control+Enter");
      await guest.page.locator("[data-count]", { hasText: /^1 \// }).waitFor();
      const refused = await guest.page.request.get(`${server.url}/default/traces`, { maxRedirects: 0 });
      assert.ok(refused.status() === 403 || refused.status() === 303, `traces answer ${refused.status()}`);
      await guest.context.close();
    });

    test("settled where raters differ, and made gold", async () => {
      const { page } = person;
      // A second queue with two raters who do not agree.
      const content = { raters: 2, blind: true, questions: [{ name: "verdict", type: "choice", options: ["good", "bad"] }, { name: "answer", type: "expected", required: false }], gold: "answer" };
      await server.call("/api/v1/catalog/review_queue/two/versions", { content });
      await server.call("/api/v1/review/queues/two/fill", { source: { dataset: { name: "support/質問" } }, limit: 2 });
      const { json } = await server.call("/api/v1/review/inbox/two/next", {});
      await server.call(`/api/v1/review/items/${json.item.id}/label`, { fence: json.item.fence, values: { verdict: "bad", answer: "二階です。" }, comment: "wrong floor" });
      await page.goto(`${server.url}/default/review/two`);
      await eventually(async () => {
        const now = await page.locator("#review-item > form").first().getAttribute("data-item");
        if (now === json.item.id) return true;
        await page.locator('[data-question="verdict"][data-current]').waitFor();
        await page.keyboard.press("s");
        await eventually(async () => (await page.locator("#review-item > form").first().getAttribute("data-item")) !== now, "another item");
        return false;
      }, "the item of the other rater");
      await page.locator('[data-question="verdict"] input[value="good"]').first().check();
      await page.locator('[data-act="complete"]').first().click();
      await eventually(async () => (await server.call("/api/v1/review/queues/two")).json.counts.adjudicate === 1, "two labels that differ");
      await page.goto(`${server.url}/default/review-queues/show?name=two&state=adjudicate`);
      await look(person, "to-settle", lang, "light", 1280);
      await page.locator("#items tbody a.target").first().click();
      await page.waitForURL(/review-queues\/item/);
      await page.getByText("wrong floor").waitFor();
      await look(person, "adjudicate", lang, "light", 1280);
      await page.locator('form [data-question="verdict"] input[value="bad"]').check();
      await page.locator('form [data-question="answer"] textarea').fill("二階です。");
      await page.locator('button[value="settle"]').click();
      await page.getByText(t("review-now-closed")).waitFor();
      await page.goto(`${server.url}/default/review-queues/show?name=two`);
      await page.fill("#f-dataset", "support/gold");
      await page.getByRole("button", { name: t("review-gold-make") }).click();
      await page.waitForURL(/review-queues\/show/);
      const gold = await eventually(async () => (await server.call("/api/v1/datasets/support%2Fgold/examples")).json, "the gold");
      assert.deepEqual(gold.items.map((one) => one.expected), ["二階です。"]);
    });

    test("full pages, wide and narrow, light and dark", async () => {
      const paths = {
        inbox: "/default/review", item: `/default/review/${queue}`, queues: "/default/review-queues",
        show: `/default/review-queues/show?name=${queue}`, edit: `/default/review-queues/edit?name=${queue}`,
        new: "/default/review-queues/edit", fill: `/default/review-queues/fill?name=${queue}`,
      };
      for (const [theme, width] of [["light", 1280], ["dark", 1280], ["light", 390], ["dark", 390]]) {
        const opened = await openPage(browser, server, { lang, theme, storageState: state, width, height: 900 });
        for (const [name, path] of Object.entries(paths)) {
          await opened.page.goto(server.url + path);
          if (name === "item") await opened.page.locator("[data-current]").first().waitFor();
          await look(opened, name, lang, theme, width);
        }
        await opened.context.close();
      }
    });
  });
}
