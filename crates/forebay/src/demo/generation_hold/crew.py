"""What the agents' three programs share: all begin when they are told, until the time is over.

A program prints `ready`, waits for a line, and prints one object of JSON at its end. It then ends
without a word to anybody, in the middle of whatever its agents are doing, as programs do that are
killed: only tasks that ended within the measured time count.
"""

import asyncio
import collections
import json
import os
import random
import sys
import threading
import time

AGENTS = int(os.environ["AGENTS"])
RAMP = float(os.environ["RAMP_SECONDS"])
MEASURED = float(os.environ["MEASURED_SECONDS"])
MODEL = os.environ["MODEL_URL"]
MODEL_HEADERS = {"x-forebay-key": os.environ["MODEL_KEY"]}
QUESTION = {"model": "stand-in", "stream": False, "messages": []}
# Not by name and number on a pooler that cannot follow prepared statements; else as the driver
# has it by default.
DRIVER_OPTIONS = {} if os.environ["PREPARED"] == "default" else {"prepare_threshold": None}
ACCOUNTS = 10_000


class Book:
    """What became of the agents' tasks."""

    def __init__(self):
        self.lock = threading.Lock()
        self.done = 0
        self.errors = collections.Counter()

    def begin(self):
        self.start = time.monotonic()

    def note(self, failure=None):
        since = time.monotonic() - self.start
        with self.lock:
            if failure is not None:
                self.errors[f"{type(failure).__name__}: {failure}"[:300]] += 1
            elif RAMP <= since < RAMP + MEASURED:
                self.done += 1

    def close(self):
        with self.lock:
            failed = sum(self.errors.values())
            samples = [f"{count} x {text}" for text, count in self.errors.most_common(3)]
            said = {"done": self.done, "failed": failed, "samples": samples}
            print(json.dumps(said))
        sys.stdout.flush()
        os._exit(0)


def wait_for_the_others():
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("the one who tells when to begin has gone")


def work_in_threads(task):
    """Each agent is a thread; `task` is given an account, over and over."""
    book = Book()

    def agent():
        time.sleep(random.uniform(0, RAMP))
        while True:
            try:
                task(random.randint(1, ACCOUNTS))
                book.note()
            except Exception as failure:
                book.note(failure)
                time.sleep(0.1)

    wait_for_the_others()
    book.begin()
    for _ in range(AGENTS):
        threading.Thread(target=agent, daemon=True).start()
    time.sleep(RAMP + MEASURED)
    book.close()


async def work_in_tasks(task):
    """The same with coroutines."""
    book = Book()

    async def agent():
        await asyncio.sleep(random.uniform(0, RAMP))
        while True:
            try:
                await task(random.randint(1, ACCOUNTS))
                book.note()
            except Exception as failure:
                book.note(failure)
                await asyncio.sleep(0.1)

    wait_for_the_others()
    book.begin()
    agents = [asyncio.create_task(agent()) for _ in range(AGENTS)]
    await asyncio.sleep(RAMP + MEASURED)
    assert len(agents) == AGENTS
    book.close()
