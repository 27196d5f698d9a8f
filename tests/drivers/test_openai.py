"""The OpenAI SDK through the HTTP gateway, against a stand-in behind real TLS."""

import asyncio
import ssl
import time

import httpx
import openai
import psycopg
import pytest

from llm_standin import KEY
from processes import eventually

QUESTION = [{"role": "user", "content": "Hello?"}]


def base_url(egress):
    return f"http://127.0.0.1:{egress.http_port}/llm/v1"


def leased(egress):
    return sum(pool["leased"] for pool in egress.snapshot()["http"]["pools"])


def test_an_agent_without_a_key_of_its_own_is_answered(egress, llm):
    client = openai.OpenAI(base_url=base_url(egress), api_key="unused")
    answer = client.chat.completions.create(model="standin", messages=QUESTION)
    assert answer.choices[0].message.content == "Hello."
    assert set(llm.keys) == {f"Bearer {KEY}"}
    assert KEY not in egress.log() and KEY not in egress.admin("/metrics")[1]


def test_an_answer_streams_as_it_is_written(egress):
    client = openai.OpenAI(base_url=base_url(egress), api_key="unused")
    started, arrivals, text = time.monotonic(), [], ""
    for chunk in client.chat.completions.create(
        model="standin", messages=QUESTION, stream=True, max_tokens=20
    ):
        arrivals.append(time.monotonic() - started)
        text += chunk.choices[0].delta.content or ""
    assert text.split() == [f"word{n}" for n in range(20)]
    # The stand-in pauses after each word: the first is here long before the last is written.
    assert arrivals[0] < arrivals[-1] / 2


def test_clients_made_for_each_call_share_connections(egress, llm):
    """Tools written as functions make a client for each call."""
    before = llm.connections

    # A client of its own reads the authorities that it trusts, which takes longer than the call.
    trusted = ssl.create_default_context()

    async def call(number):
        http = httpx.AsyncClient(verify=trusted)
        async with openai.AsyncOpenAI(
            base_url=base_url(egress), api_key="unused", http_client=http
        ) as client:
            answer = await client.chat.completions.create(model="standin", messages=QUESTION)
            return answer.choices[0].message.content

    async def run():
        for _ in range(5):
            assert set(await asyncio.gather(*map(call, range(20)))) == {"Hello."}

    asyncio.run(run())
    # A hundred clients, of whom twenty call at the same time.
    assert llm.connections - before <= 20


def test_a_client_that_leaves_a_stream_frees_the_upstream(egress, llm):
    llm.abandoned.clear()
    client = openai.OpenAI(base_url=base_url(egress), api_key="unused")
    stream = client.chat.completions.create(
        model="standin", messages=QUESTION, stream=True, max_tokens=600
    )
    next(iter(stream))
    stream.close()
    client.close()
    assert llm.abandoned.wait(10), "the stand-in still writes to nobody"
    eventually(lambda: leased(egress) == 0, what="the lease came home")


def test_many_streams_left_at_once_free_everything(egress):
    async def leave(number):
        async with openai.AsyncOpenAI(base_url=base_url(egress), api_key="unused") as client:
            stream = await client.chat.completions.create(
                model="standin", messages=QUESTION, stream=True, max_tokens=600
            )
            async for _ in stream:
                break

    async def run():
        tasks = [asyncio.create_task(leave(n)) for n in range(8)]
        await asyncio.gather(*tasks)

    asyncio.run(run())
    eventually(lambda: leased(egress) == 0, what="all leases came home")


def test_the_trace_of_a_call_reaches_the_service(egress, llm):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client = openai.OpenAI(
        base_url=base_url(egress), api_key="unused", default_headers={"traceparent": trace}
    )
    client.chat.completions.create(model="standin", messages=QUESTION)
    assert llm.traceparents[-1].split("-")[1] == trace.split("-")[1]


def test_a_transaction_held_while_the_model_answers_is_found(egress, llm):
    """The same trace id in a comment and in a header makes both sides one request."""
    request = "5bf92f3577b34da6a3ce929d0e0e4736"
    trace = f"00-{request}-00f067aa0ba902b7-01"
    comment = f"/*traceparent='{trace}',route='%2Fanswer'*/"
    with psycopg.connect(**egress.dsn()) as connection:
        connection.execute(f"select 471147 + 1 as answer {comment}")
        client = openai.OpenAI(
            base_url=base_url(egress), api_key="unused", default_headers={"traceparent": trace}
        )
        for _ in client.chat.completions.create(
            model="standin", messages=QUESTION, stream=True, max_tokens=5
        ):
            pass
        connection.commit()
    held = eventually(
        lambda: [line for line in egress.log().splitlines() if request in line],
        what="the hold in the log",
    )
    assert "/answer" in held[-1] and "llm" in held[-1] and "471147" not in held[-1], held[-1]
    metrics = [line for line in egress.admin("/metrics")[1].splitlines() if "/answer" in line]
    assert any("llm" in line and not line.endswith(" 0") for line in metrics), metrics


def problem(answer):
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.text
    return answer.json()


def test_faults_are_told_as_problems(egress):
    root = f"http://127.0.0.1:{egress.http_port}"
    unknown = httpx.get(f"{root}/nobody/v1")
    assert unknown.status_code == 404 and problem(unknown)["status"] == 404
    gone = httpx.post(f"{root}/gone/v1", json={})
    assert gone.status_code == 502 and problem(gone)["status"] == 502
    # Its certificate is signed by nobody whom that destination trusts.
    stranger = httpx.get(f"{root}/stranger/v1")
    assert stranger.status_code == 502 and problem(stranger)["status"] == 502


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"NONSENSE\r\n\r\n",
        b"GET /llm/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /llm/v1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /llm/v1 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2_000_000 + b"\r\n\r\n",
    ],
    ids=["TLS", "nonsense", "a negative length", "a broken chunk", "a header of 2 MB"],
)
def test_broken_requests_end_their_own_connection_only(egress, data):
    import socket

    with socket.create_connection(("127.0.0.1", egress.http_port), timeout=10) as client:
        try:
            client.sendall(data)
            answer = client.recv(4096)
        except ConnectionError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    client = openai.OpenAI(base_url=base_url(egress), api_key="unused")
    assert client.chat.completions.create(model="standin", messages=QUESTION)


def test_memory_stays_bounded_while_bad_clients_connect(egress):
    import socket

    before = egress.resident_bytes()
    clients = []
    try:
        for _ in range(500):
            client = socket.create_connection(("127.0.0.1", egress.http_port), timeout=10)
            client.sendall(b"POST /llm/v1 HTTP/1.1\r\nHost: x\r\nX-Part: " + b"x" * 4000)
            clients.append(client)
        assert egress.resident_bytes() - before < 64 << 20
    finally:
        for client in clients:
            client.close()
