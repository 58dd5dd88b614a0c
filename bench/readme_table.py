"""The README's table of speeds, made from bench/results/: ``python bench/readme_table.py --write``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from common import REPOSITORY

README = REPOSITORY / "README.md"
BEGIN, END = "<!-- speeds: made by bench/readme_table.py -->\n", "<!-- end of speeds -->\n"
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


def written(readme: str) -> str:
    """The README with the table of today's results."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into the README")
    if parser.parse_args().write:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
