"""What no driver sends: each gets a clear error, is logged once, and harms nobody else."""

import random
import struct

import psycopg
import pytest

from processes import eventually, free_port
from wire import GSSENC_REQUEST, SSL_REQUEST, Client, message, startup


@pytest.fixture(scope="module")
def bystander(shared_forebay):
    """A client that works all the while and must never notice."""
    with psycopg.connect(**shared_forebay.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def nobody_else_is_harmed(forebay, bystander):
    yield
    assert bystander.execute("select %s::int", [1]).fetchone() == (1,)


def refused(forebay, data):
    """Sends `data` as a new client; returns the error, after which the connection ends."""
    with Client(forebay.port) as client:
        client.send(data)
        error = client.error()
        assert error["S"] == "FATAL" and client.is_closed()
        return error


def complaints(forebay):
    """Lines of the log about clients that were refused. They say from where they came."""
    return [line for line in forebay.log().splitlines() if "client refused" in line]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(random.Random(1).randbytes(64)),
        struct.pack("!ii", 0x7FFFFFFF, 196608),
        struct.pack("!ii", 10_001, 196608),
        struct.pack("!ii", -1, 196608),
        struct.pack("!ii", 0, 196608),
        struct.pack("!ii", 7, 196608),
        struct.pack("!ii", 9, 196608) + b"\x01",
        startup({"user": "app"})[:-1] + b"x",
    ],
    ids=[
        "an HTTP request",
        "random bytes",
        "a length of 2 GiB",
        "a length above PostgreSQL's limit",
        "a negative length",
        "no length",
        "a length shorter than itself",
        "a packet without its end",
        "a name without its end",
    ],
)
def test_a_broken_startup_packet_is_told_so_and_logged_once(forebay, data):
    before = len(complaints(forebay))
    assert refused(forebay, data)["C"] == "08P01"
    eventually(lambda: len(complaints(forebay)) > before, what="a line in the log")
    assert len(complaints(forebay)) == before + 1 and "127.0.0.1:" in complaints(forebay)[-1]


def test_a_startup_without_a_user_is_told_so(forebay):
    error = refused(forebay, startup({"database": "app"}))
    # PostgreSQL's own code and words.
    assert error["C"] == "28000" and "no PostgreSQL user name" in error["M"]


def test_an_unknown_protocol_is_told_so(forebay):
    assert refused(forebay, startup({"user": "app"}, version=4 << 16))["C"] in ("08P01", "0A000")


def test_a_newer_minor_protocol_is_negotiated(forebay):
    with Client(forebay.port) as client:
        client.send(startup({"user": "app", "_pq_.unheard_of": "1"}, version=(3 << 16) | 99))
        kind, body = client.receive()
        assert kind == b"v" and b"_pq_.unheard_of" in body
        assert client.receive()[0] == b"R"


def test_a_truncated_startup_and_a_silent_client_harm_nobody(forebay):
    whole = startup({"user": "app", "database": "app"})
    for cut in (0, 1, 4, 7, 8, 12, len(whole) - 1):
        with Client(forebay.port) as client:
            client.send(whole[:cut])


def test_a_client_too_slow_to_log_in_is_sent_away(own_forebay):
    forebay = own_forebay(postgres='login_timeout = "1s"')
    for data in (b"", startup({"user": "app"})[:6], startup({"user": "app", "database": "app"})):
        with Client(forebay.port) as client:
            client.send(data)
            assert client.is_closed()


def test_encryption_is_answered_before_the_startup(forebay):
    with Client(forebay.port) as client:
        assert client.send(GSSENC_REQUEST).socket.recv(1) == b"N"
        assert client.send(SSL_REQUEST).socket.recv(1) == b"S"
    with Client(forebay.port) as client:
        # Bytes sent ahead of the handshake could be injected by others (CVE-2021-23222).
        client.send(SSL_REQUEST + startup({"user": "app"}))
        assert client.socket.recv(1) in (b"S", b"E", b"")
        client.socket.settimeout(5)
        assert not client.socket.recv(4096).startswith(b"R")


