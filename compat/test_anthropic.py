"""An Anthropic provider behind the OpenAI client; tools are in test_tools.py, deaths in test_errors.py."""

from __future__ import annotations

import openai
import pytest

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "user", "content": "there"},
]


def test_whole_answer(client, fake):
    answer = client.chat.completions.create(model="claude/claude-text", messages=MESSAGES, max_tokens=50, stop="END", temperature=0.5)
    assert answer.choices[0].message.content == "claude: Hithere"
    assert answer.choices[0].finish_reason == "stop" and answer.object == "chat.completion"
    # Cache reads and writes are prompt tokens, too.
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9 + 3 + 2, 6)
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    seen = fake.last()
    assert seen.path == "/v1/messages" and seen.headers["x-api-key"] == "sk-upstream-never-shown"
    assert seen.json["max_tokens"] == 50 and seen.json["stop_sequences"] == ["END"] and seen.json["model"] == "claude-text"
    assert [message["role"] for message in seen.json["messages"]] == ["user"]


def test_stream(client):
    chunks = list(client.chat.completions.create(
        model="claude/claude-text", messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "claude: Hithere"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 6


def test_stream_without_usage(client):
    chunks = list(client.chat.completions.create(model="claude/claude-text", messages=MESSAGES, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_thinking_comes_back_with_its_signature(client, fake):
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    message = client.chat.completions.create(model="claude/claude-thinks", messages=MESSAGES, extra_body=thinking).choices[0].message
    assert message.content == "Hello." and message.model_extra["reasoning_content"] == "The user greets."
    blocks = message.model_extra["thinking_blocks"]
    assert blocks == [{"type": "thinking", "thinking": "The user greets.", "signature": "c2lnbmVk"}]
    turn = [*MESSAGES, message.to_dict(), {"role": "user", "content": "again"}]
    client.chat.completions.create(model="claude/claude-thinks", messages=turn, extra_body=thinking)
    assert fake.last().json["messages"][1]["content"][0] == blocks[0]


def test_image(client, fake):
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    client.chat.completions.create(model="claude/claude-text", messages=[{"role": "user", "content": parts}])
    image = fake.last().json["messages"][0]["content"][1]
    assert image == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


@pytest.mark.parametrize("field", [{"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}])
def test_what_has_no_counterpart_is_refused_by_name(client, field):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="claude/claude-text", messages=MESSAGES, **field)
    assert error.value.param == next(iter(field))
