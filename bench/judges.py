"""1,000 judge calls, 50 at once: the processor time that the server spends on each.

    cargo build --release -p server
    python3 bench/judges.py [--rows N] [--rounds N] [--delay MS] [--meguri FILE]

The same dataset is evaluated twice per round: with a metric alone, and with the metric and a judge. The
candidate's answers are asked for both times, so the difference of the two is what a judge call costs: its
prompt, the call through the gateway with its durable record and price, reading the verdict, and writing
the score. The upstream waits before it answers, so that 50 calls are really in flight; it runs in a
process of its own, and only the server's time (/proc) is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from eval_pages import ROOT, UPSTREAM_PORT, Client, Provider, Server, fill

LIMIT_MS = 1.0
AT_ONCE = 50
TICK = os.sysconf("SC_CLK_TCK")


class Upstream(Provider):
    """A candidate that always says the same, and a judge that gives it a 7; each after a while."""

    delay = 0.02
    in_flight = 0
    most = multiprocessing.Value("i", 0)

    def asked(self, body: bytes) -> None:
        is_judge = b'"judge"' in body
        if is_judge:
            Upstream.in_flight += 1
            Upstream.most.value = max(Upstream.most.value, Upstream.in_flight)
        asyncio.get_running_loop().call_later(self.delay, self.answer, is_judge)

    def answer(self, is_judge: bool) -> None:
        Upstream.in_flight -= is_judge
        self.say('{"reason": "It answers the question and leaves one detail out.", "verdict": "G"}' if is_judge else "the answer is right", 250, 20)


def serve_upstream(delay: float) -> None:
    async def run() -> None:
        Upstream.delay = delay
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", UPSTREAM_PORT)
        await server.serve_forever()

    asyncio.run(run())


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def evaluate(client: Client, server: Server, rows: int, with_judge: bool) -> tuple[float, float]:
    """The server's processor seconds, and the seconds that passed."""
    evaluators = [{"name": "exact", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}}]
    if with_judge:
        evaluators.append({"name": "judge", "evaluator": {
            "type": "judge", "model": "mock/judge", "scale": {"min": 1, "max": 10},
            "criteria": [{"name": "right", "description": "The answer says what was asked for, and nothing that is wrong."}],
        }})
    document = {
        "dataset": "dataset:bench@latest", "concurrency": AT_ONCE, "cache": False,
        "candidates": [{"name": "as it is", "model": "mock/usual"}], "evaluators": evaluators,
    }
    before, begin = processor_seconds(server.process.pid), time.monotonic()
    identifier = client.json("POST", "/api/v1/evaluations", {"document": document})["id"]
    while (state := client.json("GET", f"/api/v1/evaluations/{identifier}")["evaluation"])["state"] in ("queued", "running"):
        time.sleep(0.5)
    took = processor_seconds(server.process.pid) - before, time.monotonic() - begin
    if state["state"] != "done":
        raise SystemExit(f"the evaluation is {state['state']}: {state['reason']}")
    counters = state["counters"]
    if counters["scores_ok"] != rows * len(evaluators):
        raise SystemExit(f"not everything was scored: {counters}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay", type=int, default=20, help="how long the upstream thinks, in ms")
    parser.add_argument("--meguri", type=Path, default=ROOT / "target/release/meguri")
    options = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="meguri-bench-"))
    server = Server(options.meguri, data)
    upstream = multiprocessing.Process(target=serve_upstream, args=(options.delay / 1000,), daemon=True)
    upstream.start()
    try:
        server.start()
        key = json.loads(server.command("key", "create", "--name", "bench", "--role", "admin", "--json"))["secret"]
        server.command("provider", "add", "mock", "--protocol", "openai", "--base-url", f"http://127.0.0.1:{UPSTREAM_PORT}/v1", "--api-key-env", "BENCH_KEY")
        time.sleep(2)
        client = Client({"authorization": f"Bearer {key}"})
        fill(client, options.rows)
        evaluate(client, server, options.rows, True)
        plain, judged, seconds = [], [], []
        for _ in range(options.rounds):
            plain.append(evaluate(client, server, options.rows, False)[0])
            used, took = evaluate(client, server, options.rows, True)
            judged.append(used)
            seconds.append(took)
        each = [(j - p) / options.rows * 1000 for j, p in zip(judged, plain)]
        print(f"| {options.rows:,} examples, {AT_ONCE} at once, {options.rounds} rounds | median | lowest–highest |\n|---|---:|---:|")
        print(f"| server's processor time per answer with one metric, ms | {statistics.median(plain) / options.rows * 1000:.2f} | {min(plain) / options.rows * 1000:.2f}–{max(plain) / options.rows * 1000:.2f} |")
        print(f"| added by a judge call, ms | {statistics.median(each):.2f} | {min(each):.2f}–{max(each):.2f} |")
        print(f"| time of the evaluation with judge, s | {statistics.median(seconds):.1f} | {min(seconds):.1f}–{max(seconds):.1f} |")
        print(f"| most judge calls in flight | {Upstream.most.value} | |")
        if statistics.median(each) > LIMIT_MS:
            sys.exit(f"above {LIMIT_MS} ms per judge call")
    finally:
        if server.process and server.process.poll() is None:
            server.stop()
        upstream.terminate()
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
