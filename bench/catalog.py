"""Measures the catalog in the release binary: rebuilding the plan, lists, apps. Called by `run`.

10,000 prompts and 1,000 apps are applied as a tree of files, and each app is released. The
time of a rebuild is what the server itself logs (at level debug); whether calls notice it is
measured from outside, by a client that calls all the time while labels move.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
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

from bench import MEGURI, REPORT, ROOT, machine, nginx, spawn, stop_all, table, wait_for

PROMPTS, APPS, CLIENTS = 10_000, 1_000, 32
RUNS = 7
LISTEN = "127.0.0.1:9131"


class Client:
    """One kept connection, as a client library has."""

    def __init__(self, key: str) -> None:
        self.key, self.connection = key, http.client.HTTPConnection(LISTEN, timeout=60)

    def send(self, method: str, path: str, body: object = None) -> tuple[dict, float]:
        """The answer and how long it took, in microseconds."""
        data = json.dumps(body).encode() if body is not None else None
        begin = time.perf_counter_ns()
        self.connection.request(method, path, data, {"authorization": f"Bearer {self.key}", "content-type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        took = (time.perf_counter_ns() - begin) / 1000
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:500]!r}")
        return json.loads(text or b"null"), took


def prompt(number: int) -> dict:
    return {"messages": [{"role": "system", "content": f"You answer question {number} about {{{{ subject }}}} in one sentence."}]}


def tree(place: Path) -> None:
    """All of it as the files that people keep in Git."""
    for number in range(PROMPTS):
        folder = place / f"prompts/folder{number % 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"p{number}.toml").write_text('[pointers]\nproduction = "this"\n\n[document]\n')
        (folder / f"p{number}.prompt.md").write_text(f"--- system ---\n{prompt(number)['messages'][0]['content']}\n")
    (place / "apps").mkdir()
    for number in range(APPS):
        (place / f"apps/app{number}.toml").write_text(
            "[document]\n\n[[document.steps]]\nid = \"answer\"\ntype = \"prompt\"\nmodel = \"mock/mock\"\n"
            f'prompt = "prompt:folder{number % 100}/p{number}@production"\nvariables = {{ subject = "inputs.question" }}\n'
        )


def release(key: str) -> float:
    """Cuts a release of every app and moves it to dev, with many clients; returns seconds."""
    begin = time.monotonic()

    def part(numbers: range) -> None:
        client = Client(key)
        for number in numbers:
            client.send("POST", f"/api/v1/apps/app{number}/releases", {"version": "1"})
            client.send("PUT", f"/api/v1/catalog/release/app{number}/pointers/dev", {"version": 1})

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(part, range(start, APPS, CLIENTS)) for start in range(CLIENTS)]:
            done.result()
    return time.monotonic() - begin


def rebuilds(log: Path) -> list[float]:
    """How long each rebuild took, in milliseconds, as the server says."""
    return [float(found) for found in re.findall(r"plan was rebuilt.*?duration_ms=([0-9.]+)", log.read_text())]


def call(client: Client, model: str, count: int) -> list[float]:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return [client.send("POST", "/v1/chat/completions", body)[1] for _ in range(count)]


def quantiles(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


def moved_meanwhile(key: str, count: int) -> tuple[list[float], int]:
    """Latencies of calls while labels move all the time, and the number of moves."""
    stop, moves = threading.Event(), 0

    def move() -> None:
        nonlocal moves
        client = Client(key)
        client.send("POST", "/api/v1/prompts", {"name": "folder0/p0", "content": prompt(-1)})
        while not stop.is_set():
            client.send("PUT", "/api/v1/prompts/folder0%2Fp0/labels/production", {"version": 1 + moves % 2})
            moves += 1
            time.sleep(0.05)

    mover = threading.Thread(target=move)
    mover.start()
    taken = call(Client(key), "mock/mock", count)
    stop.set()
    mover.join()
    return taken, moves


def example_us(example: str, figure: str) -> str:
    """Of one of the gateway's own examples: the median and the range of several runs."""
    command = ["cargo", "run", "--release", "--quiet", "--locked", "-p", "gateway", "--example", example]
    found = []
    for _ in range(RUNS):
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        found += [float(number) for number in re.findall(rf"^{figure} ([0-9.]+)$", output, re.MULTILINE)]
    return f"{statistics.median(found):.0f} µs ({min(found):.0f}–{max(found):.0f} in {len(found)} runs)"


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="meguri-bench-catalog-"))
    log_path = work / "meguri.log"
    try:
        nginx(work, "mock.nginx.conf")
        (work / "data").mkdir()
        (work / "data/meguri.toml").write_text('[log]\nlevel = "info,server=debug"\n')
        with open(log_path, "wb") as log:
            spawn([str(MEGURI), "serve", "--data-dir", str(work / "data"), "--listen", LISTEN], stdout=log, stderr=log)
        wait_for(lambda: http.client.HTTPConnection(LISTEN, timeout=1).connect(), "meguri")
        run = lambda *a: subprocess.run([str(MEGURI), *a, "--data-dir", str(work / "data")], check=True, capture_output=True, text=True).stdout  # noqa: E731
        run("provider", "add", "mock", "--protocol", "openai", "--base-url", "http://127.0.0.1:9101/v1")
        key = json.loads(run("key", "create", "--name", "bench", "--role", "admin", "--json"))["secret"]
        print("catalog: saving", file=sys.stderr, flush=True)
        tree(work / "tree")
        begin = time.monotonic()
        run("apply", str(work / "tree"), "--yes")
        applied = time.monotonic() - begin
        print("catalog: releasing", file=sys.stderr, flush=True)
        released = release(key)
        print("catalog: measuring", file=sys.stderr, flush=True)
        client = Client(key)
        before = len(rebuilds(log_path))
        call(client, "mock/mock", 300), call(client, "app1", 300)
        plain, in_app = quantiles(call(client, "mock/mock", 3000)), quantiles(call(client, "app1", 3000))
        quiet = quantiles(call(client, "mock/mock", 3000))
        busy, moves = moved_meanwhile(key, 3000)
        busy = quantiles(busy)
        lists = [client.send("GET", "/api/v1/prompts?limit=200")[1] / 1000 for _ in range(30)]
        rebuilt = rebuilds(log_path)[before:]
    finally:
        stop_all()
        shutil.rmtree(work, ignore_errors=True)
    rows = [
        ["render of a 2 KB chat template with 5 examples", "≤ 30 µs", example_us("render_speed", "render_2kb_5_examples")],
        ["what an app adds before its first step", "≤ 20 µs", example_us("app_speed", "app_resolution_adds")],
        [f"plan rebuild, {PROMPTS:,} prompts and {APPS:,} apps", "≤ 300 ms", f"{statistics.median(rebuilt):.0f} ms (highest {max(rebuilt):.0f}, {len(rebuilt)} rebuilds)"],
        [f"p50 / p99 of a call while {moves} labels moved", "as without", f"{busy[0]:.0f} / {busy[1]:.0f} µs; without {quiet[0]:.0f} / {quiet[1]:.0f}"],
        [f"a page of 200 of {PROMPTS:,} prompts", "≤ 100 ms", f"{statistics.median(lists):.0f} ms"],
        ["a whole call of an app with one step, p50", "–", f"{in_app[0]:.0f} µs; the model alone {plain[0]:.0f} (an app writes two records)"],
        [f"`meguri apply` of all {PROMPTS + APPS:,} documents, one transaction", "–", f"{applied:.0f} s"],
        [f"{APPS:,} releases cut and moved through the API, {CLIENTS} clients", "–", f"{released:.0f} s"],
    ]
    text = f"Measured on {machine()}.\n\n" + table(["", "wanted", "measured"], rows)
    print(text)
    report = REPORT.read_text()
    head, rest = report.split("<!-- catalog -->", 1)
    tail = rest.split("<!-- /catalog -->", 1)[1]
    REPORT.write_text(f"{head}<!-- catalog -->\n{text}\n<!-- /catalog -->{tail}")


if __name__ == "__main__":
    main()
