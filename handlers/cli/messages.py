"""flask notifier, relay."""

import sys
import threading

import click
from flask import current_app

from handlers.cli.common import commands, database, one_line_errors, stopped
from handlers.cli.common import create_app as create_app
from handlers.messages.notifier import notify
from handlers.messages.relay import relay, run
from handlers.messages.senders import by_line, by_webhook, has_reader


@commands.cli.command("notifier")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends, too: with whoever started it.")
def notifier(until_eof: bool) -> None:
    """Send the events that wait, until Ctrl-C: through RabbitMQ if AMQP_URL is set, with a relay inside.

    Each is printed; with NOTIFY_URL it is first sent there as a POST, its event_id as Idempotency-Key.
    """
    url = current_app.config["NOTIFY_URL"]
    if not url and not has_reader():
        sys.exit("Standard output cannot be written: nobody reads it.")
    with one_line_errors(), database() as dsn:
        send = by_webhook(url) if url else by_line
        notify(
            dsn,
            current_app.config["AMQP_URL"],
            current_app.config["AMQP_QUEUE"],
            send,
            current_app.config["NOTIFY_DELAYS"],
            stopped(until_eof),
        )


@commands.cli.command("relay")
def hand_on() -> None:
    """Hand the events that wait on to the queue AMQP_QUEUE of the RabbitMQ at AMQP_URL, until Ctrl-C."""
    if not current_app.config["AMQP_URL"]:
        raise click.UsageError("There is no AMQP_URL.")
    with one_line_errors(), database() as dsn:
        stop = stopped()
        hands = threading.Thread(
            target=relay, args=(dsn, current_app.config["AMQP_URL"], current_app.config["AMQP_QUEUE"], stop)
        )
        run([hands], stop)
