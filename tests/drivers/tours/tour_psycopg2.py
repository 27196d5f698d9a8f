"""psycopg2: simple queries, and what libpq does around them."""

import datetime
import io
import threading

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions as ext
import psycopg2.extras
import psycopg2.pool
from psycopg2 import sql

import transcript as t


def keywords(seen):
    return {
        "host": t.HOST,
        "port": t.PORT,
        "user": t.USER,
        "password": t.PASSWORD,
        "dbname": t.DATABASE,
        "options": f"-c search_path={seen.schema} -c statement_timeout=20s",
        "application_name": "tour of psycopg2",
    }


def tour(seen):
    c = psycopg2.connect(**keywords(seen))
    c.autocommit = True
    cursor = c.cursor()
    cursor.execute(
        sql.SQL("drop schema if exists {0} cascade; create schema {0}").format(
            sql.Identifier(seen.schema)
        )
    )
    cursor.execute("create table item(id int primary key, words text, tags text[], more jsonb)")
    c.close()
    for part in (
        session,
        statements,
        transactions,
        errors,
        cursors,
        copies,
        two_phases,
        cancels,
        pools,
    ):
        c = psycopg2.connect(**keywords(seen))
        part(seen, c)
        c.close()


def one(c, text, arguments=None):
    with c.cursor() as cursor:
        cursor.execute(text, arguments)
        return cursor.fetchone()


def session(seen, c):
    seen.say(
        "version",
        c.server_version,
        c.protocol_version,
        c.encoding,
        c.get_parameter_status("TimeZone"),
    )
    for level in (
        ext.ISOLATION_LEVEL_SERIALIZABLE,
        ext.ISOLATION_LEVEL_REPEATABLE_READ,
        ext.ISOLATION_LEVEL_READ_COMMITTED,
    ):
        c.set_session(isolation_level=level, readonly=True, deferrable=True)
        seen.say(
            "level",
            one(c, "show transaction_isolation"),
            one(c, "show transaction_read_only"),
            one(c, "show transaction_deferrable"),
        )
        c.rollback()
    c.reset()
    c.set_session(autocommit=True)
    c.set_session(readonly=True, isolation_level="SERIALIZABLE")
    for _ in range(4):
        seen.say(
            "by default",
            one(c, "show default_transaction_isolation"),
            one(c, "show transaction_read_only"),
        )
    c.set_session(readonly="DEFAULT", isolation_level="DEFAULT")
    c.set_client_encoding("LATIN1")
    for _ in range(3):
        seen.say("latin", one(c, "select 'é', length(%s)", ["é"]), c.encoding)
    c.reset()
    seen.say("path", one(c, "show search_path"), one(c, "show statement_timeout"), c.encoding)


def statements(seen, c):
    with c.cursor() as cursor:
        psycopg2.extras.execute_values(
            cursor,
            "insert into item(id, words) values %s",
            [(n, "é" * n) for n in range(100)],
            page_size=30,
        )
        psycopg2.extras.execute_batch(
            cursor, "update item set words = %s where id = %s", [("x", n) for n in range(20)]
        )
        cursor.executemany(
            "insert into item(id, tags) values (%s, %s)",
            [(200 + n, ["a", None, "b,"]) for n in range(5)],
        )
        cursor.execute("select * from item where id in %s order by id", [(1, 2, 201)])
        seen.say(
            "rows", cursor.fetchall(), [d.name for d in cursor.description], cursor.statusmessage
        )
        cursor.execute("prepare mine as select $1::int + 1")
        cursor.execute("execute mine(4)")
        seen.say("prepared", cursor.fetchone())
        cursor.execute("deallocate mine")
    c.commit()
    for value in (
        1,
        1.5,
        "it's",
        b"\0\xff",
        None,
        True,
        datetime.date(2026, 11, 21),
        datetime.timedelta(3),
        [1, 2],
        psycopg2.extras.Json({"a": 1}),
        psycopg2.extras.NumericRange(1, 5),
    ):
        seen.say("value", printable(one(c, "select %s", [value])[0]))
    c.commit()
    with c, c.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute("select 1 as a; select 2 as b")
        seen.say("last of two", dict(cursor.fetchone()))


def printable(value):
    return bytes(value) if isinstance(value, memoryview) else str(value)


