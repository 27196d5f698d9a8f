"""SQLAlchemy over both drivers: its pool, its first questions, its rollback on return."""

import asyncio
import concurrent.futures

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from gateway import BUDGET


class Base(DeclarativeBase):
    pass


class Agent(Base):
    __tablename__ = "agents"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    steps: Mapped[list["Step"]] = relationship(back_populates="agent")


class Step(Base):
    __tablename__ = "steps"
    id: Mapped[int] = mapped_column(primary_key=True)
    agent_id: Mapped[int] = mapped_column(sa.ForeignKey("agents.id"))
    agent: Mapped[Agent] = relationship(back_populates="steps")


def url(forebay, driver):
    dsn = forebay.dsn()
    return sa.URL.create(
        driver, dsn["user"], dsn["password"], dsn["host"], dsn["port"], dsn["dbname"]
    )


def test_models_are_created_written_and_read(forebay, postgres):
    engine = sa.create_engine(url(forebay, "postgresql+psycopg"), pool_pre_ping=True)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)

    def work(number):
        with Session(engine) as session:
            session.add(Agent(name=f"agent {number}", steps=[Step(), Step()]))
            session.commit()
            found = session.scalars(sa.select(Agent).where(Agent.name == f"agent {number}")).one()
            return len(found.steps)

    with concurrent.futures.ThreadPoolExecutor(15) as threads:
        assert list(threads.map(work, range(60))) == [2] * 60
    with Session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Step)) == 120
    engine.dispose()
    assert postgres.server_connections() <= BUDGET


def test_asynchronous_engine_with_ping_before_use(forebay):
    async def run():
        engine = create_async_engine(
            url(forebay, "postgresql+asyncpg"), pool_pre_ping=True, pool_size=20
        )

        async def work(number):
            async with engine.begin() as connection:
                result = await connection.execute(sa.text("select :n + 1"), {"n": number})
                return result.scalar_one()

        for _ in range(3):
            assert await asyncio.gather(*map(work, range(40))) == [n + 1 for n in range(40)]
        await engine.dispose()

    asyncio.run(run())
