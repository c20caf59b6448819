"""What goes wrong has the type that the client has for it, and never looks like success."""

from __future__ import annotations

import json

import openai
import pytest

import running
from polling import eventually

HELLO = [{"role": "user", "content": "hello"}]


def call(client, model="fake/echo", **more):
    return client.chat.completions.create(model=model, messages=HELLO, **more)


def test_wrong_key(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="mgr_dev_nothing", max_retries=0)
    for attempt in (lambda: call(client), lambda: list(client.models.list())):
        with pytest.raises(openai.AuthenticationError) as error:
            attempt()
        assert error.value.status_code == 401 and error.value.body["message"]
        assert "mgr_dev_nothing" not in str(error.value)


def test_revoked_key(server):
    made = server.make_key()
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=made["secret"], max_retries=0)
    eventually(lambda: works(lambda: call(client)))
    running.meguri("key", "revoke", made["id"], data_dir=server.data_dir)
    eventually(lambda: not works(lambda: call(client)))
    with pytest.raises(openai.AuthenticationError):
        call(client)


def works(attempt):
    try:
        return attempt()
    except openai.AuthenticationError:
        return None


@pytest.mark.parametrize("model", ["nobody/echo", "local/no-such-model", "just-a-name", "fake/status-404"])
def test_unknown_model(client, model):
    with pytest.raises(openai.NotFoundError) as error:
        call(client, model)
    assert error.value.code == "model_not_found"


def test_unknown_path(client):
    with pytest.raises(openai.NotFoundError):
        client.post("/nothing/here", cast_to=object, body={})


def test_rate_limit_of_the_provider(client):
    with pytest.raises(openai.RateLimitError) as error:
        call(client, "fake/status-429")
    assert "Rate limit reached" in str(error.value)
    assert error.value.response.headers["retry-after"] == "60"
    assert error.value.response.headers["x-meguri-trace-id"]


def test_bad_request_of_the_provider_keeps_its_words(client):
    with pytest.raises(openai.BadRequestError) as error:
        call(client, "fake/status-400", temperature=9)
    assert (error.value.code, error.value.param) == ("bad_temperature", "temperature")
    assert "temperature is too high" in str(error.value)


@pytest.mark.parametrize("status", [401, 403])
def test_our_credential_refused_upstream_is_not_the_callers_fault(client, status):
    with pytest.raises(openai.InternalServerError) as error:
        call(client, f"fake/status-{status}")
    assert error.value.status_code == 502 and "sk-upstream" not in str(error.value)


def test_server_error_of_the_provider(client):
    with pytest.raises(openai.InternalServerError):
        call(client, "fake/status-500")


def test_overloaded_anthropic(client):
    with pytest.raises(openai.InternalServerError) as error:
        call(client, "claude/claude-overloaded")
    assert error.value.status_code == 503


def test_a_short_failure_is_repaired_before_the_client_sees_it(client, fake):
    answer = client.chat.completions.create(model="fake/flaky", messages=[{"role": "user", "content": "repair this"}])
    assert answer.choices[0].message.content == "echo: repair this"
    assert fake.failures["repair this"] == 2


def test_provider_that_is_not_there(server, client):
    address = f"http://127.0.0.1:{running.free_port()}/v1"
    running.meguri("provider", "add", "gone", "--protocol", "openai", "--base-url", address, data_dir=server.data_dir)

    def look():
        with pytest.raises(openai.APIStatusError) as error:
            call(client, "gone/model")
        return error.value if error.value.status_code != 404 else None

    assert eventually(look).status_code == 502


@pytest.mark.parametrize("model", ["fake/dies", "fake/ends-early", "fake/garbage", "fake/error-event", "claude/claude-dies", "claude/claude-error-event"])
def test_a_stream_that_dies_upstream_never_ends_cleanly(client, server, model):
    text = ""
    with pytest.raises(openai.APIError):
        with call(client, model, stream=True) as stream:
            trace_id = stream.response.headers["x-meguri-trace-id"]
            for chunk in stream:
                text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    assert text, "what came before the failure was delivered"
    trace = server.trace(trace_id)
    assert trace["status"] == "error" and text in json.dumps(trace["spans"][0]["output"], ensure_ascii=False)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"model": "fake/echo"}', b'{"model": 5, "messages": []}', b'{"model": "fake/echo", "messages": "hi"}', b"\xff\xfe", b'{"model":"a","model":"b"}'],
)
def test_malformed_requests(client, body):
    with pytest.raises(openai.BadRequestError) as error:
        client.post("/chat/completions", cast_to=object, content=body, options={"headers": {"content-type": "application/json"}})
    assert error.value.body["message"]
