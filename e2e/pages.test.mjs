// Every page in light and dark, English and Japanese: no accessibility fault, no broken policy, no
// horizontal scroll at 390 px, and a picture of each under target/e2e/pages for people to look at.

import AxeBuilder from "@axe-core/playwright";
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chatModel, eventually, openPage, shotsDir, signUp, startBrowser, startProvider, startServer } from "./harness.mjs";

let browser, empty, full, provider;
const paths = {};

before(async () => {
  browser = await startBrowser();
  provider = await startProvider();
  empty = await startServer();
  empty.state = await signUp(browser, empty);
  full = await startServer();
  full.state = await signUp(browser, full);
  await fill(full);
});
after(async () => {
  await browser?.close();
  provider?.stop();
  await empty?.stop();
  await full?.stop();
});

/** A project that has seen some use: answers, tools, failures, scores, prompts, providers, an invitation. */
async function fill(server) {
  await server.cli("provider", "add", "acme", "--protocol", "openai", "--base-url", `${provider.url}/v1`);
  await server.cli("provider", "add", "claude", "--protocol", "anthropic", "--base-url", provider.url, "--api-key-env", "HOME");
  await server.cli("provider", "test", "acme").catch(() => undefined);
  const text = (system) => ({ content: { messages: [{ role: "system", content: system }] } });
  await server.call("/api/v1/prompts", { name: "support/answer", message: "first try", ...text("You help customers of a book shop.\nAnswer in one sentence.\nBe kind.") });
  await server.call("/api/v1/prompts/support%2Fanswer/versions", { message: "two sentences, in the customer's language", ...text("You help customers of a book shop.\nAnswer in two sentences, in {{ language }}.\nBe kind.\nName the shelf.") });
  await server.call("/api/v1/prompts/support%2Fanswer/labels/production", { version: 1, reason: "launch" }, "PUT");
  await server.call("/api/v1/prompts/support%2Fanswer/labels/production", { version: 2, reason: "better in the test" }, "PUT");
  await server.call("/api/v1/prompts", { name: "日本語/要約", message: "最初の版", ...text("次の文章を三行で要約してください。") });
  await eventually(async () => (await server.call("/v1/models")).text.includes("acme/"), "the provider", 10_000);
  await watch(server);
  const local = await chatModel(server);
  const tools = [{ type: "function", function: { name: "get_weather", description: "天気", parameters: { type: "object", properties: { city: { type: "string" } } } } }];
  const ask = server.record;
  await ask(local, "Name three colours.", { max_tokens: 24, temperature: 0, stream: true });
  await ask(local, "巡りとは何ですか。", { max_tokens: 16, temperature: 0 });
  await ask("acme/japanese", "こんにちは", { stream: true, user: "u-17", meguri: { session: "s-1", tags: { team: "search" } } });
  for (let i = 0; i < 12; i++) await ask("acme/echo", `Where is the shelf with number ${i}?`, { meguri: { session: "s-2", step: i, tags: { team: i % 2 ? "search" : "support" } } });
  await ask("acme/echo", "Do you have Kokoro by Sōseki?", { meguri: { prompt: "support/answer", variables: { language: "English" } } });
  await ask("acme/status-429", "too many");
  await ask("acme/dies", "never finished", { stream: true });
  await ask("nobody/nothing", "to whom?");
  const tool = await ask("acme/parallel", "What is the weather in 東京 and Oslo?", { tools });
  const hostile = await ask("acme/echo", "<script>alert(1)</script> <img src=x onerror=alert(2)> **bold** \u202Egnirts desrever\u202C [link](javascript:alert(3))");
  paths.trace = `/traces/${tool}`;
  paths.hostile = `/traces/${hostile}`;
  paths.peek = `/traces?peek=${tool}`;
  await server.call("/api/v1/scores", { trace_id: tool, name: "thumbs", value: -1, comment: "Wrong city" });
  await server.call("/api/v1/scores", { trace_id: hostile, name: "thumbs", value: 1 });
  await ship(server);
  await guard(server);
  await collect(server, tool);
  await choose(server);
  await judge(server);
}

