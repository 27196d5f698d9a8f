"""The product's tables as SQLAlchemy's ORM has them."""

import os

from sqlalchemy import URL
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DATABASE = URL.create(
    "postgresql+psycopg",
    username=os.environ["PGUSER"],
    password=os.environ["PGPASSWORD"],
    host=os.environ["PGHOST"],
    port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"],
)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


class Step(Base):
    __tablename__ = "steps"
    id: Mapped[int] = mapped_column(primary_key=True)
    agent: Mapped[int]
    answer: Mapped[str]
