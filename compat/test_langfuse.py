"""Langfuse's unmodified client against our prompt routes."""

from __future__ import annotations

import uuid

import pytest
from langfuse import Langfuse
from langfuse.api import NotFoundError

from polling import eventually


@pytest.fixture(scope="module")
def key(server):
    return server.make_key("--role", "editor")


@pytest.fixture(scope="module")
def langfuse(server, key):
    # The public half of the pair is the prefix that the list of keys shows.
    client = Langfuse(public_key=key["key"]["prefix"], secret_key=key["secret"], base_url=server.url, tracing_enabled=False)
    eventually(client.auth_check)
    yield client
    client.shutdown()


@pytest.fixture
def name():
    return f"langfuse/{uuid.uuid4().hex[:8]}/挨拶"


def test_create_fetch_and_compile(langfuse, name):
    langfuse.create_prompt(name=name, prompt="Hello {{name}}, {{ unknown }}!", labels=["production"], tags=["greeting"], config={"temperature": 0.2}, commit_message="first")
    prompt = langfuse.get_prompt(name)
    assert (prompt.version, prompt.labels, prompt.tags) == (1, ["production", "latest"], ["greeting"])
    assert prompt.config == {"temperature": 0.2}
    assert prompt.commit_message == "first"
    assert prompt.compile(name="{{unknown}} 葵") == "Hello {{unknown}} 葵, {{ unknown }}!"


def test_versions_and_labels(langfuse, name):
    for number, text in enumerate(["one", "two", "three"], 1):
        assert langfuse.create_prompt(name=name, prompt=text, labels=["production"] if number == 1 else []).version == number
    assert langfuse.get_prompt(name, cache_ttl_seconds=0).prompt == "one"
    assert langfuse.get_prompt(name, version=2, cache_ttl_seconds=0).prompt == "two"
    assert langfuse.get_prompt(name, label="latest", cache_ttl_seconds=0).prompt == "three"
    langfuse.update_prompt(name=name, version=3, new_labels=["production", "canary"])
    moved = langfuse.get_prompt(name, cache_ttl_seconds=0)
    assert (moved.prompt, sorted(moved.labels)) == ("three", ["canary", "latest", "production"])
    assert langfuse.get_prompt(name, version=1, cache_ttl_seconds=0).labels == []


def test_the_same_content_is_the_same_version(langfuse, name):
    langfuse.create_prompt(name=name, prompt="a")
    langfuse.create_prompt(name=name, prompt="b")
    assert langfuse.create_prompt(name=name, prompt="a", labels=["production"]).version == 1


def test_chat_with_placeholders(langfuse, name):
    messages = [
        {"role": "system", "content": "You are {{mood}}."},
        {"type": "placeholder", "name": "history"},
        {"role": "user", "content": "{{question}}"},
    ]
    langfuse.create_prompt(name=name, type="chat", prompt=messages, labels=["production"])
    prompt = langfuse.get_prompt(name, type="chat")
    compiled = prompt.compile(mood="kind", question="元気?", history=[{"role": "assistant", "content": "hi"}])
    assert [(m["role"], m["content"]) for m in compiled] == [("system", "You are kind."), ("assistant", "hi"), ("user", "元気?")]


def test_composed_prompts(langfuse, name):
    langfuse.create_prompt(name=f"{name}/tone", prompt="Be {{mood}}.", labels=["production"])
    tag = f"@@@langfusePrompt:name={name}/tone|label=production@@@"
    created = langfuse.create_prompt(name=name, prompt=f"{tag} Answer {{{{q}}}}.", labels=["production"])
    assert created.prompt == f"{tag} Answer {{{{q}}}}."
    assert langfuse.get_prompt(name, cache_ttl_seconds=0).compile(mood="brief", q="x") == "Be brief. Answer x."


def test_list_and_filters(langfuse, name):
    langfuse.create_prompt(name=name, prompt="x", labels=["staging"], tags=[f"t-{name[9:17]}"])
    langfuse.create_prompt(name=name, prompt="y")
    by_name = langfuse.api.prompts.list(name=name)
    assert [(p.name, p.versions, p.type.value) for p in by_name.data] == [(name, [1, 2], "text")]
    assert sorted(by_name.data[0].labels) == ["latest", "staging"]
    assert [p.name for p in langfuse.api.prompts.list(tag=f"t-{name[9:17]}").data] == [name]
    assert langfuse.api.prompts.list(name=name, label="production").data == []
    page = langfuse.api.prompts.list(limit=1)
    assert page.meta.limit == 1 and page.meta.total_pages == page.meta.total_items >= 1


def test_the_cache_of_the_client_keeps_and_refreshes(langfuse, name):
    langfuse.create_prompt(name=name, prompt="old", labels=["production"])
    assert langfuse.get_prompt(name, cache_ttl_seconds=60).prompt == "old"
    # Past the client's own method, so that its cache does not know.
    langfuse.api.prompts.create(request={"name": name, "prompt": "new", "type": "text", "labels": ["production"]})
    assert langfuse.get_prompt(name, cache_ttl_seconds=60).prompt == "old"
    langfuse.clear_prompt_cache()
    assert langfuse.get_prompt(name, cache_ttl_seconds=60).prompt == "new"


def test_missing_and_fallback(langfuse, name):
    with pytest.raises(NotFoundError):
        langfuse.get_prompt(name, max_retries=0)
    assert langfuse.get_prompt(name, fallback="instead", max_retries=0).prompt == "instead"


def test_delete(langfuse, name):
    langfuse.create_prompt(name=name, prompt="x", labels=["production"])
    langfuse.api.prompts.delete(langfuse._url_encode(name))
    langfuse.clear_prompt_cache()
    with pytest.raises(NotFoundError):
        langfuse.get_prompt(name, max_retries=0)


def test_a_pair_of_two_keys_is_refused(server, key):
    other = server.make_key("--role", "editor")
    client = Langfuse(public_key=key["key"]["prefix"] + "x", secret_key=other["secret"], base_url=server.url, tracing_enabled=False)
    with pytest.raises(Exception):
        client.auth_check()
    client.shutdown()


def test_saved_here_called_through_the_gateway(langfuse, client, fake, name):
    langfuse.create_prompt(name=name, prompt="You greet {{who}}.", labels=["production"])

    def greeted():
        client.chat.completions.create(
            model="fake/echo", messages=[{"role": "user", "content": "hi"}],
            extra_body={"prompt_id": name, "prompt_variables": {"who": "{{who}} 葵"}})
        return fake.last().json["messages"][0]["content"] == "You greet {{who}} 葵."

    assert eventually(greeted)