/** A choice between models that has come to its end. */
async function choose(server) {
  const examples = Array.from({ length: 30 }, (_, n) => ({ id: `q${n}`, input: `Where is shelf ${n}?`, expected: `Where is shelf ${n}?` }));
  await server.call("/api/v1/datasets", { name: "本/棚", examples });
  const models = ["acme/echo", "acme/japanese", "acme/echo-small", "acme/status-400"];
  for (const [i, model] of models.entries()) await server.call("/api/v1/prices", { provider: "acme", model: model.split("/")[1], input_usd: 4 - i, output_usd: 9 - 2 * i }, "PUT");
  const card = { model: "acme/echo", title: "こだま Echo", vendor: "Acme", licence: "Apache-2.0", open: true, languages: ["en", "ja"], input: ["text", "point cloud"], notes: "Says it again.", sources: ["https://example.com/echo"], read_on: "2026-11-21" };
  assert.equal((await server.call("/api/v1/catalog/model_card/acme%2Fecho/versions", { content: card })).status, 201);
  const contains = { name: "contains", evaluator: { type: "metric", metric: { id: "contains" } } };
  const similar = { name: "exact", evaluator: { type: "metric", metric: { id: "exact-match" } } };
  const task = { dataset: "dataset:本/棚@latest", models, evaluators: [contains, similar], description: "Which model knows the shelves?", finalists: 3 };
  const { json, text, status } = await server.call("/api/v1/choices", { name: "本/モデル", task });
  assert.equal(status, 201, text);
  await eventually(async () => (await server.call(`/api/v1/choices/${json.id}`)).json.choice.state === "done", "the choice", 60_000);
  paths.choice = `/choices/show?id=${json.id}`;
  paths.choiceLike = `/choices/new?like=${json.id}`;
}

/** Live evaluations: one that scores and fails, one that is held, one whose evaluator is gone. */
async function watch(server) {
  const metric = (name, content) => server.call(`/api/v1/catalog/evaluator/${encodeURIComponent(name)}/versions`, { content: { type: "metric", metric: content } });
  await metric("案内/疑問", { id: "regex", pattern: "[?？]" });
  await metric("exact", { id: "exact-match" });
  const live = (name, evaluator, more) => server.call("/api/v1/live-evaluations", { name, content: { evaluator: `evaluator:${evaluator}@latest`, score: evaluator, ...more } });
  await live("見守り/疑問", "案内/疑問", { description: "Does the answer ask back?", max_per_hour: 12 });
  await live("exact", "exact", { filter: 'tag.team = "search"', sample: 0.5, budget_usd_per_day: 1.5 });
  await server.call("/api/v1/live-evaluations/exact/pause", { reason: "nothing is expected of real calls" });
}
const LIVE = encodeURIComponent("見守り/疑問");
/** A run over the dataset as Langfuse's client sends it. */
async function experiment(server) {
  const attribute = ([key, stringValue]) => ({ key, value: { stringValue } });
  const span = (n) => {
    const spanId = `00f067aa0ba902b${n}`;
    const attributes = Object.entries({
      "langfuse.experiment.id": "run-1", "langfuse.experiment.name": "新しいプロンプト – second try", "langfuse.experiment.dataset.id": "本/質問",
      "langfuse.experiment.description": "Shorter answers <b>for</b> the telephone", "langfuse.experiment.metadata": JSON.stringify({ model: "acme/echo" }),
      "langfuse.experiment.item.id": `shelf-${n}`, "langfuse.experiment.item.root_observation_id": spanId,
      "langfuse.observation.input": JSON.stringify({ question: `Where is the shelf with number ${n}?` }), "langfuse.observation.output": n ? "Upstairs." : "<script>alert(1)</script> \u202Eevil",
      ...(n === 2 && { "langfuse.observation.level": "ERROR" }),
    }).map(attribute);
    const start = BigInt(Date.now() - 60_000) * 1_000_000n;
    return { traceId: "4bf92f3577b34da6a3ce929d0e0e473" + n, spanId, name: "experiment-item-task", attributes, startTimeUnixNano: `${start}`, endTimeUnixNano: `${start + 42_000_000n}` };
  };
  const sent = await server.call("/api/public/otel/v1/traces", { resourceSpans: [{ scopeSpans: [{ spans: [0, 1, 2, 3].map(span) }] }] });
  assert.equal(sent.status, 200, sent.text);
  const score = (n, name, value, more) => ({ id: `s-${n}-${name}`, traceId: "4bf92f3577b34da6a3ce929d0e0e473" + n, observationId: `00f067aa0ba902b${n}`, name, value, ...more });
  const scores = [score(0, "exact", 0), score(1, "exact", 1), score(3, "exact", 0.5), score(1, "tone", "warm"), { id: "s-run", datasetRunId: "run-1", name: "mean", value: 0.5, comment: "of three" }];
  assert.equal((await server.call("/api/public/scores", scores)).status, 202);
}

