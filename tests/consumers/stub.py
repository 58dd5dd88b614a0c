"""An OpenAI server on the loopback that answers every request at once with as many tokens as it may."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORD = "unk"
WORDS_A_CHUNK = 64


@dataclass(frozen=True)
class Seen:
    """A request that came.

    Attributes
    ----------
    time_s : float
        On a clock of its own.
    input_tokens, new_tokens : int
        Words of all messages, and of the last one.
    output_tokens : int
        Asked for.
    """

    time_s: float
    input_tokens: int
    new_tokens: int
    output_tokens: int


class Server(ThreadingHTTPServer):
    """Remembers what came."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[Seen] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client may leave at any time."""


class Handler(BaseHTTPRequestHandler):
    """Chat completions, streamed or not; anything else gets the list of models."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing to the terminal."""

    def do_GET(self) -> None:
        self._whole({"object": "list", "data": [{"id": "words", "object": "model"}]})

    def do_POST(self) -> None:
        time_s = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = [len(_text(message["content"]).split()) for message in body["messages"]]
        tokens = body.get("max_completion_tokens") or body.get("max_tokens") or 1
        with self.server.lock:
            self.server.seen.append(Seen(time_s, sum(words), words[-1], tokens))
        usage = {"prompt_tokens": sum(words), "completion_tokens": tokens, "total_tokens": sum(words) + tokens}
        about = {"id": "stub", "model": "words", "created": 0}
        if not body.get("stream"):
            message = {"role": "assistant", "content": _words(tokens)}
            choice = {"index": 0, "finish_reason": "length", "message": message}
            self._whole(about | {"object": "chat.completion", "choices": [choice], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        about["object"] = "chat.completion.chunk"
        for begin in range(0, tokens, WORDS_A_CHUNK):
            piece = _words(min(WORDS_A_CHUNK, tokens - begin))
            delta = {"role": "assistant", "content": f" {piece}" if begin else piece}
            self._event(json.dumps(about | {"choices": [{"index": 0, "finish_reason": None, "delta": delta}]}))
        end = {"index": 0, "finish_reason": "length", "delta": {}}
        self._event(json.dumps(about | {"choices": [end]}))
        self._event(json.dumps(about | {"choices": [], "usage": usage}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _whole(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _text(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else " ".join(part["text"] for part in content)


def _words(number: int) -> str:
    return " ".join([WORD] * number)


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread of its own."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
