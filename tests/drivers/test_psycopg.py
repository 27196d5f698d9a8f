"""psycopg 3 with its default settings: from the sixth run on a statement is prepared, and
every connection calls its statements by the same names (`_pg3_0`, `_pg3_1` …)."""

import asyncio
import concurrent.futures
import threading
import time

import psycopg
import pytest

from gateway import BUDGET
from processes import eventually


def test_clients_give_the_same_names_to_different_statements(forebay):
    def client(seed):
        with psycopg.connect(**forebay.dsn()) as connection:
            for turn in range(12):
                for offset in range(3):
                    number = seed * 10 + offset
                    row = connection.execute(f"select %s::int + {number}", [turn]).fetchone()
                    assert row == (turn + number,)
                connection.commit()
        return seed

    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        assert sorted(threads.map(client, range(24))) == list(range(24))


def test_statements_that_are_prepared_at_once(forebay):
    """As LangGraph's saver connects: autocommit, `prepare_threshold=0`."""

    def client(seed):
        with psycopg.connect(
            **forebay.dsn(), autocommit=True, prepare_threshold=0
        ) as connection:
            for turn in range(10):
                row = connection.execute(f"select %s::int * {seed}", [turn]).fetchone()
                assert row == (turn * seed,)

    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        list(threads.map(client, range(1, 21)))


def test_more_statements_than_a_connection_keeps(forebay):
    """psycopg closes its oldest statement beyond `prepared_max` (100)."""
    with psycopg.connect(**forebay.dsn(), autocommit=True, prepare_threshold=0) as connection:
        for _ in range(2):
            for number in range(150):
                row = connection.execute(f"select %s::int + {number}", [1]).fetchone()
                assert row == (1 + number,)


def test_transactions_savepoints_and_errors(forebay):
    with psycopg.connect(**forebay.dsn(), autocommit=True) as connection:
        connection.execute("drop table if exists orders")
        connection.execute("create table orders(id int primary key)")
        with connection.transaction():
            connection.execute("insert into orders values (%s)", [1])
            with pytest.raises(psycopg.errors.UniqueViolation):
                with connection.transaction():
                    connection.execute("insert into orders values (%s)", [1])
            connection.execute("insert into orders values (%s)", [2])
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select %s::int / 0", [1])
        assert connection.execute("select count(*) from orders").fetchone() == (2,)


def test_pipeline_mode(forebay):
    def client(seed):
        with psycopg.connect(**forebay.dsn(), autocommit=True) as connection:
            for _ in range(4):
                with connection.pipeline():
                    cursors = [
                        connection.execute("select %s::int + %s::int", [seed, n])
                        for n in range(20)
                    ]
                assert [c.fetchone()[0] for c in cursors] == [seed + n for n in range(20)]

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        list(threads.map(client, range(16)))


def test_an_error_in_a_pipeline_spares_what_comes_after_the_sync(forebay):
    with psycopg.connect(**forebay.dsn(), autocommit=True) as connection:
        with connection.pipeline() as pipeline:
            good = connection.execute("select %s::int", [1])
            bad = connection.execute("select %s::int / 0", [1])
            skipped = connection.execute("select %s::int", [2])
            with pytest.raises(psycopg.errors.DivisionByZero):
                pipeline.sync()
            assert good.fetchone() == (1,)
            for unanswered in (bad, skipped):
                with pytest.raises(psycopg.Error):
                    unanswered.fetchone()
            after = connection.execute("select %s::int", [3])
            pipeline.sync()
            assert after.fetchone() == (3,)


def test_copy_goes_both_ways(forebay):
    with psycopg.connect(**forebay.dsn()) as connection, connection.cursor() as cursor:
        cursor.execute("drop table if exists piled")
        cursor.execute("create table piled(n int, words text)")
        with cursor.copy("copy piled from stdin") as copy:
            for number in range(20_000):
                copy.write_row((number, f"row {number}\twith a tab"))
        with cursor.copy("copy (select * from piled order by n) to stdout") as copy:
            rows = list(copy.rows())
        assert len(rows) == 20_000 and rows[7] == ("7", "row 7\twith a tab")
        with pytest.raises(ValueError, match="gave up"):
            with cursor.copy("copy piled from stdin") as copy:
                copy.write_row((1, "never arrives"))
                raise ValueError("the application gave up")
        connection.rollback()
        assert connection.execute("select 1").fetchone() == (1,)


def test_named_cursors_and_rows_that_are_streamed(forebay):
    with psycopg.connect(**forebay.dsn()) as connection:
        with connection.cursor("many") as cursor:
            cursor.itersize = 100
            cursor.execute("select g from generate_series(1, 1000) g")
            assert sum(row[0] for row in cursor) == 500_500
        with connection.cursor() as cursor:
            assert sum(r[0] for r in cursor.stream("select g from generate_series(1, 1000) g"))


def test_large_values_go_both_ways(forebay):
    large = "x" * (8 << 20)
    with psycopg.connect(**forebay.dsn()) as connection:
        assert connection.execute("select %s::text", [large]).fetchone() == (large,)
        assert connection.execute("select repeat('y', 8 << 20)").fetchone() == ("y" * (8 << 20),)


