"""Classes cut out of a source file whose package is too big to install."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCE = Path(sys.executable).parent.parent / "cut.py"


def definitions(names: set[str], used: dict[str, Any]) -> Any:
    """A module of the classes and functions of these names, and of what they use."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    wanted: list[ast.stmt] = [node for node in tree.body if isinstance(node, kinds) and node.name in names]
    if missing := names - {node.name for node in wanted if isinstance(node, kinds)}:
        raise LookupError(f"no {', '.join(sorted(missing))} in {SOURCE}")
    # annotations name types of modules that are not there
    lazy = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
    body = ast.fix_missing_locations(ast.Module([lazy, *wanted], []))
    module = ModuleType("cut_out")
    sys.modules[module.__name__] = module
    vars(module).update(used)
    exec(compile(body, str(SOURCE), "exec"), vars(module))
    return module
