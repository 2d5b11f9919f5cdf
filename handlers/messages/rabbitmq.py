"""RabbitMQ: the queue that events go through, and the one beside it for messages that are none of ours."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.exceptions import AMQPError, NackError, UnroutableError
from pika.frame import Method
from pika.spec import Basic

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


def parameters(url: str) -> pika.URLParameters:
    found = pika.URLParameters(url)
    found.heartbeat = HEARTBEAT
    found.socket_timeout = found.stack_timeout = found.blocked_connection_timeout = ANSWER_WITHIN
    return found


def open_channel(url: str, queue: str) -> BlockingChannel:
    """A connection with a channel that confirms, its queues declared. Raises Lost."""
    channel = pika.BlockingConnection(parameters(url)).channel()
    channel.confirm_delivery()
    channel.exchange_declare(dead(queue), "fanout", durable=True)
    channel.queue_declare(dead(queue), durable=True)
    channel.queue_bind(dead(queue), dead(queue))
    # A quorum queue: on disk before it is confirmed, and on several nodes where there are several.
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": dead(queue), "x-delivery-limit": DELIVERIES}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    return channel


class Publisher:
    """A connection that gives events to the broker, many at a time: to wait for each costs it and us ten times as much.

    pika's blocking connection can only wait for each; this one calls back, and its loop runs while there is something
    to wait for.
    """

    def __init__(self, url: str, queue: str) -> None:
        self.queue = queue
        self.published = 0
        self.unconfirmed: set[int] = set()
        self.error: Exception | None = None
        self.connection = pika.SelectConnection(
            parameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self.opened),
            on_open_error_callback=self.lost,
            on_close_callback=self.lost,
        )
        self.loop = self.connection.ioloop

    def opened(self, channel: Channel) -> None:
        self.channel = channel
        channel.add_on_close_callback(self.lost)
        channel.add_on_return_callback(lambda *_: self.lost(channel, UnroutableError([])))
        channel.confirm_delivery(self.answered, callback=lambda _: self.loop.stop())

    def lost(self, _: object, error: Exception) -> None:
        self.error = self.error or error
        self.loop.stop()

    def answered(self, frame: Method) -> None:
        """Take what the broker says of one message, or of all up to it."""
        answer = frame.method
        if isinstance(answer, Basic.Nack):
            self.lost(self.channel, NackError([]))
        done = (
            {tag for tag in self.unconfirmed if tag <= answer.delivery_tag}
            if answer.multiple
            else {answer.delivery_tag}
        )
        self.unconfirmed -= done
        if not self.unconfirmed:
            self.loop.stop()

    def wait(self) -> None:
        """Until the broker answered. Raises Lost."""
        late = self.loop.call_later(ANSWER_WITHIN, lambda: self.lost(self.connection, TimeoutError("no answer")))
        self.run()
        self.loop.remove_timeout(late)

    def idle(self, seconds: float) -> None:
        """Only answer the broker's heartbeats. Raises Lost."""
        self.loop.call_later(seconds, self.loop.stop)
        self.run()

    def run(self) -> None:
        self.loop.start()
        if self.error:
            raise self.error

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Give events (event_id, message) to the broker; returns once it has them all. Raises Lost."""
        for event_id, message in messages:
            properties = pika.BasicProperties(delivery_mode=2, content_type="application/json", message_id=event_id)
            self.channel.basic_publish("", self.queue, message, properties, mandatory=True)
            self.published += 1
            self.unconfirmed.add(self.published)
        self.wait()

    def close(self) -> None:
        with suppress(*Lost):
            self.connection.close()
            self.wait()
        self.loop.close()


@contextmanager
def publisher(url: str, queue: str) -> Iterator[Publisher]:
    """A connection to publish by, the queues declared. Raises Lost."""
    close(open_channel(url, queue))
    publisher = Publisher(url, queue)
    try:
        publisher.wait()
        yield publisher
    finally:
        publisher.close()


def put_aside(channel: BlockingChannel, queue: str, body: bytes, reason: str) -> None:
    """Copy a message to the dead ones, with the reason among its headers. Raises Lost."""
    properties = pika.BasicProperties(delivery_mode=2, headers={"reason": reason})
    channel.basic_publish(dead(queue), "", body, properties, mandatory=True)


def close(channel: BlockingChannel) -> None:
    """Close a channel's connection, if it still is open."""
    with suppress(*Lost):
        channel.connection.close()
