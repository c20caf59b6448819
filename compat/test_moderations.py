"""Moderations: answered from the project's guard policies, read by the client's own types."""

from __future__ import annotations

import json
import urllib.request

import openai
import pytest


def _send(server, method: str, path: str, body: dict) -> None:
    key = server.make_key("--role", "editor")["secret"]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers, method=method)
    urllib.request.urlopen(request, timeout=30).close()


@pytest.fixture(scope="module")
def policy(server):
    rules = [
        {"name": "insults", "at": ["input"], "check": {"type": "toxicity"}, "action": {"type": "block"}},
        {"name": "card", "at": ["input"], "check": {"type": "pii", "kinds": ["credit_card"]}, "action": {"type": "redact"}},
    ]
    _send(server, "POST", "/api/v1/catalog/guard/compat-moderation/versions", {"content": {"rules": rules}})
    _send(server, "PUT", "/api/v1/catalog/guard/compat-moderation/pointers/production", {"version": 1})
    return "compat-moderation"


def test_a_text(client, policy):
    answer = client.moderations.create(model=policy, input="How do I sort a list in Python?")
    assert answer.id.startswith("modr-") and answer.model == policy
    [result] = answer.results
    assert result.flagged is False
    assert result.categories.violence is False and result.category_scores.self_harm == 0


def test_texts(client, policy):
    answer = client.moderations.create(model=policy, input=["You are a worthless idiot.", "Pay with 4111 1111 1111 1111."])
    insult, card = answer.results
    assert insult.flagged and insult.categories.harassment
    assert card.flagged and card.categories.to_dict()["card"] is True
    assert not card.categories.harassment


def test_an_unknown_policy(client):
    with pytest.raises(openai.NotFoundError) as refusal:
        client.moderations.create(model="no-such-policy", input="a")
    assert refusal.value.code == "model_not_found"
