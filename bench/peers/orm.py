"""A peer, as its users write it: FastAPI, SQLAlchemy 2 with selectinload, a pydantic response model."""

import os
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ARRAY, ForeignKey, Text, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1), pool_size=10)
Sessions = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Versioned:
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    image: Mapped[str | None]


class Task(Versioned, Base):
    __tablename__ = "tasks"
    userstory_id: Mapped[int] = mapped_column(ForeignKey("userstories.id"))
    subject: Mapped[str]
    status: Mapped[str]
    assigned_to: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    assignee: Mapped[User | None] = relationship()


class Comment(Versioned, Base):
    __tablename__ = "comments"
    userstory_id: Mapped[int] = mapped_column(ForeignKey("userstories.id"))
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    text: Mapped[str]
    author: Mapped[User | None] = relationship()


class Milestone(Versioned, Base):
    __tablename__ = "milestones"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    closed: Mapped[bool]


class UserStory(Versioned, Base):
    __tablename__ = "userstories"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    ref: Mapped[int]
    milestone_id: Mapped[int | None]
    subject: Mapped[str]
    description: Mapped[str | None]
    status: Mapped[str]
    assigned_to: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    points: Mapped[Decimal | None]
    assignee: Mapped[User | None] = relationship()
    tasks: Mapped[list[Task]] = relationship(order_by=Task.id)
    comments: Mapped[list[Comment]] = relationship(order_by=Comment.id)


class Project(Versioned, Base):
    __tablename__ = "projects"
    name: Mapped[str]
    slug: Mapped[str]
    description: Mapped[str | None]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    owner: Mapped[User | None] = relationship()
    milestones: Mapped[list[Milestone]] = relationship(order_by=Milestone.id)
    userstories: Mapped[list[UserStory]] = relationship(order_by=UserStory.id)


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class VersionedOut(Out):
    id: int
    version: int
    created_at: datetime
    updated_at: datetime


class UserOut(Out):
    id: int
    name: str | None
    image: str | None


class TaskOut(VersionedOut):
    userstory_id: int
    subject: str
    status: str
    assignee: UserOut | None


class CommentOut(VersionedOut):
    userstory_id: int
    text: str
    author: UserOut | None


class MilestoneOut(VersionedOut):
    name: str
    closed: bool


class UserStoryOut(VersionedOut):
    project_id: int
    ref: int
    milestone_id: int | None
    subject: str
    description: str | None
    status: str
    assignee: UserOut | None
    tags: list[str]
    points: float | None
    tasks: list[TaskOut]
    comments: list[CommentOut]


class ProjectOut(VersionedOut):
    name: str
    slug: str
    description: str | None
    owner: UserOut | None
    milestones: list[MilestoneOut]
    userstories: list[UserStoryOut]


def session() -> Iterator[Session]:
    with Sessions() as found:
        yield found


app = FastAPI()


@app.get("/projects/{id}/tree", response_model=ProjectOut)
def tree(id: int, session: Annotated[Session, Depends(session)]) -> Project:
    stories = selectinload(Project.userstories)
    found = session.scalar(
        select(Project)
        .where(Project.id == id)
        .options(
            selectinload(Project.owner),
            selectinload(Project.milestones),
            stories.selectinload(UserStory.assignee),
            stories.selectinload(UserStory.tasks).selectinload(Task.assignee),
            stories.selectinload(UserStory.comments).selectinload(Comment.author),
        )
    )
    if found is None:
        raise HTTPException(404)
    return found
