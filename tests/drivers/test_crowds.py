"""Crowds and slow clients: they cost bounded memory and hinder nobody."""

import contextlib
import os
import resource
import selectors
import socket
import struct
import time

import psycopg
import pytest

from gateway import BUDGET
from processes import eventually
from wire import message, startup

MEBIBYTE = 1 << 20
CROWD = int(os.environ.get("FOREBAY_TEST_CROWD", "20000"))
# The client at the other end of what is slow.
SLOW_BYTES_PER_SECOND = 10_000


@pytest.fixture
def crowded(own_forebay):
    """A gateway that lets a crowd in without passwords."""
    return own_forebay(postgres=f'auth = "trust"\nmax_clients = {CROWD + 100}')


@contextlib.contextmanager
def many_files(count):
    """This process may have so many sockets, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(soft, hard)))


def log_in_together(port, count, parameters):
    """Logs `count` clients in, as many at once as the system takes; returns their sockets."""
    selector = selectors.DefaultSelector()
    hello, ready, started = startup(parameters), b"Z\0\0\0\x05I", 0
    inside, deadline = [], time.monotonic() + 80
    while len(inside) < count:
        assert time.monotonic() < deadline, f"{len(inside)} of {count} were let in"
        while started < count and started - len(inside) < 2_000:
            client = socket.socket()
            client.bind((f"127.0.0.{2 + started % 4}", 0))
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            selector.register(client, selectors.EVENT_WRITE, bytearray())
            started += 1
        for key, events in selector.select(timeout=1):
            if events & selectors.EVENT_WRITE:
                key.fileobj.sendall(hello)
                selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                continue
            data = key.fileobj.recv(4096)
            assert data, f"sent away: {bytes(key.data)}"
            key.data.extend(data)
            if key.data.endswith(ready):
                selector.unregister(key.fileobj)
                inside.append(key.fileobj)
    return inside


def served_at_once(port, count, parameters):
    """All of `count` clients connect, log in and ask at the same moment; seconds from that to
    the answer, of each, in order."""
    selector = selectors.DefaultSelector()
    hello, ready = startup(parameters), b"Z\0\0\0\x05I"
    question = message(b"Q", b"select 1\0")
    took, waiting, deadline = [], {}, time.monotonic() + 60
    for nth in range(count):
        client = socket.socket()
        client.bind((f"127.0.0.{2 + nth % 4}", 0))
        client.setblocking(False)
        waiting[client] = time.monotonic()
        client.connect_ex(("127.0.0.1", port))
        selector.register(client, selectors.EVENT_WRITE, bytearray())
    try:
        while len(took) < count:
            assert time.monotonic() < deadline, f"{len(took)} of {count} were served"
            for key, events in selector.select(timeout=1):
                client = key.fileobj
                if events & selectors.EVENT_WRITE:
                    client.sendall(hello)
                    selector.modify(client, selectors.EVENT_READ, key.data)
                    continue
                data = client.recv(4096)
                assert data, f"sent away: {bytes(key.data)}"
                key.data.extend(data)
                if b"SELECT 1" in key.data:
                    took.append(time.monotonic() - waiting[client])
                    selector.unregister(client)
                elif key.data.endswith(ready):
                    client.sendall(question)
    finally:
        for client in waiting:
            client.close()
    return sorted(took)


def ask(client, sql):
    """The answer of a client that speaks for itself."""
    client.setblocking(True)
    client.settimeout(30)
    client.sendall(message(b"Q", sql.encode() + b"\0"))
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I"):
        more = client.recv(4096)
        assert more, "sent away"
        data += more
    return data


def bystander(forebay):
    return psycopg.connect(**forebay.dsn(), autocommit=True)


def test_a_crowd_that_arrives_at_once_is_let_in_and_served(crowded, postgres):
    others = postgres.server_connections()
    with many_files(CROWD + 500) as files, bystander(crowded) as other:
        count = min(CROWD, files - 400)
        before = crowded.resident_bytes()
        clients = log_in_together(crowded.port, count, {"user": "app", "database": "app"})
        try:
            each = (crowded.resident_bytes() - before) / count
            assert crowded.snapshot()["postgres"]["clients"] == count + 1
            assert each < 12 * 1024, f"{each:.0f} bytes a client"
            for client in clients[:: max(1, count // 50)]:
                assert b"SELECT 1" in ask(client, "select 1")
            assert other.execute("select 1").fetchone() == (1,)
            assert postgres.server_connections() <= others + BUDGET
        finally:
            for client in clients:
                client.close()
        eventually(
            lambda: crowded.snapshot()["postgres"]["clients"] == 1, within=30, what="all have left"
        )
        assert other.execute("select 1").fetchone() == (1,)


def test_clients_that_come_at_once_are_all_served(crowded, postgres):
    """500 of them; 3,000, within 2 s for 99 of 100, with FOREBAY_TEST_FULL."""
    full = "FOREBAY_TEST_FULL" in os.environ
    count = 3_000 if full else 500
    # Of other tests' gateways, on the same server.
    others = postgres.server_connections()
    with many_files(count + 500), bystander(crowded) as other:
        took = served_at_once(crowded.port, count, {"user": "app", "database": "app"})
        p50, p99 = took[count // 2], took[count * 99 // 100]
        print(f"{count} clients: p50 {p50:.3f} s, p99 {p99:.3f} s, the last {took[-1]:.3f} s")
        assert not full or p99 < 2
        assert other.execute("select 1").fetchone() == (1,)
        assert postgres.server_connections() <= others + BUDGET


def test_who_is_in_is_served_while_no_file_is_left_and_others_once_there_are(crowded):
    complaint = "cannot accept clients"
    pid, parameters = crowded.process.pid, {"user": "app", "database": "app"}
    with contextlib.ExitStack() as stack:
        inside = log_in_together(crowded.port, 10, parameters)
        for client in inside:
            stack.callback(client.close)
            assert b"SELECT 1" in ask(client, "select 1")
        open_files = len(os.listdir(f"/proc/{pid}/fd"))
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files, hard))
        late = socket.create_connection(("127.0.0.1", crowded.port))
        stack.callback(late.close)
        late.sendall(startup(parameters))
        eventually(lambda: complaint in crowded.log(), what="it is told")
        before = processor_time(pid)
        for _ in range(10):
            for client in inside:
                assert b"SELECT 1" in ask(client, "select 1")
            time.sleep(0.1)
        # It looks again now and then; who asks costs more.
        assert processor_time(pid) - before < 0.5
        assert crowded.log().count(complaint) == 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        late.settimeout(30)
        data = b""
        while not data.endswith(b"Z\0\0\0\x05I"):
            more = late.recv(4096)
            assert more, f"sent away: {data}"
            data += more
        assert b"SELECT 1" in ask(late, "select 1")


def processor_time(pid):
    """Seconds that a program has computed."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "result",
    ["select repeat('x', 1000000) from generate_series(1, 1000)", "select repeat('x', 100000000)"],
    ids=["a thousand rows", "one row"],
)
def test_a_client_that_reads_slowly_costs_little_and_hinders_nobody(crowded, postgres, result):
    """A gigabyte in rows, or a value of 100 MB, at ten kilobytes a second."""
    most = 0
    with bystander(crowded) as other, socket.socket() as slow:
        other.execute("select repeat('x', 1000000)")
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        slow.settimeout(30)
        slow.connect(("127.0.0.1", crowded.port))
        slow.sendall(startup({"user": "app", "database": "app"}))
        while not slow.recv(4096).endswith(b"Z\0\0\0\x05I"):
            pass
        before = crowded.resident_bytes()
        slow.sendall(message(b"Q", result.encode() + b"\0"))
        read = 0
        while read < 3 * SLOW_BYTES_PER_SECOND:
            read += len(slow.recv(SLOW_BYTES_PER_SECOND // 10))
            most = max(most, crowded.resident_bytes())
            assert other.execute("select 1").fetchone() == (1,)
            time.sleep(0.1)
        assert most - before < 2 * MEBIBYTE
    busy = "state = 'active' and query like '%repeat(%'"
    eventually(lambda: postgres.server_connections(where=busy) == 0, what="stopped")


def test_large_results_and_large_statements_cost_a_megabyte_together(crowded, postgres):
    """Five readers of 500 MB at ten kilobytes a second, and three statements of 10 MB; of
    100 MB, with FOREBAY_TEST_FULL."""
    full = "FOREBAY_TEST_FULL" in os.environ
    text, seconds = (100_000_000, 3) if full else (10_000_000, 1)
    parameters = {"user": "app", "database": "app"}
    half_a_gigabyte = b"select repeat('x', 1000000) from generate_series(1, 500)\0"
    with bystander(crowded) as other, contextlib.ExitStack() as stack:
        other.execute("select repeat('x', 1000000)")
        readers = log_in_together(crowded.port, 5, parameters)
        writers = log_in_together(crowded.port, 3, parameters)
        for client in readers + writers:
            stack.callback(client.close)
            client.setblocking(True)
            client.settimeout(60)
        before = most = crowded.resident_bytes()
        for reader in readers:
            reader.sendall(message(b"Q", half_a_gigabyte))
        for _ in range(10 * seconds):
            for reader in readers:
                reader.recv(SLOW_BYTES_PER_SECOND // 10)
            most = max(most, crowded.resident_bytes())
            time.sleep(0.1)
        piece = b"x" * 100_000
        for writer in writers:
            writer.sendall(b"Q" + struct.pack("!i", 4 + 15 + text + 3) + b"select length('")
        for _ in range(text // len(piece)):
            for writer in writers:
                writer.sendall(piece)
            most = max(most, crowded.resident_bytes())
        for writer in writers:
            writer.sendall(b"')\0")
            assert str(text).encode() in ask_rest(writer)
        most = max(most, crowded.resident_bytes())
        print(f"resident: {(most - before) / MEBIBYTE:.2f} MiB more")
        assert other.execute("select 1").fetchone() == (1,)
        assert most - before <= MEBIBYTE


def ask_rest(client):
    """What comes up to ReadyForQuery."""
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I"):
        more = client.recv(4096)
        assert more, "sent away"
        data += more
    return data


def test_half_a_message_costs_what_has_come_of_it(crowded, postgres):
    """Each says that much more follows, and stays."""
    halves = [
        message(b"Q", b"select 1")[:9],
        b"Q" + struct.pack("!i", 1 << 30) + b"select '" + b"x" * 100,
        b"P" + struct.pack("!i", 15 << 20) + b"\0select '" + b"x" * 100,
        message(b"P", b"\0select 1\0\0\0") + b"B" + struct.pack("!i", 1 << 30) + b"\0\0",
        message(b"P", b"\0select 1\0\0\0"),
    ]
    count = 200
    with bystander(crowded) as other, contextlib.ExitStack() as stack:
        clients = log_in_together(
            crowded.port, count * len(halves), {"user": "app", "database": "app"}
        )
        for client in clients:
            stack.callback(client.close)
        before = crowded.resident_bytes()
        for place, client in enumerate(clients):
            client.setblocking(True)
            client.sendall(halves[place % len(halves)])
        for _ in range(20):
            assert other.execute("select 1").fetchone() == (1,)
        leased = sum(pool["leased"] for pool in crowded.snapshot()["postgres"]["pools"])
        assert leased <= BUDGET and postgres.server_connections() <= BUDGET
        assert crowded.resident_bytes() - before < 16 * MEBIBYTE
