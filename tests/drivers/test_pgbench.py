"""pgbench through Forebay: more clients than server connections, in each of its modes."""

import os
import pathlib
import subprocess
import threading

import pytest

from gateway import BUDGET

PGBENCH = pathlib.Path(os.environ.get("FOREBAY_TEST_PG_BINDIR", "")) / "pgbench"
CLIENTS = 32


@pytest.fixture(scope="module")
def filled(shared_forebay):
    """pgbench's tables, filled through Forebay: DDL, COPY and VACUUM on one connection."""
    run = pgbench(shared_forebay, "-i", "-s", "2", "-q")
    assert run.returncode == 0, run.stderr


def pgbench(forebay, *arguments):
    return subprocess.run(
        [PGBENCH, *arguments], env=forebay.env(), capture_output=True, text=True, timeout=60
    )


def most_connections_during(postgres, work):
    """Runs `work` and returns the most server connections that were seen meanwhile."""
    seen, over = [0], threading.Event()

    def watch():
        while not over.wait(0.1):
            seen.append(postgres.server_connections())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = work()
    finally:
        over.set()
        watcher.join()
    return result, max(seen)


def assert_faultless(run):
    assert run.returncode == 0, run.stderr
    assert "number of failed transactions: 0 " in run.stdout, run.stdout
    assert "error" not in run.stderr.lower() and "abort" not in run.stderr.lower(), run.stderr


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_reads_of_32_clients_share_ten_connections(forebay, postgres, filled, mode):
    run, most = most_connections_during(
        postgres,
        lambda: pgbench(forebay, "-n", "-S", "-c", str(CLIENTS), "-j", "2", "-T", "3", "-M", mode),
    )
    assert_faultless(run)
    assert 1 <= most <= BUDGET


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_tpcb_transactions_of_32_clients_share_ten_connections(forebay, postgres, filled, mode):
    # A thread for each client: pgbench prepares statements in a way that blocks the thread,
    # also in the middle of a transaction of another of its clients.
    threads = str(CLIENTS)
    run, most = most_connections_during(
        postgres,
        lambda: pgbench(forebay, "-n", "-c", threads, "-j", threads, "-T", "3", "-M", mode),
    )
    assert_faultless(run)
    assert 1 <= most <= BUDGET


def test_no_update_is_lost_or_doubled(forebay, postgres, filled):
    with postgres.connect() as direct:
        direct.execute("truncate pgbench_history")
    run = pgbench(forebay, "-n", "-c", "16", "-j", "16", "-t", "50", "-M", "prepared")
    assert_faultless(run)
    with postgres.connect() as direct:
        rows = direct.execute("select count(*) from pgbench_history").fetchone()[0]
    assert rows == 16 * 50


def test_a_connection_for_each_transaction(forebay, filled):
    assert_faultless(pgbench(forebay, "-n", "-S", "-C", "-c", "8", "-t", "20"))


def test_pipelines_of_prepared_statements(forebay, filled, tmp_path):
    script = tmp_path / "pipeline.sql"
    script.write_text(
        "\\set aid random(1, 1000)\n\\startpipeline\nbegin;\n"
        + "select abalance from pgbench_accounts where aid = :aid;\n" * 5
        + "update pgbench_accounts set abalance = abalance + 1 where aid = :aid;\n"
        + "end;\n\\endpipeline\n"
    )
    run = pgbench(
        forebay, "-n", "-f", str(script), "-c", str(CLIENTS), "-t", "20", "-M", "prepared"
    )
    # Transactions that touch the same row in one instant wait for each other; none fails.
    assert_faultless(run)
