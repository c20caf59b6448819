"""A provider that is not ours: OpenAI and Anthropic wire formats over real HTTP, standard library only.

The last part of the model's name chooses how it behaves ("echo", "dies", "status-429", …), so a test
reads as "call this model, expect that". Every request is kept as it arrived; `GET /_seen` gives the
newest ones to tests in other languages. Written from the two protocols' documentation, independent
of the product's own fake, so that one misreading cannot hide in both.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Iterator

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
PARALLEL_CALLS = [
    ("call_tokyo", "get_weather", ['{"city":', ' "東京"', "}"]),
    ("call_oslo", "get_weather", ['{"ci', 'ty": "Oslo', '"}']),
]
EMBEDDING = [0.25, -0.5, 0.75, 1.0]
# Cut in the middle of characters on purpose, see `_drip`.
JAPANESE = "巡りは、出荷・監視・改善をひとつにまとめます。🌀"


@dataclass
class Seen:
    """One request as it came over the wire."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class FakeProvider:
    """Listens on a free loopback port until `close`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.failures: dict[str, int] = {}
        provider = self

        class Handler(_Handler):
            owner = provider

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def last(self) -> Seen:
        return self.seen[-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes; without this the second waits 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True
    owner: FakeProvider

    def log_message(self, *_: object) -> None:
        pass

    # -- answers -------------------------------------------------------------------------------

    def _json(self, status: int, value: Any, **headers: str) -> None:
        body = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def _start_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _drip(self, data: bytes, size: int) -> None:
        """Sends in pieces that respect neither characters nor frames."""
        for at in range(0, len(data), size):
            self._chunk(data[at : at + size])

    def _hang_up(self) -> None:
        """Closes without ending the chunked body: the answer is visibly broken."""
        self.close_connection = True
        self.connection.close()

    # -- routing -------------------------------------------------------------------------------

    def do_GET(self) -> None:
        if self.path.startswith("/_seen"):
            kept = [
                {"path": s.path, "headers": s.headers, "raw_base64": base64.b64encode(s.raw).decode()}
                for s in self.owner.seen[-20:]
            ]
            self._json(200, kept)
        elif self.path == "/v1/models":
            names = ["echo", "weather", "parallel", "dies", "embed", "improver"]
            self._json(200, {"object": "list", "data": [{"id": n, "object": "model", "created": 1, "owned_by": "fake"} for n in names]})
        else:
            self._json(404, {"error": {"message": "no such path", "type": "invalid_request_error", "param": None, "code": None}})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.seen.append(Seen(self.path, headers, raw))
        body = json.loads(raw)
        model = body.get("model", "")
        if self.path == "/v1/chat/completions":
            self._openai_chat(body, model)
        elif self.path == "/v1/embeddings":
            self._embeddings(body)
        elif self.path == "/v1/messages":
            self._anthropic(body, model, headers)
        else:
            self._json(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})

    # -- OpenAI --------------------------------------------------------------------------------

    def _openai_chat(self, body: dict[str, Any], model: str) -> None:
        if model.startswith("status-"):
            return self._openai_error(int(model.removeprefix("status-")))
        if model == "flaky":
            # Fails once per prompt, then works: what a retry is for.
            prompt = _last_text(body["messages"])
            self.owner.failures[prompt] = self.owner.failures.get(prompt, 0) + 1
            if self.owner.failures[prompt] == 1:
                return self._openai_error(503)
        if not body.get("stream"):
            choices = [
                {"index": i, "message": {**_message(body, model), "unknown_to_us": {"kept": True}},
                 "finish_reason": "tool_calls" if _calls(body, model) else "stop",
                 "logprobs": _logprobs() if body.get("logprobs") else None}
                for i in range(body.get("n") or 1)
            ]
            return self._json(200, {
                "id": "chatcmpl-fake", "object": "chat.completion", "created": 1_700_000_000, "model": model,
                "system_fingerprint": "fp_fake", "choices": choices, "usage": USAGE,
            })
        self._start_stream()
        try:
            self._openai_stream(body, model)
        except OSError:
            # The client went away, which some tests do on purpose.
            self.close_connection = True

    def _openai_stream(self, body: dict[str, Any], model: str) -> None:
        frames = list(_stream_frames(body, model))
        if model == "dies":
            for frame in frames[:3]:
                self._chunk(frame)
            self._chunk(frames[3][: len(frames[3]) // 2])
            return self._hang_up()
        if model == "ends-early":
            # Clean on the level of HTTP, broken on the level of the protocol: no finish reason, no [DONE].
            for frame in frames[:3]:
                self._chunk(frame)
            return self._end_stream()
        if model == "garbage":
            self._chunk(frames[0] + frames[1])
            self._chunk(b"data: {this is not json\n\n")
            return self._end_stream()
        if model == "error-event":
            self._chunk(frames[0] + frames[1])
            self._chunk(b'data: {"error": {"message": "the model fell over", "type": "server_error", "code": null}}\n\n')
            return self._end_stream()
        if model == "slow":
            for frame in frames:
                self._chunk(frame)
                time.sleep(0.05)
        elif model == "japanese":
            self._drip(b"".join(frames), 5)
        elif model == "crlf":
            self._drip(b": a comment\r\n\r\n" + b"".join(frames).replace(b"\n", b"\r\n"), 7)
        else:
            for frame in frames:
                self._chunk(frame)
        self._end_stream()

    def _openai_error(self, status: int) -> None:
        kinds = {
            400: ("invalid_request_error", "temperature is too high", "temperature", "bad_temperature"),
            404: ("invalid_request_error", "The model does not exist", None, "model_not_found"),
            429: ("rate_limit_error", "Rate limit reached for requests", None, "rate_limit_exceeded"),
        }
        kind, message, param, code = kinds.get(status, ("server_error", "The server had an error", None, None))
        # Long enough that the caller is asked to wait instead of the gateway.
        headers = {"retry_after": "60"} if status == 429 else {}
        self._json(status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, **headers)

    def _embeddings(self, body: dict[str, Any]) -> None:
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        packed = base64.b64encode(struct.pack(f"<{len(EMBEDDING)}f", *EMBEDDING)).decode()
        vector: Any = packed if body.get("encoding_format") == "base64" else EMBEDDING
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, _ in enumerate(inputs)]
        self._json(200, {"object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}})

    # -- Anthropic -----------------------------------------------------------------------------

    def _anthropic(self, body: dict[str, Any], model: str, headers: dict[str, str]) -> None:
        problem = _anthropic_problem(body, headers)
        if problem:
            return self._json(400, {"type": "error", "error": {"type": "invalid_request_error", "message": problem}})
        if model == "claude-overloaded":
            return self._json(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
        blocks = _anthropic_blocks(body, model)
        stop = "tool_use" if any(b["type"] == "tool_use" for b in blocks) else "end_turn"
        usage = {"input_tokens": 9, "output_tokens": 6, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}
        if not body.get("stream"):
            return self._json(200, {
                "id": "msg_fake", "type": "message", "role": "assistant", "model": model, "content": blocks,
                "stop_reason": stop, "stop_sequence": None, "usage": usage,
            })
        self._start_stream()
        events = list(_anthropic_events(blocks, model, stop, usage))
        if model == "claude-dies":
            for event in events[:4]:
                self._chunk(event)
            return self._hang_up()
        if model == "claude-error-event":
            for event in events[:4]:
                self._chunk(event)
            self._chunk(_event("error", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
            return self._end_stream()
        self._drip(b"".join(events), 64)
        self._end_stream()


def _last_text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", f"[{part['type']}]") for part in content)


def _calls(body: dict[str, Any], model: str) -> list[tuple[str, str, list[str]]]:
    if body["messages"][-1]["role"] == "tool":
        return []
    if model == "weather":
        return PARALLEL_CALLS[:1]
    return PARALLEL_CALLS if model == "parallel" else []


def _answer(body: dict[str, Any], model: str) -> str:
    if body["messages"][-1]["role"] == "tool":
        return "It is " + "; ".join(m["content"] for m in body["messages"] if m["role"] == "tool")
    if model == "japanese":
        return JAPANESE
    if model == "structured":
        return '{"name": "Ada", "year": 1843}'
    if model == "improver":
        # A new text for the first part of a prompt that is to be improved.
        parts = [{"part": 0, "text": "{{ question }}"}]
        return json.dumps({"thought": "The answers repeat words that nobody asked for. 余計な言葉があります。", "parts": parts}, ensure_ascii=False)
    return "echo: " + _last_text(body["messages"])


def _message(body: dict[str, Any], model: str) -> dict[str, Any]:
    calls = _calls(body, model)
    if not calls:
        return {"role": "assistant", "content": _answer(body, model), "refusal": None}
    made = [{"id": i, "type": "function", "function": {"name": n, "arguments": "".join(a)}} for i, n, a in calls]
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": made}


def _logprobs() -> dict[str, Any]:
    return {"content": [{"token": "echo", "logprob": -0.5, "bytes": [101], "top_logprobs": []}], "refusal": None}


def _stream_frames(body: dict[str, Any], model: str) -> Iterator[bytes]:
    def frame(choices: list[Any], **more: Any) -> bytes:
        value = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
                 "system_fingerprint": "fp_fake", "choices": choices, **more}
        return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"

    def delta(value: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
        return frame([{"index": index, "delta": value, "logprobs": None, "finish_reason": finish}])

    calls = _calls(body, model)
    for choice in range(body.get("n") or 1):
        yield delta({"role": "assistant", "content": None if calls else ""}, index=choice)
    if calls:
        for index, (call_id, name, _) in enumerate(calls):
            yield delta({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}]})
        # The arguments of both calls come interleaved.
        for step in range(3):
            for index, (_, _, arguments) in enumerate(calls):
                yield delta({"tool_calls": [{"index": index, "function": {"arguments": arguments[step]}}]})
        yield delta({}, "tool_calls")
    else:
        text = _answer(body, model)
        size = max(1, len(text) // 8)
        for at in range(0, len(text), size):
            for choice in range(body.get("n") or 1):
                yield delta({"content": text[at : at + size]}, index=choice)
        for choice in range(body.get("n") or 1):
            yield delta({}, "stop", index=choice)
    if (body.get("stream_options") or {}).get("include_usage"):
        yield frame([], usage=USAGE)
    yield b"data: [DONE]\n\n"


def _anthropic_problem(body: dict[str, Any], headers: dict[str, str]) -> str | None:
    if headers.get("x-api-key") is None or "authorization" in headers:
        return "x-api-key header is required, alone"
    if "anthropic-version" not in headers:
        return "anthropic-version: header is required"
    if not isinstance(body.get("max_tokens"), int):
        return "max_tokens: Field required"
    roles = [m["role"] for m in body["messages"]]
    if any(role not in ("user", "assistant") for role in roles):
        return "messages: Unexpected role"
    if not roles or roles[0] != "user" or any(a == b for a, b in zip(roles, roles[1:])):
        return "messages: roles must alternate and start with user"
    known = {"model", "max_tokens", "messages", "system", "metadata", "stop_sequences", "stream", "temperature", "thinking",
             "tool_choice", "tools", "top_k", "top_p", "service_tier"}
    extra = set(body) - known
    return f"{sorted(extra)[0]}: Extra inputs are not permitted" if extra else None


def _anthropic_blocks(body: dict[str, Any], model: str) -> list[dict[str, Any]]:
    last = body["messages"][-1]["content"]
    last = [{"type": "text", "text": last}] if isinstance(last, str) else last
    results = [b for b in last if b["type"] == "tool_result"]
    if results:
        said = [r["content"] if isinstance(r["content"], str) else r["content"][0]["text"] for r in results]
        return [{"type": "text", "text": "It is " + "; ".join(said)}]
    if model == "claude-tools":
        return [
            {"type": "text", "text": "Let me look."},
            *({"type": "tool_use", "id": i, "name": n, "input": json.loads("".join(a))} for i, n, a in PARALLEL_CALLS),
        ]
    if model == "claude-thinks":
        return [{"type": "thinking", "thinking": "The user greets.", "signature": "c2lnbmVk"}, {"type": "text", "text": "Hello."}]
    return [{"type": "text", "text": "claude: " + "".join(b.get("text", f"[{b['type']}]") for b in last)}]


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _anthropic_events(blocks: list[dict[str, Any]], model: str, stop: str, usage: dict[str, int]) -> Iterator[bytes]:
    start = {"id": "msg_fake", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
             "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    yield _event("message_start", {"type": "message_start", "message": start})
    yield _event("ping", {"type": "ping"})
    for index, block in enumerate(blocks):
        empty = {"text": {"type": "text", "text": ""}, "thinking": {"type": "thinking", "thinking": "", "signature": ""},
                 "tool_use": {**block, "input": {}}}[block["type"]]
        yield _event("content_block_start", {"type": "content_block_start", "index": index, "content_block": empty})
        for delta in _BLOCK_DELTAS[block["type"]](block):
            yield _event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})
        yield _event("content_block_stop", {"type": "content_block_stop", "index": index})
    yield _event("message_delta", {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None},
                                   "usage": {"output_tokens": usage["output_tokens"]}})
    yield _event("message_stop", {"type": "message_stop"})


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


_BLOCK_DELTAS: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "text": lambda b: [{"type": "text_delta", "text": t} for t in _halves(b["text"])],
    "thinking": lambda b: [*({"type": "thinking_delta", "thinking": t} for t in _halves(b["thinking"])),
                           {"type": "signature_delta", "signature": b["signature"]}],
    "tool_use": lambda b: [{"type": "input_json_delta", "partial_json": t}
                           for t in ["", *_halves(json.dumps(b["input"], ensure_ascii=False))]],
}


if __name__ == "__main__":
    # For tests in other languages: prints its address and runs until its input is closed.
    import sys

    provider = FakeProvider()
    print(provider.url, flush=True)
    sys.stdin.read()
