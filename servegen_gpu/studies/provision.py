"""How many servers a workload needs, with which confidence, and what a naive generator would have bought: `provision`.

>>> found = sg.provision(pool, "ttft=2.25s,tbt=0.5s", server="qwen2.5-14b-2xa100", rate=50, duration="10m", naive=True)
>>> print(found)
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu import options
from servegen_gpu.baselines.naive import naive as naive_of
from servegen_gpu.blocks import single_threaded, thread_count
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Workload, stream
from servegen_gpu.provenance import duration_of
from servegen_gpu.rates import Rate, resolve_rate
from servegen_gpu.request.families import FAMILIES
from servegen_gpu.serving.fleet import Fleet
from servegen_gpu.serving.job import ROUTINGS, Job, Routing
from servegen_gpu.serving.objective import Objective, parse_objective
from servegen_gpu.serving.profiles import load_server
from servegen_gpu.serving.server import PARAMETERS, Server
from servegen_gpu.studies.provisioned import COLUMNS, WHOLE, Provision
from servegen_gpu.studies.source import STATED
from servegen_gpu.trace import Trace, read_trace
from servegen_gpu.windowed import BURST_WINDOW_S, gap_cvs, median_cv

STEP = 1.03
"""The highest rate of one instance is found to 3 %: rates on this grid are tried."""
HIGHEST = math.ceil(math.log(64, STEP))
"""How far above the workload's own rate it is looked for."""
SAMPLED = 20
"""Replicas whose burstiness the naive baseline has."""
AHEAD = 4
"""Replicas a thread that are made before somebody asks for them."""

Progress = Callable[[int, int], None]
"""Told after each replica how many there are, of how many."""
