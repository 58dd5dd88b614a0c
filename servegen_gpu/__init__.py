"""Fast, faithful LLM serving workloads: thousands of clients sampled at once, one time-sorted trace.

>>> import servegen_gpu as sg
>>> pool = sg.load_servegen("ServeGen/data", "deepseek-r1")
>>> trace = sg.generate(pool, rate=100, duration="1h", seed=7)
>>> trace.write("trace.parquet")
"""

from servegen_gpu.clients import distributions
from servegen_gpu.clients.arrivals import Arrivals
from servegen_gpu.clients.cdfs import sample_from_cdf
from servegen_gpu.clients.diurnal import Diurnal
from servegen_gpu.clients.fit_turns import fit_turns
from servegen_gpu.clients.joined import join
from servegen_gpu.clients.naive import naive
from servegen_gpu.clients.parametric import pool
from servegen_gpu.clients.pool import Client, ClientPool
from servegen_gpu.clients.population import population
from servegen_gpu.clients.presets import PRESETS
from servegen_gpu.clients.resample import resample
from servegen_gpu.clients.servegen import load_servegen
from servegen_gpu.clients.spec import ClientSpec, client
from servegen_gpu.clients.toml_file import read_clients
from servegen_gpu.clients.turns import TurnModel
from servegen_gpu.dataset import with_lengths
from servegen_gpu.errors import OptionError, OutputError, ProfileError, RateError, ServeGenError
from servegen_gpu.formats.arrivals import read_arrivals
from servegen_gpu.pipeline import Workload, generate, stream
from servegen_gpu.prefixes import hash_ids, hash_slabs, prefix_hits
from servegen_gpu.provenance import VERSION as __version__
from servegen_gpu.rules import DEPENDENCES as DEPENDENCE_KINDS
from servegen_gpu.scaling import between, rescale, thin
from servegen_gpu.schedules import Schedule, read_schedule
from servegen_gpu.trace import Ragged, Trace, read_trace
from servegen_gpu.windowed import InWindows, fitted_cv, in_windows

__all__ = [
    "DEPENDENCE_KINDS",
    "PRESETS",
    "Arrivals",
    "Client",
    "ClientPool",
    "ClientSpec",
    "Diurnal",
    "InWindows",
    "OptionError",
    "OutputError",
    "ProfileError",
    "Ragged",
    "RateError",
    "Schedule",
    "ServeGenError",
    "Trace",
    "TurnModel",
    "Workload",
    "__version__",
    "between",
    "client",
    "distributions",
    "fit_turns",
    "fitted_cv",
    "generate",
    "hash_ids",
    "hash_slabs",
    "in_windows",
    "join",
    "load_servegen",
    "naive",
    "pool",
    "population",
    "prefix_hits",
    "read_arrivals",
    "read_clients",
    "read_schedule",
    "read_trace",
    "resample",
    "rescale",
    "sample_from_cdf",
    "stream",
    "thin",
    "with_lengths",
]
