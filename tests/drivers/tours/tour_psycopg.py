"""psycopg 3, as its documentation shows it: one client's way through all it offers."""

import datetime
import decimal
import ipaddress
import threading
import time
import uuid

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range
from psycopg_pool import ConnectionPool

import transcript as t

# One client at a time where a step takes two connections: several that have one and wait for
# the other's would be the application's own deadlock.
ALONE = threading.Lock()


def connect(seen, **more):
    return psycopg.connect(
        host=t.HOST,
        port=t.PORT,
        user=t.USER,
        password=t.PASSWORD,
        dbname=t.DATABASE,
        options=f"-c search_path={seen.schema} -c statement_timeout=20s -c TimeZone=Asia/Tokyo",
        application_name="tour of psycopg",
        client_encoding="utf8",
        **more,
    )


def tour(seen):
    with connect(seen, autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(seen.schema))
        )
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(seen.schema)))
        connection.execute("create table item(id int primary key, words text, made timestamptz)")
    for part in (
        session,
        statements,
        types,
        transactions,
        isolation,
        errors,
        notices,
        cursors,
        copies,
        pipelines,
        two_phases,
        cancels,
        large,
        pools,
    ):
        with connect(seen) as connection:
            part(seen, connection)


def session(seen, c):
    for name in ("client_encoding", "TimeZone", "DateStyle", "integer_datetimes", "is_superuser"):
        seen.say(f"status {name}", c.info.parameter_status(name))
    for name in ("application_name", "standard_conforming_strings", "session_authorization"):
        seen.say(f"status {name}", c.info.parameter_status(name))
    seen.say("versions", c.info.server_version, c.info.encoding, c.info.dbname, c.info.user)
    seen.say("pipelines", psycopg.capabilities.has_pipeline(), c.info.backend_pid > 0)
    for name in ("statement_timeout", "search_path", "timezone", "application_name"):
        for _ in range(3):
            seen.say(name, c.execute(f"show {name}").fetchone())
            c.commit()
    c.execute("set client_encoding to 'LATIN1'")
    c.commit()
    for _ in range(3):
        row = c.execute("select 'é', convert_to('é', 'LATIN1'), length(%s)", ["é"]).fetchone()
        seen.say("latin", row, c.info.encoding)
        c.commit()
    c.execute("reset client_encoding")
    c.commit()
    seen.say("encoding", c.info.encoding)
    c.execute("set local statement_timeout = '3s'")
    seen.say("local", c.execute("show statement_timeout").fetchone())
    c.commit()
    seen.say("over", c.execute("show statement_timeout").fetchone())
    c.execute("set statement_timeout = '4s'")
    c.rollback()
    seen.say("rolled back", c.execute("show statement_timeout").fetchone())
    c.execute("select set_config('app.tenant', 'one', false)")
    c.commit()
    for _ in range(4):
        seen.say("custom", c.execute("select current_setting('app.tenant')").fetchone())
        c.commit()
    c.execute("reset all")
    c.commit()
    seen.say(
        "reset", c.execute("show timezone").fetchone(), c.execute("show search_path").fetchone()
    )
    c.rollback()
    c.autocommit = True
    c.execute("discard all")
    seen.say("discarded", c.execute("show timezone").fetchone())
    c.execute("set role app")
    seen.say("role", c.execute("select current_user, session_user").fetchone())
    c.execute("reset role")


def statements(seen, c):
    """Names move between server connections, and psycopg forgets and closes some."""
    c.prepared_max = 4
    for turn in range(8):
        for number in range(6):
            row = c.execute(f"select %s::int + {number}, %s", [turn, f"é {number}"]).fetchone()
            seen.say("sum", row)
            if number % 2:
                c.commit()
    for _ in range(3):
        seen.say("at once", c.execute("select %s::date", ["2026-11-21"], prepare=True).fetchone())
        c.commit()
    c.execute("deallocate all")
    c.commit()
    seen.say("again", c.execute("select %s::date", ["2026-11-22"], prepare=True).fetchone())
    c.commit()
    c.autocommit = True
    c.execute("discard all")
    for _ in range(7):
        seen.say("after discard", c.execute("select %s::text", ["x"]).fetchone())
    raw = psycopg.RawCursor(c)
    seen.say("raw", raw.execute("select $1::int * $1", [12]).fetchone())
    client = psycopg.ClientCursor(c)
    seen.say("client", client.execute("select %s, %s", ["it's", 1]).fetchone())
    seen.say(
        "several",
        [r.fetchall() for r in results(c.execute("select 1; select 2 where false; select 3"))],
    )
    seen.say("empty", c.execute("").statusmessage, c.execute(";").statusmessage)
    cursor = c.cursor()
    cursor.executemany(
        "insert into item(id, words) values (%s, %s)", [(n, str(n)) for n in range(50)]
    )
    seen.say("many", cursor.rowcount)
    cursor.executemany(
        "update item set words = %s where id = %s returning id",
        [("x", n) for n in range(5)],
        returning=True,
    )
    seen.say("returned", [r.fetchall() for r in results(cursor)], cursor.statusmessage)
    cursor = c.execute("select id as one, words as two, made from item limit 0")
    seen.say("described", [(d.name, d.type_code, d.type_display) for d in cursor.description])
    seen.say("dict", c.cursor(row_factory=dict_row).execute("select 1 as a").fetchone())
    seen.say("binary", c.execute("select %s, %b::int", [b"\0\1", 7], binary=True).fetchone())


