"""Programs that a test starts: they get a port, are waited for, and end by their id."""

import os
import pwd
import signal
import socket
import subprocess
import time


def free_port():
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(condition, within=10.0, every=0.05, what="the condition"):
    """Waits until `condition()` is true and returns what it gave."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {within} s"
        time.sleep(every)


def accepts(port):
    """Does somebody accept connections on `port`?"""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def end(process, sign=signal.SIGTERM, within=20):
    """Asks `process` to end and returns its status; kills it where it does not."""
    if process.poll() is None:
        process.send_signal(sign)
    try:
        return process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def unprivileged():
    """Arguments for `subprocess` that let a program run as another user than root, and that
    user's name. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}, pwd.getpwuid(os.geteuid()).pw_name
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}, name
    raise AssertionError("no user to run PostgreSQL as: neither postgres nor nobody exists")


def resident_bytes(pid):
    """Memory that the process `pid` really occupies."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmRSS")
