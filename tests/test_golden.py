"""Small traces, column by column, against digests on file.

They change only together with STREAM_VERSION. To write them anew:

    python tests/test_golden.py --write
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import TURNS, tiny_pool
from traces import flat

import servegen_gpu as sg
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.law.address import STREAM_VERSION
from servegen_gpu.request.schema import FIELDS

GOLDEN = Path(__file__).parent / "data" / "golden_digests.json"

RATES: dict[str, dict[str, Any]] = {
    "own": {},
    "constant": {"rate": 3.0},
    "scaled": {"scale": 0.7},
    "peak": {"peak": 0.8},
    "steps": {"rate": [(0, 1.0), (1000, 5.0), (2000, 0.0), (2300, 2.5)]},
    "linear": {"rate": sg.Schedule([0, 900, 3000, 4800], [0.0, 4.0, 1.0, 2.0], "linear")},
    "function": {"rate": lambda t: 1.0 + (t // 100) % 4},
}
CATEGORIES, COUNTS, DEPENDENCES = tuple(FIELDS), ("auto", "exact", "renewal", "servegen"), ("independent", "comonotone")


def pool_of(category: str, **keywords: Any) -> ClientPool:
    """A tiny pool whose rates have the same bits on every machine."""
    pool = tiny_pool(category, 5, ids=[0, 1, 5, 1000, 2**31 - 1], **keywords)
    return replace(pool, rate_rps=np.ceil(pool.rate_rps * 128) / 128)


def cases() -> dict[str, tuple[ClientPool, dict[str, Any]]]:
    """Pool and keywords by the name of the case."""
    found: dict[str, tuple[ClientPool, dict[str, Any]]] = {}
    rates = list(RATES)
    for i, category in enumerate(CATEGORIES):
        for j, counts in enumerate(COUNTS):
            for k, dependence in enumerate(DEPENDENCES):
                rate = rates[(2 * i + 2 * j + k) % len(rates)]
                found[f"{category} {counts} {dependence} {rate}"] = (
                    pool_of(category, measured=j != 0),
                    {"counts": counts, "dependence": dependence, "start": 100, "duration": 3000, "seed": len(found)}
                    | RATES[rate],
                )
        fields = 5 if category == "multimodal" else len(FIELDS[category])
        matrix = np.where(np.eye(fields), 1.0, -0.125 if fields == 5 else 0.5)
        keywords = {"duration": 1200, "dependence": "copula", "rank_correlation": matrix, "seed": 2**64 - 1 - i}
        found[f"{category} copula"] = (pool_of(category), keywords)
    found["replica and window"] = (
        pool_of("reason"),
        {"duration": 1200, "seed": 7, "replica": 3, "occupancy": "window"},
    )
    found["wrapped"] = (pool_of("language", windows=7), {"start": 3000, "duration": 3600, "seed": 1})
    found["clones"] = (pool_of("language").clone(20), {"duration": 1200, "rate": 1.0})
    for i, category in enumerate(CATEGORIES):
        own = pool_of(category, dependent=True, contexts=(100, 0, 2500, 800))
        found[f"{category} of clients with correlations and limits"] = (own, {"duration": 1800, "seed": 100 + i})
    for i, category in enumerate(CATEGORIES):
        pool = pool_of(category, contexts=(3000, 0, 900, 1500), dependent=True)
        pool = replace(pool, client_ids=np.array([0, 1, 5, 1000, 2**26 - 1]))
        pool = replace(pool, turn_models=tuple(TURNS.values()), turn_model=np.array([0, 1, 2, -1, 0], np.int32))
        keywords = {"start": 100 * i, "duration": 2000, "seed": 200 + i}
        found[f"{category} in conversations"] = (pool, keywords | RATES[("own", "steps", "function")[i]])
    for i, category in enumerate(CATEGORIES):
        pool = pool_of(category, contexts=(3000, 0, 900, 1500)).with_conversations(TURNS["edit"])
        found[f"{category} in edits"] = (pool, {"start": 700, "duration": 2000, "seed": 300 + i})
    return found


CASES = cases()


def digests(name: str, **more: Any) -> dict[str, str]:
    """Number of rows and SHA-256 of every column."""
    pool, keywords = CASES[name]
    trace = sg.generate(pool, **keywords | more)
    found = {"rows": str(len(trace))}
    for column, array in flat(trace).items():
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        found[column] = hashlib.sha256(f"{array.dtype.name} ".encode() + data).hexdigest()[:32]
    return found


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


def test_digests_belong_to_this_stream(golden: dict[str, Any]) -> None:
    assert golden["stream_version"] == STREAM_VERSION
    assert list(golden["traces"]) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_traces_are_what_they_were(name: str, golden: dict[str, Any]) -> None:
    assert digests(name) == golden["traces"][name], f"{name}: raise STREAM_VERSION, then {__doc__}"


def test_every_case_has_its_own_trace(golden: dict[str, Any]) -> None:
    arrivals = [columns["arrival_us"] for columns in golden["traces"].values()]
    assert len(set(arrivals)) == len(arrivals)
    assert all(int(columns["rows"]) > 500 for columns in golden["traces"].values())


if __name__ == "__main__" and "--write" in sys.argv:
    GOLDEN.parent.mkdir(exist_ok=True)
    content = {"stream_version": STREAM_VERSION, "traces": {name: digests(name) for name in CASES}}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