const GUIDELINES = "# Be fair 公平に\nRead **all** of it, then *decide*:\n\n1. Is it true? See [our rules](https://example.com/rules).\n   - Only what the answer says counts.\n2. Is it kind?\n\n> 迷ったら `skip` を選んでください。\n\n```\nSELECT shelf FROM books;\n```\n<script>alert(1)</script>";

/** A review queue that is half done, with an item on which raters differ, and a judge beside people. */
async function judge(server) {
  const questions = [
    { name: "verdict", type: "choice", options: ["good", "bad"], label: "Is it right? 正しいですか。" },
    { name: "quality", type: "rating" }, { name: "facts", type: "spans", options: ["place", "name"], required: false },
    { name: "answer", type: "correction", required: false },
  ];
  await server.call("/api/v1/catalog/review_queue/shop/versions", { content: { description: "Answers of the shop", guidelines: GUIDELINES, raters: 1, blind: true, questions } });
  await server.call("/api/v1/review/queues/shop/fill", { source: { traces: {} }, limit: 6, random: 2 });
  for (const verdict of ["good", "bad"]) {
    const { item } = (await server.call("/api/v1/review/inbox/shop/next", {})).json;
    if (!item) break;
    await server.call(`/api/v1/review/items/${item.id}/label`, { fence: item.fence, values: { verdict, quality: 4, facts: [{ start: 0, end: 2, label: "place" }] }, comment: "<b>fine</b>" });
    paths.settle = `/review-queues/item?id=${item.id}`;
  }
  await server.call("/api/v1/review/queues/shop/guests", { name: "Hanako" });
  const examples = Array.from({ length: 12 }, (_, n) => ({ id: `c${n}`, input: `Is it ${n}?`, metadata: { right: n % 3 ? 1 : 0 }, expected: n % 2 ? `Is it ${n}?` : "no" }));
  await server.call("/api/v1/datasets", { name: "calibrated", examples });
  const evaluator = { name: "answered", evaluator: { type: "metric", metric: { id: "contains" } } };
  const { id } = (await server.call("/api/v1/evaluations", { document: { dataset: "dataset:calibrated@latest", candidates: [{ name: "echo", model: "acme/echo" }], evaluators: [evaluator] } })).json;
  await eventually(async () => (await server.call(`/api/v1/evaluations/${id}`)).json.evaluation.state === "done", "the evaluation", 60_000);
  paths.calibration = `/calibration?evaluation=${id}&evaluator=answered&against=metadata.right`;
}

/** A dataset with versions, twins in two splits, marks, and an example out of a trace. */
async function collect(server, trace) {
  const shelf = (n) => ({ id: `shelf-${n}`, input: { question: `Where is the shelf with number ${n}?` }, expected: `Shelf ${n} is upstairs.`, split: n % 4 ? "train" : "test", metadata: { language: "English", n } });
  const examples = [
    ...Array.from({ length: 130 }, (_, n) => shelf(n)),
    { id: "ja", input: [{ role: "system", content: "短く答えてください。" }, { role: "user", content: "夏目漱石の『こころ』はありますか。電話は 090-1234-5678 です。" }], expected: "はい、ございます。", split: "test", verdict: "good" },
    { id: "marked", input: "call me at 090-1234-5678", verdict: "bad", marks: [{ kind: "phone", path: "/input", start: 11, end: 24 }], source: { import: "calls.csv", line: 7 } },
    { id: "twin-a", input: "Do you deliver books to the islands of Okinawa?", split: "train" },
    { id: "twin-b", input: "Do you deliver books to the islands of Okinawa?", split: "test", metadata: { hostile: "<script>alert(1)</script> \u202Eevil" } },
  ];
  await server.call("/api/v1/datasets", { name: "本/質問", description: "What customers of the shop ask", examples });
  await server.call(`/api/v1/datasets/${DATASET}/versions`, { patch: [{ id: "shelf-3", expected: "Shelf 3 is in the cellar." }], remove: ["shelf-4"], message: "the cellar" });
  await server.call(`/api/v1/datasets/${DATASET}/examples/from-traces`, { traces: [{ trace }], verdict: "bad", split: "test", message: "the wrong city" });
  await server.call("/api/v1/datasets", { name: "empty" });
  await experiment(server);
  paths.example = `/datasets/example?name=${DATASET}&id=${trace}`;
  paths.add = `/datasets/add?trace=${trace}`;
}
const DATASET = encodeURIComponent("本/質問");

