"""Forebay beside PgBouncer: the same load, the same PostgreSQL, turn by turn.

Each row starts both poolers afresh, as it needs them, and gives them its load in alternating
rounds. CPU time and memory are the pooler's own, from the system's books.
"""

import argparse
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests" / "drivers")]

import machine  # noqa: E402
from bench import SCALE, Bench  # noqa: E402
from conftest import Authority  # noqa: E402
from outcome import HEAD, lines  # noqa: E402
from poolers import POOL  # noqa: E402
from private_postgres import PrivatePostgres  # noqa: E402
from rows import ROWS, chosen  # noqa: E402


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="bench/beside-pgbouncer",
        description=__doc__.splitlines()[0],
        epilog="Rows: " + ", ".join(row.name for row in ROWS),
    )
    parser.add_argument("--rows", default="", help="names, with commas between; default all")
    parser.add_argument("--rounds", type=int, default=5, help="of each row; default 5")
    parser.add_argument("--seconds", type=int, default=2, help="a turn takes; default 2")
    parser.add_argument("--quick", action="store_true", help="one short round, about 2 minutes")
    parser.add_argument("--json", type=pathlib.Path, help="where the figures go, besides")
    parser.add_argument("--pgbouncer", help="another PgBouncer than the one in PATH")
    parser.add_argument(
        "--control",
        action="store_true",
        help="PgBouncer beside itself, in Forebay's place: what the spread is on this machine",
    )
    parser.add_argument("--no-calls", action="store_true", help="count no system calls")
    options = parser.parse_args(arguments)
    options.rows = [name for name in options.rows.split(",") if name]
    if options.quick:
        options.rounds, options.seconds = 1, 1
    return options


def configurations(outcome, shown):
    """Each row's configuration, in full where it has not been shown yet."""
    for name, text in outcome.configurations.items():
        # Ports and folders differ from row to row.
        kept = "\n".join(line for line in text.splitlines() if not _changes(line))
        first = shown.setdefault((name, kept), outcome.row.name)
        if first == outcome.row.name:
            yield f"--- {name}, {outcome.row.name} ({outcome.row.what})\n{kept}"
        else:
            yield f"--- {name}, {outcome.row.name} ({outcome.row.what}): as {first}"


def _changes(line):
    return line.startswith(("listen_port", "listen = ", "auth_file", "password = "))


def headline(about):
    """What the figures were measured with, in four lines."""
    return (
        f"{about['cores']} cores ({about['model']}), Linux {about['kernel']}, load before"
        f" {about['load'][0]:g}\n{about['forebay']}; {about['pgbouncer']}; PostgreSQL"
        f" {about['postgresql']}, fsync off, scale {about['scale']}\nloopback, no TLS,"
        f" {about['server_connections']} server connections; {about['rounds']} rounds of"
        f" {about['seconds']} s, alternating\n"
    )


def run(options, rows, folder, server):
    """Measures the rows and prints them; whether all of them have figures."""
    began = time.monotonic()
    bench = Bench(options, folder, server)
    bench.fill()
    with server.connect() as direct:
        version = direct.execute("show server_version").fetchone()[0]
    about = {
        **machine.describe(),
        **{program.name: program.version for program in bench.programs},
        "postgresql": version,
        "scale": SCALE,
        "server_connections": POOL,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    print(f"{headline(about)}\n{HEAD}")
    outcomes, shown = [], {}
    for row in rows:
        outcomes.append(bench.run(row))
        print("\n".join(lines(outcomes[-1])), flush=True)
    loads = [outcome.load for outcome in outcomes]
    print(f"\nload meanwhile {min(loads):g} to {max(loads):g}, the benchmark's own included")
    print(f"{time.monotonic() - began:.0f} s\n")
    for outcome in outcomes:
        print("\n".join(configurations(outcome, shown)))
    if options.json:
        data = {"machine": about, "rows": [outcome.as_data() for outcome in outcomes]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(data, indent=1) + "\n")
        print(f"\n{options.json}")
    return all(outcome.figures() for outcome in outcomes)


def main():
    options = parse(sys.argv[1:])
    try:
        rows = chosen(options.rows)
    except LookupError as unknown:
        raise SystemExit(str(unknown)) from None
    # Whoever ends the benchmark ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="forebay-bench-"))
    folder.chmod(0o755)
    server = PrivatePostgres(folder / "postgres", Authority(), max_connections=3 * POOL)
    try:
        server.start()
        if not run(options, rows, folder, server):
            raise SystemExit("some rows have no figures: see their notes")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
