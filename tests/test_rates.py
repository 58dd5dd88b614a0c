import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegen_gpu.errors import RateError
from servegen_gpu.rates import (
    ClockTables,
    Rate,
    Schedule,
    Targets,
    known_before,
    read_schedule,
    resolve_rate,
    schedule_notes,
    targets,
    window_means,
)

T = 600
US = 1_000_000


def clock_us(clock: ClockTables, window: int, words: np.ndarray) -> np.ndarray:
    """The map as a backend applies it, in uint64."""
    t = clock.table[window]
    s = slice(clock.offsets[t], clock.offsets[t + 1])
    at = np.searchsorted(clock.last[s], words)
    ahead = words.astype(np.uint64) - clock.first[s][at]
    return clock.start_us[s][at] + ((ahead * clock.slope[s][at]) >> np.uint64(32)).astype(np.int64)


def grid(n: int = 1 << 16) -> np.ndarray:
    return (((np.arange(n) + 0.5) / n) * 2**32).astype(np.uint64)


def check_tables(clock: ClockTables, window_s: int) -> None:
    """What every table must hold."""
    assert clock.offsets[:2].tolist() == [0, 1]
    assert (clock.last[0], clock.first[0], clock.start_us[0]) == (2**32 - 1, 0, 0)
    assert clock.slope[0] == window_s * US
    assert 0 <= clock.table.min() <= clock.table.max() < len(clock)
    for t in range(len(clock)):
        s = slice(clock.offsets[t], clock.offsets[t + 1])
        last, first = clock.last[s].astype(np.int64), clock.first[s].astype(np.int64)
        assert first[0] == 0
        assert last[-1] == 2**32 - 1
        assert (first[1:] == last[:-1] + 1).all()
        assert (last >= first).all()
        start = clock.start_us[s].astype(np.int64)
        for width, slope, begin, bound in zip(
            (last - first + 1).tolist(),
            clock.slope[s].tolist(),
            start.tolist(),
            np.append(start[1:], window_s * US).tolist(),
            strict=True,
        ):
            assert (width - 1) * slope < 2**64
            assert begin + ((width - 1) * slope >> 32) < bound


def of(rate: object, windows: int = 6, first: int = 0, window_s: int = T) -> Targets:
    result = targets(resolve_rate(rate), np.ones(windows), first, window_s)
    assert result.rps.shape == (windows,)
    assert result.clock.table.shape == (windows,)
    return result


def test_own_scaled_peak_and_constant_use_the_constant_table():
    own = np.array([1.0, 4.0, 0.0, 2.0])
    for rate, expected in (
        (resolve_rate(), own),
        (resolve_rate(scale=2.5), own * 2.5),
        (resolve_rate(peak=2), own / 2),
        (resolve_rate(peak=4), own),
        (resolve_rate(peak=9), own),
        (resolve_rate(7), np.full(4, 7.0)),
    ):
        result = targets(rate, own, 3, T)
        np.testing.assert_array_equal(result.rps, expected)
        assert not result.clock.table.any()
        check_tables(result.clock, T)
    np.testing.assert_array_equal(own, [1, 4, 0, 2])


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20), st.floats(1e-6, 1e6))
def test_peak_is_met_and_never_passed(own, bound):
    rps = targets(resolve_rate(peak=bound), np.array(own), 0, T).rps
    assert rps.max() <= max(bound, 0)
    assert rps.max() == pytest.approx(min(bound, max(own)), rel=1e-15)
    np.testing.assert_allclose(rps * max(own), np.array(own) * rps.max(), rtol=1e-14)


def test_steps_on_window_edges_are_exact_and_constant_inside():
    result = of([(0, 5), (600, 7.3), (1800, 0), (2400, 1 / 3)])
    np.testing.assert_array_equal(result.rps, [5, 7.3, 7.3, 0, 1 / 3, 1 / 3])
    assert not result.clock.table.any()


