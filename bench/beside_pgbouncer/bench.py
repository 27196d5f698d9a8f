"""The run: a PostgreSQL that is filled once, and one row after the other.

Each row starts both poolers afresh, set up as it needs them, and ends them. A load that fails
ends its row, not the run: the row says why.
"""

import subprocess

import copying
import machine
import syscalls
from accounting import open_files_limit
from idle import FIRST, measure_idle
from loads import LoadFailed, TooShort, measure_pgbench, pgbench
from outcome import OURS, Outcome
from poolers import DATABASE, PASSWORD, USER, Database, DoesNotStart, Forebay, PgBouncer
from rows import Copy, Idle, Pgbench

SCALE = 10
IDLE_ROUNDS = 2  # at the most: bytes hardly differ from round to round
QUICK_IDLE = 25  # so many times fewer idle clients in a quick run
QUICK_COPY = 5  # MB
LONGER = 3  # seconds more for a turn that was too short to be measured
FAILURES = (DoesNotStart, LoadFailed, OSError, AssertionError, subprocess.TimeoutExpired)


class Bench:
    """Two programs before one PostgreSQL."""

    def __init__(self, options, folder, server):
        self.options, self.folder, self.server = options, folder, server
        ours = PgBouncer(options.pgbouncer, OURS) if options.control else Forebay()
        self.programs = [ours, PgBouncer(options.pgbouncer)]
        self.files = open_files_limit()
        self.megabytes = QUICK_COPY if options.quick else copying.MEGABYTES
        self.copied_in = None

    def fill(self):
        """The user, pgbench's tables, big rows, and the tables for COPY."""
        with self.server.connect(dbname="postgres") as admin:
            admin.autocommit = True
            admin.execute(f"create role {USER} login password '{PASSWORD}'")
            admin.execute(f"create database {DATABASE} owner {USER}")
            verifier = admin.execute(
                f"select rolpassword from pg_authid where rolname = '{USER}'"
            ).fetchone()[0]
        self.database = Database(self.server.port, self.server.process.pid, verifier)
        pgbench(["-i", "-q", "-s", str(SCALE)], self.server.port, self.folder)
        with self.server.connect(dbname=DATABASE) as owner:
            owner.autocommit = True
            owner.execute("create table big (id int primary key, payload text)")
            owner.execute("alter table big alter payload set storage external")
            owner.execute(
                "insert into big select i, repeat(md5(i::text), 32768) from generate_series(1, 8) i"
            )
            owner.execute(f"grant select on big to {USER}")
            copying.prepare(owner, self.megabytes)
            owner.execute("vacuum analyze")
        (self.folder / "nothing.sql").write_text("\\set nothing 1\n")
        (self.folder / "big_row.sql").write_text(
            "\\set id random(1, 8)\nselect payload from big where id = :id;\n"
        )

    def run(self, row):
        """All rounds of a row."""
        outcome = Outcome(row)
        poolers = []
        try:
            for program in self.programs:
                if getattr(row.load, "prepared", False) and not program.prepares:
                    outcome.notes.append("PgBouncer prepares in transaction pooling since 1.21")
                    continue
                if not isinstance(row.load, Idle):
                    poolers.append(program.start(self.folder, self.database, row.setup))
                    outcome.configurations[program.name] = poolers[-1].configuration
            if isinstance(row.load, Idle):
                self.idle(row, outcome)
            else:
                self.rounds(row, outcome, poolers)
        except FAILURES as failure:
            outcome.notes.append(f"not finished: {failure}")
        finally:
            outcome.load = machine.load()[0]
            for pooler in poolers:
                pooler.stop()
        return outcome

    def rounds(self, row, outcome, poolers):
        turn = self.turn(row.load)
        if not self.options.quick:
            for pooler in poolers:
                turn(pooler, 1)
        for number in range(self.options.rounds):
            for pooler in poolers if number % 2 == 0 else poolers[::-1]:
                outcome.add(pooler.name, turn(pooler, self.options.seconds))
        if not self.options.no_calls:
            self.calls(row, outcome, poolers)

    def turn(self, load):
        """What one turn of this load is: a function of the pooler and of seconds."""
        if isinstance(load, Pgbench):
            return lambda pooler, seconds: self.pgbench_turn(load, pooler, seconds)
        if load is Copy.OUT:
            return lambda pooler, seconds: copying.measure_copying(
                lambda client: copying.copy_out(client, self.megabytes),
                lambda: None,
                pooler,
                self.database,
                seconds,
            )
        messages = self.messages_in()
        return lambda pooler, seconds: copying.measure_copying(
            lambda client: copying.copy_in(client, messages),
            self.truncate,
            pooler,
            self.database,
            seconds,
        )

    def messages_in(self):
        if self.copied_in is None:
            self.copied_in = copying.to_copy_in(self.megabytes)
        return self.copied_in

    def truncate(self):
        with self.server.connect(dbname=DATABASE) as owner:
            owner.execute("truncate copy_in")

    def pgbench_turn(self, load, pooler, seconds):
        try:
            figures = measure_pgbench(load.command(), pooler, self.database, self.folder, seconds)
        except TooShort:
            longer = seconds + LONGER
            figures = measure_pgbench(load.command(), pooler, self.database, self.folder, longer)
        if load.login:
            return {"cpu_per_login": figures["cpu"], "logins": figures["rate"]}
        if load.megabytes:
            # us a transaction, and MB in it: s/GB.
            return {
                "cpu_per_gb": figures["cpu"] / 1000 / load.megabytes,
                "both_cpu_per_gb": figures["both_cpu"] / 1000 / load.megabytes,
                "megabytes": figures["rate"] * load.megabytes,
                "p99": figures["p99"],
            }
        return figures

    def calls(self, row, outcome, poolers):
        why = syscalls.reason_for_none()
        if why:
            outcome.notes.append(f"system calls not counted: {why}")
            return
        for pooler in poolers:
            if isinstance(row.load, Pgbench):
                # Enough to count well, few enough for seconds under strace.
                total = 40 if row.load.megabytes else 400 if "-C" in row.load.arguments else 4000
                counted = syscalls.per_transaction(
                    row.load.command(),
                    row.load.clients,
                    pooler,
                    self.folder,
                    max(2, total // row.load.clients),
                )
            else:
                counted = self.calls_for_copy(row.load, pooler)
            outcome.calls[pooler.name] = counted
            outcome.add(pooler.name, {"calls": sum(counted.values())})

    def calls_for_copy(self, load, pooler):
        """For one MB."""
        client = copying.log_in(pooler.port)
        try:
            client.query("select 1").ready()
            if load is Copy.OUT:
                work = lambda: copying.copy_out(client, self.megabytes)  # noqa: E731
            else:
                self.truncate()
                work = lambda: copying.copy_in(client, self.messages_in())  # noqa: E731
            counted = syscalls.count(pooler, self.folder, work)
        finally:
            client.close()
        return {
            name: number / self.megabytes
            for name, number in counted.items()
            if number >= 0.01 * self.megabytes
        }

    def idle(self, row, outcome):
        count = row.load.count // (QUICK_IDLE if self.options.quick else 1)
        if count + FIRST + 100 > self.files:
            outcome.notes.append(f"not run: open files are limited to {self.files} (ulimit -Hn)")
            return
        if count != row.load.count:
            outcome.notes.append(f"with {count} clients only")
        for number in range(min(IDLE_ROUNDS, self.options.rounds)):
            for program in self.programs if number % 2 == 0 else self.programs[::-1]:
                pooler = program.start(self.folder, self.database, row.setup)
                try:
                    outcome.configurations[program.name] = pooler.configuration
                    outcome.add(program.name, measure_idle(count, pooler))
                finally:
                    pooler.stop()
