"""Session pooling: what lives in a session stays there as long as the client does."""

import psycopg
import pytest

from gateway import BUDGET
from processes import eventually


@pytest.fixture(scope="module")
def session(folder, postgres):
    from gateway import Forebay

    forebay = Forebay(
        folder / "session",
        address=f"localhost:{postgres.port}",
        postgres='pool_mode = "session"',
        server='classes = { core = { kind = "core", guarantee = "100%", '
        'checkout_timeout = "1s" } }',
    )
    yield forebay.start()
    assert forebay.stop() == 0, forebay.log()


def test_what_lives_in_a_session_stays(session):
    with psycopg.connect(**session.dsn(), autocommit=True) as connection:
        connection.execute("create temp table scratch(n int)")
        connection.execute("set statement_timeout = '17s'")
        connection.execute("prepare mine as select 42")
        connection.execute("select pg_advisory_lock(17)")
        backend = connection.execute("select pg_backend_pid()").fetchone()
        for _ in range(5):
            connection.execute("insert into scratch values (1)")
            assert connection.execute("show statement_timeout").fetchone() == ("17s",)
            assert connection.execute("execute mine").fetchone() == (42,)
            assert connection.execute("select pg_backend_pid()").fetchone() == backend
        assert connection.execute("select count(*) from scratch").fetchone() == (5,)


def test_notifications_arrive(session):
    with (
        psycopg.connect(**session.dsn(), autocommit=True) as listener,
        psycopg.connect(**session.dsn(), autocommit=True) as speaker,
    ):
        listener.execute("listen news")
        speaker.execute("notify news, 'hello'")
        assert next(listener.notifies(timeout=10)).payload == "hello"


def test_nothing_is_left_for_the_next_client(session):
    for number in range(BUDGET + 2):
        with psycopg.connect(**session.dsn(), autocommit=True) as connection:
            assert connection.execute("select to_regclass('pg_temp.left_over')").fetchone() == (
                None,
            )
            assert connection.execute("show work_mem").fetchone() == ("4MB",)
            assert connection.execute(
                "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
            ).fetchone() == (0,)
            connection.execute("create temp table left_over(n int)")
            connection.execute("set work_mem = '5MB'")
            connection.execute("select pg_advisory_lock(%s)", [number])
            connection.execute("prepare left_over as select 1")


def test_one_client_too_many_is_told_and_the_next_is_served(session):
    clients = [psycopg.connect(**session.dsn(), autocommit=True) for _ in range(BUDGET)]
    for client in clients:
        client.execute("select 1")
    with pytest.raises(psycopg.Error) as refused:
        with psycopg.connect(**session.dsn(), autocommit=True) as late:
            late.execute("select 1")
    assert "core" in str(refused.value)
    clients.pop().close()

    def served():
        try:
            with psycopg.connect(**session.dsn(), autocommit=True) as next_one:
                return next_one.execute("select 1").fetchone() == (1,)
        except psycopg.Error:
            return False

    eventually(served, what="a place for the next")
    for client in clients:
        client.close()
