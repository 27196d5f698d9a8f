"""asyncpg with its default settings: every parametrised query is a named statement."""

import asyncio
import concurrent.futures
import multiprocessing

import asyncpg
import pytest

from gateway import BUDGET
from processes import eventually


def keywords(forebay):
    """What asyncpg calls the parts of a DSN."""
    values = forebay.dsn()
    values["database"] = values.pop("dbname")
    return values


async def connect(forebay, **more):
    return await asyncpg.connect(**keywords(forebay), **more)


def program(values, seed):
    """A whole program in a process of its own: asyncpg counts its statements' names per
    process, so every process calls different texts by the same names."""

    async def run():
        connection = await asyncpg.connect(**values)
        try:
            for turn in range(15):
                for offset in range(5):
                    number = seed * 100 + offset
                    got = await connection.fetchval(f"select $1::int * {number} as n{number}", turn)
                    assert got == turn * number
        finally:
            await connection.close()

    asyncio.run(run())
    return seed


def test_programs_with_the_same_names_for_different_statements(forebay):
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=spawn) as processes:
        seeds = [1, 2, 3, 4]
        assert list(processes.map(program, [keywords(forebay)] * 4, seeds, timeout=60)) == seeds


def test_thirty_clients_repeat_statements_over_ten_connections(forebay):
    async def client(seed):
        connection = await connect(forebay)
        for turn in range(12):
            assert await connection.fetchval("select $1::int + $2::int", seed, turn) == seed + turn
            rows = await connection.fetch("select g from generate_series(1, $1) g", 10)
            assert [row["g"] for row in rows] == list(range(1, 11))
            async with connection.transaction():
                await connection.execute("select set_config('app.seed', $1, true)", str(seed))
                got = await connection.fetchval("select current_setting('app.seed')")
                assert got == str(seed)
        await connection.close()

    async def run():
        await asyncio.gather(*(client(seed) for seed in range(30)))

    asyncio.run(run())


def test_a_pool_with_its_reset_query(forebay):
    async def run():
        async with asyncpg.create_pool(**keywords(forebay), min_size=5, max_size=20) as pool:

            async def task(number):
                async with pool.acquire() as connection:
                    return await connection.fetchval("select $1::int", number)

            assert await asyncio.gather(*map(task, range(200))) == list(range(200))

    asyncio.run(run())


def test_transactions_savepoints_and_errors(forebay):
    async def run():
        connection = await connect(forebay)
        await connection.execute("drop table if exists notes")
        await connection.execute("create table notes(id int primary key, words text)")
        async with connection.transaction():
            await connection.execute("insert into notes values ($1, $2)", 1, "one")
            with pytest.raises(asyncpg.UniqueViolationError):
                async with connection.transaction():
                    await connection.execute("insert into notes values ($1, $2)", 1, "again")
            await connection.execute("insert into notes values ($1, $2)", 2, "two")
        assert await connection.fetchval("select count(*) from notes") == 2
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetchval("select $1::int / 0", 1)
        await connection.executemany(
            "insert into notes values ($1, $2)", [(n, str(n)) for n in range(10, 510)]
        )
        assert await connection.fetchval("select count(*) from notes") == 502
        await connection.close()

    asyncio.run(run())


def test_cursors_and_types_that_must_be_looked_up(forebay):
    async def run():
        connection = await connect(forebay)
        await connection.execute("drop type if exists mood cascade")
        await connection.execute("create type mood as enum ('calm', 'busy')")
        await connection.execute("drop table if exists moods")
        await connection.execute("create table moods(id int, felt mood[], more jsonb)")
        await connection.execute(
            "insert into moods select g, array['busy','calm']::mood[], '{}' from "
            "generate_series(1, 500) g"
        )
        async with connection.transaction():
            seen = [
                row["felt"]
                async for row in connection.cursor("select * from moods where id > $1", 0)
            ]
        assert len(seen) == 500 and seen[0] == ["busy", "calm"]
        await connection.close()

    asyncio.run(run())


def test_copy_goes_both_ways(forebay, tmp_path):
    async def run():
        connection = await connect(forebay)
        await connection.execute("drop table if exists bulk")
        await connection.execute("create table bulk(n int, words text)")
        records = [(n, f"row {n}") for n in range(30_000)]
        await connection.copy_records_to_table("bulk", records=records)
        target = tmp_path / "bulk.csv"
        await connection.copy_from_query(
            "select * from bulk where n >= $1 order by n", 0, output=str(target), format="csv"
        )
        assert target.read_text().splitlines() == [f"{n},row {n}" for n, _ in records]
        await connection.close()

    asyncio.run(run())


def test_a_task_that_times_out_cancels_its_query_and_leaks_nothing(forebay, postgres):
    async def run():
        connection = await connect(forebay)
        for _ in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.fetchval("select pg_sleep(60)"), 0.2)
            assert await connection.fetchval("select $1::int", 7) == 7
        with pytest.raises(asyncio.TimeoutError):
            await connection.fetchval("select pg_sleep(60)", timeout=0.2)
        assert await connection.fetchval("select 8") == 8
        await connection.close()

    asyncio.run(run())
    running = "state <> 'idle'"
    eventually(lambda: postgres.server_connections(where=running) == 0, what="nothing runs")


def test_tasks_cancelled_at_any_moment_give_everything_back(forebay, postgres):
    """The user presses Stop: tasks die while they connect, wait, query or commit."""

    async def task(number):
        connection = await connect(forebay)
        try:
            async with connection.transaction():
                await connection.fetchval("select pg_sleep(0.02), $1::int", number)
        finally:
            connection.terminate()

    async def run():
        for batch in range(5):
            tasks = [asyncio.create_task(task(n)) for n in range(20)]
            for position, running in enumerate(tasks):
                await asyncio.sleep(0.003 * (position % 4))
                running.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    eventually(lambda: postgres.server_connections(where="state <> 'idle'") == 0, what="all idle")
    eventually(lambda: leased(forebay) == 0, what="no lease is left")
    assert postgres.server_connections() <= BUDGET


def leased(forebay):
    return sum(pool["leased"] for pool in forebay.snapshot()["postgres"]["pools"])


def test_startup_settings_follow_their_client(forebay):
    async def run():
        first = await connect(forebay, server_settings={"application_name": "first"})
        second = await connect(forebay, server_settings={"application_name": "second"})
        for _ in range(5):
            for client, name in ((first, "first"), (second, "second")):
                assert await client.fetchval("show application_name") == name
        await first.close()
        await second.close()

    asyncio.run(run())
