"""Ids of blocks against literal streams of tokens: the same blocks are shared, and no others."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from gates import check, passes
from profiles import TURNS, tiny_pool, write_servegen
from scipy import stats
from traces import same

import servegen_gpu as sg
from servegen_gpu import OptionError, Ragged, Trace
from servegen_gpu.cli import main
from servegen_gpu.formats.flow import chunks
from servegen_gpu.prefixes import ids as module
from servegen_gpu.prefixes.ranks import NOBODY, ranks

SIZES = (1, 7, 16, 512)
PINNED = [
    [6980258120278835594, 2532485372627197606, 5772504475877831344],
    [6980258120278835594, 2532485372627197606, 2388560584146862661, 5351203057103238945],
    [6980258120278835594, 1351748725532195299],
]
ALONE = [[8285899937944395284], [6394984874003871269], [2546682633466131069]]
"""Of a request alone, for small and large seeds."""
LENGTHS = [21, 4, 12, 0, 11, 19]
ZEROS = np.zeros(5, np.int32)
KINDS = ("history", "sorted", "edit")
LIMIT = 1500


# -- the oracle: every request's tokens, one by one --------------------------------------------------------------------


@dataclass
class Chat:
    """A conversation whose context is a list of tokens, each of them one of a kind."""

    client: int
    number: int
    prompt: int  # tokens of the client's system prompt
    serial: itertools.count
    context: list = field(default_factory=list)
    last_input: int = 0

    def grow(self, length):
        """Up to a length: below the prompt's end its tokens, beyond it tokens that nobody has had."""
        for at in range(len(self.context), length):
            self.context.append(("prompt", self.client, at) if at < self.prompt else next(self.serial))

    def next_turn(self, kind, new, output):
        self.grow(len(self.context) + new)
        fits = min(len(self.context), LIMIT - output)
        cut = fits < len(self.context)
        tokens = self.context
        if cut:  # the prompt, then the latest tokens
            prompt, rest = self.context[: self.prompt], self.context[self.prompt :]
            tokens = (prompt + rest[len(rest) - max(fits - len(prompt), 0) :])[:fits]
        tokens = list(tokens)
        if kind == "history":
            self.grow(len(self.context) + output)
        return tokens, len(tokens) if cut else new

    def sorted_turn(self, length):
        self.grow(length)
        before, self.last_input = self.last_input, length
        return list(self.context), length - before


def random_trace(kind, system_tokens, seed, chats=60):
    """A trace of conversations in turns and in disorder, and the tokens of every request."""
    rng, serial = random.Random(seed), itertools.count()
    todo = []
    for number in rng.sample(range(2**62), chats):
        client, turns = rng.randrange(6), rng.choice([1, 1, 2, 3, 5, 9])
        prompt = system_tokens.get(client, 0) if isinstance(system_tokens, dict) else system_tokens
        chat = Chat(client, number, prompt, serial)
        lengths = sorted(rng.choice([rng.randint(1, 60), rng.randint(1, LIMIT)]) for _ in range(turns))
        if turns == 1 and rng.random() < 0.2:
            lengths = [0]
        first = max(lengths[0], min(prompt, rng.randint(0, 900)))
        todo.append([(chat, turn, lengths[turn - 1], first) for turn in range(turns, 0, -1)])
    rows, streams = [], []
    while todo:
        left = rng.choice(todo)
        chat, turn, length, first = left.pop()
        todo = [other for other in todo if other]
        output = rng.choice([1, rng.randint(1, 40), rng.randint(1, 500)])
        if kind == "sorted":
            tokens, new = chat.sorted_turn(length)
        else:
            tokens, new = chat.next_turn(kind, min(first, 990) if turn == 1 else rng.randint(0, 100), output)
        rows.append((len(rows) * 7, chat.client, len(tokens), output, chat.number, turn, new))
        streams.append(tokens)
    names = ("arrival_us", "client", "input_tokens", "output_tokens", "conversation", "turn", "new_tokens")
    types = (np.int64, np.int32, np.int32, np.int32, np.int64, np.int32, np.int32)
    columns = {name: np.array(c, t) for name, t, c in zip(names, types, zip(*rows, strict=True), strict=True)}
    return Trace(columns, first_row=1000), streams