def transactions(seen, c):
    with c:
        one(c, "insert into item(id) values (300) returning id")
    try:
        with c:
            one(c, "insert into item(id) values (301) returning id")
            raise KeyError
    except KeyError:
        seen.say(
            "rolled back",
            one(c, "select count(*) from item where id >= 300"),
            c.get_transaction_status(),
        )
    c.rollback()
    cursor = c.cursor()
    cursor.execute("savepoint one")
    try:
        cursor.execute("insert into item(id) values (300)")
    except psycopg2.errors.UniqueViolation as error:
        seen.say("unique", t.raised_as(error), error.diag.constraint_name)
    seen.say("status", c.get_transaction_status())
    cursor.execute("rollback to savepoint one")
    seen.say("usable", one(c, "select 1"), c.get_transaction_status(), c.status)
    c.commit()


def errors(seen, c):
    for text in ("select * from absent", "selec", "select 1/0"):
        cursor = c.cursor()
        seen.fails("error", psycopg2.Error, cursor.execute, text)
        seen.fails("failed", psycopg2.errors.InFailedSqlTransaction, cursor.execute, "select 1")
        c.rollback()
    cursor.execute("do $$ begin raise notice 'heard'; end $$")
    c.commit()
    seen.say("notices", c.notices)


def cursors(seen, c):
    with c.cursor("named", scrollable=True) as cursor:
        cursor.itersize = 50
        cursor.execute("select g from generate_series(1, 300) g")
        seen.say("named", cursor.fetchone(), cursor.fetchmany(2), sum(r[0] for r in cursor))
        cursor.scroll(0, mode="absolute")
        seen.say("again", cursor.fetchone())
    c.commit()
    with c.cursor("held", withhold=True) as cursor:
        cursor.execute("select g from generate_series(1, 10) g")
        c.commit()
        seen.say("held", cursor.fetchall())
    c.commit()


def copies(seen, c):
    cursor = c.cursor()
    cursor.execute("create table bulk(n int, words text)")
    cursor.copy_from(io.StringIO("".join(f"{n}\trow {n}\n" for n in range(3000))), "bulk")
    out = io.StringIO()
    cursor.copy_expert("copy (select * from bulk order by n) to stdout with csv", out)
    seen.say("copied", cursor.rowcount, len(out.getvalue()), out.getvalue()[:20])
    c.commit()
    seen.fails("broken", psycopg2.Error, cursor.copy_from, io.StringIO("x\ty\n" * 4000), "bulk")
    c.rollback()
    seen.say("count", one(c, "select count(*) from bulk"))


def two_phases(seen, c):
    xid = c.xid(2, seen.schema, "part")
    c.tpc_begin(xid)
    one(c, "insert into item(id) values (400) returning id")
    c.tpc_prepare()
    seen.say("prepared", c.status)
    c.tpc_commit()
    c.tpc_begin(xid)
    one(c, "insert into item(id) values (401) returning id")
    c.tpc_rollback()
    seen.say("rows", one(c, "select count(*) from item where id >= 400"))


def cancel_until(over, cancel):
    while not over.wait(0.3):
        cancel()


def cancels(seen, c):
    for _ in range(2):
        over = threading.Event()
        # One that comes before the statement has begun, as during its BEGIN, is lost.
        canceller = threading.Thread(target=cancel_until, args=(over, c.cancel))
        canceller.start()
        seen.fails("cancelled", psycopg2.Error, one, c, "select pg_sleep(20)")
        over.set()
        canceller.join()
        c.rollback()
        c.cancel()
        seen.say("spared", one(c, "select 1"))
        c.commit()


def pools(seen, c):
    pool = psycopg2.pool.ThreadedConnectionPool(1, 4, **keywords(seen))

    def work(number):
        borrowed = pool.getconn()
        try:
            return one(borrowed, "select %s", [number])[0]
        finally:
            pool.putconn(borrowed)

    with t.concurrent.futures.ThreadPoolExecutor(4) as threads:
        seen.say("pool", sum(threads.map(work, range(40))))
    borrowed = pool.getconn()
    one(borrowed, "insert into item(id) values (500) returning id")
    pool.putconn(borrowed)
    seen.say("rolled back", one(c, "select count(*) from item where id = 500"))
    pool.closeall()


t.run(tour)
