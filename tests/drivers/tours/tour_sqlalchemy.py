"""SQLAlchemy over two drivers with its own pool: Core, ORM, reflection, streams, pools."""

import decimal
import enum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)

import transcript as t


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    calm = 1
    busy = 2


class Agent(Base):
    __tablename__ = "agent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    mood: Mapped[Mood] = mapped_column(default=Mood.calm)
    tags: Mapped[list[str]] = mapped_column(pg.ARRAY(sa.Text), default=list)
    more: Mapped[dict] = mapped_column(pg.JSONB, default=dict)
    cost: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2), default=0)
    steps: Mapped[list["Step"]] = relationship(back_populates="agent", cascade="all, delete-orphan")


class Step(Base):
    __tablename__ = "step"
    id: Mapped[int] = mapped_column(primary_key=True)
    agent_id: Mapped[int] = mapped_column(sa.ForeignKey("agent.id"))
    agent: Mapped[Agent] = relationship(back_populates="steps")


def url(driver):
    return sa.URL.create(f"postgresql+{driver}", t.USER, t.PASSWORD, t.HOST, t.PORT, t.DATABASE)


def tour(seen):
    for driver in ("psycopg", "psycopg2"):
        options = f"-c search_path={seen.schema} -c statement_timeout=20s"
        engine = sa.create_engine(
            url(driver),
            connect_args={"options": options},
            pool_size=2,
            max_overflow=2,
            pool_pre_ping=True,
        )
        with engine.begin() as c:
            c.execute(sa.text(f"drop schema if exists {seen.schema} cascade"))
            c.execute(sa.schema.CreateSchema(seen.schema))
        with engine.begin() as c:
            Base.metadata.create_all(c)
        reflection(seen, engine)
        core(seen, engine)
        orm(seen, engine)
        isolation(seen, engine)
        two_phases(seen, engine)
        many(seen, engine)
        engine.dispose()
        bare = sa.create_engine(
            url(driver), connect_args={"options": options}, poolclass=sa.NullPool
        )
        for turn in range(4):
            with bare.connect() as c:
                seen.say("no pool", c.scalar(sa.select(sa.literal(turn))))


def reflection(seen, engine):
    inspector = sa.inspect(engine)
    seen.say(
        "tables",
        sorted(inspector.get_table_names()),
        inspector.has_table("agent"),
        inspector.default_schema_name,
    )
    for column in inspector.get_columns("agent"):
        seen.say("column", column["name"], str(column["type"]), column["nullable"])
    seen.say(
        "keys",
        inspector.get_foreign_keys("step"),
        inspector.get_unique_constraints("agent"),
        inspector.get_enums()[0]["labels"],
    )
    found = sa.MetaData()
    found.reflect(engine)
    seen.say("reflected", sorted(found.tables))


def core(seen, engine):
    agent = Agent.__table__
    with engine.begin() as c:
        c.execute(
            agent.insert(),
            [
                {
                    "name": f"bulk {n}",
                    "mood": Mood.busy,
                    "tags": ["a", "b"],
                    "more": {"n": n},
                    "cost": n,
                }
                for n in range(60)
            ],
        )
        rows = c.execute(
            agent.insert().returning(agent.c.id, agent.c.name, sort_by_parameter_order=True),
            [{"name": f"got {n}"} for n in range(5)],
        )
        seen.say("returned", [r.name for r in rows])
        upsert = (
            pg.insert(agent)
            .values(name="bulk 1", mood=Mood.calm)
            .on_conflict_do_update(index_elements=["name"], set_={"cost": 99})
        )
        seen.say("upsert", c.execute(upsert).rowcount)
    with engine.connect() as c:
        for turn in range(7):
            seen.say(
                "select",
                c.execute(
                    sa.select(agent.c.name, agent.c.more["n"].as_integer(), agent.c.tags[1])
                    .where(agent.c.cost > turn)
                    .order_by(agent.c.cost)
                    .limit(2)
                ).all(),
            )
            c.commit()
        result = c.execution_options(stream_results=True, max_row_buffer=20).execute(
            sa.select(agent.c.name).order_by(agent.c.name)
        )
        seen.say("streamed", sum(1 for _ in result.yield_per(10)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        seen.say(
            "autocommit",
            c.scalar(sa.text("select count(*) from agent where name = :name"), {"name": "bulk 1"}),
        )
    try:
        with engine.begin() as c:
            c.execute(agent.insert().values(name="bulk 1"))
    except sa.exc.IntegrityError as error:
        seen.say("unique", type(error.orig).__name__)


def orm(seen, engine):
    with Session(engine) as session:
        session.add_all([Agent(name=f"agent {n}", steps=[Step(), Step()]) for n in range(5)])
        session.commit()
        try:
            with session.begin_nested():
                session.add(Agent(name="agent 1"))
                session.flush()
        except sa.exc.IntegrityError as error:
            seen.say("nested", type(error.orig).__name__)
        found = session.scalars(
            sa.select(Agent)
            .options(selectinload(Agent.steps))
            .where(Agent.name.like("agent %"))
            .order_by(Agent.name)
        ).all()
        seen.say("found", [(a.name, a.mood, len(a.steps)) for a in found])
        found[0].mood = Mood.busy
        session.delete(found[1])
        session.commit()
        locked = session.scalars(
            sa.select(Agent).where(Agent.name == "agent 0").with_for_update(skip_locked=True)
        ).one()
        seen.say("locked", locked.mood)
        session.rollback()
        seen.say(
            "streamed",
            sum(1 for _ in session.scalars(sa.select(Step).execution_options(yield_per=3))),
        )


def isolation(seen, engine):
    serial = engine.execution_options(isolation_level="SERIALIZABLE")
    for _ in range(2):
        with serial.connect() as c:
            seen.say("serial", c.scalar(sa.text("show transaction_isolation")))
    with engine.connect() as c:
        seen.say(
            "default",
            c.scalar(sa.text("show transaction_isolation")),
            c.get_isolation_level(),
            c.default_isolation_level,
        )
    options = {"postgresql_readonly": True, "postgresql_deferrable": True}
    with engine.connect().execution_options(**options) as c:
        seen.say("read only", c.scalar(sa.text("show transaction_read_only")))


def two_phases(seen, engine):
    with engine.connect() as c:
        two = c.begin_twophase(xid=f"{seen.schema}_two")
        c.execute(Agent.__table__.insert().values(name="two phases"))
        two.prepare()
        two.commit()
        seen.say(
            "two phases", c.scalar(sa.text("select count(*) from agent where name = 'two phases'"))
        )


def many(seen, engine):
    def work(number):
        with engine.begin() as c:
            return c.scalar(sa.text("select cast(:n as int) + 1"), {"n": number})

    with t.concurrent.futures.ThreadPoolExecutor(4) as threads:
        seen.say("pool", sum(threads.map(work, range(30))))


t.run(tour)