def results(cursor):
    yield cursor
    while cursor.nextset():
        yield cursor


def types(seen, c):
    c.execute("create type mood as enum ('calm', 'busy')")
    c.execute("create type pair as (a int, b text)")
    c.commit()
    from enum import Enum

    Mood = Enum("Mood", "calm busy")
    info = EnumInfo.fetch(c, "mood")
    register_enum(info, c, Mood)
    pair = CompositeInfo.fetch(c, "pair")
    register_composite(pair, c)
    c.commit()
    zone = datetime.timezone(datetime.timedelta(hours=2))
    values = [
        1,
        2**40,
        2**70,
        1.5,
        decimal.Decimal("1.20"),
        True,
        "text é 🐘",
        b"\x00\xff",
        datetime.date(2026, 11, 21),
        datetime.datetime(2026, 11, 21, 1, 2, 3, 4),
        datetime.datetime(2026, 11, 21, 1, 2, 3, tzinfo=zone),
        datetime.time(1, 2),
        datetime.timedelta(3, 4),
        uuid.UUID(int=7),
        [1, 2, None],
        [["a", 'b"'], ["{", "NULL"]],
        Jsonb({"a": [1, None, "é"]}),
        Range(1, 5),
        Multirange([Range(1, 2), Range(4, 9)]),
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
        None,
        Mood.busy,
        [Mood.calm],
        pair.python_type(1, "two"),
    ]
    for value in values:
        for binary in (False, True):
            sent = c.execute("select %s", [value], binary=binary).fetchone()[0]
            seen.say("value", sent)
        c.commit()
    seen.say(
        "composite",
        c.execute("select row(1, 'x')::pair").fetchone(),
        c.execute("select array[row(1, 'x')::pair]").fetchone(),
    )


def transactions(seen, c):
    def status():
        return TransactionStatus(c.info.transaction_status).name

    c.execute("delete from item")
    seen.say("began", status())
    c.commit()
    seen.say("committed", status())
    with c.transaction():
        c.execute("insert into item(id) values (1)")
        with c.transaction(savepoint_name="inner one"):
            c.execute("insert into item(id) values (2)")
            raise psycopg.Rollback()
        seen.say("inside", status(), c.execute("select count(*) from item").fetchone())
        with c.transaction(force_rollback=True):
            c.execute("insert into item(id) values (3)")
        try:
            with c.transaction():
                c.execute("insert into item(id) values (1)")
        except psycopg.errors.UniqueViolation as error:
            seen.say("unique", error.diag.constraint_name, error.diag.message_detail, status())
    seen.say("kept", c.execute("select id from item order by id").fetchall())
    c.rollback()
    for turn in range(5):
        with c.transaction():
            c.execute("insert into item(id) values (%s)", [10 + turn])
        with c.transaction():
            pass
    seen.say("rows", c.execute("select count(*) from item").fetchone(), status())
    c.rollback()
    c.autocommit = True
    seen.say("autocommit", c.execute("select now() = statement_timestamp()").fetchone(), status())
    c.execute(
        "begin; insert into item(id) values (30); savepoint s; insert into item(id) values (31)"
    )
    seen.say("by hand", status())
    c.execute("rollback to s; commit and chain")
    seen.say("chained", status())
    c.execute("end")
    seen.say("ended", status(), c.execute("select id from item where id >= 30").fetchall())
    seen.say("commit", c.execute("commit").statusmessage, status())


