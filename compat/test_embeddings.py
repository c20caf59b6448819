"""Embeddings: the client asks for base64 unless told otherwise."""

from __future__ import annotations

import base64
import math
import struct

import openai
import pytest


def test_default_encoding_of_the_client(client, fake):
    answer = client.embeddings.create(model="fake/embed", input=["a", "b"])
    assert [row.embedding for row in answer.data] == [[0.25, -0.5, 0.75, 1.0]] * 2
    assert fake.last().json["encoding_format"] == "base64", "the client's own default reaches the provider"
    assert answer.usage.total_tokens == 5


def test_floats(client):
    answer = client.embeddings.create(model="fake/embed", input="a", encoding_format="float")
    assert answer.data[0].embedding == [0.25, -0.5, 0.75, 1.0]


def test_local_embeddings(client, embedding_model):
    answer = client.embeddings.create(model=embedding_model, input=["a cat sat on the mat", "a kitten is on the rug", "quarterly tax report"])
    cat, kitten, tax = (row.embedding for row in answer.data)
    assert [len(v) for v in (cat, kitten, tax)] == [384] * 3
    assert math.isclose(sum(x * x for x in cat), 1, abs_tol=1e-3), "normalised"
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))  # noqa: E731
    assert dot(cat, kitten) > 0.5 > dot(cat, tax)
    assert answer.usage.prompt_tokens > 0


def test_local_base64_and_floats_are_the_same_numbers(client, embedding_model):
    raw = client.post("/embeddings", cast_to=object, body={"model": embedding_model, "input": "同じ", "encoding_format": "base64"})
    packed = base64.b64decode(raw["data"][0]["embedding"])
    floats = client.embeddings.create(model=embedding_model, input="同じ", encoding_format="float").data[0].embedding
    assert struct.unpack("<384f", packed) == pytest.approx(floats, abs=1e-6)


def test_embedding_with_a_chat_model_is_refused(client, chat_model):
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
        client.embeddings.create(model=chat_model, input="a")


def test_anthropic_has_no_embeddings(client):
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="claude/claude-text", input="a")
