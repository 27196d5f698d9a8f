"""psycopg 3 with asyncio: what is not just the synchronous way with `await`."""

import asyncio

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, AsyncNullConnectionPool

import transcript as t


def keywords(seen):
    return {
        "host": t.HOST,
        "port": t.PORT,
        "user": t.USER,
        "password": t.PASSWORD,
        "dbname": t.DATABASE,
        "options": f"-c search_path={seen.schema} -c statement_timeout=20s",
        "application_name": f"tour {seen.number % 2}",
    }


async def connect(seen, **more):
    return await psycopg.AsyncConnection.connect(**keywords(seen), **more)


async def tour(seen):
    async with await connect(seen, autocommit=True) as connection:
        await connection.execute(f"drop schema if exists {seen.schema} cascade")
        await connection.execute(f"create schema {seen.schema}")
        await connection.execute("create table item(id int primary key, words text, more jsonb)")
    for part in (statements, transactions, streams, copies, pipelines, cancels, pools):
        async with await connect(seen) as connection:
            await part(seen, connection)


async def value(c, text, *arguments):
    return (await (await c.execute(text, *arguments)).fetchone())[0]


async def statements(seen, c):
    for turn in range(12):
        seen.say("sum", await value(c, "select %s::int + 1", [turn]))
        seen.say("json", await value(c, "select %s::jsonb", [Jsonb({"turn": turn})]))
        await c.commit()
        await asyncio.sleep(0)
    seen.say("path", await value(c, "show search_path"), await value(c, "show statement_timeout"))
    async with c.cursor() as cursor:
        await cursor.executemany(
            "insert into item(id, words) values (%s, %s) returning id",
            [(n, "x" * n) for n in range(30)],
            returning=True,
        )
        ids = []
        while True:
            ids.append((await cursor.fetchone())[0])
            if not cursor.nextset():
                break
        seen.say("ids", ids)


async def transactions(seen, c):
    await c.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
    await c.set_read_only(True)
    async with c.transaction():
        seen.say("isolation", await value(c, "show transaction_isolation"))
        await seen.afails(
            "read only", psycopg.Error, inside(c, "insert into item(id) values (100)")
        )
    await c.set_read_only(None)
    await c.set_isolation_level(None)
    await c.set_autocommit(True)
    async with c.transaction():
        await c.execute("insert into item(id) values (101)")
        await seen.afails("twice", psycopg.Error, inside(c, "insert into item(id) values (101)"))
    seen.say("count", await value(c, "select count(*) from item where id > 99"))
    await seen.afails("error", psycopg.Error, c.execute("select %s::int / 0", [1]))
    seen.say("status", c.info.transaction_status)


async def inside(c, text):
    async with c.transaction():
        await c.execute(text)


async def streams(seen, c):
    async with c.cursor("one") as cursor:
        cursor.itersize = 50
        await cursor.execute("select g from generate_series(1, 400) g")
        seen.say("server", sum([row[0] async for row in cursor]))
    total = 0
    async for row in c.cursor().stream("select g from generate_series(1, 400) g"):
        total += row[0]
    seen.say("streamed", total)


async def copies(seen, c):
    async with c.cursor().copy("copy item(id, words) from stdin") as copy:
        for number in range(1000, 2000):
            await copy.write_row((number, f"row {number}"))
    async with c.cursor().copy(
        "copy (select * from item where id >= 1000 order by id) to stdout"
    ) as copy:
        rows = [row async for row in copy.rows()]
    seen.say("copied", len(rows), rows[3])
    await c.rollback()


async def pipelines(seen, c):
    await c.set_autocommit(True)
    for turn in range(5):
        async with c.pipeline():
            cursors = [await c.execute("select %s::int * 3", [n]) for n in range(10)]
            seen.say("early", await cursors[0].fetchone())
            # The pipeline waits, as for a model's answer, with its batch unfinished.
            await asyncio.sleep(0.01)
            more = await c.execute("select %s::int", [turn])
        seen.say("pipeline", [await one.fetchone() for one in cursors], await more.fetchone())
    await seen.afails("failed", psycopg.Error, failing(c))
    seen.say("after", await value(c, "select 1"))


async def failing(c):
    async with c.pipeline() as pipeline:
        await c.execute("insert into item(id) values (3000)")
        await c.execute("select 1/0")
        await pipeline.sync()


async def cancels(seen, c):
    # Without BEGIN: psycopg goes on to the statement where a cancel comes during its BEGIN.
    await c.set_autocommit(True)
    for _ in range(3):
        try:
            await asyncio.wait_for(c.execute("select pg_sleep(20)"), 0.1)
        except asyncio.TimeoutError:
            seen.say("timed out", c.info.transaction_status)
        await c.cancel_safe()
        seen.say("spared", await value(c, "select 2"))
    task = asyncio.create_task(c.execute("select pg_sleep(20)"))
    await asyncio.sleep(0.05)
    task.cancel()
    seen.say("cancelled", type((await asyncio.gather(task, return_exceptions=True))[0]).__name__)
    seen.say("usable", await value(c, "select 3"))


async def pools(seen, c):
    await c.close()
    for made, more in (
        (
            AsyncConnectionPool,
            {"min_size": 2, "max_size": 4, "check": AsyncConnectionPool.check_connection},
        ),
        (AsyncNullConnectionPool, {"min_size": 0, "max_size": 2}),
    ):
        async with made(kwargs=keywords(seen), open=False, **more) as pool:

            async def work(number):
                async with pool.connection() as one:
                    return await value(one, "select %s::int * 2", [number])

            seen.say("pool", sum(await asyncio.gather(*map(work, range(20)))))

            async def stopped():
                async with pool.connection() as one:
                    await one.execute("insert into item(id) values (4000)")
                    await asyncio.sleep(30)

            tasks = [asyncio.create_task(stopped())]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with pool.connection() as one:
                seen.say(
                    "rolled back", await value(one, "select count(*) from item where id = 4000")
                )


asyncio.run(t.arun(tour))
