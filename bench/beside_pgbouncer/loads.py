"""What is done through a pooler, and what is counted meanwhile.

A load returns its figures by name. Those that are rates are taken from a window in which all
clients are at work: logins at the start and stragglers at the end are not in it. The window
is where two readings of the CPU time stand, and only transactions that ended between the two
are counted.
"""

import math
import os
import pathlib
import re
import subprocess
import time

from accounting import FamilyCpu
from poolers import DATABASE, PASSWORD, USER

READ_EVERY = 0.1  # seconds between two readings of the CPU time
SETTLE = 0.15  # seconds at the start that are not counted


class Reading:
    """The books of the pooler and of PostgreSQL at a moment of the wall clock."""

    def __init__(self, pooler, database):
        self.pooler = pooler.cpu()
        self.server = FamilyCpu(database.pid)
        self.at = time.time()


class LoadFailed(Exception):
    """The load did not run as it should; the text says what was seen."""


class TooShort(LoadFailed):
    """There was no time in which all clients were at work: the machine is busy."""


def pgbench_command(arguments):
    return [str(pathlib.Path(os.environ["FOREBAY_TEST_PG_BINDIR"]) / "pgbench"), "-n", *arguments]


def pgbench_environment(port):
    return {
        **os.environ,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": USER,
        "PGDATABASE": DATABASE,
        "PGPASSWORD": PASSWORD,
        "PGSSLMODE": "disable",
        "PGGSSENCMODE": "disable",
    }


def pgbench(arguments, port, folder, timeout=120):
    """Runs pgbench to its end; its output."""
    run = subprocess.run(
        pgbench_command(arguments),
        env=pgbench_environment(port),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    _must_have_worked(run.returncode, run.stdout + run.stderr)
    return run.stdout


def measure_pgbench(arguments, pooler, database, folder, seconds):
    """One run of pgbench of `seconds` and its figures."""
    for old in folder.glob("pgbench_log.*"):
        old.unlink()
    with open(folder / "pgbench.out", "w+", encoding="utf-8") as out:
        process = subprocess.Popen(
            pgbench_command([*arguments, "-l", "-T", str(math.ceil(seconds))]),
            env=pgbench_environment(pooler.port),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        readings = [Reading(pooler, database)]
        try:
            deadline = time.monotonic() + seconds + 60
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise LoadFailed(f"pgbench {' '.join(arguments)} does not end")
                time.sleep(READ_EVERY)
                readings.append(Reading(pooler, database))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        _must_have_worked(process.returncode, out.read())
    lines = (
        line for log in folder.glob("pgbench_log.*") for line in log.read_text().splitlines()
    )
    return figures_of_window(readings, [ended_and_latency(line) for line in lines])


def _must_have_worked(status, output):
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if status != 0 or (failed and failed.group(1) != "0") or "aborted" in output:
        raise LoadFailed(f"pgbench ended with status {status}:\n{output}")


def ended_and_latency(line):
    """When the transaction of a line in pgbench's log ended (s), and how long it took (us)."""
    fields = line.split()
    return int(fields[4]) + int(fields[5]) / 1e6, int(fields[2])


def figures_of_window(readings, transactions):
    """Rates over the longest window in which all were at work."""
    if not transactions:
        raise LoadFailed("pgbench has done no transaction")
    first = min(ended for ended, _ in transactions)
    last = max(ended for ended, _ in transactions)
    inside = [r for r in readings if first + SETTLE <= r.at <= last]
    if len(inside) < 2:
        raise TooShort("the run was too short to be measured: give it more --seconds")
    begin, finish = inside[0], inside[-1]
    latencies = sorted(us for ended, us in transactions if begin.at < ended <= finish.at)
    if not latencies:
        raise LoadFailed("no transaction ended in the window that was measured")
    pooler = finish.pooler.since(begin.pooler) / len(latencies)
    server = finish.server.since(begin.server) / len(latencies)
    return {
        "cpu": pooler,
        "both_cpu": pooler + server,
        "rate": len(latencies) / (finish.at - begin.at),
        "p99": percentile(latencies, 99) / 1000,
    }


def percentile(ordered, percent):
    """The smallest of `ordered` that is not exceeded by `percent` of them."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