def test_steps_off_the_grid():
    result = of({1300: 7, 0: 5, 750.5: 0})  # a dict needs no order
    np.testing.assert_allclose(result.rps, [5, 5 * 150.5 / 600, 7 * 500 / 600, 7, 7, 7], rtol=1e-15)
    assert result.clock.table.tolist() == [0, 1, 2, 0, 0, 0]
    check_tables(result.clock, T)
    # where the rate is zero nothing falls
    assert clock_us(result.clock, 1, grid()).max() < 150.5 * US
    assert clock_us(result.clock, 2, grid()).min() >= 100 * US
    assert clock_us(result.clock, 1, np.array([0, 2**32 - 1], np.uint64)).tolist() == [0, 150_499_999]


def test_counts_follow_the_steps():
    result = of([(0, 1), (100, 9), (150.25, 0), (500, 2)], windows=1)
    t = clock_us(result.clock, 0, grid())
    share, _ = np.histogram(t, [0, 100 * US, 150_250_000, 500 * US, 600 * US])
    mass = np.array([100, 9 * 50.25, 0, 200])
    np.testing.assert_allclose(share / len(t), mass / mass.sum(), atol=2 / len(t))
    assert result.rps[0] == pytest.approx(mass.sum() / 600, rel=1e-15)


def test_linear_means_and_inverse_are_analytic():
    schedule = Schedule(np.array([0, 900.5, 3600]), np.array([0.0, 10, 4]), "linear")
    result = of(schedule)

    def integral(t: np.ndarray) -> np.ndarray:
        rise, fall = 10 / 900.5, -6 / (3600 - 900.5)
        up = np.minimum(t, 900.5)
        down = np.maximum(t - 900.5, 0)
        return rise * up**2 / 2 + 10 * down + fall * down**2 / 2

    edges = np.arange(7) * 600.0
    np.testing.assert_allclose(result.rps, np.diff(integral(edges)) / 600, rtol=1e-12)
    check_tables(result.clock, T)
    x = grid()
    for w in range(6):
        t = clock_us(result.clock, w, x) / US + 600 * w
        part = (integral(t) - integral(edges[w])) / (integral(edges[w + 1]) - integral(edges[w]))
        # within a second density is taken as constant: off by at most slope/8 of a request out of rps * 600
        np.testing.assert_allclose(part, x / 2**32, atol=3e-6)


def test_functions_are_integrated_between_seconds():
    result = of(lambda t: 50 + 40 * np.sin(t / 500), windows=20, first=7)
    edges = (7 + np.arange(21)) * 600.0
    integral = 50 * edges - 40 * 500 * np.cos(edges / 500)
    np.testing.assert_allclose(result.rps, np.diff(integral) / 600, rtol=1e-6)
    check_tables(result.clock, T)
    x = grid()
    for w in (0, 3, 19):
        t = clock_us(result.clock, w, x) / US + edges[w]
        part = (50 * t - 20_000 * np.cos(t / 500) - integral[w]) / (integral[w + 1] - integral[w])
        np.testing.assert_allclose(part, x / 2**32, atol=1e-5)


