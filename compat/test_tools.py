"""Tool calls, one and several, whole and streamed, and the turn after them."""

from __future__ import annotations

import json

import pytest

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "天気を調べる",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
ASK = [{"role": "user", "content": "Weather?"}]
PARALLEL = ["fake/parallel", "claude/claude-tools"]


def gather(stream):
    """Puts the calls of a stream together, as an application does."""
    calls, finish = {}, None
    for chunk in stream:
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for delta in choice.delta.tool_calls or []:
                call = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": "", "pieces": 0})
                call["id"] += delta.id or ""
                call["name"] += delta.function.name or ""
                call["arguments"] += delta.function.arguments or ""
                call["pieces"] += bool(delta.function.arguments)
    return calls, finish


def check_parallel(calls):
    assert [c["id"] for c in calls] == ["call_tokyo", "call_oslo"]
    assert [c["name"] for c in calls] == ["get_weather"] * 2
    assert [json.loads(c["arguments"]) for c in calls] == [{"city": "東京"}, {"city": "Oslo"}]


def test_one_call(client, fake):
    answer = client.chat.completions.create(model="fake/weather", messages=ASK, tools=TOOLS, tool_choice="required")
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "東京"}
    assert fake.last().json["tools"] == TOOLS and fake.last().json["tool_choice"] == "required"


@pytest.mark.parametrize("model", PARALLEL)
def test_parallel_calls(client, model):
    message = client.chat.completions.create(model=model, messages=ASK, tools=TOOLS).choices[0].message
    check_parallel([{"id": c.id, "name": c.function.name, "arguments": c.function.arguments} for c in message.tool_calls])


@pytest.mark.parametrize("model", PARALLEL)
def test_parallel_calls_streamed(client, model):
    calls, finish = gather(client.chat.completions.create(model=model, messages=ASK, tools=TOOLS, stream=True))
    assert finish == "tool_calls" and list(calls) == [0, 1]
    check_parallel(list(calls.values()))
    assert all(call["pieces"] > 1 for call in calls.values()), "arguments come in pieces"


@pytest.mark.parametrize("model", PARALLEL)
@pytest.mark.parametrize("stream", [False, True])
def test_the_results_go_back_and_are_used(client, model, stream):
    message = client.chat.completions.create(model=model, messages=ASK, tools=TOOLS).choices[0].message
    turn = [*ASK, message.to_dict()]
    turn += [{"role": "tool", "tool_call_id": c.id, "content": f"{i + 20} degrees"} for i, c in enumerate(message.tool_calls)]
    answer = client.chat.completions.create(model=model, messages=turn, tools=TOOLS, stream=stream)
    if stream:
        text = "".join(c.choices[0].delta.content or "" for c in answer if c.choices)
    else:
        text = answer.choices[0].message.content
    assert text == "It is 20 degrees; 21 degrees"


def test_the_stream_helper_assembles_calls(client):
    with client.chat.completions.stream(model="fake/parallel", messages=ASK, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    check_parallel([{"id": c.id, "name": c.function.name, "arguments": c.function.arguments} for c in message.tool_calls])


def test_calls_are_in_the_trace(client, server):
    raw = client.chat.completions.with_raw_response.create(model="fake/parallel", messages=ASK, tools=TOOLS)
    span = server.trace(raw.headers["x-meguri-trace-id"])["spans"][0]
    assert "call_oslo" in json.dumps(span["output"]) and "get_weather" in json.dumps(span["tools"])
