"""Programs from PyPI as they are: twenty at once over three server connections read, think with
their transaction open, and write what came of it."""

import asyncio
import concurrent.futures
import time

import django
import pytest
import sqlalchemy as sa
from django.conf import settings
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from gateway import Forebay
from test_sqlalchemy import url

AT_ONCE = 20
# Seconds for which a task waits with its transaction open.
THINKING = 0.4


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "parking_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    answers: Mapped[int] = mapped_column(default=0)


@pytest.fixture(scope="module")
def parking(folder, postgres):
    gateway = Forebay(
        folder / "parking",
        address=f"localhost:{postgres.port}",
        budget=3,
        server='sslmode = "disable"\nqueue_factor = 100\n'
        'classes.core = { kind = "core", checkout_timeout = "30s", parking = "enforce", '
        'park_after = "20ms", unpark_timeout = "30s" }\n',
    )
    try:
        yield gateway.start()
    finally:
        assert gateway.stop() == 0, gateway.log()


@pytest.fixture
def notes(parking, postgres):
    engine = sa.create_engine(url(parking, "postgresql+psycopg"), poolclass=sa.NullPool)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Note(id=n, body=f"note {n}") for n in range(AT_ONCE))
        session.commit()
    before = parks(parking)
    yield engine
    with Session(engine) as session:
        rows = session.execute(sa.select(Note.body, Note.answers).order_by(Note.id)).all()
    assert rows == [(f"note {n}, answered", 1) for n in range(AT_ONCE)]
    assert parks(parking) > before, "nothing was parked"
    assert core(parking)["lost"] == 0
    engine.dispose()


def core(parking):
    classes = parking.snapshot()["postgres"]["parking"]["main"]["classes"]
    return next(one for one in classes if one["class"] == "core")


def parks(parking):
    return core(parking)["parks"]


def test_sqlalchemy(notes):
    def work(number):
        with Session(notes) as session:
            note = session.get(Note, number)
            time.sleep(THINKING)
            note.body, note.answers = f"{note.body}, answered", note.answers + 1
            session.commit()

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(work, range(AT_ONCE)))


def test_asynchronous_sqlalchemy(parking, notes):
    async def run():
        engine = create_async_engine(
            url(parking, "postgresql+asyncpg"), pool_size=AT_ONCE, max_overflow=0
        )

        async def work(number):
            async with AsyncSession(engine) as session, session.begin():
                note = await session.get(Note, number)
                await asyncio.sleep(THINKING)
                note.body, note.answers = f"{note.body}, answered", note.answers + 1

        await asyncio.gather(*map(work, range(AT_ONCE)))
        await engine.dispose()

    asyncio.run(run())


def test_atomic_of_django(parking, notes):
    dsn = parking.dsn()
    if not settings.configured:
        database = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": dsn["dbname"],
            "USER": dsn["user"],
            "PASSWORD": dsn["password"],
            "HOST": dsn["host"],
            "PORT": dsn["port"],
        }
        settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[], USE_TZ=True)
        django.setup()
    from django.db import connection, models, transaction

    class DjangoNote(models.Model):
        body = models.TextField()
        answers = models.IntegerField()

        class Meta:
            app_label = "parking"
            managed = False
            db_table = "parking_notes"

    def view(number):
        try:
            with transaction.atomic():
                note = DjangoNote.objects.get(pk=number)
                time.sleep(THINKING)
                note.body, note.answers = f"{note.body}, answered", note.answers + 1
                note.save()
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(view, range(AT_ONCE)))
