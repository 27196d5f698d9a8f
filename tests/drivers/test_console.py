"""The console, as psql, drivers and prometheus-community's pgbouncer_exporter use it."""

import asyncio
import json
import subprocess

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row

from gateway import Forebay
from processes import eventually


@pytest.fixture(scope="module")
def forebay(folder, postgres):
    """One with an admin and somebody who may look."""
    gateway = Forebay(
        folder / "console",
        address=f"localhost:{postgres.port}",
        postgres='admin_users = ["app"]\nstats_users = ["metrics"]\nstats_period = "1s"\n'
        f'listen = ["127.0.0.1:PORT", "unix:{folder}/console"]\n',
    )
    text = gateway.config.read_text().replace(f'listen = "127.0.0.1:{gateway.port}"\n', "")
    text = text.replace("127.0.0.1:PORT", f"127.0.0.1:{gateway.port}")
    gateway.config.write_text(text + '\n[postgres.users.metrics]\npassword = "env:APP_PASSWORD"\n')
    try:
        yield gateway.start()
    finally:
        gateway.stop()


def psql(forebay, *arguments, **more):
    return subprocess.run(
        ["psql", "-X", *arguments],
        env=forebay.env(**{"PGDATABASE": "pgbouncer", **more}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def show(forebay, view, **more):
    """The rows of a view, as the exporter looks them up: by the names of the columns."""
    dsn = forebay.dsn(dbname="pgbouncer", user="metrics", **more)
    with psycopg.connect(**dsn, autocommit=True, row_factory=dict_row) as console:
        return psycopg.ClientCursor(console, row_factory=dict_row).execute(view).fetchall()


def test_psql_shows_pools_in_each_of_its_ways(forebay):
    with psycopg.connect(**forebay.dsn()) as client:
        client.execute("select 1")
        pools = psql(forebay, "-c", "SHOW POOLS")
        assert "cl_active" in pools.stdout and "transaction" in pools.stdout, pools.stderr
        expanded = psql(forebay, "-x", "-c", "SHOW POOLS")
        assert "-[ RECORD 1 ]" in expanded.stdout
        watched = psql(forebay, "-c", "\\x", "-c", "SHOW LISTS \\watch i=0.1 c=2")
        assert watched.stdout.count("used_clients") <= 2
        told = psql(forebay, "-c", "SHOW HELP")
        assert "Console usage" in told.stderr and "KILL_CLIENT" in told.stderr
        refused = psql(forebay, "-c", "RELOAD", PGUSER="metrics")
        assert "admin access needed" in refused.stderr


def test_whoever_runs_it_needs_no_password_over_the_socket(forebay, folder):
    shown = psql(
        forebay, "-At", "-c", "SHOW VERSION", PGHOST=f"{folder}/console", PGUSER="pgbouncer", PGPASSWORD=""
    )
    assert shown.stdout == "PgBouncer 1.25.2\n", shown.stderr
    over_tcp = psql(forebay, "-c", "SHOW VERSION", PGUSER="pgbouncer", PGPASSWORD="")
    assert over_tcp.returncode != 0


def test_the_exporter_finds_every_column_that_it_looks_up(forebay):
    """What collector.go of prometheus-community/pgbouncer_exporter asks, and how."""
    with psycopg.connect(**forebay.dsn(application_name="busy")) as client:
        client.execute("select 1")
        labels = {
            "DATABASES": ["name", "host", "port", "database", "force_user", "pool_mode"],
            "STATS_TOTALS": ["database"],
            "POOLS": ["database", "user"],
        }
        figures = {
            "DATABASES": "pool_size max_connections current_connections paused disabled",
            "STATS_TOTALS": "query_count query_time bytes_received bytes_sent wait_time xact_count "
            "xact_time client_parse_count server_parse_count bind_count",
            "POOLS": "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active "
            "sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait",
        }
        for view, columns in figures.items():
            rows = show(forebay, f"SHOW {view};")
            assert any("app" in (row.get("name"), row.get("database")) for row in rows), view
            for row in rows:
                assert all(column in row for column in labels[view]), view
                assert all(float(row[column]) >= 0 for column in columns.split()), view
        assert show(forebay, "SHOW STATS")
        lists = {row["list"]: row["items"] for row in show(forebay, "SHOW LISTS;")}
        for name in "databases users pools free_clients used_clients login_clients free_servers".split():
            assert lists[name] >= 0
        config = {row["key"]: row["value"] for row in show(forebay, "SHOW CONFIG;")}
        assert float(config["max_client_conn"]) > 0 and float(config["max_user_connections"]) == 0
        clients = show(forebay, "SHOW CLIENTS;")
        assert any(row["application_name"] == "busy" and row["state"] == "active" for row in clients)
        version = show(forebay, "SHOW VERSION;")
        assert [list(row) for row in version] == [["version"]]


def test_averages_come_with_the_period(forebay):
    with psycopg.connect(**forebay.dsn(), autocommit=True) as client:

        def average():
            client.execute("select 1")
            rows = {row["database"]: row for row in show(forebay, "SHOW STATS")}
            return rows["app"]["avg_query_count"] > 0 and rows["app"]["avg_query_time"] > 0

        eventually(average, within=10, what="an average")


def test_asyncpg_reads_a_view_in_binary(forebay):
    async def read():
        console = await asyncpg.connect(
            host="127.0.0.1",
            port=forebay.port,
            user="app",
            password=forebay.dsn()["password"],
            database="pgbouncer",
        )
        try:
            rows = await console.fetch("SHOW STATS")
            return rows, await console.fetchval("SHOW VERSION")
        finally:
            await console.close()

    rows, version = asyncio.run(read())
    assert all(row["total_query_count"] >= 0 for row in rows)
    assert version == "PgBouncer 1.25.2"


def test_our_own_views_and_settings_show_no_secret(forebay):
    def rows(command):
        shown = psql(forebay, "-At", "-c", command, PGDATABASE="forebay")
        assert shown.returncode == 0, f"{command}: {shown.stderr}"
        return shown.stdout

    with psycopg.connect(**forebay.dsn()) as client:
        client.execute("select 1")
        assert "postgres|main|core" in rows("SHOW CLASSES")
        assert rows("SHOW BUDGETS").startswith("postgres|main|up|10")
        for view in (
            "REQUESTS HOLDS SUSPECTED_HOLDS HOLD_REPORT OVERLAPS PINS FEATURES OPERATIONS EVENTS "
            "PRESSURE POLICIES DESTINATIONS REPLICATION LISTENERS".split()
        ):
            rows(f"SHOW {view}")
        events = [line.split("|", 2) for line in rows("SHOW EVENTS 5").splitlines()]
        assert all(json.loads(what) for _, _, what in events)
        settings = rows("SHOW CONFIG")
    assert "postgres.servers.main.budget|10" in settings
    assert "postgres.users.app.password|(secret)" in settings
    everything = settings + "".join(
        rows(f"SHOW {view}") for view in "FDS CLIENTS SERVERS SOCKETS CONFIG MEM USERS".split()
    )
    assert forebay.dsn()["password"] not in everything + forebay.log()


def test_a_reload_from_the_console_says_what_came_of_it(forebay):
    text = forebay.config.read_text()
    assert psql(forebay, "-At", "-c", "RELOAD").stdout == "RELOAD\n"
    try:
        forebay.config.write_text(text.replace("budget = 10", "budget = 0"))
        failed = psql(forebay, "-c", "\\set VERBOSITY verbose", "-c", "RELOAD")
        assert "F0000" in failed.stderr and "budget" in failed.stderr
        forebay.config.write_text(text.replace("budget = 10", "budget = 12"))
        assert psql(forebay, "-At", "-c", "RELOAD").returncode == 0
        assert "postgres|main|up|12" in psql(forebay, "-At", "-c", "SHOW BUDGETS").stdout
    finally:
        forebay.config.write_text(text)


def test_shutdown_ends_the_program(folder, postgres):
    gateway = Forebay(
        folder / "console-end",
        address=f"localhost:{postgres.port}",
        postgres='admin_users = ["app"]\n',
    ).start()
    psql(gateway, "-c", "SHUTDOWN")
    gateway.process.wait(timeout=20)
    assert gateway.process.returncode == 0, gateway.log()
