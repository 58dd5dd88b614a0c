"""Enough of the OpenAI completions API to try a replay, and nothing computed: stub_server.py --port 8000

It answers after a time for the input, then a token every few milliseconds, on loopback alone.
"""

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
parser.add_argument("--prefill-us", type=float, default=20, help="microseconds for a token of the input")
parser.add_argument("--decode-us", type=float, default=200, help="microseconds for a token of the output")
options = parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """The list of models, by which clients see that the server is up."""
        self.begin("application/json")
        self.wfile.write(json.dumps({"object": "list", "data": [{"id": "model", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        """A completion, streamed or not."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens, streamed = body.get("max_tokens", 16), body.get("stream", False)
        time.sleep(len(body["prompt"].split()) * options.prefill_us / 1e6)
        self.begin("text/event-stream" if streamed else "application/json")
        if not streamed:
            time.sleep(tokens * options.decode_us / 1e6)
            self.wfile.write(json.dumps({"choices": [{"index": 0, "text": " and" * tokens}]}).encode())
            return
        part = json.dumps({"choices": [{"index": 0, "text": " and"}]}).encode()
        begin = time.perf_counter()
        for token in range(tokens):
            self.wfile.write(b"data: " + part + b"\n\n")
            time.sleep(max(0, begin + (token + 1) * options.decode_us / 1e6 - time.perf_counter()))
        self.wfile.write(b"data: [DONE]\n\n")

    def begin(self, kind: str) -> None:
        """Status and headers."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """With room for bursts."""

    request_queue_size = 256
    daemon_threads = True


server = Server(("127.0.0.1", options.port), Handler)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
