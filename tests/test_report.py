"""Reports: pages that a browser can read, that hold the trace's numbers, and that no text can break out of."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictured import cut, made

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError, OutputError
from servegen_gpu.plotting import plots
from servegen_gpu.reporting.page import Section, page
from servegen_gpu.reporting.parts import escaped, table
from servegen_gpu.studies.file import write_study

VOID = {"meta", "img", "br"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


class Page(HTMLParser):
    """What a browser finds: elements that are closed in order, text, cells of tables, and images."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def cell(self, name: str) -> list[str]:
        """Cells of the first row that begins so."""
        return next(row[1:] for row in self.rows if row[:1] == [name])


def checked(html: str) -> Page:
    """A page that needs nothing from elsewhere, and says of every picture what it shows."""
    found = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "http:" not in html
    assert "https:" not in html
    assert re.search(r"url\(|@import", html) is None
    assert "default-src 'none'" in html
    for image in found.images:
        assert image["src"].startswith("data:image/")
        assert len(image["alt"]) > 40
        assert any(letter.isdigit() for letter in image["alt"])
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """Reports of a trace, and of one against a replica; `test_plotting` draws traces of every category."""
    folder = tmp_path_factory.mktemp("pages")
    sg.report(made("m-small"), folder / "m-small.html")
    sg.report(made("deepseek-r1"), folder / "deepseek-r1.html", against=made("deepseek-r1", 1))
    return folder


@pytest.fixture
def two_pictures(monkeypatch) -> None:
    """Pages with two pictures only, where others would show nothing else."""
    monkeypatch.setattr(plots, "GROUPS", {"Arrivals": {"gaps": plots.DRAWN["gaps"], "skew": plots.DRAWN["skew"]}})


@pytest.mark.parametrize(("name", "pictures"), [("m-small", 10), ("deepseek-r1", 17)])
def test_pages_are_complete_in_themselves(pages, name, pictures):
    found = checked((pages / f"{name}.html").read_text(encoding="utf-8"))
    assert len(found.images) == pictures
    assert {"Summary", "Arrivals", "Lengths", "Clients", "Provenance", "Notes"} <= set(found.text.split("\n"))
    assert [path.name for path in pages.iterdir() if path.suffix != ".html"] == []


def test_numbers_are_those_of_the_trace(pages):
    trace = made("m-small")
    found = checked((pages / "m-small.html").read_text(encoding="utf-8"))
    assert found.cell("requests") == [f"{len(trace):,}"]
    assert found.cell("clients") == [str(len(np.unique(trace["client"])))]
    inputs = np.sort(trace["input_tokens"])
    at = [inputs[int(np.ceil(p * len(inputs))) - 1] for p in (0.5, 0.9, 0.99, 1)]
    assert found.cell("input") == [f"{inputs.mean():,.0f}", *(f"{value:,}" for value in at)]
    gap_s = np.diff(trace["arrival_us"]) / 1e6
    assert found.cell("CV of inter-arrival times")[1] == f"{gap_s.std() / gap_s.mean():.2f}"
    assert found.cell("seed") == ["0"]
    assert f"CV {gap_s.std() / gap_s.mean():.2f}" in found.text


def test_a_comparison_has_the_verdicts_of_compare(pages):
    found = checked((pages / "deepseek-r1.html").read_text(encoding="utf-8"))
    expected = sg.compare(made("deepseek-r1"), made("deepseek-r1", 1))
    for row in expected.rows:
        label = f"{row.label}, {row.unit}" if row.unit else row.label
        (cells,) = [cells for cells in found.rows if cells[0] == label and len(cells) == 5]
        assert cells[1] == {"-": "no verdict"}.get(row.verdict, row.verdict)
    assert found.cell("requests") == [f"{len(made('deepseek-r1', replica)):,}" for replica in (0, 1)]
    assert f"{expected.verdicts()['inside']} inside" in found.text


def test_the_same_trace_is_the_same_page(tmp_path, two_pictures):
    few = made("m-small")[:300]
    one, other = (sg.report(source, tmp_path / "page.html").read_bytes() for source in (few, iter(cut(few, 70))))
    assert one == other


def test_no_text_of_a_trace_breaks_out(tmp_path):
    """Names of the file, the workload, columns and provenance; a page that did not escape them would have a script."""
    trace = made("m-small")[:40]
    columns = dict(trace.columns) | {f"{EVIL}_tokens": trace["input_tokens"]}
    about = {"workload": EVIL, EVIL: {EVIL: [EVIL]}, "note": EVIL, "long": "x" * 10_000}
    hostile = sg.Trace.trusted(columns, about)
    file = tmp_path / f"{EVIL.replace('/', '|')}.csv"
    trace.write(file)
    found = checked(sg.report(hostile, tmp_path / "page.html", against=str(file)).read_text(encoding="utf-8"))
    assert found.text.count("<script>alert(1)</script>") > 20  # as text
    assert len(found.images) > 5
    assert Page(f"<p>{EVIL}</p>").tags == ["p", "script", "img"]  # what the check would see
    assert "x" * 2001 not in found.text
    assert "script" not in Page(hostile._repr_html_()).tags


