"""Services behind nginx, as many are: TLS, HTTP/1.1 and HTTP/2, reloads, impatience."""

import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway import BINARY
from processes import accepts, end, eventually, free_port

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


class Nginx:
    """Says in each answer what it was asked in, on which connection, and whether its session
    was resumed (`r`) or not (`.`)."""

    def __init__(self, folder, authority, *, http2, extra=""):
        folder.mkdir(parents=True)
        cert, key = folder / "nginx.crt", folder / "nginx.key"
        authority.issue_cert("localhost", "127.0.0.1").configure_files(cert, key)
        authority.write(folder / "ca.pem")
        self.port, self.ca = free_port(), folder / "ca.pem"
        offer = "http2" if http2 else ""
        self.conf = folder / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""
        self.conf.write_text(
            f"""
{user}
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {extra}
  server {{
    listen 127.0.0.1:{self.port} ssl {offer};
    ssl_certificate {cert}; ssl_certificate_key {key};
    ssl_session_cache shared:tls:1m;
    location / {{ return 200 "$server_protocol $connection $ssl_session_reused"; }}
  }}
}}
"""
        )
        self.process = subprocess.Popen(
            [NGINX, "-c", str(self.conf)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(lambda: accepts(self.port), within=10, what="nginx")

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        end(self.process)


class Gateway:
    """Forebay with one destination, nginx."""

    def __init__(self, folder, nginx, extra):
        self.port, self.admin = free_port(), free_port()
        config, self.log = folder / "forebay.toml", folder / "forebay.log"
        config.write_text(
            f"""
[admin]
listen = "127.0.0.1:{self.admin}"
[http]
listen = "127.0.0.1:{self.port}"
[http.destinations.tool]
url = "https://localhost:{nginx.port}"
ca_file = "{nginx.ca}"
{extra}
"""
        )
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "run", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(lambda: accepts(self.port), within=20, what=f"Forebay (see {self.log})")
        self.agent = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/tool", timeout=20)

    def call(self, method="GET"):
        """Protocol, connection and resumption of one call."""
        answer = self.agent.request(method, "/", content=b"{}" if method == "POST" else None)
        assert answer.status_code == 200, answer.text
        return answer.text.split()

    def connections(self):
        got = httpx.get(f"http://127.0.0.1:{self.admin}/api/v1/snapshot").json()
        return got["http"]["connections"][0]

    def stop(self):
        self.agent.close()
        end(self.process)


@pytest.fixture
def behind(tmp_path, authority):
    """Starts nginx and Forebay in front of it."""
    started = []

    def start(*, http2, nginx="", extra=""):
        service = Nginx(tmp_path / "nginx", authority, http2=http2, extra=nginx)
        started.append(service)
        gateway = Gateway(tmp_path, service, extra)
        started.append(gateway)
        return service, gateway

    yield start
    for running in reversed(started):
        running.stop()


def test_calls_share_few_connections_of_http2(behind):
    _, gateway = behind(http2=True, extra="budget = 4")
    with ThreadPoolExecutor(20) as agents:
        answers = list(agents.map(lambda _: gateway.call(), range(200)))
    assert {protocol for protocol, _, _ in answers} == {"HTTP/2.0"}
    assert len({connection for _, connection, _ in answers}) <= 4


def test_a_service_that_reloads_is_called_on(behind):
    """nginx resets connections at a reload on which something has just come: the end of an answer
    may be lost that way, and a POST of which nobody knows whether it ran is not sent again."""
    nginx, gateway = behind(http2=True, extra="budget = 4")
    over = threading.Event()

    def work(_):
        served, lost = 0, 0
        while not over.is_set():
            try:
                gateway.call("POST")
                served += 1
            except (AssertionError, httpx.RemoteProtocolError):
                lost += 1
        return served, lost

    with ThreadPoolExecutor(4) as agents:
        seen = agents.map(work, range(4))
        for _ in range(3):
            time.sleep(0.3)
            nginx.reload()
        time.sleep(0.3)
        over.set()
        seen = list(seen)
    # At most what was out at each of the three moments.
    assert sum(lost for _, lost in seen) <= 3 * 4
    assert min(served for served, _ in seen) > 20
    gateway.call("POST")
    assert dict(gateway.connections()["closed"])["goaway"] > 0


def test_a_service_that_ends_connections_after_some_calls_fails_none(behind):
    _, gateway = behind(http2=True, nginx="keepalive_requests 10;", extra="budget = 2")
    answers = [gateway.call("POST") for _ in range(100)]
    assert len({connection for _, connection, _ in answers}) >= 10


def test_the_patience_of_a_service_is_learnt(behind):
    _, gateway = behind(http2=False, nginx="keepalive_timeout 1s;", extra="warm_up = 0")
    gateway.call("POST")
    eventually(lambda: gateway.connections()["idle_learnt"], within=10, what="nginx closes")
    assert 0.9 < gateway.connections()["idle_learnt"] < 1.5
    for pause in (0.7, 0.75, 0.99, 1.0, 1.01):
        gateway.call("POST")
        time.sleep(pause)


def test_sessions_are_resumed(behind):
    _, gateway = behind(http2=False, extra="warm_up = 0\nconnections.max_calls = 1")
    reused = [session for _, _, session in (gateway.call() for _ in range(5))]
    assert reused == [".", "r", "r", "r", "r"]
    assert gateway.connections()["tls_resumed"] == 4
