"""Measures the release binary beside its peers and writes the tables. Standard library only; called by `run`.

Every gateway gets the same requests, the same upstream and the same load tool, in turns, several
rounds; a figure is the median of its rounds, with the range. CPU time is read from /proc for the
whole process tree, because latency under load says more about two cores than about a gateway.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = (ROOT / "target").resolve()
MEGURI = Path(os.environ.get("MEGURI_BIN") or TARGET / "release/meguri")
REPORT = ROOT / "docs/benchmarks.md"
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
ANSWER = "The quick brown fox jumps over the lazy dog. " * 3
QUESTION = "Please answer in a few words. " * 33  # about 1 KiB with the rest of the request


# -- processes ---------------------------------------------------------------------------------

RUNNING: list[subprocess.Popen[bytes]] = []


def spawn(command: list[str], **more: object) -> subprocess.Popen[bytes]:
    """Starts a process that ends with this program, however that ends."""
    process = subprocess.Popen(command, **more)
    RUNNING.append(process)
    return process


def stop_all() -> None:
    for process in reversed(RUNNING):
        process.send_signal(signal.SIGTERM)
    for process in RUNNING:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for at in found:
        try:
            for task in os.listdir(f"/proc/{at}/task"):
                found += map(int, Path(f"/proc/{at}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def cpu_us(pid: int) -> float:
    """User and system time of a process tree so far."""
    total = 0.0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) * TICK_US
    return total


def rss_mib(pid: int) -> float:
    """Resident memory of a process tree."""
    total = 0
    for one in tree(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        if found := re.search(r"VmRSS:\s+(\d+)", status):
            total += int(found[1])
    return total / 1024


def wait_for(answers: Callable[[], object], what: str, deadline_s: float = 120) -> None:
    end = time.monotonic() + deadline_s
    while True:
        try:
            answers()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise SystemExit(f"{what} did not start: {error}") from error
            time.sleep(0.1)


# -- gateways ----------------------------------------------------------------------------------


@dataclass
class Gateway:
    """Something that stands between the load and the upstream."""

    name: str
    whole: tuple[str, str]  # URL and model for whole answers
    stream: tuple[str, str]
    process: subprocess.Popen[bytes] | None
    key: str = "none"
    version: str = ""
    rss_idle_mib: float = 0
    results: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measure: str, value: float) -> None:
        self.results.setdefault(measure, []).append(value)

    def median(self, measure: str) -> float | None:
        values = self.results.get(measure)
        return statistics.median(values) if values else None


def nginx(work: Path, config: str) -> subprocess.Popen[bytes]:
    directory = work / config
    (directory / "logs").mkdir(parents=True)
    text = (HERE / config).read_text().replace("include answers.conf;", answers())
    (directory / "nginx.conf").write_text(text)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    return spawn([program, "-p", str(directory), "-c", "nginx.conf"], stderr=subprocess.DEVNULL)


def answers() -> str:
    """The two servers of the upstream: an answer of 1 KiB, and a stream of 40 chunks with the same text."""
    base = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "mock"}
    usage = {"prompt_tokens": 220, "completion_tokens": 36, "total_tokens": 256}
    message = {"role": "assistant", "content": ANSWER * 6}
    whole = {**base, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    chunk = lambda delta, finish=None: {**base, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}  # noqa: E731
    frames = [chunk({"role": "assistant", "content": ""})]
    frames += [chunk({"content": word + " "}) for word in (ANSWER * 2).split()[:36]]
    frames += [chunk({}, "stop"), {**base, "object": "chat.completion.chunk", "choices": [], "usage": usage}]
    sse = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + "data: [DONE]\n\n"
    models = {"object": "list", "data": [{"id": "mock", "object": "model", "created": 1, "owned_by": "mock"}]}

    def fixed(body: str) -> str:
        # nginx takes at most 4 KiB in one word, so the body is put together from several.
        parts = [body[at : at + 3000] for at in range(0, len(body), 3000)]
        words = [part.replace("\\", "\\\\").replace("'", "\\'") for part in parts]
        names = "".join(f"$part{at}" for at in range(len(parts)))
        return "".join(f"set $part{at} '{word}'; " for at, word in enumerate(words)) + f'return 200 "{names}";'

    def server(port: int, kind: str, body: str) -> str:
        return f"""
  server {{
    listen 127.0.0.1:{port};
    location = /v1/models {{ default_type application/json; {fixed(json.dumps(models))} }}
    location = /v1/chat/completions {{ default_type {kind}; {fixed(body)} }}
  }}"""

    return server(9101, "application/json", json.dumps(whole)) + server(9102, "text/event-stream", sse)


def start_direct(_: Path) -> Gateway:
    place = "http://127.0.0.1:{}/v1/chat/completions"
    return Gateway("no gateway", (place.format(9101), "mock"), (place.format(9102), "mock"), None)


def start_proxy(work: Path) -> Gateway:
    place = "http://127.0.0.1:{}/v1/chat/completions"
    process = nginx(work, "proxy.nginx.conf")
    version = subprocess.run([shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True).stderr.split("/")[-1].strip()
    return Gateway("nginx, bare proxy", (place.format(9111), "mock"), (place.format(9112), "mock"), process, version=version)


def start_meguri(work: Path) -> Gateway:
    """Everything on: key check, price, durable telemetry. No setting differs from the default."""
    data = work / "data"
    log = open(work / "meguri.log", "wb")
    listen = "127.0.0.1:9121"
    process = spawn([str(MEGURI), "serve", "--data-dir", str(data), "--listen", listen], stdout=log, stderr=log)
    wait_for(lambda: urllib.request.urlopen(f"http://{listen}/healthz", timeout=1), "meguri")
    run = lambda *a: subprocess.run([str(MEGURI), *a, "--data-dir", str(data)], check=True, capture_output=True, text=True).stdout  # noqa: E731
    for name, port in (("mock", 9101), ("sse", 9102)):
        run("provider", "add", name, "--protocol", "openai", "--base-url", f"http://127.0.0.1:{port}/v1")
    key = json.loads(run("key", "create", "--name", "bench", "--role", "admin", "--json"))["secret"]
    url = f"http://{listen}/v1/chat/completions"
    gateway = Gateway("Meguri, everything on", (url, "mock/mock"), (url, "sse/mock"), process, key, version())
    price(gateway)
    return gateway


def price(gateway: Gateway) -> None:
    """Gives the model a price, so that cost is worked out for each call."""
    row = {"provider": "*", "model": "mock", "input_usd": 0.15, "output_usd": 0.6}
    try:
        api(gateway, "PUT", "/api/v1/prices", row)
    except OSError as error:
        print(f"bench: no price could be set for the model: {error}", file=sys.stderr)


def api(gateway: Gateway, method: str, path: str, body: object = None) -> dict:
    base = gateway.whole[0].split("/v1/")[0]
    request = urllib.request.Request(base + path, json.dumps(body).encode() if body is not None else None, method=method)
    request.add_header("authorization", f"Bearer {gateway.key}")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def start_tensorzero(work: Path) -> Gateway | None:
    python = TARGET / "bench-tensorzero/bin/python"
    if not python.exists():
        return None
    log = open(work / "tensorzero.log", "wb")
    process = spawn([str(python), str(HERE / "peer_tensorzero.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    base = ""
    while not base.startswith("http"):
        line = process.stdout.readline().decode()
        if not line:
            return None
        base = line.strip()
    url = base.rstrip("/") + "/chat/completions"
    return Gateway("TensorZero, logging off", (url, "tensorzero::model_name::whole"), (url, "tensorzero::model_name::stream"), process, version=package(python, "tensorzero"))


LITELLM = """
model_list:
  - {{model_name: whole, litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:9101/v1", api_key: none}}}}
  - {{model_name: stream, litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:9102/v1", api_key: none}}}}
litellm_settings: {{telemetry: false}}
"""


def start_litellm(work: Path) -> Gateway | None:
    program = TARGET / "bench-litellm/bin/litellm"
    if not program.exists():
        return None
    config = work / "litellm.yaml"
    config.write_text(LITELLM.format())
    log = open(work / "litellm.log", "wb")
    # It does not start without a master key; checking one key needs no database.
    key = "sk-bench-7f0c2f6b1f6e4b0f9a8d"
    process = spawn(
        [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", "9141"], stdout=log, stderr=log,
        # Its price list is looked up on the net otherwise; the copy in the package is used.
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key},
    )
    url = "http://127.0.0.1:9141/v1/chat/completions"
    return Gateway("litellm proxy, no database", (url, "whole"), (url, "stream"), process, key, package(program.parent / "python", "litellm"))


def package(python: Path, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version('{name}'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True).stdout.strip()


# -- load --------------------------------------------------------------------------------------


def body(model: str, stream: bool) -> str:
    value: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
    return json.dumps({**value, "stream": True} if stream else value)


def check(gateway: Gateway) -> None:
    """One request of each sort, looked at: a gateway that answers nonsense quickly is not fast."""
    for (url, model), stream in ((gateway.whole, False), (gateway.stream, True)):
        request = urllib.request.Request(url, body(model, stream).encode(), {"content-type": "application/json", "authorization": f"Bearer {gateway.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
        if "quick" not in text or (stream and text.count("data:") < 36):
            raise OSError(f"{gateway.name} answers {text[:300]}")


def wrk(work: Path, gateway: Gateway, stream: bool, connections: int, seconds: int) -> dict[str, float]:
    """One load: requests a second are of no interest here, their number and latencies are."""
    url, model = gateway.stream if stream else gateway.whole
    script = work / "request.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {gateway.key}"\nwrk.body = [==[{body(model, stream)}]==]\n'
        'done = function(s, l) io.write(string.format("JSON {\\"requests\\": %d, \\"errors\\": %d, \\"p50\\": %d, \\"p99\\": %d}\\n",'
        " s.requests, s.errors.connect + s.errors.read + s.errors.write + s.errors.status + s.errors.timeout, l:percentile(50), l:percentile(99))) end\n"
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(text.rsplit("JSON ", 1)[1])
    if found["errors"]:
        raise SystemExit(f"{gateway.name}: {found['errors']} of {found['requests']} requests failed:\n{text}")
    return found


def settle(pid: int, deadline_s: float = 60) -> float:
    """Waits until a gateway has nothing left to do, such as records to write; gives the seconds it took.

    Work that is put off to after the answer is work of the request all the same.
    """
    began = time.monotonic()
    last = cpu_us(pid)
    while time.monotonic() - began < deadline_s:
        time.sleep(0.25)
        now = cpu_us(pid)
        if now - last <= 2 * TICK_US:
            return time.monotonic() - began
        last = now
    return deadline_s


def measure(work: Path, gateway: Gateway, seconds: int) -> None:
    """One round for one gateway."""
    pid = gateway.process.pid if gateway.process else None
    warm = wrk(work, gateway, False, 16, 1)
    if warm["requests"] < 1000:
        seconds *= 3  # a slow one: enough requests for a figure
    for stream, name in ((False, "whole"), (True, "stream")):
        if pid:
            settle(pid)
        before, began = cpu_us(pid) if pid else 0.0, time.monotonic()
        load = wrk(work, gateway, stream, 16, seconds)
        if pid:
            gateway.add("rss", rss_mib(pid))
            settle(pid)
            gateway.add(f"cpu_{name}", (cpu_us(pid) - before) / load["requests"])
            gateway.add(f"sustained_{name}", load["requests"] / (time.monotonic() - began - 0.25))
        gateway.add(f"requests_{name}", load["requests"])
        alone = wrk(work, gateway, stream, 1, seconds)
        gateway.add(f"p50_{name}", alone["p50"])
        gateway.add(f"p99_{name}", alone["p99"])


# -- the engine --------------------------------------------------------------------------------


def engine_rows(rounds: int) -> tuple[list[list[str]], str]:
    """Our engine and llama.cpp on the same file with two threads."""
    file = next(iter(sorted((TARGET / "test-models/smollm2").glob("*.gguf"))), None)
    if file is None:
        return [], "no GGUF under target/test-models: run the engine's tests once"
    python = TARGET / "engine-oracle/bin/python"
    theirs = [str(python), str(HERE / "peer_llama_cpp.py"), str(file), "2", "512", "128"]
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "engine", "--example", "speed"], cwd=ROOT, check=True)
    ours = [str(TARGET / "release/examples/speed"), str(file), "2"]
    speeds: dict[str, list[float]] = {}
    found: dict = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}: engines", file=sys.stderr, flush=True)
        if python.exists() and (found := last_json(theirs)):
            speeds.setdefault("theirs prefill", []).append(found["prefill"])
            speeds.setdefault("theirs decode", []).append(found["decode"])
        text = subprocess.run(ours, capture_output=True, text=True).stdout
        for stage, sequences, speed in re.findall(r"(prefill|decode)\t(\d+) sequences\t([\d.]+)", text):
            speeds.setdefault(f"{stage} {sequences}", []).append(float(speed))
    show = lambda name: interval(speeds.get(name), 1)  # noqa: E731
    rows = [["Meguri", version(), show("prefill 1"), show("decode 1"), show("decode 8")]]
    if found:
        name = f"llama.cpp through llama-cpp-python ({', '.join(found['features'])})"
        rows.append([name, found["version"], show("theirs prefill"), show("theirs decode"), "–"])
    return rows, file.name


def version() -> str:
    return subprocess.run([str(MEGURI), "version"], capture_output=True, text=True).stdout.split()[-1]


def last_json(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        print(f"bench: {command[0]} … gave no figures: {done.stderr[-400:]}", file=sys.stderr)
        return {}
    return json.loads(lines[-1])


# -- the report --------------------------------------------------------------------------------


def spread(gateway: Gateway, measure: str, digits: int = 0) -> str:
    return interval(gateway.results.get(measure), digits)


def interval(values: list[float] | None, digits: int) -> str:
    """The median, with the range behind it."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def gateway_tables(gateways: list[Gateway]) -> str:
    direct = gateways[0]
    parts = []
    for kind, title in (("whole", "Whole answers"), ("stream", "Streams of 40 chunks")):
        rows = []
        for one in gateways:
            added = lambda p: "–" if one is direct else f"{one.median(f'{p}_{kind}') - direct.median(f'{p}_{kind}'):,.0f}"  # noqa: E731, B023
            rows.append([one.name, one.version, spread(one, f"cpu_{kind}"), spread(one, f"p50_{kind}"), spread(one, f"p99_{kind}"), added("p50"), added("p99")])
        head = ["", "version", "CPU µs per request, 16 connections", "p50 µs, 1 connection", "p99 µs", "added p50 µs", "added p99 µs"]
        parts.append(f"**{title}**\n\n" + table(head, rows))
    memory = [[g.name, f"{g.rss_idle_mib:.0f}", f"{max(g.results['rss']):.0f}"] for g in gateways if g.process]
    parts.append("**Memory, MiB resident, whole process tree**\n\n" + table(["", "idle, before any request", "highest under load"], memory))
    return "\n\n".join(parts)


def targets(gateways: list[Gateway], engine: list[list[str]]) -> str:
    by = {g.name.split(",")[0].split(" ")[0]: g for g in gateways}
    ours = by["Meguri"]
    rows = []

    def row(text: str, value: float, limit: float, unit: str, at_least: bool = False) -> None:
        met = value >= limit if at_least else value <= limit
        rows.append([text, f"{'≥' if at_least else '≤'} {limit:g}{unit}", f"{value:.2f}{unit}" if unit == "×" else f"{value:,.0f}{unit}", "met" if met else "**missed**"])

    cpu = ours.median("cpu_whole")
    row("CPU per request, times nginx", cpu / by["nginx"].median("cpu_whole"), 4, "×")
    if "TensorZero" in by:
        row("CPU per request, times TensorZero", round(cpu / by["TensorZero"].median("cpu_whole"), 3), 0.333, "×")
    row("added p99 at one connection", ours.median("p99_whole") - by["no"].median("p99_whole"), 250, " µs")
    row("idle memory without a model", ours.rss_idle_mib, 40, " MiB")
    speeds = {line[0].split(" ")[0]: float(line[3].split(" ")[0]) for line in engine}
    if {"Meguri", "llama.cpp"} <= speeds.keys():
        row("decode, times llama.cpp", speeds["Meguri"] / speeds["llama.cpp"], 0.5, "×", at_least=True)
    return table(["target", "wanted", "measured", ""], rows)


def machine() -> str:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    name = model[1] if model else "unknown processor"
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, Linux {os.uname().release.split('-')[0]}"


def write(results: str) -> None:
    text = REPORT.read_text() if REPORT.exists() else "<!-- results -->\n<!-- /results -->\n"
    before, rest = text.split("<!-- results -->", 1)
    _, after = rest.split("<!-- /results -->", 1)
    REPORT.write_text(f"{before}<!-- results -->\n{results}\n<!-- /results -->{after}")


def main() -> None:
    options = argparse.ArgumentParser(description="Benchmarks on loopback.")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=2, help="of each load; three times as long for slow gateways")
    options.add_argument("--skip", default="", help="comma list of tensorzero, litellm, engine")
    chosen = options.parse_args()
    skip = set(chosen.skip.split(","))
    if not MEGURI.exists():
        raise SystemExit(f"{MEGURI} is missing: cargo build --release -p server, or set MEGURI_BIN")
    work = Path(tempfile.mkdtemp(prefix="meguri-bench-"))
    gateways: list[Gateway] = []
    try:
        nginx(work, "mock.nginx.conf")
        starters = [start_direct, start_proxy, start_meguri]
        starters += [s for n, s in (("tensorzero", start_tensorzero), ("litellm", start_litellm)) if n not in skip]
        for start in starters:
            gateway = start(work)
            if gateway is None:
                print(f"bench: {start.__name__.removeprefix('start_')} is not installed here and left out", file=sys.stderr)
                continue
            gateways.append(gateway)
            wait_for(lambda: urllib.request.urlopen("http://127.0.0.1:9101/v1/models", timeout=1), "the upstream")  # noqa: B023
            if gateway.process:
                wait_for_port(gateway)
                time.sleep(2)
                gateway.rss_idle_mib = rss_mib(gateway.process.pid)
            wait_for(lambda: check(gateway), gateway.name)  # noqa: B023
        for number in range(chosen.rounds):
            for gateway in gateways:
                print(f"round {number + 1} of {chosen.rounds}: {gateway.name}", file=sys.stderr, flush=True)
                measure(work, gateway, chosen.seconds)
        proof = telemetry_proof(gateways[2])
    finally:
        stop_all()
        shutil.rmtree(work, ignore_errors=True)
    engine, file = ([], "") if "engine" in skip else engine_rows(chosen.rounds)
    parts = [
        f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {machine()}; {chosen.rounds} rounds of {chosen.seconds} s per load; median (lowest–highest).",
        "### Targets", targets(gateways, engine), "### Gateways", gateway_tables(gateways), proof,
    ]
    if engine:
        parts += ["### Engine", f"`{file}`, 2 threads, 512 tokens of prompt, 128 new tokens, greedy.", table(["", "version", "prefill tokens/s", "decode tokens/s", "decode tokens/s, 8 sequences at once"], engine)]
    results = "\n\n".join(parts)
    print(results)
    write(results)
    (TARGET / "bench.json").write_text(json.dumps({g.name: {"version": g.version, "rss_idle_mib": g.rss_idle_mib, **g.results} for g in gateways}, indent=1))


def wait_for_port(gateway: Gateway) -> None:
    """Until something listens; no request is sent, so that idle memory is idle."""
    import socket

    host, port = gateway.whole[0].split("//")[1].split("/")[0].split(":")
    wait_for(lambda: socket.create_connection((host, int(port)), timeout=1).close(), gateway.name)


def telemetry_proof(meguri: Gateway) -> str:
    """That the records of the measured calls exist: otherwise telemetry was not on."""
    path = "/api/v1/query"
    wanted = sum(int(n) for kind in ("whole", "stream") for n in meguri.results[f"requests_{kind}"])
    try:
        answer = api(meguri, "POST", path, {"measures": ["count"], "from": "-1d"})
        stored = next(iter(re.findall(r'"count":\s*(\d+)', json.dumps(answer))), "?")
    except OSError as error:
        return f"The number of stored records could not be read: {error}."
    return (
        f"Records that Meguri had stored durably at the end: {int(stored):,}, of at least {wanted:,} measured calls at 16 connections (each call makes one record). "
        f"Calls a second with the time to make the last record durable included: {meguri.median('sustained_whole'):,.0f} whole, {meguri.median('sustained_stream'):,.0f} streamed."
    )


if __name__ == "__main__":
    main()
