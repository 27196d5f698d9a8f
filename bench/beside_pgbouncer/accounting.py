"""What the system's own books say of a process: CPU time and memory.

CPU time comes from the scheduler in nanoseconds (`/proc/PID/task/*/schedstat`), where the
system keeps it, else in ticks of 10 ms (`/proc/PID/stat`). Both count system time, and what
the loopback network does in the name of the process. Knows no pooler and no row.
"""

import os
import pathlib
import resource

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def open_files_limit():
    """Raises this process's limit of open files, which its children inherit, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Cpu:
    """CPU time of one process up to a moment."""

    def __init__(self, pid):
        stat = _stat(pid)
        self.ticks = int(stat[11]) + int(stat[12])
        self.threads = {}
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            try:
                self.threads[task.name] = int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                pass  # It has just ended, or the system keeps no such books.

    def since(self, before):
        """Microseconds since `before`."""
        if before.threads and before.threads.keys() <= self.threads.keys():
            spent = sum(ns - before.threads.get(task, 0) for task, ns in self.threads.items())
        else:  # A thread has ended and took its nanoseconds along.
            spent = (self.ticks - before.ticks) * TICK_NS
        return spent / 1000


class FamilyCpu:
    """CPU time of a process and its children, those that have ended included."""

    def __init__(self, pid):
        stat = _stat(pid)
        self.ns = (int(stat[13]) + int(stat[14])) * TICK_NS
        for member in [pid, *_children(pid)]:
            try:
                self.ns += int(pathlib.Path(f"/proc/{member}/schedstat").read_text().split()[0])
            except (OSError, IndexError):
                pass

    def since(self, before):
        """Microseconds since `before`."""
        return (self.ns - before.ns) / 1000


class Memory:
    """Memory of one process, and of the kernel's part in everybody's connections."""

    def __init__(self, pid):
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        self.resident = _kib(rollup, "Rss:")
        self.proportional = _kib(rollup, "Pss:")
        self.kernel = _kib(pathlib.Path("/proc/meminfo").read_text(), "Slab:")
        for line in pathlib.Path("/proc/net/sockstat").read_text().splitlines():
            if line.startswith("TCP:"):
                self.kernel += int(line.split()[-1]) * PAGE


def _stat(pid):
    """The fields of /proc/PID/stat from the third on: `state` has index 0."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid):
    listed = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()]


def _kib(text, label):
    for line in text.splitlines():
        if line.startswith(label):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no {label} in what the kernel says")
