"""Servers by name or from a TOML file: every number says where it is from.

    name = "mine"
    model = "org/model, bfloat16"
    hardware = "1 x H100-80GB"

    step_s = { value = 0.011, origin = "fitted: our benchmark of May" }
    prefill_s_per_token = { value = 4.2e-5, origin = "fitted: our benchmark of May" }
    decode_s_per_sequence = { value = 9e-5, origin = "fitted: our benchmark of May" }
    prefill_s_per_step = { value = 0.004, origin = "fitted: our benchmark of May" }  # or nothing
    step_tokens = { value = 2048, origin = "published: the engine's configuration" }
    max_sequences = { value = 256, origin = "published: the engine's configuration" }
    kv_tokens = { value = 450000, origin = "published: the engine's log" }

An origin begins with ``published``, ``fitted`` or ``assumed``. `server_text` prints a server that way.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from servegen_gpu.clients.stated.toml_text import parse_toml, read_toml
from servegen_gpu.clients.stated.toml_values import attempt
from servegen_gpu.clients.stated.where import Where, shown
from servegen_gpu.errors import unknown
from servegen_gpu.serving.server import PARAMETERS, Server

SERVERS = (
    *("llama-3-8b-a100", "llama-3-70b-4xa100", "llama-2-70b-4xh100", "llama-3.1-8b-fp8-h200"),
    *("qwen2.5-14b-2xa100", "qwen2.5-72b-4xh20"),
)
"""Names of the profiles that come with the package; bench/server_profiles.py has their arithmetic."""

WORDS = ("name", "model", "hardware")
NEEDED = tuple(name for name in PARAMETERS if name != "prefill_s_per_step")


def load_server(server: str | os.PathLike[str] | Server) -> Server:
    """A server by its name, from a TOML file, or as it is.

    Parameters
    ----------
    server : str, path-like or Server
        One of `SERVERS`, or a file that ends in ``.toml``.

    Returns
    -------
    Server

    Raises
    ------
    OptionError
        If there is no such profile.
    ProfileError
        If a file cannot be read, or something in it is unknown, missing or out of range.
    """
    if isinstance(server, Server):
        return server
    if isinstance(server, str) and server in SERVERS:
        return _server_of(*parse_toml(profile_text(server), Path(f"{server}.toml")))
    if not isinstance(server, str | os.PathLike) or Path(server).suffix.lower() != ".toml":
        raise unknown("a TOML file, or a server", server, SERVERS, "see servegen-gpu servers")
    return _server_of(*read_toml(Path(server)))


def profile_text(name: str) -> str:
    """The file of one of `SERVERS`."""
    return (resources.files(__package__) / "servers" / f"{name}.toml").read_text(encoding="utf-8")


def server_text(server: Server) -> str:
    """A server as a TOML file that `load_server` reads."""
    words = [f"{name} = {_quoted(getattr(server, name) or 'unknown')}" for name in WORDS]
    numbers = [
        f"{name} = {{ value = {getattr(server, name)}, origin = {_quoted(server.origin(name))} }}"
        for name in PARAMETERS
    ]
    return "\n".join([*words, "", *numbers, ""])


def described(server: Server) -> dict[str, Any]:
    """A server in terms that JSON has: every number with its origin."""
    numbers = {name: {"value": getattr(server, name), "origin": server.origin(name)} for name in PARAMETERS}
    return {"name": server.name, "model": server.model, "hardware": server.hardware, "parameters": numbers}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _server_of(table: dict[str, Any], where: Where) -> Server:
    where.check_keys(table, (*WORDS, *PARAMETERS), (*WORDS, *NEEDED))
    values: dict[str, Any] = {name: (where / name).text_of(table[name]) for name in WORDS}
    origins: dict[str, str] = {}
    for name in filter(table.__contains__, PARAMETERS):
        place = where / name
        entry = table[name]
        if not isinstance(entry, dict):
            place.refuse('a number with its origin, { value = …, origin = "…" }', shown(entry), "say where it is from")
        place.check_keys(entry, ("value", "origin"), ("value", "origin"))
        values[name], origins[name] = entry["value"], (place / "origin").text_of(entry["origin"])
    server: Server = attempt(Server, where, **values, origins=origins)
    return server
