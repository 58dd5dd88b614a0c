"""Instructions of the CUDA kernels do not grow unnoticed: bench/sass_budget.py counts them without a device."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from profiles import REPOSITORY

from servegen_gpu.backends.cuda.loader import one_text
from servegen_gpu.errors import OptionError

BENCH = REPOSITORY / "bench"
RECORDED = BENCH / "results" / "sass.json"
SAME, OTHER = 0.05, 0.10
"""Shares by which counts may differ from those recorded: with the compiler that made those, with another one."""


@pytest.fixture(scope="module")
def sass() -> Iterator[SimpleNamespace]:
    """The modules of the budget."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import sass_budget
        import sass_flow
        import sass_tools

        patch.setattr(sass_budget, "compiled", functools.cache(sass_tools.compiled))
        yield SimpleNamespace(budget=sass_budget, flow=sass_flow, tools=sass_tools)
        for name in set(sys.modules) - before:
            if name == "common" or name.startswith("sass_"):
                del sys.modules[name]


@pytest.fixture(scope="module")
def tools(sass: SimpleNamespace) -> SimpleNamespace:
    """The same where they can work."""
    if not (sass.tools.nvrtc_path() or sass.tools.nvcc_path()):
        pytest.skip("no compiler: neither the nvidia-cuda-nvrtc wheel nor nvcc")
    if not sass.tools.nvdisasm_path():
        pytest.skip("no disassembler: neither the nvidia-cuda-nvdisasm wheel nor nvdisasm")
    return sass


@pytest.fixture(scope="module")
def found(tools: SimpleNamespace) -> Any:
    """The budget of this tree's kernels."""
    return tools.budget.budget(one_text())


def test_no_kernel_grew_unnoticed(sass: SimpleNamespace, found: Any) -> None:
    recorded = json.loads(RECORDED.read_text())
    same = found.compiler == recorded["compiler"]
    changed = sass.budget.changes(recorded, found.results(), SAME if same else OTHER)
    if not same:  # which gives out registers as it likes
        changed = [line for line in changed if line.startswith("grown") and ": registers" not in line]
    assert not changed, "\n".join(["python bench/sass_budget.py --json bench/results/sass.json", *changed])


def test_another_division_in_a_kernel_is_found(sass: SimpleNamespace, found: Any) -> None:
    text = one_text()
    planted = text.replace("* ticks_per_unit)", "/ ticks_per_unit)")
    assert planted != text
    grown = sass.budget.changes(found.results(), sass.budget.budget(planted).results(), OTHER)
    assert any("tick: fp64" in line or "draw: fp64" in line for line in grown), grown


def test_rules_and_kernels_fit(found: Any) -> None:
    assert found.remarks == []


def test_predicted_times_are_the_largest_bound(sass: SimpleNamespace) -> None:
    issued = {"instructions": 1000.0, "fp64": 100.0}
    bounds = sass.budget.bounds_of(issued | {"load": 10.0, "scattered": 2.0, "shared": 4.0, "conflicting": 4.0}, 42.3)
    assert bounds == pytest.approx({"issue": 31.15, "fp64": 6.23, "load": 29.6 * 0.1246, "memory": 10.0}, rel=0.01)


def test_changes_are_those_above_the_share(sass: SimpleNamespace) -> None:
    def results(**counts: int) -> dict[str, Any]:
        return {"kernels": [{"case": "exact", "kernel": "gap", **counts}]}

    old = results(instructions=100, fp64=10, load=4)
    assert sass.budget.changes(old, results(instructions=105, fp64=11, load=5), 0.05) == []
    assert sass.budget.changes(old, results(instructions=106, fp64=2, load=4), 0.05) == [
        "grown: exact, gap: instructions 100 -> 106",
        "shrunk: exact, gap: fp64 10 -> 2",
    ]
    assert len(sass.budget.changes({"kernels": []}, old, 0.05)) == 3


# Flow: a hand-written kernel

SOURCE = """\
SG_DEVICE int32_t search(int32_t low) {
    while (low) low >>= 1;
}
SG_KERNEL(one)
    if (wanted) y = x + 1.0;
    z = search(x) / y;
"""

