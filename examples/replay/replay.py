"""Send the requests of a Mooncake file to an OpenAI-compatible server, each at its time: replay.py FILE --url URL

Open loop: a request is sent when its time comes, however many are under way. Prompts are filler words, the same for
equal ids of blocks, so that prefix caches find what they would. It needs nothing but Python.
"""

import argparse
import csv
import json
import threading
import time
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

OPENER = build_opener(ProxyHandler({}))  # no proxy in between


def prompt(row: dict, block_tokens: int) -> str:
    """About as many words as the input has tokens; equal blocks are equal text."""
    left, text = row["input_length"], []
    for block in row.get("hash_ids") or [0]:
        words = min(left, block_tokens) if row.get("hash_ids") else left
        text.append(f"{block} " + "and " * (words - 1))
        left -= words
    return "".join(text)


def send(row: dict, due: float, options: argparse.Namespace, results: list[dict]) -> None:
    """One request, streamed, and what became of it."""
    body = {"model": options.model, "prompt": prompt(row, options.block_tokens), "max_tokens": row["output_length"]}
    body |= {"stream": True, "ignore_eos": True}
    headers = {"Content-Type": "application/json"}
    found = {"late_s": time.perf_counter() - due, "output_tokens": 0, "ttft_s": "", "total_s": "", "error": ""}
    sent = time.perf_counter()
    try:
        request = Request(options.url + "/v1/completions", json.dumps(body).encode(), headers)
        with OPENER.open(request, timeout=options.timeout) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    found["ttft_s"] = found["ttft_s"] or time.perf_counter() - sent
                    found["output_tokens"] += 1
    except OSError as error:
        found["error"] = str(error)
    results.append(found | {"total_s": time.perf_counter() - sent})


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="JSON lines with timestamp (ms), input_length, output_length, hash_ids")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="model")
    parser.add_argument("--speed", type=float, default=1, help="2 plays twice as fast")
    parser.add_argument("--block-tokens", type=int, default=512)
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one request")
    parser.add_argument("-o", "--output", type=Path, default=Path("results.csv"))
    options = parser.parse_args()

    rows = [json.loads(line) for line in options.file.read_text().splitlines()]
    results, threads, begin = [], [], time.perf_counter()
    for row in rows:
        due = begin + row["timestamp"] / 1000 / options.speed
        time.sleep(max(0, due - time.perf_counter()))
        threads.append(threading.Thread(target=send, args=(row, due, options, results)))
        threads[-1].start()
    for thread in threads:
        thread.join()

    with options.output.open("w", newline="") as file:
        table = csv.DictWriter(file, list(results[0]))
        table.writeheader()
        table.writerows(results)
    failed = sum(bool(row["error"]) for row in results)
    print(f"{len(results)} requests in {time.perf_counter() - begin:.1f} s, {failed} failed; all in {options.output}")
    for name, what in (("late_s", "sent late by"), ("ttft_s", "time to first token")):
        of = sorted(row[name] for row in results if row[name] != "")
        if of:
            print(f"{what}: median {1000 * of[len(of) // 2]:.1f} ms, P99 {1000 * of[int(len(of) * 0.99)]:.1f} ms")


if __name__ == "__main__":
    main()