def test_functions_with_jumps_at_whole_seconds_are_exact():
    by_window = of(lambda t: 5.0 + (t // 600), windows=4)
    np.testing.assert_array_equal(by_window.rps, [5, 6, 7, 8])
    assert not by_window.clock.table.any()
    jump = of(lambda t: 1 if t < 300 else 3, windows=1)
    assert jump.rps[0] == 2
    assert clock_us(jump.clock, 0, np.array([2**30 - 1, 2**30], np.uint64)).tolist() == [299_999_999, 300_000_000]


def test_functions_that_refuse_arrays_give_the_same():
    smooth = of(lambda t: 5 + np.cos(t / 100))
    for function in (lambda t: 5 + math.cos(t / 100), lambda t: np.float64(5 + math.cos(t / 100))):
        scalar = of(function)
        np.testing.assert_allclose(scalar.rps, smooth.rps, rtol=1e-14)
    np.testing.assert_array_equal(of(lambda t: 4).rps, 4)
    np.testing.assert_array_equal(of(lambda t: np.array(4)).rps, 4)


@pytest.mark.parametrize(
    "bad",
    [
        lambda t: np.full_like(t, np.nan),
        lambda t: t * 0 - 1.0,
        lambda t: np.where(t == 700, np.inf, 1.0),
        lambda t: "5",
        lambda t: True,
        lambda t: None,
        lambda t: [1, 2],
        lambda t: {}[t],
        lambda t: 1j + t,
    ],
)
def test_bad_functions_are_refused_by_name(bad):
    with pytest.raises(RateError, match=r"lambda.* at \d+"):
        of(bad)


@st.composite
def schedules(draw):
    kind = draw(st.sampled_from(["steps", "linear"]))
    gaps = draw(st.lists(st.integers(1, 3 * 600 * 8), min_size=1, max_size=8))
    times = np.cumsum([-8, *gaps]) / 8
    rates = draw(st.lists(st.sampled_from([0.0, 1e-9, 0.25, 3.0, 1e6]), min_size=len(times), max_size=len(times)))
    if not any(rates):
        rates[0] = 1.0
    if kind == "linear":
        times[-1] = max(times[-1], 5 * 600)
    return Schedule(times, np.array(rates), kind)


@settings(deadline=None, max_examples=60)
@given(schedules(), st.integers(0, 3), st.integers(1, 2))
def test_schedule_properties(schedule, first, windows):
    whole = of(schedule, windows=5)
    check_tables(whole.clock, T)
    words = np.unique(np.append(grid(1 << 10), [0, 2**32 - 1])).astype(np.uint64)
    for w in np.flatnonzero(whole.rps > 0):
        t = clock_us(whole.clock, w, words)
        assert (np.diff(t) >= 0).all()
        assert t[0] >= 0
        assert t[-1] < T * US
        if schedule.kind == "steps":
            absolute = w * T * US + t
            assert (schedule.rates_rps[np.searchsorted(schedule.times_us, absolute, side="right") - 1] > 0).all()

    part = of(schedule, windows=windows, first=first)
    np.testing.assert_array_equal(part.rps, whole.rps[first : first + windows])
    for w in range(windows):
        a, b = part.clock.table[w], whole.clock.table[first + w]
        assert (a == 0) == (b == 0)
        for name in ("last", "first", "start_us", "slope"):
            mine, theirs = getattr(part.clock, name), getattr(whole.clock, name)
            np.testing.assert_array_equal(
                mine[part.clock.offsets[a] : part.clock.offsets[a + 1]],
                theirs[whole.clock.offsets[b] : whole.clock.offsets[b + 1]],
            )


@pytest.mark.parametrize("function", [lambda t: 1e3 + t % 997, lambda t: 2 + math.sin(t)])
def test_function_tables_do_not_depend_on_the_span(function):
    whole, part = of(function, windows=9), of(function, windows=2, first=5)
    np.testing.assert_array_equal(part.rps, whole.rps[5:7])
    for name in ("last", "first", "start_us", "slope"):
        np.testing.assert_array_equal(getattr(part.clock, name)[1:601], getattr(whole.clock, name)[3001:3601])


@pytest.mark.parametrize("window_s", [1, 7, 4294])
def test_windows_of_any_length(window_s):
    result = of(Schedule([0, 1e5], [1, 9], "linear"), windows=3, window_s=window_s)
    check_tables(result.clock, window_s)
    middle = (np.arange(3) + 0.5) * window_s
    np.testing.assert_allclose(result.rps, 1 + 8e-5 * middle, rtol=1e-12)


def test_extreme_rates_keep_their_tables():
    tiny = of([(0, 1e-320), (300, 5e-324), (600, 1e12), (900, 1e-320)], windows=2)
    check_tables(tiny.clock, T)
    assert clock_us(tiny.clock, 1, grid()).max() < 300 * US
    assert tiny.rps[1] == pytest.approx(5e11)


def test_a_peak_before_the_trace_is_that_of_the_trace_and_scales_nobody_up():
    """For conversations that begin before it: own rates times what brings the trace's busiest window to the peak."""
    for unit in (1.0, 0.125):
        own = np.array([1.0, 4.0, 2.0]) * unit
        for peak, factor in ((2.0, 0.5), (4.0, 1.0), (9.0, 1.0)):
            before = known_before(resolve_rate(peak=peak * unit), own, -600, 0, 0)
            assert (before.kind, before.value) == ("scaled", factor)


@pytest.mark.parametrize(("first_s", "known"), [(-600, False), (-599, True), (299, True), (300, True), (301, False)])
def test_a_schedule_that_a_trace_begins_in_has_its_first_rate_before(first_s, known):
    """From -600 s on, of a trace that begins at 300 s."""
    rate = resolve_rate(Schedule([first_s, 900], [3, 5]))
    before = known_before(rate, np.ones(3), -600, -600, 300 * US)
    assert before.schedule is not None
    assert before.schedule.times_us.tolist() == [-600 * US] * known + [first_s * US, 900 * US]
    assert before.schedule.rates_rps.tolist() == [3.0] * known + [3.0, 5.0]


def test_a_rate_in_words_is_that_number():
    assert [(rate.kind, rate.value) for rate in map(resolve_rate, ("300/min", "5", 5))] == [("constant", 5.0)] * 3


def test_outside_a_schedule_the_rate_is_zero_and_a_note_says_so():
    linear = Schedule([60, 120], [0, 12], "linear")  # a ramp shorter than a window, and not at its edges
    found = of(linear, windows=2)
    assert found.rps.tolist() == pytest.approx([60 * 6 / T, 0])
    check_tables(found.clock, T)
    assert clock_us(found.clock, 0, grid()).min() >= 60 * US
    assert clock_us(found.clock, 0, grid()).max() <= 120 * US
    assert of([(900, 4)], windows=2).rps.tolist() == [0, 2]

    ramp = resolve_rate(linear)
    assert schedule_notes(ramp, 60, 120) == schedule_notes(resolve_rate(5), 0, 9) == ()
    begins, ends = schedule_notes(ramp, 0, 600)
    assert begins == "the schedule begins at 60 s: the rate is 0 before"
    assert ends == "the schedule ends at 120 s: the rate is 0 after"
    assert schedule_notes(ramp, 0) == (begins,)  # an end that is not known
    steps = resolve_rate([(0, 1), (600, 2), (1200, 3)])
    assert schedule_notes(steps, 0, 1800) == ()  # the last step is no longer than those before
    assert schedule_notes(steps, 0, 1801) == ("the schedule ends at 1,200 s: its last rate, 3 req/s, holds to the end",)
    assert "holds throughout" in schedule_notes(steps, 1500, 1600)[0]


def test_a_schedule_that_says_nothing_of_the_span_is_refused():
    ramp = resolve_rate(Schedule([0, 600], [1, 2], "linear"))
    with pytest.raises(RateError, match=r"28,800 s to 32,400 s, got one from 0 s to 600 s.*add 28,800 s to them"):
        schedule_notes(ramp, 28_800, 32_400)
    with pytest.raises(RateError, match=r"got one from 7,200 s on"):
        schedule_notes(resolve_rate([(7200, 1)]), 0, 7200)


def test_means_of_windows_are_of_schedules_that_say_all_of_them():
    knots = Schedule([0, 1200], [1, 3], "linear")
    assert window_means(resolve_rate(knots), 2, T).tolist() == pytest.approx([1.5, 2.5])
    for schedule, windows in ((knots, 3), (Schedule([600, 1200], [1, 3], "linear"), 2), (Schedule([600], [1]), 2)):
        with pytest.raises(RateError, match=r"a schedule for the span from 0 s to "):
            window_means(resolve_rate(schedule), windows, T)


def test_jumps():
    steps = Schedule([0, 600, 600, 900], [1, 2, 3, 4])
    assert steps.times_s.tolist() == [0, 600, 900]
    assert steps.rates_rps.tolist() == [1, 3, 4]
    linear = Schedule([0, 600, 600, 1200], [6, 6, 18, 18], "linear")
    assert of(linear, windows=2).rps.tolist() == pytest.approx([6, 18], rel=1e-8)


@pytest.mark.parametrize(
    "rate",
    [
        *(0, -1, True, math.nan, math.inf, "nan", "0", "-3", 10**400, np.bool_(True), np.float64(0), object(), b"5"),
        *(1j, [], {}, [1, 2], [(1, True)], [(5, 1), (0, 2)], [(0, 1, 2)], [("0", 1)], [((1, 2), 3)]),
        *({0: 0}, {0: -1}, {0: math.nan}, {0: 1, "a": 2}, {math.inf: 1}, {1e300: 1}, {0: 10**400}),
        *(np.zeros((2, 3)), np.zeros((2, 2)), np.array(5.0)),
    ],
)
def test_bad_rates_are_refused(rate):
    with pytest.raises(RateError):
        resolve_rate(rate)


@pytest.mark.parametrize("value", [0, -1, True, math.nan, math.inf, "2"])
@pytest.mark.parametrize("name", ["scale", "peak"])
def test_bad_scales_and_peaks_are_refused(name, value):
    with pytest.raises(RateError, match=name):
        resolve_rate(**{name: value})


def test_only_one_is_taken():
    with pytest.raises(RateError, match="rate and scale"):
        resolve_rate(rate=5, scale=2)
    with pytest.raises(RateError, match="scale and peak"):
        resolve_rate(scale=5, peak=2)


def test_bad_schedules_are_refused():
    for times, rates, kind in (
        ([0], [1], "linear"),
        ([0], [1], "cubic"),
        ([0, 1], [1], "steps"),
        ([[0]], [[1]], "steps"),
        ([0, 1e-7], [1, 2], "steps"),
        (["a"], [1], "steps"),
        ([math.nan], [1], "steps"),
    ):
        with pytest.raises(RateError):
            Schedule(times, rates, kind)


def named_rate(t):
    return 1.0


def test_descriptions_are_json():
    long = Schedule(np.arange(1000), np.ones(1000))
    forms = [resolve_rate(), resolve_rate(5), resolve_rate(scale=2), resolve_rate(peak=3), resolve_rate(named_rate)]
    described = [rate.describe() for rate in [*forms, resolve_rate(long), resolve_rate([(0, 1)])]]
    assert json.loads(json.dumps(described)) == described
    assert described[1] == {"rate": "constant", "rps": 5.0}
    assert described[4]["name"].endswith("test_rates.named_rate")
    assert described[5]["schedule"]["knots"] == 1000
    assert described[6]["schedule"] == {"kind": "steps", "times_s": [0.0], "rates_rps": [1.0]}
    assert resolve_rate(forms[1]) is forms[1]
    assert isinstance(forms[0], Rate)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("time_s,rate_rps\n0,5\n600,20\n", "steps"),
        ("0, 5\r\n\r\n# a remark\r\n600 ,20", "steps"),
        ("# linear\n0,5\n600,2e1", "linear"),
        ("\ufeff# kind: linear\ntime_s,qps\n0,5\n600,20\n", "linear"),
        ('[{"time_s":0,"rate_rps":5},{"time_s":600,"rate_rps":20}]', "steps"),
        ("time_ms,rps\n0,5\n600000,20", "steps"),
        ("RPM, Minutes\n300,0\n1_200,10", "steps"),
        ("# linear\ntimestamp,requests per second\n0,5\n10m,20", "linear"),
        ("time,rate\n0:00,5\n0:10,20", "steps"),
        ('\n [{"time_s":0,"qps":5},{"qps":20,"time_s":600.0}]', "steps"),
        ('{"kind":"linear","times_s":[0,600],"rates_rps":[5,20]}', "linear"),
        ('{"times_s":[0,600],"rates_rps":[5,20]}', "steps"),
    ],
)
def test_files_are_read(tmp_path, text, kind):
    path = tmp_path / "rate.txt"
    path.write_text(text, encoding="utf-8", newline="")
    for schedule in (read_schedule(path), resolve_rate(path).schedule, resolve_rate(str(path)).schedule):
        assert schedule.kind == kind
        np.testing.assert_array_equal(schedule.times_s, [0, 600])
        np.testing.assert_array_equal(schedule.rates_rps, [5, 20])


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "0"),
        ("time_s,rate_rps\n", "0"),
        ("0,5\n600\n", "line 2: 1 columns"),
        ("0,5\n600,20,3\n", "line 2: 3 columns"),
        ("0,5\ntime_s,rate_rps\n", "line 2: 'time_s'"),
        ("# x\n\n0,five\n", "line 3: 'five'"),
        ("0,nan", "line 1: 'nan'"),
        ("0,1\n1,-1", "line 2: -1"),
        ("0,1_0", "line 1: '1_0'"),
        ("0,__import__('os')", 'line 1: "__import__'),
        ("1e99,1", "line 1: 1e99"),
        ("0,1\n600,1\n# x\n599,2", "line 4: before"),
        ("# linear\n0,1\n600,1\n600,2\n600,3", "rate.txt"),
        ("time,rate\n2024-05-01 00:00,5", "line 2: the date '2024-05-01 00:00'; write seconds"),
        ("time,rate\n0:7,5", "line 2: '0:7'"),
        ("time,time_ms\n0,5", "line 1: 'time,time_ms'; name the columns so"),
        ("date,rate\n2024-5-1,5", "line 2: the date"),
        ("# x\ntimes,rpss\n0,5", "line 2: 'times,rpss'; did you mean time_s,rps?"),
        ("0,0\n5,0", "zeros only"),
        ("# linear\n0,1", "1"),
        ("[", "line 1"),
        ('[{"time_s":0,\n"rate_rps":}]', "line 2"),
        ('[{"time_s":0,"rate_rps":NaN}]', "NaN"),
        ('[{"time_s":0,"rate_rps":"5x"}]', "entry 1: '5x'"),
        ('[{"time_s":0,"rate_rps":1},{"time_s":1,"rate_rps":true}]', "entry 2: 'True'"),
        ('[{"time_s":0,"rate_rps":1' + "0" * 400 + "}]", "entry 1"),
        ('[{"time_s":0,"rate_rps":1' + "0" * 5000 + "}]", "rate.txt"),
        ('[{"time_s":0}]', "entry 1"),
        ('[{"time_s":0,"rate_rps":1,"qps":2}]', "entry 1"),
        ("[1]", "entry 1"),
        ("[" * 100_000, "rate.txt"),
        ("{}", "keys"),
        ('{"kind":"cubic","times_s":[0],"rates_rps":[1]}', "cubic"),
        ('{"kind":[],"times_s":[0],"rates_rps":[1]}', "kind"),
        ('{"times_s":[0,1],"rates_rps":[1]}', "rate.txt"),
        ('{"times_s":[1,0],"rates_rps":[1,1]}', "entry 2: before"),
    ],
)
def test_bad_files_are_refused_with_file_and_place(tmp_path, text, where):
    path = tmp_path / "rate.txt"
    path.write_text(text)
    with pytest.raises(RateError) as caught:
        resolve_rate(str(path))
    assert "rate.txt" in str(caught.value)
    assert where in str(caught.value)


def test_unreadable_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "rate.txt"
    for bad in (path, tmp_path, "a\0b", ""):
        with pytest.raises(RateError):
            read_schedule(bad)
    path.write_bytes(b"0,1\n\xff\xfe,2")
    with pytest.raises(RateError, match="line 2"):
        read_schedule(path)
    monkeypatch.setattr("servegen_gpu.schedules.MAX_FILE_BYTES", 10)
    path.write_text("0,1\n" * 5)
    with pytest.raises(RateError, match="at most"):
        read_schedule(path)
