"""Measures what guards add to a stream: to the first token, between tokens, CPU time per frame. Called by `run`.

One server, one upstream in a process of its own, three keys: no policy, a policy with every rule and
both linear classifiers that edits and flags, and one whose classifiers block. Each frame carries the
moment at which the upstream wrote it, in a field that every gateway passes on, so what is measured is
the time from a frame's writing to the arrival of what that frame let go. Streams of the three kinds
take turns; what a policy adds is the difference of two figures of the same run.

A classifier that blocks holds its sentence until that is whole. That is its purpose and no delay of the
machine, so it is counted apart, in frames that an upstream had written before the first text came.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench import MEGURI, REPORT, machine, settle, spawn, stop_all, table, wait_for

LISTEN, UPSTREAM = "127.0.0.1:9151", 9152
PACE_S = 0.01
FRAMES = 200
ENGLISH = (
    "Our museum opens every day at nine, except on Mondays, when the garden alone can be visited. Tickets cost twelve "
    "euros, and children under six pay nothing at all. The tram stops in front of the gate; from there it is a short "
    "walk past the old harbour. If you plan to come with a class, please tell us a week ahead, so that somebody can "
    "show you the workshops. The café on the first floor serves lunch until three. "
)
JAPANESE = (
    "当館は毎日午前九時に開館しますが、月曜日は庭園だけをご覧いただけます。入館料は大人が千二百円で、六歳未満のお子さまは無料です。"
    "最寄りの停留所は門の前にあり、そこから古い港に沿って少し歩くと入口が見えてきます。学校の授業でお越しになる場合は、"
    "工房をご案内できますので、一週間前までにお知らせください。一階の喫茶室では午後三時まで昼食をお召し上がりいただけます。"
)
RULES = [
    {"type": "pii"}, {"type": "secrets"}, {"type": "links", "allow": ["example.com"]}, {"type": "refusal"},
    {"type": "words", "list": ["harbourmaster", "港湾局"]}, {"type": "pattern", "pattern": "case-[0-9]{4,9}"},
    {"type": "prompt_leak"}, {"type": "canary"}, {"type": "empty"}, {"type": "size", "max_chars": 100_000},
    {"type": "repetition"}, {"type": "gibberish"}, {"type": "languages", "allow": ["en", "ja"]},
]  # fmt: skip
LINEAR = [{"type": "injection"}, {"type": "toxicity"}]


# -- the upstream ------------------------------------------------------------------------------


def pieces(language: str) -> list[str]:
    """What a model would send as tokens: four characters of English, two of Japanese."""
    text, size = (ENGLISH, 4) if language == "en" else (JAPANESE, 2)
    text *= 1 + FRAMES * size // len(text)
    return [text[at : at + size] for at in range(0, FRAMES * size, size)]


def frame(delta: dict, finish: str | None = None) -> bytes:
    """A chunk of usual size that says when it was written."""
    stamp = f"t{time.monotonic_ns()}"
    chunk = {
        "id": "chatcmpl-8f1c2d3e4a5b6c7d8e9f", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "mock-2026",
        "system_fingerprint": stamp, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }  # fmt: skip
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


class Upstream(BaseHTTPRequestHandler):
    """Streams one of two texts, as fast as it can or paced, as the model's name says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        language, pace = request["model"].split("-")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.say(frame({"role": "assistant", "content": ""}))
        for piece in pieces(language):
            if pace == "paced":
                time.sleep(PACE_S)
            self.say(frame({"content": piece}))
        self.say(frame({}, "stop"))
        self.say(b"data: [DONE]\n\n")
        self.say(b"")

    def say(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


# -- one stream --------------------------------------------------------------------------------


@dataclass
class Heard:
    """What one stream was like, in microseconds."""

    first_us: float = 0
    frames_us: list[float] = field(default_factory=list)
    gaps_us: list[float] = field(default_factory=list)
    whole_us: float = 0
    behind: int = 0


def hear(key: str, model: str) -> Heard:
    """One stream: each chunk with text, its arrival beside the moment at which its frame was written."""
    body = {"model": f"mock/{model}", "stream": True, "messages": [{"role": "user", "content": "When do you open?"}]}
    connection = http.client.HTTPConnection(LISTEN, timeout=60)
    begin = time.monotonic_ns()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {key}", "content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{model}: {answer.status} {answer.read(500)!r}")
    heard, text, last, expected = Heard(), "", 0, "".join(pieces(model.split("-")[0]))
    size = len(expected) // FRAMES
    while line := answer.readline():
        now = time.monotonic_ns()
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        said = chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None
        if not said:
            continue
        written = int(chunk["system_fingerprint"][1:])
        if not text:
            heard.first_us = (now - written) / 1000
        else:
            heard.gaps_us.append((now - last) / 1000)
        text += said
        last = now
        heard.frames_us.append((now - written) / 1000)
        if heard.behind == 0:
            heard.behind = max(1, -(-len(said) // size))
    heard.whole_us = (last - begin) / 1000
    if text != expected:
        raise SystemExit(f"{model}: the text was changed: {len(text)} of {len(expected)} characters")
    return heard


# -- the server --------------------------------------------------------------------------------


def policies() -> dict[str, list[dict]]:
    """By the key that they watch: no rule, all of them, all of them with classifiers that hold."""
    edits = {"pii", "secrets", "links", "words", "pattern"}
    act = lambda check: {"type": "redact"} if check["type"] in edits else {"type": "flag"}  # noqa: E731
    rule = lambda check, action: {"name": check["type"], "at": ["output"], "check": check, "action": action}  # noqa: E731
    rules = [rule(check, act(check)) for check in RULES]
    flag = [rule(check, {"type": "flag"}) for check in LINEAR]
    block = [rule(check, {"type": "block"}) for check in LINEAR]
    return {"no policy": [], "all rules": rules, "rules + linear, flag": rules + flag, "rules + linear, block": rules + block}


def send(key: str, method: str, path: str, body: object) -> dict:
    connection = http.client.HTTPConnection(LISTEN, timeout=60)
    connection.request(method, path, json.dumps(body), {"authorization": f"Bearer {key}", "content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {text[:500]!r}")
    return json.loads(text or b"null")


def start(work: Path) -> tuple[int, dict[str, str]]:
    """The server's process and a key for each policy."""
    data = work / "data"
    with open(work / "meguri.log", "wb") as log:
        process = spawn([str(MEGURI), "serve", "--data-dir", str(data), "--listen", LISTEN], stdout=log, stderr=log)
    wait_for(lambda: http.client.HTTPConnection(LISTEN, timeout=1).connect(), "meguri")
    run = lambda *a: subprocess.run([str(MEGURI), *a, "--data-dir", str(data)], check=True, capture_output=True, text=True).stdout  # noqa: E731
    run("provider", "add", "mock", "--protocol", "openai", "--base-url", f"http://127.0.0.1:{UPSTREAM}/v1")
    keys = {}
    for number, (name, rules) in enumerate(policies().items()):
        made = json.loads(run("key", "create", "--name", f"bench{number}", "--role", "admin", "--json"))
        keys[name] = made["secret"]
        if rules:
            path = f"/api/v1/catalog/guard/bench{number}"
            document = {"applies_to": {"keys": [made["id"]]}, "rules": rules}
            send(keys[name], "POST", f"{path}/versions", {"content": document})
            send(keys[name], "PUT", f"{path}/pointers/production", {"version": 1})
    return process.pid, keys


# -- figures -----------------------------------------------------------------------------------


@dataclass
class Figures:
    """One policy, language and pace."""

    heard: list[Heard] = field(default_factory=list)
    cpu_us: float = 0

    def quantiles(self, of: str) -> tuple[float, float]:
        values = [one for heard in self.heard for one in self.values(heard, of)]
        return statistics.median(values), statistics.quantiles(values, n=100, method="inclusive")[94]

    @staticmethod
    def values(heard: Heard, of: str) -> list[float]:
        found = getattr(heard, of)
        return found if isinstance(found, list) else [found]

    def cpu_per_frame(self) -> float:
        return self.cpu_us / (len(self.heard) * FRAMES)


def cpu_us(pid: int) -> float:
    """What the threads that live now have used, finer than the ticks of /proc/PID/stat."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def measure(pid: int, keys: dict[str, str], language: str, pace: str, streams: int) -> dict[str, Figures]:
    """Streams take turns one by one, so that whatever else the machine does meets all of them."""
    found = {name: Figures() for name in keys}
    for key in keys.values():
        hear(key, f"{language}-{pace}")
    settle(pid)
    for _ in range(streams):
        for name, key in keys.items():
            before = cpu_us(pid)
            found[name].heard.append(hear(key, f"{language}-{pace}"))
            # The record is written after the answer, and is work of the call.
            time.sleep(0.05)
            found[name].cpu_us += cpu_us(pid) - before
    return found


def rows(found: dict[str, Figures], language: str) -> list[list[str]]:
    bare = found["no policy"]
    lines = []
    for name, figures in found.items():
        show = lambda of: " / ".join(f"{one - (0 if figures is bare else without):,.0f}" for one, without in zip(figures.quantiles(of), bare.quantiles(of)))  # noqa: E731, B023
        behind = statistics.median(heard.behind for heard in figures.heard)
        cpu = figures.cpu_per_frame() - (0 if figures is bare else bare.cpu_per_frame())
        lines.append([f"{language}: {name}", show("first_us"), show("frames_us"), show("gaps_us"), f"{cpu:,.0f}", f"{behind:.0f}"])
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description="What guards add to streams.")
    options.add_argument("--paced", type=int, default=10, help="paced streams of each kind")
    options.add_argument("--fast", type=int, default=60, help="unpaced streams of each kind")
    options.add_argument("--upstream", action="store_true", help="be the upstream (the benchmark starts it)")
    chosen = options.parse_args()
    if chosen.upstream:
        ThreadingHTTPServer(("127.0.0.1", UPSTREAM), Upstream).serve_forever()
    work = Path(tempfile.mkdtemp(prefix="meguri-bench-guards-"))
    try:
        spawn([sys.executable, __file__, "--upstream"])
        wait_for(lambda: http.client.HTTPConnection("127.0.0.1", UPSTREAM, timeout=1).connect(), "the upstream")
        pid, keys = start(work)
        parts = []
        turns = (
            ("paced", chosen.paced, f"A frame every {PACE_S * 1000:.0f} ms, {chosen.paced} streams a line"),
            ("fast", chosen.fast, f"As fast as the upstream can, {chosen.fast} streams a line"),
        )
        for pace, streams, title in turns:
            lines = []
            for language in ("en", "ja"):
                print(f"guards: {pace}, {language}", file=sys.stderr, flush=True)
                lines += rows(measure(pid, keys, language, pace, streams), {"en": "English", "ja": "Japanese"}[language])
            head = ["µs, p50 / p95", "first text", "each frame", "between texts", "CPU per frame", "frames before the first text"]
            parts.append(f"**{title}**\n\n" + table(head, lines))
    finally:
        stop_all()
        shutil.rmtree(work, ignore_errors=True)
    text = f"Measured on {machine()}; streams of {FRAMES} frames, whose kinds take turns.\n\n" + "\n\n".join(parts)
    print(text)
    report = REPORT.read_text()
    head, rest = report.split("<!-- guards -->", 1)
    tail = rest.split("<!-- /guards -->", 1)[1]
    REPORT.write_text(f"{head}<!-- guards -->\n{text}\n<!-- /guards -->{tail}")


if __name__ == "__main__":
    main()
