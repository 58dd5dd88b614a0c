"""torch.sort of one array of float64, with its indices: what the PyTorch script cannot do without."""

from __future__ import annotations

import argparse
import json
import statistics

import torch

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=float, default=1e6)
    n = int(parser.parse_args().requests)
    key = torch.rand(n, dtype=torch.float64, device="cuda")
    seconds = []
    for _ in range(4):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        torch.sort(key)
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    best, peak = statistics.median(seconds[1:]), torch.cuda.max_memory_reserved()
    print(json.dumps({"requests": n, "seconds": best, "requests_per_s": n / best, "peak_bytes": peak}))