/** Apps, releases on their way to production, an experiment that runs. */
async function ship(server) {
  await server.call("/api/v1/protections/prod", { rules: { approvals: 1, gates: [{ name: "earlier_environment" }, { name: "smoke" }] } }, "PUT");
  const ask = (content) => ({ messages: [{ role: "user", content }] });
  const steps = [
    { id: "who", type: "prompt", model: "main", prompt: "prompt:support/answer@production", variables: { language: "inputs.language" } },
    { id: "weather", type: "tool", tool: "weather", arguments: { place: "inputs.city" }, when: 'inputs.city != ""' },
    { id: "each", type: "chain", for_each: "[1, 2]", steps: [{ id: "inner", type: "prompt", model: "main", prompt: ask("Say {{ n }}"), variables: { n: "string(item)" } }] },
    { id: "act", type: "agent", model: "main", tools: ["weather"], limits: { steps: 3 }, prompt: ask("{{ q }}"), variables: { q: "steps.who.text" } },
  ];
  const content = {
    description: "Every kind of step.", models: { main: ["acme/echo", "acme/japanese"] }, steps,
    inputs: { type: "object", properties: { city: { type: "string", default: "東京" }, language: { type: "string", default: "English" } } },
    tools: { weather: { type: "http", description: "The weather at a place.", url: "https://api.example.com/{place}", parameters: { type: "object", properties: { place: { type: "string" } } } } },
  };
  const move = (label, version, reason) => server.call("/api/v1/proposals", { kind: "release", name: "案内/天気", label, version, reason });
  for (const description of ["Every kind of step.", "Every kind of step, again."]) {
    await server.call("/api/v1/apps", { name: "案内/天気", content: { ...content, description }, message: description });
    await server.call("/api/v1/apps/%E6%A1%88%E5%86%85%2F%E5%A4%A9%E6%B0%97/releases", { message: description });
  }
  await move("dev", 2, "try");
  await move("staging", 1, "launch");
  await move("prod", 1, "ready for customers");
  await server.call("/api/v1/experiments", { name: "greeting", message: "", content: {
    description: "Which answer is better?", target: { kind: "prompt", name: "support/answer", label: "production" }, metric: { kind: "score", name: "thumbs" }, minimum_sample: 100,
    arms: [{ name: "control", version: 1, weight: 50, control: true }, { name: "candidate", version: 2, weight: 50 }], guards: [{ metric: { kind: "error_rate" }, limit: 0.2, direction: "above" }],
  } });
  await server.call("/api/v1/experiments/greeting/start", { reason: "to see" });
}
const APP = encodeURIComponent("案内/天気");

/** A policy with every way of acting. */
async function guard(server) {
  const list = (name, content) => server.call(`/api/v1/catalog/words/${encodeURIComponent(name)}/versions`, { content });
  await list("競合/社名", { description: "Names of competitors 競合の社名", language: "ja", fold: "loose", entries: Array.from({ length: 40 }, (_, n) => `ゼノン商事第${n}営業所`) });
  await list("brands", { entries: ["<b>Acme</b>", "Globex"] });
  await server.call(`/api/v1/catalog/words/${encodeURIComponent("競合/社名")}/pointers/production`, { version: 1 }, "PUT");
  const rules = [
    { name: "個人情報", at: ["input", "tool_result"], check: { type: "pii" }, action: { type: "redact", reversible: true } },
    { name: "attacks", at: ["input", "retrieved"], check: { type: "injection" }, action: { type: "block" }, on_failure: "closed" },
    { name: "competitors", at: ["output"], check: { type: "words", list: "words:競合/社名@production" }, action: { type: "replace", with: "…" } },
    { name: "tone", at: ["output"], shadow: true, check: { type: "judge", rubric: "How rude it is.", model: "acme/echo" }, action: { type: "flag" }, deadline_ms: 1500 },
  ];
  const content = { description: "What stays here.", applies_to: { models: ["acme/none"] }, rules };
  await server.call("/api/v1/catalog/guard/safe/versions", { content, message: "first" });
  // One that watches a model, and has found something: changed, blocked, noted and only tried out.
  const words = (name, list, action, more = {}) => ({ name, at: ["input"], check: { type: "words", list }, action: { type: action }, ...more });
  const watching = [
    { name: "mail", at: ["input", "output"], check: { type: "pii", kinds: ["email"] }, action: { type: "redact" } },
    words("塔", ["tower", "タワー"], "flag"), words("tried", ["address"], "block", { shadow: true }), words("stop", ["forbidden"], "block"),
  ];
  await server.call("/api/v1/catalog/guard/watching/versions", { content: { applies_to: { models: ["acme/watched"] }, rules: watching }, message: "" });
  await server.call("/api/v1/catalog/guard/watching/pointers/production", { version: 1 }, "PUT");
  await server.call("/v1/chat/completions", { model: "acme/watched", user: "花子", messages: [{ role: "user", content: "this is forbidden" }] });
  paths.guarded = `/traces/${await server.record("acme/watched", "My address is ann@example.com, by the タワー.", { user: "taro" })}`;
}

