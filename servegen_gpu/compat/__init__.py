"""The names of alibaba/ServeGen 0.1.0 over this package: a script moves by changing its imports.

>>> from servegen_gpu.compat import Category, ClientPool, generate_workload
>>> from servegen_gpu.compat.utils import get_constant_rate_fn
>>> view = ClientPool(Category.REASON, "deepseek-r1").span(0, 3600)
>>> requests = generate_workload(view, get_constant_rate_fn(view, 100.0), duration=3600, seed=0)

Modules carry ServeGen's names: ``clientpool``, ``construct``, ``utils``, ``workload_types``. README.md beside this file
says what differs, and why.
"""

from servegen_gpu.compat.clientpool import Client, ClientPool, ClientPoolView, ClientWindow
from servegen_gpu.compat.construct import Request, generate_workload
from servegen_gpu.compat.errors import InputError
from servegen_gpu.compat.utils import (
    get_bounded_rate_fn,
    get_constant_rate_fn,
    get_scaled_rate_fn,
    sample_from_cdf,
)
from servegen_gpu.compat.workload_types import ArrivalPat, Category

__all__ = [
    "ArrivalPat",
    "Category",
    "Client",
    "ClientPool",
    "ClientPoolView",
    "ClientWindow",
    "InputError",
    "Request",
    "generate_workload",
    "get_bounded_rate_fn",
    "get_constant_rate_fn",
    "get_scaled_rate_fn",
    "sample_from_cdf",
]
