"""The house itself: what its pages say of it, its examples, its packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from built import quick_compiler
from profiles import REPOSITORY

import servegen_gpu as sg

HOW = (REPOSITORY / "docs" / "explanation" / "how-it-works.md").read_text(encoding="utf-8")
PACKAGE = REPOSITORY / "servegen_gpu"


def test_a_table_lists_every_module_and_no_other():
    table = HOW.split("| module | what it is for |")[1].split("\n\n")[0]
    listed = {name.rstrip("/") for name in re.findall(r"`([a-z_]+(?:\.py|/))`", table)}
    nested = {"contract.py", "host", "native", "cuda", "xla", "released", "saved", "stated", "population", "describe"}
    there = {p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p.is_dir() and (p / "__init__.py").exists())}
    assert listed - nested == there - {"__init__.py"}


FLOORS = """errors options text forks disk | blocks cache_dir arrays | request | law | schedules clock rates | clients
    | rules | packed_turns packed_environment packed packing realise spans plan | merge | backends | conversations
    | digest provenance trace formats windowed describe | scaling dataset prefixes histories cutting
    | exports validating serving | pipeline | baselines comparing fitting | reducing | distributing
    | studies plotting verifying | reporting | compat cli __main__"""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS.split("|")) for room in rooms.split()}


def upward_imports(package: Path) -> list[str]:
    """Imports of rooms on higher floors. The methods of Trace are a façade, which may look up from inside."""
    found = []
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        for line in file.read_text(encoding="utf-8").splitlines():
            there = re.match(r"(\s*)from servegen_gpu(?:\.| import )(\w+)", line)
            shown = there and there[1] and "reporting.notebook import" in line  # by _repr_html_ alone
            if not there or room == "__init__" or (room == "trace" and there[1]) or shown:
                continue
            if FLOOR.get(there[2], 0) > FLOOR[room]:
                found.append(f"{file.relative_to(package)}: {line.strip()}")
    return found


def test_recipes_name_files_that_are_there():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:servegen_gpu|kernels|tests)/[\w./-]+\.\w+)`", text))
    assert len(named) > 15
    assert [name for name in named if "NAME" not in name and not (REPOSITORY / name).is_file()] == []
    assert text.count("\n## A ") == 9


def test_no_room_imports_from_a_higher_floor(tmp_path: Path):
    assert upward_imports(PACKAGE) == []
    planted = tmp_path / "law" / "tables.py"
    planted.parent.mkdir()
    planted.write_text("def f():\n    from servegen_gpu.clients.pool import ClientPool\n")
    assert len(upward_imports(tmp_path)) == 1


def test_the_table_of_speeds_is_the_one_of_the_results():
    check = "import speeds_table as t; text = t.PAGE.read_text(encoding='utf-8'); assert t.written(text) == text"
    done = subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY / "bench", capture_output=True, check=False)
    assert done.returncode == 0, "run python bench/speeds_table.py --write"


def test_results_of_benchmarks_have_a_line_each():
    check = "import sys, json, common as c; text = sys.stdin.read(); sys.exit(c.in_lines(json.loads(text)) != text)"
    files = sorted((REPOSITORY / "bench" / "results").glob("*.json"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", check], cwd=REPOSITORY / "bench", input=text, text=True, check=False
        )
        assert done.returncode == 0, f"{file.name} as bench/common.py in_lines writes it"


def test_public_names_exist():
    for name in sg.__all__:
        assert hasattr(sg, name)


@pytest.mark.parametrize("example", sorted((REPOSITORY / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run_and_are_short(example, tmp_path):
    text = example.read_text()
    assert len(text.splitlines()) < 40
    assert not re.search("^(from|import) servegen_gpu.plotting", text, re.MULTILINE)  # matplotlib is an extra
    done = subprocess.run(
        [sys.executable, example, tmp_path], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_wheel_and_sdist_hold_everything(tmp_path):
    """Built without isolation, so that no network is needed."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, REPOSITORY]
    quick = os.environ | {"CXX": quick_compiler(tmp_path)}
    done = subprocess.run(build, env=quick, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sources = {p.relative_to(REPOSITORY).as_posix() for p in PACKAGE.rglob("*") if p.is_file()}
    sources = {name for name in sources if "__pycache__" not in name and "/_native-" not in name}
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert sources <= set(archive.namelist())
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {Path(name).relative_to(Path(name).parts[0]).as_posix() for name in archive.getnames()}
    kept = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "environment.yml", "kernels/README.md"}
    kept |= {".ci/run", "docs/tutorial.md", "examples/01_first_trace.py", "tests/profiles.py"}
    assert sources | kept <= names

    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", target, wheel]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = f"import sys; sys.path.insert(0, {str(target)!r})"
    code = f"{path}\nimport servegen_gpu as sg; print(sg.__file__, sg.__version__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert str(target) in found.stdout
    assert sg.__version__ in found.stdout
    assert wheel.name.split("-")[1] == sg.__version__


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals to open")
def test_without_a_compiler_the_wheel_is_plain_python_and_the_terminal_says_so(tmp_path):
    """Also where nobody sees what a build prints, as under pip."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(REPOSITORY)]
    silent = f"import subprocess; subprocess.run({build}, capture_output=True, check=True)"
    in_terminal = f"import pty, sys; sys.exit(pty.spawn([sys.executable, '-c', {silent!r}]))"
    quiet = os.environ | {"CXX": "/nowhere/c++"}
    done = subprocess.run(
        [sys.executable, "-c", in_terminal],
        env=quiet,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the compiled backend was left out" in done.stdout
    assert "CXX is /nowhere/c++); install one" in done.stdout
    assert [wheel.name.endswith("-py3-none-any.whl") for wheel in tmp_path.glob("*.whl")] == [True]


def lower_bounds() -> dict[str, str]:
    """Lower bounds of what is needed to run and to test, by name, from pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return {name: bound for name, bound in (re.match(r"([\w-]+)>=([\d.]+)", one).groups() for one in needed)}


def pinned(name: str) -> dict[str, str]:
    """Versions that a constraint file lists."""
    lines = (REPOSITORY / ".ci" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_constraints_name_the_bounds_of_the_project():
    bounds, lowest, newest = lower_bounds(), pinned("lowest"), pinned("newest")
    assert {*lowest} == {*newest} == {*bounds, "jaxlib"}
    for name, bound in bounds.items():
        assert f"{lowest[name]}.".startswith(f"{bound}."), name  # 8.3.1 is the first of 8.3.1, 2.0.0 of 2.0
        assert [int(n) for n in newest[name].split(".")] >= [int(n) for n in lowest[name].split(".")], name