const pages = [
  ["overview-empty", () => [empty, "/"]],
  ["traces-empty", () => [empty, "/traces"]],
  ["prompts-empty", () => [empty, "/prompts"]],
  ["providers-empty", () => [empty, "/providers"]],
  ["overview", () => [full, "/"]],
  ["traces", () => [full, "/traces"]],
  ["traces-filtered", () => [full, "/traces?filter=" + encodeURIComponent('status = "error"')]],
  ["traces-none", () => [full, "/traces?filter=" + encodeURIComponent('model = "nothing"')]],
  ["traces-bad-filter", () => [full, "/traces?filter=" + encodeURIComponent("latency_ms >")]],
  ["traces-peek", () => [full, paths.peek]],
  ["trace", () => [full, paths.trace]],
  ["trace-hostile", () => [full, paths.hostile]],
  ["playground", () => [full, "/playground"]],
  ["prompts", () => [full, "/prompts"]],
  ["prompts-new", () => [full, "/prompts/new"]],
  ["prompts-folder", () => [full, "/prompts?folder=support"]],
  ["prompts-generate", () => [full, "/prompts/generate"]],
  ["prompt-editor", () => [full, "/prompts/edit?name=support%2Fanswer"]],
  ["prompt-editor-new", () => [full, "/prompts/new?start=few-shot"]],
  ["compare", () => [full, "/compare?prompts=" + encodeURIComponent('["support/answer@v1","support/answer@v2"]')]],
  ["compare-empty", () => [full, "/compare"]],
  ["prompt", () => [full, "/prompts/show?name=support%2Fanswer"]],
  ["prompt-diff", () => [full, "/prompts/diff?name=support%2Fanswer&base=1&version=2"]],
  ["prompt-diff-split", () => [full, "/prompts/diff?name=support%2Fanswer&base=1&version=2&mode=split"]],
  ["apps-empty", () => [empty, "/apps"]],
  ["apps", () => [full, "/apps"]],
  ["app", () => [full, `/apps/show?name=${APP}`]],
  ["app-editor", () => [full, `/apps/edit?name=${APP}`]],
  ["app-editor-new", () => [full, "/apps/edit?start=steps"]],
  ["app-diff", () => [full, `/apps/diff?name=${APP}&base=1&version=2`]],
  ["app-release", () => [full, `/apps/release?name=${APP}&number=1`]],
  ["releases-empty", () => [empty, "/releases"]],
  ["releases", () => [full, "/releases"]],
  ["approvals-empty", () => [empty, "/approvals"]],
  ["approvals", () => [full, "/approvals"]],
  ["environments", () => [full, "/environments"]],
  ["live-empty", () => [empty, "/live"]],
  ["live", () => [full, "/live"]],
  ["live-new", () => [full, "/live/edit"]],
  ["live-edit", () => [full, `/live/edit?name=${LIVE}`]],
  ["live-show", () => [full, `/live/show?name=${LIVE}`]],
  ["evaluator-wasm", () => [full, "/evaluators/edit?type=wasm"]],
  ["live-paused", () => [full, "/live/show?name=exact"]],
  ["guards-empty", () => [empty, "/guards"]],
  ["guards", () => [full, "/guards"]],
  ["guard-editor-new", () => [full, "/guards/edit"]],
  ["guard-editor", () => [full, "/guards/edit?name=safe"]],
  ["words-empty", () => [empty, "/guards/words"]],
  ["words", () => [full, "/guards/words"]],
  ["words-new", () => [full, "/guards/words/edit"]],
  ["words-editor", () => [full, `/guards/words/edit?name=${encodeURIComponent("競合/社名")}`]],
  ["guard-finds-empty", () => [empty, "/guards/finds"]],
  ["guard-finds", () => [full, "/guards/finds"]],
  ["guard-finds-none", () => [full, "/guards/finds?rule=nothing"]],
  ["guard-watching", () => [full, "/guards/edit?name=watching"]],
  ["trace-guarded", () => [full, paths.guarded]],
  ["experiments-empty", () => [empty, "/experiments"]],
  ["experiments", () => [full, "/experiments"]],
  ["experiments-new", () => [full, "/experiments/new"]],
  ["experiments-new-known", () => [full, "/experiments/new?kind=prompt&target=support%2Fanswer&control=1&candidate=2"]],
  ["experiment", () => [full, "/experiments/show?name=greeting"]],
  ["datasets-empty", () => [empty, "/datasets"]],
  ["datasets", () => [full, "/datasets"]],
  ["datasets-new", () => [full, "/datasets/new"]],
  ["dataset", () => [full, `/datasets/show?name=${DATASET}`]],
  ["dataset-filtered", () => [full, `/datasets/show?name=${DATASET}&split=test&verdict=bad`]],
  ["dataset-none", () => [full, `/datasets/show?name=${DATASET}&q=nothing`]],
  ["dataset-no-examples", () => [full, "/datasets/show?name=empty"]],
  ["dataset-versions", () => [full, `/datasets/versions?name=${DATASET}`]],
  ["dataset-diff", () => [full, `/datasets/diff?name=${DATASET}&from=1&to=2`]],
  ["dataset-alike", () => [full, `/datasets/alike?name=${DATASET}`]],
  ["dataset-settings", () => [full, `/datasets/settings?name=${DATASET}`]],
  ["dataset-import", () => [full, `/datasets/import?name=${DATASET}`]],
  ["dataset-runs-empty", () => [full, "/datasets/runs?name=empty"]],
  ["dataset-runs", () => [full, `/datasets/runs?name=${DATASET}`]],
  ["dataset-run", () => [full, "/datasets/run?id=run-1"]],
  ["dataset-transform", () => [full, `/datasets/transform?name=${DATASET}`]],
  ["dataset-transform-preview", () => [full, `/datasets/transform?name=${DATASET}&field=/input&step1=nfkc&step2=lower&facts=language,words&mark_phone=1`]],
  ["evaluations-import", () => [full, "/evaluations/import"]],
  ["dataset-example", () => [full, paths.example]],
  ["dataset-example-marked", () => [full, `/datasets/example?name=${DATASET}&id=marked`]],
  ["dataset-example-new", () => [full, `/datasets/example?name=${DATASET}`]],
  ["dataset-add", () => [full, paths.add]],
  ["choices-empty", () => [empty, "/choices"]],
  ["choices", () => [full, "/choices"]],
  ["choices-models", () => [full, "/choices/models?sort=context"]],
  ["choices-card", () => [full, "/choices/models/edit?name=acme%2Fecho"]],
  ["choices-card-new", () => [full, "/choices/models/edit?model=claude-sonnet-4-5"]],
  ["choices-new", () => [full, "/choices/new"]],
  ["choices-again", () => [full, paths.choiceLike]],
  ["choice", () => [full, paths.choice]],
  ["choice-weighed", () => [full, `${paths.choice}&quality=1&speed=0&cost=9&usd_per_1000=0.1`]],
  ["review-empty", () => [empty, "/review"]],
  ["review-queues-empty", () => [empty, "/review-queues"]],
  ["review", () => [full, "/review"]],
  ["review-item", () => [full, "/review/shop"]],
  ["review-queues", () => [full, "/review-queues"]],
  ["review-queue", () => [full, "/review-queues/show?name=shop"]],
  ["review-queue-edit", () => [full, "/review-queues/edit?name=shop"]],
  ["review-fill", () => [full, "/review-queues/fill?name=shop"]],
  ["review-settle", () => [full, paths.settle]],
  ["calibration-empty", () => [empty, "/calibration"]],
  ["calibration", () => [full, paths.calibration]],
  ["audit", () => [full, "/audit"]],
  ["models", () => [full, "/models"]],
  ["providers", () => [full, "/providers"]],
  ["providers-new", () => [full, "/providers/new"]],
  ["keys", () => [full, "/keys"]],
  ["members", () => [full, "/members"]],
  ["not-found", () => [full, "/traces/nothing"]],
];