def test_wrong_passwords_and_unknown_users_get_the_same_answer(forebay):
    def answer(user):
        with Client(forebay.port) as client:
            with pytest.raises(AssertionError) as caught:
                client.login(user, "app", password="wrong")
            del caught
        with Client(forebay.port) as client:
            error = login_error(client, user)
            return {k: v.replace(user, "NAME") for k, v in error.items() if k in "SVCMDH"}

    known, unknown = answer("app"), answer("nobody_knows_me")
    assert known["C"] == "28P01" and known["S"] == "FATAL"
    assert known == unknown


def login_error(client, user):
    """The error that a login with a wrong password ends with."""
    import base64
    import os

    client.send(startup({"user": user, "database": "app"}))
    kind, _ = client.receive()
    assert kind == b"R"
    nonce = base64.b64encode(os.urandom(18)).decode()
    first = f"n,,n=,r={nonce}".encode()
    client.send(message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first))
    kind, body = client.receive()
    assert kind == b"R", body
    combined = body[4:].decode().split(",")[0]
    proof = base64.b64encode(bytes(32)).decode()
    client.send(message(b"p", f"c=biws,{combined},p={proof}".encode()))
    return client.error()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SCRAM-SHA-1\0\0\0\0\x03n,,",
        b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,",
        b"SCRAM-SHA-256\0\0\0\0\x04\xff\xfe\xfd\xfc",
        b"SCRAM-SHA-256-PLUS\0\0\0\0\x10p=tls-unique,,n=,r=x",
        b"SCRAM-SHA-256" * 200,
    ],
    ids=["nothing", "another mechanism", "a false length", "no text", "no such binding", "no end"],
)
def test_broken_answers_to_authentication_are_told_so(forebay, answer):
    with Client(forebay.port) as client:
        client.send(startup({"user": "app", "database": "app"}))
        assert client.receive()[0] == b"R"
        client.send(message(b"p", answer))
        error = client.error()
        assert error["C"] in ("08P01", "28P01", "28000") and client.is_closed()


def test_an_oversize_password_message_is_refused_before_it_is_read(forebay):
    with Client(forebay.port) as client:
        client.send(startup({"user": "app", "database": "app"}))
        assert client.receive()[0] == b"R"
        client.send(b"p" + struct.pack("!i", 0x7FFFFFF0) + b"x" * 1000)
        assert client.error()["C"] == "08P01" and client.is_closed()


def test_an_unknown_database_is_told_so(forebay):
    with pytest.raises(psycopg.OperationalError, match='database "no_such" does not exist'):
        psycopg.connect(**forebay.dsn(dbname="no_such"))
    with Client(forebay.port) as client:
        with pytest.raises(AssertionError):
            client.login("app", "no_such")


def test_an_unknown_database_has_its_sqlstate(own_forebay):
    """Without TLS and passwords, so that the error can be read by hand."""
    forebay = own_forebay(postgres='auth = "trust"')
    error = refused(forebay, startup({"user": "app", "database": "no_such"}))
    assert error["C"] == "3D000"


def test_an_unreachable_server_is_told_at_login(own_forebay):
    forebay = own_forebay(
        address=f"127.0.0.1:{free_port()}", ready=False, postgres='auth = "trust"'
    )
    error = refused(forebay, startup({"user": "app", "database": "app"}))
    assert error["C"] == "08001"
    assert forebay.admin("/healthz")[0] == 200 and forebay.admin("/readyz")[0] == 503


