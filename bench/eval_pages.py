"""Pages over much data: a dataset of 10,000 examples, an evaluation of it with two candidates and two evaluators.

    cargo build --release -p server
    python3 bench/eval_pages.py [--rows N] [--runs N] [--meguri FILE] [--keep DIR]

The upstream is a small program in this process that answers right, nearly right or wrong at random, so
that the candidates differ. Then every page that shows the data is asked for again and again by one
client on one kept connection. `server` is the time that it took without the bytes on the wire being
waited for: from the last byte of the request to the first of the answer, which the server sends when
the page is whole. `cold` is the first time after a start of the server, when nothing is remembered.

The pages must stay under 200 ms, warm; a page above it is named and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MS = 200
LISTEN = "127.0.0.1:9141"
UPSTREAM_PORT = 9142


class Provider(asyncio.Protocol):
    """One connection of an upstream that knows no streams: whoever inherits says what is answered."""

    def asked(self, body: bytes) -> None:
        raise NotImplementedError

    def say(self, text: str, prompt_tokens: int, completion_tokens: int) -> None:
        body = json.dumps({
            "id": "x", "object": "chat.completion", "created": 1, "model": "mock",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens},
        }).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    def connection_made(self, transport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, separator, rest = self.buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            length = int(re.search(rb"content-length: (\d+)", head, re.I).group(1))
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            self.asked(body)


class Upstream(Provider):
    """Answers at once, as well as its model's name says, and at random."""

    chance = random.Random(20261121)

    def asked(self, body: bytes) -> None:
        share = 0.8 if b'"better"' in body else 0.7
        wrong = ["the answer is wrong", "no", "the reply is right"]
        self.say("the answer is right" if self.chance.random() < share else self.chance.choice(wrong), 12, 4)


def serve_upstream() -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", UPSTREAM_PORT)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()