CODE = """
//--------------------- .text.sg_one --------------------------
sg_one:
.text.sg_one:
\t//## File "slab.cu", line 4
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/               @P0 EXIT ;
\t//## File "slab.cu", line 5
        /*0020*/                   LDG.E.64 R2, desc[UR4][R6.64] ;
        /*0030*/               @P1 BRA `(.L_x_0) ;
        /*0040*/                   DADD R2, R2, 1 ;
        /*0050*/                   LDG.E R9, desc[UR4][R6.64] ;
.L_x_0:
\t//## File "slab.cu", line 6
        /*0060*/                   MUFU.RCP64H R5, R3 ;
\t//## File "slab.cu", line 2 inlined at "slab.cu", line 6
\t//## File "slab.cu", line 6
.L_x_1:
        /*0070*/                   SHF.R.U32 R1, R1, 0x1, RZ ;
        /*0080*/               @P2 BRA `(.L_x_1) ;
\t//## File "slab.cu", line 6
        /*0090*/                   DFMA R2, R2, R5, R4 ;
        /*00a0*/               @P3 BRA `(.L_x_2) ;
        /*00b0*/                   IMAD.MOV.U32 R1, RZ, RZ, R2 ;
        /*00c0*/                   CALL.REL.NOINC `($__internal_0_$__slow) ;
        /*00d0*/                   MOV R2, R7 ;
.L_x_2:
        /*00e0*/                   STG.E.64 desc[UR4][R6.64], R2 ;
        /*00f0*/                   EXIT ;
.L_x_3:
        /*0100*/                   BRA `(.L_x_3) ;
        /*0110*/                   NOP ;
$__internal_0_$__slow:
        /*0120*/                   DMUL R2, R2, R2 ;
        /*0130*/                   RET.REL.NODEC R2 `(sg_one) ;
"""


def counts(sass: SimpleNamespace, code: str, *rules: Any) -> Any:
    functions = sass.flow.functions_of(code, sass.flow.labelled_source(SOURCE))
    flows = {name: sass.flow.Flow(function) for name, function in functions["sg_one"].items()}
    return sass.flow.counted(flows, "sg_one", rules, {"load": "^search: ", "shared": "^search: "})


def test_a_path_without_rules_is_run_once_and_slow_paths_are_not(sass: SimpleNamespace) -> None:
    of = counts(sass, CODE)
    assert of.kinds == {
        **{"move": 1, "control": 5, "load": 2, "fp64": 2, "mufu": 1, "integer": 1, "store": 1},
    }
    assert of.unstated == ("search: while (low) low >>= 1;",)
    assert of.scattered == 0


def test_rules_say_how_often(sass: SimpleNamespace) -> None:
    loop, choice = sass.flow.Rule("^search: ", 3, loop=True), sass.flow.Rule("^one: if .wanted", 0.25)
    of = counts(sass, CODE, loop, choice)
    assert (of.kinds["integer"], of.kinds["control"], of.kinds["fp64"], of.kinds["load"]) == (3, 7, 1.25, 1.25)
    assert of.unstated == ()
    assert of.used == {loop, choice}


def test_a_call_without_a_guard_is_run(sass: SimpleNamespace) -> None:
    assert counts(sass, CODE.replace("@P3 BRA `(.L_x_2)", "NOP")).kinds["fp64"] == 3


def test_of_rules_for_large_and_small_loops_the_first_that_fits(sass: SimpleNamespace) -> None:
    large, small = (sass.flow.Rule("^search: ", times, loop=True, least=least) for times, least in ((9, 2), (5, 1)))
    assert counts(sass, CODE, large, small).kinds["integer"] == 5


def test_rules_for_some_sizes_and_smaller_shares(sass: SimpleNamespace) -> None:
    small, large = (sass.flow.Rule("^search: ", times, loop=True, most=most) for times, most in ((9, 0), (5, 1)))
    assert counts(sass, CODE, small, large).kinds["integer"] == 5
    part = CODE.replace("        /*0050*/", '\t//## File "slab.cu", line 6\n        /*0050*/')
    assert counts(sass, part, sass.flow.Rule("^one: if .wanted", 0.5)).kinds["fp64"] == 2
    assert counts(sass, part, sass.flow.Rule("^one: if .wanted", 0.5, share=0.4)).kinds["fp64"] == 1.5


def test_an_arm_is_known_by_its_first_block(sass: SimpleNamespace) -> None:
    """Lines of other arms in an arm's later blocks are what compilers leave of merged code."""
    before, after = CODE.split("        /*0040*/")
    barrier = '        /*0038*/                   FADD R1, R1, R1 ;\n.L_x_9:\n\t//## File "slab.cu", line 6\n'
    arm = sass.flow.Rule("^one: if .wanted", 0.5)
    code = f"{before}{barrier}        /*0040*/{after}"
    assert counts(sass, code, arm).kinds["fp64"] == 1.5
    decides = code.replace(
        "/*0038*/                   FADD R1, R1, R1 ;", "/*0038*/                   @P5 BRA `(.L_x_0) ;"
    )
    assert counts(sass, decides, arm).kinds["fp64"] == 2


