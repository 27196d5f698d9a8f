"""The rows: what each one does, and what would be good enough.

A figure's goal is for Forebay: as a ratio to PgBouncer in the same rounds, or in the figure's
own unit. Rows without a goal are there to be seen.
"""

from dataclasses import dataclass, field
from enum import Enum

from poolers import SCRAM, TRUST, Setup


class Unit(Enum):
    """What a figure is in, and how it is printed."""

    CPU = ("CPU us a transaction", "{:.1f}")
    BOTH_CPU = ("CPU us with PostgreSQL's", "{:.1f}")
    RATE = ("transactions/s", "{:.0f}")
    P99 = ("p99 ms", "{:.2f}")
    LOGIN_CPU = ("CPU us a login", "{:.1f}")
    LOGINS = ("logins/s", "{:.0f}")
    CPU_PER_GB = ("CPU s a GB", "{:.2f}")
    BOTH_CPU_PER_GB = ("CPU s a GB with PostgreSQL's", "{:.2f}")
    MEGABYTES = ("MB/s", "{:.0f}")
    IDLE_BYTES = ("bytes a client (RSS)", "{:.0f}")
    IDLE_PSS = ("bytes a client (PSS)", "{:.0f}")
    LOGIN_BYTES = ("bytes before its first query", "{:.0f}")
    KERNEL_BYTES = ("kernel's bytes, both ends", "{:.0f}")
    STILL_CPU = ("CPU ms/s while all idle", "{:.2f}")
    CALLS = ("system calls", "{:.2f}")

    def show(self, value):
        return self.value[1].format(value)


@dataclass(frozen=True)
class Goal:
    """At most or at least `bound`: a ratio to PgBouncer, or (`absolute`) Forebay's own figure."""

    bound: float
    at_least: bool = False
    absolute: bool = False

    def met(self, value):
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self):
        return f"{'>=' if self.at_least else '<='} {self.bound:g}" + ("" if self.absolute else "x")


# The figure in a load's answer, and what it is called here.
FIGURES = {
    "cpu": Unit.CPU,
    "both_cpu": Unit.BOTH_CPU,
    "rate": Unit.RATE,
    "p99": Unit.P99,
    "cpu_per_login": Unit.LOGIN_CPU,
    "logins": Unit.LOGINS,
    "cpu_per_gb": Unit.CPU_PER_GB,
    "both_cpu_per_gb": Unit.BOTH_CPU_PER_GB,
    "megabytes": Unit.MEGABYTES,
    "idle_bytes": Unit.IDLE_BYTES,
    "idle_pss": Unit.IDLE_PSS,
    "login_bytes": Unit.LOGIN_BYTES,
    "kernel_bytes": Unit.KERNEL_BYTES,
    "still_cpu": Unit.STILL_CPU,
    "calls": Unit.CALLS,
}

NO_DEARER = Goal(1.0)
NO_LESS = Goal(1.0, at_least=True)
TRAFFIC = {"cpu": NO_DEARER, "p99": NO_DEARER}
CROWD = {**TRAFFIC, "rate": NO_LESS}
LOGIN = {"cpu_per_login": Goal(1.2)}
BULK = {"cpu_per_gb": NO_DEARER, "megabytes": NO_LESS}
STAYING = {"idle_bytes": Goal(2560, absolute=True)}


@dataclass(frozen=True)
class Pgbench:
    """pgbench with `clients`; `arguments` say what."""

    clients: int
    arguments: tuple
    prepared: bool = False
    megabytes: float = 0.0  # that one transaction reads
    login: bool = False  # nothing but logins

    def command(self):
        return ["-c", str(self.clients), "-j", str(min(2, self.clients)), *self.arguments]


class Copy(Enum):
    """COPY by one client."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True)
class Idle:
    """Clients that log in, ask once and stay."""

    count: int


@dataclass(frozen=True)
class Row:
    """One row: a load, on poolers that were set up as it says."""

    name: str
    what: str
    load: object
    setup: Setup = Setup()
    goals: dict = field(default_factory=dict)


def _select(mode, clients):
    crowd = "1 client" if clients == 1 else f"{clients} clients"
    return Row(
        f"{mode}-{clients}",
        f"pgbench -S -M {mode}, {crowd}",
        Pgbench(clients, ("-S", "-M", mode), prepared=mode == "prepared"),
        goals=CROWD if clients >= 32 else TRAFFIC,
    )


def _connecting(kind, auth, words):
    script = {"login": ("-f", "nothing.sql"), "reconnect": ("-S",)}[kind]
    return Row(
        f"{kind}-{'scram' if auth == SCRAM else 'trust'}",
        f"pgbench -C, 8 clients: {words} ({auth})",
        Pgbench(8, ("-C", *script), login=kind == "login"),
        Setup(auth=auth),
        LOGIN if kind == "login" else {},
    )


ROWS = [
    *(_select(mode, n) for mode in ("simple", "extended", "prepared") for n in (1, 32, 256)),
    Row(
        "naming-32",
        "pgbench -S -M extended, 32 clients; with `name_unnamed`",
        Pgbench(32, ("-S", "-M", "extended")),
        Setup(naming=True),
        {"both_cpu": Goal(0.8)},
    ),
    Row("tpcb-32", "pgbench's TPC-B, 32 clients", Pgbench(32, ()), goals=CROWD),
    *(_connecting("login", auth, "login, no query, logout") for auth in (TRUST, SCRAM)),
    *(_connecting("reconnect", auth, "a login for each transaction") for auth in (TRUST, SCRAM)),
    Row(
        "rows-1mb",
        "rows of 1 MB from a table, 8 clients",
        Pgbench(8, ("-f", "big_row.sql"), megabytes=1.048576),
        goals=BULK,
    ),
    Row("copy-in", "COPY FROM STDIN of 50 MB, 1 client", Copy.IN, goals=BULK),
    Row("copy-out", "COPY TO STDOUT of 50 MB, 1 client", Copy.OUT, goals=BULK),
    *(
        Row(
            f"idle-{count}",
            f"{count} clients that asked once and stay, no TLS (scram-sha-256)",
            Idle(count),
            Setup(auth=SCRAM),
            STAYING,
        )
        for count in (5_000, 18_000)
    ),
]


def chosen(names):
    """The rows of these names, in the order of the benchmark; all where none is named."""
    known = {row.name for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LookupError(f"no row {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return [row for row in ROWS if not names or row.name in names]