def test_text_is_escaped_in_every_part():
    html = page(EVIL, [Section(EVIL, table([EVIL, EVIL], [[EVIL, EVIL], [EVIL]], caption=EVIL))] * 3, EVIL)
    assert set(checked(html).tags).isdisjoint({"script", "img"})
    assert escaped("a\x00b\u202ec\ud800\nd") == "a?b?c? d"


@pytest.mark.parametrize("rows", [0, 1])
def test_little_traces_have_a_page(tmp_path, rows):
    few = made("m-small")[:rows]
    alone = checked(sg.report(few, tmp_path / "few.html").read_text(encoding="utf-8"))
    assert alone.cell("requests") == [str(rows)]
    assert ("the trace has no requests" in alone.text) == (rows == 0)
    both = checked(sg.report(few, tmp_path / "both.html", against=made("m-small")[:2]).read_text(encoding="utf-8"))
    assert both.cell("requests") == [str(rows), "2"]
    assert "Nothing can be compared" in both.text


def test_pools_are_sampled_as_stated(tmp_path, two_pictures):
    pool = sg.pool([sg.client(rate=1, input_tokens={10: 1, 30: 2}, output_tokens={5: 1}, count=3)])
    path = sg.report(pool, tmp_path / "pool.html", rate=2, duration="5m", seed=4, against=pool)
    found = checked(path.read_text(encoding="utf-8"))
    own = sg.generate(pool, rate=2, duration="5m", seed=4)
    other = sg.generate(pool, rate=2, duration="5m", seed=4, counts="renewal", empty="skip")
    assert found.cell("requests") == [f"{len(own):,}", f"{len(other):,}"]
    with pytest.raises(OptionError, match="a pool with arguments of sampling, got rate with Trace"):
        sg.report(own, tmp_path / "no.html", rate=3)
    assert not (tmp_path / "no.html").exists()


def test_studies_have_a_page(tmp_path):
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"draw": 0, "replica": np.arange(50), "requests": rng.poisson(900, 50).astype(float)})
    settings = {"workload": EVIL, "metrics": ["requests"], "controls": [], "vary": {}, "replicas": 50, "draws": 1}
    settings |= {"duration_s": 600.0, "seed": 0, "rate": None, "until": None, "confidence": 0.95}
    write_study(tmp_path / "study.parquet", "montecarlo", settings, table)
    assert main(["report", str(tmp_path / "study.parquet"), "-o", str(tmp_path / "study.html"), "--quiet"]) == 0
    found = checked((tmp_path / "study.html").read_text(encoding="utf-8"))
    assert found.images
    with pytest.raises(OptionError, match="a trace or a pool to hold against another, got a study"):
        sg.report(tmp_path / "study.parquet", tmp_path / "no.html", against=made("m-small"))


def test_the_command_takes_traces_of_others_and_workloads(tmp_path, capsys, two_pictures):
    lines = [f"{at * 0.7:.3f},{100 + at % 37},{at % 11 + 1}" for at in range(200)]
    log, out = tmp_path / "log.csv", tmp_path / "page.html"
    log.write_text("\n".join(["timestamp_s,prompt_tokens,completion_tokens", *lines]))
    arguments = ["report", str(log), "--against", "m-small", "--clients", "5", "--rate", "2", "-o", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert re.fullmatch(rf"{re.escape(str(out))}: \d\.\d+ MB; \d+\.\d\d s\n", said.out)
    assert said.err.count("note: log.csv: 200 requests") == 1
    found = checked(out.read_text(encoding="utf-8"))
    assert found.cell("requests")[0] == "200"
    assert "200 requests read as table" in found.text
    assert "m-small: " in found.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["report", "broken.parquet", "--rate", "4", "-o", "x.html"],
            "a trace without a rate and a time of its own, got --rate",
        ),
        (
            ["report", "broken.parquet", "--largest", "4", "-o", "x.html"],
            "a trace without options of clients, got --largest",
        ),
        (["report", "nowhere.csv", "-o", "x.html"], "a file that is there, or a workload among"),
        (["report", "m-small", "-o", "x.pdf"], "an output that ends in .html, got 'x.pdf'"),
        (["report", "m-small", "--duration", "1m", "-o", "no/such/x.html"], "no/such"),
        (["report", "-o", "x.html"], "a workload or --population, got neither"),
        (["report", "m-small", "--against", "nix", "-o", "x.html"], "got 'nix'"),
        (["report", "broken.parquet", "-o", "x.html"], "broken.parquet"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + bytes(60) + b"PAR1")
    assert main(arguments) == 2
    assert expected in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.parquet"]


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, two_pictures):
    path = tmp_path / "page.html"
    path.write_text("before")
    monkeypatch.setattr("servegen_gpu.formats.atomic.os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OutputError):
        sg.report(made("m-small")[:3], path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