def test_accesses_that_scatter(sass: SimpleNamespace) -> None:
    of = counts(sass, CODE.replace("SHF.R.U32 R1", "LDG.E R9, desc[UR4][R6.64] ;\n        /*0074*/ ATOMS.ADD RZ"))
    assert (of.scattered, of.conflicting) == (1, 1)


def test_a_rule_holds_for_choices_alone(sass: SimpleNamespace) -> None:
    assert counts(sass, CODE, sass.flow.Rule("^one: z = ", 0.0)).kinds["store"] == 1


# What is missing or wrong


def told(error: Any) -> tuple[str, str, str]:
    return error.value.expected, error.value.got, error.value.fix


def program(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(sass: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Neither wheels nor tools on the path."""
    monkeypatch.setattr(sass.tools, "in_wheels", lambda pattern: iter(()))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("NVCC", "NVDISASM"):
        monkeypatch.delenv(name, raising=False)
    return sass


def test_without_a_compiler(bare: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OptionError) as error:
        bare.tools.compiled("")
    assert told(error)[:2] == ("a compiler for CUDA, NVRTC or nvcc", "neither")
    assert "pip install nvidia-cuda-nvrtc" in told(error)[2]


def test_without_a_disassembler(bare: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OptionError) as error:
        bare.tools.disassembled(b"")
    assert told(error)[:2] == ("a disassembler, nvdisasm", "none in $NVDISASM, wheels or the path")
    assert "pip install" in told(error)[2]


@pytest.mark.parametrize(
    ("says", "came"),
    [
        ("echo nvdisasm of LLVM 19", "which says 'nvdisasm of LLVM 19'"),
        ("exit 3", "which says 'exit status 3'"),
        (None, "No such file or directory"),
    ],
)
def test_something_else_for_a_disassembler(
    bare: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str | None, came: str
) -> None:
    monkeypatch.setenv("NVDISASM", str(program(tmp_path / "other", says) if says else tmp_path / "other"))
    with pytest.raises(OptionError) as error:
        bare.tools.disassembled(b"")
    assert told(error)[0] == "a disassembler, nvdisasm"
    assert came in told(error)[1]
    assert str(tmp_path / "other") in told(error)[1]
    assert "$NVDISASM" in told(error)[2]


def test_a_disassembler_that_is_too_old(bare: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = """
case "$1" in
--version) echo 'nvdisasm: NVIDIA (R) CUDA disassembler'; echo 'Cuda compilation tools, release 9.2, V9.2.88' ;;
*) echo 'nvdisasm fatal   : Unsupported architecture' >&2; exit 255 ;;
esac"""
    monkeypatch.setenv("NVDISASM", str(program(tmp_path / "nvdisasm", old)))
    with pytest.raises(OptionError) as error:
        bare.tools.disassembled(b"")
    assert told(error)[0] == "nvdisasm that reads sm_90"
    assert told(error)[1] == "nvdisasm fatal   : Unsupported architecture from version 9.2"


def test_a_text_that_does_not_compile(tools: SimpleNamespace) -> None:
    with pytest.raises(OptionError) as error:
        tools.tools.compiled(one_text() + "\n__device__ int planted() { return missing_at; }\n")
    assert "compiles for sm_90" in told(error)[0]
    assert "missing_at" in told(error)[1]


def test_a_kernel_that_is_not_there(tools: SimpleNamespace) -> None:
    with pytest.raises(OptionError, match=r"'gapp' beside .*begin, cross"):
        tools.budget.budget(one_text(), tools.budget.WORKLOADS[:1], ["gapp"])


def test_the_program(
    tools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.cu"
    text.write_text(one_text())
    made = tmp_path / "sass.json"
    common = ["sass_budget.py", "--workload", "exact, small", "--text", str(text)]
    monkeypatch.setattr(sys, "argv", [*common, "--kernel", "limit", "--json", str(made)])
    tools.budget.main()
    said = capsys.readouterr().out
    assert "  limit " in said
    assert "  tick " not in said
    lines = {line["kernel"]: line for line in json.loads(made.read_text())["kernels"]}
    assert {"gap", "tick", "limit"} <= set(lines)
    monkeypatch.setattr(sys, "argv", [*common, "--kernel", "tick", "--against", str(made)])
    tools.budget.main()
    assert "shrunk: language exact, small cells, limit: load" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*common, "--kernel", "tick", "--blocks"])
    tools.budget.main()
    assert "gap_ticks" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*common, "--kernel", "gapp"])
    with pytest.raises(SystemExit, match="expected a kernel of the text"):
        tools.budget.main()
