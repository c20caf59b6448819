"""A prompt of the catalog, called by name through the unmodified client."""

from __future__ import annotations

import json
import urllib.request

import openai
import pytest

from polling import eventually


@pytest.fixture(scope="module")
def admin(server):
    key = server.make_key("--role", "admin")["secret"]

    def send(method, path, body):
        request = urllib.request.Request(
            server.url + path, json.dumps(body).encode(), {"authorization": f"Bearer {key}", "content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    eventually(lambda: _reachable(server, key))
    return send


def _reachable(server, key):
    request = urllib.request.Request(f"{server.url}/v1/models", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status == 200


def content(text):
    return {"messages": [{"role": "system", "content": text}]}


def test_prompt_by_name_label_and_version(admin, client, fake, server):
    path = "/api/v1/prompts"
    one = admin("POST", path, {"name": "support/answer", "content": content("You help {{ customer }}."), "message": "first"})
    two = admin("POST", f"{path}/support%2Fanswer/versions", {"content": content("You are short with {{ customer }}.")})
    assert (one["version"], two["version"]) == (1, 2)
    again = admin("POST", f"{path}/support%2Fanswer/versions", {"content": content("You help {{ customer }}.")})
    assert again["version"] == 1, "the same content is the same version"
    admin("PUT", f"{path}/support%2Fanswer/labels/production", {"version": 1, "reason": "start"})

    def system_of(choice):
        raw = client.chat.completions.with_raw_response.create(
            model="fake/echo", messages=[{"role": "user", "content": "hi"}],
            extra_body={"meguri": {"prompt": {"name": "support/answer", **choice}, "variables": {"customer": "Aoi"}}})
        assert "meguri" not in fake.last().json, "our own field never reaches a provider"
        assert fake.last().json["messages"][1:] == [{"role": "user", "content": "hi"}]
        return fake.last().json["messages"][0]["content"], raw.headers["x-meguri-trace-id"]

    def is_served():
        try:
            return system_of({"label": "production"})
        except openai.APIStatusError:
            return None

    text, trace_id = eventually(is_served)
    assert text == "You help Aoi."
    assert system_of({"version": 2})[0] == "You are short with Aoi."
    span = server.trace(trace_id)["spans"][0]
    assert (span["prompt"], span["prompt_version"]) == ("support/answer", 1)

    admin("PUT", f"{path}/support%2Fanswer/labels/production", {"version": 2, "reason": "shorter"})
    eventually(lambda: system_of({"label": "production"})[0] == "You are short with Aoi.")


def test_unknown_prompt(client):
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        client.chat.completions.create(
            model="fake/echo", messages=[{"role": "user", "content": "hi"}], extra_body={"meguri": {"prompt": {"name": "nobody"}}})


def test_session_user_and_tags_are_in_the_trace(client, server):
    raw = client.chat.completions.with_raw_response.create(
        model="fake/echo", messages=[{"role": "user", "content": "hi"}], user="u-1",
        extra_headers={"x-meguri-session": "s-42"}, extra_body={"meguri": {"tags": {"team": "a"}}})
    span = server.trace(raw.headers["x-meguri-trace-id"])["spans"][0]
    assert (span["session"], span["user"], span["tags"]) == ("s-42", "u-1", {"team": "a"})


def test_feedback_sticks(client, server):
    raw = client.chat.completions.with_raw_response.create(model="fake/echo", messages=[{"role": "user", "content": "hi"}])
    trace_id = raw.headers["x-meguri-trace-id"]
    request = urllib.request.Request(
        f"{server.url}/api/v1/scores", json.dumps({"trace_id": trace_id, "name": "thumbs", "value": -1, "comment": "wrong"}).encode(),
        {"authorization": f"Bearer {server.key}", "content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
    score = eventually(lambda: server.get(f"/api/v1/traces/{trace_id}")["scores"])[0]
    assert (score["name"], score["value"], score["comment"]) == ("thumbs", -1, "wrong")
