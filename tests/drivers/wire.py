"""PostgreSQL's protocol by hand, for messages that no driver would send."""

import base64
import functools
import hashlib
import hmac
import os
import socket
import struct

from private_postgres import PASSWORD

PROTOCOL_3 = 196608
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
IP_BIND_ADDRESS_NO_PORT = 24
GSSENC_REQUEST = struct.pack("!ii", 8, 80877104)


def startup(parameters, version=PROTOCOL_3):
    """A startup packet."""
    body = struct.pack("!i", version)
    for key, value in parameters.items():
        body += key.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack("!i", len(body) + 4) + body


def message(kind, body=b""):
    """A message of `kind` with its length."""
    return kind + struct.pack("!i", len(body) + 4) + body


@functools.cache
def salted_password(password, salt, iterations):
    """RFC 5802's SaltedPassword, derived once: crowds log in with the same verifier."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), iterations)


class Client:
    """A connection that sends what it is told to."""

    def __init__(self, port, source="127.0.0.1"):
        """`source` is the address it comes from: each has its own local ports, so a crowd of
        more than some thousands needs several."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(15)
        if source != "127.0.0.1":
            # The port is chosen when it connects, for this destination only (ip(7)).
            self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            self.socket.bind((source, 0))
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.port = self.socket.getsockname()[1]

    def send(self, data):
        self.socket.sendall(data)
        return self

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def receive(self):
        """The next message: its kind and body; None where the other side has closed."""
        head = self._exactly(5)
        if head is None:
            return None
        return head[:1], self._exactly(struct.unpack("!i", head[1:])[0] - 4)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                return None
            data += part
        return data

    def error(self):
        """The fields of the next error, which must come before the other side closes."""
        while True:
            got = self.receive()
            assert got is not None, "closed without saying why"
            if got[0] == b"E":
                fields = got[1].split(b"\0")
                return {f[:1].decode(): f[1:].decode() for f in fields if f}

    def is_closed(self):
        """Waits until the other side closes."""
        while self.receive() is not None:
            pass
        return True

    def ready(self):
        """Reads up to ReadyForQuery and returns the kinds of messages before it."""
        kinds = []
        while True:
            got = self.receive()
            assert got is not None, "closed before ReadyForQuery"
            if got[0] == b"Z":
                return kinds
            kinds.append(got[0].decode())

    def query(self, text):
        return self.send(message(b"Q", text.encode() + b"\0"))

    def login(self, user, database, password=PASSWORD):
        """Logs in by SCRAM-SHA-256 (RFC 5802) and reads up to ReadyForQuery."""
        self.send(startup({"user": user, "database": database}))
        kind, body = self.receive()
        assert kind == b"R" and body[:4] == b"\0\0\0\x0a", (kind, body)
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = f"n=,r={nonce}"
        first = f"n,,{bare}".encode()
        mechanism = b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first
        self.send(message(b"p", mechanism))
        kind, body = self.receive()
        assert kind == b"R", (kind, body)
        server_first = body[4:].decode()
        values = dict(part.split("=", 1) for part in server_first.split(","))
        salted = salted_password(password, values["s"], int(values["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={values['r']}"
        signed = f"{bare},{server_first},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        final = f"{without_proof},p={base64.b64encode(proof).decode()}".encode()
        self.send(message(b"p", final))
        self.ready()
        return self
