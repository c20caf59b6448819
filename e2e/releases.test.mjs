// A release's way to production and back, in both languages: an app is made from a starting point, cut,
// promoted, proposed, approved by a second person, called by its name, and rolled back.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openPage, signUp, startBrowser, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

let browser;
before(async () => { browser = await startBrowser(); });
after(() => browser.close());

for (const lang of ["en", "ja"]) {
  describe(`release and rollback in ${lang}`, () => {
    const t = words(lang);
    const name = lang === "ja" ? "案内/回答" : "guide/answer";
    let server, maker, owner, key;
    before(async () => {
      server = await startServer();
      const state = await signUp(browser, server);
      // What a new installation begins with, said here because the server's data may be a copy of older data.
      await server.call("/api/v1/protections/prod", { rules: { approvals: 1 } }, "PUT");
      const { json } = await server.call("/api/v1/invites", { email: "ken@example.com", role: "admin" });
      const invited = await openPage(browser, server, { lang });
      await invited.page.goto(json.link);
      await invited.page.fill('[name="name"]', "Ken Sato");
      await invited.page.fill('[name="password"]', "another long sentence");
      await Promise.all([invited.page.waitForURL(`${server.url}/default/`), invited.page.click("form button.primary")]);
      owner = invited;
      maker = await openPage(browser, server, { lang, storageState: state });
      key = JSON.parse(await server.cli("key", "create", "--name", "app", "--env", "prod", "--role", "caller", "--json")).secret;
    });
    after(async () => { await maker?.context.close(); await owner?.context.close(); await server?.stop(); });

    /** One call of the app by its name with the key of production: status and release. */
    const call = async () => {
      const body = JSON.stringify({ model: name, max_tokens: 4, messages: [{ role: "user", content: "Hi" }] });
      const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
      const answer = await fetch(`${server.url}/v1/chat/completions`, { method: "POST", headers, body });
      return { status: answer.status, release: answer.headers.get("x-meguri-release"), text: await answer.text() };
    };
    const open = ({ page }, path) => page.goto(server.url + path);
    const dialog = async ({ page }, label, place, button, reason) => {
      await open({ page }, "/default/releases");
      const cell = page.locator(`td[data-label="${place}"]`).first();
      await cell.getByRole("button", { name: label }).click();
      const form = page.locator(".dialog:popover-open");
      await form.locator("[name=reason]").fill(reason);
      const posted = page.waitForResponse((answer) => answer.request().method() === "POST");
      await Promise.all([posted, form.getByRole("button", { name: button, exact: true }).click()]);
      await page.waitForLoadState("load");
      await page.getByRole("status").or(page.getByRole("alert")).first().waitFor();
    };

    test("an app from a starting point, saved, drawn, cut and run in the first environment", async () => {
      const { page, assertClean } = maker;
      await open(maker, "/default/apps");
      await page.getByText(t("apps-start-answer"), { exact: true }).click();
      await page.fill("#ap-name", name);
      await page.locator('.ap-state[data-state="good"]').waitFor();
      await Promise.all([page.waitForURL(/apps\/show/), page.getByRole("button", { name: t("appedit-save"), exact: true }).click()]);
      await page.locator(".app-graph svg").waitFor();
      await page.getByRole("button", { name: t("apps-cut-button"), exact: true }).click();
      await page.locator(".versions .badge", { hasText: "dev" }).waitFor();
      assert.equal((await call()).status, 404, "nothing runs in production yet");
      assertClean();
    });

    test("on to staging at once, to production by somebody else's approval", async () => {
      await dialog(maker, t("releases-promote", { n: "r1" }), "staging", t("releases-promote-button"), "it works");
      await dialog(maker, t("releases-propose", { n: "r1" }), "prod", t("releases-propose-button"), "ready");
      await open(maker, "/default/approvals");
      await maker.page.getByText(t("approvals-why-own")).waitFor();
      assert.equal((await call()).status, 404, "a proposal changes nothing");
      await open(owner, "/default/approvals");
      await owner.page.locator("[name=reason]").fill("looks right");
      await owner.page.getByRole("button", { name: t("approvals-approve"), exact: true }).click();
      await owner.page.getByText(t("approvals-empty-waiting")).waitFor();
      const first = await call();
      assert.equal(first.status, 200, first.text);
      maker.assertClean();
      owner.assertClean();
    });

    test("a second release in production, and back with one click and a reason", async () => {
      const { page } = maker;
      await open(maker, `/default/apps/edit?name=${encodeURIComponent(name)}`);
      await page.locator('[id="ap/description"]').fill("Answers one question, in few words.");
      await page.getByRole("button", { name: t("appedit-save"), exact: true }).click();
      await page.getByRole("button", { name: t("apps-cut-button"), exact: true }).click();
      await page.getByText("r2", { exact: true }).first().waitFor();
      await dialog(maker, t("releases-promote", { n: "r2" }), "staging", t("releases-promote-button"), "shorter");
      await dialog(maker, t("releases-propose", { n: "r2" }), "prod", t("releases-propose-button"), "shorter");
      await open(owner, "/default/approvals");
      await owner.page.getByText("r2", { exact: true }).first().waitFor();
      await owner.page.locator("[name=reason]").fill("fine");
      await owner.page.getByRole("button", { name: t("approvals-approve"), exact: true }).click();
      await owner.page.getByText(t("approvals-empty-waiting")).waitFor();
      const before = await call();
      await dialog(owner, t("releases-back"), "prod", t("releases-back"), "wrong answers");
      await owner.page.getByText(t("releases-quarantines")).waitFor();
      const after = await call();
      assert.deepEqual([before.status, after.status], [200, 200], before.text + after.text);
      assert.notEqual(before.release, after.release, "another release answers the next request");
      await open(owner, "/default/audit?verify=1");
      await owner.page.getByText("wrong answers").first().waitFor();
      await owner.page.locator(".note.ok").waitFor();
      owner.assertClean();
    });
  });
}
