"""MLflow's unmodified prompt client against our registry routes."""

from __future__ import annotations

import uuid

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from polling import eventually


@pytest.fixture(scope="module")
def registry(server):
    key = server.make_key("--role", "editor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_TOKEN", key["secret"])
        # Its background threads outlive the server; they need not knock for minutes.
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        mlflow.set_tracking_uri(server.url)
        mlflow.set_registry_uri(server.url)
        eventually(lambda: mlflow.genai.search_prompts() is not None)
        yield mlflow.genai


@pytest.fixture
def name():
    return f"mlflow-{uuid.uuid4().hex[:8]}"


def test_register_and_load(registry, name):
    made = registry.register_prompt(name, "Hi {{ name }}, {{ user.city }}!", commit_message="first", tags={"team": "サポート"})
    assert (made.name, made.version, made.template) == (name, 1, "Hi {{ name }}, {{ user.city }}!")
    loaded = registry.load_prompt(f"prompts:/{name}/1")
    assert (loaded.template, loaded.commit_message, loaded.tags["team"]) == (made.template, "first", "サポート")
    assert loaded.format(name="葵", **{"user.city": "京都"}) == "Hi 葵, 京都!"


def test_versions_and_aliases(registry, name):
    for number, text in enumerate(["one {{x}}", "two {{x}}", "three {{x}}"], 1):
        assert registry.register_prompt(name, text).version == number
    registry.set_prompt_alias(name, "production", 1)
    assert registry.load_prompt(f"prompts:/{name}@production", cache_ttl_seconds=0).version == 1
    registry.set_prompt_alias(name, "production", 3)
    loaded = registry.load_prompt(f"prompts:/{name}@production", cache_ttl_seconds=0)
    assert (loaded.version, loaded.aliases) == (3, ["production"])
    assert registry.load_prompt(f"prompts:/{name}@latest", cache_ttl_seconds=0).version == 3
    registry.delete_prompt_alias(name, "production")
    with pytest.raises(MlflowException):
        registry.load_prompt(f"prompts:/{name}@production", cache_ttl_seconds=0)


def test_the_cache_of_the_client_follows_moves(registry, name):
    registry.register_prompt(name, "one")
    registry.register_prompt(name, "two")
    registry.set_prompt_alias(name, "live", 1)
    assert registry.load_prompt(f"prompts:/{name}@live").version == 1
    registry.set_prompt_alias(name, "live", 2)
    assert registry.load_prompt(f"prompts:/{name}@live").version == 2


def test_chat_prompts_and_jinja(registry, name):
    chat = [{"role": "system", "content": "You are {{mood}}."}, {"role": "user", "content": "{{q}}"}]
    registry.register_prompt(name, chat)
    assert registry.load_prompt(f"prompts:/{name}/1").format(mood="kind", q="元気?")[1] == {"role": "user", "content": "元気?"}
    registry.register_prompt(name, "{% for x in xs %}{{ x }},{% endfor %}")
    assert registry.load_prompt(f"prompts:/{name}/2").template.startswith("{% for")


def test_response_format_and_model_config(registry, name):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    registry.register_prompt(name, "Where? {{q}}", response_format=schema, model_config={"temperature": 0.3, "max_tokens": 20})
    loaded = registry.load_prompt(f"prompts:/{name}/1")
    assert loaded.response_format == schema
    assert loaded.model_config["temperature"] == 0.3 and loaded.model_config["max_tokens"] == 20


def test_search_and_tags(registry, name):
    registry.register_prompt(name, "x", tags={"team": name})
    registry.set_prompt_tag(name, "stage", "beta")
    found = registry.search_prompts(filter_string=f"name LIKE '{name[:12]}%' AND tags.stage = 'beta'")
    assert [(prompt.name, prompt.tags["team"]) for prompt in found] == [(name, name)]
    registry.delete_prompt_tag(name, "stage")
    assert list(registry.search_prompts(filter_string=f"tags.stage = 'beta' AND name = '{name}'")) == []
    registry.set_prompt_version_tag(name, 1, "score", "0.9")
    assert registry.load_prompt(f"prompts:/{name}/1", cache_ttl_seconds=0).tags["score"] == "0.9"
    registry.delete_prompt_version_tag(name, 1, "score")
    assert "score" not in registry.load_prompt(f"prompts:/{name}/1", cache_ttl_seconds=0).tags
    client = mlflow.MlflowClient()
    assert [version.version for version in client.search_prompt_versions(name)] == [1]


def test_prompts_are_no_models(registry, name):
    registry.register_prompt(name, "x")
    assert name not in [model.name for model in mlflow.MlflowClient().search_registered_models()]


def test_missing_and_bad(registry, name):
    with pytest.raises(MlflowException, match="not found|no prompt"):
        registry.load_prompt(f"prompts:/{name}/1")
    assert registry.load_prompt(f"prompts:/{name}/1", allow_missing=True) is None
    with pytest.raises(MlflowException, match="(?i)template|line|syntax|expected"):
        registry.register_prompt(name, "{% if x %}never closed")
    # Nothing half-made stays behind.
    assert registry.load_prompt(f"prompts:/{name}/1", allow_missing=True) is None


def test_delete(registry, name):
    registry.register_prompt(name, "x")
    mlflow.MlflowClient().delete_prompt(name)
    assert registry.load_prompt(f"prompts:/{name}/1", allow_missing=True, cache_ttl_seconds=0) is None
