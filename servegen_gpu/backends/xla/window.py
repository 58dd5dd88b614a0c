"""Windows of requests inside a user's own jitted code.

A simulator that lives on the device asks for requests where it needs them::

    from servegen_gpu.backends import xla

    tables = xla.device_tables(packed, derive_key(seed))
    cells = xla.window_cells(packed, first=0, count=1)

    @jax.jit
    def mean_prompt(tables, cells):
        sample = xla.sample_window(tables, cells, capacity=8192)
        tokens = jnp.where(sample.valid, sample.fields["input_tokens"], 0)
        return tokens.sum() / sample.valid.sum(), sample.fits

    mean, fits = mean_prompt(tables, cells)

The law computes in 64 bits, inside; what comes out has 32 bits at most, and code around it stays as it was. JAX before
0.8 cannot mix the two in one jitted function: there, call the function inside ``xla.x64()``. Pass `tables` and `cells`
as arguments, so that one compilation serves all windows of about the same number of clients, and, by
``tables.with_key``, all replicas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from servegen_gpu.backends.host.cell_state import WINDOW_TICKS, Runs
from servegen_gpu.backends.xla.arrivals import DrawnRuns, begin, draw_runs
from servegen_gpu.backends.xla.exact import x64
from servegen_gpu.backends.xla.rows import finish
from servegen_gpu.backends.xla.tables import DeviceCells, DeviceTables, device_cells
from servegen_gpu.errors import OptionError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import cells_of
from servegen_gpu.request.schema import of
from servegen_gpu.rules import CountRule


class WindowSample(NamedTuple):
    """Requests in merge order, in arrays of a fixed size.

    Attributes
    ----------
    window : int32[capacity]
        Index into the packed windows.
    us : uint32[capacity]
        Microseconds from the start of that window.
    client : int32[capacity]
    fields : dict of str to int32[capacity]
        What is drawn once per request; of multimodal requests the number of items, not the items, and outputs as they
        are drawn, without a client's context limit.
    valid : bool[capacity]
        True for lanes with a request: the first ones. The others hold nothing of use.
    fits : bool
        False if `capacity` was too small: then requests are missing, and the sample must not be used.
    """

    window: Any
    us: Any
    client: Any
    fields: dict[str, Any]
    valid: Any
    fits: Any


def window_cells(packed: PackedWorkload, first: int, count: int = 1) -> DeviceCells:
    """The cells of consecutive windows of a workload, on JAX's default device.

    Parameters
    ----------
    packed : PackedWorkload
    first : int
        Index of the first window.
    count : int
        How many windows.

    Raises
    ------
    OptionError
        If clients hold conversations, whose later turns are in other windows, or have environments, which depend on
        the key.
    """
    if packed.environment is not None:
        raise OptionError(
            "a workload of one replica",
            "one with environments",
            "pack pool.with_environment(None), or pass realised(packed, key) of servegen_gpu.realise",
        )
    if packed.turns or packed.conversations:
        raise OptionError(
            "a workload whose requests stand alone", "one with conversations", "pack pool.with_conversations(None)"
        )
    with x64():
        return device_cells(packed, cells_of(packed, np.arange(first, first + count)), first)


def sample_window(tables: DeviceTables, cells: DeviceCells, capacity: int) -> WindowSample:
    """All requests of some whole windows, the same as in a trace of the workload.

    May be called under `jax.jit`; a trace that begins or ends inside a window cuts it, this does not.

    Parameters
    ----------
    tables : DeviceTables
        Of `device_tables`.
    cells : DeviceCells
        Of `window_cells`.
    capacity : int
        How many requests there is room for. Under the ``renewal`` rule every cell needs room for a fifth more than it
        expects, and six.
    """
    with x64():
        return _sample(tables, cells, capacity)


def _sample(tables: DeviceTables, cells: DeviceCells, capacity: int) -> WindowSample:
    arrivals = tables.for_arrivals()
    state = begin(arrivals, cells.for_arrivals())
    renewal = state.cells.rule == CountRule.RENEWAL
    some = jnp.int64(6) * (state.cells.expected_q32 >> 32) // 5 + 6
    room = jnp.where(renewal, jnp.where(state.first_ticks < WINDOW_TICKS, some, 0), state.count)
    zero = jnp.zeros_like(room)

    def draw(room: Any) -> tuple[DrawnRuns, Any]:
        runs = Runs(jnp.arange(len(room), dtype=jnp.int32), zero, room, zero)  # type: ignore[arg-type]
        drawn = draw_runs(arrivals, state, runs, capacity=capacity)
        # a renewal cell that has not passed the end of its window gets twice the room, any other what it needs
        short = renewal & (room > 0) & (drawn.taken == room)
        wanted = jnp.where(short, 2 * room, jnp.where(renewal & (room > 0), drawn.taken + 1, room))
        return drawn, jnp.where(short.any(), wanted, room)

    drawn, wanted = draw(room)
    if CountRule.RENEWAL in tables.gaps.rules:

        def short_of_room(carry: tuple[DrawnRuns, Any, Any]) -> Any:
            _, room, wanted = carry
            return (wanted != room).any() & (wanted.sum() <= capacity)

        def draw_again(carry: tuple[DrawnRuns, Any, Any]) -> tuple[DrawnRuns, Any, Any]:
            drawn, wanted = draw(carry[2])
            return drawn, carry[2], wanted

        drawn, room, wanted = lax.while_loop(short_of_room, draw_again, (drawn, room, wanted))
    rows = finish(tables, cells, drawn.requests, jnp.int64(0), jnp.int64(2**62))
    assert tables.fields is not None
    names = tuple(field.column or field.name for field in of(tables.fields.category).scalars)
    return WindowSample(
        window=cells.window_index[rows["cell"]],
        us=rows["us"],
        client=rows["client"],
        fields={name: rows[name] for name in names},
        valid=jnp.arange(capacity, dtype=jnp.int32) < rows["rows"],
        fits=(room.sum() <= capacity) & (wanted == room).all(),
    )
