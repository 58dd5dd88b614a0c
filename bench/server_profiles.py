"""Numbers of the shipped server profiles, from published times and published shapes of models and devices.

    git clone https://github.com/microsoft/vidur && git -C vidur checkout 7d47513
    pip download --no-deps ai-dynamo==1.3.1 && unzip -d dynamo ai_dynamo-1.3.1-*.whl
    python bench/server_profiles.py vidur dynamo

Vidur's authors measured linear layers and reductions (data/profiling); t(n) = step_s + prefill_s_per_token n is fitted
to 1 to 2,048 tokens in a step by least squares of relative errors. Attention is arithmetic: a sequence that decodes
reads 1,500 tokens of its KV cache. Dynamo's authors measured whole engines: the time between tokens is fitted by
nonnegative least squares to a constant, sequences and their tokens, the time to first token to a constant and input
tokens. Where nobody measured, the efficiency of the A100 (or an assumed one) stands in.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import nnls

OPERATIONS = {
    **dict.fromkeys(("input_layernorm", "attn_pre_proj", "attn_rope", "attn_post_proj", "post_attention_layernorm"), 1),
    **dict.fromkeys(("mlp_up_proj", "mlp_act", "mlp_down_proj"), 1),
    "add": 2,
}
BYTES, CONTEXT, MOST_TOKENS = 2, 1500, 2048
OF_BANDWIDTH, OF_OPERATIONS, OF_MEMORY = 0.75, 0.7, 0.9
"""Shares that are had. Of operations: 2 x 6.98e9 / 312e12 s a token are 45 us, and 64 are measured on the A100."""


@dataclass(frozen=True)
class Model:
    """Shape of a model, from its published config.json and card; parameters without embeddings are those of a step."""

    folder: str
    parameters: float
    in_step: float
    layers: int
    hidden: int
    kv_heads: int
    head: int

    @property
    def kv_bytes(self) -> int:
        """Of a token: keys and values."""
        return 2 * self.layers * self.kv_heads * self.head * BYTES


@dataclass(frozen=True)
class Device:
    """From data sheets: memory that the driver reports, bytes and dense 16-bit operations a second."""

    folder: str
    network: str
    memory_gib: float
    bandwidth: float
    operations: float


LLAMA_3_8B = Model("meta-llama/Meta-Llama-3-8B", 8.03e9, 6.98e9, 32, 4096, 8, 128)
LLAMA_3_70B = Model("meta-llama/Meta-Llama-3-70B", 70.6e9, 68.5e9, 80, 8192, 8, 128)
LLAMA_2_70B = Model("meta-llama/Llama-2-70b-hf", 69.0e9, 68.5e9, 80, 8192, 8, 128)
QWEN_14B = Model("", 14.7e9, 13.1e9, 48, 5120, 8, 128)
QWEN_72B = Model("", 72.7e9, 70.0e9, 80, 8192, 8, 128)
A100 = Device("a100", "a100_dgx", 79.2, 2.039e12, 312e12)
H100 = Device("h100", "h100_dgx", 79.1, 3.35e12, 989e12)
H20 = Device("", "", 95.6, 4.0e12, 148e12)
MEASURED = {
    "llama-3-8b-a100": (LLAMA_3_8B, A100, 1),
    "llama-3-70b-4xa100": (LLAMA_3_70B, A100, 4),
    "llama-2-70b-4xh100": (LLAMA_2_70B, H100, 4),
}


def step_ms(vidur: Path, model: Model, device: Device, devices: int) -> pd.Series:
    """Time of the linear layers and reductions of a step by its tokens."""
    profiles = vidur / "data" / "profiling"
    times = pd.read_csv(profiles / "compute" / device.folder / model.folder / "mlp.csv")
    times = times[(times.num_tensor_parallel_workers == devices) & (times.num_tokens <= MOST_TOKENS)]
    layer_ms = sum(count * times[f"time_stats.{name}.median"] for name, count in OPERATIONS.items())
    total = (model.layers * layer_ms).set_axis(times.num_tokens).groupby(level=0).median()
    if devices > 1:
        reduced = pd.read_csv(profiles / "network" / device.network / "all_reduce.csv")
        reduced = reduced[(reduced.num_workers == devices) & (reduced.devices_per_node == devices)]
        by_size = reduced.groupby("size")["time_stats.all_reduce.median"].median()
        total += 2 * model.layers * np.interp(total.index * model.hidden * BYTES, by_size.index, by_size)
    return total


def kv_read_s(model: Model, device: Device, devices: int) -> float:
    return CONTEXT * model.kv_bytes / (devices * OF_BANDWIDTH * device.bandwidth)


def show(name: str, model: Model, device: Device, devices: int, step: float, prefill: float, decode: float) -> None:
    free = devices * OF_MEMORY * device.memory_gib * 2**30 - BYTES * model.parameters
    print(
        f"{name}: step_s {step:.3g}, prefill_s_per_token {prefill:.3g}, decode_s_per_sequence {decode:.3g}, kv_tokens "
        f"({devices} x {OF_MEMORY} x {device.memory_gib} GiB - {BYTES} x {model.parameters:.3g}) / {model.kv_bytes} = "
        f"{free / model.kv_bytes:.0f}"
    )


def of_vidur(vidur: Path) -> dict[str, tuple[float, float]]:
    """Step and token, in seconds, of each profile that Vidur has the layers of."""
    found = {}
    for name, (model, device, devices) in MEASURED.items():
        times = step_ms(vidur, model, device, devices)
        tokens, ms = times.index.to_numpy(float), times.to_numpy()
        rows = np.column_stack((np.ones_like(tokens), tokens)) / ms[:, None]
        (step, token), *_ = np.linalg.lstsq(rows, np.ones_like(ms), rcond=None)
        errors = np.abs(step + token * tokens - ms) / ms
        found[name] = step / 1e3, token / 1e3
        show(name, model, device, devices, step / 1e3, token / 1e3, token / 1e3 + kv_read_s(model, device, devices))
        print(f"    errors of the fit: {np.median(errors):.0%} in the median, {errors.max():.0%} at most")
    return found


def of_dynamo(folder: Path) -> None:
    """Llama-3.1-8B in 8 bits on one H200."""
    (decode,) = folder.rglob("selected_decode_interpolation/raw_data.npz")
    (prefill,) = folder.rglob("selected_prefill_interpolation/raw_data.npz")
    with np.load(decode) as has:
        kv, between_ms, most = has["x_kv_usage"] * has["max_kv_tokens"], has["z_itl"], int(has["max_kv_tokens"][0])
        sequences = kv / has["y_context_length"]
    rows = np.column_stack((np.ones_like(kv), sequences, kv))
    (step, sequence, token), _ = nnls(rows / between_ms[:, None], np.ones_like(kv))
    errors = np.abs(rows @ (step, sequence, token) - between_ms) / between_ms
    with np.load(prefill) as has:
        inputs, first_ms = has["prefill_isl"], has["prefill_ttft"]
    (constant, each), _ = nnls(
        np.column_stack((np.ones_like(inputs), inputs)) / first_ms[:, None], np.ones_like(first_ms)
    )
    off = np.abs(constant + each * inputs - first_ms) / first_ms
    print(
        f"llama-3.1-8b-fp8-h200: step_s {step / 1e3:.3g}, prefill_s_per_token {each / 1e3:.3g} (and {constant:.1f} ms "
        f"once), decode_s_per_sequence {(sequence + CONTEXT * token) / 1e3:.3g}, kv_tokens {most}\n    errors of the "
        f"fits: {np.median(errors):.0%} and {np.median(off):.0%} in the median, {errors.max():.0%} and {off.max():.0%} "
        "at most"
    )


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vidur", type=Path, help="a checkout of microsoft/vidur")
    parser.add_argument("dynamo", type=Path, help="ai-dynamo 1.3.1, unpacked")
    options = parser.parse_args()
    step, token = of_vidur(options.vidur)["llama-3-8b-a100"]
    of_dynamo(options.dynamo)
    larger = QWEN_14B.in_step / LLAMA_3_8B.in_step
    token *= larger / 2
    show("qwen2.5-14b-2xa100", QWEN_14B, A100, 2, step * larger, token, token + kv_read_s(QWEN_14B, A100, 2))
    step = BYTES * QWEN_72B.in_step / (4 * OF_BANDWIDTH * H20.bandwidth)
    token = 2 * QWEN_72B.in_step / (4 * OF_OPERATIONS * H20.operations)
    show("qwen2.5-72b-4xh20", QWEN_72B, H20, 4, step, token, token + kv_read_s(QWEN_72B, H20, 4))


if __name__ == "__main__":
    main()
