"""What agents call services with: SDKs and HTTP clients, unchanged, through the HTTP gateway."""

import json
import os
import pathlib
import subprocess
import threading

import anthropic
import httpx
import openai
import pytest
import requests

from llm_standin import KEY

QUESTION = [{"role": "user", "content": "Hello?"}]
NODE = pathlib.Path(os.environ.get("FOREBAY_TEST_NODE", "target/node")) / "bin" / "node"


def root(egress):
    return f"http://127.0.0.1:{egress.http_port}"


def ask(**more):
    return {"model": "standin", "messages": QUESTION, **more}


def test_anthropics_sdk_is_answered_and_streams(egress, llm):
    client = anthropic.Anthropic(base_url=f"{root(egress)}/claude", api_key="unused")
    answer = client.messages.create(model="standin", max_tokens=5, messages=QUESTION)
    assert answer.content[0].text == "Hello."
    with client.messages.stream(model="standin", max_tokens=5, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
    assert text.split() == [f"word{n}" for n in range(5)]
    # The agent's own key went nowhere; Forebay's did.
    assert set(llm.api_keys) == {KEY}


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_httpx_speaks_either_version(egress, version):
    two = version == "HTTP/2"
    with httpx.Client(base_url=f"{root(egress)}/llm/v1", http1=not two, http2=two) as client:
        for _ in range(3):
            answer = client.post("/chat/completions", json=ask())
            assert answer.status_code == 200 and answer.http_version == version
            assert answer.json()["choices"][0]["message"]["content"] == "Hello."
        with client.stream("POST", "/chat/completions", json=ask(stream=True)) as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert len(lines) == 6 and lines[-1] == "data: [DONE]"


def test_requests_keeps_its_connection_and_streams(egress):
    with requests.Session() as session:
        for number in range(3):
            answer = session.get(f"{root(egress)}/llm/v1/models/{number}?page=2", timeout=10)
            assert answer.json() == {"path": f"/v1/models/{number}?page=2"}
        answer = session.post(
            f"{root(egress)}/llm/v1/chat/completions",
            json=ask(stream=True, max_tokens=3),
            stream=True,
            timeout=10,
        )
        assert len([line for line in answer.iter_lines() if line]) == 4


def test_a_body_of_unknown_length_goes_through(egress):
    parts = (part for part in [b'{"model": "standin", ', b'"messages": []}'])
    answer = httpx.post(f"{root(egress)}/llm/v1/chat/completions", content=parts)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Hello."


def test_nodes_fetch_is_answered_and_streams(egress):
    script = """
const root = process.argv[1];
const post = (body) => fetch(`${root}/llm/v1/chat/completions`, {
  method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)});
const ask = {model: "standin", messages: []};
const said = [(await (await post(ask)).json()).choices[0].message.content];
let events = 0;
for await (const block of (await post({...ask, stream: true})).body)
  events += new TextDecoder().decode(block).split("data: ").length - 1;
const given_up = new AbortController();
setTimeout(() => given_up.abort(), 150);
const late = await fetch(`${root}/llm/v1/chat/completions`, {method: "POST",
  headers: {"content-type": "application/json"}, signal: given_up.signal,
  body: JSON.stringify({...ask, stream: true, max_tokens: 600})})
  .then((answer) => answer.text()).catch((error) => error.name);
console.log(JSON.stringify([...said, events, late]));
"""
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", script, root(egress)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Hello.", 6, "AbortError"]


@pytest.mark.parametrize("options", [["--http1.1"], ["--http2-prior-knowledge"]])
def test_curl_is_answered(egress, options):
    done = subprocess.run(
        ["curl", "-sS", *options, "-w", "\n%{http_code} %{http_version}", "--max-time", "20"]
        + ["-H", "content-type: application/json", "-d", json.dumps(ask())]
        + [f"{root(egress)}/llm/v1/chat/completions"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    body, _, told = done.stdout.rpartition("\n")
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hello."
    assert told == ("200 2" if "prior" in options[0] else "200 1.1")


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
def test_an_sdk_that_is_told_to_wait_comes_again_and_is_answered(egress, sdk):
    """One connection, and somebody who streams on it for a second."""
    path = "one/v1" if sdk is openai else "one"

    def client(**options):
        kind = sdk.OpenAI if sdk is openai else sdk.Anthropic
        return kind(base_url=f"{root(egress)}/{path}", api_key="unused", **options)

    def call(client):
        if sdk is openai:
            return client.chat.completions.create(model="standin", messages=QUESTION)
        return client.messages.create(model="standin", max_tokens=5, messages=QUESTION)

    begun = threading.Event()

    def occupy():
        body = ask(stream=True, max_tokens=12)
        url = f"{root(egress)}/one/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=20) as answer:
            for _ in answer.iter_raw():
                begun.set()

    busy = threading.Thread(target=occupy)
    busy.start()
    try:
        assert begun.wait(10)
        with pytest.raises(sdk.APIStatusError) as refused:
            call(client(max_retries=0))
        answer = refused.value.response
        assert answer.status_code in (429, 503), answer.text
        assert answer.headers["x-should-retry"] == "true", answer.headers
        assert int(answer.headers["retry-after-ms"]) > 0 and int(answer.headers["retry-after"]) > 0
        assert call(client(max_retries=20))
    finally:
        busy.join()
