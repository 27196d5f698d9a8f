"""Runs a tour: a program that goes through what its driver offers and writes down what it saw,
once past Forebay and once through it.

Both must have seen the same. Through Forebay more clients take it at once than there are server
connections, so what belongs to a client must follow it from one to the next.
"""

import json
import os
import subprocess

from private_postgres import PASSWORD
from processes import eventually

DATABASE = "tour"
BUDGET = 3
CLIENTS = 6


class Tour:
    """One program. `pins` are the reasons for which its clients keep a connection."""

    def __init__(self, command, *, pins=(), clients=CLIENTS, environment=None, cwd=None):
        self.command = [str(part) for part in command]
        self.pins = set(pins)
        self.clients = clients
        self.environment = environment or {}
        self.cwd = cwd

    def start(self, port, schema, clients):
        environment = {
            **os.environ,
            **self.environment,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "app",
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": DATABASE,
            "TOUR_SCHEMA": schema,
            "TOUR_CLIENTS": str(clients),
        }
        return subprocess.Popen(
            self.command,
            env=environment,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def transcripts(process):
    """What the clients of a tour saw. Its end is waited for by the test's own time limit."""
    out, err = process.communicate()
    assert process.returncode == 0, f"the tour ended with {process.returncode}:\n{err[-4000:]}"
    return json.loads(out), err


def assert_unnoticed(tour, forebay, postgres):
    """Takes the tour both ways and compares; then nothing of it is left."""
    forget_earlier_tours(postgres)
    before = forebay.snapshot()["postgres"]["pins"]
    running = [
        tour.start(postgres.port, "direct", 1),
        tour.start(forebay.port, "pooled", tour.clients),
    ]
    try:
        [expected], _ = transcripts(running[0])
        seen, complaints = transcripts(running[1])
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert len(expected) > 20 and not expected[-1].startswith("ended by"), expected[-1]
    for number, steps in enumerate(seen):
        for direct, pooled in zip(expected, steps):
            assert pooled == direct, f"client {number} saw {pooled}, not {direct}\n{complaints[-2000:]}"
        assert len(steps) == len(expected), f"client {number} took another way: {steps[-1]}"
    assert_nothing_is_left(forebay, postgres)
    after = forebay.snapshot()["postgres"]["pins"]
    pinned = {reason for reason, count in after.items() if count > before.get(reason, 0)}
    assert pinned <= tour.pins, f"clients kept their connections: {pinned - tour.pins}"


def forget_earlier_tours(postgres):
    """Drops their schemas: what a tour is told when it makes its own must not depend on them."""
    with postgres.connect(DATABASE) as direct:
        direct.autocommit = True
        earlier = "select nspname from pg_namespace where nspname ~ '^(direct|pooled)_[0-9]+$'"
        for (schema,) in direct.execute(earlier).fetchall():
            direct.execute(f"drop schema {schema} cascade")


def assert_nothing_is_left(forebay, postgres):
    """Every connection is home, none has a transaction open, and all still serve."""

    def pools():
        return forebay.snapshot()["postgres"]["pools"]

    eventually(
        lambda: sum(pool["leased"] + pool["cleaning"] for pool in pools()) == 0, what="all are home"
    )
    eventually(lambda: forebay.snapshot()["postgres"]["clients"] == 0, what="no client is left")
    ours = f"datname = '{DATABASE}'"
    eventually(lambda: postgres.server_connections(where=ours) <= BUDGET, what="no more than ours")
    in_transaction = postgres.server_connections(where=f"{ours} and xact_start is not null")
    assert in_transaction == 0
    assert forebay.process.poll() is None, forebay.log()[-4000:]
    with postgres.connect() as direct:
        prepared = direct.execute("select gid from pg_prepared_xacts").fetchall()
    assert prepared == []
