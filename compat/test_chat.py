"""Chat completions of an OpenAI-compatible provider: what the client sends arrives, what comes back is whole."""

from __future__ import annotations

import json

from pydantic import BaseModel


HELLO = [{"role": "user", "content": "hello"}]


def test_models_are_listed_with_their_provider(client):
    names = [model.id for model in client.models.list()]
    assert any(name.startswith("local/") for name in names)


def test_one_model_is_found_by_its_name(client, chat_model):
    assert client.models.retrieve(chat_model).id == chat_model


def test_whole_answer(client, fake):
    answer = client.chat.completions.create(model="fake/echo", messages=HELLO)
    assert answer.choices[0].message.content == "echo: hello"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7)
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    # Fields that nobody here knows come through as well.
    assert answer.choices[0].message.model_extra["unknown_to_us"] == {"kept": True}
    assert answer.system_fingerprint == "fp_fake"
    assert fake.last().json["model"] == "echo"


def test_the_provider_gets_its_own_credential_and_not_the_callers(client, fake, server):
    client.chat.completions.create(model="fake/echo", messages=HELLO)
    headers = fake.last().headers
    assert headers["authorization"] == "Bearer sk-upstream-never-shown"
    assert server.key not in json.dumps(headers) and server.key.encode() not in fake.last().raw


def test_trace_id_header_leads_to_the_trace(client, server):
    raw = client.chat.completions.with_raw_response.create(model="fake/echo", messages=[{"role": "user", "content": "find me"}])
    trace = server.trace(raw.headers["x-meguri-trace-id"])
    assert "find me" in json.dumps(trace) and "echo: find me" in json.dumps(trace)
    assert trace["spans"][0]["input_tokens"] == 11


def test_stream(client, fake):
    chunks = list(client.chat.completions.create(model="fake/echo", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "echo: hello"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    # The gateway asks the provider for usage for its own records; a caller who did not ask sees none.
    assert fake.last().json["stream_options"] == {"include_usage": True}
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_stream_with_usage(client):
    with client.chat.completions.create(
        model="fake/echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
        assert stream.response.headers["x-meguri-trace-id"]
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 18


def test_stream_helper(client):
    with client.chat.completions.stream(model="fake/echo", messages=HELLO) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        assert text == stream.get_final_completion().choices[0].message.content == "echo: hello"


def test_stream_cut_anywhere_keeps_japanese_whole(client):
    chunks = client.chat.completions.create(model="fake/japanese", messages=HELLO, stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == "巡りは、出荷・監視・改善をひとつにまとめます。🌀"


def test_stream_with_crlf_and_comments(client):
    chunks = client.chat.completions.create(model="fake/crlf", messages=HELLO, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "echo: hello"


def test_several_choices_and_logprobs(client):
    answer = client.chat.completions.create(model="fake/echo", messages=HELLO, n=3, logprobs=True)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.choices[2].logprobs.content[0].logprob == -0.5
    texts = ["", ""]
    for chunk in client.chat.completions.create(model="fake/echo", messages=HELLO, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == ["echo: hello"] * 2


def test_structured_output(client, fake):
    class Person(BaseModel):
        name: str
        year: int

    answer = client.chat.completions.parse(model="fake/structured", messages=HELLO, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Ada", year=1843)
    schema = fake.last().json["response_format"]["json_schema"]
    assert schema["strict"] is True and list(schema["schema"]["properties"]) == ["name", "year"]


def test_the_callers_bytes_reach_the_provider(client, fake, server):
    """Everything but the model's name: order, spacing, number spelling, fields that nobody knows."""
    body = (
        '{ "temperature" :0.10,"model":"fake/echo",  "zzz_unknown": {"b":1e3, "a":[1 ,2]},'
        '"messages":[{"role":"user","content":"caf\\u00e9 \\ud83c\\udf00 東京"}],"seed":12345678901234567890 }'
    ).encode()
    answer = client.post("/chat/completions", cast_to=object, content=body, options={"headers": {"content-type": "application/json"}})
    assert answer["choices"][0]["message"]["content"] == "echo: café 🌀 東京"
    assert fake.last().raw == body.replace(b'"fake/echo"', b'"echo"')


def test_extra_body_reaches_the_provider(client, fake):
    client.chat.completions.create(model="fake/echo", messages=HELLO, extra_body={"top_k": 5, "guided_json": {"x": [1, {"y": None}]}})
    assert fake.last().json["top_k"] == 5 and fake.last().json["guided_json"] == {"x": [1, {"y": None}]}


def test_images_are_passed_through(client, fake):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
    ]
    answer = client.chat.completions.create(model="fake/echo", messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "echo: What is this?[image_url]"
    assert fake.last().json["messages"][0]["content"] == parts


def test_a_client_that_leaves_early_is_a_cancelled_trace(client, server):
    with client.chat.completions.create(model="fake/slow", messages=[{"role": "user", "content": "x" * 200}], stream=True) as stream:
        trace_id = stream.response.headers["x-meguri-trace-id"]
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    trace = server.trace(trace_id)
    assert trace["status"] == "cancelled"
    assert trace["spans"][0]["tokens_estimated"] is True
