"""The tables of docs/explanation/speeds.md, made from bench/results/: ``python bench/speeds_table.py --write``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from common import REPOSITORY

PAGE = REPOSITORY / "docs" / "explanation" / "speeds.md"
BEGIN, END = "<!-- speeds: made by bench/speeds_table.py -->\n", "<!-- end of speeds -->\n"
DEVICE_BEGIN, DEVICE_END = "<!-- a device: made by bench/speeds_table.py -->\n", "<!-- end of a device -->\n"
ON_DEVICE = {
    "language, renewal": "language, Gamma gaps, independent fields, random counts",
    "language, exact": "the same, measured counts",
    "deepseek-r1, renewal": "deepseek-r1, with its copula and context limits",
}
BY_HAND = {
    "cupy_argsort language": "language, by hand with CuPy and `argsort`",
    "cupy_packed_sort language": "language, by hand with CuPy, time and position in one word to sort",
    "torch_sort language": "language, by hand with PyTorch",
    "cupy_packed_sort deepseek-r1": "deepseek-r1 without copula, by hand with CuPy, one word to sort",
}
NAMES = {
    "r1, 10,000 req/s, 600 s": "deepseek-r1, 10,000 req/s, 600 s, in memory",
    "mm-image, 1,000 req/s, 1 h": "mm-image, 1,000 req/s, 1 h, in memory",
    "r1, 25,915 clients, 1,000 req/s, 600 s": "25,915 clients, 1,000 req/s, 600 s, in memory",
    "command line, r1, 100 req/s, 1 h, cold": "deepseek-r1, 100 req/s, 1 h, from a cold start to Parquet",
    "load m-large": "load m-large, parsed",
    "load m-large from the cache": "load m-large, from the cache",
}


def results(name: str) -> dict[str, Any]:
    """A file of results."""
    found: dict[str, Any] = json.loads((REPOSITORY / "bench" / "results" / f"{name}.json").read_text())
    return found


def table() -> str:
    """Markdown between the marks."""
    compiled, plain = results("servegen"), results("servegen-numpy")
    machine = compiled["machine"]
    numpy_of = {case["case"]: case for case in plain["cases"]}
    lines = [
        f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}, {machine['date']}; medians of "
        f"{compiled['cases'][0]['rounds']} turns of fresh processes, least and most ratio in brackets.",
        "",
        "| case | ServeGen | first call | ratio | further calls | ratio | NumPy alone, first call | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in compiled["cases"]:
        if case["case"] not in NAMES:
            continue
        again, numpy = case.get("again"), numpy_of.get(case["case"])
        cells = [NAMES[case["case"]], seconds(case["servegen"]), seconds(case["servegen_gpu"]), ratio(case)]
        cells += [f"{again['median_s']:.3g} s", f"{again['ratio']:.3g}"] if again else ["", ""]
        cells += [seconds(numpy["servegen_gpu"]), ratio(numpy)] if numpy else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def seconds(side: dict[str, Any]) -> str:
    """A median with its unit."""
    return f"{side['median_s']:.3g} s"


def ratio(case: dict[str, Any]) -> str:
    """A ratio with its spread."""
    of = case["ratio"]
    return f"{of['median']:.3g} ({of['min']:.3g}–{of['max']:.3g})"


def device_table() -> str:
    """Markdown of what a CUDA device did, between its marks."""
    found = results("device")
    machine, traces = found["machine"], found["traces"]
    driver = machine["cuda_driver"]
    versions = (
        f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}, CuPy {machine['cupy']}, NumPy {machine['numpy']}"
    )
    lines = [
        f"{machine['devices'][0]}, {versions}, {machine['date']}, commit {machine['commit']}: a billion requests, an "
        "hour of 25,913 clients, sampled and merged on the device, medians of three runs "
        "(`bench/device_check.sh second FOLDER`).",
        "",
        "| trace | milliseconds | requests/s | peak device memory |",
        "|---|---|---|---|",
    ]
    of = {row["what"]: row for row in traces if "what" in row}
    for what, name in ON_DEVICE.items():
        row = of[what]
        rate, peak = row["requests_per_s"] / 1e9, row["peak_device_bytes"] / 1e9
        lines.append(f"| {name} | {row['ms_per_1e9']:.0f} | {rate:.1f} G | {peak:.1f} GB |")
    by_hand = {row["what"]: row for row in found["baselines"] if "requests_per_s" in row}
    for what, name in BY_HAND.items():
        if row := by_hand.get(what):
            rate, peak = row["requests_per_s"] / 1e9, row["peak_bytes"] / 1e9
            lines.append(f"| {name} | {1e12 / row['requests_per_s']:.0f} | {rate:.1f} G | {peak:.1f} GB |")
    host = {row["what"]: row for row in found["host"] if "what" in row}["language, renewal, to the host"]
    (disk,) = [row for row in found["to_disk"] if "what" in row]
    lines += [
        "",
        f"To the host's memory: {host['seconds']:.2f} s for the language trace, {host['gb_per_s']:.0f} GB/s (the first "
        f"trace of a process locks memory first: {host['first_seconds']:.1f} s). To Parquet: "
        f"{disk['requests'] / 1e6:.0f} million requests in {disk['seconds']:.2f} s, {disk['ratio']:.2f} times what "
        "writing them alone takes.",
    ]
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """The page with the tables of today's results."""
    for begin, made, end in ((BEGIN, table(), END), (DEVICE_BEGIN, device_table(), DEVICE_END)):
        before, rest = page.split(begin)
        page = before + begin + made + end + rest.split(end)[1]
    return page


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into the page")
    if parser.parse_args().write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table() + device_table(), end="")


if __name__ == "__main__":
    main()
