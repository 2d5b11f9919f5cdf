"""A peer, as its users write it: FastAPI on uvicorn[standard], psycopg's AsyncConnectionPool, a pydantic model."""

import os
from contextlib import asynccontextmanager
from datetime import datetime

from fastapi import FastAPI, HTTPException
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

pool = AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=10, max_size=10, open=False)


@asynccontextmanager
async def lifespan(app: FastAPI):
    await pool.open()
    yield
    await pool.close()


app = FastAPI(lifespan=lifespan)


class User(BaseModel):
    id: int
    version: int
    email: str
    name: str
    address: str
    image: str
    text: str | None
    created_at: datetime
    updated_at: datetime


COLUMNS = "id, version, email, name, address, image, text, created_at, updated_at"
BY_ID = f"select {COLUMNS} from users where id = %s"  # noqa: S608
BY_EMAIL = f"select {COLUMNS} from users where email_key(email) = email_key(%s)"  # noqa: S608
PAGE = f"select {COLUMNS} from users where id > %s order by id limit %s"  # noqa: S608
# Where there is pg_trgm an index on the column serves ILIKE. Here it is given the index that ours has.
SEARCH = f"""
    select {COLUMNS}
    from users
    where trigrams(address) @> trigrams(%s) and address ilike %s and id > %s
    order by id
    limit %s
"""  # noqa: S608
CHANGE = f"update users set name = %s where id = %s returning {COLUMNS}"  # noqa: S608


class Change(BaseModel):
    name: str


@app.get("/users/{id}")
async def by_id(id: int) -> User:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(BY_ID, [id])
        user = await cursor.fetchone()
    if user is None:
        raise HTTPException(404)
    return user


@app.get("/user")
async def by_email(email: str) -> User:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(BY_EMAIL, [email])
        user = await cursor.fetchone()
    if user is None:
        raise HTTPException(404)
    return user


@app.get("/users")
async def page(limit: int = 50, after: int = 0, address: str | None = None) -> list[User]:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
        if address is None:
            await cursor.execute(PAGE, [after, limit])
        else:
            await cursor.execute(SEARCH, [address, f"%{address}%", after, limit])
        return await cursor.fetchall()


@app.patch("/users/{id}")
async def change(id: int, change: Change) -> User:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(CHANGE, [change.name, id])
        user = await cursor.fetchone()
    if user is None:
        raise HTTPException(404)
    return user