def isolation(seen, c):
    for level in psycopg.IsolationLevel:
        c.isolation_level = level
        for read_only in (True, False):
            c.read_only = read_only
            c.deferrable = read_only
            shown = [
                c.execute(f"show transaction_{k}").fetchone()[0]
                for k in ("isolation", "read_only", "deferrable")
            ]
            seen.say("level", *shown)
            c.commit()
    c.read_only = True
    seen.fails("read only", psycopg.Error, c.execute, "insert into item(id) values (99)")
    c.rollback()
    c.isolation_level = c.read_only = c.deferrable = None
    c.execute(
        "set session characteristics as transaction isolation level repeatable read, read only"
    )
    c.commit()
    for _ in range(4):
        seen.say(
            "characteristics",
            c.execute("show transaction_isolation").fetchone(),
            c.execute("show transaction_read_only").fetchone(),
        )
        c.commit()


def errors(seen, c):
    def diagnosis(error):
        d = error.diag
        return (
            d.severity,
            d.severity_nonlocalized,
            d.sqlstate,
            d.message_primary,
            d.message_detail,
            d.message_hint,
            d.statement_position,
            d.constraint_name,
            d.column_name,
            d.table_name,
            d.source_function,
        )

    c.execute(
        "create table child(item_id int not null references item, amount int check (amount > 0))"
    )
    c.commit()
    for text in (
        "select * from absent",
        "selec 1",
        "select 1/0",
        "insert into child values (12345, 1)",
        "insert into child values (null, 1)",
        "insert into child values (1, -1)",
        "select 'x'::int",
        "do $$ begin raise exception 'mine' using hint = 'h', detail = 'd', errcode = 'AB123'; end $$",
    ):
        for arguments in (None, []):
            try:
                c.execute(text, arguments)
            except psycopg.Error as error:
                seen.say("error", type(error).__name__, diagnosis(error))
            seen.fails("then", psycopg.Error, c.execute, "select 1")
            seen.fails("with parameters", psycopg.Error, c.execute, "select %s", [1])
            c.rollback()
            seen.say("well again", c.execute("select %s", [1]).fetchone())
            c.commit()
    seen.fails("fails", psycopg.Error, c.execute, "select 1/0")
    seen.say("commit of a failed one", c.execute("commit").statusmessage)
    c.rollback()
    seen.fails("bad parameter", psycopg.Error, c.execute, "select %s::int", ["x"])
    c.rollback()
    seen.fails(
        "many",
        psycopg.Error,
        c.cursor().executemany,
        "insert into item(id) values (%s)",
        [(500,), (501,), (500,)],
    )
    c.rollback()
    seen.say("none", c.execute("select count(*) from item where id >= 500").fetchone())


def notices(seen, c):
    heard = []
    c.add_notice_handler(
        lambda d: heard.append((d.severity, d.sqlstate, d.message_primary, d.message_hint))
    )
    c.execute(
        "do $$ begin raise notice '%', 1; raise warning 'two' using hint = 'h'; raise info 'x'; end $$"
    )
    c.commit()
    c.execute("drop table if exists absent")
    c.execute("set client_min_messages = error")
    c.commit()
    for _ in range(3):
        c.execute("drop table if exists absent")
        c.commit()
    c.execute("set client_min_messages = debug1")
    c.execute("do $$ begin raise debug 'four'; end $$")
    c.execute("reset client_min_messages")
    c.commit()
    c.execute("select 1")
    c.commit()
    c.autocommit = True
    c.execute("rollback")
    c.execute("begin")
    c.execute("begin")
    c.execute("commit")
    seen.say("heard", *[h for h in heard if not h[0].startswith("DEBUG") or "four" in h[2]])


def cursors(seen, c):
    with c.cursor("many") as cursor:
        cursor.itersize = 100
        cursor.execute("select g, repeat('x', g) from generate_series(1, %s) g", [950])
        seen.say("named", sum(len(row[1]) for row in cursor), cursor.rownumber)
    with c.cursor("scrolling", scrollable=True) as cursor:
        cursor.execute("select g from generate_series(1, 100) g")
        seen.say("one", cursor.fetchone(), cursor.fetchmany(3))
        cursor.scroll(10)
        cursor.scroll(-3)
        seen.say("moved", cursor.fetchone())
        cursor.scroll(50, mode="absolute")
        seen.say("absolute", cursor.fetchmany(2), len(cursor.fetchall()))
    c.commit()
    with c.cursor("held", withhold=True) as cursor:
        cursor.execute("select g from generate_series(1, 10) g")
        c.commit()
        seen.say("held", cursor.fetchmany(4))
        c.commit()
        seen.say("still", cursor.fetchall())
    c.commit()
    with c.cursor("binary") as cursor:
        cursor.execute("select 1::int8, now() > '2020-01-01'", binary=True)
        seen.say("binary", cursor.fetchall())
    c.commit()
    cursor = c.cursor("lost")
    cursor.execute("select 1")
    c.commit()
    seen.fails("gone with its transaction", psycopg.Error, cursor.fetchone)
    c.rollback()
    with c.cursor() as cursor:
        total = 0
        for row in cursor.stream("select g from generate_series(1, 500) g"):
            total += row[0]
        seen.say("streamed", total)
    if psycopg.capabilities.has_stream_chunked():
        seen.say(
            "chunks",
            sum(
                r[0] for r in c.cursor().stream("select g from generate_series(1, 500) g", size=64)
            ),
        )


