"""Forebay beside PgBouncer: the same pgbench, the same PostgreSQL, turn by turn.

Every round runs each mode of pgbench through each of the three ways (direct, PgBouncer,
Forebay) in a rotated order, so that a slow minute of the machine hurts all alike. Ratios are
taken within a round, then their median over the rounds is reported with the range. CPU time
is what /proc says of the pooler's process, system time included. Memory is how much the
process grew while a thousand clients logged in, asked one question each and stayed.
"""

import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "drivers"))

from conftest import Authority  # noqa: E402
from private_postgres import PASSWORD, PrivatePostgres  # noqa: E402
from processes import accepts, end, eventually, free_port  # noqa: E402
from processes import resident_bytes, unprivileged  # noqa: E402
from wire import Client  # noqa: E402

POOL = 10
CLIENTS = 32
IDLE_CLIENTS = 1000
SCALE = 10
MODES = ["simple", "extended", "prepared"]
TICKS = os.sysconf("SC_CLK_TCK")


class Way:
    """One way to the database: a port, and the process that is measured (none: direct)."""

    def __init__(self, name, port, process=None, config="", modes=MODES):
        self.name, self.port, self.process = name, port, process
        self.config, self.modes = config, modes

    def cpu_seconds(self):
        if self.process is None:
            return 0.0
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def start_pgbouncer(folder, server):
    binary = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    says = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout
    version = tuple(map(int, re.search(r"(\d+)\.(\d+)", says).groups()))
    prepares = version >= (1, 21)
    port = free_port()
    place = folder / "pgbouncer"
    place.mkdir()
    (place / "userlist.txt").write_text(f'"app" "{PASSWORD}"\n')
    config = f"""[databases]
app = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {place}/userlist.txt
pool_mode = transaction
default_pool_size = {POOL}
max_client_conn = 5000
server_tls_sslmode = disable
"""
    if prepares:
        config += "max_prepared_statements = 500\n"
    (place / "pgbouncer.ini").write_text(config)
    as_other, user = unprivileged()
    if as_other:
        for path in [place, *place.iterdir()]:
            shutil.chown(path, user, as_other["group"])
    with open(folder / "pgbouncer.log", "ab") as log:
        process = subprocess.Popen(
            [binary, str(place / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **as_other,
        )
    eventually(lambda: accepts(port), what="PgBouncer's start")
    modes = MODES if prepares else [m for m in MODES if m != "prepared"]
    return Way("pgbouncer", port, process, f"{says.splitlines()[0]}\n{config}", modes)


def start_forebay(folder, server):
    binary = os.environ["FOREBAY_TEST_BINARY"]
    says = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout
    port, admin = free_port(), free_port()
    config = f"""[admin]
listen = "127.0.0.1:{admin}"
[postgres]
listen = "127.0.0.1:{port}"
pool_mode = "transaction"
[postgres.servers.main]
address = "127.0.0.1:{server.port}"
sslmode = "disable"
budget = {POOL}
classes = {{ core = {{ kind = "core", guarantee = "100%" }} }}
[postgres.users.app]
password = "env:APP_PASSWORD"
"""
    path = folder / "forebay.toml"
    path.write_text(config)
    with open(folder / "forebay.log", "ab") as log:
        process = subprocess.Popen(
            [binary, "run", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "APP_PASSWORD": PASSWORD},
        )
    eventually(lambda: accepts(port), what="Forebay's start")
    return Way("forebay", port, process, f"{says}{config}")


def pgbench(way, folder, *arguments):
    return subprocess.run(
        [pathlib.Path(os.environ["FOREBAY_TEST_PG_BINDIR"]) / "pgbench", *arguments],
        env={
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(way.port),
            "PGUSER": "app",
            "PGDATABASE": "app",
            "PGPASSWORD": PASSWORD,
            "PGSSLMODE": "disable",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def measure(way, mode, folder, seconds):
    """One run of pgbench: transactions a second, p99 in ms, CPU ms for 1,000 transactions."""
    for old in folder.glob("pgbench_log.*"):
        old.unlink()
    before = way.cpu_seconds()
    run = pgbench(
        way, folder, "-n", "-S", "-l", "-M", mode, "-c", str(CLIENTS), "-j", "2", "-T", str(seconds)
    )
    cpu = way.cpu_seconds() - before
    failed = re.search(r"number of failed transactions: (\d+)", run.stdout)
    if run.returncode != 0 or (failed and failed.group(1) != "0"):
        raise SystemExit(f"pgbench through {way.name} ({mode}) failed:\n{run.stdout}{run.stderr}")
    latencies = sorted(
        int(line.split()[2])
        for log in folder.glob("pgbench_log.*")
        for line in log.read_text().splitlines()
    )
    return {
        "tps": float(re.search(r"tps = ([\d.]+)", run.stdout).group(1)),
        "p99": latencies[int(len(latencies) * 0.99)] / 1000,
        "cpu": cpu * 1000 / (len(latencies) / 1000),
    }


def memory_per_idle_client(way):
    """KiB that the pooler grew by for each client that is connected and does nothing."""
    clients = []
    try:
        for _ in range(20):  # Start-up costs are not the clients'.
            clients.append(Client(way.port).login("app", "app"))
        first = resident_bytes(way.process.pid)
        for _ in range(IDLE_CLIENTS):
            client = Client(way.port).login("app", "app")
            client.query("select 1").ready()
            clients.append(client)
        time.sleep(1)
        return (resident_bytes(way.process.pid) - first) / IDLE_CLIENTS / 1024
    finally:
        for client in clients:
            client.close()


def ratio(results, mode, figure):
    """Forebay's figure over PgBouncer's: the median of the rounds, and their range."""
    pairs = zip(results["forebay", mode], results["pgbouncer", mode])
    ratios = sorted(ours[figure] / theirs[figure] for ours, theirs in pairs if theirs[figure])
    if not ratios:
        return "-"
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})"


def report(ways, results, memory):
    print(f"\n{'mode':9} {'way':10} {'transactions/s':>14} {'p99 ms':>8} {'CPU ms/1000':>12}")
    for mode in MODES:
        for way in ways:
            if mode not in way.modes:
                print(f"{mode:9} {way.name:10} {'not possible before PgBouncer 1.21':>36}")
                continue
            middle = {
                figure: statistics.median(run[figure] for run in results[way.name, mode])
                for figure in ("tps", "p99", "cpu")
            }
            cpu = f"{middle['cpu']:12.1f}" if way.process else f"{'-':>12}"
            print(f"{mode:9} {way.name:10} {middle['tps']:14.0f} {middle['p99']:8.2f} {cpu}")
    print("\nForebay / PgBouncer (median of the rounds, range)")
    print(f"{'mode':9} {'throughput':>20} {'p99':>20} {'CPU per 1000':>20}")
    for mode in MODES:
        if all(mode in way.modes for way in ways):
            cells = [ratio(results, mode, figure) for figure in ("tps", "p99", "cpu")]
            print(f"{mode:9} " + " ".join(f"{cell:>20}" for cell in cells))
    print(f"\nmemory per idle client, KiB ({IDLE_CLIENTS} clients)")
    for name, kib in memory.items():
        print(f"{name:10} {kib:8.1f}")
    if memory["pgbouncer"] > 0:
        print(f"{'ratio':10} {memory['forebay'] / memory['pgbouncer']:8.2f}")


def describe(ways, server, rounds, seconds):
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    with server.connect() as direct:
        version = direct.execute("show server_version").fetchone()[0]
    print(f"{os.cpu_count()} cores ({model.group(1) if model else 'unknown'})")
    print(f"PostgreSQL {version}, fsync off, loopback, no TLS, SCRAM on both legs")
    print(f"pgbench -S, scale {SCALE}, {CLIENTS} clients over {POOL} server connections,")
    print(f"{rounds} rounds of {seconds} s for each mode and way, order rotated")
    for way in ways:
        if way.config:
            print(f"\n--- {way.name}\n{way.config.rstrip()}")
    sys.stdout.flush()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=4)
    chosen = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="forebay-bench-"))
    folder.chmod(0o755)
    server = PrivatePostgres(folder / "postgres", Authority(), max_connections=CLIENTS + 3 * POOL)
    ways = []
    try:
        server.start()
        ways.append(Way("direct", server.port))
        filled = pgbench(ways[0], folder, "-i", "-q", "-s", str(SCALE))
        assert filled.returncode == 0, filled.stderr
        ways.append(start_pgbouncer(folder, server))
        ways.append(start_forebay(folder, server))
        describe(ways, server, chosen.rounds, chosen.seconds)
        results = {(way.name, mode): [] for way in ways for mode in MODES}
        memory = {way.name: memory_per_idle_client(way) for way in ways if way.process}
        for way in ways:
            for mode in way.modes:
                measure(way, mode, folder, 1)
        for round_number in range(chosen.rounds):
            for mode in MODES:
                turn = round_number % len(ways)
                for way in ways[turn:] + ways[:turn]:
                    if mode in way.modes:
                        results[way.name, mode].append(measure(way, mode, folder, chosen.seconds))
            print(f"round {round_number + 1} of {chosen.rounds} done", file=sys.stderr)
        report(ways, results, memory)
    finally:
        for way in ways:
            if way.process:
                end(way.process)
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
