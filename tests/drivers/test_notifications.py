"""LISTEN through transaction pooling, as drivers do it: no client keeps a connection for it."""

import asyncio

import asyncpg
import psycopg
import pytest

from gateway import BUDGET
from processes import eventually


def leased(forebay):
    return sum(c["leased"] for p in forebay.snapshot()["postgres"]["pools"] for c in p["classes"])


def listening(forebay):
    return forebay.snapshot()["postgres"]["notifications"][0]


def heard(connection, count, timeout=10):
    return [note.payload for note in connection.notifies(timeout=timeout, stop_after=count)]


def test_psycopg_hears_what_others_and_itself_notify(forebay):
    with (
        psycopg.connect(**forebay.dsn(), autocommit=True) as listener,
        psycopg.connect(**forebay.dsn(), autocommit=True) as speaker,
    ):
        listener.execute("listen news")
        for number in range(5):
            speaker.execute("select pg_notify('news', %s)", (str(number),))
        assert heard(listener, 5) == ["0", "1", "2", "3", "4"]
        listener.execute("notify news, 'own'")
        assert heard(listener, 1) == ["own"]
        # It goes on with statements, prepared ones too, and hears what came meanwhile.
        with listener.transaction():
            for number in range(8):
                listener.execute("select %s", (number,), prepare=True)
            speaker.execute("notify news, 'meanwhile'")
            listener.execute("select 1")
        assert heard(listener, 1) == ["meanwhile"]
        listener.execute("unlisten news")
        speaker.execute("notify news, 'unheard'")
        assert heard(listener, 1, timeout=0.3) == []


def test_psycopg_hears_after_its_transaction_commits(forebay):
    with (
        psycopg.connect(**forebay.dsn()) as listener,
        psycopg.connect(**forebay.dsn(), autocommit=True) as speaker,
    ):
        listener.execute('listen "Mixed Case"')
        listener.commit()
        listener.execute("listen rolled_back")
        listener.rollback()
        speaker.execute("select pg_notify('rolled_back', ''), pg_notify('Mixed Case', 'yes')")
        assert heard(listener, 1) == ["yes"]


def test_more_clients_listen_than_there_are_connections(forebay, postgres):
    clients = [psycopg.connect(**forebay.dsn(), autocommit=True) for _ in range(3 * BUDGET)]
    try:
        for client in clients:
            client.execute("listen everyone")
        eventually(lambda: leased(forebay) == 0, within=10, what="no connection is held")
        assert listening(forebay)["connections"] == 1
        assert listening(forebay)["clients"] == len(clients)
        with postgres.connect() as direct:
            direct.autocommit = True
            direct.execute("notify everyone, 'hello'")
        for client in clients:
            assert heard(client, 1) == ["hello"]
    finally:
        for client in clients:
            client.close()
    eventually(lambda: listening(forebay)["clients"] == 0, within=10, what="nobody listens")


def test_asyncpg_calls_its_listeners(forebay, authority):
    async def main():
        keywords = forebay.dsn()
        keywords["database"] = keywords.pop("dbname")
        listener = await asyncpg.connect(**keywords)
        speaker = await asyncpg.connect(**keywords)
        calls = asyncio.Queue()

        def on_note(connection, pid, channel, payload):
            calls.put_nowait((channel, payload))

        await listener.add_listener("news", on_note)
        await listener.add_listener("more", on_note)
        for number in range(5):
            await speaker.execute("select pg_notify('news', $1)", str(number))
        await speaker.execute("notify more, 'x'")
        got = [await asyncio.wait_for(calls.get(), 10) for _ in range(6)]
        assert got == [("news", str(number)) for number in range(5)] + [("more", "x")]
        # While it works in transactions, and after one of its channels is given up.
        async with listener.transaction():
            await speaker.execute("notify news, 'in transaction'")
            assert await listener.fetchval("select 1") == 1
        assert await asyncio.wait_for(calls.get(), 10) == ("news", "in transaction")
        await listener.remove_listener("more", on_note)
        await speaker.execute("notify more, 'unheard'")
        await speaker.execute("notify news, 'end'")
        assert await asyncio.wait_for(calls.get(), 10) == ("news", "end")
        await listener.close()
        await speaker.close()

    asyncio.run(main())


def test_a_restart_of_the_server_is_told_to_those_who_listen(own_forebay, folder, authority):
    from private_postgres import PrivatePostgres

    server = PrivatePostgres(folder / "restarted-for-listeners", authority, max_connections=20)
    server.start()
    try:
        forebay = own_forebay(address=f"localhost:{server.port}")
        with psycopg.connect(**forebay.dsn(), autocommit=True) as listener:
            listener.execute("listen news")
            server.restart()
            with pytest.raises(psycopg.OperationalError):
                heard(listener, 1)
            assert listener.closed
        with psycopg.connect(**forebay.dsn(), autocommit=True) as listener:
            listener.execute("listen news")
            with server.connect() as direct:
                direct.autocommit = True
                direct.execute("notify news, 'again'")
            assert heard(listener, 1) == ["again"]
    finally:
        server.stop()