def oracle(streams, size):
    """Ids in order of first appearance, by a dictionary of whole beginnings; a block that is not full is its own."""
    known, rows = {}, []
    for row, tokens in enumerate(streams):
        ids = []
        for at in range(0, len(tokens), size):
            block = tuple(tokens[at : at + size])
            beginning = (ids[-1] if ids else None, block)
            ids.append(known.setdefault(beginning if len(block) == size else (row, "tail"), len(known)))
        rows.append(ids)
    return rows


def agrees(trace, streams, size, **keywords):
    return [row.tolist() for row in sg.hash_ids(trace, size, dense=True, **keywords)] == oracle(streams, size)


# -- what is shared ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system_tokens", [0, 5, 64, 700, {0: 16, 3: 401, 5: 2000}], ids=str)
def test_shares_what_the_tokens_share(kind, size, system_tokens):
    for seed in range(3):
        trace, streams = random_trace(kind, system_tokens, seed)
        assert agrees(trace, streams, size, system_tokens=system_tokens)


def test_the_random_conversations_have_every_case():
    trace, _ = random_trace("history", 64, 1)
    cut = (trace["turn"] > 1) & (trace["new_tokens"] == trace["input_tokens"])
    assert 5 < cut.sum() < len(trace) / 2
    assert (trace["input_tokens"] < 64).any()
    sizes, _ = random_trace("sorted", 0, 1)
    assert (sizes["input_tokens"] == 0).any()
    assert ((sizes["input_tokens"] % 16 == 0) & (sizes["input_tokens"] > 0)).any()


def owners_with(**changed):
    """`_owners` with a defect."""
    right = module._owners

    def owners(columns, *place):
        owner, shares, own, whose = right(columns, *place)
        return (
            changed.get("owner", lambda o: o)(owner),
            changed.get("shares", lambda s: s)(shares),
            changed.get("own", lambda o: o)(own),
            whose,
        )

    return owners


