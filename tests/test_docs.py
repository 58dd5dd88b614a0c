"""The pages: their links, commands and blocks, the site's contents, and a replay as the tutorial has it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from profiles import REPOSITORY

import servegen_gpu as sg

DOCS = REPOSITORY / "docs"


def loaded(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


blocks = loaded(DOCS / "blocks.py")
GUIDES = sorted(set(DOCS.rglob("*.md")) - {DOCS / "index.md"})
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "bench" / "README.md",
    REPOSITORY / "kernels" / "README.md",
    *sorted((REPOSITORY / "servegen_gpu").glob("*/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
NOT_RUN = {
    ".ci/tour installs and does this in a clone",
    ".ci/run does",
    "needs the profiles of alibaba/ServeGen",
    "needs Azure's published log",
    "needs a CUDA device",
    "needs torch",
    "hours, and needs the repository",
    "needs SLURM",
    "needs a Ray cluster",
}
"""Why blocks may not run."""


def anchors(page: Path) -> set[str]:
    """Of headings, as code hosts and the site have them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        if re.match("https?:", link):
            continue
        if not there.is_file() or (anchor and anchor not in anchors(there)):
            found.append(link)
    return found


def test_links_lead_somewhere(tmp_path):
    assert {page: broken_links(page) for page in PAGES if broken_links(page)} == {}
    planted = tmp_path / "planted.md"
    planted.write_text("# Here\n[a](planted.md#here) [b](#there) [c](gone.md)")
    assert broken_links(planted) == ["#there", "gone.md"]


def test_every_page_is_in_the_contents_once():
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = [(DOCS / link).resolve() for link in re.findall(r"^- \[.*?\]\((.*?)\)", text, re.MULTILINE)]
    assert len(linked) == len(set(linked))
    assert set(linked) == set(PAGES) - {REPOSITORY / "README.md", DOCS / "index.md"}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_page_begins_with_its_question_and_a_block_that_runs(page):
    title, question, *_rest = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert "?" in question
    first = blocks.blocks(page)[0]
    assert not first.not_run
    assert page.read_text(encoding="utf-8").count("\n", 0, page.read_text(encoding="utf-8").index("```")) < 16


def test_nothing_is_left_out_silently():
    reasons = {block.not_run for page in blocks.PAGES for block in blocks.blocks(page)} - {""}
    assert reasons <= NOT_RUN
    fences = re.compile(r"^```(\w*)$", re.MULTILINE)
    for page in (*blocks.PAGES, blocks.TUTORIAL):
        opening = fences.findall(page.read_text(encoding="utf-8"))[::2]
        assert set(opening) <= {"bash", "python", "text", "yaml", ""}, page  # a new kind would never run
        assert sum(kind in ("bash", "python") for kind in opening) == len(blocks.blocks(page)), page


def commands(text: str) -> list[list[str]]:
    """The command lines of a block of bash."""
    whole = text.replace("\\\n", " ").replace(" 2>&1", "")
    lines = re.findall(r"^\s*(?:.*; do )?servegen-gpu ([^|&>;\n]+)", whole, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_commands_are_known():
    from servegen_gpu.cli import _parser

    known = [
        words for page in (*blocks.PAGES, blocks.TUTORIAL) for b in blocks.blocks(page) for words in commands(b.text)
    ]
    assert len(known) > 80
    for words in known:
        if "--help" not in words:
            _parser().parse_args(words)


def test_the_site_has_every_public_name():
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\.\. auto(?:function|class|data|exception|module):: servegen_gpu\.(\S+)$", text, re.MULTILINE
    )
    assert len(listed) == len(set(listed))
    names = {name.removeprefix("clients.stated.") for name in listed if not re.search(r"\.[A-Z]", name)}
    assert sorted({*names, "__version__"}) == sg.__all__
    assert "servegen_gpu.__version__" in text


def missing_names(text: str) -> list[str]:
    """Qualified names in the text of a docstring that are nowhere in the package."""
    found = []
    for name in re.findall(r"(?<!`)`servegen_gpu\.([\w.]+)`(?!`)", text):
        room, parts = REPOSITORY / "servegen_gpu", name.split(".")
        while parts and (room / parts[0]).is_dir():
            room /= parts.pop(0)
        if parts and (room / f"{parts[0]}.py").is_file():
            room /= parts.pop(0) + ".py"
        file = room / "__init__.py" if room.is_dir() else room
        here = file.read_text(encoding="utf-8") + "".join(sg.__all__) * (len(file.parts) == len(REPOSITORY.parts) + 2)
        if parts and parts[0] not in here:
            found.append(name)
    return found


