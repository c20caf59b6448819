// Japanese input: the Enter that confirms a candidate belongs to the input method and sends nothing.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openPage, signUp, startBrowser, startServer } from "./harness.mjs";
import { words } from "./words.mjs";

let browser, server, state;
before(async () => {
  browser = await startBrowser();
  server = await startServer();
  state = await signUp(browser, server);
});
after(async () => { await browser?.close(); await server?.stop(); });

const t = words("ja");

async function playground() {
  const opened = await openPage(browser, server, { lang: "ja", storageState: state });
  const sent = [];
  opened.context.on("request", (request) => { if (request.url().endsWith("/v1/chat/completions")) sent.push(request.postDataJSON()); });
  await opened.page.goto(`${server.url}/default/playground`);
  const draft = opened.page.getByLabel(t("playground-placeholder"));
  await draft.click();
  const cdp = await opened.context.newCDPSession(opened.page);
  return { ...opened, sent, draft, cdp };
}

const key = (cdp, type, code, more = {}) =>
  cdp.send("Input.dispatchKeyEvent", { type, key: "Enter", code: "Enter", windowsVirtualKeyCode: code, nativeVirtualKeyCode: code, ...more });

test("Enter and Ctrl+Enter during a composition send nothing", async () => {
  const { page, sent, draft, cdp, context, assertClean } = await playground();
  await page.evaluate(() => {
    window.keys = [];
    document.addEventListener("keydown", (event) => window.keys.push([event.key, event.isComposing]), true);
  });
  await cdp.send("Input.imeSetComposition", { text: "にほんご", selectionStart: 4, selectionEnd: 4 });
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+Enter");
  const keys = await page.evaluate(() => window.keys);
  assert.ok(keys.some(([name, composing]) => name === "Enter" && composing), "the page saw Enter inside a composition");
  await cdp.send("Input.insertText", { text: "日本語で答えて" });
  assert.ok((await draft.inputValue()).includes("日本語で答えて"));
  assert.deepEqual(sent, []);
  assert.equal(await page.locator(".pg-msg").count(), 0);
  assertClean();
  await context.close();
});

test("Safari's way, keyCode 229 without isComposing, sends nothing", async () => {
  const { page, sent, draft, cdp, context, assertClean } = await playground();
  await draft.fill("日本語");
  await key(cdp, "rawKeyDown", 229, { modifiers: 2 });
  await key(cdp, "keyUp", 13, { modifiers: 2 });
  assert.deepEqual(sent, []);
  assert.equal(await page.locator(".pg-msg").count(), 0);
  // The same key outside of a composition sends: the test could see it.
  await page.locator("#pg-max_tokens").fill("4");
  await draft.press("Control+Enter");
  await page.locator('.pg-msg.assistant[data-state="idle"]').waitFor({ timeout: 120_000 });
  assert.equal(sent.length, 1);
  assert.equal(sent[0].messages.at(-1).content, "日本語");
  assertClean();
  await context.close();
});

test("a plain Enter is a new line", async () => {
  const { sent, draft, context, assertClean } = await playground();
  await draft.fill("a");
  await draft.press("Enter");
  assert.equal(await draft.inputValue(), "a\n");
  assert.deepEqual(sent, []);
  assertClean();
  await context.close();
});

test("keys reach every place: palette, search field, list, drawer", async () => {
  const { page, context, assertClean } = await openPage(browser, server, { lang: "en", storageState: state });
  await server.record("nobody/nothing", "one");
  await page.goto(`${server.url}/default/traces`);
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "filter");
  await page.keyboard.press("Escape");
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press("Control+k");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.locator("#drawer").waitFor();
  assert.ok(page.url().includes("peek="), "an open drawer is in the URL");
  await page.keyboard.press("Escape");
  await page.locator("#drawer").waitFor({ state: "detached" });
  assertClean();
  await context.close();
});
