"""The real local model through the unmodified client."""

from __future__ import annotations

import json
import threading

import openai
import pytest


COUNT = [{"role": "user", "content": "Count from one to ten in words."}]


def text_of(answer):
    return answer.choices[0].message.content


def test_stream_comes_token_by_token(client, chat_model, server):
    with client.chat.completions.create(
        model=chat_model, messages=COUNT, stream=True, max_tokens=24, temperature=0, stream_options={"include_usage": True}
    ) as stream:
        trace_id = stream.response.headers["x-meguri-trace-id"]
        chunks = list(stream)
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(pieces) > 8
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens <= 24 and chunks[-1].usage.prompt_tokens > 5
    trace = server.trace(trace_id)
    assert json.dumps("".join(pieces), ensure_ascii=False)[1:-1] in json.dumps(trace["spans"][0]["output"], ensure_ascii=False)
    assert trace["spans"][0]["ttft_ms"] > 0


def test_whole_and_streamed_answers_are_the_same(client, chat_model):
    options = dict(model=chat_model, messages=COUNT, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**options)
    streamed = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**options, stream=True) if c.choices)
    assert text_of(whole) == streamed and streamed


def test_max_tokens(client, chat_model):
    answer = client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=3, temperature=0)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3


def test_stop_string_is_not_part_of_the_answer(client, chat_model):
    free = text_of(client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=24, temperature=0))
    # Across token boundaries: from the middle of one word into the next.
    stop = free[len(free) // 2 - 3 : len(free) // 2 + 3]
    answer = client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=24, temperature=0, stop=[stop])
    assert answer.choices[0].finish_reason == "stop"
    assert text_of(answer) == free[: free.index(stop)]


def test_seed_decides(client, chat_model):
    def run(seed):
        return text_of(client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=16, temperature=1.5, seed=seed))

    assert run(7) == run(7)
    assert len({run(seed) for seed in range(4)}) > 1


def test_logprobs(client, chat_model):
    answer = client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == 4 and "".join(t.token for t in tokens) == text_of(answer)
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "greedy takes the likeliest"


def test_several_choices(client, chat_model):
    answer = client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=12, temperature=1.2, n=2, seed=3)
    assert [c.index for c in answer.choices] == [0, 1] and answer.choices[0].message.content != answer.choices[1].message.content


def test_several_callers_at_once(client, chat_model):
    alone = text_of(client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=16, temperature=0))
    answers = [""] * 4

    def run(at):
        answers[at] = text_of(client.chat.completions.create(model=chat_model, messages=COUNT, max_tokens=16, temperature=0))

    threads = [threading.Thread(target=run, args=(at,)) for at in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert answers == [alone] * 4


def test_context_overflow(client, chat_model):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=chat_model, messages=[{"role": "user", "content": "word " * 20_000}])
    assert error.value.code == "context_length_exceeded"


def test_what_the_model_cannot_do_is_refused(client, chat_model):
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=chat_model, messages=[{"role": "user", "content": image}])


def test_the_log_has_no_text_of_calls(client, chat_model, server):
    secret = "zebra-crossing-under-the-moon"
    client.chat.completions.create(model=chat_model, messages=[{"role": "user", "content": secret}], max_tokens=2)
    assert secret not in server.log.read_text(errors="replace")