class Client:
    """One kept connection, with a key or as a signed-in person."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers, self.connection = headers, http.client.HTTPConnection(LISTEN, timeout=300)

    def send(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[http.client.HTTPResponse, bytes, float]:
        """The answer and how long its first byte took, in milliseconds."""
        self.connection.request(method, path, body, {**self.headers, "content-type": kind} if body is not None else self.headers)
        begin = time.perf_counter_ns()
        answer = self.connection.getresponse()
        took = (time.perf_counter_ns() - begin) / 1e6
        text = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:500]!r}")
        return answer, text, took

    def json(self, method: str, path: str, body: object = None) -> dict:
        return json.loads(self.send(method, path, json.dumps(body).encode() if body is not None else None)[1] or b"null")


class Server:
    def __init__(self, program: Path, data: Path) -> None:
        self.program, self.data, self.process = program, data, None

    def command(self, *arguments: str) -> str:
        done = subprocess.run([self.program, *arguments, "--data-dir", self.data], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stderr}")
        return done.stdout

    def start(self) -> str:
        """What it said while it started."""
        log = self.data / "bench.log"
        environment = {**os.environ, "BENCH_KEY": "sk-bench"}
        with open(log, "wb") as output:
            self.process = subprocess.Popen([self.program, "serve", "--data-dir", self.data, "--listen", LISTEN], stdout=output, stderr=subprocess.STDOUT, env=environment)
        end = time.monotonic() + 60
        while True:
            try:
                http.client.HTTPConnection(LISTEN, timeout=1).request("GET", "/healthz")
                break
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise SystemExit(f"the server did not start:\n{log.read_text()[-3000:]}") from None
                time.sleep(0.05)
        end = time.monotonic() + 10
        while "setup?token" not in (said := log.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        return said

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def sign_up(said: str) -> Client:
    token = re.search(r"setup\?token=(\S+)", said).group(1)
    person = Client({"origin": f"http://{LISTEN}", "sec-fetch-site": "same-origin"})
    form = urllib.parse.urlencode({"token": token, "name": "Bench", "email": "bench@example.test", "password": "a long and simple sentence"})
    answer, _, _ = person.send("POST", "/setup", form.encode(), "application/x-www-form-urlencoded")
    cookies = [value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"]
    return Client({**person.headers, "cookie": "; ".join(cookies)})


def fill(client: Client, rows: int) -> None:
    """The dataset: texts of a usual length, a field with few values and one with many."""
    chance = random.Random(7)
    words = "the customer asks where an order is and when it comes 注文 は いつ 届き ます か".split()
    for first in range(0, rows, 2000):
        examples = [{
            "id": f"e{n:06}", "input": f"{n}: " + " ".join(chance.choices(words, k=40)), "expected": "the answer is right",
            "metadata": {"channel": chance.choice(["mail", "chat", "phone", "電話"]), "customer": f"c{n % 997}", "length": n % 50},
            "split": "test" if n % 5 else "train",
        } for n in range(first, min(first + 2000, rows))]
        if first == 0:
            client.json("POST", "/api/v1/datasets", {"name": "bench", "examples": examples})
        else:
            client.json("POST", "/api/v1/datasets/bench/versions", {"put": examples})


def evaluate(client: Client) -> tuple[str, float]:
    document = {
        "dataset": "dataset:bench@latest", "concurrency": 32, "cache": False,
        "candidates": [{"name": "as it is", "model": "mock/usual"}, {"name": "new", "model": "mock/better"}],
        "evaluators": [
            {"name": "exact", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}},
            {"name": "near", "evaluator": {"type": "metric", "metric": {"id": "compat:levenshtein"}}},
        ],
    }
    begin = time.monotonic()
    identifier = client.json("POST", "/api/v1/evaluations", {"document": document})["id"]
    while (state := client.json("GET", f"/api/v1/evaluations/{identifier}")["evaluation"])["state"] in ("queued", "running"):
        time.sleep(1)
    if state["state"] != "done":
        raise SystemExit(f"the evaluation is {state['state']}: {state['reason']}")
    return identifier, time.monotonic() - begin


def pages(evaluation: str, rows: int) -> dict[str, str]:
    show = f"/default/evaluations/show?id={evaluation}"
    middle = rows // 2
    return {
        "dataset, first page": "/default/datasets/show?name=bench",
        "dataset, page in the middle": f"/default/datasets/show?name=bench&from={middle}",
        "dataset, one split": "/default/datasets/show?name=bench&split=train",
        "dataset, search": "/default/datasets/show?name=bench&q=" + f"{rows - 1}%3A",
        "dataset, one example": f"/default/datasets/example?name=bench&id=e{middle:06}",
        "dataset, preparing": "/default/datasets/transform?name=bench",
        "dataset, runs": "/default/datasets/runs?name=bench",
        "evaluations": "/default/evaluations",
        "compare": show,
        "compare, other evaluator": f"{show}&evaluator=near&candidate=new",
        "compare, slices of 4 values": f"{show}&field=channel",
        "compare, slices of 50 values": f"{show}&field=length",
        "example with both answers": f"/default/evaluations/example?id={evaluation}&place={middle}&evaluator=near&candidate=new",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--meguri", type=Path, default=ROOT / "target/release/meguri")
    parser.add_argument("--keep", type=Path, help="a data directory that is made once and then used again")
    options = parser.parse_args()
    data = options.keep or Path(tempfile.mkdtemp(prefix="meguri-bench-"))
    kept = data / "bench.json"
    server = Server(options.meguri, data)
    try:
        serve_upstream()
        if kept.exists():
            known = json.loads(kept.read_text())
            server.start()
        else:
            data.mkdir(parents=True, exist_ok=True)
            said = server.start()
            person = sign_up(said)
            key = json.loads(server.command("key", "create", "--name", "bench", "--role", "admin", "--json"))["secret"]
            server.command("provider", "add", "mock", "--protocol", "openai", "--base-url", f"http://127.0.0.1:{UPSTREAM_PORT}/v1", "--api-key-env", "BENCH_KEY")
            time.sleep(2)
            client = Client({"authorization": f"Bearer {key}"})
            fill(client, options.rows)
            evaluation, seconds = evaluate(client)
            print(f"{options.rows:,} examples × 2 candidates × 2 evaluators took {seconds:.1f} s")
            known = {"evaluation": evaluation, "rows": options.rows, "headers": person.headers}
            kept.write_text(json.dumps(known))
        all_pages = pages(known["evaluation"], known["rows"])
        cold: dict[str, float] = {}
        for name, path in all_pages.items():
            server.stop()
            server.start()
            cold[name] = Client(known["headers"]).send("GET", path)[2]
        person = Client(known["headers"])
        slow = []
        print(f"\n| page, {known['rows']:,} examples | p50 ms | p95 ms | cold ms | KiB |\n|---|---:|---:|---:|---:|")
        for name, path in all_pages.items():
            person.send("GET", path)
            taken = [person.send("GET", path) for _ in range(options.runs)]
            times = [took for _, _, took in taken]
            p95 = statistics.quantiles(times, n=20)[18]
            print(f"| {name} | {statistics.median(times):.1f} | {p95:.1f} | {cold[name]:.0f} | {len(taken[0][1]) / 1024:.0f} |", flush=True)
            if p95 > LIMIT_MS:
                slow.append(name)
        if slow:
            sys.exit(f"above {LIMIT_MS} ms: {', '.join(slow)}")
    finally:
        if server.process and server.process.poll() is None:
            server.stop()
        if not options.keep:
            shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
