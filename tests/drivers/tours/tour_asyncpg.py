"""asyncpg, as its documentation shows it."""

import asyncio
import datetime
import decimal
import io
import ipaddress
import json
import uuid

import asyncpg

import transcript as t

# One client at a time where a step takes two connections.
ALONE = asyncio.Lock()


def keywords(seen):
    return {
        "host": t.HOST,
        "port": t.PORT,
        "user": t.USER,
        "password": t.PASSWORD,
        "database": t.DATABASE,
        "server_settings": {
            "search_path": seen.schema,
            "application_name": "tour of asyncpg",
            "statement_timeout": "20s",
            "timezone": "Asia/Kathmandu",
            "jit": "off",
            "app.tenant": "one",
        },
    }


async def tour(seen):
    c = await asyncpg.connect(**keywords(seen))
    await c.execute(f"drop schema if exists {seen.schema} cascade; create schema {seen.schema}")
    await c.execute("create table item(id int primary key, words text)")
    await c.close()
    for part in (
        session,
        statements,
        types,
        transactions,
        errors,
        notices,
        cursors,
        copies,
        cancels,
        large,
        pools,
    ):
        c = await asyncpg.connect(**keywords(seen))
        await part(seen, c)
        await c.close()


async def session(seen, c):
    s = c.get_settings()
    seen.say(
        "settings",
        s.client_encoding,
        s.TimeZone,
        s.application_name,
        s.is_superuser,
        s.server_encoding,
    )
    seen.say("version", c.get_server_version(), c.get_server_pid() > 0)
    for _ in range(3):
        for name in (
            "search_path",
            "application_name",
            "statement_timeout",
            "timezone",
            "jit",
            "app.tenant",
        ):
            seen.say(name, await c.fetchval(f"show {name}"))
    await c.execute("set application_name = 'other'")
    await c.execute("select set_config('app.tenant', 'two', false)")
    for _ in range(3):
        seen.say(
            "changed",
            await c.fetchval("show application_name"),
            await c.fetchval("show app.tenant"),
        )
    seen.say("reported", c.get_settings().application_name)
    await c.reset()
    seen.say(
        "reset",
        await c.fetchval("show application_name"),
        await c.fetchval("show app.tenant"),
        await c.fetchval("show timezone"),
    )


async def statements(seen, c):
    for turn in range(6):
        for number in range(5):
            seen.say("sum", await c.fetchval(f"select $1::int + {number}", turn))
    prepared = await c.prepare("select $1::int as a, $2::text as b")
    seen.say(
        "parameters", prepared.get_parameters(), prepared.get_attributes(), prepared.get_query()
    )
    for turn in range(5):
        seen.say("prepared", await prepared.fetchrow(turn, "x"), prepared.get_statusmsg())
        seen.say("between", await c.fetchval("select $1::text", "between"))
    await c.reload_schema_state()
    seen.say("after", await prepared.fetchval(9, "y", column=1))
    named = await c.prepare("select $1::int * 2", name="mine")
    seen.say("named", named.get_name(), await named.fetchval(21))
    again = await c.prepare("select $1::int * 3", name="other of mine")
    seen.say("both", await named.fetchval(21), await again.fetchval(21))
    del prepared
    await c.executemany("insert into item values ($1, $2)", [(n, str(n)) for n in range(300)])
    seen.say("status", await c.execute("update item set words = $1 where id < $2", "new", 10))
    seen.say(
        "many",
        [
            r["id"]
            for r in await c.fetchmany(
                "insert into item values ($1, $2) returning id", [(400, "a"), (401, "b")]
            )
        ],
    )
    await seen.afails(
        "many fail",
        asyncpg.PostgresError,
        c.executemany("insert into item values ($1, $2)", [(500, "a"), (0, "b")]),
    )
    seen.say("none", await c.fetchval("select count(*) from item where id = 500"))
    seen.say("script", await c.execute("select 1; insert into item values (600, 'x'); select 2"))
    seen.say(
        "empty", await c.fetch(""), await c.fetch(";"), await c.fetchval("select 1 where false")
    )
    small = await asyncpg.connect(**keywords(seen), statement_cache_size=3)
    for turn in range(3):
        for number in range(6):
            seen.say("evicted", await small.fetchval(f"select $1::int * {number}", turn))
    await small.close()
    none = await asyncpg.connect(**keywords(seen), statement_cache_size=0)
    for turn in range(4):
        seen.say("uncached", await none.fetchval("select $1::int", turn))
    await none.close()


