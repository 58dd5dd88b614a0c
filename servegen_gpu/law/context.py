"""A client's context limit: the most tokens of a request's input and output together.

An input that is drawn whole is cut to leave room for one token of output; the output is cut to what the input leaves,
and never below one. Inputs that are made of items (multimodal) stay what they are. A context of 0 tokens is no limit.
"""

from __future__ import annotations

from typing import Any


def cut_input(xp: Any, tokens: Any, context: Any) -> Any:
    """Input tokens that leave room for an output.

    Parameters
    ----------
    tokens, context : int32[n]

    Returns
    -------
    int32[n]
    """
    return xp.where(context > 0, xp.minimum(tokens, context - 1), tokens)


def cut_output(xp: Any, output: Any, tokens: Any, context: Any) -> Any:
    """Output tokens that fit beside an input: one if the input leaves no room, none if none were drawn.

    Parameters
    ----------
    output, tokens, context : int32[n]
        Output as drawn, input, limit.

    Returns
    -------
    int32[n]
    """
    return xp.where(context > 0, xp.minimum(output, xp.maximum(context - tokens, 1)), output)
