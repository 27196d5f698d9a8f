"""A stand-in for an LLM's API: HTTPS, an API key, answers that stream."""

import http.server
import json
import ssl
import threading
import time

KEY = "sk-known-to-forebay-only"


class Standin:
    """Serves until `stop`; counts what it saw."""

    def __init__(self, cert, key):
        self.connections = 0
        self.keys = []
        self.api_keys = []
        self.traceparents = []
        self.abandoned = threading.Event()
        handler = type("Handler", (_Handler,), {"standin": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that leave or do not trust us are what is tested."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.standin.connections += 1

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._json(200, {"path": self.path})

    def do_POST(self):
        asked = json.loads(self._body() or b"{}")
        if self.path.endswith("/messages"):
            return self._messages(asked)
        self.standin.keys.append(self.headers.get("authorization"))
        self.standin.traceparents.append(self.headers.get("traceparent"))
        if self.headers.get("authorization") != f"Bearer {KEY}":
            self._json(401, {"error": {"message": "no such key"}})
        elif asked.get("stream"):
            self._stream(asked)
        else:
            self._json(200, _completion("Hello."))

    def _body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _messages(self, asked):
        """Anthropic's way of asking and answering."""
        self.standin.api_keys.append(self.headers.get("x-api-key"))
        known = KEY in (self.headers.get("x-api-key"), self.headers.get("authorization", "")[7:])
        if not known:
            self._json(401, {"type": "error", "error": {"type": "authentication_error"}})
        elif asked.get("stream"):
            self._events(asked)
        else:
            self._json(200, _message([{"type": "text", "text": "Hello."}]))

    def _json(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, asked):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        words = int(asked.get("max_tokens") or 5)
        try:
            for number in range(words):
                self._chunk(f"data: {json.dumps(_delta(f'word{number} '))}\n\n")
                time.sleep(0.1)
            self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.standin.abandoned.set()
            self.close_connection = True

    def _events(self, asked):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        block = {"type": "text", "text": ""}
        self._event("message_start", message=_message([]))
        self._event("content_block_start", index=0, content_block=block)
        for number in range(int(asked["max_tokens"])):
            delta = {"type": "text_delta", "text": f"word{number} "}
            self._event("content_block_delta", index=0, delta=delta)
        self._event("content_block_stop", index=0)
        self._event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})
        self._event("message_stop")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, kind, **fields):
        self._chunk(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n")

    def _chunk(self, text):
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _completion(text):
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "standin",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
    }


def _message(content):
    return {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "standin",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 5},
    }


def _delta(text):
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "standin",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
