"""System calls of a pooler for one transaction, counted by strace in a run of its own.

A run of few transactions is subtracted from one of many, so logins and logouts are not in the
figure. Traced, a pooler is many times slower and its batches are other ones than in the rows
that are timed: with many clients, the count is a rough one.
"""

import os
import re
import shutil
import signal
import subprocess
import time

from loads import LoadFailed, pgbench

ATTACH = 10  # seconds that strace may take to attach


def reason_for_none():
    """Why nothing can be counted here; None where it can."""
    if not shutil.which("strace"):
        return "strace is not installed (Debian: apt-get install strace)"
    if os.geteuid() != 0:
        return "PgBouncer's calls are counted as root only"
    return None


def count(pooler, folder, work):
    """What the pooler calls while `work()` runs: numbers by name."""
    summary = folder / "strace.out"
    summary.unlink(missing_ok=True)
    with open(folder / "strace.err", "w+", encoding="utf-8") as said:
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-o", str(summary), "-p", str(pooler.process.pid)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            deadline = time.monotonic() + ATTACH
            # It says so once for all threads, after it has them.
            while "attached" not in (folder / "strace.err").read_text():
                if tracer.poll() is not None or time.monotonic() > deadline:
                    raise LoadFailed(f"strace: {(folder / 'strace.err').read_text()}")
                time.sleep(0.02)
            work()
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
    return calls(summary.read_text())


def calls(summary):
    """The counts in strace's summary, by the name of the call."""
    found = {}
    for line in summary.splitlines():
        # % time, seconds, usecs/call, calls, [errors,] syscall
        fields = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z]\w*)$", line)
        if fields and fields.group(2) != "total":
            found[fields.group(2)] = int(fields.group(1))
    return found


def per_transaction(arguments, clients, pooler, folder, transactions):
    """Calls for one transaction, by name; `transactions` are what each client does."""
    few = 2

    def run(each):
        command = [*arguments, "-t", str(each)]
        return count(pooler, folder, lambda: pgbench(command, pooler.port, folder))

    base, more = run(few), run(few + transactions)
    done = transactions * clients
    return {
        name: (more[name] - base.get(name, 0)) / done
        for name in more
        if more[name] - base.get(name, 0) >= 0.005 * done
    }
