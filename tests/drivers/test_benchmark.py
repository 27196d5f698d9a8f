"""The arithmetic of the benchmark beside PgBouncer: no pooler runs here, and no clock."""

import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "bench" / "beside_pgbouncer"))

from loads import LoadFailed, ended_and_latency, figures_of_window, percentile  # noqa: E402
from outcome import Outcome, lines  # noqa: E402
from rows import ROWS, chosen  # noqa: E402
from syscalls import calls  # noqa: E402


class Spent:
    """CPU time at a moment, in microseconds."""

    def __init__(self, us):
        self.us = us

    def since(self, before):
        return self.us - before.us


class Moment:
    def __init__(self, at, pooler, server):
        self.at, self.pooler, self.server = at, Spent(pooler), Spent(server)


def row(name):
    return chosen([name])[0]


def test_a_line_of_pgbenchs_log_says_when_and_how_long():
    assert ended_and_latency("3 17 1250 0 1795284482 500000") == (1795284482.5, 1250)


def test_logins_at_the_start_are_not_in_the_figures_of_a_transaction():
    # Ten transactions a second from 11.0 to 14.0; before, only logins.
    transactions = [(11 + n / 10, 2000 + n) for n in range(31)]
    readings = [
        Moment(10.0, 0, 0),
        Moment(11.0, 900_000, 900_000),
        Moment(12.05, 901_000, 900_000),
        Moment(13.05, 901_200, 900_700),
        Moment(14.5, 999_000, 999_000),
    ]
    figures = figures_of_window(readings, transactions)
    assert figures["cpu"] == pytest.approx(20)
    assert figures["both_cpu"] == pytest.approx(90)
    assert figures["rate"] == pytest.approx(10)
    assert figures["p99"] == pytest.approx(2.020)


def test_a_run_without_a_window_is_not_a_figure():
    with pytest.raises(LoadFailed, match="--seconds"):
        figures_of_window([Moment(10.0, 0, 0), Moment(11.5, 5, 5)], [(11.0, 1), (11.4, 1)])


def test_p99_is_exceeded_by_one_in_a_hundred():
    assert percentile(list(range(1, 101)), 99) == 99
    assert percentile([7], 99) == 7


def test_a_ratio_is_taken_within_a_round_and_its_median_is_judged():
    outcome = Outcome(row("simple-32"))
    for ours, theirs in [(20, 10), (9, 10), (80, 100)]:
        outcome.add("forebay", {"cpu": ours})
        outcome.add("pgbouncer", {"cpu": theirs})
    assert outcome.ratio("cpu") == (0.9, 0.8, 2.0)
    assert outcome.verdict("cpu") == "met"
    assert "0.90 (0.80..2.00)" in next(lines(outcome))


def test_more_throughput_is_better_and_more_bytes_are_not():
    faster = Outcome(row("simple-32"))
    faster.add("forebay", {"rate": 90})
    faster.add("pgbouncer", {"rate": 100})
    assert faster.verdict("rate") == "missed"
    bigger = Outcome(row("idle-5000"))
    bigger.add("forebay", {"idle_bytes": 2500})
    bigger.add("pgbouncer", {"idle_bytes": 800})
    assert bigger.verdict("idle_bytes") == "met"


def test_what_pgbouncer_cannot_do_is_judged_by_nobody():
    outcome = Outcome(row("prepared-32"))
    outcome.add("forebay", {"cpu": 20})
    assert outcome.verdict("cpu") is None
    assert next(lines(outcome)).endswith("not comparable")


def test_straces_summary_is_read_with_and_without_errors():
    summary = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           1       600           sendto
 30.00    0.000300           1       300        17 recvfrom
 10.00    0.000100           0       100           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           1      1000        17 total
"""
    assert calls(summary) == {"sendto": 600, "recvfrom": 300, "epoll_wait": 100}


def test_an_unknown_row_is_an_error_that_names_the_known_ones():
    with pytest.raises(LookupError, match="simple-32"):
        chosen(["simple-33"])
    assert len({known.name for known in ROWS}) == len(ROWS)
