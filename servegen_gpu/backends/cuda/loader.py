"""Sources of the kernels: beside the package in a source tree, inside it in a wheel; as one text for NVRTC."""

from __future__ import annotations

import re
from pathlib import Path

from servegen_gpu.errors import OptionError

_INCLUDE = re.compile(r'^#include "([a-z_]+\.h)".*\n', re.MULTILINE)
_SYSTEM = re.compile(r"^#include <[a-z]+\.h>.*\n|^#pragma once.*\n", re.MULTILINE)

PRELUDE = """\
typedef signed char int8_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define INT64_MAX 9223372036854775807LL
#define FLT_EVAL_METHOD 0
"""
"""What NVRTC lacks of the system's headers: it brings none. A device rounds doubles after every operation."""


def kernels_dir() -> Path:
    """Where the sources are."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "slab.cu").is_file():
            return folder
    raise OptionError("kernel sources", f"none in {package / 'kernels'}", "install servegen-gpu again")


def one_text(name: str = "slab.cu", folder: Path | None = None) -> str:
    """A source with its headers in place, each once, for a compiler without files: a cache keyed by it misses nothing.

    Parameters
    ----------
    name : str
    folder : Path, optional

    Returns
    -------
    str
    """
    found = folder or kernels_dir()
    seen: set[str] = set()

    def text(of: str) -> str:
        if of in seen:
            return ""
        seen.add(of)
        return _INCLUDE.sub(lambda match: text(match[1]), _SYSTEM.sub("", (found / of).read_text(encoding="utf-8")))

    return PRELUDE + text(name)
