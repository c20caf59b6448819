// Everything that is not a live view works without JavaScript: links, forms, redirects.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { administrator, openPage, startBrowser, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

let browser, server, page, context;
const t = words("en");
before(async () => {
  browser = await startBrowser();
  server = await startServer();
  ({ page, context } = await openPage(browser, server, { javaScriptEnabled: false }));
});
after(async () => { await context?.close(); await browser?.close(); await server?.stop(); });

const button = (key) => page.getByRole("button", { name: t(key), exact: true });
const go = (path) => page.goto(`${server.url}/default${path}`);

test("setup", async () => {
  await page.goto(server.setupLink);
  for (const [name, value] of Object.entries(administrator)) await page.fill(`[name="${name}"]`, value);
  await button("setup-submit").click();
  await page.getByRole("heading", { name: t("overview-title"), level: 1 }).waitFor();
});

test("a form with a fault comes back with the reason and what was typed", async () => {
  await go("/prompts/new?start=blank");
  await page.fill('[name="name"]', "Not A Name!");
  await page.fill('[name="content.0"]', "x");
  await button("editor-save-submit").click();
  await page.locator('[name="name"][aria-invalid="true"]').waitFor();
  assert.equal(await page.inputValue('[name="content.0"]'), "x", "what was typed is still there");
});

test("prompt: create, preview, version, label, undo, difference, tags, delete", async () => {
  await go("/prompts/new?start=blank");
  await page.fill('[name="name"]', "plain");
  await page.fill('[name="content.0"]', "One.");
  await button("editor-add-message").click();
  await page.fill('[name="content.1"]', "Two messages.");
  await button("editor-preview").click();
  await page.locator(".msg", { hasText: "Two messages." }).waitFor();
  await button("editor-save-submit").click();
  await button("prompts-move-button").click();
  await page.getByRole("link", { name: t("prompts-edit"), exact: true }).click();
  await page.fill('[name="content.0"]', "Two.");
  await button("editor-save-submit").click();
  await page.getByRole("heading", { name: t("prompts-version", { n: 2 }) }).waitFor();
  await button("prompts-move-button").click();
  await page.locator(".moves").getByText("v1 → v2").waitFor();
  await page.getByRole("button", { name: t("prompts-undo", { n: 1 }) }).first().click();
  await page.locator(".moves").getByText("v2 → v1").waitFor();
  await page.fill('[name="tags"]', "kept, plain");
  await button("prompts-tags-save").click();
  await page.locator(".versions").getByRole("link", { name: t("prompts-diff") }).first().click();
  await page.locator("td.add", { hasText: "Two." }).first().waitFor();
  await go("/prompts?tag=kept");
  await page.getByRole("link", { name: "plain", exact: true }).click();
  await button("prompts-delete").click();
  const dialog = page.locator(".dialog:popover-open");
  await dialog.getByRole("textbox").fill("plain");
  await dialog.getByRole("button", { name: t("prompts-delete") }).click();
  await page.getByRole("link", { name: "plain", exact: true }).waitFor({ state: "detached" });
});

test("app: from a starting point as JSON, wrong and mended, drawn, saved, cut", async () => {
  await go("/apps/edit?start=answer");
  await page.fill('[name="name"]', "plain-app");
  const text = await page.inputValue('[name="document"]');
  await page.fill('[name="document"]', text.replace('"inputs.question"', '"inputs.question +"'));
  await button("apps-check").click();
  await page.locator("[data-app-problems] .note.err").getByText("/steps/0/variables/question").waitFor();
  await page.fill('[name="document"]', text);
  await button("apps-check").click();
  await page.getByText(t("apps-checked")).waitFor();
  await page.locator(".app-graph svg").waitFor();
  await button("apps-save").click();
  await button("apps-cut-button").click();
  await page.locator(".versions .badge", { hasText: "dev" }).waitFor();
});