async def types(seen, c):
    await c.execute("create type mood as enum ('calm', 'busy')")
    await c.execute("create type pair as (a int, b text)")
    await c.execute("create domain small as int check (value < 10)")
    await c.execute("create table typed(felt mood, moods mood[], two pair, twos pair[], s small)")
    await c.execute(
        "insert into typed values ($1, $2, $3, $4, $5)",
        "busy",
        ["calm"],
        (1, "x"),
        [(2, "y"), None],
        5,
    )
    row = await c.fetchrow("select * from typed")
    seen.say("introspected", row["felt"], row["moods"], tuple(row["two"]), row["twos"], row["s"])
    await seen.afails(
        "domain", asyncpg.PostgresError, c.execute("insert into typed(s) values ($1)", 50)
    )
    values = [
        ("int8", 2**40),
        ("numeric", decimal.Decimal("1.20")),
        ("float8", 1.5),
        ("bool", True),
        ("text", "é 🐘"),
        ("bytea", b"\x00\xff"),
        ("date", datetime.date(2026, 11, 21)),
        ("timestamptz", datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)),
        ("interval", datetime.timedelta(3, 4)),
        ("uuid", uuid.UUID(int=7)),
        ("int[]", [1, None, 3]),
        ("int[]", [[1], [2]]),
        ("jsonb", '{"a": 1}'),
        ("int4range", asyncpg.Range(1, 5)),
        ("int4multirange", [asyncpg.Range(1, 2)]),
        ("inet", ipaddress.ip_address("::1")),
        ("point", asyncpg.Point(1, 2)),
        ("text", None),
        ("bit", asyncpg.BitString("1")),
    ]
    for kind, value in values:
        seen.say(kind, await c.fetchval(f"select $1::{kind}", value))
    await c.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    seen.say("codec", await c.fetchval("select $1::jsonb", {"a": [1, None]}))
    await c.set_builtin_type_codec("small", codec_name="int4", schema=seen.schema)
    await c.reset_type_codec("jsonb", schema="pg_catalog")
    seen.say("record", await c.fetchval("select row(1, 'x'::text, null::mood)"))


async def transactions(seen, c):
    for isolation in ("read_committed", "repeatable_read", "serializable"):
        for readonly in (False, True):
            async with c.transaction(
                isolation=isolation,
                readonly=readonly,
                deferrable=readonly and isolation == "serializable",
            ):
                seen.say(
                    "in",
                    *[
                        await c.fetchval(f"show transaction_{k}")
                        for k in ("isolation", "read_only", "deferrable")
                    ],
                )
    await c.execute("delete from item")
    async with c.transaction():
        await c.execute("insert into item values (1)")
        try:
            async with c.transaction():
                await c.execute("insert into item values (2)")
                await c.execute("insert into item values (1)")
        except asyncpg.UniqueViolationError as error:
            seen.say(
                "inner",
                t.raised_as(error),
                error.constraint_name,
                error.detail,
                c.is_in_transaction(),
            )
        async with c.transaction():
            await c.execute("insert into item values (3)")
    seen.say("kept", [r[0] for r in await c.fetch("select id from item order by id")])
    transaction = c.transaction()
    await transaction.start()
    await c.execute("insert into item values (4)")
    await transaction.rollback()
    seen.say("rolled back", await c.fetchval("select count(*) from item"), c.is_in_transaction())
    async with c.transaction():
        pass
    await c.execute("begin")
    seen.say("by hand", c.is_in_transaction())
    await c.execute("insert into item values (5)")
    await c.execute("commit")
    seen.say("committed", await c.fetchval("select count(*) from item"), c.is_in_transaction())


async def errors(seen, c):
    for text in (
        "select * from absent",
        "selec 1",
        "select 1/0",
        "insert into item values (null)",
        "select 'x'::int",
        "do $$ begin raise exception 'mine' using hint = 'h', errcode = 'AB123'; end $$",
    ):
        for call in (c.execute, c.fetch):
            try:
                await call(text)
            except asyncpg.PostgresError as error:
                seen.say(
                    "error",
                    t.raised_as(error),
                    error.severity,
                    error.detail,
                    error.hint,
                    error.position,
                )
        try:
            async with c.transaction():
                try:
                    await c.fetch(text)
                except asyncpg.PostgresError:
                    pass
                await c.fetchval("select $1::int", 1)
        except asyncpg.PostgresError as error:
            seen.say("in a transaction", t.raised_as(error))
        seen.say("well", await c.fetchval("select $1::int", 1))
    await seen.afails("bad argument", asyncpg.DataError, c.fetchval("select $1::int", "x"))
    await seen.afails("too few", asyncpg.InterfaceError, c.fetchval("select $1::int, $2::int", 1))


async def notices(seen, c):
    heard = []
    c.add_log_listener(lambda _, m: heard.append((m.severity, m.sqlstate, m.message, m.hint)))
    await c.execute("do $$ begin raise notice 'one'; raise warning 'two' using hint = 'h'; end $$")
    await c.fetch("drop table if exists absent")
    await asyncio.sleep(0.02)
    seen.say("heard", *heard)
    asked = []
    c.add_query_logger(lambda q: asked.append(q.query))
    await c.fetchval("select $1::int", 1)
    seen.say("logged", asked)


