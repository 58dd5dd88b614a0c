"""Pools saved as directories: what is read is what was saved, whatever happened to the files between."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from profiles import REAL_DATA, TURNS, needs_real_data, talking, tiny_pool, write_servegen

import servegen_gpu as sg
from servegen_gpu.arrays import save_arrays
from servegen_gpu.cli import main
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.saved import packed_arrays, servegen_files
from servegen_gpu.clients.saved.profile import read_about
from servegen_gpu.clients.saved.toml_writer import environment_table, section, turns_table, value_text
from servegen_gpu.clients.stated.environment import Environment, Margin
from servegen_gpu.clients.stated.environment_toml import read_environment
from servegen_gpu.clients.stated.toml_text import parse_toml
from servegen_gpu.clients.stated.turns_toml import read_turns
from servegen_gpu.errors import OptionError, OutputError, ProfileError
from servegen_gpu.request.families import GAMMA, WEIBULL

d = sg.distributions
ENVIRONMENTS = (
    Environment(Margin.gamma(variance=0.4), {2: 0.3, 6: 0.4, 9: 0.3}),
    Environment(
        Margin.of_levels([0, 0.3, 2.7], [0.1, 0.7, 0.2]), {1: 1.0}, cell_s=0.5, each="client", common=0.25, number=3
    ),
)


def surrounded(pool: ClientPool) -> ClientPool:
    """With two environments, and a part of the clients in none."""
    rows = np.arange(len(pool.rate_rps), dtype=np.int32) % 3 - 1
    return replace(pool, environments=ENVIRONMENTS, environment=rows, system_tokens=np.abs(rows) * 500)


POOLS = {
    "language": lambda: tiny_pool(),
    "ids": lambda: tiny_pool(ids=[3, 70, 2**31 - 1], windows=30, first_window=7, window_s=37, measured=False),
    "dependent": lambda: tiny_pool("multimodal", 4, dependent=True, contexts=(0, 900)),
    "conversations": talking,
    "environments": lambda: surrounded(talking()),
    "joined": lambda: sg.join([sg.population("deepseek-r1", clients=50), talking(windows=144)]),
    "selected": lambda: (whole := tiny_pool("reason", 5)).select([1, 3]).with_shares_of(whole),
    "clones": lambda: sg.population("m-code", clients=40).clone(3),
    "own": lambda: sg.read_clients(Path(__file__).parent.parent / "examples" / "own_clients.toml"),
}


@pytest.mark.parametrize("kind", POOLS)
def test_a_packed_pool_is_the_same_again(tmp_path, kind):
    pool = POOLS[kind]()
    pool.save(tmp_path / "p", layout="packed")
    again = sg.load_profile(tmp_path / "p")
    assert again.digest() == pool.digest()
    a, b = (sg.generate(p, start=pool.start_s, duration="20m", seed=5) for p in (pool, again))
    assert all((np.asarray(a[name]) == np.asarray(b[name])).all() for name in ("arrival_us", "client", "output_tokens"))


@pytest.mark.parametrize("name", sg.PRESETS)
def test_presets_are_the_same_again(tmp_path, name):
    pool = sg.population(name, clients=60)
    sg.save_profile(pool, tmp_path / name)
    assert sg.load_profile(tmp_path / name).digest() == pool.digest()


@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_released_clients_are_files_of_servegen_again(tmp_path, category):
    write_servegen(tmp_path / "data", category)
    pool = sg.load_servegen(tmp_path / "data", "tiny", cache=False)
    pool = pool.select(pool.client_ids[np.isin(pool.family, (0, GAMMA, WEIBULL)).all(axis=1)])
    pool = replace(pool, profile=np.arange(len(pool), dtype=np.int32))
    talks = pool.with_conversations(TURNS["new"]).with_environment(ENVIRONMENTS[0])
    target = tmp_path / "again" / category / "tiny"
    target.parent.mkdir(parents=True)
    talks.save(target, layout="servegen")
    assert not (target / "pool.npz").exists()
    # ServeGen's directory: our reader of released data takes it as it is
    assert sg.load_servegen(tmp_path / "again", "tiny", cache=False).digest() == pool.digest()
    again = sg.load_profile(target)
    assert again.digest() == talks.digest()


@needs_real_data
@pytest.mark.parametrize("workload", ["deepseek-r1", "mm-image"])
def test_the_released_data_is_the_same_again(tmp_path, workload):
    pool = sg.load_servegen(REAL_DATA, workload, cache=False)
    pool.save(tmp_path / "p")
    assert not (tmp_path / "p" / "pool.npz").exists()
    assert sg.load_profile(tmp_path / "p").digest() == pool.digest()


def test_the_layout_of_servegen_is_chosen_where_it_holds_all():
    pool = tiny_pool(family=GAMMA)
    assert servegen_files.why_not(pool) is None
    others = {
        "exponential": tiny_pool(),
        "no counts": tiny_pool(family=GAMMA, measured=False),
        "rank correlations": tiny_pool(family=GAMMA, dependent=True),
        "context limits": tiny_pool(family=GAMMA, contexts=(500,)),
        "several models": talking(family=GAMMA, contexts=(0,)),
        "shares": pool.with_shares_of(pool),
        "single window": tiny_pool(windows=1, family=GAMMA, silent=False),
        "2,000 clients": pool.clone(1000),
    }
    for reason, other in others.items():
        assert reason in str(servegen_files.why_not(other))


def test_a_layout_that_cannot_hold_a_pool_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(OptionError, match="context limits; choose layout"):
        tiny_pool(family=GAMMA, contexts=(500,)).save(tmp_path / "p", layout="servegen")
    with pytest.raises(OptionError, match="a layout among auto"):
        tiny_pool().save(tmp_path / "p", layout="zip")
    assert list(tmp_path.iterdir()) == []


def test_shared_profiles_and_tables_become_files_of_single_clients(tmp_path):
    pool = tiny_pool("reason", family=WEIBULL, shape=0.6, occupancy=1.0).clone(2)
    pool.save(tmp_path / "p", layout="servegen")
    again = sg.load_profile(tmp_path / "p")
    assert len(again.rate_rps) == 6
    assert (again.rate_rps == pool.rate_rps[pool.profile] / 2).all()
    for c in range(6):
        for w in np.flatnonzero(pool.rate_rps[pool.profile[c]])[::17]:
            for mine, its in zip(pool.table[pool.profile[c], w], again.table[c, w], strict=True):
                assert all(
                    (x == y).all() for x, y in zip(pool.tables.table(mine), again.tables.table(its), strict=True)
                )


DISTRIBUTIONS = [
    d.Constant(7.25),
    d.Uniform(0, 300, max=200),
    d.Exponential(0.1 + 0.2),
    d.Normal(50, 3.3, min=0),
    d.LogNormal(mean=1 / 3, cv=2.5),
    d.LogNormal(median=100, sigma=1.5, max=7200),
    d.Pareto(alpha=1.5, scale=20, max=1e5),
    d.Samples([0.5, 0.5, 9.75]),
    d.Pmf(np.arange(2, 3000) / 7, np.arange(2998) + 0.1),
    d.Histogram([0, 0.3, 1e-3 + 0.5], [1, 2]),
    d.Histogram(np.geomspace(0.01, 5000, 514), np.arange(513)),
    d.Mixture([d.Exponential(3), d.Mixture([d.Constant(1), d.Pmf(range(99), range(99))], min=0)], [0.9, 0.1], max=600),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda x: type(x).__name__)
def test_conversations_are_read_as_they_were_written(tmp_path, distribution):
    def beside(stem: str, text: str) -> str:
        (tmp_path / f"{stem}.csv").write_text(text)
        return f"{stem}.csv"

    for growth in ("sorted", "history"):
        model = sg.TurnModel(
            0.1 + 0.2, turns=d.Zipf(1.2, min=2, max=500), gap_s=distribution, growth=growth, session_s=1234.5678
        )
        text = section("[turns]", turns_table(model, "turns", beside))
        table, where = parse_toml(text, tmp_path / "profile.toml")
        again = read_turns(table["turns"], where / "turns")
        assert again.digest() == model.digest()
        assert (again.share, again.session_s) == (model.share, model.session_s)
        assert max(map(len, text.splitlines())) < 3000, "long lists are in files"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_are_read_as_they_were_written(tmp_path, environment):
    text = section("[environment]", environment_table(environment))
    table, where = parse_toml(text, tmp_path / "profile.toml")
    assert read_environment(table["environment"], where / "environment").digest() == environment.digest()


def test_values_are_read_as_they_were_written(tmp_path):
    facts = {
        "a b": 'qu"o\\te\n\x7f',
        "ü": [1, 2.5, True, "x"],
        "t": {"deep": {"er": 1e-300}},
        "n": -(2**40),
        "none": None,
    }
    table, _ = parse_toml(section("[fit]", facts), tmp_path / "x.toml")
    assert table["fit"] == {k: v for k, v in facts.items() if v is not None}
    with pytest.raises(OptionError, match="a number, a text"):
        value_text(object())


def test_several_models_have_sections_of_their_own_and_one_is_a_file_of_conversations(tmp_path):
    talking().save(tmp_path / "three")
    assert (tmp_path / "three" / "profile.toml").read_text().count("[[turns]]") == len(TURNS)
    one = tiny_pool().with_conversations(TURNS["new"])
    one.save(tmp_path / "one")
    other = tiny_pool("reason").with_conversations(tmp_path / "one" / "profile.toml")
    assert other.turn_models[0].digest() == TURNS["new"].digest()


def test_names_are_hashed_with_a_key_that_is_not_saved_unless_they_are_kept(tmp_path):
    pool, names = tiny_pool(), ["Umbrella Corp", "ACME, Inc", "x"]
    texts = {}
    for where, options in {
        "a": {},
        "b": {},
        "s": {"salt": b"s"},
        "t": {"salt": b"s"},
        "k": {"keep_names": True},
    }.items():
        sg.save_profile(pool, tmp_path / where, names=names, **options)
        texts[where] = b"".join(f.read_bytes() for f in sorted((tmp_path / where).iterdir()))
        assert (b"Umbrella" in texts[where]) == (where == "k")
    assert texts["a"] != texts["b"]
    assert texts["s"] == texts["t"]
    assert (tmp_path / "k" / "names.csv").read_text().splitlines()[2] == '1,"ACME, Inc"'
    with pytest.raises(OptionError, match="a name for every client"):
        sg.save_profile(pool, tmp_path / "n", names=["one"])


def test_an_older_profile_is_replaced_and_nothing_else_is(tmp_path):
    tiny_pool().save(tmp_path / "p")
    other = tiny_pool("reason")
    other.save(tmp_path / "p")
    assert sg.load_profile(tmp_path / "p").digest() == other.digest()
    (tmp_path / "p" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis.tex"):
        tiny_pool().save(tmp_path / "p")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="the file"):
        tiny_pool().save(tmp_path / "file")
    assert (tmp_path / "p" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(OutputError, match="an existing directory"):
        tiny_pool().save(tmp_path / "no" / "where")


@pytest.mark.parametrize(
    "place",
    [
        "servegen_gpu.clients.saved.packed_arrays.write",
        "servegen_gpu.clients.saved.profile._sha256",
        "servegen_gpu.clients.saved.profile.summary_text",
        "os.fsync",
        "servegen_gpu.disk.directory._renamed",
    ],
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_what_was_there(tmp_path, monkeypatch, place, error):
    old = tiny_pool()
    old.save(tmp_path / "old")

    def fail(*_, **__):
        raise error

    for name in ("old", "new"):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
                talking().save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert sg.load_profile(tmp_path / "old").digest() == old.digest()


def edited(folder: Path, old: str, new: str) -> Path:
    """A profile whose text has been changed."""
    text = (folder / "profile.toml").read_text()
    assert old in text
    (folder / "profile.toml").write_text(text.replace(old, new, 1))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "tiny', 'name = 3 # "tiny', r"text, got .*profile.toml, line 6, name: 3"),
        ("format = 1", "format = 2", "update servegen-gpu"),
        ("format = 1", "format = true", "a whole number"),
        ("window_s = 600", "window_s = 10000000", "1 to 4,294"),
        ("window_s = 600", 'window_s = "600"', "a whole number"),
        ("window_s = 600\n", "", "the key 'window_s'"),
        ("first_window = 0", "first_window = -1", "from 0"),
        ("clients = 3", "clients = 4", "3, as the arrays have"),
        ("clients = 3", f"clients = {10**30}", "a whole number"),
        ('layout = "packed"', 'layout = "pickle"', "a layout among servegen, packed"),
        ('layout = "packed"', 'layout = "servegen"', "chunk-<id>-trace.csv"),
        ('category = "language"', 'category = "reason"', "of shape"),
        ('category = "language"', 'category = "eval"', "a category among"),
        ("\n[files]", "\n[flies]", "did you mean 'files'"),
        ("\n[files]", "\n[[files]]", "a table of keys"),
        ("\n[files]", '\n[files]\n"../../etc/passwd" = { sha256 = "0" }', "names of files in this directory"),
        ("\n[files]", '\n[files]\n"/etc/passwd" = { sha256 = "0" }', "names of files in this directory"),
        ("\n[files]", '\n[files]\n"other.csv" = { sha256 = "0" }', "the file other.csv, got .*save the pool again"),
        ("\n[files]", '\n[files]\n"other.csv" = 3', "a table"),
        ("\n[files]", '\n[turns]\nshare = "much"\n[files]', "the key 'turns'"),
        ("\n[files]", "\n[turns]\nshare = 2\nturns = 3\ngap_s = 5\n[files]", "a share from 0 to 1"),
        ('layout = "packed"', 'layout = "packed"\nturns = [3]', "turns 1: 3"),
        ("\n[files]", "\n[environment]\nmargin = 3\noctaves = {}\n[files]", "a table of keys"),
        ("format = 1", "format = 1\na" + ".a" * 5000 + " = 1", "keys with at most 8 dots"),
        ("format = 1", "format = ", "a TOML file"),
    ],
)
def test_a_wrong_profile_is_refused_in_words(tmp_path, old, new, expected):
    tiny_pool().save(tmp_path / "p")
    with pytest.raises(ProfileError, match=expected):
        sg.load_profile(edited(tmp_path / "p", old, new))


def test_a_changed_file_is_refused_and_taken_once_its_line_is_gone(tmp_path):
    pool = tiny_pool(family=GAMMA, occupancy=1.0)
    pool.save(tmp_path / "p", layout="servegen")
    file = tmp_path / "p" / "chunk-1-trace.csv"
    lines = file.read_text().splitlines()
    row = lines[3].split(",")
    lines[3] = ",".join([row[0], "0.75", *row[2:]])
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        ProfileError, match=r"line \d+, files, chunk-1-trace.csv: another .* remove its line in \[files\]"
    ):
        sg.load_profile(tmp_path / "p")
    text = (tmp_path / "p" / "profile.toml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith('"chunk-1-trace.csv"')]
    (tmp_path / "p" / "profile.toml").write_text("\n".join(kept))
    again = sg.load_profile(tmp_path / "p")
    assert again.rate_rps[1, 3] == 0.75
    assert (again.rate_rps != pool.rate_rps).sum() == 1
    # a fault of the edit is named by its line
    file.write_text("\n".join([*lines[:-1], "85800,fast,2,Gamma,1,1"]) + "\n")
    with pytest.raises(ProfileError, match=r"rate_rps 'fast' in .*chunk-1-trace.csv, line 144"):
        sg.load_profile(tmp_path / "p")


def test_other_names_and_windows_may_be_stated(tmp_path):
    tiny_pool().save(tmp_path / "p")
    assert sg.load_profile(edited(tmp_path / "p", 'name = "tiny-language"', 'name = "other"')).name == "other"
    tiny_pool(family=GAMMA, occupancy=1.0).save(tmp_path / "s", layout="servegen")
    with pytest.raises(ProfileError, match="windows of 300 s from window 0 on"):
        sg.load_profile(edited(tmp_path / "s", "window_s = 600", "window_s = 300"))


def arrays_with(pool: ClientPool, **changed: object) -> dict[str, np.ndarray]:
    """Arrays of a pool, some of them others, or without those that are None."""
    arrays = dict(pool.arrays()) | changed
    return {name: np.asarray(array) for name, array in arrays.items() if array is not None}


HOSTILE = {
    "missing": ({"rate_rps": None}, "no 'rate_rps'"),
    "more": ({"payload": np.zeros(3)}, "'payload' as well"),
    "type": ({"client_ids": np.zeros(3)}, "client_ids of type int64"),
    "text": ({"family": np.full((3, 144), "x")}, "family of type uint8"),
    "shape": ({"rate_rps": np.ones((3, 5))}, "of shape"),
    "flat": ({"rate_rps": np.ones(3)}, "at least one client and one window"),
    "infinite": ({"rate_rps": np.full((3, 144), np.inf)}, "a rate of 0, or from 1e-30"),
    "huge table": ({"table": np.full((3, 144, 2), 10**9, np.int32)}, "a length table|rows of tables"),
    "negative table": ({"table": np.full((3, 144, 2), -7, np.int32)}, "a length table|rows of tables"),
    "family": ({"family": np.full((3, 144), 200, np.uint8)}, "gap family|known families"),
    "profile": ({"profile": np.array([0, 1, 99], np.int32)}, "clients that point at"),
    "ids": ({"client_ids": np.array([5, 5, 6])}, "client ids unique"),
    "offsets": ({"offsets": np.array([0, 10**9])}, "offsets from 0"),
    "two-dimensional": ({"offsets": np.zeros((2, 2), np.int64)}, "tables that are no lists"),
    "environment": ({"environment": np.full(3, 5, np.int32)}, "environments"),
    "turn_model": ({"turn_model": np.full(3, 0, np.int32)}, "turn_models"),
    "shares": ({"whole_rps": np.full(144, np.nan)}, "whole_rps that are finite"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_arrays_are_refused(tmp_path, kind):
    pool = tiny_pool()
    pool.save(tmp_path / "p", layout="packed")
    changed, expected = HOSTILE[kind]
    save_arrays(tmp_path / "p" / "pool.npz", {"format": 1}, arrays_with(pool, **changed))
    text = (tmp_path / "p" / "profile.toml").read_text()
    (tmp_path / "p" / "profile.toml").write_text(text[: text.index("\n[files]") + 1])
    with pytest.raises(ProfileError, match=expected):
        sg.load_profile(tmp_path / "p")


@pytest.mark.parametrize("fault", ["descending", "unfinished", "negative", "empty", "ratio"])
def test_hostile_tables_are_refused(tmp_path, fault):
    pool = tiny_pool("reason")
    values, thresholds, offsets = pool.tables.values.copy(), pool.tables.thresholds.copy(), pool.tables.offsets.copy()
    if fault == "descending":
        values[1] = values[0]
    elif fault == "unfinished":
        thresholds[offsets[1] - 1] -= 1
    elif fault == "negative":
        values[0] = -5
    elif fault == "empty":
        offsets[1] = offsets[2]
    else:
        ratio = pool.table[0, 0, 2]
        values[offsets[ratio + 1] - 1] = 501
    pool.save(tmp_path / "p", layout="packed")
    arrays = arrays_with(pool, values=values, thresholds=thresholds, offsets=offsets)
    save_arrays(tmp_path / "p" / "pool.npz", {"format": 1}, arrays)
    text = (tmp_path / "p" / "profile.toml").read_text()
    (tmp_path / "p" / "profile.toml").write_text(text[: text.index("\n[files]") + 1])
    with pytest.raises(ProfileError, match=r"ascend|thresholds that end|from 0 on|reason_ratio up to 500"):
        sg.load_profile(tmp_path / "p")


def test_truncated_compressed_and_foreign_files_of_arrays_are_refused(tmp_path):
    pool = tiny_pool()
    pool.save(tmp_path / "p", layout="packed")
    file = tmp_path / "p" / "pool.npz"
    data = file.read_bytes()
    text = (tmp_path / "p" / "profile.toml").read_text()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:cut])
        (tmp_path / "p" / "profile.toml").write_text(text)
        with pytest.raises(ProfileError, match="by its SHA-256"):
            sg.load_profile(tmp_path / "p")
        (tmp_path / "p" / "profile.toml").write_text(text[: text.index("\n[files]") + 1])
        with pytest.raises(ProfileError, match="complete file of arrays"):
            sg.load_profile(tmp_path / "p")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # small on disk, large in memory
        archive.writestr("rate_rps.npy", bytes(1 << 20))
    with pytest.raises(ProfileError, match="compressed, or larger than the file"):
        sg.load_profile(tmp_path / "p")
    save_arrays(file, {"format": 99}, pool.arrays())
    with pytest.raises(ProfileError, match="in format 1, got 99"):
        sg.load_profile(tmp_path / "p")
    file.unlink()
    with pytest.raises(ProfileError, match="a readable file of arrays"):
        sg.load_profile(tmp_path / "p")


def test_a_link_out_of_the_directory_is_refused(tmp_path):
    tiny_pool().save(tmp_path / "p")
    shutil.move(tmp_path / "p" / "pool.npz", tmp_path / "elsewhere")
    (tmp_path / "p" / "pool.npz").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProfileError, match="names of files in this directory"):
        sg.load_profile(tmp_path / "p")


def test_the_types_of_arrays_are_those_of_pools():
    pool = surrounded(talking()).with_shares_of(surrounded(talking()))
    assert {name: np.dtype(t) for name, t in packed_arrays.TYPES.items()} == {
        name: array.dtype for name, array in pool.arrays().items()
    }


def test_commands_take_a_directory_and_say_what_is_in_it(tmp_path, capsys):
    assert main(["save", "deepseek-r1", "--clients", "30", "-o", str(tmp_path / "p")]) == 0
    assert main(["generate", str(tmp_path / "p"), "--duration", "5m", "--quiet", "-o", str(tmp_path / "a.csv")]) == 0
    plain = ["generate", "deepseek-r1", "--clients", "30", "--duration", "5m", "--quiet", "-o", str(tmp_path / "b.csv")]
    assert main(plain) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    named = [
        "generate",
        str(tmp_path / "p" / "profile.toml"),
        "--duration",
        "5m",
        "--quiet",
        "-o",
        str(tmp_path / "c.csv"),
    ]
    assert main(named) == 0
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    naive = ["generate", "--naive", "gamma", "--rate", "2", "--duration", "5m", "--quiet"]
    assert main([*naive, str(tmp_path / "p"), "-o", str(tmp_path / "n.csv")]) == 0  # clients, no directory of a trace
    assert main([*naive, "deepseek-r1", "--clients", "30", "-o", str(tmp_path / "m.csv")]) == 0
    assert (tmp_path / "n.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()
    capsys.readouterr()
    sg.save_profile(
        tiny_pool(), tmp_path / "f", fit={"horizon_s": 600.0, "notes": ["stamps of 1 s"], "ks": {"input": 0.02}}
    )
    assert main(["inspect", str(tmp_path / "f")]) == 0
    text = capsys.readouterr().out
    assert "horizon_s   600" in text
    assert "stamps of 1 s" in text
    assert "input 0.02" in text
    assert main(["inspect", str(tmp_path / "f"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fit"] == read_about(tmp_path / "f")
    turns = ["generate", "m-small", "--clients", "9", "--conversations", str(tmp_path / "p" / "profile.toml")]
    assert main([*turns, "--duration", "1m", "--warmup", "10m", "--quiet", "-o", str(tmp_path / "t.csv")]) == 0


def test_commands_refuse_in_words(tmp_path, capsys):
    tiny_pool(contexts=(500,), family=GAMMA).save(tmp_path / "p")
    assert main(["save", str(tmp_path / "p"), "--layout", "servegen", "-o", str(tmp_path / "q")]) == 2
    assert "context limits; choose" in capsys.readouterr().err
    assert main(["generate", str(tmp_path / "p"), "--clients", "3", "-o", str(tmp_path / "x.csv")]) == 2
    assert "use --resample" in capsys.readouterr().err
    (tmp_path / "p" / "pool.npz").unlink()
    assert main(["generate", str(tmp_path / "p"), "-o", str(tmp_path / "x.csv")]) == 2
    assert "copy it here as well" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p"]


def test_a_saved_profile_gives_its_environment_to_other_pools(tmp_path):
    moved = tiny_pool().with_environment(sg.Environment(sg.Margin.gamma(variance=0.4), {2: 1.0}))
    moved.save(tmp_path / "mine")
    assert tiny_pool().with_environment(str(tmp_path / "mine")).digest() == moved.digest()
