"""A private PostgreSQL: a fresh cluster in a folder of its own, with TLS and passwords."""

import os
import pathlib
import shutil
import signal
import subprocess

import psycopg

from processes import end, eventually, free_port, unprivileged

PASSWORD = "a password with 'quotes' and \\ backslash"


class PrivatePostgres:
    """Runs from `start` to `stop`; `app` is an ordinary user with the database `app`."""

    def __init__(self, folder, authority, max_connections=60):
        self.folder = pathlib.Path(folder)
        self.authority = authority
        self.max_connections = max_connections
        self.port = free_port()
        self.bindir = pathlib.Path(os.environ["FOREBAY_TEST_PG_BINDIR"])
        self.process = None

    def start(self):
        self.folder.mkdir()
        as_other, user = unprivileged()
        (self.folder / "password").write_text(PASSWORD)
        self.authority.issue_cert("localhost", "127.0.0.1").configure_files(
            self.folder / "server.crt", self.folder / "server.key"
        )
        if as_other:
            for path in [self.folder, *self.folder.iterdir()]:
                shutil.chown(path, user, as_other["group"])
        data = self.folder / "data"
        subprocess.run(
            [self.bindir / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256"]
            + ["--pwfile", self.folder / "password", "-E", "UTF8", "--no-sync", "--no-locale"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **as_other,
        )
        self._run(as_other)
        with self.connect(dbname="postgres") as admin:
            admin.autocommit = True
            password = PASSWORD.replace("'", "''")
            admin.execute(f"create role app login password '{password}'")
            admin.execute("create database app owner app")
        return self

    def _run(self, as_other):
        settings = {
            # Its certificate is not made out for the second address.
            "listen_addresses": "127.0.0.1,127.0.0.2",
            "unix_socket_directories": str(self.folder),
            "max_connections": self.max_connections,
            "max_prepared_transactions": 20,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(self.folder / "server.crt"),
            "ssl_key_file": str(self.folder / "server.key"),
            "log_min_messages": "warning",
        }
        command = [self.bindir / "postgres", "-D", self.folder / "data", "-p", str(self.port)]
        for key, value in settings.items():
            command += ["-c", f"{key}={value}"]
        with open(self.folder.parent / "postgres.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, **as_other
            )
        eventually(self._answers, within=30, what="PostgreSQL's start")

    def _answers(self):
        assert self.process.poll() is None, "PostgreSQL ended at its start: see postgres.log"
        try:
            self.connect(dbname="postgres").close()
            return True
        except psycopg.OperationalError:
            return False

    def restart(self):
        """As after a crash: connections end, and the same port serves again."""
        end(self.process, signal.SIGINT)
        self._run(unprivileged()[0])

    def stop(self):
        if self.process:
            end(self.process, signal.SIGINT)

    def connect(self, dbname="app", user="postgres"):
        """A direct connection, past Forebay."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=PASSWORD, dbname=dbname
        )

    def server_connections(self, user="app", where="true"):
        """How many server connections `user` has, of those for which `where` holds."""
        with self.connect(dbname="postgres") as admin:
            return admin.execute(
                f"select count(*) from pg_stat_activity where usename = '{user}'"
                f" and backend_type = 'client backend' and ({where})"
            ).fetchone()[0]
