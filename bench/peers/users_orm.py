"""A peer, as its users write it: FastAPI with SQLAlchemy 2 and a pydantic response model."""

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1), pool_size=10)
Sessions = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
    email: Mapped[str]
    name: Mapped[str]
    address: Mapped[str]
    image: Mapped[str]
    text: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    version: int
    email: str
    name: str
    address: str
    image: str
    text: str | None
    created_at: datetime
    updated_at: datetime


def session() -> Iterator[Session]:
    with Sessions() as found:
        yield found


app = FastAPI()


@app.get("/users/{id}")
def by_id(id: int, session: Annotated[Session, Depends(session)]) -> UserOut:
    return session.get(User, id) or missing()


def missing():
    raise HTTPException(404)