def test_a_cancel_reaches_its_own_query_only(forebay, postgres):
    with (
        psycopg.connect(**forebay.dsn(), autocommit=True) as stopped,
        psycopg.connect(**forebay.dsn(), autocommit=True) as spared,
    ):
        outcome = {}

        def sleep(name, connection, seconds):
            try:
                connection.execute("select pg_sleep(%s)", [seconds])
                outcome[name] = "finished"
            except psycopg.errors.QueryCanceled as error:
                outcome[name] = error.sqlstate

        threads = [
            threading.Thread(target=sleep, args=("stopped", stopped, 60)),
            threading.Thread(target=sleep, args=("spared", spared, 2)),
        ]
        for thread in threads:
            thread.start()
        running = "state = 'active' and query like '%pg_sleep%'"
        eventually(lambda: postgres.server_connections(where=running) == 2, what="both run")
        stopped.cancel_safe()
        for thread in threads:
            thread.join()
        assert outcome == {"stopped": "57014", "spared": "finished"}
        assert stopped.execute("select 1").fetchone() == (1,)
        # A cancel that comes too late hits nobody.
        stopped.cancel_safe()
        assert stopped.execute("select 2").fetchone() == (2,)


def test_a_queued_query_can_be_cancelled(forebay, postgres):
    """All server connections are taken; the one who waits in line gives up."""
    holders = [psycopg.connect(**forebay.dsn()) for _ in range(BUDGET - 2)]
    waiting = psycopg.connect(**forebay.dsn(), autocommit=True)
    try:
        for holder in holders:
            holder.execute("select 1")
        outcome = []

        def wait():
            try:
                waiting.execute("select 'got one'")
                outcome.append("served")
            except psycopg.Error as error:
                outcome.append(error.sqlstate)

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: waiters(forebay) == 1, what="a waiter")
        waiting.cancel_safe()
        thread.join(4)
        assert outcome == ["57014"]
        holders[0].rollback()
        assert waiting.execute("select 1").fetchone() == (1,)
    finally:
        for connection in [*holders, waiting]:
            connection.close()


def waiters(forebay):
    pools = forebay.snapshot()["postgres"]["pools"]
    return sum(one["waiting"] for pool in pools for one in pool["classes"])


def test_asynchronous_clients_and_a_timeout(forebay, postgres):
    async def client(seed):
        async with await psycopg.AsyncConnection.connect(**forebay.dsn()) as connection:
            for turn in range(12):
                cursor = await connection.execute(f"select %s::int + {seed}", [turn])
                assert await cursor.fetchone() == (turn + seed,)
                await connection.commit()

    async def impatient():
        connection = await psycopg.AsyncConnection.connect(**forebay.dsn(), autocommit=True)
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.execute("select pg_sleep(60)"), 0.3)
            cursor = await connection.execute("select %s::int", [5])
            assert await cursor.fetchone() == (5,)
        await connection.close()

    async def run():
        await asyncio.gather(*(client(seed) for seed in range(20)), impatient())

    asyncio.run(run())
    running = "query like '%pg_sleep(60)%' and state = 'active'"
    eventually(lambda: postgres.server_connections(where=running) == 0, what="none sleeps")


def test_a_class_chosen_by_startup_option_or_comment(forebay):
    def checkouts(name):
        pools = forebay.snapshot()["postgres"]["pools"]
        return sum(c["checkouts"] for p in pools for c in p["classes"] if c["class"] == name)

    before = checkouts("ai-read")
    with psycopg.connect(
        **forebay.dsn(options="-c forebay.class=ai-read"), autocommit=True
    ) as connection:
        connection.execute("select 1")
    after_option = checkouts("ai-read")
    assert after_option > before
    with psycopg.connect(**forebay.dsn(), autocommit=True) as connection:
        connection.execute("select 1 /*forebay_class='ai-read'*/")
    assert checkouts("ai-read") > after_option


def test_settings_of_a_session_stay_with_their_client(forebay):
    zones = ["Asia/Tokyo", "America/Lima", "Europe/Paris"]

    def client(number):
        zone = zones[number % len(zones)]
        with psycopg.connect(**forebay.dsn(options=f"-c TimeZone={zone}")) as connection:
            for _ in range(10):
                assert connection.execute("show timezone").fetchone() == (zone,)
                connection.commit()
                time.sleep(0.005)

    with concurrent.futures.ThreadPoolExecutor(18) as threads:
        list(threads.map(client, range(18)))


def test_a_table_altered_under_a_prepared_statement(forebay):
    """PostgreSQL says "cached plan must not change result type" for each connection that has
    an old plan. Here all clients share them, so it is said once, and not for each of them."""
    with psycopg.connect(**forebay.dsn(), autocommit=True) as connection:
        connection.execute("drop table if exists grows")
        connection.execute("create table grows(a int)")
        connection.execute("insert into grows values (1)")
        for _ in range(8):
            connection.execute("select * from grows where a = %s", [1])
        connection.execute("alter table grows add column b int default 2")
        failures = 0
        for _ in range(8):
            try:
                got = connection.execute("select * from grows where a = %s", [1]).fetchone()
                assert got == (1, 2)
            except psycopg.errors.FeatureNotSupported:
                failures += 1
        assert failures <= 1
        with psycopg.connect(**forebay.dsn(), autocommit=True) as other:
            for _ in range(8):
                assert other.execute("select * from grows where a = %s", [1]).fetchone() == (1, 2)
