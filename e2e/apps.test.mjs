// Building by hand: an app of two steps by form, drawn while it is typed, mended where it is wrong, tried with the
// answer streaming in and each step's result, saved, cut and called; drafts beside each other; an experiment.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually, openPage, signUp, startBrowser, startProvider, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

let browser, provider;
before(async () => { browser = await startBrowser(); provider = await startProvider(); });
after(async () => { await browser?.close(); provider?.stop(); });

for (const lang of ["en", "ja"]) {
  describe(`building in ${lang}`, () => {
    const t = words(lang);
    const app = lang === "ja" ? "案内/返信" : "desk/reply";
    let server, state;
    before(async () => {
      server = await startServer();
      state = await signUp(browser, server);
      await server.cli("provider", "add", "acme", "--protocol", "openai", "--base-url", `${provider.url}/v1`);
      await server.cli("provider", "test", "acme");
      const prompt = (content) => ({ messages: [{ role: "user", content }] });
      await server.call("/api/v1/prompts", { name: "desk/polish", message: "", content: prompt("Polish this: {{ draft }}") });
      await server.call("/api/v1/prompts/desk%2Fpolish/versions", { message: "kinder", content: prompt("Polish this kindly: {{ draft }}") });
      await server.call("/api/v1/prompts/desk%2Fpolish/labels/production", { version: 1, reason: "first" }, "PUT");
      await eventually(async () => (await server.call("/v1/models")).text.includes("acme/"), "the provider", 10_000);
    });
    after(() => server?.stop());

    const card = (page, id) => page.locator(`#step-${id}`);
    const label = (key, what) => `${t(key)}: ${what}`;

    test("an app of two steps by form: drawn, wrong at its field, the same as JSON, tried, saved, cut, called", async () => {
      const { context, page, assertClean } = await openPage(browser, server, { lang, storageState: state });
      await page.goto(`${server.url}/default/apps`);
      await page.getByText(t("apps-start-answer"), { exact: true }).click();
      await page.fill("#ap-name", app);
      await page.getByLabel(`main: ${t("appedit-model")} 1`).fill("acme/echo");
      await page.locator("#ap-steps > .body > .ap-steps > .ap-add").getByRole("button", { name: t("appedit-type-prompt"), exact: true }).click();
      await card(page, "step").getByLabel(t("appedit-prompt-name")).fill("desk/polish");
      // The prompt's variable is offered, and what it most likely is.
      await card(page, "step").getByRole("button", { name: "draft", exact: true }).click();
      const expression = card(page, "step").getByLabel(`draft: ${t("appedit-expression")}`);
      assert.equal(await expression.inputValue(), "steps.answer.text");
      await page.locator('.ap-state[data-state="good"]').waitFor();
      await page.locator(".app-graph").getByText("step", { exact: true }).waitFor();

      await expression.fill("steps.nobody.text");
      await card(page, "step").locator(".ap-pair .error").waitFor();
      assert.equal(await expression.getAttribute("aria-invalid"), "true");
      await page.locator('.ap-state[data-state="bad"]').waitFor();
      await expression.fill("steps.answer.text");
      await page.locator('.ap-state[data-state="good"]').waitFor();

      // A step that is renamed takes what is said about it along.
      await card(page, "answer").getByLabel(t("appedit-id"), { exact: true }).fill("first");
      await page.waitForFunction(() => [...document.querySelectorAll("input")].some((input) => input.value === "steps.first.text"));
      await page.getByRole("button", { name: "JSON", exact: true }).first().click();
      await page.locator(".ap-source .cm-content").getByText('"prompt:desk/polish@production"').waitFor();
      await page.getByRole("button", { name: t("appedit-form"), exact: true }).click();

      await page.locator('.ap-state[data-state="good"]').waitFor();
      await page.fill("#ap-in-question", "Where is the shelf?");
      await page.getByRole("button", { name: t("appedit-run"), exact: true }).click();
      await page.locator("#ap-answer").waitFor();
      await eventually(async () => await page.locator(".ap-results > li").count() === 2, "the results of both steps");
      assert.ok((await page.locator("#ap-answer").textContent()).length > 0);
      await page.locator(".ap-results").getByText("first", { exact: true }).waitFor();

      await page.fill("#ap-message", "two steps");
      await Promise.all([page.waitForURL(/apps\/show/), page.getByRole("button", { name: t("appedit-save"), exact: true }).click()]);
      await page.getByRole("button", { name: t("apps-cut-button"), exact: true }).click();
      await page.locator(".versions .badge", { hasText: "dev" }).waitFor();
      const key = JSON.parse(await server.cli("key", "create", "--name", "app", "--env", "dev", "--role", "caller", "--json")).secret;
      const answer = await fetch(`${server.url}/v1/chat/completions`, {
        method: "POST", headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        body: JSON.stringify({ model: app, messages: [{ role: "user", content: "Hi" }] }),
      });
      const text = await answer.text();
      assert.equal(answer.status, 200, text);
      assert.ok(text.includes("Polish this:"), text);
      assertClean();
      await context.close();
    });

    test("a version edited again: reordered and back, the same content is no new version", async () => {
      const { context, page, assertClean } = await openPage(browser, server, { lang, storageState: state });
      await page.goto(`${server.url}/default/apps/edit?name=${encodeURIComponent(app)}`);
      await page.locator('.ap-state[data-state="good"]').waitFor();
      await page.getByRole("button", { name: label("appedit-down", "first"), exact: true }).click();
      assert.deepEqual(await page.locator(".ap-card[data-kind=prompt] .ap-id").evaluateAll((inputs) => inputs.map((input) => input.value)), ["step", "first"]);
      await page.getByRole("button", { name: label("appedit-up", "first"), exact: true }).click();
      await Promise.all([page.waitForURL(/apps\/show/), page.getByRole("button", { name: t("appedit-save"), exact: true }).click()]);
      assert.equal(await page.locator(".versions").last().locator("li").count(), 1, "the same content gives the version that holds it");
      assertClean();
      await context.close();
    });

    test("two versions beside each other, answers streaming in", async () => {
      const { context, page, assertClean } = await openPage(browser, server, { lang, storageState: state });
      await page.goto(`${server.url}/default/`);
      await page.getByRole("link", { name: t("nav-compare"), exact: true }).first().click();
      await page.waitForURL((url) => url.pathname === "/default/compare");
      const query = new URLSearchParams({ prompts: '["desk/polish@v1","desk/polish@v2"]', models: '["acme/echo"]' });
      await page.goto(`${server.url}/default/compare?${query}`);
      await page.locator(".cmp-input").first().fill("The shop opens at nine.");
      await page.getByRole("button", { name: t("compare-run"), exact: true }).click();
      await eventually(async () => await page.locator('.cmp-cell[data-state="done"]').count() === 2, "both answers");
      const answers = await page.locator(".cmp-cell pre").allTextContents();
      assert.ok(answers[0].includes("Polish this:") && answers[1].includes("kindly"), answers.join(" | "));
      assertClean();
      await context.close();
    });

    test("an experiment: made by form, started, its verdict and figures", async () => {
      const { context, page, assertClean } = await openPage(browser, server, { lang, storageState: state });
      await page.goto(`${server.url}/default/experiments`);
      await page.getByRole("link", { name: t("experiments-new") }).first().click();
      for (const [field, value] of Object.entries({ name: "kinder", target: "desk/polish", pointer: "production" })) await page.fill(`#f-${field}`, value);
      // The target's versions come when it is known.
      for (const [field, version] of Object.entries({ control: "1", candidate: "2" })) await page.locator(`select#f-${field}`).selectOption(version);
      await page.fill("#f-minimum_sample", "100");
      await page.getByRole("button", { name: t("save"), exact: true }).click();
      await page.getByText(t("experiments-never"), { exact: true }).waitFor();
      await page.getByRole("button", { name: t("experiments-start"), exact: true }).first().click();
      await page.locator(".dialog:popover-open").getByRole("button", { name: t("experiments-start"), exact: true }).click();
      await page.locator("#experiment-live").waitFor();
      for (let i = 0; i < 8; i++) {
        const id = await server.record("acme/echo", "go", { user: `u${i}`, messages: [], meguri: { prompt: "desk/polish", variables: { draft: "x" } } });
        await server.call("/api/v1/scores", { trace_id: id, name: "thumbs", value: 1 });
      }
      await eventually(async () => {
        await page.reload();
        const calls = await page.locator("#experiment-live tbody td.num").allTextContents();
        return calls.some((text) => /[1-9]/.test(text));
      }, "the figures");
      await page.locator("#experiment-live .note").first().waitFor();
      assertClean();
      await context.close();
    });
  });
}
