"""RabbitMQ: the queue that events go through, and the one beside it for messages that are none of ours."""

from contextlib import suppress

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

HEARTBEAT = 30
"""Seconds after which a silent connection is taken for dead."""

ANSWER_WITHIN = 10
"""Seconds in which the broker must answer, also while it takes no messages (a memory or disk alarm)."""

DELIVERIES = 20
"""How often a message may be delivered before the broker itself puts it aside: whoever gets it dies of it."""

Lost = (AMQPError, OSError)
"""What is raised where the broker is away."""


def dead(queue: str) -> str:
    """The name of the exchange and the queue of what could not be read."""
    return f"{queue}.dead"


def open_channel(url: str, queue: str) -> BlockingChannel:
    """A connection with a channel that confirms, its queues declared. Raises Lost."""
    parameters = pika.URLParameters(url)
    parameters.heartbeat = HEARTBEAT
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = ANSWER_WITHIN
    channel = pika.BlockingConnection(parameters).channel()
    channel.confirm_delivery()
    channel.exchange_declare(dead(queue), "fanout", durable=True)
    channel.queue_declare(dead(queue), durable=True)
    channel.queue_bind(dead(queue), dead(queue))
    # A quorum queue: on disk before it is confirmed, and on several nodes where there are several.
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": dead(queue), "x-delivery-limit": DELIVERIES}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    return channel


def publish(channel: BlockingChannel, queue: str, event_id: str, body: bytes) -> None:
    """Give an event to the broker; returns once it has it. Raises Lost."""
    properties = pika.BasicProperties(delivery_mode=2, content_type="application/json", message_id=event_id)
    channel.basic_publish("", queue, body, properties, mandatory=True)


def put_aside(channel: BlockingChannel, queue: str, tag: int, body: bytes, reason: str) -> None:
    """Move a message to the dead ones, with the reason among its headers. Raises Lost."""
    properties = pika.BasicProperties(delivery_mode=2, headers={"reason": reason})
    channel.basic_publish(dead(queue), "", body, properties, mandatory=True)
    channel.basic_ack(tag)


def close(channel: BlockingChannel) -> None:
    """Close a channel's connection, if it still is open."""
    with suppress(*Lost):
        channel.connection.close()
