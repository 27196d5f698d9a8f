"""The real binary, run with a configuration of the test's."""

import json
import os
import pathlib
import subprocess
import urllib.request

from processes import accepts, end, eventually, free_port, resident_bytes
from private_postgres import PASSWORD

BINARY = os.environ.get("FOREBAY_TEST_BINARY", "target/debug/forebay")
BUDGET = 10


class Forebay:
    """Runs from `start` to `stop`. `postgres` and `server` are lines added to those tables;
    `user` is that of the user `app`; `destinations` are whole tables, and without them there
    is no HTTP gateway. With an `authority`, both legs use TLS."""

    def __init__(
        self,
        folder,
        *,
        address,
        authority=None,
        postgres="",
        server="",
        user='password = "env:APP_PASSWORD"',
        destinations="",
        budget=BUDGET,
    ):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.http_port, self.admin_port = free_port(), free_port(), free_port()
        self.log_path = self.folder / "forebay.log"
        self.process = None
        tls = ""
        if authority:
            cert, key = self.folder / "client.crt", self.folder / "client.key"
            authority.issue_cert("localhost", "127.0.0.1").configure_files(cert, key)
            authority.write(self.folder / "ca.pem")
            server += f'sslmode = "verify-full"\nsslrootcert = "{self.folder}/ca.pem"\n'
            tls = f'[postgres.tls]\ncert = "{cert}"\nkey = "{key}"\n'
        http = f'[http]\nlisten = "127.0.0.1:{self.http_port}"\n' if destinations else ""
        self.config = self.folder / "forebay.toml"
        self.config.write_text(
            f"""
[admin]
listen = "127.0.0.1:{self.admin_port}"

[postgres]
listen = "127.0.0.1:{self.port}"
{postgres}
{tls}
[postgres.servers.main]
address = "{address}"
budget = {budget}
{server}
[postgres.users.app]
{user}

{http}{destinations}
"""
        )

    def start(self, ready=True):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "run", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "APP_PASSWORD": PASSWORD, "FOREBAY_LOG": "info"},
            )
        eventually(self._serves, within=20, what=f"Forebay's start (see {self.log_path})")
        if ready:
            eventually(lambda: self.admin("/readyz")[0] == 200, within=20, what="readiness")
        return self

    def _serves(self):
        assert self.process.poll() is None, f"Forebay ended at its start:\n{self.log()}"
        return accepts(self.port) and accepts(self.admin_port)

    def stop(self):
        """Asks Forebay to end and returns its status."""
        return end(self.process) if self.process else 0

    def dsn(self, user="app", dbname="app", **more):
        """Keywords for a driver of libpq's family."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": user,
            "password": PASSWORD,
            "dbname": dbname,
            **more,
        }

    def env(self, **more):
        """The environment of a program that uses libpq."""
        return {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "app",
            "PGDATABASE": "app",
            "PGPASSWORD": PASSWORD,
            **more,
        }

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def admin(self, path):
        """Status and body of a page of the admin listener."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def snapshot(self):
        return json.loads(self.admin("/api/v1/snapshot")[1])

    def resident_bytes(self):
        return resident_bytes(self.process.pid)
