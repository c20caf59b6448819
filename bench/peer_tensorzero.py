"""Starts TensorZero's HTTP gateway the way its Python package does; run with the environment that has it.

Its observability is off, which is its fastest setting: it needs a ClickHouse otherwise.
"""

import sys
import tempfile

from tensorzero import _start_http_gateway

CONFIG = """
[gateway]
observability.enabled = false
"""
MODEL = """
[models.{name}]
routing = ["{name}"]
[models.{name}.providers.{name}]
type = "openai"
model_name = "mock"
api_base = "http://127.0.0.1:{port}/v1/"
api_key_location = "none"
"""

with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
    config.write(CONFIG + MODEL.format(name="whole", port=9101) + MODEL.format(name="stream", port=9102))
    config.flush()
    gateway = _start_http_gateway(config_file=config.name, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
    print(gateway.base_url, flush=True)
    sys.stdin.read()
