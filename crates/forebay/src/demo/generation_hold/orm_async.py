"""The same agents on SQLAlchemy's ORM with asyncio."""

import asyncio

import httpx
from crew import AGENTS, DRIVER_OPTIONS, MODEL, MODEL_HEADERS, QUESTION, work_in_tasks
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from tables import DATABASE, Account, Step

engine = create_async_engine(DATABASE, pool_size=AGENTS, connect_args=DRIVER_OPTIONS)
model = httpx.AsyncClient(headers=MODEL_HEADERS, timeout=60)


async def task(number):
    async with AsyncSession(engine) as session:
        account = await session.get_one(Account, number)
        answer = await model.post(MODEL, json={**QUESTION, "user": account.email})
        session.add(Step(agent=number, answer=answer.raise_for_status().json()["text"]))
        await session.commit()


asyncio.run(work_in_tasks(task))
