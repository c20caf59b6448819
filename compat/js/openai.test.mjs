// The unmodified npm package `openai` against the running binary; started by ../for_node.py.
// The Python suite is the long one. Here is what differs between the two clients: how they read
// streams, throw errors and ask for embeddings.

import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const { MEGURI_URL, MEGURI_KEY, FAKE_URL, CHAT_MODEL, EMBEDDING_MODEL } = process.env;
const client = new OpenAI({ baseURL: `${MEGURI_URL}/v1`, apiKey: MEGURI_KEY, maxRetries: 0, timeout: 60_000 });
const hello = [{ role: "user", content: "hello" }];
const tools = [{ type: "function", function: { name: "get_weather", parameters: { type: "object", properties: { city: { type: "string" } } } } }];

async function lastSeen() {
  const seen = await (await fetch(`${FAKE_URL}/_seen`)).json();
  return Buffer.from(seen.at(-1).raw_base64, "base64").toString();
}

/** A call's trace, which is there a moment after its answer. */
async function trace(id) {
  const end = Date.now() + 10_000;
  for (;;) {
    const answer = await fetch(`${MEGURI_URL}/api/v1/traces/${id}`, { headers: { authorization: `Bearer ${MEGURI_KEY}` } });
    if (answer.ok) return answer.json();
    assert.ok(Date.now() < end, `no trace ${id}: ${answer.status}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  return text;
}

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes(CHAT_MODEL));
});

test("whole answer, with the trace id", async () => {
  const { data, response } = await client.chat.completions.create({ model: "fake/echo", messages: hello }).withResponse();
  assert.equal(data.choices[0].message.content, "echo: hello");
  assert.equal(data.usage.total_tokens, 18);
  const found = await trace(response.headers.get("x-meguri-trace-id"));
  assert.equal(found.spans[0].input_tokens, 11);
});

test("stream with usage", async () => {
  const stream = await client.chat.completions.create({ model: "fake/echo", messages: hello, stream: true, stream_options: { include_usage: true } });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "echo: hello");
  assert.equal(usage.completion_tokens, 7);
});

test("a stream cut anywhere keeps Japanese whole", async () => {
  const stream = await client.chat.completions.create({ model: "fake/japanese", messages: hello, stream: true });
  assert.equal(await textOf(stream), "巡りは、出荷・監視・改善をひとつにまとめます。🌀");
});

for (const model of ["fake/parallel", "claude/claude-tools"]) {
  test(`parallel tool calls of ${model}`, async () => {
    const whole = await client.chat.completions.create({ model, messages: hello, tools });
    const stream = client.chat.completions.stream({ model, messages: hello, tools });
    const streamed = await stream.finalChatCompletion();
    for (const answer of [whole, streamed]) {
      assert.equal(answer.choices[0].finish_reason, "tool_calls");
      const cities = answer.choices[0].message.tool_calls.map((call) => JSON.parse(call.function.arguments).city);
      assert.deepEqual(cities, ["東京", "Oslo"]);
    }
  });
}

test("tool runner: calls, results, answer", async () => {
  const asked = [];
  const run = client.chat.completions.runTools({
    model: "fake/weather",
    messages: hello,
    tools: [{ type: "function", function: { name: "get_weather", parse: JSON.parse, parameters: { type: "object", properties: {} },
      function: ({ city }) => { asked.push(city); return "25 degrees"; } } }],
  });
  assert.equal(await run.finalContent(), "It is 25 degrees");
  assert.deepEqual(asked, ["東京"]);
});

test("unknown fields reach the provider", async () => {
  await client.chat.completions.create({ model: "fake/echo", messages: hello, zzz: { a: [1, null] }, response_format: { type: "json_object" } });
  const seen = JSON.parse(await lastSeen());
  assert.deepEqual(seen.zzz, { a: [1, null] });
  assert.deepEqual(seen.response_format, { type: "json_object" });
});

test("errors have their types", async () => {
  const fails = (model, type, more = {}) => assert.rejects(client.chat.completions.create({ model, messages: hello, ...more }), type);
  const stranger = new OpenAI({ baseURL: `${MEGURI_URL}/v1`, apiKey: "mgr_dev_wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  await fails("nobody/x", OpenAI.NotFoundError);
  await fails("fake/status-429", OpenAI.RateLimitError);
  await fails("fake/status-400", OpenAI.BadRequestError);
  await fails("fake/status-500", OpenAI.InternalServerError);
});

for (const model of ["fake/dies", "fake/ends-early", "fake/error-event", "claude/claude-dies"]) {
  test(`a dying stream throws: ${model}`, async () => {
    const stream = await client.chat.completions.create({ model, messages: hello, stream: true });
    let text = "";
    await assert.rejects(async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
    });
    assert.ok(text.length > 0);
  });
}

test("leaving a stream cancels the call", async () => {
  const { data: stream, response } = await client.chat.completions.create({ model: "fake/slow", messages: [{ role: "user", content: "x".repeat(200) }], stream: true }).withResponse();
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  stream.controller.abort();
  const found = await trace(response.headers.get("x-meguri-trace-id"));
  assert.equal(found.status, "cancelled");
});

test("embeddings in the client's default encoding", async () => {
  const remote = await client.embeddings.create({ model: "fake/embed", input: ["a", "b"] });
  assert.deepEqual(remote.data.map((row) => row.embedding), [[0.25, -0.5, 0.75, 1], [0.25, -0.5, 0.75, 1]]);
  const local = await client.embeddings.create({ model: EMBEDDING_MODEL, input: "hello" });
  assert.equal(local.data[0].embedding.length, 384);
});

test("the local model streams", async () => {
  const options = { model: CHAT_MODEL, messages: [{ role: "user", content: "Name three colours." }], max_tokens: 16, temperature: 0 };
  const text = await textOf(await client.chat.completions.create({ ...options, stream: true }));
  const whole = await client.chat.completions.create(options);
  assert.ok(text.length > 0);
  assert.equal(text, whole.choices[0].message.content);
});