@pytest.mark.parametrize(
    "data",
    [
        message(b"\0"),
        message(b"@", b"what"),
        b"Q\0\0\0\0",
        b"Q\0\0\0\x03",
        b"Q\xff\xff\xff\xff",
        message(b"Q", b"select 1"),
        message(b"P", b"name without an end"),
        message(b"B", b"\0\0\0\x01"),
        message(b"B", b"\0\0\xff\xff"),
        message(b"E", b"portal"),
        message(b"D", b"?\0"),
        message(b"C", b""),
        message(b"p", b"a password now"),
        b"P" + struct.pack("!i", 0x7FFFFFFF) + b"x" * 100,
        b"B" + struct.pack("!i", 0x7FFFFFFF) + b"x" * 100,
        b"S" + struct.pack("!i", 0x7FFFFFFF),
    ],
    ids=lambda data: repr(bytes(data[:12])),
)
def test_a_broken_message_ends_its_own_connection_only(forebay, data):
    with Client(forebay.port) as client:
        client.login("app", "app")
        client.send(data + message(b"S"))
        error = client.error()
        # A Bind is first of all one to a statement that does not exist, as in PostgreSQL.
        assert error["C"] == "08P01" or (data[:1] == b"B" and error["C"] == "26000"), error
        assert error["S"] == "ERROR" or client.is_closed()


def test_a_query_that_is_cut_off_harms_nobody(forebay, postgres):
    for part in (b"Q", b"Q\0\0", b"Q\0\0\0\x20select", message(b"P", b"\0select 1\0\0\0")):
        with Client(forebay.port) as client:
            client.login("app", "app")
            client.send(part)
    leased = lambda: sum(p["leased"] for p in forebay.snapshot()["postgres"]["pools"])
    eventually(lambda: leased() == 0, what="no lease is left")


def test_unknown_statements_and_portals_have_postgres_own_errors(forebay):
    with Client(forebay.port) as client:
        client.login("app", "app")
        bind = b"\0nobody\0" + b"\0\0" * 3
        client.send(message(b"B", bind) + message(b"E", b"\0\0\0\0\0") + message(b"S"))
        assert client.error()["C"] == "26000"
        client.ready()
        client.send(message(b"E", b"nowhere\0\0\0\0\0") + message(b"S"))
        assert client.error()["C"] == "34000"
        client.ready()
        client.query("select 1")
        assert client.ready() == ["T", "D", "C"]


def test_a_name_given_twice_is_an_error_as_in_postgres(forebay):
    with Client(forebay.port) as client:
        client.login("app", "app")
        parse = message(b"P", b"twice\0select 1\0\0\0")
        client.send(parse + message(b"S"))
        assert client.ready() == ["1"]
        client.send(parse + message(b"S"))
        assert client.error()["C"] == "42P05"
        client.ready()


def test_a_cancel_with_a_wrong_key_hits_nobody(forebay, bystander):
    for key in (b"\0" * 8, b"\xff" * 8, random.Random(2).randbytes(8)):
        with Client(forebay.port) as client:
            client.send(struct.pack("!ii", 16, 80877102) + key)
            assert client.is_closed()


def test_memory_stays_bounded_while_a_thousand_bad_clients_connect(forebay):
    """Each announces 2 GiB, sends a little of it and stays."""
    refused(forebay, struct.pack("!ii", 0x7FFFFFFF, 196608))
    before = forebay.resident_bytes()
    clients = []
    try:
        for number in range(1000):
            client = Client(forebay.port)
            clients.append(client)
            kind = number % 4
            if kind == 0:
                client.send(struct.pack("!ii", 0x7FFFFFFF, 196608) + b"x" * 4000)
            elif kind == 1:
                client.send(startup({"user": "app"})[:9])
            elif kind == 2:
                client.send(startup({"user": "app", "database": "app"}))
                assert client.receive()[0] == b"R"
                client.send(b"p" + struct.pack("!i", 60_000) + b"x" * 4000)
        grown = forebay.resident_bytes() - before
        assert grown < 64 << 20, f"{grown >> 20} MiB for 1,000 clients"
    finally:
        for client in clients:
            client.close()


def test_memory_stays_bounded_while_a_logged_in_client_announces_gigabytes(forebay):
    before = forebay.resident_bytes()
    clients = [Client(forebay.port).login("app", "app") for _ in range(20)]
    try:
        for client in clients:
            client.send(b"Q" + struct.pack("!i", 0x7FFFFFFF) + b"x" * 1000)
        assert forebay.resident_bytes() - before < 64 << 20
    finally:
        for client in clients:
            client.close()