def copies(seen, c):
    c.execute("create table bulk(n int, words text, at date, list int[])")
    day = datetime.date(2026, 11, 21)
    for form, binary in (("", False), (" (format binary)", True)):
        with c.cursor().copy(f"copy bulk from stdin{form}") as copy:
            if binary:
                copy.set_types(["int4", "text", "date", "int4[]"])
            for number in range(2_000):
                copy.write_row((number, f"row\t{number}\n\\.", day, [number, None]))
        c.commit()
        with c.cursor().copy(
            f"copy (select * from bulk order by n limit 5) to stdout{form}"
        ) as copy:
            copy.set_types(["int4", "text", "date", "int4[]"])
            seen.say("rows", list(copy.rows()))
        c.commit()
    with c.cursor().copy("copy bulk to stdout (format csv, header)") as copy:
        seen.say("bytes", sum(len(block) for block in copy))
    cursor = c.cursor()
    with cursor.copy("copy bulk(n, words) from stdin (format csv)") as copy:
        copy.write("1,one\n2,two\n")
    seen.say("csv", cursor.statusmessage, cursor.rowcount)
    c.commit()
    try:
        with c.cursor().copy("copy bulk(n) from stdin") as copy:
            copy.write("1\nnot a number\n")
            copy.write("3\n" * 10_000)
    except psycopg.Error as error:
        seen.say("broken", t.raised_as(error), error.diag.context)
    c.rollback()
    try:
        with c.cursor().copy("copy bulk(n) from stdin") as copy:
            copy.write("1\n")
            raise KeyError("the application gave up")
    except KeyError as error:
        seen.say("given up", error)
    c.rollback()
    try:
        with c.cursor().copy("copy (select generate_series(1, 5000000)) to stdout") as copy:
            seen.say("a part", bytes(copy.read()))
            raise KeyError("enough")
    except KeyError as error:
        seen.say("left", error, TransactionStatus(c.info.transaction_status).name)
    c.rollback()
    seen.say("count", c.execute("select count(*) from bulk").fetchone())


def pipelines(seen, c):
    c.autocommit = True
    for turn in range(4):
        with c.pipeline():
            made = [c.execute("select %s::int * %s::int", [turn, n]) for n in range(12)]
            c.cursor().executemany(
                "insert into item(id) values (%s)", [(1000 + turn * 10 + n,) for n in range(5)]
            )
        seen.say("pipeline", [one.fetchone()[0] for one in made])
    try:
        with c.pipeline() as pipeline:
            c.execute("select 1")
            c.execute("select %s/0", [1])
            c.execute("select 2")
            pipeline.sync()
    except psycopg.Error:
        # Which call tells it, and in which words, depends on what the socket had by then.
        seen.say("failed", TransactionStatus(c.info.transaction_status).name)
    seen.say("after", c.execute("select 3").fetchone())
    with c.pipeline() as pipeline:
        with c.transaction():
            c.execute("insert into item(id) values (2000)")
            with c.transaction():
                c.execute("insert into item(id) values (2001)")
        first = c.execute("select count(*) from item where id >= 2000")
        pipeline.sync()
        with c.pipeline():
            second = c.execute("select 4")
        seen.say("nested", first.fetchone(), second.fetchone())
    try:
        with c.pipeline(), c.transaction():
            c.execute("insert into item(id) values (2002)")
            c.execute("insert into item(id) values (2002)")
    except psycopg.Error as error:
        seen.say("in a transaction", t.raised_as(error))
    seen.say("rolled back", c.execute("select count(*) from item where id = 2002").fetchone())
    c.autocommit = False
    with c.pipeline():
        one = c.execute("select 5")
        c.commit()
        two = c.execute("select 6")
        c.rollback()
    seen.say("commits", one.fetchone(), two.fetchone(), c.info.transaction_status)


