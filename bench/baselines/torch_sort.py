"""By hand with PyTorch: gaps, running sums, one sort of float64, gathers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from problem import WINDOW_S, Problem, main, named

GPU = torch.device("cuda")


@functools.cache
def on_device(of: Problem) -> dict[str, Any]:
    """The problem's arrays, uploaded once."""
    names = ("shape", "table", "cdf", "values", "client")
    return {name: torch.from_numpy(getattr(of, name).copy()).to(GPU) for name in names}


def window(of: Problem, w: int) -> dict[str, Any]:
    """Columns of a window."""
    have, count = on_device(of), torch.from_numpy(of.count[w].copy()).to(GPU)
    ends = torch.cumsum(count, 0)
    n, gammas = int(of.count[w].sum()), int(of.count[w][: of.gammas].sum())
    client = torch.repeat_interleave(torch.arange(len(count), device=GPU, dtype=torch.int32), count, output_size=n)
    gaps = torch.empty(n, dtype=torch.float64, device=GPU)
    gaps[:gammas] = torch._standard_gamma(have["shape"][client[:gammas]])
    gaps[gammas:].exponential_()
    gaps[gammas:] **= 1.0 / have["shape"][client[gammas:]]
    sums = torch.cumsum(gaps, 0)
    del gaps
    zero = torch.zeros(1, dtype=torch.float64, device=GPU)
    last = torch.cat((zero, sums))[ends]
    before = torch.cat((zero, last[:-1]))
    scale = torch.where(last > before, WINDOW_S / (last - before).clamp(min=1e-300), zero)
    seconds = ((sums - before[client]) * scale[client]).clamp(max=WINDOW_S - 1e-6)
    del sums
    fields = []
    for f in range(of.table.shape[1]):
        word = torch.rand(n, dtype=torch.float64, device=GPU) + have["table"][:, f][client]
        fields.append(have["values"][torch.searchsorted(have["cdf"], word)])
    seconds, order = torch.sort(seconds)
    return named(
        (seconds * 1e6).long() + w * WINDOW_S * 1_000_000,
        have["client"][client[order]],
        [field[order] for field in fields],
        lambda outputs, ratio: ((2 * outputs.long() * ratio + 501) // 1002).int(),
    )


if __name__ == "__main__":
    main(window, torch.cuda.synchronize, torch.cuda.max_memory_reserved)
