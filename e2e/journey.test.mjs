// The newcomer's way through the product, in both languages: from the setup link to the thumbs-down
// seen in the trace, then key, provider, prompt, sign-out. Everything by clicking and typing.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { administrator, openPage, startBrowser, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

let browser;
before(async () => { browser = await startBrowser(); });
after(() => browser.close());

for (const lang of ["en", "ja"]) {
  describe(`journey in ${lang}`, () => {
    const t = words(lang);
    const question = lang === "ja" ? "色を三つ挙げてください。" : "Name three colours.";
    let server, context, page, assertClean;
    before(async () => {
      server = await startServer();
      ({ context, page, assertClean } = await openPage(browser, server, { lang, permissions: ["clipboard-read", "clipboard-write"] }));
    });
    after(async () => { await context?.close(); await server?.stop(); });

    const button = (key) => page.getByRole("button", { name: t(key), exact: true });
    const link = (key) => page.getByRole("link", { name: t(key), exact: true });
    const heading = (key) => page.getByRole("heading", { name: t(key), level: 1 });
    const menu = async (key) => {
      await page.getByRole("navigation", { name: t("base-nav") }).getByRole("link", { name: t(key), exact: true }).click();
    };

    test("the setup link makes the administrator, once", async () => {
      await page.goto(server.setupLink);
      assert.equal(await page.getAttribute("html", "lang"), lang);
      await heading("setup-title").waitFor();
      await page.getByLabel(t("field-name"), { exact: true }).fill(administrator.name);
      await page.getByLabel(t("field-email"), { exact: true }).fill(administrator.email);
      await page.getByLabel(t("field-password"), { exact: true }).fill(administrator.password);
      await button("setup-submit").click();
      await heading("overview-title").waitFor();
      const again = await fetch(server.setupLink);
      assert.equal(again.status, 410, "the link is used up");
      assertClean();
    });

    test("the empty overview says what to do", async () => {
      await page.getByRole("heading", { name: t("overview-welcome") }).waitFor();
      const snippet = page.locator("pre", { hasText: "/v1/chat/completions" }).first();
      assert.ok((await snippet.textContent()).includes(server.url), "the snippet has the real address");
      await page.getByRole("tab", { name: "Python" }).click();
      assert.ok(await page.locator("pre", { hasText: "from openai import OpenAI" }).isVisible());
      assertClean();
    });

    test("chatting with the local model: tokens stream in", async () => {
      await link("overview-step-chat-button").click();
      await heading("playground-title").waitFor();
      const model = page.getByLabel(t("playground-model"));
      await model.selectOption(await model.locator("option", { hasText: /smol/i }).first().getAttribute("value"));
      await page.locator("#pg-max_tokens").fill("40");
      await page.locator("#pg-temperature").fill("0");
      await page.evaluate(() => {
        // Written down in the page: a look from outside may come before the first token or after the last.
        window.states = [];
        window.lengths = new Set();
        new MutationObserver(() => {
          const reply = document.querySelector(".pg-msg.assistant");
          if (!reply) return;
          if (window.states.at(-1) !== reply.dataset.state) window.states.push(reply.dataset.state);
          window.lengths.add(reply.querySelector(".pg-text")?.textContent.length ?? 0);
        }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["data-state"] });
      });
      const draft = page.getByLabel(t("playground-placeholder"));
      await draft.fill(question);
      await draft.press("Control+Enter");
      await page.locator('.pg-msg.assistant[data-state="idle"]').waitFor({ timeout: 120_000 });
      const [states, lengths] = await page.evaluate(() => [window.states, [...window.lengths]]);
      assert.deepEqual(states, ["waiting", "streaming", "idle"]);
      assert.ok(lengths.length >= 4, `the answer came in ${lengths.length} steps`);
      assertClean();
    });

    let answer;
    test("thumbs-down with a comment", async () => {
      const reply = page.locator(".pg-msg.assistant");
      answer = (await reply.locator("textarea.pg-text").inputValue()).trim();
      assert.ok(answer.length > 0);
      const thumb = reply.getByRole("button", { name: t("playground-down") });
      await thumb.click();
      await page.getByRole("status").filter({ hasText: t("playground-rated") }).first().waitFor({ state: "attached" });
      assert.equal(await thumb.getAttribute("aria-pressed"), "true");
      await page.getByLabel(t("playground-comment")).fill("Too short");
      await button("playground-comment-send").click();
      await page.locator(".toast", { hasText: t("playground-rated") }).waitFor();
      assertClean();
    });

    test("the trace list shows the call", async () => {
      await menu("nav-traces");
      const row = page.getByRole("row").filter({ hasText: question });
      await row.waitFor();
      await row.getByText(t("thumbs-down")).waitFor({ state: "attached" });
      await row.getByText(t("status-ok")).waitFor();
      await row.getByRole("link").first().click();
      const drawer = page.locator("#drawer");
      await drawer.getByText(question, { exact: true }).first().waitFor();
      await drawer.locator("a[data-open]").click();
      await page.waitForURL(/\/default\/traces\/[0-9a-f-]{32,36}/);
      assertClean();
    });

    test("the trace page shows prompt, answer, tokens, latency and score", async () => {
      await page.locator('.msg[data-role="user"]', { hasText: question }).waitFor();
      const shown = await page.locator('.msg[data-role="assistant"] pre').textContent();
      assert.equal(shown.trim(), answer);
      const figure = (key) => page.locator(".trace-stats > div", { has: page.getByText(t(key), { exact: true }) });
      assert.match(await figure("col-tokens").textContent(), /\d+\s*→\s*\d+/);
      assert.match(await figure("col-latency").textContent(), /\d\s*m?s/);
      assert.match(await figure("col-ttft").textContent(), /\d\s*m?s/);
      const scores = page.locator(".scores");
      await scores.getByText("Too short").waitFor();
      await scores.getByText(t("thumbs-down")).waitFor({ state: "attached" });
      assertClean();
    });

    test("the overview counts it, and the number leads to the list", async () => {
      await menu("nav-overview");
      const tile = page.locator("a.tile", { hasText: t("overview-tile-calls") });
      assert.match(await tile.textContent(), /1/);
      await tile.click();
      await page.getByRole("row").filter({ hasText: question }).waitFor();
      assertClean();
    });

    test("a key, with a snippet that works as it stands", async () => {
      await menu("nav-keys");
      await page.getByLabel(t("col-name"), { exact: true }).fill("my-app");
      await button("keys-create-button").click();
      await heading("keys-created-title").waitFor();
      const curl = await page.locator("pre", { hasText: "curl " }).first().textContent();
      const [secret] = /mgr_[A-Za-z0-9_-]+/.exec(curl);
      await page.locator(".code", { hasText: "curl " }).first().getByRole("button").click();
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), curl);
      // The snippet as it was copied, with fewer tokens to wait for.
      const output = execFileSync("bash", ["-c", `${curl.trim().replace('{"model"', '{"max_tokens": 4, "model"')} -s`], { encoding: "utf8" });
      assert.equal(JSON.parse(output).object, "chat.completion");
      await link("keys-done").click();
      await page.getByRole("row").filter({ hasText: "my-app" }).waitFor();
      assert.ok(!(await page.content()).includes(secret), "a secret is shown once");
      assertClean();
    });

    test("a provider, whose key is never shown again", async () => {
      await menu("nav-providers");
      await link("providers-add").first().click();
      await page.getByLabel(t("col-name"), { exact: true }).fill("openai");
      await page.getByLabel(t("providers-url")).fill("https://api.example.com/v1");
      await page.getByLabel(t("credential-store")).check();
      await page.locator('[name="api_key"]').fill("sk-never-shown-again");
      await button("save").click();
      await page.getByRole("row").filter({ hasText: "https://api.example.com/v1" }).waitFor();
      assert.ok(!(await page.content()).includes("sk-never-shown-again"));
      assertClean();
    });

    /** Replaces what the first text of the editor says. */
    const write = async (text) => {
      await page.locator(".cm-content").first().click();
      await page.keyboard.press("Control+A");
      await page.keyboard.insertText(text);
    };
    const saveDraft = async (message) => {
      await button("editor-save").click();
      const dialog = page.getByRole("dialog");
      await dialog.getByLabel(t("editor-message-label")).fill(message);
      await dialog.getByRole("button", { name: t("editor-save-submit") }).click();
    };

    test("a prompt: written with a live preview, two versions, a label, a difference", async () => {
      await menu("nav-prompts");
      await link("prompts-new").first().click();
      await page.locator("a.start").nth(7).waitFor();
      await link("prompts-blank").click();
      await page.getByLabel(t("editor-name"), { exact: true }).fill("support/answer");
      await write("Be kind to {{ who }}.\nAnswer in one sentence.");
      await page.locator(".tpl-name", { hasText: "who" }).waitFor();
      await page.getByRole("button", { name: t("editor-declare"), exact: true }).click();
      await page.locator("#ed-s-who").fill("readers");
      await page.locator(".ed-side .msg", { hasText: "Be kind to readers." }).waitFor();
      await write("Be kind to {{ who.\nAnswer in one sentence.");
      await page.locator(".ed-problems li").first().waitFor();
      await write("Be kind to {{ who }}.\nAnswer in one sentence.");
      await page.locator(".ed-problems").waitFor({ state: "detached" });
      await saveDraft("first");
      await page.getByRole("heading", { name: t("prompts-version", { n: 1 }) }).waitFor();
      await page.getByLabel(t("prompts-reason")).fill("launch");
      await button("prompts-move-button").click();
      await page.locator(".moves", { hasText: "production" }).getByText("launch").waitFor();

      await link("prompts-edit").click();
      await page.locator(".cm-content", { hasText: "one sentence" }).waitFor();
      await button("editor-save").click();
      await page.getByRole("dialog").locator(".note.info").waitFor();
      await page.getByRole("dialog").getByRole("button", { name: t("editor-cancel") }).click();
      await write("Be kind to {{ who }}.\nAnswer in two sentences.");
      await saveDraft("longer");
      await page.getByRole("heading", { name: t("prompts-version", { n: 2 }) }).waitFor();
      await page.locator(".versions").getByRole("link", { name: t("prompts-diff") }).first().click();
      await page.locator("table.diff td.add", { hasText: "two sentences" }).first().waitFor();
      await page.locator("table.diff td.del", { hasText: "one sentence" }).first().waitFor();
      await link("diff-split").click();
      await page.locator("table.diff.split").first().waitFor();
      assertClean();
    });

    test("a draft beside a version: answers stream in for pasted rows", async () => {
      await menu("nav-prompts");
      await page.getByRole("link", { name: /support/ }).first().click();
      await page.getByRole("link", { name: "answer", exact: true }).click();
      await link("prompts-edit").click();
      await page.locator(".cm-content", { hasText: "two sentences" }).waitFor();
      await write("Say hello to {{ who }}.");
      await button("editor-compare").click();
      await page.locator(".cmp-col").nth(1).waitFor();
      await page.locator(".cmp-bar").getByRole("button", { name: t("compare-paste") }).click();
      const dialog = page.getByRole("dialog");
      await dialog.getByLabel(t("compare-rows"), { exact: true }).fill("who,message\nAoi,Name one colour.");
      await dialog.getByRole("button", { name: t("compare-rows-submit") }).click();
      await button("compare-run").click();
      await page.locator('.cmp-cell[data-state="done"]').nth(1).waitFor({ timeout: 120_000 });
      await page.locator(".cmp-cell").first().getByRole("button", { name: t("compare-good") }).click();
      await page.locator('.cmp-cell [aria-pressed="true"]').waitFor();
      assertClean();
    });

    test("the playground saves a system prompt as a version and moves the label", async () => {
      await menu("nav-playground");
      await page.getByLabel(t("playground-catalog")).selectOption("support/answer");
      const system = page.locator("#pg-system");
      await page.waitForFunction(() => document.querySelector("#pg-system").value.startsWith("Be kind"));
      await system.fill("Be kind to {{ who }}.\nAnswer in three sentences.");
      await button("playground-save").click();
      const dialog = page.getByRole("dialog");
      await dialog.getByLabel(t("playground-save-message")).fill("even longer");
      await dialog.getByLabel(t("playground-save-label")).selectOption("production");
      await dialog.getByRole("button", { name: t("playground-save-submit") }).click();
      await page.locator(".toast").waitFor();
      assert.ok((await page.locator(".toast").textContent()).includes("3"));
      await page.goto(`${server.url}/default/prompts?folder=support`);
      await page.getByRole("row").filter({ hasText: "answer" }).getByText("production v3").waitFor();
      assertClean();
    });

    test("signing out, being asked to sign in, coming back to where one was", async () => {
      await page.getByRole("button", { name: t("base-account") }).filter({ visible: true }).click();
      await page.locator("#account-menu").getByRole("button", { name: t("base-sign-out") }).click();
      await heading("signin-title").waitFor();
      await page.goto(`${server.url}/default/traces`);
      await heading("signin-title").waitFor();
      await page.getByLabel(t("field-email"), { exact: true }).fill(administrator.email);
      await page.getByLabel(t("field-password"), { exact: true }).fill(administrator.password);
      await button("signin-submit").click();
      await page.waitForURL(`${server.url}/default/traces`);
      assertClean();
    });
  });
}