def test_docstrings_refer_to_what_is_there():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "servegen_gpu").rglob("*.py"))
    assert missing_names(sources) == []
    planted = (
        "`servegen_gpu.generate` `servegen_gpu.law.variates` `servegen_gpu.law.variate` `servegen_gpu.trace.Trail`"
    )
    assert missing_names(planted) == ["law.variate", "trace.Trail"]


@pytest.mark.parametrize("page", ["reference/columns", "explanation/how-it-works", "how-to/reductions"])
def test_pages_run(page, tmp_path, monkeypatch):
    """Those that are quick; .ci/run runs all."""
    monkeypatch.chdir(tmp_path)
    assert blocks.run_here(DOCS / f"{page}.md") == []


def test_faults_of_pages_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted = DOCS.parent / "planted.md"
    text = "# Planted\n```bash\nfalse\n```\n```python\nprint(1)\n```\n```text\n2\n```\n"
    text += "<!-- not run: no -->\n```bash\nfalse\n```\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text)
    wrong = blocks.run_here(planted)
    assert [message.split("\n")[0] for message in wrong] == [
        "planted.md:2 failed",
        "planted.md:5 prints something else than the page shows",
    ]


def test_what_is_shown_is_compared():
    assert blocks.printed_as_shown("a\nb 1  \nc\n", "b 1\nc\n")
    assert blocks.printed_as_shown("a\nb\nc\nd\n", "a\n…\nd\n")
    assert not blocks.printed_as_shown("a\nb\nc\n", "a\nc\n")


def test_the_rows_of_the_readme(tmp_path, monkeypatch):
    """Its table is what its first block of Python makes, and its first command makes the trace that it shows."""
    monkeypatch.chdir(tmp_path)
    page = REPOSITORY / "README.md"
    block = next(block for block in blocks.blocks(page) if block.language == "python")
    names: dict[str, object] = {}
    exec(block.text, names)
    text = page.read_text(encoding="utf-8")
    rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if line[:2] == "| "]
    frame = names["trace"].to_pandas().head()  # type: ignore[attr-defined]
    assert rows[0] == list(frame.columns)
    assert rows[1:] == frame.astype(str).to_numpy().tolist()
    shown = re.search(r"^trace\.parquet: ([\d,]+) requests.*?digest +(\w+)$", text, re.MULTILINE | re.DOTALL)
    assert shown
    first = sg.generate("deepseek-r1")
    assert shown.groups() == (f"{len(first):,}", first.digest().hex)


def test_the_tour_is_the_tutorial():
    """Every block of the tutorial is in the script, and the shell understands it."""
    script = "\n".join(blocks.script(blocks.TUTORIAL))
    found = blocks.blocks(blocks.TUTORIAL)
    assert all(block.text in script for block in found)
    assert found[0].section == "Install"
    assert script.count("\ntour_next '") == len(dict.fromkeys(block.section for block in found)) + 1
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_replay_against_the_stub(tmp_path):
    folder = REPOSITORY / "examples" / "replay"
    lines = [{"timestamp": 50 * i, "input_length": 600, "output_length": 3 + i, "hash_ids": [1, i]} for i in range(5)]
    (tmp_path / "replay.jsonl").write_text("\n".join(map(json.dumps, lines)))
    stub = [sys.executable, folder / "stub_server.py", "--port", "0"]
    server = subprocess.Popen(stub, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        url = server.stdout.readline().strip()
        replay = [sys.executable, folder / "replay.py", "replay.jsonl", "--url", url, "-o", "results.csv"]
        done = subprocess.run(replay, cwd=tmp_path, capture_output=True, text=True, check=True)
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    assert done.stdout.startswith("5 requests in ")
    assert " 0 failed" in done.stdout
    rows = [line.split(",") for line in (tmp_path / "results.csv").read_text().splitlines()]
    tokens = rows[0].index("output_tokens")
    assert sorted(int(row[tokens]) for row in rows[1:]) == [3, 4, 5, 6, 7]
    failed = subprocess.run([*replay, "--timeout", "1"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert " 5 failed" in failed.stdout  # the server is gone