async def cursors(seen, c):
    async with c.transaction():
        seen.say(
            "prefetch",
            sum(
                [
                    r[0]
                    async for r in c.cursor(
                        "select g from generate_series(1, $1) g", 400, prefetch=30
                    )
                ]
            ),
        )
        cursor = await c.cursor("select g from generate_series(1, 100) g")
        seen.say("fetch", await cursor.fetch(3), await cursor.forward(10), await cursor.fetchrow())
        seen.say("between", await c.fetchval("select $1::int", 4))
        seen.say("rest", len(await cursor.fetch(1000)), await cursor.fetchrow())
    prepared = await c.prepare("select g from generate_series(1, $1) g")
    async with c.transaction():
        seen.say("of a statement", sum([r[0] async for r in prepared.cursor(60)]))
    seen.say("again", len(await prepared.fetch(7)))
    try:
        c.cursor("select 1").__aiter__()
        async for _ in c.cursor("select 1"):
            pass
    except asyncpg.NoActiveSQLTransactionError as error:
        seen.say("outside", t.raised_as(error))


async def copies(seen, c):
    await c.execute("create table bulk(n int, words text, at timestamptz)")
    now = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
    seen.say(
        "records",
        await c.copy_records_to_table("bulk", records=[(n, f"r {n}", now) for n in range(2000)]),
    )
    out = io.BytesIO()
    seen.say(
        "out",
        await c.copy_from_query(
            "select n, words from bulk where n < $1 order by n", 5, output=out, format="csv"
        ),
        out.getvalue(),
    )
    out = io.BytesIO()
    seen.say(
        "binary",
        await c.copy_from_table("bulk", columns=["n"], output=out, format="binary"),
        len(out.getvalue()),
    )
    out.seek(0)
    seen.say("in", await c.copy_to_table("bulk", source=out, columns=["n"], format="binary"))
    await seen.afails(
        "broken",
        asyncpg.PostgresError,
        c.copy_to_table("bulk", source=io.BytesIO(b"x\n" * 5000), columns=["n"]),
    )

    async def gives_up():
        yield b"1\n"
        raise KeyError("gave up")

    await seen.afails(
        "given up", KeyError, c.copy_to_table("bulk", source=gives_up(), columns=["n"])
    )
    seen.say("count", await c.fetchval("select count(*) from bulk"))


async def cancels(seen, c):
    for _ in range(3):
        await seen.afails(
            "timeout", asyncio.TimeoutError, c.fetchval("select pg_sleep(20)", timeout=0.1)
        )
        seen.say("spared", await c.fetchval("select $1::int", 1), c.is_in_transaction())
    task = asyncio.create_task(c.execute("select pg_sleep(20)"))
    await asyncio.sleep(0.05)
    task.cancel()
    seen.say("cancelled", type((await asyncio.gather(task, return_exceptions=True))[0]).__name__)
    try:
        async with c.transaction():
            await c.execute("insert into item values (700)")
            await c.fetchval("select pg_sleep($1)", 20, timeout=0.1)
    except asyncio.TimeoutError:
        seen.say("rolled back", await c.fetchval("select count(*) from item where id = 700"))
    await c.execute("set statement_timeout = 50")
    await seen.afails("statement_timeout", asyncpg.PostgresError, c.fetchval("select pg_sleep(20)"))
    await c.execute("reset statement_timeout")
    async with ALONE:
        other = await asyncpg.connect(**keywords(seen))
        async with other.transaction():
            await other.execute("lock table item")
            await c.execute("set lock_timeout = 50")
            await seen.afails(
                "lock_timeout", asyncpg.PostgresError, c.fetchval("select count(*) from item")
            )
        await other.close()
    seen.say(
        "at last", await c.fetchval("show lock_timeout"), await c.fetchval("show statement_timeout")
    )


async def large(seen, c):
    text = "é" * (1 << 20)
    seen.say("text", await c.fetchval("select $1::text", text) == text)
    seen.say("bytes", len(await c.fetchval("select $1::bytea", bytes(3 << 20))))
    rows = await c.fetch("select g, repeat('y', 1000) from generate_series(1, 3000) g")
    seen.say("rows", len(rows), sum(len(r[1]) for r in rows))
    seen.say(
        "list", await c.fetchval("select sum(x) from unnest($1::int[]) x", list(range(50_000)))
    )


async def pools(seen, c):
    async def set_up(one):
        await one.execute("set application_name = 'set up'")

    async with asyncpg.create_pool(
        **keywords(seen), min_size=2, max_size=5, init=set_up, max_queries=15
    ) as pool:

        async def work(number):
            async with pool.acquire() as one:
                async with one.transaction():
                    await one.execute("select set_config('app.tenant', $1, true)", str(number))
                    return int(await one.fetchval("show app.tenant"))

        for _ in range(2):
            seen.say("pool", sum(await asyncio.gather(*map(work, range(25)))))
        seen.say("direct", await pool.fetchval("select $1::int", 3), await pool.execute("select 1"))
        async with pool.acquire() as one:
            await one.execute("set search_path = pg_catalog")
        async with pool.acquire() as one:
            seen.say(
                "given back",
                await one.fetchval("show search_path"),
                await one.fetchval("show app.tenant"),
            )
        try:
            async with pool.acquire() as one, one.transaction():
                await one.execute("insert into item values (800)")
                raise KeyError("fails")
        except KeyError:
            seen.say("rolled back", await pool.fetchval("select count(*) from item where id = 800"))
        await pool.expire_connections()
        seen.say("renewed", await pool.fetchval("select 1"))


asyncio.run(t.arun(tour))
