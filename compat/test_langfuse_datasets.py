"""Langfuse's unmodified client against our datasets."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone

import pytest
from langfuse import Langfuse
from langfuse.api import DatasetStatus, NotFoundError
from langfuse.api.core import ApiError

from polling import eventually


@pytest.fixture(scope="module")
def langfuse(server):
    key = server.make_key("--role", "editor")
    client = Langfuse(public_key=key["key"]["prefix"], secret_key=key["secret"], base_url=server.url, tracing_enabled=False)
    eventually(client.auth_check)
    yield client
    client.shutdown()


@pytest.fixture
def name():
    return f"langfuse/{uuid.uuid4().hex[:8]}/質問"


def test_create_and_describe(langfuse, name):
    created = langfuse.create_dataset(name=name, description="capitals", metadata={"author": "葵"}, input_schema={"type": "object"})
    assert (created.name, created.description, created.metadata) == (name, "capitals", {"author": "葵"})
    assert created.input_schema == {"type": "object"}
    again = langfuse.create_dataset(name=name, description="capitals of the world")
    assert (again.description, again.metadata) == ("capitals of the world", {"author": "葵"})
    assert name in [one.name for one in langfuse.api.datasets.list(limit=100).data]
    with pytest.raises(NotFoundError):
        langfuse.get_dataset(f"{name}/nothing")


def test_items(langfuse, name):
    langfuse.create_dataset(name=name)
    first = langfuse.create_dataset_item(dataset_name=name, input={"country": "Italy"}, expected_output="Rome", metadata={"level": 1})
    assert (first.input, first.expected_output, first.metadata, first.status) == ({"country": "Italy"}, "Rome", {"level": 1}, DatasetStatus.ACTIVE)
    for n in range(60):
        langfuse.create_dataset_item(dataset_name=name, input=f"question {n}", id=f"{name}-{n}")
    dataset = langfuse.get_dataset(name, fetch_items_page_size=25)
    assert [item.input for item in dataset.items] == [{"country": "Italy"}, *(f"question {n}" for n in range(60))]
    langfuse.create_dataset_item(dataset_name=name, id=f"{name}-7", expected_output="seven")
    item = langfuse.api.dataset_items.get(id=f"{name}-7".replace("/", "%2F"))
    assert (item.input, item.expected_output, item.dataset_name) == ("question 7", "seven", name)
    langfuse.create_dataset_item(dataset_name=name, id=f"{name}-8", status=DatasetStatus.ARCHIVED)
    assert langfuse.api.dataset_items.get(id=f"{name}-8".replace("/", "%2F")).status == DatasetStatus.ARCHIVED
    langfuse.api.dataset_items.delete(id=first.id)
    assert len(langfuse.get_dataset(name).items) == 60
    with pytest.raises(NotFoundError):
        langfuse.api.dataset_items.get(id=first.id)


def test_lineage_and_time(langfuse, name):
    langfuse.create_dataset(name=name)
    trace = uuid.uuid4().hex
    langfuse.create_dataset_item(dataset_name=name, input="a", source_trace_id=trace)
    before = datetime.now(timezone.utc)
    langfuse.create_dataset_item(dataset_name=name, input="b")
    found = langfuse.api.dataset_items.list(dataset_name=name, source_trace_id=trace)
    assert [item.input for item in found.data] == ["a"]
    assert found.data[0].source_trace_id == trace
    assert [item.input for item in langfuse.get_dataset(name, version=before).items] == ["a"]


def test_an_item_needs_an_input(langfuse, name):
    langfuse.create_dataset(name=name)
    with pytest.raises(ApiError) as refused:
        langfuse.create_dataset_item(dataset_name=name, expected_output="x")
    assert refused.value.status_code == 400
