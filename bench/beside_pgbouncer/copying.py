"""COPY of 50 MB, in and out, by one client that does nothing else.

The client writes what libpq-based drivers write, CopyData of 32 KiB, and reads without looking
at single messages: its own CPU time should stand in nobody's way. (Message Formats: CopyData,
CopyDone; "COPY Operations".)
"""

import time

from loads import LoadFailed, Reading
from poolers import DATABASE, USER
from wire import Client, message, startup

MEGABYTES = 50
PIECE = 32 * 1024
ROW = b"%012d\t" + b"x" * 87 + b"\n"
READY = b"Z\0\0\0\x05I"


def prepare(connection, megabytes=MEGABYTES):
    """The table that is copied out, and the one that is copied into."""
    rows = megabytes * 1_000_000 // 100
    connection.execute(
        "create unlogged table copy_out as select lpad(i::text, 12, '0') as id,"
        f" repeat('x', 86) as filler from generate_series(1, {rows}) i"
    )
    connection.execute("create unlogged table copy_in (id text, filler text)")
    connection.execute(f"grant all on copy_out, copy_in to {USER}")


def log_in(port):
    """A client that was let in without a password."""
    client = Client(port)
    client.socket.settimeout(60)
    client.send(startup({"user": USER, "database": DATABASE})).ready()
    return client


def copy_out(client, megabytes=MEGABYTES):
    """Bytes that came."""
    client.query("copy copy_out to stdout")
    buffer = bytearray(256 * 1024)
    got, tail = 0, b""
    while not tail.endswith(READY):
        count = client.socket.recv_into(buffer)
        if count == 0:
            raise LoadFailed("the pooler closed in the middle of COPY OUT")
        got += count
        tail = (tail + bytes(buffer[max(0, count - 64) : count]))[-64:]
    if b"COPY %d\0" % (megabytes * 10_000) not in tail:
        raise LoadFailed(f"COPY OUT did not end well: {tail!r}")
    return got


def to_copy_in(megabytes=MEGABYTES):
    """The messages of a COPY IN from the first row to the end."""
    rows = b"".join(ROW % i for i in range(megabytes * 10_000))
    pieces = (rows[at : at + PIECE] for at in range(0, len(rows), PIECE))
    return b"".join(message(b"d", piece) for piece in pieces) + message(b"c")


def copy_in(client, messages):
    """Bytes that went."""
    client.query("copy copy_in from stdin")
    kind, _ = client.receive()
    if kind != b"G":
        raise LoadFailed(f"COPY IN was answered with {kind!r}")
    client.send(messages)
    if client.ready() != ["C"]:
        raise LoadFailed("COPY IN did not end well")
    return len(messages)


def measure_copying(once, clear, pooler, database, seconds):
    """Repeats `once(client)` for about `seconds`; `clear()` before each is not counted."""
    client = log_in(pooler.port)
    moved, wall, ours, servers = 0, 0.0, 0.0, 0.0
    try:
        client.query("select 1").ready()
        until = time.monotonic() + seconds
        while not moved or time.monotonic() < until:
            clear()
            before = Reading(pooler, database)
            moved += once(client)
            after = Reading(pooler, database)
            wall += after.at - before.at
            ours += after.pooler.since(before.pooler)
            servers += after.server.since(before.server)
    finally:
        client.close()
    return {
        "cpu_per_gb": ours / 1e6 / (moved / 1e9),
        "both_cpu_per_gb": (ours + servers) / 1e6 / (moved / 1e9),
        "megabytes": moved / 1e6 / wall,
    }
