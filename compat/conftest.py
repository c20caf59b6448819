"""One server for all tests; each test makes its own calls and looks only at those."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

import running as product


@pytest.fixture(scope="session")
def server() -> Iterator[product.Running]:
    server = product.start()
    yield server
    server.stop()


@pytest.fixture
def fake(server: product.Running):
    return server.fake


@pytest.fixture
def client(server: product.Running) -> Iterator[openai.OpenAI]:
    # Without retries of its own, so that a failure is seen and not repaired.
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def chat_model(server: product.Running) -> str:
    return _local(server, "smol")


@pytest.fixture(scope="session")
def embedding_model(server: product.Running) -> str:
    return _local(server, "minilm")


def _local(server: product.Running, part: str) -> str:
    names = [m["id"] for m in server.get("/v1/models")["data"]]
    return next(n for n in names if n.startswith("local/") and part in n.lower())
