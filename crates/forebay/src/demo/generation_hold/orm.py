"""Agents on SQLAlchemy's ORM: a session reads, the model is asked, the session writes."""

import httpx
from crew import AGENTS, DRIVER_OPTIONS, MODEL, MODEL_HEADERS, QUESTION, work_in_threads
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from tables import DATABASE, Account, Step

engine = create_engine(DATABASE, pool_size=AGENTS, connect_args=DRIVER_OPTIONS)
model = httpx.Client(headers=MODEL_HEADERS, timeout=60)


def task(number):
    with Session(engine) as session:
        account = session.get_one(Account, number)
        answer = model.post(MODEL, json={**QUESTION, "user": account.email}).raise_for_status()
        session.add(Step(agent=number, answer=answer.json()["text"]))
        session.commit()


work_in_threads(task)