const signedOut = [
  ["sign-in", () => [full, "/sign-in"]],
  ["setup-used", () => [full, "/setup?token=wrong"]],
];

async function settled(page) {
  // Not "networkidle": the live tail of the trace list never is.
  await page.waitForLoadState("load");
  await page.waitForFunction(() => [...document.querySelectorAll('[data-island="charts"], [data-island="playground"], [data-island="editor"], [data-island="compare"], [data-island="apps"]')].every((el) => el.childElementCount > 0 && !el.querySelector(".ed-plain") && (el.dataset.island !== "compare" || !el.querySelector("noscript"))));
}

async function check(name, lang, theme, server, path, state, narrow) {
  const opened = await openPage(browser, server, { lang, theme, storageState: state, width: narrow ? 390 : 1280, height: narrow ? 844 : 900 });
  try {
    const { page } = opened;
    const response = await page.goto(server.url + path);
    await settled(page);
    await page.screenshot({ path: join(shotsDir("pages"), `${name}-${narrow ? 390 : 1280}-${theme}-${lang}.png`), fullPage: true });
    assert.ok(response.status() < 500, `${path} answers ${response.status()}`);
    assert.equal(await page.getAttribute("html", "lang"), lang);
    assert.equal(await page.locator("h1").count(), 1, "one h1");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(wide <= 0, `${wide} px to scroll sideways`);
    const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).options({ resultTypes: ["violations"] }).analyze();
    const found = violations.map((v) => `${v.id}: ${v.help}\n    ${v.nodes.slice(0, 4).map((n) => `${n.target.join(" ")} :: ${n.failureSummary.split("\n").slice(1, 3).join(" ").trim()}`).join("\n    ")}`);
    assert.equal(found.length, 0, `axe:\n  ${found.join("\n  ")}`);
    // A page that is meant to be an error says so on the console; that is the browser's own note.
    const own = opened.misdeeds.filter((m) => !(response.status() >= 400 && m.includes("Failed to load resource") && m.includes(path.split("?")[0])));
    assert.deepEqual(own, []);
  } finally {
    await opened.context.close();
  }
}

