"""The two programs that are compared: how they are configured, started and ended.

Both get the same PostgreSQL, as many connections to it, a port on loopback and no Unix
socket. PgBouncer gets a user of its own where the benchmark runs as root, and none of its
lines for each login and logout in the log: Forebay writes none either.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from accounting import Cpu, Memory
from processes import accepts, end, eventually, free_port, unprivileged

POOL = 10
USER = "bench"
PASSWORD = "a-password-for-an-hour"
DATABASE = "bench"
MAX_CLIENTS = 19_000

TRUST, SCRAM = "trust", "scram-sha-256"


@dataclass(frozen=True)
class Setup:
    """What a row asks of the poolers, beside what is the same for all rows."""

    auth: str = TRUST
    naming: bool = False  # Forebay prepares repeated unnamed statements under a name.


@dataclass(frozen=True)
class Database:
    """The PostgreSQL behind, and the verifier of `USER` there."""

    port: int
    pid: int
    verifier: str


class DoesNotStart(Exception):
    """The pooler ended at once; the text is the end of its log."""


class Pooler:
    """A running pooler. `configuration` is the whole text of its file."""

    def __init__(self, name, port, process, configuration):
        self.name, self.port, self.process = name, port, process
        self.configuration = configuration

    def cpu(self):
        return Cpu(self.process.pid)

    def memory(self):
        return Memory(self.process.pid)

    def stop(self):
        end(self.process)


class PgBouncer:
    """PgBouncer, from Debian's package or from `binary`."""

    def __init__(self, binary=None, name="pgbouncer"):
        self.name = name
        self.binary = binary or shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        said = subprocess.run([self.binary, "--version"], capture_output=True, text=True)
        self.version = said.stdout.splitlines()[0]
        numbers = re.search(r"(\d+)\.(\d+)", self.version)
        # Prepared statements in transaction pooling came with 1.21.
        self.prepares = tuple(map(int, numbers.groups())) >= (1, 21)

    def start(self, folder, database, setup):
        port = free_port()
        place = folder / f"pgbouncer-{port}"
        place.mkdir()
        # From a verifier a login costs no more than it must; from a password, PgBouncer would
        # derive it anew for each.
        (place / "userlist.txt").write_text(f'"{USER}" "{database.verifier}"\n')
        lines = [
            "[databases]",
            f"{DATABASE} = host=127.0.0.1 port={database.port} user={USER} password={PASSWORD}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            f"auth_type = {setup.auth}",
            f"auth_file = {place}/userlist.txt",
            "pool_mode = transaction",
            f"default_pool_size = {POOL}",
            f"max_client_conn = {MAX_CLIENTS}",
            "server_tls_sslmode = disable",
            "log_connections = 0",
            "log_disconnections = 0",
        ]
        if self.prepares:
            lines.append("max_prepared_statements = 500")
        configuration = "\n".join(lines) + "\n"
        (place / "pgbouncer.ini").write_text(configuration)
        as_other, user = unprivileged()
        if as_other:
            for path in [place, *place.iterdir()]:
                shutil.chown(path, user, as_other["group"])
        command = [self.binary, str(place / "pgbouncer.ini")]
        process = _serving(command, port, folder / f"pgbouncer-{port}.log", **as_other)
        return Pooler(self.name, port, process, configuration)


class Forebay:
    """Forebay, a release build."""

    name = "forebay"
    prepares = True

    def __init__(self):
        self.binary = os.environ["FOREBAY_TEST_BINARY"]
        said = subprocess.run([self.binary, "--version"], capture_output=True, text=True)
        self.version = said.stdout.strip()

    def start(self, folder, database, setup):
        port, admin = free_port(), free_port()
        naming = 'name_unnamed = ["core"]\n' if setup.naming else ""
        configuration = f"""[admin]
listen = "127.0.0.1:{admin}"
[postgres]
listen = "127.0.0.1:{port}"
auth = "{setup.auth}"
max_clients = {MAX_CLIENTS}
[postgres.servers.main]
address = "127.0.0.1:{database.port}"
sslmode = "disable"
budget = {POOL}
classes = {{ core = {{ kind = "core", guarantee = "100%" }} }}
{naming}[postgres.users.{USER}]
password = "{database.verifier}"
server_password = "{PASSWORD}"
"""
        path = folder / f"forebay-{port}.toml"
        path.write_text(configuration)
        command = [self.binary, "run", str(path)]
        process = _serving(command, port, folder / f"forebay-{port}.log")
        return Pooler(self.name, port, process, configuration)


def _serving(command, port, log, **how):
    """Starts a program and waits until it accepts connections on `port`."""
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **how
        )
    try:
        eventually(lambda: accepts(port) or process.poll() is not None, within=20, what="a start")
    except AssertionError:
        end(process)
        raise
    if process.poll() is not None:
        raise DoesNotStart(f"{command[0]} does not start: {log.read_text()[-2000:]}")
    return process
