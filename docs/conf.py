"""How Sphinx makes the site: ``sphinx-build -W -c docs . site``, from the root of the repository.

Pages are where their matter is: in docs/, and beside the code. What there is, and in which order, docs/index.md says.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "servegen_gpu"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/*/*.md",
    "servegen_gpu/*/README.md",
    "kernels/README.md",
    "bench/README.md",
]

html_theme = "furo"
html_title = "servegen_gpu"
html_show_copyright = False
html_copy_source = False
html_theme_options = {"light_css_variables": {"font-stack": "system-ui, sans-serif"}}
html_static_path = ["site.css"]
html_css_files = ["site.css"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

default_role = "py:obj"
suppress_warnings = ["ref.python"]  # types of parameters are prose, some words of which are names of several classes
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

CONTENTS = ROOT / "docs" / "index.md"


def contents() -> str:
    """The tree of pages, from the lists of docs/index.md: a part for each that has one."""
    parts = ["```{toctree}\n:hidden:\n\ndocs/index\n```"]
    for section in re.split(r"^##+ ", CONTENTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        pages = [
            Path("docs", page).as_posix() for page in re.findall(r"^- \[.*?\]\((.*?\.md)\)", section, re.MULTILINE)
        ]
        if not pages:
            continue
        there = [(ROOT / page).resolve().relative_to(ROOT).with_suffix("").as_posix() for page in pages]
        caption = section.partition("\n")[0]
        parts.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", *there, "```"]))
    return "\n\n".join(parts)


def command_line() -> str:
    """What every command prints with ``--help``."""
    from servegen_gpu.cli import _parser

    parser = _parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    helps = {"servegen-gpu": parser, **{f"servegen-gpu {name}": command for name, command in commands.items()}}
    return "\n\n".join(f"## {name}\n\n```text\n{of.format_help().strip()}\n```" for name, of in helps.items())


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Put in what pages do not hold themselves."""
    if page == root_doc:
        app.env.note_dependency(str(CONTENTS))
        source[0] += "\n\n" + contents()
    if page == "docs/reference/command-line":
        source[0] = source[0].replace("<!-- the help of every command -->", command_line())


def finished(app: Sphinx, error: Exception | None) -> None:
    """The first page under its usual name."""
    if error is None and app.builder.name == "html":
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", read)
    app.connect("build-finished", finished)
    return {"parallel_read_safe": True}