test("key: create, see once, revoke", async () => {
  await go("/keys");
  await page.fill('[name="name"]', "plain-key");
  await button("keys-create-button").click();
  const secret = /mgr_[A-Za-z0-9_-]+/.exec(await page.locator("pre").first().textContent())[0];
  const ask = () => fetch(`${server.url}/v1/models`, { headers: { authorization: `Bearer ${secret}` } });
  assert.equal((await ask()).status, 200);
  await page.getByRole("link", { name: t("keys-done") }).click();
  const row = page.getByRole("row").filter({ hasText: "plain-key" });
  await row.getByRole("button", { name: t("keys-revoke") }).click();
  await page.locator(".dialog:popover-open").getByRole("button", { name: t("keys-revoke") }).click();
  await row.getByText(t("keys-revoked")).waitFor();
  assert.equal((await ask()).status, 401);
});

test("provider: add, edit, remove", async () => {
  await go("/providers/new");
  await page.fill('[name="name"]', "plain");
  await page.fill('[name="base_url"]', "https://api.example.com/v1");
  await page.getByLabel(t("credential-none")).check();
  await button("save").click();
  const row = page.getByRole("row").filter({ hasText: "api.example.com" });
  await row.getByRole("link", { name: "plain" }).click();
  await page.fill('[name="base_url"]', "https://api.example.org/v1");
  await button("save").click();
  const changed = page.getByRole("row").filter({ hasText: "api.example.org" });
  await changed.getByRole("button", { name: t("remove") }).click();
  const dialog = page.locator(".dialog:popover-open");
  await dialog.getByRole("textbox").fill("plain");
  await dialog.getByRole("button", { name: t("remove") }).click();
  await changed.waitFor({ state: "detached" });
});

test("the UI may not name a private address", async () => {
  await go("/providers/new");
  await page.fill('[name="name"]', "inside");
  await page.fill('[name="base_url"]', "http://127.0.0.1:9/v1");
  await page.getByLabel(t("credential-none")).check();
  await button("save").click();
  await page.locator('[aria-invalid="true"], .note.err').first().waitFor();
});

test("traces: list, filter, open, rate", async () => {
  await server.record("nobody/x", "find this");
  await go("/traces");
  await page.fill("#filter", 'status = "error"');
  await button("traces-apply").click();
  await page.getByRole("row").filter({ hasText: "find this" }).getByRole("link").first().click();
  await button("thumbs-down").click();
  await page.locator(".scores").waitFor();
  assert.equal(await button("thumbs-down").getAttribute("aria-pressed"), "true");
  await go("/traces?filter=model+%3D");
  await page.locator("#filter-error").waitFor();
});

test("members: invite, accept in another browser, change the role, remove", async () => {
  await go("/members");
  await page.fill('[name="email"]', "yuki@example.com");
  await button("members-invite-button").click();
  const link = /http:\S+/.exec(await page.locator(".note.ok pre").textContent())[0];
  const other = await openPage(browser, server, { javaScriptEnabled: false });
  await other.page.goto(link);
  await other.page.fill('[name="name"]', "Yuki");
  await other.page.fill('[name="password"]', administrator.password);
  await other.page.getByRole("button", { name: t("accept-submit") }).click();
  await other.page.getByRole("heading", { name: t("overview-title"), level: 1 }).waitFor();
  assert.equal(await other.page.getByRole("link", { name: t("nav-keys") }).count() > 0, true);
  assert.equal((await other.page.goto(`${server.url}/default/providers/new`)).status(), 403, "a viewer adds no providers");
  await other.context.close();
  await go("/members");
  const row = page.getByRole("row").filter({ hasText: "Yuki" });
  await row.getByRole("combobox").selectOption("editor");
  await row.getByRole("button", { name: t("save") }).click();
  assert.equal(await row.getByRole("combobox").inputValue(), "editor");
  await row.getByRole("button", { name: t("remove") }).click();
  await page.locator(".dialog:popover-open").getByRole("button", { name: t("remove") }).click();
  await row.waitFor({ state: "detached" });
});

test("language and theme are chosen by a form and stay", async () => {
  await go("/");
  const form = page.locator('#account-menu form[action$="/preferences"]');
  await page.getByRole("button", { name: t("base-account") }).filter({ visible: true }).click();
  await form.getByRole("button", { name: "日本語" }).click();
  assert.equal(await page.getAttribute("html", "lang"), "ja");
  await page.getByRole("button", { name: words("ja")("base-account") }).filter({ visible: true }).click();
  await form.getByRole("button", { name: words("ja")("base-theme-dark") }).click();
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
});
