"""A peer, as its users write it: FastAPI, which publishes each event within its request, and a consumer with pika.

The application is served by uvicorn; `python -m bench.peers.notifications` is the consumer.
"""

import json
import os

import pika
import psycopg
from fastapi import FastAPI
from psycopg_pool import ConnectionPool
from pydantic import BaseModel

QUEUE = "rowhouse.peer"

app = FastAPI()
pool = ConnectionPool(os.environ["DATABASE_URL"], max_size=10, open=False)


class NewEvent(BaseModel):
    user_id: str
    description: str


def open_channel() -> pika.adapters.blocking_connection.BlockingChannel:
    channel = pika.BlockingConnection(pika.URLParameters("amqp://guest:guest@127.0.0.1:5672/")).channel()
    channel.queue_declare(QUEUE, durable=True)
    return channel


@app.post("/events", status_code=201)
def create(event: NewEvent) -> dict:
    pool.open()
    with pool.connection() as connection:
        id = connection.execute(
            "insert into peer_events (user_id, description) values (%s, %s) returning id",
            [event.user_id, event.description],
        ).fetchone()[0]
    channel = open_channel()
    body = json.dumps({"event_id": id, **event.model_dump()})
    channel.basic_publish("", QUEUE, body.encode(), pika.BasicProperties(delivery_mode=2))
    channel.connection.close()
    return {"event_id": id, **event.model_dump(), "status": "NotProcessed"}


def consume() -> None:
    channel = open_channel()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:

        def told(channel, method, properties, body) -> None:
            event = json.loads(body)
            print(f"Event {event['event_id']} has been sent to {event['user_id']}: {event['description']}")
            connection.execute("update peer_events set status = 'Processed' where id = %s", [event["event_id"]])
            channel.basic_ack(method.delivery_tag)

        channel.basic_consume(QUEUE, told)
        channel.start_consuming()


if __name__ == "__main__":
    consume()
