"""A peer, as its users write it: plain Flask with SQLAlchemy 2, for gunicorn's gthread worker."""

import os
from datetime import datetime

from flask import Flask, abort, jsonify
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1), pool_size=10)


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


app = Flask(__name__)


@app.get("/users/<int:id>")
def by_id(id: int):
    with Session(engine) as session:
        user = session.get(User, id) or abort(404)
        return jsonify({column.name: getattr(user, column.name) for column in User.__table__.columns})


@app.get("/openapi.json")
def ready():
    return {}
