"""SQLAlchemy with asyncio over two drivers."""

import asyncio

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import transcript as t


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[str] = mapped_column(unique=True)


async def tour(seen):
    options = f"-c search_path={seen.schema} -c statement_timeout=20s"
    for driver, arguments in (
        ("asyncpg", {"server_settings": {"search_path": seen.schema, "statement_timeout": "20s"}}),
        ("psycopg", {"options": options}),
    ):
        engine = create_async_engine(
            sa.URL.create(f"postgresql+{driver}", t.USER, t.PASSWORD, t.HOST, t.PORT, t.DATABASE),
            connect_args=arguments,
            pool_size=3,
            max_overflow=2,
            pool_pre_ping=True,
        )
        async with engine.begin() as c:
            await c.execute(sa.text(f"drop schema if exists {seen.schema} cascade"))
            await c.execute(sa.text(f"create schema {seen.schema}"))
        async with engine.begin() as c:
            await c.run_sync(Base.metadata.create_all)
            seen.say("tables", await c.run_sync(lambda s: sa.inspect(s).get_table_names()))
        await sessions(seen, engine)
        await streams(seen, engine)
        await many(seen, engine)
        await stopped(seen, engine)
        await engine.dispose()


async def sessions(seen, engine):
    make = async_sessionmaker(engine, expire_on_commit=False)
    async with make() as session:
        session.add_all([Note(words=f"note {n}") for n in range(40)])
        await session.commit()
        try:
            async with session.begin_nested():
                session.add(Note(words="note 1"))
                await session.flush()
        except sa.exc.IntegrityError as error:
            seen.say("nested", error.orig.sqlstate)
        for turn in range(4):
            found = await session.scalars(
                sa.select(Note).where(Note.id > turn).order_by(Note.id).limit(3)
            )
            seen.say("found", [note.words for note in found])
            await session.commit()
        note = (
            await session.scalars(sa.select(Note).where(Note.words == "note 2").with_for_update())
        ).one()
        note.words = "changed"
        await session.commit()
    async with AsyncSession(engine) as session, session.begin():
        seen.say("count", await session.scalar(sa.select(sa.func.count()).select_from(Note)))


async def streams(seen, engine):
    async with engine.connect() as c:
        result = await c.stream(sa.text("select g from generate_series(1, 500) g"))
        seen.say("streamed", sum([row.g async for row in result]))
        await c.rollback()
    async with engine.connect() as c:
        c = await c.execution_options(isolation_level="SERIALIZABLE")
        seen.say("isolation", await c.scalar(sa.text("show transaction_isolation")))
    async with engine.connect() as c:
        c = await c.execution_options(isolation_level="AUTOCOMMIT")
        seen.say("autocommit", await c.scalar(sa.text("select cast(:n as int)"), {"n": 3}))


async def many(seen, engine):
    async def work(number):
        async with engine.begin() as c:
            return await c.scalar(sa.text("select cast(:n as int) * 2"), {"n": number})

    for _ in range(2):
        seen.say("pool", sum(await asyncio.gather(*map(work, range(25)))))


async def stopped(seen, engine):
    """The user presses Stop: tasks end in a transaction, and the pool serves on."""

    async def work():
        async with engine.begin() as c:
            await c.execute(sa.text("insert into note(words) values ('stopped')"))
            await c.execute(sa.text("select pg_sleep(20)"))

    tasks = [asyncio.create_task(work())]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with engine.connect() as c:
        seen.say(
            "nothing", await c.scalar(sa.text("select count(*) from note where words = 'stopped'"))
        )


asyncio.run(t.arun(tour))