for (const lang of ["en", "ja"]) {
  for (const theme of ["light", "dark"]) {
    // Two at a time: one page is looked at by axe while the other one loads.
    describe(`${lang} ${theme}`, { concurrency: 2 }, () => {
      // On a telephone, two of the four combinations: what differs there is the layout, not the words or colours.
      for (const narrow of (lang === "ja") === (theme === "dark") ? [false, true] : [false]) {
        for (const [name, where] of pages) {
          test(`${name} at ${narrow ? 390 : 1280}`, async () => {
            const [server, path] = where();
            await check(name, lang, theme, server, "/default" + path, server.state, narrow);
          });
        }
        for (const [name, where] of signedOut) {
          test(`${name} at ${narrow ? 390 : 1280}`, async () => {
            const [server, path] = where();
            await check(name, lang, theme, server, path, undefined, narrow);
          });
        }
      }
    });
  }
}

test("hostile text stays text", async () => {
  const { page, context, assertClean } = await openPage(browser, full, { storageState: full.state });
  await page.goto(`${full.url}/default${paths.hostile}`);
  const message = page.locator('.msg[data-role="user"]');
  assert.ok((await message.textContent()).includes("<script>alert(1)</script>"));
  assert.equal(await message.locator("script, img, a[href^='javascript']").count(), 0);
  assert.ok(!(await message.textContent()).includes("\u202E"), "deceptive characters are made visible");
  assertClean();
  await context.close();
});

test("new calls wait behind a pill while the list is read", async () => {
  const { page, context, assertClean } = await openPage(browser, full, { storageState: full.state });
  await page.goto(`${full.url}/default/traces`);
  const pill = page.locator('[data-island="traces"] .pill');
  await pill.waitFor({ state: "attached" });
  const first = () => page.locator("#trace-rows tbody tr").first().getAttribute("data-id");
  const before = await first();
  await full.record("acme/echo", "a call while reading");
  await pill.getByText("1").waitFor();
  assert.equal(await first(), before, "nothing moved");
  await pill.click();
  await page.getByRole("row").filter({ hasText: "a call while reading" }).waitFor();
  assertClean();
  await context.close();
});
