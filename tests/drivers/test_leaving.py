"""Clients that vanish: their work is stopped, their connections serve again."""

import signal
import subprocess

import psycopg

from gateway import BUDGET
from processes import eventually


def leased(forebay):
    return sum(pool["leased"] for pool in forebay.snapshot()["postgres"]["pools"])


def killed_while(forebay, postgres, statement, where):
    """Kills a psql that runs `statement` once the server shows `where`."""
    child = subprocess.Popen(
        ["psql", "-X", "-At"],
        env=forebay.env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    child.stdin.write(statement + "\n")
    child.stdin.flush()
    eventually(lambda: postgres.server_connections(where=where) > 0, what=where)
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_a_client_killed_in_a_query_leaves_nothing_running(forebay, postgres):
    running = "state = 'active' and query like '%pg_sleep(61)%'"
    for _ in range(BUDGET + 2):
        killed_while(forebay, postgres, "select pg_sleep(61);", running)
        eventually(lambda: postgres.server_connections(where=running) == 0, what="stopped")
    eventually(lambda: leased(forebay) == 0, what="no lease is left")
    assert postgres.server_connections() <= BUDGET


def test_a_client_killed_in_a_transaction_frees_its_locks(forebay, postgres):
    with psycopg.connect(**forebay.dsn(), autocommit=True) as setup:
        setup.execute("drop table if exists locked")
        setup.execute("create table locked(n int)")
        setup.execute("insert into locked values (1)")
    idle = "state = 'idle in transaction' and query like '%update locked%'"
    killed_while(forebay, postgres, "begin; update locked set n = 2;", idle)
    eventually(lambda: postgres.server_connections(where=idle) == 0, what="rolled back")
    with psycopg.connect(**forebay.dsn(), autocommit=True) as other:
        other.execute("set lock_timeout = '5s'")
        assert other.execute("update locked set n = n + 1 returning n").fetchone() == (2,)
    eventually(lambda: leased(forebay) == 0, what="no lease is left")


def test_a_client_killed_in_a_copy_leaves_nothing_behind(forebay, postgres):
    with psycopg.connect(**forebay.dsn(), autocommit=True) as setup:
        setup.execute("drop table if exists torn")
        setup.execute("create table torn(n int)")
    copying = "state = 'active' and query like 'copy torn%'"
    killed_while(forebay, postgres, "copy torn from stdin;\n1\n2", copying)
    eventually(lambda: postgres.server_connections(where=copying) == 0, what="copy ended")
    with psycopg.connect(**forebay.dsn(), autocommit=True) as other:
        assert other.execute("select count(*) from torn").fetchone() == (0,)
    eventually(lambda: leased(forebay) == 0, what="no lease is left")


def test_a_client_that_reads_nothing_and_dies_frees_its_connection(forebay, postgres):
    """Megabytes of rows are on their way to a client that never reads them."""
    from wire import Client

    busy = "state = 'active' and query like '%generate_series(1, 5000000)%'"
    client = Client(forebay.port)
    client.login("app", "app")
    client.query("select repeat('x', 200) from generate_series(1, 5000000)")
    eventually(lambda: postgres.server_connections(where=busy) == 1, what="the query runs")
    client.close()
    eventually(lambda: postgres.server_connections(where=busy) == 0, what="stopped")
    eventually(lambda: leased(forebay) == 0, what="no lease is left")


def test_an_idle_client_outlives_a_restart_of_the_server(own_forebay, folder, authority):
    from private_postgres import PrivatePostgres

    server = PrivatePostgres(folder / "restarted", authority).start()
    try:
        gateway = own_forebay(address=f"localhost:{server.port}")
        with psycopg.connect(**gateway.dsn(), autocommit=True) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
            server.restart()

            def serves():
                try:
                    return connection.execute("select 2").fetchone() == (2,)
                except psycopg.Error:
                    assert not connection.closed, "an idle client was sent away"
                    return False

            eventually(serves, within=20, what="service after the restart")
    finally:
        server.stop()
