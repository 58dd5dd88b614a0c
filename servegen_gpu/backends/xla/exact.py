"""JAX as the law needs it: 64-bit types for one call, and floating point that is rounded after every operation.

XLA fuses ``a * b + c`` into one operation, which rounds once instead of twice: a quarter of such results differ from
NumPy's in the last bit. Optimization barriers do not stop it. What does: the bits of a product, taken as an integer,
plus a zero that is known only at run time. `exact` rewrites a function of the law so, as JAX sees it, and leaves the
law's text alone. On a CPU a Gamma gap then takes 8.4 ns instead of 5.9, and no bit differs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from jax import lax

ROUNDED = ("mul", "div", "sqrt", "rsqrt", "square", "integer_pow")
"""Primitives whose results XLA might merge with what follows."""


def x64() -> AbstractContextManager[None]:
    """64-bit types inside a ``with`` block; JAX's global flag stays what it is."""
    # before JAX 0.8 it was an experiment
    home: Any = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    found: AbstractContextManager[None] = home.enable_x64(True)
    return found


def exact(law: Callable[..., Any], zero: Any) -> Callable[..., Any]:
    """A function of the law with every floating-point operation rounded on its own.

    Parameters
    ----------
    law : callable
        A function of arrays (or tuples of them), elementwise, without loops.
    zero : int64
        Zero, but not as a constant: XLA must not see its value.

    Returns
    -------
    callable
        With the same arguments and results.
    """

    def rounded(*arrays: Any) -> Any:
        traced, shape = jax.make_jaxpr(law, return_shape=True)(*arrays)
        out = _evaluate(traced.jaxpr, traced.consts, zero, jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return rounded


def once(values: Any, zero: Any) -> Any:
    """The same values, computed once: XLA would repeat them inside every gather that needs them.

    A loop of one step, which XLA cannot see to be one. Before table lookups it halves the time of a copula on a CPU.

    Parameters
    ----------
    values : array, or tuples and lists of them
    zero : int64
        As for `exact`.
    """
    start = jax.tree.map(jnp.zeros_like, values)
    return lax.while_loop(lambda carry: carry[0] <= zero, lambda carry: (carry[0] + 1, values), (zero, start))[1]


def _evaluate(jaxpr: Any, consts: Any, zero: Any, arguments: list[Any]) -> list[Any]:
    """Apply the operations of a jaxpr one by one, guarding what `ROUNDED` names."""
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, jax.extend.core.Literal) else known[atom]

    for step in jaxpr.eqns:
        operands = [value(atom) for atom in step.invars]
        inner = step.params.get("jaxpr", step.params.get("call_jaxpr"))
        if inner is not None:
            results = _evaluate(inner.jaxpr, inner.consts, zero, operands)
        else:
            made = step.primitive.bind(*operands, **step.params)
            results = made if step.primitive.multiple_results else [made]
            if step.primitive.name in ROUNDED:
                results = [_fixed(result, zero) for result in results]
        known.update(zip(step.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _fixed(result: Any, zero: Any) -> Any:
    """The same value, as bits that XLA cannot see through; integers pass."""
    if result.dtype != jnp.float64:
        return result
    bits = lax.bitcast_convert_type(result, jnp.int64) + zero
    return lax.bitcast_convert_type(bits, jnp.float64)
