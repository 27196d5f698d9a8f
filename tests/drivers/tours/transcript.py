"""What the tours in Python share: where to connect, what each client writes down, and one
client at a time for the steps that need two connections.

A tour runs as some clients at once. Every client does the same in a schema of its own and
writes down what it saw; who runs the tour compares that with a tour past Forebay.
"""

import base64
import concurrent.futures
import json
import os
import sys

import traceback

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
USER = os.environ["PGUSER"]
PASSWORD = os.environ["PGPASSWORD"]
DATABASE = os.environ["PGDATABASE"]
CLIENTS = int(os.environ["TOUR_CLIENTS"])


class Transcript:
    """What client `number` of this tour saw, step by step."""

    def __init__(self, number):
        self.number = number
        self.schema = f"{os.environ['TOUR_SCHEMA']}_{number}"
        self.steps = []

    def say(self, step, *seen):
        text = " ".join(one if isinstance(one, str) else repr(one) for one in seen)
        for own in (self.schema, base64.b64encode(self.schema.encode()).decode()):
            text = text.replace(own, "SCHEMA")
        self.steps.append(f"{step}: {text}")

    def fails(self, step, error, call, *arguments, **named):
        """`call` must raise `error`; how it reads goes into the transcript."""
        try:
            call(*arguments, **named)
        except error as raised:
            self.say(step, raised_as(raised))
        else:
            self.say(step, "was not refused")

    async def afails(self, step, error, awaitable):
        try:
            await awaitable
        except error as raised:
            self.say(step, raised_as(raised))
        else:
            self.say(step, "was not refused")


def raised_as(error):
    """An exception as an application can tell it from others."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return f"{type(error).__name__} {code} {error}".strip()


def run(tour):
    """Runs `tour(transcript)` in a thread for each client and prints the transcripts."""
    transcripts = [Transcript(number) for number in range(CLIENTS)]
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        finish(transcripts, [threads.submit(tour, one) for one in transcripts])


async def arun(tour):
    """As `run`, in one thread."""
    import asyncio

    transcripts = [Transcript(number) for number in range(CLIENTS)]
    tasks = [asyncio.create_task(tour(one)) for one in transcripts]
    await asyncio.wait(tasks)
    finish(transcripts, tasks)


def finish(transcripts, ends):
    for transcript, end in zip(transcripts, ends):
        if end.exception() is not None:
            traceback.print_exception(end.exception())
            transcript.say("ended by", raised_as(end.exception()))
    json.dump([one.steps for one in transcripts], sys.stdout)
