"""Thousands of clients that log in, ask one question, and stay.

What the pooler's process grew by is its own memory; what the kernel grew by is for both ends of
each connection, and for whatever else the machine does meanwhile.
"""

import time

from loads import LoadFailed
from poolers import DATABASE, PASSWORD, USER
from wire import Client

FIRST = 20  # clients before the first reading: start-up costs are not the clients'
FROM_ONE_ADDRESS = 4_000  # clients: far fewer than it has local ports
STILL = 2.0  # seconds in which nobody does anything


def measure_idle(count, pooler):
    """Bytes for each of `count` clients, what their logins took, and what they take idle."""
    clients = []
    try:
        _more(clients, FIRST, pooler.port)
        for client in clients:
            _ask(client)
        before, cpu, began = pooler.memory(), pooler.cpu(), time.monotonic()
        _more(clients, count, pooler.port)
        logins = time.monotonic() - began
        login_cpu = pooler.cpu().since(cpu)
        logged_in = pooler.memory()
        for client in clients[FIRST:]:
            _ask(client)
        time.sleep(1)
        asked, cpu = pooler.memory(), pooler.cpu()
        time.sleep(STILL)
        still = pooler.cpu().since(cpu)
        _ask(clients[0])
        return {
            "idle_bytes": (asked.resident - before.resident) / count,
            "idle_pss": (asked.proportional - before.proportional) / count,
            "login_bytes": (logged_in.resident - before.resident) / count,
            "kernel_bytes": (asked.kernel - before.kernel) / count,
            "cpu_per_login": login_cpu / count,
            "logins": count / logins,
            "still_cpu": still / 1000 / STILL,
        }
    finally:
        for client in clients:
            client.close()


def _more(clients, count, port):
    for number in range(count):
        client = Client(port, f"127.0.0.{2 + number // FROM_ONE_ADDRESS}")
        clients.append(client)
        client.login(USER, DATABASE, PASSWORD)


def _ask(client):
    if client.query("select 1").ready() != ["T", "D", "C"]:
        raise LoadFailed("an idle client's question was not answered")
