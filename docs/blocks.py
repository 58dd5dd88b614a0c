"""The blocks of these pages: run them, list those that do not run, or make a script of a page.

    python docs/blocks.py run [PAGE...]     each page in a folder of its own, blocks in order, seconds for each page
    python docs/blocks.py here PAGE         one page in this folder
    python docs/blocks.py list              blocks that do not run, and why
    python docs/blocks.py script PAGE       a page as a shell script, which prints how long its sections take
    python docs/blocks.py shown PAGE FILE   does a page show what its script printed into a file?

Blocks are those of bash and python. Python blocks of a page share their names. A comment before a block says what is
special: ``<!-- given: log.csv -->`` makes a file first, ``<!-- not run: why -->`` leaves the block out. A block of
text behind one is what it prints; there, … stands for anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
"""Runs from a clone: .ci/tour."""
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - {TUTORIAL})]
FENCE = re.compile(
    r"(?P<notes>(?:^<!-- .*? -->\n)*)^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with what a comment before it says and what it prints, where the page shows it."""

    page: Path
    line: int
    section: str
    language: str
    text: str
    given: tuple[str, ...]
    not_run: str
    prints: str = ""

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of bash and python of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in FENCE.finditer(text):
        before = text[: match.start("language")]
        if match["language"] == "text" and found:
            last = found[-1]
            found[-1] = Block(**{**vars(last), "prints": match["text"]})
        if match["language"] not in ("bash", "python"):
            continue
        section = re.findall(
            r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", before, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
        )
        given = re.search(r"<!-- given: (.*?) -->", match["notes"])
        skipped = re.search(r"<!-- not run: (.*?) -->", match["notes"])
        found.append(
            Block(
                page,
                before.count("\n") + 1,
                section[-1] if section else page.stem,
                match["language"],
                match["text"],
                tuple(given[1].split(", ")) if given else (),
                skipped[1] if skipped else "",
            )
        )
    return found


def make(name: str) -> None:
    """A file that a page takes as given, in the current folder."""
    import servegen_gpu as sg

    path = Path(name)
    if path.exists():
        return
    if name.startswith("examples/"):
        path.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, path)
    elif name == "trace.parquet":
        sg.generate(sg.population("deepseek-r1", clients=500), rate=10, duration="20m", warmup=600).write(path)
    elif name == "log.csv":
        log = sg.generate(sg.population("m-small"), rate=5, start="9h", duration="20m").to_pandas()
        names = {"client": "api_key", "input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
        log.insert(0, "ts", log.pop("arrival_us") / 1e6 + 1.7e9)
        log.rename(columns=names).to_csv(path, index=False)
    elif match := re.fullmatch(r"replica-(\d)\.parquet", name):
        pool = sg.population("m-small")
        sg.generate(pool, rate=5, start="9h", duration="20m", replica=int(match[1])).write(path)
    elif name == "somebody.jsonl":
        path.write_text(
            '{"timestamp": 0, "input_length": 1000, "output_length": 20, "hash_ids": [1, 2]}\n'
            '{"timestamp": 500, "input_length": 1000, "output_length": 20, "hash_ids": [1]}\n'
        )
    else:
        raise SystemExit(f"docs/blocks.py knows no file {name}: add it to make()")


def run_here(page: Path) -> list[str]:
    """Run a page's blocks in the current folder. What went wrong, one message for each block."""
    wrong = []
    with script_module() as names:
        for block in blocks(page):
            message = failure(block, names)
            if message:
                wrong.append(f"{block.where} {message}")
    return wrong


@contextlib.contextmanager
def script_module() -> Iterator[dict[str, object]]:
    """The names of a script, which worker processes find as ``__main__``."""
    module, own = ModuleType("__main__"), sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield vars(module)
    finally:
        sys.modules["__main__"] = own


def failure(block: Block, names: dict[str, object]) -> str:
    """Run a block. What went wrong, or nothing."""
    for name in block.given:
        make(name)
    if block.not_run:
        return ""
    if block.language == "bash":
        shell = ["bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(shell, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"failed\n{done.stdout}{done.stderr}"
        printed = done.stdout
    else:
        printing = io.StringIO()
        try:
            with contextlib.redirect_stdout(printing):
                exec(compile(block.text, block.where, "exec"), names)
        except Exception as error:  # whatever a page does wrong is its failure, not that of the others
            return f"failed\n{type(error).__name__}: {error}"
        printed = printing.getvalue()
    if block.prints and not printed_as_shown(printed, block.prints):
        return f"prints something else than the page shows\n{printed}"
    return ""


def printed_as_shown(printed: str, shown: str) -> bool:
    """Whether a page shows what was printed; … stands for anything, spaces at the ends of lines for nothing."""
    plain = "\n".join(line.rstrip() for line in printed.splitlines())
    pattern = ".*?".join(re.escape(part.strip("\n")) for part in shown.strip("\n").split("…"))
    return re.search(pattern, plain, re.DOTALL) is not None


def run(pages: list[Path]) -> int:
    """Run pages, each in a process and an empty folder of its own."""
    failures = 0
    for page in pages:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "here", str(page)]
            done = subprocess.run(command, cwd=folder, env=os.environ | {"MPLBACKEND": "agg"}, check=False)
        failures += done.returncode != 0
        took = f"{time.perf_counter() - begin:.1f} s"
        print(f"{page.relative_to(ROOT)}: {took}{', FAILED' * (done.returncode != 0)}", flush=True)
    return failures


def script(page: Path) -> Iterator[str]:
    """A page as a shell script; sections are announced, and timed."""
    yield "tour_begin=$EPOCHREALTIME tour_section='' tour_times=''"
    yield 'tour_seconds() { awk "BEGIN { printf \\"%.1f\\", $EPOCHREALTIME - $1 }"; }'
    yield (
        'tour_next() { if [ -n "$tour_section" ]; then '
        'tour_times+="$(printf \'%7s s  %s\' "$(tour_seconds $tour_at)" "$tour_section")"$\'\\n\'; fi; '
        'tour_section=$1 tour_at=$EPOCHREALTIME; [ -z "$1" ] || printf \'\\n== %s\\n\' "$1"; }'
    )
    section = ""
    for block in blocks(page):
        if block.not_run or block.given:
            raise SystemExit(f"{block.where}: a page that is a script takes nothing as given and leaves nothing out")
        if block.section != section:
            section = block.section
            yield f"tour_next {shell_word(section)}"
        yield block.text if block.language == "bash" else f"python - <<'TOUR_END'\n{block.text}TOUR_END"
    yield "tour_next ''"
    yield 'printf \'\\n%s%7s s  in all\\n\' "$tour_times" "$(tour_seconds $tour_begin)"'


def shell_word(text: str) -> str:
    """Quoted."""
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> None:
    """The script."""
    match sys.argv[1:]:
        case ["run", *names]:
            sys.exit(run([Path(name).resolve() for name in names] or PAGES))
        case ["here", name]:
            sys.exit("\n".join(run_here(Path(name))) or 0)
        case ["list"]:
            for block in (block for page in PAGES for block in blocks(page) if block.not_run):
                print(f"{block.where}: {block.not_run}")
        case ["shown", name, file]:
            printed = Path(file).read_text(encoding="utf-8")
            shown = [block for block in blocks(Path(name).resolve()) if block.prints]
            wrong = [block.where for block in shown if not printed_as_shown(printed, block.prints)]
            sys.exit("\n".join(f"{where} prints something else than the page shows" for where in wrong) or 0)
        case ["script", name]:
            print("\n".join(script(Path(name).resolve())))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