def two_phases(seen, c):
    xid = c.xid(1, seen.schema, "part")
    c.tpc_begin(xid)
    c.execute("insert into item(id) values (3000)")
    c.tpc_prepare()
    c.tpc_commit()
    seen.say("committed", c.execute("select count(*) from item where id = 3000").fetchone())
    c.commit()
    c.tpc_begin(xid)
    c.execute("insert into item(id) values (3001)")
    c.tpc_prepare()
    with connect(seen) as other:
        seen.say("recovered", [x.bqual for x in other.tpc_recover() if x.gtrid == seen.schema])
        other.tpc_rollback(xid)
    seen.fails("gone", psycopg.Error, c.tpc_commit)
    c.close()
    with connect(seen) as c:
        seen.say("rolled back", c.execute("select count(*) from item where id = 3001").fetchone())


def cancel_until(over, cancel):
    while not over.wait(0.3):
        cancel()


def cancels(seen, c):
    for _ in range(2):
        over = threading.Event()
        # One that comes before the statement has begun, as during its BEGIN, is lost.
        canceller = threading.Thread(target=cancel_until, args=(over, c.cancel_safe))
        canceller.start()
        seen.fails("cancelled", psycopg.Error, c.execute, "select pg_sleep(20)")
        over.set()
        canceller.join()
        seen.say("status", TransactionStatus(c.info.transaction_status).name)
        c.rollback()
        c.cancel_safe()
        c.cancel()
        seen.say("spared", c.execute("select 1").fetchone())
        c.commit()
    c.execute("set statement_timeout = '60ms'")
    c.commit()
    seen.fails("timed out", psycopg.Error, c.execute, "select pg_sleep(20)")
    c.rollback()
    c.execute("reset statement_timeout")
    c.execute("set lock_timeout = '50ms'")
    c.commit()
    with ALONE, connect(seen) as other:
        other.execute("lock table item")
        seen.fails("locked", psycopg.Error, c.execute, "select * from item")
        c.rollback()
        other.rollback()
    c.execute("set idle_in_transaction_session_timeout = '0'")
    c.commit()


def large(seen, c):
    text = "é" * (1 << 20)
    seen.say("text", c.execute("select %s::text = repeat('é', 1 << 20)", [text]).fetchone())
    seen.say("back", c.execute("select %s::text", [text]).fetchone()[0] == text)
    block = bytes(range(256)) * 8192
    for binary in (False, True):
        seen.say(
            "bytes", c.execute("select %s::bytea", [block], binary=binary).fetchone()[0] == block
        )
    rows = c.execute("select g, repeat('y', 1000) from generate_series(1, 3000) g").fetchall()
    seen.say("rows", len(rows), sum(len(row[1]) for row in rows))
    wide = c.execute("select " + ", ".join(f"{n} as c{n}" for n in range(1200))).fetchone()
    seen.say("wide", sum(wide))
    seen.say(
        "parameters",
        len(
            c.execute(
                "select array[" + ",".join(["%s"] * 3000) + "]", list(range(3000))
            ).fetchone()[0]
        ),
    )


def pools(seen, c):
    c.close()
    keywords = {
        "host": t.HOST,
        "port": t.PORT,
        "user": t.USER,
        "password": t.PASSWORD,
        "dbname": t.DATABASE,
        "options": f"-c search_path={seen.schema}",
    }
    settings = [
        {"check": ConnectionPool.check_connection},
        {"kwargs": {**keywords, "autocommit": True}, "reset": lambda one: one.execute("reset all")},
    ]
    for setting in settings:
        with ConnectionPool(
            kwargs=keywords | setting.pop("kwargs", {}), min_size=1, max_size=3, **setting
        ) as pool:

            def work(number):
                with pool.connection() as one:
                    return one.execute("select %s::int", [number]).fetchone()[0]

            with t.concurrent.futures.ThreadPoolExecutor(4) as threads:
                seen.say("pool", sum(threads.map(work, range(25))))
            try:
                with pool.connection() as one:
                    one.execute("insert into item(id) values (4000)")
                    one.execute("select 1/0")
            except psycopg.Error as error:
                seen.say("failed in the pool", t.raised_as(error))
            with pool.connection() as one:
                seen.say(
                    "rolled back",
                    one.execute("select count(*) from item where id = 4000").fetchone(),
                )
                one.execute("delete from item where id = 4000")
            time.sleep(0.01)


t.run(tour)