DEFECTS = {
    "tails and cut turns in the history": {"own": lambda own: own & np.uint64(0)},
    "cut turns share the history": {"shares": lambda shares: shares | True},
    "no history": {"shares": lambda shares: shares & False},
    "one conversation for all": {"owner": lambda owner: owner & np.uint64(0)},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_oracle_notices_wrong_owners(monkeypatch, defect):
    trace, streams = random_trace("history", 64, 1)
    assert agrees(trace, streams, 16, system_tokens=64)
    monkeypatch.setattr(module, "_owners", owners_with(**DEFECTS[defect]))
    assert not agrees(trace, streams, 16, system_tokens=64)


def test_the_oracle_notices_wrong_blocks(monkeypatch):
    trace, streams = random_trace("sorted", 64, 1)
    assert not agrees(trace, streams, 16)  # no system prompts
    assert not agrees(trace, streams, 16, system_tokens=80)
    monkeypatch.setattr(module, "STEP", np.uint64(0))
    assert not agrees(trace, streams, 16, system_tokens=64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_turn_begins_with_the_full_blocks_of_the_turn_before(kind, size):
    trace, _ = random_trace(kind, 0, 4)
    ids, before, seen = sg.hash_ids(trace, size), {}, 0
    for row in range(len(trace)):
        chat, tokens, new = (int(trace[name][row]) for name in ("conversation", "input_tokens", "new_tokens"))
        earlier, earlier_tokens = before.get(chat, (np.zeros(0), 0))
        mine = ids[row]
        n = min(len(mine), len(earlier))
        common = int((np.cumprod(mine[:n] == earlier[:n])).sum())
        cut = trace["turn"][row] > 1 and new == tokens
        assert common == (0 if cut else earlier_tokens // size)
        if kind != "history":
            assert common == (0 if cut else (tokens - new) // size)
        seen += common > 0
        assert not set(mine[common:].tolist()) & set(earlier.tolist())
        before[chat] = mine, tokens
    assert seen or size == 512


def test_an_empty_input_before_shares_nothing_too_much():
    """A turn that follows an empty one looks as if its history were cut: it may share less, never more."""
    columns = {"client": [1] * 4, "conversation": [5] * 4, "turn": [1, 2, 3, 4]}
    columns |= {"input_tokens": [0, 8, 12, 16], "new_tokens": [0, 8, 4, 4]}
    trace = Trace({name: np.array(column, np.int32) for name, column in columns.items()})
    ids = sg.hash_ids(trace, 4)
    assert ids.lengths.tolist() == [0, 2, 3, 4]
    assert not set(ids[1].tolist()) & set(ids[2].tolist())
    assert ids[3][:3].tolist() == ids[2].tolist()


@pytest.mark.parametrize("category", ["language", "reason"])
@pytest.mark.parametrize("growth", KINDS)
def test_conversations_of_the_package(growth, category):
    pool = replace(tiny_pool(category, 5, contexts=(3000, 0, 900)), turn_models=(TURNS[growth],), turn_model=ZEROS)
    trace = sg.generate(pool, rate=2, duration=3000, seed=3, memory="50MB")
    ids, before, cuts, lost = sg.hash_ids(trace, 16), {}, 0, set()
    for row, chat in enumerate(trace["conversation"].tolist()):
        tokens, turn = int(trace["input_tokens"][row]), int(trace["turn"][row])
        cut = turn > 1 and trace["new_tokens"][row] == tokens
        assert cut or chat not in lost
        lost |= {chat} if cut else set()
        shared = set(ids[row].tolist()) & set(before.get(chat, []))
        assert len(shared) == (0 if cut else len(before.get(chat, [])))
        before.setdefault(chat, [])
        if not cut:
            before[chat] = ids[row][: tokens // 16].tolist()
        cuts += cut
    assert (cuts > 20) == (growth != "sorted")
    for shards in (1, 3):
        parts = [sg.stream(pool, rate=2, duration=3000, seed=3, shard=(k, shards)) for k in range(shards)]
        slabs = [slab for part in parts for slab in sg.hash_slabs(part, 16)]
        assert [row.tolist() for row in Trace.concat(slabs)["hash_ids"]] == [row.tolist() for row in ids]


def test_single_requests_share_system_prompts_only():
    rng = np.random.default_rng(3)
    client, tokens = rng.integers(0, 5, 400, dtype=np.int32), rng.integers(0, 300, 400, dtype=np.int32)
    columns = {"arrival_us": np.sort(rng.integers(0, 50, 400)) + (5 << 40), "client": client, "input_tokens": tokens}
    trace = Trace(columns)
    serial = itertools.count()
    streams = [
        [("prompt", c, at) if at < 70 else next(serial) for at in range(n)]
        for c, n in zip(client.tolist(), tokens.tolist(), strict=True)
    ]
    for size in SIZES:
        assert agrees(trace, streams, size, system_tokens=70)
    whole = sg.hash_ids(trace, 7)
    for later_us in (50, 1 << 40):
        elsewhere = Trace(columns | {"arrival_us": columns["arrival_us"] + later_us})
        assert not np.isin(whole.values, sg.hash_ids(elsewhere, 7).values).any()
    trace = Trace(columns, {"start_s": "today", "changes": [{"from_s": -1.0}, 3]}, first_row=77)  # that says no start
    assert same(Trace({"h": sg.hash_ids(trace, 7)}), Trace({"h": whole}))


# -- requests that stand alone are known by what they are, not by where they lie ---------------------------------------


def crowd():
    """Clients of bursts, with several requests in many a microsecond."""
    lengths = {"input_tokens": sg.distributions.Exponential(40), "output_tokens": 9}
    return sg.pool([sg.client(rate=5, arrivals="gamma", cv=30, count=3, **lengths)])


def alone(**keywords):
    return sg.generate(crowd(), seed=4, **keywords)


def lists(ids):
    return [row.tolist() for row in ids]


def starts_agree():
    whole, later = alone(duration="1h"), alone(start="25m", duration="35m")
    cut = whole.between("25m")
    ids = lists(sg.hash_ids(whole, 16))[len(whole) - len(later) :]
    assert cut["arrival_us"].tolist() == later["arrival_us"].tolist()
    same_times = whole.between("25m", keep_times=True)
    return all(lists(sg.hash_ids(part, 16)) == ids for part in (later, cut, same_times, cut.between("0s")))


def shards_agree():
    shares = [sg.stream(crowd(), seed=4, duration="1h", shard=(k, 3)) for k in range(3)]
    joined = Trace.concat([piece for share in shares for piece in sg.hash_slabs(share, 16)])
    joined = joined.take(np.argsort(joined["arrival_us"], kind="stable"))
    return lists(joined["hash_ids"]) == lists(sg.hash_ids(alone(duration="1h"), 16))


def slabs_agree():
    whole = alone(duration="10m")
    slabs = [whole.rows(a, a + 3) for a in range(0, len(whole), 3)]
    return lists(Trace.concat(list(sg.hash_slabs(slabs, 16)))["hash_ids"]) == lists(sg.hash_ids(whole, 16))


AGREE = (starts_agree, shards_agree, slabs_agree)
WRONG = {
    "row numbers": ("ranks", lambda arrival_us, client, before=None: (np.arange(len(client)), before), AGREE),
    "no rank": ("ranks", lambda arrival_us, client, before=None: (np.zeros(len(client), np.int64), before), ()),
    "ranks of every slab": ("ranks", lambda arrival_us, client, before=None: ranks(arrival_us, client), (slabs_agree,)),
    "times of the trace": ("start_us_of", lambda provenance: 0, (starts_agree,)),
}


@pytest.mark.parametrize("agree", AGREE)
def test_ids_of_single_requests_are_the_same_in_every_part_of_a_trace(agree):
    assert agree()


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_addresses_of_single_requests_are_found(wrong, monkeypatch):
    trace = alone(duration="10m")
    blocks = len(np.unique(sg.hash_ids(trace, 16).values))
    assert blocks == len(sg.hash_ids(trace, 16).values)
    name, defect, found_by = WRONG[wrong]
    monkeypatch.setattr(module, name, defect)
    assert [agree for agree in AGREE if not agree()] == list(found_by)
    shared = len(np.unique(sg.hash_ids(trace, 16).values)) < blocks
    assert shared == (wrong == "no rank")


def test_ranks_count_earlier_requests_of_the_client_and_microsecond():
    rng = np.random.default_rng(8)
    for times in (np.sort(rng.integers(0, 90, 500)), rng.integers(0, 90, 500), np.zeros(500, np.int64), np.arange(500)):
        clients, seen, expected = rng.integers(0, 4, 500), Counter(), []
        for address in zip(times.tolist(), clients.tolist(), strict=True):
            expected.append(seen[address])
            seen[address] += 1
        assert ranks(times, clients)[0].tolist() == expected
        edges, last, found = [0, 0, *np.sort(rng.integers(0, 500, 200)).tolist(), 500], NOBODY, []
        for a, b in itertools.pairwise(edges):
            rank, last = ranks(times[a:b], clients[a:b], last)
            found += rank.tolist()
        if (np.diff(times) >= 0).all():  # slabs come in order of time
            assert found == expected


def test_negative_conversations_are_requests_that_stand_alone():
    columns = {"client": [3, 3, 3, 3], "conversation": [-5, 2, -6, 2], "turn": [1, 1, 1, 2]}
    columns |= {"input_tokens": [40, 40, 40, 72], "new_tokens": [40, 40, 40, 32]}
    trace = Trace({name: np.array(column) for name, column in columns.items()}, first_row=9)
    ids = lists(sg.hash_ids(trace, 16))
    assert ids[3][:2] == ids[1][:2]
    assert len(set(itertools.chain.from_iterable(ids))) == sum(map(len, ids)) - 2
    part = trace.take(np.array([2, 1]))
    assert lists(sg.hash_ids(part, 16)) == [ids[2], ids[1]]


def test_hits_of_a_cache_that_never_forgets():
    trace, streams = random_trace("history", 64, 7)
    held, expected = set(), []
    for row in oracle(streams, 16):
        expected.append(sum(block in held for block in row))
        held.update(row)
    hits = sg.prefix_hits(trace, 16, system_tokens=64)
    assert hits.tolist() == expected
    assert hits.dtype == np.int64
    assert sg.prefix_hits(trace.rows(0, 0), 16).tolist() == []


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_ids_are_a_promise():
    columns = {"client": [3, 3, 3], "conversation": [2**40, 2**40, 7], "turn": [1, 2, 2]}
    columns |= {"input_tokens": [1200, 1600, 700], "new_tokens": [1200, 300, 700]}
    trace = Trace({name: np.array(column) for name, column in columns.items()})
    ids = [row.tolist() for row in sg.hash_ids(trace, system_tokens=600)]
    assert ids == PINNED
    assert sg.hash_ids(trace, system_tokens=600, seed=1)[0].tolist() != ids[0]
    edges = Trace(columns | {"arrival_us": [1, 2, 3], "input_tokens": [1024, 1025, 512], "new_tokens": [1, 1, 1]})
    assert [len(row) for row in sg.hash_ids(edges)] == [2, 3, 1]  # of 512 tokens
    alone = Trace({"arrival_us": np.array([5]), "client": np.array([1], np.int32), "input_tokens": np.array([3000])})
    assert [sg.hash_ids(alone, 3000, seed=seed).values.tolist() for seed in (0, 2**31, 2**63 + 5)] == ALONE


@pytest.mark.parametrize("size", [1, 16])
def test_ids_do_not_depend_on_slabs_or_threads(monkeypatch, size):
    trace, _ = random_trace("history", 64, 2, chats=150)
    whole = sg.hash_ids(trace, size, system_tokens=64)
    assert whole.values.dtype == np.int64
    assert len(whole.values) > 2 * module.BLOCK or size > 1
    for edges in ([0, 1, 1, 50, len(trace)], [0, 3, len(trace) - 1, len(trace)]):
        parts = [sg.hash_ids(trace.rows(a, b), size, system_tokens=64) for a, b in itertools.pairwise(edges)]
        assert same(Trace({"h": Ragged.concat(parts)}), Trace({"h": whole}))
    for block in (1, 64, 1000):
        monkeypatch.setattr("servegen_gpu.blocks.BLOCK", block)
        few = trace.rows(0, 20)
        assert sg.hash_ids(few, size, system_tokens=64).values.tolist() == whole.rows(0, 20).values.tolist()


def test_pieces_of_slabs_are_the_trace(monkeypatch):
    trace, _ = random_trace("sorted", 0, 2)
    monkeypatch.setattr("servegen_gpu.prefixes.PIECE_BLOCKS", 100)
    pieces = list(sg.hash_slabs([trace.rows(0, 5), trace.rows(5, 5), trace.rows(5, len(trace))], 16))
    sizes = [len(piece["hash_ids"].values) for piece in pieces]
    assert 20 < len(pieces) < len(trace) / 2
    assert all(size <= 100 or len(piece) == 1 for size, piece in zip(sizes, pieces, strict=True))
    whole = trace.with_hash_ids(16)
    assert same(Trace.concat(pieces), whole)
    assert pieces[0].provenance == whole.provenance
    assert [p.first_row for p in pieces] == (1000 + np.cumsum([0, *map(len, pieces[:-1])])).tolist()
    assert whole.provenance["hash_ids"] == {"block_tokens": 16, "system_tokens": 0, "seed": 0}


@pytest.mark.statistical
def test_ids_of_a_million_blocks_differ_and_look_random():
    n = 2000
    columns = {"arrival_us": np.arange(n), "client": np.arange(n) % 3, "input_tokens": np.full(n, 500)}
    ids = sg.hash_ids(Trace(columns), 1).values
    assert ids.min() >= 0
    assert len(np.unique(ids)) == len(ids) == n * 500
    for what, shift in (("low byte", 0), ("middle byte", 30), ("high byte", 55)):
        counts = np.bincount((ids >> shift) & 255, minlength=256)
        check(float(stats.chisquare(counts).pvalue), what)
    stuck = np.bincount((ids | 1) & 255, minlength=256)
    assert not passes(float(stats.chisquare(stuck).pvalue))


def test_drawn_lengths_are_a_promise():
    """The first value whose words hold the client's word; and a client's length wherever it stands in a mapping."""
    drawn = module.system_prompts(sg.distributions.Pmf([0, 10, 35], [1, 2, 1])).tokens
    with pytest.raises(
        OptionError, match=r"tokens of a system prompt within its bounds, got .* above 1,048,576; state"
    ):
        module.system_prompts(sg.distributions.LogNormal(1e6, 5))
    words = np.array([0, 2**30 - 1, 2**30, 3 * 2**30 - 1, 3 * 2**30, 2**32 - 1], np.uint64)
    assert drawn(np.arange(6), lambda client: words).tolist() == [0, 0, 10, 10, 35, 35]
    trace = Trace({"arrival_us": np.arange(12), "client": np.arange(12), "input_tokens": np.full(12, 40)})
    wide = sg.distributions.Uniform(0, 41)
    lengths = sg.prefix_hits(Trace.concat([trace, Trace(trace.columns, {}, 12)]), 1, system_tokens=wide)[12:]
    assert lengths[:6].tolist() == LENGTHS
    stated = {7: 5, 2: 9, 11: 1}
    both = sg.prefix_hits(Trace.concat([trace, Trace(trace.columns, {}, 12)]), 1, system_tokens=stated)[12:]
    assert both.tolist() == [stated.get(client, 0) for client in range(12)]


@pytest.mark.statistical
def test_lengths_drawn_by_client():
    n = 4000
    chances = {0: 1, 10: 2, 35: 1}
    client = np.tile(np.arange(n), 2)
    columns = {"arrival_us": np.arange(2 * n), "client": client, "input_tokens": np.full(2 * n, 40)}
    trace = Trace(columns)
    drawn = sg.distributions.Pmf(list(chances), list(chances.values()))
    hits = sg.prefix_hits(trace, 1, system_tokens=drawn)
    assert not hits[:n].any()  # nobody has another's prompt
    counts = [(hits[n:] == tokens).sum() for tokens in chances]
    assert sum(counts) == n
    check(float(stats.chisquare(counts, np.array([1, 2, 1]) * n / 4).pvalue), "lengths of system prompts")
    assert not passes(float(stats.chisquare(counts, np.array([2, 1, 1]) * n / 4).pvalue))
    back = trace.rows(n, 2 * n)  # a client's length is its own, whoever else is there
    assert sg.hash_ids(back, 1, system_tokens=drawn).values.tolist() == (
        sg.hash_ids(trace, 1, system_tokens=drawn).rows(n, 2 * n).values.tolist()
    )
    again = sg.prefix_hits(trace, 1, system_tokens=stats.uniform(0, 40))[n:]
    assert 15 < again.mean() < 25


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "parts/"])
def test_files_carry_ids(tmp_path, monkeypatch, name):
    for most in ("CHUNK_IDS", "TEXT_CHUNK_IDS"):
        monkeypatch.setattr(f"servegen_gpu.formats.{most}", 300)
    trace, _ = random_trace("history", 64, 5)
    trace = trace.with_hash_ids(16, system_tokens=64)
    assert trace.schema()["hash_ids"] == "list<int64>"
    sg.formats.write_stream([trace], f"{tmp_path}/{name}")
    back = sg.read_trace(f"{tmp_path}/{name}")
    assert same(trace, back)
    assert back.provenance == trace.provenance
    pieces = sg.hash_slabs([trace.rows(0, 31), trace.rows(31, len(trace))], 16, system_tokens=64)
    (tmp_path / "again").mkdir()
    sg.formats.write_stream(pieces, f"{tmp_path}/again/{name}")
    first = sorted(p for p in tmp_path.rglob("*") if p.is_file() and "again" not in p.parts)
    again = sorted(p for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def test_long_lists_come_in_small_chunks():
    """As many rows as fit, the same for every way to cut a trace into slabs, never across a whole chunk's end."""
    rng = np.random.default_rng(2)
    n, most, rows = 5000, 100, 64
    tokens = rng.choice([0, 1, 3, 40, 150], n, p=[0.1, 0.6, 0.2, 0.09, 0.01])
    trace = Trace({"arrival_us": np.arange(n), "client": tokens, "input_tokens": tokens}).with_hash_ids(1)
    sizes, ids, left = [0], 0, rows
    for row in range(n):  # a row at a time
        if left == 0 or (sizes[-1] and ids + tokens[row] > most):
            sizes.append(0)
            ids, left = 0, left or rows
        sizes[-1] += 1
        ids += tokens[row]
        left -= 1
    for pieces in (1, 7, 900):
        edges = [0, *np.sort(rng.integers(0, n, pieces)).tolist(), n]
        slabs = [trace.rows(a, b) for a, b in itertools.pairwise(edges)]
        found = list(chunks(slabs, rows, most))
        assert [len(chunk) for chunk in found] == sizes
        assert same(Trace.concat(found), trace)
    without = Trace({name: trace[name] for name in ("arrival_us", "client")})
    assert [len(chunk) for chunk in chunks([without], rows, most)] == [64] * 78 + [8]


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
def test_command_writes_ids(tmp_path, capsys, name):
    write_servegen(tmp_path / "data", "language", "tiny")
    command = ["generate", "tiny", "--profiles", str(tmp_path / "data"), "--rate", "2", "--hash-ids", "16", "--quiet"]
    out = tmp_path / name
    assert main([*command, "--system-tokens", "40", "-o", str(out)]) == 0
    trace = sg.generate(sg.load_servegen(tmp_path / "data", "tiny"), rate=2).with_hash_ids(16, system_tokens=40)
    back = sg.read_trace(out)
    assert same(back, trace)
    assert back.provenance["hash_ids"] == {"block_tokens": 16, "system_tokens": 40, "seed": 0}
    assert main(["inspect", str(out), "--json"]) == 0
    lengths = json.loads(capsys.readouterr().out)["lengths"]
    assert "hash_ids" not in lengths
    assert lengths["hash_ids per request"]["max"] == trace["hash_ids"].lengths.max()


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hash-ids", "0"], "block_tokens of at least 1, got 0"),
        (["--hash-ids", "-4"], "block_tokens as an integer from 0 to 2147483647, got -4"),
        (["--hash-ids", "16", "--system-tokens", "-1"], "system_tokens as an integer from 0 to 2147483647, got -1"),
        (["--system-tokens", "9"], "--hash-ids with --system-tokens"),
    ],
)
def test_command_refuses(tmp_path, capsys, arguments, message):
    write_servegen(tmp_path / "data", "language", "tiny")
    command = ["generate", "tiny", "--profiles", str(tmp_path / "data"), "-o", str(tmp_path / "t.parquet"), "--quiet"]
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def refused(found: object) -> np.ndarray:
    """What NumPy makes of CuPy's arrays."""
    raise TypeError("implicit conversion is not allowed")


def test_columns_of_a_device_are_refused(monkeypatch):
    trace = Trace({"arrival_us": np.arange(3), "client": np.zeros(3, np.int32), "input_tokens": np.full(3, 9)})
    monkeypatch.setattr(module.np, "asarray", refused)
    with pytest.raises(OptionError, match=r"a trace in the host's memory, got .*: implicit.*device=True"):
        sg.hash_ids(trace)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"block_tokens": 0}, "block_tokens of at least 1"),
        ({"block_tokens": 16.0}, "block_tokens as an integer"),
        ({"system_tokens": -1}, "system_tokens as an integer from 0"),
        ({"system_tokens": True}, "system_tokens as an integer, as {client: tokens} or as a distribution, got bool"),
        ({"system_tokens": "many"}, "got str many"),
        ({"system_tokens": {3: -1}}, "system_tokens of client 3"),
        ({"system_tokens": {-3: 1}}, "a client of system_tokens"),
        ({"system_tokens": stats.norm(0, 100)}, "state min="),
        ({"seed": -1}, "seed as an integer"),
    ],
)
def test_refuses_arguments(keywords, message):
    trace, _ = random_trace("sorted", 0, 1, chats=2)
    for call in (sg.hash_ids, sg.prefix_hits, Trace.with_hash_ids, lambda t, **k: sg.hash_slabs([t], **k)):
        with pytest.raises(OptionError) as caught:
            call(trace, **keywords)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"client": None}, "a trace with the column 'client'"),
        ({"input_tokens": None}, "a trace with the column 'input_tokens'"),
        ({"turn": None, "new_tokens": None}, "all of conversation, turn, new_tokens, or none, got no turn, new_tokens"),
        ({"conversation": None, "turn": None, "new_tokens": None, "arrival_us": None}, "the column 'arrival_us'"),
        ({"input_tokens": [4, -1, 4]}, "input_tokens from 0 to 2,147,483,647, got -1 in row 1,001"),
        ({"input_tokens": [4, 2**31, 4]}, "got 2147483648 in row 1,001"),
        ({"input_tokens": [4, 2**31 - 1, 4]}, "input_tokens of at most 67,108,864 blocks, got 2147483647 in row 1,001"),
        ({"new_tokens": [4, 4, 5]}, "new_tokens of at most input_tokens, got 5 in row 1,002"),
        ({"turn": [1, 0, 1]}, "turn from 1 to 1,073,741,823, got 0 in row 1,001"),
        ({"turn": [1, 1, 2**30]}, "got 1073741824 in row 1,002"),
        (
            {"conversation": [-1, 1, -1]},
            "conversation below 0 of one request only, which stands alone, got -1 in row 1,002",
        ),
        (
            {"conversation": None, "turn": None, "new_tokens": None, "client": [1, 2**32, 1]},
            "client from 0 to 4,294,967",
        ),
        ({"client": [0.0, 1.0, 2.0]}, "integers in the column 'client', got float64"),
        ({"client": Ragged(np.arange(4), np.arange(3, dtype=np.int32))}, "got list<int32>"),
    ],
)
def test_refuses_columns(changed, message):
    names = ("arrival_us", "client", "input_tokens", "conversation", "new_tokens")
    columns = {name: [4, 4, 4] for name in names} | {"turn": [1, 1, 1]} | changed
    kept = {name: c if isinstance(c, Ragged) else np.array(c) for name, c in columns.items() if c is not None}
    with pytest.raises(OptionError) as caught:
        sg.hash_ids(Trace.trusted(kept, first_row=1000), 2)
    assert message in str(caught.value)
